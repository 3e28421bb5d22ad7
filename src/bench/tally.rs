//! What the meter counts: times in a histogram, and what each member heard.

use std::collections::BTreeSet;
use std::time::Duration;

/// Each doubling is divided into so many steps, so that a quantile is at most 1/128 too large.
const STEPS: u64 = 128;

/// Times in microseconds, with an error below one per cent, in bounded memory.
#[derive(Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self {
            counts: vec![0; Self::slot(u64::MAX) + 1],
            total: 0,
            most: 0,
        }
    }

    fn slot(value: u64) -> usize {
        // Below the first doubling each value has a slot of its own.
        let shift = (value / STEPS).checked_ilog2().map_or(0, u64::from);
        (shift * STEPS + (value >> shift)) as usize
    }

    /// The largest value of a slot.
    fn top(slot: usize) -> u64 {
        let slot = slot as u64;
        let shift = (slot / STEPS).saturating_sub(1);
        let mantissa = slot - shift * STEPS;
        ((mantissa + 1) << shift) - 1
    }

    pub(super) fn add(&mut self, microseconds: u64) {
        self.counts[Self::slot(microseconds)] += 1;
        self.total += 1;
        self.most = self.most.max(microseconds);
    }

    /// The time within which this share of all was.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        let slot = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        let value = slot.map_or(0, Self::top).min(self.most);
        Duration::from_micros(value)
    }

    pub(super) fn max(&self) -> Duration {
        Duration::from_micros(self.most)
    }
}

/// What a message was to the member who heard it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The first time, after all that were sent before it and have come.
    InOrder,
    /// The first time, but behind one that was sent later.
    OutOfOrder,
    /// Not the first time.
    Double,
}

/// What one member has heard of its room.
#[derive(Debug, Default, Clone)]
pub(super) struct Track {
    next: u32,
    /// What was skipped, and may still come.
    missing: BTreeSet<u32>,
}

impl Track {
    pub(super) fn hear(&mut self, sequence: u32) -> Heard {
        if sequence == self.next {
            self.next += 1;
            return Heard::InOrder;
        }
        if sequence > self.next {
            self.missing.extend(self.next..sequence);
            self.next = sequence + 1;
            return Heard::InOrder;
        }
        if self.missing.remove(&sequence) {
            Heard::OutOfOrder
        } else {
            Heard::Double
        }
    }

    /// How many it did not hear, and heard a later one.
    pub(super) fn skipped(&self) -> u64 {
        self.missing.len() as u64
    }

    /// How many of `sent` messages are behind the last that it heard.
    pub(super) fn awaited(&self, sent: u32) -> u64 {
        u64::from(sent.saturating_sub(self.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_hundredth() {
        let mut times = Histogram::new();
        for value in 1..=100_000 {
            times.add(value);
        }
        for (share, exact) in [(0.5, 50_000.0), (0.9, 90_000.0), (0.99, 99_000.0)] {
            let found = times.quantile(share).as_micros() as f64;
            assert!((1.0..1.01).contains(&(found / exact)), "{share}: {found}");
        }
        assert_eq!(times.quantile(1.0), Duration::from_micros(100_000));
        assert_eq!(times.max(), Duration::from_micros(100_000));
    }

    #[test]
    fn the_slots_follow_each_other_without_a_hole() {
        let mut last = 0;
        for value in (0..100_000).chain((17..64).map(|bit| 1 << bit)) {
            let slot = Histogram::slot(value);
            assert!(slot == last || slot == last + 1 || value > 100_000);
            assert!(Histogram::top(slot) >= value);
            assert!(slot == 0 || Histogram::top(slot - 1) < value);
            last = slot;
        }
        let mut times = Histogram::new();
        times.add(u64::MAX);
        assert_eq!(Histogram::new().quantile(0.99), Duration::ZERO);
    }

    fn heard(sequences: &[u32]) -> (Track, Vec<Heard>) {
        let mut track = Track::default();
        let what = sequences.iter().map(|&one| track.hear(one)).collect();
        (track, what)
    }

    fn lost(track: &Track, sent: u32) -> u64 {
        track.skipped() + track.awaited(sent)
    }

    #[test]
    fn all_in_order_is_nothing_to_complain_of() {
        let (track, what) = heard(&[0, 1, 2, 3]);
        assert_eq!(what, [Heard::InOrder; 4]);
        assert_eq!(lost(&track, 4), 0);
    }

    #[test]
    fn a_loss_is_found_in_the_middle_and_at_the_end() {
        let (track, what) = heard(&[0, 1, 3]);
        assert_eq!(what, [Heard::InOrder; 3]);
        assert_eq!(lost(&track, 4), 1);
        assert_eq!(lost(&track, 6), 3);
        assert_eq!(lost(&Track::default(), 2), 2);
    }

    #[test]
    fn a_double_is_found_at_once_and_later() {
        let (track, what) = heard(&[0, 0, 1, 2, 1]);
        assert_eq!(what[1], Heard::Double);
        assert_eq!(what[4], Heard::Double);
        assert_eq!(lost(&track, 3), 0);
    }

    #[test]
    fn a_swap_is_out_of_order_and_no_loss() {
        let (track, what) = heard(&[0, 2, 1, 3, 2]);
        assert_eq!(what[2], Heard::OutOfOrder);
        assert_eq!(what[4], Heard::Double);
        assert_eq!(lost(&track, 4), 0);
    }
}
