//! Parts that `hubbub join`, `say` and `tail` share.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use super::{UserName, Where, complain};
use crate::client::{Client, ClientEvent, ClientOptions};
use crate::protocol::Event;
use crate::protocol::text::Line;
use crate::server::config::limit;

/// The time that a goodbye may take once the command's own time is up. A healthy server answers in it.
const LATE_GOODBYE_WITHIN: Duration = Duration::from_millis(200);

/// The longest text that is read, in bytes: no server takes a longer one.
pub(super) const LONGEST_TEXT: u64 = *limit::MAX_MESSAGE.range.end();

/// The result of a step that may print.
pub(super) type Printed = Result<(), Stop>;

/// Why a command ends before it is done.
pub(super) enum Stop {
    /// All that was asked for is printed, or nobody reads it any more.
    Enough,
    /// The user or a signal ends the command, with this exit code.
    Leave(u8),
    Failed(String),
}

/// A write fails when nobody reads the output any more.
impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Enough
    }
}

pub(super) fn outcome(ended: Printed) -> Result<ExitCode, String> {
    match ended {
        Ok(()) | Err(Stop::Enough) => Ok(ExitCode::SUCCESS),
        Err(Stop::Leave(code)) => Ok(ExitCode::from(code)),
        Err(Stop::Failed(why)) => Err(why),
    }
}

/// The client's thread ended and told no reason: it panicked.
pub(super) fn client_ended() -> Stop {
    Stop::Failed("the client ended".to_owned())
}

pub(super) fn print_lines(lines: &[Line]) -> Printed {
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut out = io::stdout().lock();
    out.write_all(lines.as_bytes())?;
    Ok(out.flush()?)
}

pub(super) fn start(at: &Where, name: &UserName) -> Result<Client, Stop> {
    let options = ClientOptions {
        servers: at.url.clone(),
        user: name.clone(),
        token: at.token.clone(),
    };
    Client::start_with(options)
        .map_err(|error| Stop::Failed(format!("cannot start a thread: {error}")))
}

/// The time that is left, and what to say when there is none.
pub(super) struct Patience {
    deadline: Option<Instant>,
    /// Why it is not done yet, since something last went well.
    last_trouble: Option<String>,
}

impl Patience {
    pub(super) fn new(timeout: Option<u64>) -> Self {
        Self {
            // One too far to be told is none.
            deadline: timeout
                .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds))),
            last_trouble: None,
        }
    }

    /// The next thing that happens; `None` when the time is up.
    pub(super) fn next(&mut self, client: &Client) -> Result<Option<Event>, Stop> {
        loop {
            let happening = match self.deadline {
                Some(deadline) => client.events().recv_deadline(deadline),
                None => client.events().recv().map_err(Into::into),
            };
            match happening {
                Ok(ClientEvent::Connected) => self.last_trouble = None,
                Ok(ClientEvent::Disconnected { why, .. } | ClientEvent::Postponed(why)) => {
                    self.trouble(why);
                }
                Ok(ClientEvent::Refused(why)) => return Err(Stop::Failed(why)),
                Ok(ClientEvent::Server(event)) => {
                    self.last_trouble = None;
                    return Ok(Some(event));
                }
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(client_ended()),
            }
        }
    }

    /// Where there is no end at which it could be told, it is told now, and once.
    fn trouble(&mut self, why: String) {
        if self.deadline.is_none() && self.last_trouble.as_ref() != Some(&why) {
            complain(format_args!("* {why}; trying again"));
        }
        self.last_trouble = Some(why);
    }

    /// The error for a command that ran out of time, with no time left for a long goodbye either.
    pub(super) fn up(self, client: Client, what: &str) -> Stop {
        client.close_within(LATE_GOODBYE_WITHIN);
        let why = self.last_trouble.as_deref().unwrap_or("the time is up");
        // The server's sentence is about one attempt of several.
        let why = why.strip_prefix("not sent: ").unwrap_or(why);
        Stop::Failed(format!("{what}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::client::ServerUrl;

    /// A client whose thread has ended. A panic ends it the same way, with no happening before.
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
    fn a_client_that_ended_is_an_error_and_not_the_end_of_the_time() {
        for timeout in [None, Some(60)] {
            match Patience::new(timeout).next(&ended_client()) {
                Err(Stop::Failed(why)) => assert_eq!(why, "the client ended"),
                _ => panic!("the command would end as if its time were up"),
            }
        }
    }
}
