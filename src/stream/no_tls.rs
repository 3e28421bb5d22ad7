//! What stands in the place of TLS in a binary without it: nothing that could be made.

use std::convert::Infallible;
use std::io;
use std::net::TcpStream;
use std::path::Path;

use super::TlsError;

#[derive(Debug)]
pub(super) struct TlsSession(Infallible);

impl TlsSession {
    pub(super) fn read(&self, _: &TcpStream, _: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }

    pub(super) fn sealed(&self, _: &[u8]) -> Vec<u8> {
        match self.0 {}
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn farewell(&self) -> Vec<u8> {
        match self.0 {}
    }
}

/// A server's certificate and key. There is none in this binary.
#[derive(Debug)]
pub struct Identity(Infallible);

impl Identity {
    /// Refuses.
    pub fn read(_: &Path, _: &Path) -> Result<Self, TlsError> {
        Err(TlsError::NotBuilt)
    }

    /// There is none to read.
    pub fn read_again(&self) -> Result<(), TlsError> {
        match self.0 {}
    }

    pub(super) fn session(&self) -> io::Result<TlsSession> {
        match self.0 {}
    }
}

/// The authorities that a client trusts. There are none in this binary.
#[derive(Debug, Clone)]
pub struct Authorities(Infallible);

impl Authorities {
    /// Refuses.
    pub fn read(_: Option<&Path>) -> Result<Self, TlsError> {
        Err(TlsError::NotBuilt)
    }

    pub(super) fn session(&self, _: &str) -> io::Result<TlsSession> {
        match self.0 {}
    }
}
