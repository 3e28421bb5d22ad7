//! Whether the pushing thread has the time to write at once.
//!
//! Writing at once costs one system call a frame, and never coalesces: a thread whose pushes come
//! faster than it can write falls behind without end. So each thread that pushes keeps an estimate
//! of the share of its time that this takes, and hands to the channels while the share is large.
//! What a write costs is not known while none is made; a thread that was held up when it last wrote
//! may think it too dear, so the estimate then leans towards what a write mostly costs.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Above this share a thread stops to write at once, and below this one it begins again.
const TOO_BUSY: f64 = 0.7;
const CALM: f64 = 0.4;

/// How long pushes are counted for one look at their rate, and how long they take the channels at
/// least once they do.
const LOOK: Duration = Duration::from_millis(50);
const DWELL: Duration = Duration::from_millis(500);

/// While nothing is written the clock is read at every so many pushes.
const GLANCE: u32 = 32;

/// How much of an average the newest value makes.
const NEWEST: f64 = 1.0 / 16.0;

/// What a write mostly costs, and how much of the way there an estimate that is higher goes at each
/// look, while nothing is written.
const MOSTLY: f64 = 4e-6;
const LEANING: f64 = 1.0 / 8.0;

thread_local! {
    static TEMPO: RefCell<Tempo> = RefCell::new(Tempo::new(Instant::now()));
}

/// Counts a push of this thread; whether it has the time to write at once.
pub(super) fn has_time() -> bool {
    TEMPO.with_borrow_mut(|tempo| {
        if tempo.at_once || tempo.pushes.is_multiple_of(GLANCE) {
            return tempo.push(Instant::now());
        }
        tempo.pushes += 1;
        false
    })
}

/// Runs `write`, and notes what it costs.
pub(super) fn timed<T>(write: impl FnOnce() -> T) -> T {
    let before = Instant::now();
    let result = write();
    TEMPO.with_borrow_mut(|tempo| tempo.wrote(before.elapsed()));
    result
}

/// One thread's estimate. Time is an argument.
#[derive(Debug)]
struct Tempo {
    at_once: bool,
    /// Since `since`.
    pushes: u32,
    since: Instant,
    /// Not before this does it write at once again.
    dwells_until: Instant,
    /// Of one write, in seconds.
    cost: f64,
}

impl Tempo {
    fn new(now: Instant) -> Self {
        Self {
            at_once: true,
            pushes: 0,
            since: now,
            dwells_until: now,
            cost: 0.0,
        }
    }

    /// Counts a push; whether it may write at once.
    fn push(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        if passed >= LOOK {
            let share = f64::from(self.pushes) * self.cost / passed.as_secs_f64();
            if self.at_once && share > TOO_BUSY {
                self.at_once = false;
                self.dwells_until = now + DWELL;
            } else if !self.at_once {
                self.at_once = share < CALM && now >= self.dwells_until;
                self.cost -= (self.cost - MOSTLY).max(0.0) * LEANING;
            }
            self.pushes = 0;
            self.since = now;
        }
        self.pushes += 1;
        self.at_once
    }

    fn wrote(&mut self, took: Duration) {
        self.cost += (took.as_secs_f64() - self.cost) * NEWEST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes evenly, so many a second, for so many milliseconds, with writes of so many
    /// microseconds; how many of them wrote at once.
    fn pushes(
        tempo: &mut Tempo,
        now: &mut Instant,
        a_second: u32,
        millis: u32,
        micros: u64,
    ) -> u32 {
        let count = a_second * millis / 1000;
        let mut at_once = 0;
        for _ in 0..count {
            *now += Duration::from_secs(1) / a_second;
            if tempo.push(*now) {
                at_once += 1;
                tempo.wrote(Duration::from_micros(micros));
            }
        }
        at_once
    }

    #[test]
    fn a_thread_with_time_writes_at_once_and_one_without_hands_on() {
        let mut now = Instant::now();
        let mut tempo = Tempo::new(now);
        let calm = pushes(&mut tempo, &mut now, 100_000, 1000, 4);
        assert_eq!(calm, 100_000);
        let busy = pushes(&mut tempo, &mut now, 1_000_000, 1000, 4);
        assert!(busy <= 110_000, "it learns within two looks: {busy}");
        assert_eq!(pushes(&mut tempo, &mut now, 1_000_000, 1000, 4), 0);
        pushes(&mut tempo, &mut now, 50_000, 200, 4);
        assert_eq!(pushes(&mut tempo, &mut now, 50_000, 1000, 4), 50_000);
    }

    #[test]
    fn near_the_border_it_does_not_flutter() {
        let mut now = Instant::now();
        let mut tempo = Tempo::new(now);
        // A share of 0.8, then of 0.6: busy, and not calm again.
        pushes(&mut tempo, &mut now, 200_000, 200, 4);
        assert_eq!(pushes(&mut tempo, &mut now, 150_000, 2000, 4), 0);
    }

    #[test]
    fn who_was_held_up_while_writing_comes_to_think_better_of_it() {
        let mut now = Instant::now();
        let mut tempo = Tempo::new(now);
        pushes(&mut tempo, &mut now, 10_000, 200, 5000);
        pushes(&mut tempo, &mut now, 10_000, 4000, 4);
        assert_eq!(pushes(&mut tempo, &mut now, 10_000, 1000, 4), 10_000);
    }

    #[test]
    fn a_burst_with_pauses_is_judged_by_the_whole_of_it() {
        let mut now = Instant::now();
        let mut tempo = Tempo::new(now);
        for _ in 0..50 {
            // 4,000 at once, in 16 ms, ten times a second.
            assert_eq!(pushes(&mut tempo, &mut now, 250_000, 16, 4), 4000);
            now += Duration::from_millis(84);
        }
    }
}
