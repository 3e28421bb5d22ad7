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

mod redis;
mod client;
mod under_test;
mod world;

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use self::client::Broken;
use self::world::{Accidents, ModelStep, World};

/// What a search found.
struct Found {
    states: usize,
    depth: usize,
    broken: Option<(Broken, Vec<ModelStep>)>,
}

/// Visits all states that can be reached.
fn search(start: World) -> Found {
    // Where each state came from, to tell the way.
    let mut ways: Vec<(usize, Option<ModelStep>, usize)> = vec![(0, None, 0)];
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

fn way(ways: &[(usize, Option<ModelStep>, usize)], mut place: usize) -> Vec<ModelStep> {
    let mut steps = Vec::new();
    while let (from, Some(step), _) = ways[place] {
        steps.push(step);
        place = from;
    }
    steps.reverse();
    steps
}

/// Searches with so many instances, and fails with the way to a broken promise.
fn holds(name: &str, instances: usize, accidents: Accidents) {
    let begun = Instant::now();
    let found = search(World::new(instances, accidents));
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

/// A client that leaves may come back once, a subscription may be cut once, and something else happens to the log.
/// `HUBBUB_MODEL=1` and more adds so many messages.
fn accidents() -> Accidents {
    let more = std::env::var("HUBBUB_MODEL").ok();
    let more: u8 = more.map_or(0, |more| more.parse().expect("a number"));
    Accidents {
        messages: 2 + more,
        cuts: 1,
        leaves: 1,
        ..Accidents::default()
    }
}

#[test]
fn two_instances_tell_each_message_once_and_in_one_order() {
    let leaves = 0;
    holds(
        "two instances",
        2,
        Accidents {
            leaves,
            ..accidents()
        },
    );
}

#[test]
fn a_log_of_several_pages_is_read_to_its_end() {
    let all = accidents();
    let accidents = Accidents {
        messages: all.messages + 1,
        leaves: 0,
        ..all
    };
    holds("pages", 1, accidents);
}

#[test]
fn a_message_that_pubsub_loses_or_repeats_is_heard_once() {
    let (drops, repeats) = (1, 1);
    holds(
        "Pub/Sub",
        1,
        Accidents {
            drops,
            repeats,
            ..accidents()
        },
    );
}

#[test]
fn a_log_that_is_trimmed_has_no_untold_hole() {
    let (trims, drops) = (2, 1);
    holds(
        "trimmed",
        1,
        Accidents {
            trims,
            drops,
            ..accidents()
        },
    );
}

#[test]
fn a_log_that_is_forgotten_has_no_untold_hole() {
    let forgets = 1;
    holds(
        "forgotten",
        1,
        Accidents {
            forgets,
            ..accidents()
        },
    );
}

#[test]
fn a_log_that_loses_its_end_has_no_untold_hole() {
    let ends = 1;
    holds(
        "loses its end",
        1,
        Accidents {
            ends,
            ..accidents()
        },
    );
}

#[test]
fn a_log_that_begins_anew_has_no_untold_hole() {
    let begins = 1;
    holds(
        "begins anew",
        1,
        Accidents {
            begins,
            ..accidents()
        },
    );
}
