//! TLS 1.2 and 1.3 by rustls, which does no I/O of its own.
//!
//! One lock guards the state of a connection. It is held to encrypt and to decrypt, and never during a read or a
//! write. The bytes of the handshake are written by the thread that reads: nobody else writes before the first bytes
//! were read.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, InvalidMessage, RootCertStore,
    ServerConfig, ServerConnection,
};

use super::TlsError;
use crate::threads::lock;

/// The protocol that is spoken inside (RFC 7301).
const HTTP: &[u8] = b"http/1.1";

/// One connection.
pub(super) struct TlsSession(Mutex<TlsState>);

struct TlsState {
    connection: Connection,
    /// What came and is not decrypted yet: rustls takes no more while there is something to read.
    left: Vec<u8>,
}

impl TlsSession {
    fn new(mut connection: Connection) -> Self {
        // What is sealed leaves the connection at once.
        connection.set_buffer_limit(None);
        Self(Mutex::new(TlsState {
            connection,
            left: Vec::new(),
        }))
    }

    /// See [`Stream::read`](super::Stream::read). `buffer` holds what came before it holds what it means.
    pub(super) fn read(&self, mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(count) = lock(&self.0).decrypted(buffer)? {
            return Ok(count);
        }
        let count = socket.read(buffer)?;
        let (taken, answer) = lock(&self.0).take(&buffer[..count]);
        let answered = socket.write_all(&answer);
        taken.and(answered)?;
        let decrypted = lock(&self.0).decrypted(buffer)?;
        decrypted.ok_or_else(|| ErrorKind::Interrupted.into())
    }

    pub(super) fn sealed(&self, bytes: &[u8]) -> Vec<u8> {
        let mut state = lock(&self.0);
        // There is no limit, so this does not fail. After a broken handshake it has no effect.
        let _ = state.connection.writer().write_all(bytes);
        state.outgoing()
    }

    pub(super) fn is_handshaking(&self) -> bool {
        lock(&self.0).connection.is_handshaking()
    }

    pub(super) fn farewell(&self) -> Vec<u8> {
        let mut state = lock(&self.0);
        state.connection.send_close_notify();
        state.outgoing()
    }
}

impl TlsState {
    /// What was decrypted, if anything was. The end is no bytes, whether the peer took leave or not: WebSocket and
    /// HTTP have ends of their own.
    fn decrypted(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.connection.reader().read(buffer) {
                Ok(count) => return Ok(Some(count)),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock if self.left.is_empty() => return Ok(None),
                    ErrorKind::WouldBlock => self.decrypt_left()?,
                    ErrorKind::UnexpectedEof => return Ok(Some(0)),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Takes what came, of which no bytes are the end. During the handshake, this has an answer, also to a fault.
    fn take(&mut self, came: &[u8]) -> (io::Result<()>, Vec<u8>) {
        let is_handshake = self.connection.is_handshaking();
        self.left.extend_from_slice(came);
        let taken = match came {
            [] => self.connection.read_tls(&mut io::empty()).map(drop),
            _ => self.decrypt_left(),
        };
        let answer = if is_handshake {
            self.outgoing()
        } else {
            Vec::new()
        };
        (taken, answer)
    }

    /// Decrypts until there is something to read, or nothing left.
    fn decrypt_left(&mut self) -> io::Result<()> {
        while !self.left.is_empty() {
            let count = self.connection.read_tls(&mut &*self.left)?;
            if count == 0 {
                // What follows the peer's farewell is no part of the stream (RFC 8446 §6.1).
                self.left.clear();
            }
            self.left.drain(..count);
            let state = self
                .connection
                .process_new_packets()
                .map_err(|why| fault(&why))?;
            if state.plaintext_bytes_to_read() > 0 {
                break;
            }
        }
        if self.left.is_empty() {
            // Most connections are quiet most of the time.
            self.left = Vec::new();
        }
        Ok(())
    }

    fn outgoing(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.connection.wants_write()
            && self
                .connection
                .write_tls(&mut wire)
                .is_ok_and(|count| count > 0)
        {}
        wire
    }
}

/// A certificate that is not trusted is [`ErrorKind::InvalidData`], and nothing else is.
fn fault(why: &rustls::Error) -> io::Error {
    let kind = match why {
        rustls::Error::InvalidCertificate(_) => ErrorKind::InvalidData,
        _ => ErrorKind::Other,
    };
    io::Error::new(kind, format!("TLS: {}", sentence(why)))
}

/// A reason that a newcomer often meets, in words that say what to do, or else rustls's own.
fn sentence(why: &rustls::Error) -> String {
    match why {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the other side does not speak TLS".to_owned()
        }
        // rustls has no variant for it, only webpki's name.
        rustls::Error::InvalidCertificate(CertificateError::Other(other))
            if other.0.to_string() == "CaUsedAsEndEntity" =>
        {
            "the server's certificate is one of an authority; make it with \
             openssl's -addext basicConstraints=critical,CA:FALSE"
                .to_owned()
        }
        why => why.to_string(),
    }
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSession")
    }
}

/// A server's certificate, with those that lead to its authority, and its key.
#[derive(Debug)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    config: Mutex<Arc<ServerConfig>>,
}

impl Identity {
    /// Reads both files, in PEM.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            config: Mutex::new(server_config(certificate, key)?),
        })
    }

    /// Reads the files again, for the connections that come. If they cannot be used, it stays as it is.
    pub fn read_again(&self) -> Result<(), TlsError> {
        let config = server_config(&self.certificate, &self.key)?;
        *lock(&self.config) = config;
        Ok(())
    }

    pub(super) fn session(&self) -> io::Result<TlsSession> {
        let config = Arc::clone(&lock(&self.config));
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(TlsSession::new(connection.into()))
    }
}

fn server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|why| unreadable(key, &why))?;
    let unusable = |why: rustls::Error| TlsError::Unusable(why.to_string());
    let builder = ServerConfig::builder_with_provider(default_provider().into());
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(unusable)?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
    config.alpn_protocols = vec![HTTP.to_vec()];
    Ok(config.into())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => {
            let why = "there is no certificate in it".to_owned();
            Err(TlsError::File(file.to_owned(), why))
        }
        read => read.map_err(|why| unreadable(file, &why)),
    }
}

fn unreadable(file: &Path, why: &rustls::pki_types::pem::Error) -> TlsError {
    use rustls::pki_types::pem::Error;
    let why = match why {
        Error::Io(why) => why.to_string(),
        Error::NoItemsFound => "there is no key in it".to_owned(),
        why => format!("it is not PEM: {why}"),
    };
    TlsError::File(file.to_owned(), why)
}

/// The authorities that a client trusts.
#[derive(Debug, Clone)]
pub struct Authorities(Arc<ClientConfig>);

impl Authorities {
    /// Those of this file, in PEM, or else those of the system.
    pub fn read(file: Option<&Path>) -> Result<Self, TlsError> {
        let mut trusted = RootCertStore::empty();
        match file {
            Some(file) => {
                for certificate in certificates(file)? {
                    let added = trusted.add(certificate);
                    added.map_err(|why| TlsError::File(file.to_owned(), why.to_string()))?;
                }
            }
            None => {
                // Some that the system has may be too old to be used.
                trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let config = ClientConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|why| TlsError::Unusable(why.to_string()))?;
        let mut config = config.with_root_certificates(trusted).with_no_client_auth();
        config.alpn_protocols = vec![HTTP.to_vec()];
        Ok(Self(config.into()))
    }

    pub(super) fn session(&self, host: &str) -> io::Result<TlsSession> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::clone(&self.0), name);
        Ok(TlsSession::new(
            connection.map_err(io::Error::other)?.into(),
        ))
    }
}
