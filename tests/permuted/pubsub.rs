//! A Redis with one log and its subscribers: a server, or a cluster of two nodes, of which one has the log.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::message::{Entry, Message, MessageId};
use crate::permuter::chance;
use crate::redis_crate::{Cmd, Peer, PushKind, RedisError, Value};
use crate::threads::lock;

/// When nothing is read, this time passes.
const IDLE: Duration = Duration::from_millis(50);

/// The subscriptions at one node.
#[derive(Default)]
struct Node {
    /// `None` while nobody is connected.
    subscribed: Option<HashSet<String>>,
    pushes: VecDeque<(PushKind, String, Vec<u8>)>,
    idle_reads: usize,
}

#[derive(Default)]
struct State {
    log: Vec<Entry>,
    nodes: [Node; 2],
    /// The node that has the log.
    owner: usize,
    /// A node that knows only of an earlier owner, and how often it tells.
    outdated: Option<(usize, usize)>,
    /// Whether a node without the log is still one.
    keeps_nodes: bool,
}

impl Node {
    fn rooms(&self) -> Vec<String> {
        let subscribed = self.subscribed.iter().flatten();
        let rooms = subscribed.filter(|one| one.starts_with("room:"));
        rooms.cloned().collect()
    }
}

/// Its only room is on every channel of a room.
#[derive(Default)]
pub struct Redis(Mutex<State>);

impl Redis {
    pub fn cluster() -> Self {
        let redis = Self::default();
        lock(&redis.0).keeps_nodes = chance(2);
        redis
    }

    pub fn keeps_nodes(&self) -> bool {
        lock(&self.0).keeps_nodes
    }

    /// Appends and publishes, in one step.
    pub fn say(&self) {
        let state = &mut *lock(&self.0);
        let number = state.log.len() as u64 + 1;
        state.log.push(entry(number));
        let node = &mut state.nodes[state.owner];
        for channel in node.rooms() {
            let payload = number.to_string().into_bytes();
            let push = (PushKind::Message, channel, payload);
            node.pushes.push_back(push);
        }
    }

    /// Moves the log to another node. Its slot's subscriptions end.
    pub fn moves_to(&self, to: usize) {
        let state = &mut *lock(&self.0);
        let node = &mut state.nodes[state.owner];
        for channel in node.rooms() {
            node.subscribed.iter_mut().for_each(|all| {
                all.remove(&channel);
            });
            let end = (PushKind::SUnsubscribe, channel, Vec::new());
            node.pushes.push_back(end);
        }
        // One of the nodes hears of it later.
        state.outdated = Some((usize::from(chance(2)), usize::from(chance(2))));
        state.owner = to;
    }

    pub fn has_moved(&self) -> bool {
        lock(&self.0).outdated.is_some()
    }

    /// The node that has the log, as this node knows.
    pub fn owner_by(&self, node: usize) -> usize {
        let state = &mut *lock(&self.0);
        match &mut state.outdated {
            Some((one, times)) if *one == node && *times > 0 => {
                *times -= 1;
                1 - state.owner
            }
            _ => state.owner,
        }
    }

    /// The number of messages.
    pub fn said(&self) -> u64 {
        lock(&self.0).log.len() as u64
    }

    /// Whether any room is subscribed to.
    pub fn is_heard(&self) -> bool {
        let state = lock(&self.0);
        state.nodes.iter().any(|node| !node.rooms().is_empty())
    }

    /// Waits until the room is subscribed to where its log is.
    pub fn hears(&self) {
        let is_heard = || {
            let state = lock(&self.0);
            !state.nodes[state.owner].rooms().is_empty()
        };
        while !is_heard() {
            thread::yield_now();
        }
    }

    /// Waits until the listeners have done all that there is to do.
    pub fn settles(&self) {
        let reads = |node: usize| lock(&self.0).nodes[node].idle_reads;
        for node in 0..2 {
            let until = reads(node) + 8;
            while reads(node) < until && lock(&self.0).nodes[node].subscribed.is_some() {
                thread::yield_now();
            }
        }
    }

    /// What this node answers, perhaps by the one that has the log.
    pub fn answer(&self, node: usize, command: &Cmd) -> Option<Value> {
        let state = lock(&self.0);
        if node != state.owner && chance(2) {
            return None;
        }
        let all = state.log.iter();
        Some(Value::Entries(match command {
            Cmd::Wake | Cmd::Line(_) => Vec::new(),
            Cmd::Newest => all.last().cloned().into_iter().collect(),
            Cmd::After(id) => all.filter(|one| one.message.id > *id).cloned().collect(),
        }))
    }
}

/// Message `number` of the log.
pub fn entry(number: u64) -> Entry {
    let id = |number| MessageId { millis: 1, number };
    let message = Message {
        id: id(number),
        from: "alice".parse().expect("a name"),
        text: number.to_string(),
        at: 1,
    };
    let prev = (number > 1).then(|| id(number - 1));
    let via = None;
    Entry { message, prev, via }
}

/// A subscription at a node. A new one begins with nothing.
pub struct Listening {
    redis: Arc<Redis>,
    node: usize,
}

impl Listening {
    pub fn new(redis: &Arc<Redis>, node: usize) -> Self {
        let its = &mut lock(&redis.0).nodes[node];
        its.subscribed = Some(HashSet::new());
        its.pushes.clear();
        let redis = Arc::clone(redis);
        Self { redis, node }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if !thread::panicking() {
            lock(&self.redis.0).nodes[self.node].subscribed = None;
        }
    }
}

impl Peer for Listening {
    /// Each line is a channel, before an end of a subscription with `-`. A channel whose log is at another node is refused,
    /// of which the `redis` crate tells nothing.
    fn take(&self, lines: &str) -> Result<(), RedisError> {
        let state = &mut *lock(&self.redis.0);
        let node = &mut state.nodes[self.node];
        let Some(subscribed) = &mut node.subscribed else {
            return Ok(());
        };
        for line in lines.lines() {
            let (kind, channel) = match line.strip_prefix('-') {
                Some(channel) if subscribed.remove(channel) || state.owner == self.node => {
                    (PushKind::SUnsubscribe, channel)
                }
                None if state.owner == self.node || !line.starts_with("room:") => {
                    subscribed.insert(line.to_owned());
                    (PushKind::SSubscribe, line)
                }
                Some(_) | None => continue,
            };
            let confirmed = (kind, channel.to_owned(), Vec::new());
            node.pushes.push_back(confirmed);
        }
        Ok(())
    }

    fn next(&self) -> Result<Value, RedisError> {
        let mut state = lock(&self.redis.0);
        let node = &mut state.nodes[self.node];
        if let Some((kind, channel, payload)) = node.pushes.pop_front() {
            return Ok(Value::push(kind, channel, payload));
        }
        node.idle_reads += 1;
        drop(state);
        thread::yield_now();
        clock::pass(IDLE);
        Err(RedisError::TimedOut)
    }
}
