//! Reads the bytes of requests by an absolute deadline.

use std::io;
use std::time::{Duration, Instant};

use crate::stream::Stream;

/// The reason why a read gave no bytes.
pub(super) enum ReadError {
    /// The client closed or broke off.
    Gone,
    /// The deadline came first.
    Late,
}

impl From<io::Error> for ReadError {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Reads at least one byte, until `deadline` at the latest.
pub(super) fn read_by(
    stream: &Stream,
    buffer: &mut [u8],
    deadline: Instant,
) -> Result<usize, ReadError> {
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ReadError::Late),
        left => Ok(left),
    };
    match stream.read_while(buffer, left)? {
        0 => Err(ReadError::Gone),
        count => Ok(count),
    }
}
