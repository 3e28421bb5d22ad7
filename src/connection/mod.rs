//! One connection's life: route, handshake, read pump, write pump, goodbye.
//!
//! A connection has two threads. The reader performs the handshake ([`upgrade`]) and then takes one
//! message at a time; the writer writes what waits in the outbox ([`pumps`]). [`Connections`] holds
//! every open one, keyed by connection and never by user: one that ends takes only itself along.

mod pumps;
mod upgrade;

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::{debug, error, info};

pub use self::pumps::{Conversation, Terms, converse};
use self::pumps::{WRITE_GLANCE, write_by};
use self::upgrade::{ChatRequest, chat_request};
use crate::api;
use crate::backoff::spread;
use crate::config::Deadlines;
use crate::http::{self, Answer, HeadError, Request, Route};
use crate::lock::lock;
use crate::message::ConnectionId;
use crate::metrics;
use crate::outbox::{Outbox, code};
use crate::protocol::{Event, Rendering};
use crate::session::{Instance, Session};

/// The reader parses JSON, whose nesting is bounded.
const READER_STACK: usize = 256 * 1024;

/// A drain closes so many connections at a time, with this pause in between, and more if it would
/// take longer than this in all.
const DRAIN_BATCH: usize = 50;
const DRAIN_STEP: Duration = Duration::from_millis(50);
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// When those who are sent away should come back, at the latest.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Every open connection.
pub struct Connections {
    instance: Arc<Instance>,
    open: Mutex<HashMap<ConnectionId, Open>>,
    closed_one: Condvar,
    next: AtomicU64,
    /// The thread that ended last. It is joined by the next one to end, or by the teardown, so
    /// that at most one ended thread keeps its stack.
    ended: Mutex<Option<JoinHandle<()>>>,
}

/// Why there is no connection for a socket.
#[derive(Debug)]
pub enum NoConnection {
    /// This address has as many as one may have.
    Address,
    /// The system gives no thread.
    Thread(io::Error),
}

struct Open {
    address: IpAddr,
    socket: Arc<TcpStream>,
    stage: Stage,
    thread: Option<JoinHandle<()>>,
}

/// How far a connection has come.
enum Stage {
    /// Its request is not read yet.
    Asking,
    /// It gets one answer, and ends by itself in bounded time.
    Answering,
    /// It is upgraded.
    Chatting(Arc<Outbox>),
}

impl Connections {
    /// None yet.
    pub fn new(instance: Arc<Instance>) -> Self {
        Self {
            instance,
            open: Mutex::default(),
            closed_one: Condvar::new(),
            next: AtomicU64::new(1),
            ended: Mutex::new(None),
        }
    }

    /// Gives a new connection its thread.
    pub fn start(
        self: &Arc<Self>,
        socket: &Arc<TcpStream>,
        peer: SocketAddr,
    ) -> Result<(), NoConnection> {
        let id = ConnectionId(self.next.fetch_add(1, Ordering::Relaxed));
        // Held until the entry is complete: a short-lived thread waits here to take it out.
        let mut open = lock(&self.open);
        if let Some(most) = self.instance.config.max_per_address {
            let address = peer.ip();
            let has = open.values().filter(|open| open.address == address);
            if has.count() >= most {
                return Err(NoConnection::Address);
            }
        }
        let connections = Arc::clone(self);
        let its_socket = Arc::clone(socket);
        let thread = thread::Builder::new()
            .name(format!("reader-{id}"))
            .stack_size(READER_STACK)
            .spawn(move || {
                // A panic ends this connection alone; it has been reported where it happened.
                let run = || serve(&connections, &its_socket, id, peer);
                if catch_unwind(AssertUnwindSafe(run)).is_err() {
                    metrics::PANICS.count();
                    error!("connection {id} from {peer} ended by a panic");
                    let _ = its_socket.shutdown(Shutdown::Both);
                }
                connections.end(id);
            })
            .map_err(NoConnection::Thread)?;
        metrics::ACCEPTED.count();
        open.insert(
            id,
            Open {
                address: peer.ip(),
                socket: Arc::clone(socket),
                stage: Stage::Asking,
                thread: Some(thread),
            },
        );
        Ok(())
    }

    /// Whether this instance can take users; if not, why.
    pub fn ready(&self) -> Result<(), String> {
        if self.instance.is_closing() {
            return Err("closing".to_owned());
        }
        self.instance.backplane.ready()
    }

    fn comes_to(&self, id: ConnectionId, stage: Stage) {
        if let Some(open) = lock(&self.open).get_mut(&id) {
            open.stage = stage;
        }
    }

    /// The last thing that a connection's thread does.
    fn end(&self, id: ConnectionId) {
        let mine = lock(&self.open).remove(&id).and_then(|open| open.thread);
        let before = std::mem::replace(&mut *lock(&self.ended), mine);
        if let Some(thread) = before {
            // It is past its own last statement but one.
            let _ = thread.join();
        }
        self.closed_one.notify_all();
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        lock(&self.open).len()
    }

    /// Says `closing` and then closes, to everyone, in batches: those who come back to another
    /// instance must not all come at once. A connection that is still in its handshake is broken
    /// off. Takes [`DRAIN_WITHIN`] at most, however many they are.
    pub fn close_all(&self, reason: &str) {
        let outboxes: Vec<_> = {
            let open = lock(&self.open);
            open.values()
                .filter_map(|open| match &open.stage {
                    Stage::Asking => {
                        let _ = open.socket.shutdown(Shutdown::Both);
                        None
                    }
                    Stage::Answering => None,
                    Stage::Chatting(outbox) => Some(Arc::clone(outbox)),
                })
                .collect()
        };
        let steps = DRAIN_WITHIN.as_millis() / DRAIN_STEP.as_millis();
        let batch = outboxes.len().div_ceil(steps as usize).max(DRAIN_BATCH);
        for (index, outboxes) in outboxes.chunks(batch).enumerate() {
            if index > 0 {
                thread::sleep(DRAIN_STEP);
            }
            for outbox in outboxes {
                // And those of one batch not at once either.
                let retry_after = spread(RETRY_AFTER);
                outbox.send(&Event::Closing {
                    reason: reason.to_owned(),
                    retry_after_ms: retry_after.as_millis() as u64,
                });
                outbox.close(code::RESTART, reason);
            }
        }
    }

    /// Breaks off whatever is still open.
    pub fn break_all(&self) {
        for open in lock(&self.open).values() {
            let _ = open.socket.shutdown(Shutdown::Both);
        }
    }

    /// Waits until none is open, or the deadline. True if none is.
    pub fn wait_until_none(&self, deadline: Instant) -> bool {
        let mut open = lock(&self.open);
        while !open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            open = self
                .closed_one
                .wait_timeout(open, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        drop(open);
        if let Some(thread) = lock(&self.ended).take() {
            let _ = thread.join();
        }
        true
    }
}

/// The reader's thread, from the first byte to the last.
fn serve(
    connections: &Arc<Connections>,
    socket: &Arc<TcpStream>,
    id: ConnectionId,
    peer: SocketAddr,
) {
    let config = &connections.instance.config;
    let deadlines = &config.deadlines;
    let head_due = Instant::now() + deadlines.head;
    let request = match http::read_request(socket, config.max_head, head_due) {
        Ok(request) => request,
        Err(error) => {
            debug!("{peer}: {error}");
            if matches!(error, HeadError::Late) {
                metrics::LATE_HEADS.count();
            }
            if let Some(answer) = error.answer() {
                metrics::REQUESTS_REFUSED.count();
                say(socket, &answer, deadlines);
            }
            return;
        }
    };
    let answer = match request.route() {
        Route::Chat { user } => match chat_request(&request, user, config) {
            Ok(chat) => match self::chat(connections, socket, id, peer, chat, request.rest) {
                Ok(()) => return,
                Err(error) => {
                    error!("no thread to write with: {error}");
                    busy()
                }
            },
            Err(answer) => answer,
        },
        Route::Api { room, resource } => {
            // Whoever waits for a receipt gets it, also when a teardown begins meanwhile.
            connections.comes_to(id, Stage::Answering);
            api::answer(&connections.instance, socket, &request, room, resource)
        }
        route => match request.method.as_str() {
            "GET" => plain(connections, &route, &request),
            "HEAD" => plain(connections, &route, &request).without_body(),
            _ => wrong_method("GET, HEAD"),
        },
    };
    if answer.status >= 400 {
        metrics::REQUESTS_REFUSED.count();
    }
    debug!(
        "{peer}: {} {:?}: {}",
        request.method, request.path, answer.status
    );
    say(socket, &answer, deadlines);
}

/// What is answered when this machine can hold no more.
pub fn busy() -> Answer {
    Answer::new(503, "this server is full; try again later").with("Retry-After", "5")
}

/// What is answered to an address that has as many connections as one may have.
pub fn too_many_from_one_address() -> Answer {
    Answer::new(429, "this address has too many connections").with("Retry-After", "5")
}

fn wrong_method(allowed: &str) -> Answer {
    Answer::new(405, format!("only {allowed} is possible here")).with("Allow", allowed)
}

/// Answers, and lets the peer read it: closing with unread bytes would reset the connection and
/// take the answer along.
fn say(socket: &TcpStream, answer: &Answer, deadlines: &Deadlines) {
    let _ = socket.set_write_timeout(Some(WRITE_GLANCE));
    let due = Instant::now() + deadlines.write;
    if write_by(socket, &answer.bytes(), |_| due).is_err()
        || socket.shutdown(Shutdown::Write).is_err()
    {
        return;
    }
    let deadline = Instant::now() + deadlines.close;
    let _ = socket.set_read_timeout(Some(deadlines.close));
    let mut scrap = [0; 1024];
    while matches!((&mut &*socket).read(&mut scrap), Ok(1..)) && Instant::now() < deadline {}
}

fn plain(connections: &Connections, route: &Route, request: &Request) -> Answer {
    match route {
        Route::Page(asset) => Answer::of_asset(asset, request.header("if-none-match")),
        Route::Live => Answer::new(200, "alive"),
        Route::Ready => match connections.ready() {
            Ok(()) => Answer::new(200, "ready"),
            Err(why) => Answer::new(503, format!("not ready: {why}")).with("Retry-After", "1"),
        },
        Route::Metrics => {
            metrics::CONNECTIONS.set(connections.count());
            metrics::ROOMS.set(connections.instance.hub.count());
            metrics::IN_FLIGHT.set(connections.instance.backplane.in_flight());
            metrics::READY.set(usize::from(connections.ready().is_ok()));
            Answer::of_text(metrics::render())
        }
        Route::Chat { .. } | Route::Api { .. } | Route::Unknown => {
            Answer::new(404, "there is nothing here; chat is at /chat/{your name}")
        }
    }
}

/// A chat, from the upgrade on.
fn chat(
    connections: &Arc<Connections>,
    socket: &Arc<TcpStream>,
    id: ConnectionId,
    peer: SocketAddr,
    chat: ChatRequest,
    read_already: Vec<u8>,
) -> io::Result<()> {
    let instance = &connections.instance;
    let terms = Terms {
        rendering: chat.rendering,
        outbox_bytes: instance.config.outbox_bytes,
        max_message: instance.config.max_message,
        heartbeat: instance.config.ping_interval,
        deadlines: instance.config.deadlines.clone(),
    };
    let user = chat.user.clone();
    let begin = |outbox: &Arc<Outbox>| {
        connections.comes_to(id, Stage::Chatting(Arc::clone(outbox)));
        if instance.is_closing() {
            // The teardown may have looked before we were registered.
            outbox.close(code::RESTART, "the server is closing");
        }
        info!("{user:?} connected from {peer} as connection {id}");
        let mut session = Session::begin(
            Arc::clone(instance),
            id,
            chat.user,
            chat.room,
            chat.allowed,
            Arc::clone(outbox),
        );
        if chat.rendering == Rendering::Text {
            session.enter(chat.since, chat.history);
        }
        session
    };
    let why = converse(socket, id, &terms, &chat.head, read_already, begin)?;
    info!("{user:?} disconnected, connection {id} from {peer}: {why}");
    Ok(())
}

impl Conversation for Session {
    fn text(&mut self, text: &str) {
        self.take(text);
    }

    fn binary(&mut self, _bytes: &[u8]) -> Result<(), String> {
        Err("only text messages are taken here".to_owned())
    }

    fn goodbye(&mut self) {
        self.says_goodbye();
    }

    fn settle(&mut self) {
        Session::settle(self);
    }
}
