//! A connection's bytes, in the clear or with TLS.
//!
//! Reading and writing go separate ways, so that neither waits for the other. [`Stream::read`] waits for the socket
//! without a lock, and decrypts what came. A thread that writes has its bytes [sealed](Stream::sealed) first, and
//! then writes them to the [socket](Stream::socket), in the order in which they were sealed. So it may write without
//! blocking, or queue what the kernel does not take.
//!
//! TLS is in the feature `tls`. Without it, `no_tls` stands in its place, and nothing can be encrypted. [`ServerUrl`]
//! names a server that a stream is opened to, and [`ResponseHead`] is the beginning of its HTTP response.

#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
mod response_head;
mod server_url;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

pub use self::response_head::{NotHttp, ResponseHead};
pub use self::server_url::{ServerUrl, open};
use self::tls::TlsSession;
pub use self::tls::{Authorities, Identity};

/// The two ends' bytes, and how they are written on the wire.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    session: Option<TlsSession>,
}

/// The reason why TLS cannot be used. The operator acts next.
#[derive(Debug)]
pub enum TlsError {
    /// This binary was built without it.
    NotBuilt,
    /// The file cannot be read, or holds nothing of use, for this reason.
    File(PathBuf, String),
    /// The certificate and the key cannot be used together, for this reason.
    Unusable(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuilt => f.write_str(
                "this hubbub was built without TLS; cargo install --path . --features tls builds one with it",
            ),
            Self::File(path, why) => write!(f, "cannot use {}: {why}", path.display()),
            Self::Unusable(why) => write!(f, "the certificate and its key cannot be used: {why}"),
        }
    }
}

impl std::error::Error for TlsError {}

impl Stream {
    /// A stream in the clear.
    pub fn plain(socket: TcpStream) -> Self {
        Self {
            socket,
            session: None,
        }
    }

    /// The server's end, with TLS. The handshake is a part of the first reads.
    pub fn server(socket: TcpStream, identity: &Identity) -> io::Result<Self> {
        let session = Some(identity.session()?);
        Ok(Self { socket, session })
    }

    /// The client's end, with TLS, to the server of this name or address. The handshake begins with the first write,
    /// and is a part of the reads that follow.
    pub fn client(socket: TcpStream, authorities: &Authorities, host: &str) -> io::Result<Self> {
        let session = Some(authorities.session(host)?);
        Ok(Self { socket, session })
    }

    /// The socket, for time-outs, for shutting it down, and for writing what is [sealed](Self::sealed).
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether the TLS handshake is still under way. Until its end, no sealed bytes were sent.
    pub fn is_handshaking(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(TlsSession::is_handshaking)
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.session.is_some()
    }

    /// Waits for bytes, as long as the socket's time-out says; 0 is the end. Only one thread may read. Fails with
    /// [`io::ErrorKind::Interrupted`] if something came and no byte can be read yet: so the caller can look at its
    /// deadline, and reads again.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.session {
            None => (&self.socket).read(buffer),
            Some(session) => session.read(&self.socket, buffer),
        }
    }

    /// Reads as [`read`](Self::read) does, and waits again until there are bytes or an end. `left` returns the time for
    /// the next wait, or the error that ends the reading.
    pub fn read_while<E: From<io::Error>>(
        &self,
        buffer: &mut [u8],
        left: impl Fn() -> Result<Duration, E>,
    ) -> Result<usize, E> {
        loop {
            self.socket.set_read_timeout(Some(left()?))?;
            match self.read(buffer) {
                Err(error) if is_passing(&error) => {}
                read => return Ok(read?),
            }
        }
    }

    /// Seals these bytes and writes all of them; no other thread may write meanwhile. `left` returns the time for the
    /// next wait, or the error that ends the writing. A peer that takes a few bytes now and then does not extend it.
    pub fn write_while<E: From<io::Error>>(
        &self,
        bytes: &[u8],
        left: impl Fn() -> Result<Duration, E>,
    ) -> Result<(), E> {
        let sealed = self.sealed(bytes);
        let mut bytes = &*sealed;
        while !bytes.is_empty() {
            self.socket.set_write_timeout(Some(left()?))?;
            match (&self.socket).write(bytes) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The bytes as they have to be written to the socket. Whatever was sealed before has to be written before.
    pub fn sealed<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.session {
            None => Cow::Borrowed(bytes),
            Some(session) => Cow::Owned(session.sealed(bytes)),
        }
    }

    /// What has to be written to the socket last (RFC 8446 §6.1): nothing in the clear. Nothing may be read
    /// afterwards. A WebSocket does without: its close frame is such an end, and the answer to it is read.
    pub fn farewell(&self) -> Vec<u8> {
        self.session
            .as_ref()
            .map(TlsSession::farewell)
            .unwrap_or_default()
    }
}

/// Whether the next read or write may go well.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
