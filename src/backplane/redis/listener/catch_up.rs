//! Catching up: what a room's log holds behind the last message that was heard, after a hole or a cut.

use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::Listener;
use crate::backplane::BackplaneError;
use crate::backplane::redis::chain::{Chain, ENTRIES_AT_ONCE, fill};
use crate::backplane::redis::wire::{self, Item};
use crate::lock::lock;
use crate::message::MessageId;
use crate::metrics;
use crate::protocol::Page;

/// How long to wait before a room is read again whose log could not be read.
const CATCH_UP_AGAIN: Duration = Duration::from_millis(100);

/// The most rooms that catch up at a time.
const ROOMS_AT_ONCE: usize = 128;

impl Listener {
    /// Catches up with the rooms that are behind, or some of them, when it is time.
    pub(super) fn catch_up_if_due(&mut self) {
        if self.behind.is_empty() || Instant::now() < self.catch_up_at {
            return;
        }
        // After a cut the confirmations come in a flood: read the rooms' logs many at a time.
        if self.unconfirmed > 0 && self.behind.len() < ROOMS_AT_ONCE {
            return;
        }
        let some: Vec<String> = self.behind.iter().take(ROOMS_AT_ONCE).cloned().collect();
        let complete = self.catch_up(&some);
        let mut behind_since = lock(&self.shared.behind_since);
        if complete {
            *behind_since = None;
        } else {
            self.catch_up_at = Instant::now() + CATCH_UP_AGAIN;
            behind_since.get_or_insert_with(Instant::now);
        }
    }

    /// Reads the rooms' logs from where each was left, and delivers. False if Redis did not answer.
    fn catch_up(&mut self, channels: &[String]) -> bool {
        let commands: Vec<Cmd> = channels
            .iter()
            .filter_map(|channel| self.rooms.get(channel))
            .flat_map(|heard| {
                let after = match heard.chain {
                    Chain::Unknown => MessageId {
                        millis: u64::MAX,
                        number: u64::MAX,
                    },
                    Chain::Behind(last) | Chain::Current { last, .. } => {
                        last.unwrap_or(MessageId::ZERO)
                    }
                };
                // In this order, or a message stored in between would look like a log that lost
                // its end.
                [
                    wire::read(&self.keys, &heard.room, Page::Newest, 1),
                    wire::read(&self.keys, &heard.room, Page::After(after), ENTRIES_AT_ONCE),
                ]
            })
            .collect();
        let answers = self.publisher.call_all(&commands);
        let mut complete = true;
        for (channel, answer) in channels.iter().zip(answers.chunks_exact(2)) {
            let Some(heard) = self.rooms.get_mut(channel) else {
                continue;
            };
            let read = |answer: &Result<Value, BackplaneError>| match answer {
                Ok(value) => wire::items(value),
                Err(error) => Err(error.clone()),
            };
            match (read(&answer[0]), read(&answer[1])) {
                (Ok(newest), Ok(missed)) => {
                    metrics::CAUGHT_UP.add(missed.len());
                    let tail = newest.first().map(Item::id);
                    if fill(&self.hub, heard, missed, tail) {
                        self.behind.remove(channel);
                        lock(&self.shared.heard).insert(heard.room.clone());
                        for waiting in heard.waiting.drain(..) {
                            let _ = waiting.send(());
                        }
                    }
                }
                (Err(_), _) | (_, Err(_)) => complete = false,
            }
        }
        complete
    }
}
