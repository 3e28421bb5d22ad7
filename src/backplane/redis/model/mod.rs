//! A model of one room on two instances, searched exhaustively up to a bound. Redis, its Pub/Sub and the
//! clients are models. The code under test is the real one: the chain, [`fill`] and [`follow`]; what a client
//! is resumed with ([`resume`]); and the hub, which holds back and merges.
//!
//! The search is breadth-first, so the first way that it finds to a broken promise is a shortest one. A state
//! has all that matters and is small, so each step makes a hub of its own. Every step uses something
//! up: a message, an accident, or what waits. So every way ends, and where nothing can happen any more
//! everybody has to be current.
//!
//! Pub/Sub loses messages with a connection, and otherwise only before a later one: nothing but the next
//! message could tell. It loses none silently if the log begins anew, since then the next one names no
//! predecessor.

mod client;
mod redis;
mod world;

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use self::client::Broken;
use self::world::{Accidents, Step, World};

/// What a search found.
struct Found {
    states: usize,
    depth: usize,
    broken: Option<(Broken, Vec<Step>)>,
}

/// Visits all states that can be reached.
fn search(start: World) -> Found {
    // Where each state came from, to tell the way.
    let mut ways: Vec<(usize, Option<Step>, usize)> = vec![(0, None, 0)];
    let mut seen = HashSet::from([start.fingerprint()]);
    let mut next = VecDeque::from([(0, start)]);
    let (mut depth, mut broken) = (0, None);
    'search: while let Some((place, world)) = next.pop_front() {
        depth = ways[place].2;
        let steps = world.steps();
        if steps.is_empty() && !world.is_current() {
            broken = Some((Broken::NotCurrent, way(&ways, place)));
            break;
        }
        for step in steps {
            let mut after = world.clone();
            let outcome = after.take(step);
            if outcome.is_ok() && !seen.insert(after.fingerprint()) {
                continue;
            }
            ways.push((place, Some(step), depth + 1));
            let place = ways.len() - 1;
            if let Err(why) = outcome {
                broken = Some((why, way(&ways, place)));
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

fn way(ways: &[(usize, Option<Step>, usize)], mut place: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    while let (from, Some(step), _) = ways[place] {
        steps.push(step);
        place = from;
    }
    steps.reverse();
    steps
}

fn holds(name: &str, instances: usize, accidents: Accidents) {
    let begun = Instant::now();
    let found = search(World::new(instances, accidents));
    let told = format!(
        "{name}: {} states, {} steps deep, {:.1} s",
        found.states,
        found.depth,
        begun.elapsed().as_secs_f64()
    );
    // Shown with `--nocapture`.
    eprintln!("{told}");
    if let Some((why, steps)) = found.broken {
        let steps: Vec<_> = steps.iter().map(|step| format!("  {step:?}")).collect();
        panic!("{told}: {why}, by\n{}", steps.join("\n"));
    }
}

#[test]
fn every_message_is_heard_once_and_in_order_or_told_to_be_missing() {
    let all = Accidents {
        messages: 2,
        cuts: 1,
        ..Accidents::default()
    };
    holds("cuts", 2, all);
    let one = Accidents {
        messages: 3,
        cuts: 1,
        drops: 1,
        leaves: 1,
        trims: 1,
        ..Accidents::default()
    };
    holds("one", 1, one);
}
