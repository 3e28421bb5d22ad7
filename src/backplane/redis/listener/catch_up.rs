//! Catching up: what a room's log holds behind the last message that was heard, after a hole or a cut.

use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::Listener;
use crate::backplane::BackplaneError;
use crate::backplane::redis::chain::{ENTRIES_AT_ONCE, Heard, fill};
use crate::backplane::redis::wire::{self, LogItem};
use crate::message::MessageId;
use crate::metrics;
use crate::protocol::Cursor;
use crate::threads::lock;

/// The longest time for which confirmations are waited for before logs are read. One that never comes must not hold
/// up the other rooms.
const COLLECTING: Duration = Duration::from_millis(100);

/// The pause before a log that could not be read is read again.
const CATCH_UP_AGAIN: Duration = Duration::from_millis(100);

/// The pause before a log is read again whose key holds a value of another type. Only an operator can
/// repair it; other rooms are not affected.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The most rooms that catch up at a time.
pub(super) const ROOMS_AT_ONCE: usize = 128;

impl Listener {
    /// Catches up with the rooms that are behind, or some of them, when it is time.
    pub(super) fn catch_up_if_due(&mut self) {
        if !self.unreadable.is_empty() {
            let now = Instant::now();
            let due = self.unreadable.extract_if(|_, at| *at <= now);
            self.behind.extend(due.map(|(channel, _)| channel));
        }
        if self.behind.is_empty() || Instant::now() < self.catch_up_at {
            return;
        }
        // After a cut the confirmations come in a flood: read the rooms' logs many at a time.
        if self.unconfirmed > 0 && self.behind.len() < ROOMS_AT_ONCE {
            let since = *self.collecting_since.get_or_insert_with(Instant::now);
            if since.elapsed() < COLLECTING {
                return;
            }
        }
        self.collecting_since = None;
        let some: Vec<String> = self.behind.iter().take(ROOMS_AT_ONCE).cloned().collect();
        let complete = self.catch_up(&some);
        let mut behind_since = lock(&self.subscription.behind_since);
        if complete {
            *behind_since = None;
        } else {
            self.catch_up_at = Instant::now() + CATCH_UP_AGAIN;
            behind_since.get_or_insert_with(Instant::now);
        }
    }

    /// Reads the rooms' logs from where each was left, and delivers. False if Redis did not answer.
    fn catch_up(&mut self, channels: &[String]) -> bool {
        let questions = |heard: &Heard| {
            let tail = wire::tail(&self.to.keys, &heard.room);
            let after = Cursor::After(heard.chain.read_to());
            let missed = wire::read(&self.to.keys, &heard.room, after, ENTRIES_AT_ONCE);
            // In this order, or a message stored in between would look like a log that lost its end.
            tail.into_iter().chain([missed])
        };
        let rooms = channels
            .iter()
            .filter_map(|channel| self.rooms.get(channel));
        let commands: Vec<Cmd> = rooms.flat_map(questions).collect();
        let mut answers = self.publisher.call_all(&commands).into_iter();
        let mut complete = true;
        for channel in channels {
            let Some(heard) = self.rooms.get_mut(channel) else {
                continue;
            };
            let of_room: Vec<_> = answers.by_ref().take(3).collect();
            let (tail, missed) = match read(of_room) {
                Ok(answer) => answer,
                Err(BackplaneError::Refused(why)) if wire::is_of_another_kind(&why) => {
                    self.behind.remove(channel);
                    let again = Instant::now() + LOOK_AGAIN;
                    self.unreadable.insert(channel.clone(), again);
                    continue;
                }
                Err(_) => {
                    complete = false;
                    continue;
                }
            };
            metrics::CAUGHT_UP.add(missed.len());
            let last = heard.chain.last();
            let filled = fill(&self.hub, heard, missed, tail);
            if let (true, Some(last), Some(_)) = (filled.has_gap, last, &self.to.acknowledged) {
                // A lost master may have told it to this instance alone: the others are told, too.
                let question = self.to.scripts.look_for(&self.to.keys, &heard.room, last);
                self.publisher.fire_and_forget(&question);
            }
            if filled.is_current {
                self.behind.remove(channel);
                lock(&self.subscription.heard).insert(heard.room.clone());
                heard.tell_waiting();
            }
        }
        complete
    }
}

/// The room's newest id, and what its log holds behind the point that was asked for.
fn read(
    mut answers: Vec<Result<Value, BackplaneError>>,
) -> Result<(Option<MessageId>, Vec<LogItem>), BackplaneError> {
    let missed = answers.pop().unwrap_or(Err(BackplaneError::NoAnswer))?;
    let tail: Result<Vec<_>, _> = answers.into_iter().collect();
    Ok((wire::tail_answer(&tail?)?, wire::items(&missed)?))
}
