//! One connection to one server. A thread of its own reads it; the client's thread writes to it.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{ClientOptions, ClientToken};
use crate::protocol::{Command, Encoding, Event, json};
use crate::stream::{ServerUrl, Stream, open};
use crate::websocket::client::{ClientFrame, UpgradeError, masked};
use crate::websocket::{Ended, Incoming, ReadHalf, code};

/// The limit for the TCP connection, for the answer to the handshake, and for each write.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A server that sends nothing for this long, not even a pong, is gone.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(40);

/// The largest event that is read: a page of history is larger than a message.
const MAX_EVENT: usize = 64 << 20;

/// The capacity of the queue between the reading thread and the client's. While the queue is full, the
/// reading thread reads nothing, and TCP holds the server back.
const QUEUE: usize = 32;

/// A report of the reading thread.
pub(super) enum Received {
    Event(Event),
    /// Frames to write that answer the server's frames: pongs, and the close reply.
    Reply(Vec<u8>),
    /// A sign of life, and no event.
    Alive,
    /// The connection ended for this reason. Nothing follows.
    Ended(String),
    /// An operator closed the connection for this reason, and this user is not to come back. Nothing follows.
    PutOut(String),
}

/// One connection.
pub(super) struct Connection {
    stream: Arc<Stream>,
    /// The token that it was made with.
    pub(super) token: Option<String>,
    pub(super) received: Receiver<Received>,
    reader: JoinHandle<()>,
    /// Whether a write has failed, perhaps in the middle of a frame.
    write_failed: Cell<bool>,
}

impl Connection {
    pub(super) fn write(&self, frame: ClientFrame<'_>) {
        self.write_all(&masked(frame));
    }

    /// Writes a command. Returns false if not even a part of it was written.
    pub(super) fn send(&self, command: &Command) -> bool {
        json::encode_command(command)
            .is_some_and(|frame| self.write_all(&masked(ClientFrame::Text(&frame))))
    }

    /// Writes frames. After a failed write this does nothing and returns false. Events that the server
    /// sent before are still read; [`Received::Ended`] follows them.
    pub(super) fn write_all(&self, frames: &[u8]) -> bool {
        if self.write_failed.get() {
            return false;
        }
        let mut socket = self.stream.socket();
        if socket.write_all(&self.stream.sealed(frames)).is_err() {
            self.write_failed.set(true);
            let _ = socket.shutdown(Shutdown::Write);
        }
        true
    }

    pub(super) fn close(self) {
        let _ = self.stream.socket().shutdown(Shutdown::Both);
        // The reading thread may be waiting because the queue is full.
        drop(self.received);
        let _ = self.reader.join();
    }
}

/// The reason why there is no connection.
pub(super) enum OpenError {
    /// Another attempt would fail the same way. The user acts next.
    Permanent(String),
    /// Another attempt may succeed.
    Temporary(String),
}

/// Connects, upgrades to WebSocket, and starts the reading thread.
pub(super) fn connect(
    server: &ServerUrl,
    options: &ClientOptions,
) -> Result<Connection, OpenError> {
    let temporary =
        |error: io::Error| OpenError::Temporary(format!("cannot reach {server}: {error}"));
    let authorities = server.authorities(options.ca.as_deref());
    let authorities = authorities.map_err(|error| OpenError::Permanent(error.to_string()))?;
    let stream = open(server, authorities.as_ref(), || CONNECT_WITHIN).map_err(temporary)?;
    let stream = Arc::new(stream);
    let socket = stream.socket();
    let prepare = || {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(CONNECT_WITHIN))?;
        socket.set_read_timeout(Some(CONNECT_WITHIN))
    };
    prepare().map_err(temporary)?;
    let token = options.token.as_ref().map(ClientToken::read).transpose();
    let token = token.map_err(OpenError::Temporary)?;
    let (reports, received) = bounded(QUEUE);
    let replies = reports.clone();
    let url = format!(
        "ws://{}/chat/{}",
        server.authority(),
        utf8_percent_encode(options.user.as_str(), NON_ALPHANUMERIC)
    );
    let half = ReadHalf::client(
        Arc::clone(&stream),
        &url,
        Encoding::Json.name(),
        token.as_deref(),
        MAX_EVENT,
        Box::new(move |frames| {
            let _ = replies.send(Received::Reply(frames.to_vec()));
        }),
    )
    .map_err(|error| match error {
        UpgradeError::Refused {
            status: 429 | 503,
            why,
        } => OpenError::Temporary(why),
        // The file may hold a fresh one soon.
        UpgradeError::Refused { status: 401, why }
            if matches!(options.token, Some(ClientToken::File(_))) =>
        {
            OpenError::Temporary(format!("{server} refuses: {why}"))
        }
        UpgradeError::Refused { status, why } => {
            OpenError::Permanent(format!("{server} refuses ({status}): {why}"))
        }
        UpgradeError::NotWebSocket => {
            OpenError::Permanent(format!("{server} is not a WebSocket server"))
        }
        UpgradeError::Untrusted(why) => OpenError::Permanent(format!("{server}: {why}")),
        UpgradeError::Broken(why) => OpenError::Temporary(format!("{server}: {why}")),
    })?;
    socket
        .set_read_timeout(Some(READ_TIMEOUT))
        .map_err(temporary)?;
    let reader = thread::Builder::new()
        .name("client-reader".into())
        .spawn(move || read(half, &reports))
        .map_err(temporary)?;
    Ok(Connection {
        stream,
        token,
        received,
        reader,
        write_failed: Cell::new(false),
    })
}

/// The reading thread: passes each frame of the socket to the queue until the connection ends.
fn read(mut half: ReadHalf, reports: &Sender<Received>) {
    let mut closed_with = None;
    let mut reason = None;
    loop {
        let report = match half.read() {
            Ok(Incoming::Text(text)) => match json::parse_event(&text) {
                Ok(event) => {
                    if let Event::Closing { reason: said, .. } = &event {
                        reason = Some(said.clone());
                    }
                    Received::Event(event)
                }
                // A newer server may send events that this client does not know.
                Err(_) => Received::Alive,
            },
            Ok(Incoming::Binary(_) | Incoming::Alive) => Received::Alive,
            Ok(Incoming::Close(code)) => {
                closed_with = code;
                Received::Alive
            }
            Err(_) if closed_with == Some(code::PUT_OUT) => {
                let why = "an operator closed the connection";
                Received::PutOut(reason.take().unwrap_or_else(|| why.to_owned()))
            }
            Err(ended) => Received::Ended(match (ended, closed_with) {
                (_, Some(code)) => format!("the server closed the connection ({code})"),
                (Ended::Closed | Ended::Vanished, None) => {
                    "the server closed the connection".into()
                }
                (Ended::Silent, None) => "the server is silent".into(),
                (Ended::Wrong { why, .. } | Ended::Broken(why), None) => why,
            }),
        };
        let ended = matches!(report, Received::Ended(_) | Received::PutOut(_));
        if reports.send(report).is_err() || ended {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_closes_while_its_queue_is_full() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let (reports, received) = bounded(QUEUE);
        let connection = Connection {
            stream: Arc::new(Stream::plain(
                TcpStream::connect(address).expect("a connection"),
            )),
            token: None,
            received,
            reader: thread::spawn(move || while reports.send(Received::Alive).is_ok() {}),
            write_failed: Cell::new(false),
        };
        while !connection.received.is_full() {
            thread::yield_now();
        }
        let (done, closed) = bounded(1);
        thread::spawn(move || {
            connection.close();
            done.send(())
        });
        closed
            .recv_timeout(Duration::from_secs(20))
            .expect("it is closed");
    }
}
