//! One connection to one server: made, read by a thread of its own, written by whoever owns it.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Options, ServerUrl};
use crate::protocol::{Command, Encoding, Event, json};
use crate::websocket::client::{ClientFrame, UpgradeError, masked};
use crate::websocket::{Ended, Incoming, ReadHalf};

/// The time-out of a connection, of each write, and of the handshake's answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A server that is silent for this long is taken for gone.
pub(super) const SILENCE: Duration = Duration::from_secs(40);

/// The largest event taken from a server: a page of history is larger than a message.
const MAX_EVENT: usize = 64 << 20;

/// The most events that wait for the client's thread. Beyond them the reading thread stops, and the network
/// holds the server back.
const INCOMING: usize = 32;

/// An item from the reading thread.
pub(super) enum FromServer {
    Event(Event),
    /// Frames that answer the server's: pongs, and the close reply.
    Reply(Vec<u8>),
    Alive,
    Ended(String),
}

/// One connection.
pub(super) struct Link {
    socket: Arc<TcpStream>,
    pub(super) incoming: Receiver<FromServer>,
    reader: JoinHandle<()>,
    /// Whether a write has failed, perhaps in the middle of a frame.
    torn: Cell<bool>,
}

impl Link {
    pub(super) fn write(&self, frame: ClientFrame<'_>) {
        self.pass_on(&masked(frame));
    }

    /// False if nothing of it was tried to be written.
    pub(super) fn request(&self, command: &Command) -> bool {
        json::encode_command(command)
            .is_some_and(|frame| self.pass_on(&masked(ClientFrame::Text(&frame))))
    }

    /// Writes frames that are made already. Behind a failure nothing is tried any more: then this is
    /// false. What the server said before is still read, and its end tells that the connection is lost.
    pub(super) fn pass_on(&self, frames: &[u8]) -> bool {
        if self.torn.get() {
            return false;
        }
        if (&*self.socket).write_all(frames).is_err() {
            self.torn.set(true);
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        true
    }

    pub(super) fn close(self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        // The reading thread may be waiting for room in there.
        drop(self.incoming);
        let _ = self.reader.join();
    }
}

/// Why a connection could not be made.
pub(super) enum NoLink {
    ForGood(String),
    ForNow(String),
}

pub(super) fn connect(server: &ServerUrl, options: &Options) -> Result<Link, NoLink> {
    let for_now = |error: io::Error| NoLink::ForNow(format!("cannot reach {server}: {error}"));
    let addresses = server.authority.to_socket_addrs().map_err(for_now)?;
    let mut outcome = Err(io::Error::other("the name has no address"));
    for address in addresses {
        outcome = TcpStream::connect_timeout(&address, CONNECT_WITHIN);
        if outcome.is_ok() {
            break;
        }
    }
    let socket = Arc::new(outcome.map_err(for_now)?);
    let prepare = || {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(CONNECT_WITHIN))?;
        socket.set_read_timeout(Some(CONNECT_WITHIN))
    };
    prepare().map_err(for_now)?;
    let (tell, incoming) = bounded(INCOMING);
    let replies = tell.clone();
    let url = format!(
        "ws://{}/chat/{}",
        server.authority,
        utf8_percent_encode(options.user.as_str(), NON_ALPHANUMERIC)
    );
    let half = ReadHalf::client(
        Arc::clone(&socket),
        &url,
        Encoding::Json.subprotocol(),
        options.token.as_deref(),
        MAX_EVENT,
        Box::new(move |frames| {
            let _ = replies.send(FromServer::Reply(frames.to_vec()));
        }),
    )
    .map_err(|error| match error {
        UpgradeError::Refused {
            status: 429 | 503,
            why,
        } => NoLink::ForNow(why),
        UpgradeError::Refused { status, why } => {
            NoLink::ForGood(format!("{server} refuses ({status}): {why}"))
        }
        UpgradeError::NotWebSocket => {
            NoLink::ForGood(format!("{server} is not a WebSocket server"))
        }
        UpgradeError::Broken(why) => NoLink::ForNow(format!("{server}: {why}")),
    })?;
    socket.set_read_timeout(Some(SILENCE)).map_err(for_now)?;
    let reader = thread::Builder::new()
        .name("client-reader".into())
        .spawn(move || read(half, &tell))
        .map_err(for_now)?;
    Ok(Link {
        socket,
        incoming,
        reader,
        torn: Cell::new(false),
    })
}

/// The reading thread: from the socket to the channel, until the end.
fn read(mut half: ReadHalf, tell: &Sender<FromServer>) {
    let mut closed_with = None;
    loop {
        let item = match half.read() {
            Ok(Incoming::Text(text)) => match json::parse_event(&text) {
                Ok(event) => FromServer::Event(event),
                // A newer server may say what we do not know.
                Err(_) => FromServer::Alive,
            },
            Ok(Incoming::Binary(_) | Incoming::Alive) => FromServer::Alive,
            Ok(Incoming::Close(code)) => {
                closed_with = code;
                FromServer::Alive
            }
            Err(ended) => FromServer::Ended(match (ended, closed_with) {
                (_, Some(code)) => format!("the server closed the connection ({code})"),
                (Ended::Closed | Ended::Vanished, None) => {
                    "the server closed the connection".into()
                }
                (Ended::Silent, None) => "the server is silent".into(),
                (Ended::Wrong { why, .. } | Ended::Broken(why), None) => why,
            }),
        };
        let ended = matches!(item, FromServer::Ended(_));
        if tell.send(item).is_err() || ended {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_link_closes_though_nobody_takes_what_came() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let (tell, incoming) = bounded(INCOMING);
        let link = Link {
            socket: Arc::new(TcpStream::connect(address).expect("a connection")),
            incoming,
            reader: thread::spawn(move || while tell.send(FromServer::Alive).is_ok() {}),
            torn: Cell::new(false),
        };
        while !link.incoming.is_full() {
            thread::yield_now();
        }
        let (done, closed) = bounded(1);
        thread::spawn(move || {
            link.close();
            done.send(())
        });
        closed
            .recv_timeout(Duration::from_secs(20))
            .expect("it is closed");
    }
}
