//! Coalesces messages while the fan-out falls behind.
//!
//! Usually each message is delivered at once. After a fan-out that took long, or after a row of messages
//! that were there already when they were asked for, messages in quick succession are delivered together.

use std::time::{Duration, Instant};

use crate::backplane::batch::Batch;
use crate::hub::Hub;

/// A fan-out that takes longer than this starts coalescing; the next quick one ends it.
const PRESSING: Duration = Duration::from_millis(2);

/// So many messages in a row start it, too, if each was there already: it came within [`THERE_ALREADY`].
const IN_A_ROW: u32 = 16;
const THERE_ALREADY: Duration = Duration::from_micros(50);

/// A message that comes within this time follows closely.
const CLOSELY: Duration = Duration::from_millis(1);

/// No message waits longer than this.
const WAITS_AT_MOST: Duration = Duration::from_millis(4);

/// Messages between the subscription and the hub.
#[derive(Default)]
pub(super) struct Coalescer {
    batch: Batch,
    since: Option<Instant>,
    is_pressed: bool,
    in_a_row: u32,
}

impl Coalescer {
    /// Where messages are put.
    pub(super) fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// The time to listen for the next message, if one waits for it.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.since.map(|_| CLOSELY)
    }

    /// Something was heard, after listening for so long. Delivers, unless more is about to follow.
    pub(super) fn go_on(&mut self, hub: &Hub, listened: Duration) {
        if self.batch.is_empty() {
            self.since = None;
            return;
        }
        self.in_a_row = match listened < THERE_ALREADY {
            true => self.in_a_row.saturating_add(1),
            false => 0,
        };
        let since = *self.since.get_or_insert_with(Instant::now);
        let is_pressed = self.is_pressed || self.in_a_row >= IN_A_ROW;
        let more_is_close = is_pressed && listened < CLOSELY;
        if !more_is_close || self.batch.is_full() || since.elapsed() >= WAITS_AT_MOST {
            self.deliver(hub);
        }
    }

    /// Delivers all messages that wait.
    pub(super) fn deliver(&mut self, hub: &Hub) {
        self.since = None;
        if !self.batch.is_empty() {
            let begin = Instant::now();
            self.batch.deliver(hub);
            self.is_pressed = begin.elapsed() >= PRESSING;
        }
    }
}
