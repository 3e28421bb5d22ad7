//! The ends of the commands, and their exit codes.

use std::io;
use std::process::ExitCode;

use super::complain;
use crate::protocol::text::shown;

/// The exit code for a command that failed.
const FAILED: u8 = 1;

/// The exit code for arguments that are wrong: to try again is in vain. `scripts/deploy/hubbub.service` names it.
const USAGE: u8 = 2;

/// The reason why a command ends, other than the end of its work.
#[derive(Debug)]
pub(super) enum Exit {
    /// All that the user wanted is printed, or nobody reads the output any more.
    Done,
    /// The user, or a signal, ends the command with this exit code.
    Code(u8),
    /// The command failed, for this reason. The same command may succeed later.
    Failed(String),
    /// The arguments are wrong, for this reason. The user has to change them.
    Usage(String),
}

/// Output fails when its reader is gone. That is an ordinary end, as of `hubbub tail | head`.
impl From<io::Error> for Exit {
    fn from(_: io::Error) -> Self {
        Self::Done
    }
}

impl From<String> for Exit {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

impl Exit {
    /// Lets `tell` print the reason of a failure, in place of [`Self::report`].
    pub(super) fn told_by(self, tell: impl FnOnce(&str)) -> Self {
        let (why, code) = match self {
            Self::Done | Self::Code(_) => return self,
            Self::Failed(why) => (why, FAILED),
            Self::Usage(why) => (why, USAGE),
        };
        tell(&why);
        Self::Code(code)
    }

    /// Prints the reason of a failure. Returns the exit code.
    pub(super) fn report(self) -> ExitCode {
        let (why, code) = match self {
            Self::Done => return ExitCode::SUCCESS,
            Self::Code(code) => return code.into(),
            Self::Failed(why) => (why, FAILED.into()),
            Self::Usage(why) => (why, USAGE.into()),
        };
        // It may hold what a server said.
        complain(format_args!("hubbub: {}", shown(&why.replace('\n', " "))));
        code
    }
}
