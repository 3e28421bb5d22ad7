//! The counters: latencies, what each member received, and how far each room is.

use std::collections::{BTreeSet, VecDeque};

/// A histogram of latencies in bounded memory. A quantile is at most 1/128 too large.
///
/// The slot of a value is the upper half of its `f32`: the exponent and seven bits behind the point,
/// so each doubling has 128 slots, in order of size.
pub(crate) struct Latencies {
    counts: Vec<u64>,
    max: u64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        let counts = vec![0; Self::slot(u64::MAX) + 1];
        Self { counts, max: 0 }
    }

    fn slot(value: u64) -> usize {
        ((value as f32).to_bits() >> 16) as usize
    }

    /// The largest value of a slot.
    fn top(slot: usize) -> u64 {
        let next = f32::from_bits((slot as u32 + 1) << 16);
        next.ceil() as u64 - 1
    }

    pub(crate) fn add(&mut self, microseconds: u64) {
        self.counts[Self::slot(microseconds)] += 1;
        self.max = self.max.max(microseconds);
    }

    /// The time, in milliseconds, that this share of all values did not exceed.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let total: u64 = self.counts.iter().sum();
        let wanted = (total as f64 * share).ceil() as u64;
        let mut seen = 0;
        let slot = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        slot.map_or(0, Self::top).min(self.max) as f64 / 1e3
    }
}

/// What one member received of its room.
#[derive(Debug, Default, Clone)]
pub(crate) struct Track {
    /// One more than the highest sequence number so far.
    pub(crate) next: u64,
    /// Lower ones that did not come. They may still.
    pub(crate) skipped: BTreeSet<u64>,
    pub(crate) doubled: u64,
    pub(crate) out_of_order: u64,
}

impl Track {
    /// Counts a message. True if it came for the first time.
    pub(crate) fn hear(&mut self, sequence: u64) -> bool {
        if sequence >= self.next {
            self.skipped.extend(self.next..sequence);
            self.next = sequence + 1;
        } else if self.skipped.remove(&sequence) {
            self.out_of_order += 1;
        } else {
            self.doubled += 1;
            return false;
        }
        true
    }
}

/// How far a room is. A message is on its way until every member has received it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Room {
    pub(crate) members: u64,
    /// How many of them have lost their connection.
    gone: u64,
    /// How many messages were sent.
    pub(crate) sent: u64,
    /// How many members received each message that is on its way, from the oldest to the newest.
    received: VecDeque<u64>,
}

impl Room {
    pub(crate) fn on_their_way(&self) -> usize {
        self.received.len()
    }

    pub(crate) fn sends(&mut self) {
        self.sent += 1;
        self.received.push_back(0);
    }

    /// A member received a message for the first time. It may no longer be waited for.
    pub(crate) fn hears(&mut self, sequence: u64) {
        let oldest = self.sent - self.received.len() as u64;
        if let Some(place) = sequence.checked_sub(oldest) {
            self.received[place as usize] += 1;
            self.advance();
        }
    }

    /// A member lost its connection, and is no longer waited for.
    pub(crate) fn loses_one(&mut self) {
        self.gone += 1;
        self.advance();
    }

    fn advance(&mut self) {
        let awaited = self.members - self.gone;
        while self.received.front().is_some_and(|&count| count >= awaited) {
            self.received.pop_front();
        }
    }

    /// Stops waiting for the messages that are on their way.
    pub(crate) fn give_up(&mut self) {
        self.received.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_hundredth() {
        let mut times = Latencies::new();
        for value in 1..=100_000 {
            times.add(value);
        }
        for (share, exact) in [(0.5, 50.0), (0.9, 90.0), (0.99, 99.0)] {
            let found = times.quantile_ms(share);
            assert!((1.0..1.01).contains(&(found / exact)), "{share}: {found}");
        }
        assert_eq!(times.quantile_ms(1.0), 100.0);
    }

    #[test]
    fn every_value_has_a_slot_that_ends_above_it_and_begins_behind_the_last() {
        for value in (0..100_000).chain((17..64).map(|bit| 1 << bit)) {
            let slot = Latencies::slot(value);
            assert!(Latencies::top(slot) >= value);
            assert!(slot == 0 || Latencies::top(slot - 1) < value);
        }
        let mut times = Latencies::new();
        times.add(u64::MAX);
        assert_eq!(Latencies::new().quantile_ms(0.99), 0.0);
    }

    /// What is counted of these sequence numbers: doubled, out of order, and lost of `sent`.
    fn found(sequences: &[u64], sent: u64) -> (u64, u64, u64) {
        let mut track = Track::default();
        for &sequence in sequences {
            track.hear(sequence);
        }
        let lost = track.skipped.len() as u64 + sent - track.next;
        (track.doubled, track.out_of_order, lost)
    }

    #[test]
    fn all_in_order_is_nothing_to_complain_of() {
        assert_eq!(found(&[0, 1, 2, 3], 4), (0, 0, 0));
    }

    #[test]
    fn a_loss_is_found_in_the_middle_and_at_the_end() {
        assert_eq!(found(&[0, 1, 3], 4), (0, 0, 1));
        assert_eq!(found(&[0, 1, 3], 6), (0, 0, 3));
        assert_eq!(found(&[], 2), (0, 0, 2));
    }

    #[test]
    fn a_double_is_found_at_once_and_later() {
        assert_eq!(found(&[0, 0, 1, 2], 3), (1, 0, 0));
        assert_eq!(found(&[0, 1, 2, 1], 3), (1, 0, 0));
    }

    #[test]
    fn a_swap_is_out_of_order_and_no_loss() {
        assert_eq!(found(&[0, 2, 1, 3], 4), (0, 1, 0));
        assert_eq!(found(&[0, 2, 1, 3, 2], 4), (1, 1, 0));
    }

    #[test]
    fn the_window_waits_for_the_slowest_and_what_is_lost_is_given_up() {
        let mut room = Room {
            members: 2,
            ..Room::default()
        };
        (0..4).for_each(|_| room.sends());
        for sequence in 0..4 {
            room.hears(sequence);
        }
        assert_eq!(room.on_their_way(), 4);
        // Out of order: the window moves when the first is there.
        room.hears(1);
        assert_eq!(room.on_their_way(), 4);
        room.hears(0);
        assert_eq!(room.on_their_way(), 2);
        room.give_up();
        assert_eq!(room.on_their_way(), 0);
        (4..8).for_each(|_| room.sends());
        room.hears(3);
        room.hears(4);
        assert_eq!(room.on_their_way(), 4);
        room.hears(4);
        assert_eq!(room.on_their_way(), 3);
        room.hears(5);
        assert_eq!(room.on_their_way(), 3);
        room.loses_one();
        assert_eq!(room.on_their_way(), 2);
    }
}
