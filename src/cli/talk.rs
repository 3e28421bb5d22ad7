//! What `hubbub join`, `say` and `tail` share.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::{UserName, Where, complain};
use crate::client::{Client, Happening, Options};
use crate::protocol::{Event, text};

/// How long a goodbye may take once the time is up: a server that is well answers in this time.
const LATE_GOODBYE_WITHIN: Duration = Duration::from_millis(200);

/// What a step that may print comes to.
pub(super) type Printed = Result<(), Stop>;

/// Why a command ends before it is done.
pub(super) enum Stop {
    /// All that was asked for is printed, or nobody reads it any more.
    Enough,
    /// Whoever sits at the terminal, or a signal, wants it to end with this exit code.
    Leave(u8),
    Failed(String),
}

/// Whatever cannot be shown has nobody who reads it.
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

pub(super) fn print(event: &Event) -> Printed {
    let lines: String = text::render(event)
        .into_iter()
        .map(|line| line + "\n")
        .collect();
    let mut out = io::stdout().lock();
    out.write_all(lines.as_bytes())?;
    Ok(out.flush()?)
}

pub(super) fn start(at: &Where, name: &UserName) -> Result<Client, Stop> {
    let options = Options {
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
                Some(deadline) => client.happenings().recv_deadline(deadline).ok(),
                None => client.happenings().recv().ok(),
            };
            match happening {
                None => return Ok(None),
                Some(Happening::Connected) => self.last_trouble = None,
                Some(Happening::Disconnected { why, .. } | Happening::Postponed(why)) => {
                    self.trouble(why);
                }
                Some(Happening::Refused(why)) => return Err(Stop::Failed(why)),
                Some(Happening::Event(event)) => {
                    self.last_trouble = None;
                    return Ok(Some(event));
                }
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

    /// What to say of `what` when there is no time left; not even for a long goodbye.
    pub(super) fn up(self, client: Client, what: &str) -> Stop {
        client.end_within(LATE_GOODBYE_WITHIN);
        let why = self.last_trouble.as_deref().unwrap_or("the time is up");
        // The server's sentence may begin so, too.
        let begin = format!("{what}: ");
        let why = why.strip_prefix(&begin).unwrap_or(why);
        Stop::Failed(format!("{what}: {why}"))
    }
}
