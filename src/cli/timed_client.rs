//! A client with a deadline, for `hubbub tail`.

use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use super::complain;
use super::exit::Exit;
use crate::client::{Client, ClientEvent};
use crate::protocol::Event;

/// The limit for the goodbye after the deadline. A healthy server answers in this time.
const LATE_GOODBYE_WITHIN: Duration = Duration::from_millis(200);

/// The client's thread ended and reported no reason: it panicked.
pub(super) fn client_ended() -> Exit {
    Exit::Failed("the client ended".to_owned())
}

/// A client, the deadline of its command, and the reason to give if the deadline passes.
pub(super) struct TimedClient {
    client: Client,
    deadline: Option<Instant>,
    /// The last failure. Cleared by every success.
    last_trouble: Option<String>,
}

impl TimedClient {
    /// The deadline is `timeout` seconds from now.
    pub(super) fn new(client: Client, timeout: Option<u64>) -> Self {
        Self {
            client,
            // A deadline too far away for the clock is none.
            deadline: timeout
                .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds))),
            last_trouble: None,
        }
    }

    /// Waits for the next event of the server. `None` once the deadline has passed.
    pub(super) fn next_event(&mut self) -> Result<Option<Event>, Exit> {
        loop {
            let event = match self.deadline {
                Some(deadline) => self.client.events().recv_deadline(deadline),
                None => self.client.events().recv().map_err(Into::into),
            };
            match event {
                Ok(ClientEvent::Connected) => self.last_trouble = None,
                Ok(ClientEvent::Disconnected { why, .. } | ClientEvent::Postponed(why)) => {
                    self.trouble(why);
                }
                Ok(ClientEvent::Refused(why)) => return Err(Exit::Failed(why)),
                Ok(ClientEvent::Server(event)) => {
                    self.last_trouble = None;
                    return Ok(Some(event));
                }
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(client_ended()),
            }
        }
    }

    /// Keeps the reason for the end of the command. A command without a deadline may never end, so
    /// the user reads the reason now, once.
    fn trouble(&mut self, why: String) {
        if self.deadline.is_none() && self.last_trouble.as_ref() != Some(&why) {
            complain(format_args!("* {why}; trying again"));
        }
        self.last_trouble = Some(why);
    }

    /// The deadline has passed: closes the client and says why `what` is the outcome.
    pub(super) fn timed_out(self, what: &str) -> Exit {
        self.client.close_within(LATE_GOODBYE_WITHIN);
        let why = self.last_trouble.as_deref().unwrap_or("the time is up");
        Exit::Failed(format!("{what}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::client::ServerUrl;

    /// A client whose thread has ended. A panic ends it the same way, without an event before.
    fn ended_client() -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("the client");
            let _ = socket.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        });
        let url = ServerUrl::parse(&address).expect("an address");
        let client = Client::start(url, "alice".parse().expect("a name")).expect("a thread");
        let last = client.events().recv();
        assert!(matches!(last, Ok(ClientEvent::Refused(_))), "{last:?}");
        server.join().expect("no panic");
        client
    }

    #[test]
    fn a_client_that_ended_is_an_error_and_not_a_passed_deadline() {
        for timeout in [None, Some(60)] {
            match TimedClient::new(ended_client(), timeout).next_event() {
                Err(Exit::Failed(why)) => assert_eq!(why, "the client ended"),
                _ => panic!("the command would end as if its time were up"),
            }
        }
    }
}
