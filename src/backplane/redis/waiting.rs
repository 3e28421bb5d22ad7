//! What was heard and waits for what follows it closely. While fan-outs are quick and keep up nothing
//! waits. Once one took long, or many messages were there already when they were asked for, what comes
//! in quick succession is delivered together.

use std::time::{Duration, Instant};

use crate::backplane::batch::Batch;
use crate::hub::Hub;

/// A fan-out that takes so long presses, until the next one that does not.
const PRESSING: Duration = Duration::from_millis(2);

/// So many messages in a row press, too, of which each was there already: it came within this.
const IN_A_ROW: u32 = 16;
const THERE_ALREADY: Duration = Duration::from_micros(50);

/// What comes within this follows closely.
const CLOSELY: Duration = Duration::from_millis(1);

/// Nothing waits longer than this, however much follows.
const WAITS_AT_MOST: Duration = Duration::from_millis(4);

/// Messages between the subscription and the hub.
#[derive(Default)]
pub(super) struct Waiting {
    batch: Batch,
    since: Option<Instant>,
    is_pressed: bool,
    in_a_row: u32,
}

impl Waiting {
    /// Where messages are put.
    pub(super) fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// How long to listen for what follows, if something waits for it.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.since.map(|_| CLOSELY)
    }

    /// Something was heard, after listening for so long: delivers what need not wait for more.
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

    /// Delivers all that waits.
    pub(super) fn deliver(&mut self, hub: &Hub) {
        self.since = None;
        if !self.batch.is_empty() {
            let begin = Instant::now();
            self.batch.deliver(hub);
            self.is_pressed = begin.elapsed() >= PRESSING;
        }
    }
}
