//! Stands for the `redis` crate and the server behind it: one log, and one subscription.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::message::{Entry, Message, MessageId};
use crate::threads::lock;

/// When nothing is read, this time passes.
const IDLE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub enum PushKind {
    Message,
    SMessage,
    Subscribe,
    SSubscribe,
    SUnsubscribe,
}

#[derive(Debug)]
pub enum Value {
    Push {
        kind: PushKind,
        data: Vec<Value>,
    },
    BulkString(Vec<u8>),
    /// Messages, as they are.
    Entries(Vec<Entry>),
}

/// Nothing came in time.
#[derive(Debug)]
pub struct RedisError;

impl RedisError {
    pub fn is_timeout(&self) -> bool {
        true
    }
}

impl fmt::Display for RedisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time-out")
    }
}

impl std::error::Error for RedisError {}

/// The commands that are sent.
#[derive(Debug, Clone)]
pub enum Cmd {
    Wake,
    Newest,
    After(MessageId),
}

pub fn cmd(_: &str) -> Cmd {
    Cmd::Wake
}

impl Cmd {
    pub fn set_no_response(&mut self, _: bool) -> &mut Self {
        self
    }

    pub fn exec(&self, _: &mut Connection) -> Result<(), RedisError> {
        Ok(())
    }
}

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
            Cmd::Wake => Vec::new(),
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
pub struct Connection(Arc<Redis>);

impl Connection {
    pub fn new(redis: &Arc<Redis>) -> Self {
        let mut state = lock(&redis.0);
        state.subscribed.clear();
        state.pushes.clear();
        drop(state);
        Self(Arc::clone(redis))
    }

    pub fn subscribe_resp3(&mut self, channels: &[String]) -> Result<(), RedisError> {
        self.subscribe(channels);
        Ok(())
    }

    fn subscribe(&self, channels: &[String]) {
        let mut state = lock(&self.0.0);
        for channel in channels {
            state.subscribed.insert(channel.clone());
            state
                .pushes
                .push_back((PushKind::Subscribe, channel.clone(), Vec::new()));
        }
    }

    /// A packed command is the channels, each in a line, and before an end of a subscription `-`.
    pub fn send_packed_command(&mut self, command: &[u8]) -> Result<(), RedisError> {
        let command = str::from_utf8(command).expect("it is ours");
        match command.strip_prefix('-') {
            Some(channel) => drop(lock(&self.0.0).subscribed.remove(channel)),
            None => self.subscribe(&command.lines().map(str::to_owned).collect::<Vec<_>>()),
        }
        Ok(())
    }

    pub fn set_read_timeout(&self, _: Option<Duration>) -> Result<(), RedisError> {
        Ok(())
    }

    pub fn recv_response(&mut self) -> Result<Value, RedisError> {
        let mut state = lock(&self.0.0);
        if let Some((kind, channel, payload)) = state.pushes.pop_front() {
            let data = [channel.into_bytes(), payload]
                .map(Value::BulkString)
                .into();
            return Ok(Value::Push { kind, data });
        }
        state.idle_reads += 1;
        drop(state);
        thread::yield_now();
        clock::pass(IDLE);
        Err(RedisError)
    }
}
