//! Every open connection, keyed by connection and never by user: one that ends takes only itself along.
//!
//! Each has a thread, which is joined, and a stage, by which a teardown knows how to end it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::error;

use super::serve;
use crate::backoff::spread;
use crate::hub::outbox::Outbox;
use crate::message::ConnectionId;
use crate::metrics;
use crate::protocol::Event;
use crate::server::session::Instance;
use crate::threads::lock;
use crate::websocket::code;

/// The reader parses JSON, whose nesting is bounded.
const READER_STACK: usize = 256 * 1024;

/// A drain closes so many connections at a time, with this pause in between, and more if it would
/// take longer than this in all.
const DRAIN_BATCH: usize = 50;
const DRAIN_STEP: Duration = Duration::from_millis(50);
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// Why everybody is sent away.
const RESTARTING: &str = "the server is restarting";

/// When those who are sent away should come back, at the latest.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Every open connection.
pub struct Connections {
    pub(super) instance: Arc<Instance>,
    open: Mutex<HashMap<ConnectionId, Open>>,
    /// Whether everybody was sent away. Changes under the lock of `open`, so that whoever begins to
    /// chat is among those who were, or comes after.
    sent_away: AtomicBool,
    closed_one: Condvar,
    next: AtomicU64,
    /// The thread that ended last. It is joined when the next one has ended, or by the teardown, so
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
pub(super) enum Stage {
    /// Its request is not read yet.
    Asking,
    /// It gets its answer, and then ends by itself in bounded time or goes on as a chat.
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
            sent_away: AtomicBool::new(false),
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
        self.enter(id, socket, peer)?;
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
            });
        match thread {
            Ok(thread) => self.runs(id, thread),
            Err(error) => {
                lock(&self.open).remove(&id);
                return Err(NoConnection::Thread(error));
            }
        }
        metrics::ACCEPTED.count();
        Ok(())
    }

    /// Counts it among the open ones, if it may be.
    fn enter(
        &self,
        id: ConnectionId,
        socket: &Arc<TcpStream>,
        peer: SocketAddr,
    ) -> Result<(), NoConnection> {
        let address = peer.ip();
        let mut open = lock(&self.open);
        if let Some(most) = self.instance.config.max_per_address {
            let has = open.values().filter(|open| open.address == address);
            if has.count() >= most {
                return Err(NoConnection::Address);
            }
        }
        open.insert(
            id,
            Open {
                address,
                socket: Arc::clone(socket),
                stage: Stage::Asking,
                thread: None,
            },
        );
        Ok(())
    }

    /// Notes the thread of a connection, to be joined. It may have ended by now.
    fn runs(&self, id: ConnectionId, thread: JoinHandle<()>) {
        let ended = match lock(&self.open).get_mut(&id) {
            Some(open) => {
                open.thread = Some(thread);
                None
            }
            None => Some(thread),
        };
        self.join_with_next(ended);
    }

    /// Whether this instance can take users; if not, why.
    pub fn ready(&self) -> Result<(), String> {
        if self.instance.is_closing() {
            return Err("closing".to_owned());
        }
        self.instance.backplane.ready()
    }

    /// Notes how far a connection has come. One that begins to chat after the others were sent away is
    /// sent after them.
    pub(super) fn comes_to(&self, id: ConnectionId, stage: Stage) {
        let late = {
            let mut open = lock(&self.open);
            let Some(open) = open.get_mut(&id) else {
                return;
            };
            open.stage = stage;
            match &open.stage {
                Stage::Chatting(outbox) if self.sent_away.load(Ordering::Relaxed) => {
                    Some(Arc::clone(outbox))
                }
                _ => None,
            }
        };
        if let Some(outbox) = late {
            send_away(&outbox);
        }
    }

    /// The last thing that a connection's thread does.
    fn end(&self, id: ConnectionId) {
        let mine = lock(&self.open).remove(&id).and_then(|open| open.thread);
        self.join_with_next(mine);
        self.closed_one.notify_all();
    }

    /// Keeps a thread that has ended, and joins the one before it.
    fn join_with_next(&self, ended: Option<JoinHandle<()>>) {
        let Some(ended) = ended else { return };
        let before = lock(&self.ended).replace(ended);
        if let Some(thread) = before {
            // It is past its own last statement but one.
            let _ = thread.join();
        }
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        lock(&self.open).len()
    }

    /// Says `closing` and then closes, to everyone, in batches: those who come back to another
    /// instance must not all come at once. A connection that is still in its handshake is broken
    /// off. Takes [`DRAIN_WITHIN`] at most, however many they are.
    pub fn close_all(&self) {
        let outboxes: Vec<_> = {
            let open = lock(&self.open);
            self.sent_away.store(true, Ordering::Relaxed);
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
                send_away(outbox);
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

/// Says `closing`, and closes.
fn send_away(outbox: &Outbox) {
    // Those of one batch must not come back at once either.
    let retry_after = spread(RETRY_AFTER);
    outbox.send(&Event::Closing {
        reason: RESTARTING.to_owned(),
        retry_after_ms: retry_after.as_millis() as u64,
    });
    outbox.close(code::RESTART, RESTARTING);
}
