//! A blocking client that reconnects and resumes. `join`, `say` and `tail` are made of it.
//!
//! The user of a client sees a connection that never breaks: every message of a joined room arrives once
//! and in order, however often the client reconnects and to which instance. A send is repeated under its ref
//! until it is answered. Where messages are missing for good, an [`Event::Gap`] says so, or an
//! [`Event::Room`] with `anew`.
//!
//! Read `memory` for what the client knows and decides, without a socket; `unanswered` for its sends; then
//! `link`, one connection, and `worker`, the thread that ties them together. The page has the same logic in
//! JavaScript (`server/page/`).

mod ready;
mod link;
mod unanswered;
mod memory;
mod worker;

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never, unbounded};

use self::worker::{Ask, Worker};
use crate::message::{MessageId, RoomName, UserName};
use crate::protocol::{Command, Event, Ref};

/// The most happenings that wait for the user. Beyond them the client's thread waits.
const HAPPENINGS: usize = 32;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Host and port.
    authority: String,
}

impl ServerUrl {
    /// Reads `http://host:port` or `ws://host:port`, or the host and port alone.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("ws", url));
        match scheme {
            "ws" | "http" => {}
            "wss" | "https" => {
                return Err("TLS is not spoken here; connect to the plain address".to_owned());
            }
            _ => return Err("it should look like http://127.0.0.1:8080".to_owned()),
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
            return Err("it should look like http://127.0.0.1:8080".to_owned());
        }
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        Ok(Self { authority })
    }

    /// Host and port.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

/// An event of the client: something about its connection, or an event from the server.
#[derive(Debug)]
pub enum Happening {
    /// The connection is made; rooms are being joined.
    Connected,
    /// The connection is lost, or could not be made; it is tried again.
    Disconnected {
        /// The reason.
        why: String,
        /// The time until the next attempt.
        retry_in: Duration,
    },
    /// The server cannot do something now, and said why; it is asked again.
    Postponed(String),
    /// The server told something.
    Event(Event),
    /// The server refuses for good. Nothing follows.
    Refused(String),
}

/// The handle of a client.
///
/// Happenings that are not taken hold back the client's thread, and through it the server, so that
/// neither keeps more and more of them. A server that is held back for long cuts the connection; the
/// client resumes by id once its happenings are taken again.
pub struct Client {
    /// Not bounded, so that asking never waits: the client's thread may be waiting until whoever asks
    /// takes a happening, and two full channels would wait for each other.
    asks: Sender<Ask>,
    happenings: Receiver<Happening>,
    thread: Option<JoinHandle<()>>,
}

/// The user, and the servers to connect to.
#[derive(Debug, Clone)]
pub struct Options {
    /// At least one. Of several, the next is tried when one is away.
    pub servers: Vec<ServerUrl>,
    /// The user.
    pub user: UserName,
    /// For a server that wants one.
    pub token: Option<String>,
}

impl Client {
    /// Starts a client of one server, which connects at once.
    pub fn start(server: ServerUrl, user: UserName) -> io::Result<Self> {
        Self::start_with(Options {
            servers: vec![server],
            user,
            token: None,
        })
    }

    /// Starts a client, which connects at once.
    pub fn start_with(options: Options) -> io::Result<Self> {
        let (asks, asked) = unbounded();
        let (tell, happenings) = bounded(HAPPENINGS);
        let worker = Worker::new(options, asked, tell);
        let thread = thread::Builder::new()
            .name("client".into())
            .spawn(move || worker.run())?;
        Ok(Self {
            asks,
            happenings,
            thread: Some(thread),
        })
    }

    /// The happenings, in order. A clone of this receiver that outlives the client would hold up its goodbye.
    pub fn happenings(&self) -> &Receiver<Happening> {
        &self.happenings
    }

    /// Enters a room, now and after every reconnect.
    pub fn join(&self, room: RoomName, since: Option<MessageId>, history: Option<usize>) {
        self.ask(Ask::Join {
            room,
            since,
            history,
        });
    }

    /// Leaves a room, once everything that was said there is answered.
    pub fn leave(&self, room: RoomName) {
        self.ask(Ask::Part(room));
    }

    /// Says something in a joined room. [`Event::Sent`] or a final [`Event::Error`] with the ref
    /// that is returned tells how it went. Until then the text is kept: whoever says much waits for
    /// answers.
    pub fn send(&self, room: RoomName, text: String) -> Ref {
        let reference = Ref::random();
        self.ask(Ask::Send {
            room,
            text,
            reference: reference.clone(),
        });
        reference
    }

    /// Asks for something that is not worth repeating after a reconnect.
    pub fn command(&self, command: Command) {
        self.ask(Ask::Other(command));
    }

    /// Says goodbye, and gives up on the thread if it takes longer than this.
    pub fn end_within(mut self, most: Duration) {
        self.ask(Ask::Leave);
        let due = Instant::now() + most;
        loop {
            match self.happenings.recv_deadline(due) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    self.thread = None;
                    return;
                }
            }
        }
    }

    fn ask(&self, ask: Ask) {
        // A client that was refused no longer listens; its last happening says so.
        let _ = self.asks.send(ask);
    }
}

impl Drop for Client {
    /// Says goodbye and waits for the thread.
    fn drop(&mut self) {
        // The thread may be waiting for room in there.
        self.happenings = never();
        self.ask(Ask::Leave);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_address_is_read_with_and_without_its_scheme() {
        for (url, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("ws://chat.example:9000/", "http://chat.example:9000"),
            ("localhost:8080", "http://localhost:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://chat.example", "http://chat.example:80"),
        ] {
            let parsed = ServerUrl::parse(url).map(|url| url.to_string());
            assert_eq!(parsed.as_deref(), Ok(shown), "{url}");
        }
        for bad in [
            "wss://x",
            "ftp://x",
            "http://",
            "http://x/chat",
            "http://a@b",
        ] {
            assert!(ServerUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
