//! A Redis with one log and one subscription.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::message::{Entry, Message, MessageId};
use crate::redis_crate::{Cmd, Peer, PushKind, RedisError, Value};
use crate::threads::lock;

/// When nothing is read, this time passes.
const IDLE: Duration = Duration::from_millis(50);

#[derive(Default)]
struct State {
    log: Vec<Entry>,
    subscribed: HashSet<String>,
    pushes: VecDeque<(PushKind, String, Vec<u8>)>,
    idle_reads: usize,
}

/// The server. Its only room is on every channel.
#[derive(Default)]
pub struct Redis(Mutex<State>);

impl Redis {
    /// Appends and publishes, in one step.
    pub fn say(&self) {
        let mut state = lock(&self.0);
        let number = state.log.len() as u64 + 1;
        state.log.push(entry(number));
        let rooms = state
            .subscribed
            .iter()
            .filter(|one| one.starts_with("room:"));
        for channel in rooms.cloned().collect::<Vec<_>>() {
            let payload = number.to_string().into_bytes();
            state
                .pushes
                .push_back((PushKind::Message, channel, payload));
        }
    }

    /// The number of messages.
    pub fn said(&self) -> u64 {
        lock(&self.0).log.len() as u64
    }

    /// Whether any room is subscribed to.
    pub fn is_heard(&self) -> bool {
        let state = lock(&self.0);
        state.subscribed.iter().any(|one| one.starts_with("room:"))
    }

    /// Waits until the listener has done all that there is to do.
    pub fn settles(&self) {
        let until = lock(&self.0).idle_reads + 8;
        while lock(&self.0).idle_reads < until {
            thread::yield_now();
        }
    }

    pub fn answer(&self, command: &Cmd) -> Value {
        let state = lock(&self.0);
        let all = state.log.iter();
        Value::Entries(match command {
            Cmd::Wake | Cmd::Line(_) => Vec::new(),
            Cmd::Newest => all.last().cloned().into_iter().collect(),
            Cmd::After(id) => all.filter(|one| one.message.id > *id).cloned().collect(),
        })
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

/// The subscription. A new one begins with nothing.
pub struct Subscribed(Arc<Redis>);

impl Subscribed {
    pub fn new(redis: &Arc<Redis>) -> Self {
        let mut state = lock(&redis.0);
        state.subscribed.clear();
        state.pushes.clear();
        drop(state);
        Self(Arc::clone(redis))
    }
}

impl Peer for Subscribed {
    /// Each line is a channel, before an end of a subscription with `-`.
    fn take(&self, lines: &str) -> Result<(), RedisError> {
        let mut state = lock(&self.0.0);
        for line in lines.lines() {
            if let Some(channel) = line.strip_prefix('-') {
                state.subscribed.remove(channel);
                continue;
            }
            state.subscribed.insert(line.to_owned());
            let confirmed = (PushKind::Subscribe, line.to_owned(), Vec::new());
            state.pushes.push_back(confirmed);
        }
        Ok(())
    }

    fn next(&self) -> Result<Value, RedisError> {
        let mut state = lock(&self.0.0);
        if let Some((kind, channel, payload)) = state.pushes.pop_front() {
            return Ok(Value::push(kind, channel, payload));
        }
        state.idle_reads += 1;
        drop(state);
        thread::yield_now();
        clock::pass(IDLE);
        Err(RedisError::TimedOut)
    }
}
