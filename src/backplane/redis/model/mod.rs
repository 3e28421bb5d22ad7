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

mod search;
mod redis;
mod client;
mod world;
mod presence;

use self::search::holds;
use self::world::{Accidents, World};

/// A client that leaves may come back once, a subscription may be cut once, and something else happens to the log.
/// `HUBBUB_MODEL=1` and more adds so many messages.
fn accidents() -> Accidents {
    Accidents {
        messages: 2 + search::more(),
        cuts: 1,
        leaves: 1,
        ..Accidents::default()
    }
}

#[test]
fn two_instances_tell_each_message_once_and_in_one_order() {
    let leaves = 0;
    let accidents = Accidents {
        leaves,
        ..accidents()
    };
    holds("two instances", World::new(2, accidents));
}

#[test]
fn a_log_of_several_pages_is_read_to_its_end() {
    let all = accidents();
    let accidents = Accidents {
        messages: all.messages + 1,
        leaves: 0,
        ..all
    };
    holds("pages", World::new(1, accidents));
}

#[test]
fn a_message_that_pubsub_loses_or_repeats_is_heard_once() {
    let (drops, repeats) = (1, 1);
    let accidents = Accidents {
        drops,
        repeats,
        ..accidents()
    };
    holds("Pub/Sub", World::new(1, accidents));
}

#[test]
fn a_log_that_is_trimmed_has_no_untold_hole() {
    let (trims, drops) = (2, 1);
    let accidents = Accidents {
        trims,
        drops,
        ..accidents()
    };
    holds("trimmed", World::new(1, accidents));
}

#[test]
fn a_log_that_is_forgotten_has_no_untold_hole() {
    let forgets = 1;
    let accidents = Accidents {
        forgets,
        ..accidents()
    };
    holds("forgotten", World::new(1, accidents));
}

#[test]
fn a_log_that_loses_its_end_has_no_untold_hole() {
    let ends = 1;
    let accidents = Accidents {
        ends,
        ..accidents()
    };
    holds("loses its end", World::new(1, accidents));
}

#[test]
fn a_log_that_begins_anew_has_no_untold_hole() {
    let begins = 1;
    let accidents = Accidents {
        begins,
        ..accidents()
    };
    holds("begins anew", World::new(1, accidents));
}
