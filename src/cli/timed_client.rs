//! A client with a deadline, for `hubbub tail`. It ends, too, once nobody reads the output.

use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, at, bounded, never, select};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::complain;
use super::exit::Exit;
use crate::client::{Client, ClientEvent};
use crate::protocol::Event;

/// The limit for the goodbye at the end. A healthy server answers in this time.
const GOODBYE_WITHIN: Duration = Duration::from_millis(200);

/// The client's thread ended and reported no reason: it panicked.
pub(super) fn client_ended() -> Exit {
    Exit::Failed("the client ended".to_owned())
}

/// A client, the deadline of its command, and the reason to give if the deadline passes.
pub(super) struct TimedClient {
    client: Client,
    deadline: Option<Instant>,
    /// Has an item once nobody reads the output any more.
    output_closed: Receiver<()>,
    /// The last failure. Cleared by every success.
    last_trouble: Option<String>,
}

impl TimedClient {
    /// The deadline is `timeout` seconds from now.
    pub(super) fn new(client: Client, timeout: Option<u64>) -> Result<Self, Exit> {
        let output_closed =
            watch_output().map_err(|why| format!("cannot start a thread: {why}"))?;
        Ok(Self {
            client,
            // A deadline too far away for the clock is none.
            deadline: timeout
                .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds))),
            output_closed,
            last_trouble: None,
        })
    }

    /// Waits for the next event of the server. `None` once the deadline has passed.
    pub(super) fn next_event(&mut self) -> Result<Option<Event>, Exit> {
        loop {
            let event = select! {
                recv(self.client.events()) -> event => event,
                recv(self.output_closed) -> _ => return Err(Exit::Done),
                recv(self.deadline.map_or_else(never, at)) -> _ => return Ok(None),
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
                Err(_) => return Err(client_ended()),
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

    /// Why `what` is the outcome, once the deadline has passed.
    pub(super) fn timed_out(&self, what: &str) -> Exit {
        let why = self.last_trouble.as_deref().unwrap_or("the time is up");
        Exit::Failed(format!("{what}: {why}"))
    }

    /// Says goodbye, and does not wait long for the answer.
    pub(super) fn close(self) {
        self.client.close_within(GOODBYE_WITHIN);
    }
}

/// Starts the thread that waits until nobody reads stdout any more, as behind `| head -1`. A write would notice it as
/// well, but in a quiet room there is none.
fn watch_output() -> io::Result<Receiver<()>> {
    let (tell, told) = bounded(1);
    let watch = move || {
        let stdout = io::stdout();
        // Without events asked for, poll(2) reports only errors: here, that the reader is gone.
        let mut watched = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        while matches!(
            poll(&mut watched, PollTimeout::NONE),
            Ok(0) | Err(Errno::EINTR)
        ) {}
        let _ = tell.send(());
    };
    let thread = thread::Builder::new().name("output".into());
    thread.spawn(watch).map(|_| told)
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
            let client = TimedClient::new(ended_client(), timeout);
            match client.and_then(|mut client| client.next_event()) {
                Err(Exit::Failed(why)) => assert_eq!(why, "the client ended"),
                _ => panic!("the command would end as if its time were up"),
            }
        }
    }
}
