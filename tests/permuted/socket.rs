//! Stands for `std::net::TcpStream`, `socket2::SockRef` and `src/stream`: a socket of which the permuter chooses how much
//! it takes at once.
//!
//! The peer answers the end of what it is sent with its own end.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::permuter::{chance, up_to};
use crate::threads::lock;

#[derive(Default)]
struct Wire {
    /// All that the peer was sent.
    sent: Vec<u8>,
    /// The peer is sent no more.
    is_shut: bool,
    /// Nothing more comes from the peer.
    input_ended: bool,
    /// The peer is gone: what is written fails.
    is_reset: bool,
}

#[derive(Default)]
pub struct TcpStream {
    wire: Mutex<Wire>,
    changed: Condvar,
}

impl TcpStream {
    /// All that was written.
    pub fn sent(&self) -> Vec<u8> {
        lock(&self.wire).sent.clone()
    }

    /// Whether the peer was told that this was all.
    pub fn is_shut(&self) -> bool {
        lock(&self.wire).is_shut
    }

    /// The peer ends its side, and still reads.
    pub fn peer_ends(&self) {
        lock(&self.wire).input_ended = true;
        self.changed.notify_all();
    }

    /// The peer is gone.
    pub fn peer_resets(&self) {
        let mut wire = lock(&self.wire);
        wire.is_reset = true;
        wire.input_ended = true;
        drop(wire);
        self.changed.notify_all();
    }

    pub fn set_read_timeout(&self, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }

    pub fn set_write_timeout(&self, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let mut wire = lock(&self.wire);
        wire.is_shut |= how != Shutdown::Read;
        wire.input_ended = true;
        drop(wire);
        self.changed.notify_all();
        Ok(())
    }

    /// Sends `count` of the bytes.
    fn accept(&self, bytes: &[u8], count: usize) -> io::Result<usize> {
        let mut wire = lock(&self.wire);
        if wire.is_reset || wire.is_shut {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        wire.sent.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

impl Read for &TcpStream {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let mut wire = lock(&self.wire);
        while !wire.input_ended {
            wire = wire.wait(&self.changed);
        }
        Ok(0)
    }
}

impl Write for &TcpStream {
    /// Blocks, so it takes something, or all.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.accept(bytes, if chance(2) { bytes.len() } else { 1 })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end that is written to without blocking.
pub struct SockRef<'a>(&'a TcpStream);

impl<'a> From<&'a TcpStream> for SockRef<'a> {
    fn from(socket: &'a TcpStream) -> Self {
        Self(socket)
    }
}

impl SockRef<'_> {
    /// Takes all, a part, or nothing.
    pub fn send_with_flags(&self, bytes: &[u8], _: i32) -> io::Result<usize> {
        self.0.accept(bytes, up_to(bytes.len()))
    }
}

/// A stream in the clear.
#[derive(Default)]
pub struct Stream(TcpStream);

impl Stream {
    pub fn socket(&self) -> &TcpStream {
        &self.0
    }

    pub fn is_encrypted(&self) -> bool {
        false
    }

    pub fn sealed<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        Cow::Borrowed(bytes)
    }

    pub fn farewell(&self) -> Vec<u8> {
        Vec::new()
    }
}
