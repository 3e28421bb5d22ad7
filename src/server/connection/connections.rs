//! Every open connection of this instance.
//!
//! The map is keyed by connection and never by user, so a connection that ends cannot remove another
//! one of the same user. Each connection has a thread, which is joined, and a [`Phase`], which tells a
//! teardown how to end it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use log::error;

use super::addresses::{AddressPlace, AddressRefusal, Addresses};
use super::serve;
use super::thread_budget::ThreadBudget;
use crate::backoff::spread;
use crate::backplane::{ShardState, readiness};
use crate::hub::outbox::Outbox;
use crate::message::{ConnectionId, RoomName, UserName};
use crate::metrics;
use crate::protocol::Event;
use crate::server::admin::OpenChat;
use crate::server::capacity::Capacity;
use crate::server::proxies::is_trusted;
use crate::server::session::{Memberships, put_out, tell_parted};
use crate::server::state::State;
use crate::stream::Stream;
use crate::threads::lock;
use crate::websocket::code;

/// The reader parses JSON, and the parser bounds how deep it nests.
const READER_STACK: usize = 256 * 1024;

/// A drain closes this many connections at a time, with this pause in between. It closes more at a time
/// if it would otherwise take longer than `DRAIN_WITHIN` in all.
const DRAIN_BATCH: usize = 50;
const DRAIN_STEP: Duration = Duration::from_millis(50);
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// The reason that a drain gives to clients.
const RESTARTING: &str = "the server is restarting";

/// The latest time at which a drain asks clients to come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Every open connection of this instance.
pub struct Connections {
    pub(super) state: Arc<State>,
    pub(super) threads: Arc<ThreadBudget>,
    capacity: Capacity,
    addresses: Arc<Addresses>,
    open: Mutex<HashMap<ConnectionId, Open>>,
    /// Whether [`Connections::close_all`] has run. It changes under the lock of `open`, so a connection
    /// that begins to chat is either in the map that `close_all` reads, or finds this set.
    closed_all: AtomicBool,
    closed_one: Condvar,
    next: AtomicU64,
}

/// The reason why [`Connections::start`] starts no connection.
#[derive(Debug)]
pub enum NotStarted {
    /// There are as many connections as the machine can hold.
    Full,
    /// This address gets no further connection now.
    Address(AddressRefusal),
    /// The system gives no thread.
    NoThread(io::Error),
}

struct Open {
    stream: Arc<Stream>,
    phase: Phase,
    thread: Option<JoinHandle<()>>,
}

/// The phases that a connection goes through.
pub(super) enum Phase {
    /// The server waits for a request.
    AwaitingRequest,
    /// The server responds. Then the connection ends within a bounded time, waits for another request, or goes on as a
    /// chat.
    Responding,
    /// The connection is upgraded, or follows a room.
    Chatting(ChatHandle),
}

/// The handle of a chat, or of a follower, for operators and for a teardown.
pub(super) struct ChatHandle {
    /// The user; of a follower, the user of the token, if there is one.
    user: Option<UserName>,
    address: IpAddr,
    since: SystemTime,
    outbox: Arc<Outbox>,
    memberships: Arc<Memberships>,
}

impl Connections {
    /// No connection is open yet.
    pub fn new(state: Arc<State>) -> Self {
        let capacity = Capacity::of_this_machine(&state.config);
        Self {
            addresses: Arc::new(Addresses::new(&state.config)),
            state,
            threads: Arc::new(ThreadBudget::new(capacity.threads)),
            capacity,
            open: Mutex::default(),
            closed_all: AtomicBool::new(false),
            closed_one: Condvar::new(),
            next: AtomicU64::new(1),
        }
    }

    /// The most connections and threads.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Starts the reader thread of a new connection, unless the threads kept for writers were needed.
    pub fn start(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        peer: SocketAddr,
    ) -> Result<(), NotStarted> {
        let id = ConnectionId(self.next.fetch_add(1, Ordering::Relaxed));
        // A trusted proxy first has to say for whom it comes: see `serve`.
        let address = peer.ip().to_canonical();
        let place = match is_trusted(address, &self.state.config.trusted_proxies) {
            true => None,
            false => Some(self.enter(address).map_err(NotStarted::Address)?),
        };
        self.insert(id, stream)?;
        let connections = Arc::clone(self);
        let its_stream = Arc::clone(stream);
        let run = move || {
            // A panic ends this connection alone. The panic hook has reported it.
            let run = || serve(&connections, &its_stream, id, peer, place);
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                metrics::PANICS.count();
                error!("connection {id} from {peer} ended by a panic");
                let _ = its_stream.socket().shutdown(Shutdown::Both);
            }
            connections.remove(id);
        };
        let keep = self.capacity.reserve;
        let started = self
            .threads
            .start(keep, format!("reader-{id}"), READER_STACK, run);
        let not_started = match started {
            Ok(Some(thread)) => {
                self.set_thread(id, thread);
                metrics::ACCEPTED.count();
                return Ok(());
            }
            Ok(None) => NotStarted::Full,
            Err(error) => NotStarted::NoThread(error),
        };
        lock(&self.open).remove(&id);
        Err(not_started)
    }

    /// Takes a place in the count of this client's address.
    pub(super) fn enter(&self, client: IpAddr) -> Result<AddressPlace, AddressRefusal> {
        let config = &self.state.config;
        self.addresses.enter(client, config, Instant::now())
    }

    /// Takes a token for one more request of this client's address.
    pub(super) fn arrive(&self, client: IpAddr) -> Result<(), AddressRefusal> {
        let config = &self.state.config;
        self.addresses.arrive(client, config, Instant::now())
    }

    /// Inserts a connection, unless there are too many.
    fn insert(&self, id: ConnectionId, stream: &Arc<Stream>) -> Result<(), NotStarted> {
        let mut open = lock(&self.open);
        if open.len() >= self.capacity.connections {
            return Err(NotStarted::Full);
        }
        open.insert(
            id,
            Open {
                stream: Arc::clone(stream),
                phase: Phase::AwaitingRequest,
                thread: None,
            },
        );
        Ok(())
    }

    /// Notes the thread of a connection, to be joined. The thread may have ended already.
    fn set_thread(&self, id: ConnectionId, thread: JoinHandle<()>) {
        let ended = match lock(&self.open).get_mut(&id) {
            Some(open) => {
                open.thread = Some(thread);
                None
            }
            None => Some(thread),
        };
        if let Some(ended) = ended {
            self.threads.join_later(ended);
        }
    }

    /// Removes a connection. This is the last call of its thread.
    fn remove(&self, id: ConnectionId) {
        let thread = lock(&self.open).remove(&id).and_then(|open| open.thread);
        if let Some(thread) = thread {
            self.threads.join_later(thread);
        }
        self.closed_one.notify_all();
    }

    /// Whether this instance can take users, and what is missing meanwhile. The error says why not.
    pub fn ready(&self, shards: &[ShardState]) -> Result<String, String> {
        if self.state.is_closing() {
            return Err("closing".to_owned());
        }
        readiness(shards)
    }

    /// Notes that a connection chats now, or follows a room. Without a `user`, it follows one without a token.
    pub(super) fn begin_chat(
        &self,
        id: ConnectionId,
        address: IpAddr,
        user: Option<&UserName>,
        outbox: &Arc<Outbox>,
        memberships: &Arc<Memberships>,
    ) {
        let chat = ChatHandle {
            user: user.cloned(),
            address,
            since: SystemTime::now(),
            outbox: Arc::clone(outbox),
            memberships: Arc::clone(memberships),
        };
        self.set_phase(id, Phase::Chatting(chat));
        // The ban may have come between the check of the request and here.
        if let Some(why) = user.and_then(|user| self.state.why_banned(user)) {
            put_out(outbox, why);
        }
    }

    /// Notes the phase of a connection. If it begins to chat after [`Connections::close_all`], it is
    /// closed as the others were.
    pub(super) fn set_phase(&self, id: ConnectionId, phase: Phase) {
        let late = {
            let mut open = lock(&self.open);
            let Some(open) = open.get_mut(&id) else {
                return;
            };
            open.phase = phase;
            match &open.phase {
                Phase::Chatting(chat) if self.closed_all.load(Ordering::Relaxed) => {
                    Some(Arc::clone(&chat.outbox))
                }
                _ => None,
            }
        };
        if let Some(outbox) = late {
            close(&outbox);
        }
    }

    /// Whether a connection may wait for another request. Not if newcomers may need its thread, or its place among its
    /// address's; nor during a drain.
    pub(super) fn may_wait(&self, place: Option<&AddressPlace>) -> bool {
        !self.state.is_closing()
            && self.count() <= self.capacity.connections / 2
            && place.is_none_or(AddressPlace::leaves_room)
    }

    /// Notes that a connection waits for its next request. Returns false if [`Connections::close_all`] has ended the
    /// connections that wait.
    pub(super) fn awaits_request(&self, id: ConnectionId) -> bool {
        let mut open = lock(&self.open);
        if let Some(open) = open.get_mut(&id) {
            open.phase = Phase::AwaitingRequest;
        }
        !self.closed_all.load(Ordering::Relaxed)
    }

    /// The number of open connections.
    pub fn count(&self) -> usize {
        lock(&self.open).len()
    }

    /// What `pick` takes of each chat that is open. It is called under the lock, and only copies.
    fn of_each_chat<T>(&self, pick: impl Fn(ConnectionId, &ChatHandle) -> T) -> Vec<T> {
        let open = lock(&self.open);
        let picked = open.iter().filter_map(|(id, open)| match &open.phase {
            Phase::AwaitingRequest | Phase::Responding => None,
            Phase::Chatting(chat) => Some(pick(*id, chat)),
        });
        picked.collect()
    }

    /// The chats that are open.
    pub(super) fn chats(&self) -> Vec<OpenChat> {
        self.of_each_chat(|connection, chat| OpenChat {
            connection,
            user: chat.user.clone(),
            address: chat.address,
            since: chat.since,
        })
    }

    /// Takes everybody out of rooms for which there is a reason, which they are told. A chat in lines of text has one
    /// room, and ends with it.
    pub fn part(&self, reason: impl Fn(&RoomName) -> Option<String>) {
        let chats =
            self.of_each_chat(|_, chat| (Arc::clone(&chat.memberships), Arc::clone(&chat.outbox)));
        for (memberships, outbox) in chats {
            for (room, reason) in memberships.part(&reason) {
                tell_parted(&outbox, room, reason);
            }
        }
    }

    /// Closes the chats of users for whom there is a reason, which they are told.
    pub fn put_out(&self, reason: impl Fn(&UserName) -> Option<String>) {
        let chats = self.of_each_chat(|_, chat| (chat.user.clone(), Arc::clone(&chat.outbox)));
        for (user, outbox) in chats {
            if let Some(reason) = user.and_then(|user| reason(&user)) {
                put_out(&outbox, reason);
            }
        }
    }

    /// Tells every user to come back, and closes the connections, in batches: the users must not all
    /// come to another instance at the same time. A connection whose request has not come is broken
    /// off. Takes [`DRAIN_WITHIN`] at most, for any number of connections.
    pub fn close_all(&self) {
        let outboxes: Vec<_> = {
            let open = lock(&self.open);
            self.closed_all.store(true, Ordering::Relaxed);
            open.values()
                .filter_map(|open| match &open.phase {
                    Phase::AwaitingRequest => {
                        let _ = open.stream.socket().shutdown(Shutdown::Both);
                        None
                    }
                    Phase::Responding => None,
                    Phase::Chatting(chat) => Some(Arc::clone(&chat.outbox)),
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
                close(outbox);
            }
        }
    }

    /// Breaks off every connection that is still open.
    pub fn break_all(&self) {
        for open in lock(&self.open).values() {
            let _ = open.stream.socket().shutdown(Shutdown::Both);
        }
    }

    /// Waits until no connection is open, or until the deadline. Returns true if none is open.
    pub fn wait_until_none(&self, deadline: Instant) -> bool {
        let mut open = lock(&self.open);
        while !open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            open = open.wait_for(&self.closed_one, left);
        }
        drop(open);
        self.threads.join_ended();
        true
    }
}

/// Tells one user to come back, and closes the connection.
fn close(outbox: &Outbox) {
    // The users of one batch must not come back at the same time either.
    let retry_after = spread(RETRY_AFTER);
    outbox.send(&Event::Closing {
        reason: RESTARTING.to_owned(),
        retry_after_ms: retry_after.as_millis() as u64,
    });
    outbox.close(code::RESTART, RESTARTING);
}
