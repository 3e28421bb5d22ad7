//! The search through all states of a model. It is breadth-first, so the first way that it finds to a broken promise is a
//! shortest one.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Instant;

/// A state, and what can happen in it. Every way has to end.
pub(super) trait Model: Clone {
    /// Something that can happen.
    type Step: Copy + fmt::Debug;
    /// A promise that was not kept.
    type Broken: fmt::Display;

    /// Tells states from each other.
    fn fingerprint(&self) -> u64;

    /// All that can happen now.
    fn steps(&self) -> Vec<Self::Step>;

    fn take(&mut self, step: Self::Step) -> Result<(), Self::Broken>;

    /// Judges a state in which nothing can happen any more.
    fn ends(&self) -> Result<(), Self::Broken>;
}

/// What a search found.
struct Found<M: Model> {
    states: usize,
    depth: usize,
    broken: Option<(M::Broken, Vec<M::Step>)>,
}

/// Visits all states that can be reached.
fn search<M: Model>(start: M) -> Found<M> {
    // Where each state came from, to tell the way.
    let mut ways: Vec<(usize, Option<M::Step>, usize)> = vec![(0, None, 0)];
    let mut seen = HashSet::from([start.fingerprint()]);
    let mut next = VecDeque::from([(0, start)]);
    let (mut depth, mut broken) = (0, None);
    'search: while let Some((place, state)) = next.pop_front() {
        depth = ways[place].2;
        let steps = state.steps();
        if steps.is_empty()
            && let Err(why) = state.ends()
        {
            broken = Some((why, way::<M>(&ways, place)));
            break;
        }
        for step in steps {
            let mut after = state.clone();
            let outcome = after.take(step);
            if outcome.is_ok() && !seen.insert(after.fingerprint()) {
                continue;
            }
            ways.push((place, Some(step), depth + 1));
            let place = ways.len() - 1;
            if let Err(why) = outcome {
                broken = Some((why, way::<M>(&ways, place)));
                break 'search;
            }
            next.push_back((place, after));
        }
    }
    Found {
        states: seen.len(),
        depth,
        broken,
    }
}

fn way<M: Model>(ways: &[(usize, Option<M::Step>, usize)], mut place: usize) -> Vec<M::Step> {
    let mut steps = Vec::new();
    while let (from, Some(step), _) = ways[place] {
        steps.push(step);
        place = from;
    }
    steps.reverse();
    steps
}

/// Searches, and fails with the way to a broken promise.
pub(super) fn holds(name: &str, start: impl Model) {
    let begun = Instant::now();
    let found = search(start);
    let told = format!(
        "{name}: {} states, {} steps deep, {:.1} s",
        found.states,
        found.depth,
        begun.elapsed().as_secs_f64()
    );
    if let Some((why, steps)) = found.broken {
        let steps: Vec<_> = steps.iter().map(|step| format!("  {step:?}")).collect();
        panic!("{told}: {why}, by\n{}", steps.join("\n"));
    }
    // For `--nocapture`.
    #[expect(clippy::print_stdout)]
    {
        println!("{told}");
    }
}

/// How much larger than usual the search is to be: the number in `HUBBUB_MODEL`.
pub(super) fn more() -> u8 {
    let more = std::env::var("HUBBUB_MODEL").ok();
    more.map_or(0, |more| more.parse().expect("a number"))
}

/// A hash of its own, since the one of the standard library is slow in a debug build.
#[derive(Default)]
struct StateHasher(u64);

impl Hasher for StateHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xf135_7aea_2e62_a9c5;
        self.0 = (mixed as u64 ^ (mixed >> 64) as u64).rotate_left(23);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }
}

pub(super) fn hash(value: &impl Hash) -> u64 {
    let mut hasher = StateHasher::default();
    value.hash(&mut hasher);
    hasher.finish()
}
