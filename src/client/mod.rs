//! A blocking client that reconnects and resumes. `hubbub join` and `tail` use it.
//!
//! The user of a [`Client`] does not see reconnects: each message of a joined room arrives once and in
//! order, and each send is repeated under its ref until the server answers it. If the server cannot
//! fill a gap, the client reports an [`Event::Gap`], or an [`Event::Room`] with `anew`.
//!
//! Read here the handle, which the user holds; then `worker`, the client's thread; then `state`, which
//! decides what to send and what to report after a reconnect, without a socket. `connection` is one
//! WebSocket connection with its reading thread, and `renewal` its token. `request` is one plain HTTP request,
//! `ready` the health check of `hubbub ready`, and `post` the message of `hubbub say`.

mod request;
mod ready;
mod connection;
mod state;
mod post;
mod renewal;
mod worker;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never, unbounded};

pub use self::request::{PlainRequest, PlainResponse, RequestError};
use self::worker::{ClientRequest, ClientThread};
use crate::message::{MessageId, RoomName, UserName};
use crate::protocol::{Command, Event, Ref};
pub use crate::stream::ServerUrl;

/// The capacity of the queue of events for the user. While it is full, the client's thread waits.
const EVENT_QUEUE: usize = 32;

/// The ceilings of the first and of the longest wait between two attempts to reach a server.
const RECONNECT_FIRST: Duration = Duration::from_millis(200);
const RECONNECT_CAP: Duration = Duration::from_secs(5);

/// An event of the client.
#[derive(Debug)]
pub enum ClientEvent {
    /// The connection stands. The client joins its rooms next.
    Connected,
    /// The connection is lost, or the attempt failed. The client tries again.
    Disconnected {
        /// The reason, in a sentence.
        why: String,
        /// The time until the next attempt.
        retry_in: Duration,
    },
    /// The server cannot do a command now, for this reason. The client sends it again.
    Postponed(String),
    /// The server sent an event.
    Server(Event),
    /// The server refuses the user for good, for this reason. No event follows.
    Refused(String),
}

/// The handle of a client.
///
/// The queue of events is bounded. If the user does not take them, the client's thread waits, reads no
/// more, and so holds the server back. A server that is held back for long cuts the connection; the
/// client resumes once its events are taken again.
pub struct Client {
    /// Unbounded, so that a request never waits: with two full queues the user and the client's thread
    /// would wait for each other.
    requests: Sender<ClientRequest>,
    events: Receiver<ClientEvent>,
    thread: Option<JoinHandle<()>>,
}

/// The user and the servers of a client.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// At least one. The client tries them in turn.
    pub servers: Vec<ServerUrl>,
    /// The user.
    pub user: UserName,
    /// The token, if the server demands one.
    pub token: Option<ClientToken>,
    /// A file with the authorities to trust for the servers' certificates, in PEM; `None` for those of the system.
    pub ca: Option<PathBuf>,
}

/// Where a client has its token from.
#[derive(Debug, Clone)]
pub enum ClientToken {
    /// This is the token.
    Text(String),
    /// The token is in this file, which may be written anew. It is read at each connect, and when the token is about
    /// to expire.
    File(PathBuf),
}

impl ClientToken {
    /// The token. The error is a sentence.
    pub fn read(&self) -> Result<String, String> {
        match self {
            Self::Text(token) => Ok(token.clone()),
            Self::File(path) => match fs::read_to_string(path) {
                Ok(token) => Ok(token.trim().to_owned()),
                Err(error) => Err(format!(
                    "cannot read the token in {}: {error}",
                    path.display()
                )),
            },
        }
    }
}

impl Client {
    /// Starts a client of one server. The client connects at once.
    pub fn start(server: ServerUrl, user: UserName) -> io::Result<Self> {
        Self::start_with(ClientOptions {
            servers: vec![server],
            user,
            token: None,
            ca: None,
        })
    }

    /// Starts a client. The client connects at once.
    pub fn start_with(options: ClientOptions) -> io::Result<Self> {
        let (requests, to_do) = unbounded();
        let (tell, events) = bounded(EVENT_QUEUE);
        let worker = ClientThread::new(options, to_do, tell);
        let thread = thread::Builder::new()
            .name("client".into())
            .spawn(move || worker.run())?;
        Ok(Self {
            requests,
            events,
            thread: Some(thread),
        })
    }

    /// The events, in order. Do not keep a clone beyond the client: its full queue would delay the
    /// goodbye.
    pub fn events(&self) -> &Receiver<ClientEvent> {
        &self.events
    }

    /// Joins a room, now and after every reconnect: from the message `since`, or with up to `history`
    /// past messages.
    pub fn join(&self, room: RoomName, since: Option<MessageId>, history: Option<usize>) {
        self.request(ClientRequest::Join {
            room,
            since,
            history,
        });
    }

    /// Leaves a room, once its sends are answered.
    pub fn leave(&self, room: RoomName) {
        self.request(ClientRequest::Leave(room));
    }

    /// Sends a text to a joined room. [`Event::Sent`] or a final [`Event::Error`] with the returned ref
    /// answers it. The client keeps the text until then, so a caller with many texts should wait for
    /// answers.
    pub fn send(&self, room: RoomName, text: String) -> Ref {
        let reference = Ref::random();
        self.request(ClientRequest::Send {
            room,
            text,
            reference: reference.clone(),
        });
        reference
    }

    /// Sends a command at most once: not at all without a connection, and not again after a reconnect.
    pub fn command(&self, command: Command) {
        self.request(ClientRequest::Command(command));
    }

    /// Closes the connection. Abandons the thread if that takes longer than `limit`.
    pub fn close_within(mut self, limit: Duration) {
        self.request(ClientRequest::Close);
        let deadline = Instant::now() + limit;
        loop {
            match self.events.recv_deadline(deadline) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    self.thread = None;
                    return;
                }
            }
        }
    }

    fn request(&self, request: ClientRequest) {
        // After a refusal the thread is gone; its last event said so.
        let _ = self.requests.send(request);
    }
}

impl Drop for Client {
    /// Closes the connection and waits for the thread.
    fn drop(&mut self) {
        // The thread may be waiting because the queue is full.
        self.events = never();
        self.request(ClientRequest::Close);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
