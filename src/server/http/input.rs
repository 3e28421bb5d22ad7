//! Reads the bytes of requests, each by an absolute deadline.

use std::io;
use std::time::Instant;

use crate::stream::Stream;

/// The reason why a read gave no bytes.
pub(super) enum ReadError {
    /// The client closed or broke off.
    Gone,
    /// The deadline came first.
    Late,
}

/// Reads at least one byte, until `deadline` at the latest.
pub(super) fn read_by(
    stream: &Stream,
    buffer: &mut [u8],
    deadline: Instant,
) -> Result<usize, ReadError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ReadError::Late);
        }
        let timed = stream.socket().set_read_timeout(Some(left));
        timed.map_err(|_| ReadError::Gone)?;
        match stream.read(buffer) {
            Ok(0) => return Err(ReadError::Gone),
            Ok(count) => return Ok(count),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Err(ReadError::Late),
                _ => return Err(ReadError::Gone),
            },
        }
    }
}
