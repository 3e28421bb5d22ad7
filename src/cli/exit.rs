//! The ends of `hubbub join`, `say` and `tail`.

use std::io;
use std::process::ExitCode;

/// The reason why a command ends, other than the end of its work.
pub(super) enum Exit {
    /// All that the user wanted is printed, or nobody reads the output any more.
    Done,
    /// The user, or a signal, ends the command with this exit code.
    Code(u8),
    /// The command failed, for this reason.
    Failed(String),
}

/// Output fails when its reader is gone. That is an ordinary end, as of `hubbub tail | head`.
impl From<io::Error> for Exit {
    fn from(_: io::Error) -> Self {
        Self::Done
    }
}

/// The exit code, or the reason of a failure.
pub(super) fn exit_code(outcome: Result<(), Exit>) -> Result<ExitCode, String> {
    match outcome {
        Ok(()) | Err(Exit::Done) => Ok(ExitCode::SUCCESS),
        Err(Exit::Code(code)) => Ok(ExitCode::from(code)),
        Err(Exit::Failed(why)) => Err(why),
    }
}
