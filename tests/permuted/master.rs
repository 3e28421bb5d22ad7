//! A Redis that takes commands, and breaks: a connection is refused, or breaks off at any command, before it or behind it,
//! an answer does not come in time, and the scripts are forgotten.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock;
use crate::permuter::chance;
use crate::redis_crate::{Peer, RedisError, ServerError, ServerErrorKind, Value};
use crate::threads::lock;

/// Each step goes wrong once in so many times.
const ONCE_IN: u32 = 60;

/// Longer than any answer is waited for.
const LONG: Duration = Duration::from_secs(2);

/// A command that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// Message `number` was stored.
    Stored(u64),
    /// It was asked whether the message at this place was stored.
    LookedFor(u64),
}

#[derive(Default)]
struct State {
    connections: usize,
    knows_scripts: bool,
    /// Each with its connection.
    done: Vec<(usize, Done)>,
}

#[derive(Default)]
pub struct Master {
    state: Mutex<State>,
    generation: AtomicU64,
}

impl Master {
    pub fn connect(self: &Arc<Self>) -> Option<Talk> {
        let mut state = lock(&self.state);
        state.connections += 1;
        let talk = Talk {
            master: Arc::clone(self),
            number: state.connections,
            answers: Mutex::new(Some(VecDeque::new())),
        };
        (!chance(8)).then_some(talk)
    }

    /// All that was done, in its order, each with the number of its connection.
    pub fn done(&self) -> Vec<(usize, Done)> {
        lock(&self.state).done.clone()
    }

    /// Another master takes its place.
    pub fn fails_over(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    fn run(&self, connection: usize, line: &str) -> Value {
        let mut state = lock(&self.state);
        state.knows_scripts &= !chance(ONCE_IN);
        let place = state.done.len() as u64;
        let done = match line.split_once(' ') {
            Some(("store", _)) if !state.knows_scripts => {
                return Value::ServerError(ServerError(ServerErrorKind::NoScript));
            }
            Some(("store", number)) => Done::Stored(number.parse().expect("a number")),
            Some(("look", place)) => Done::LookedFor(place.parse().expect("a place")),
            _ => {
                state.knows_scripts |= line == "load";
                return Value::Int(0);
            }
        };
        state.done.push((connection, done));
        Value::Int(place)
    }
}

/// A connection for commands.
pub struct Talk {
    master: Arc<Master>,
    number: usize,
    /// `None` once it is broken off.
    answers: Mutex<Option<VecDeque<Value>>>,
}

impl Peer for Talk {
    fn take(&self, lines: &str) -> Result<(), RedisError> {
        let mut answers = lock(&self.answers);
        for line in lines.lines() {
            if let Some(answers) = &mut *answers
                && !chance(ONCE_IN)
            {
                answers.push_back(self.master.run(self.number, line));
            } else {
                // Bytes that are on their way are written.
                return match answers.take().is_some() && chance(2) {
                    true => Ok(()),
                    false => Err(RedisError::BrokenOff),
                };
            }
        }
        Ok(())
    }

    fn next(&self) -> Result<Value, RedisError> {
        let mut answers = lock(&self.answers);
        if chance(ONCE_IN) {
            *answers = None;
        }
        if chance(ONCE_IN) {
            clock::pass(LONG);
            return Err(RedisError::TimedOut);
        }
        let answers = answers.as_mut().ok_or(RedisError::BrokenOff)?;
        answers.pop_front().ok_or(RedisError::BrokenOff)
    }
}
