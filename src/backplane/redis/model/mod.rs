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
//!
//! Instances only read what Redis has, but for what a sender's instance tells after a failover. So where an instance
//! can do nothing but what concerns itself, the search lets it do that first, and not in all orders with others
//! ([`World::steps`]).
//!
//! What is held no more strictly than this, and why:
//!
//! - A log that lost its end, or began anew, is told to all members, also to one that entered since, and to one that was
//!   not recovered and so knows it. Its last message may be one of the new log or one that was lost: ids do not tell. A
//!   gap of a log that was trimmed or forgotten is told only to those that lack a message.
//! - The same where the room moved to another node. Two listeners gave messages to one hub, and which of the older
//!   one's came too late is not known. The gap then comes behind the later message, and one that leaves before is not
//!   told.
//! - An instance that finds lost messages by the chain tells its members, and asks on behalf of the others. If something
//!   was said meanwhile, its own members hear of it twice: one that entered in between needs it.
//! - What is said into an empty room, and lost with all of Redis before it was read, nobody can miss.

mod search;
mod redis;
mod client;
mod under_test;
mod instance;
mod world;
mod presence;

use self::instance::Accidents;
use self::search::more;
use self::world::World;

/// Searches with so many instances.
fn holds(name: &str, instances: usize, accidents: Accidents) {
    search::holds(name, World::new(instances, accidents));
}

/// A client that leaves may come back once, a subscription may be cut once, and something else happens to the log.
fn accidents() -> Accidents {
    Accidents {
        messages: 2 + more(),
        cuts: 1,
        leaves: 1,
        ..Accidents::default()
    }
}

#[test]
fn two_instances_tell_each_message_once_and_in_one_order() {
    let one = Accidents {
        messages: 1,
        cuts: more().min(1),
        ..Accidents::default()
    };
    let cuts = one.cuts + 1;
    let each = [
        ("a cut", Accidents { cuts, ..one }),
        ("a loss of Pub/Sub", Accidents { drops: 1, ..one }),
        ("a repetition", Accidents { repeats: 1, ..one }),
        ("a goodbye", Accidents { leaves: 1, ..one }),
        ("a trimmed log", Accidents { trims: 1, ..one }),
        ("a forgotten log", Accidents { forgets: 1, ..one }),
        ("a lost end", Accidents { ends: 1, ..one }),
        ("a new log", Accidents { begins: 1, ..one }),
    ];
    for (name, accidents) in each {
        holds(&format!("two instances, {name}"), 2, accidents);
    }
}

#[test]
fn a_failover_that_loses_messages_is_told_to_the_clients_of_two_instances() {
    let accidents = Accidents {
        messages: 1,
        cuts: more().min(1),
        failovers: 1,
        ..Accidents::default()
    };
    holds("two instances, a failover", 2, accidents);
}

#[test]
fn a_failover_that_loses_messages_is_told_and_found_once() {
    let failovers = 1 + more();
    holds(
        "failover",
        1,
        Accidents {
            failovers,
            messages: 2,
            ..accidents()
        },
    );
}

#[test]
fn a_room_that_moves_to_another_node_has_no_untold_hole() {
    let all = accidents();
    let accidents = Accidents {
        moves: 1 + more(),
        messages: 2,
        leaves: 0,
        ..all
    };
    holds("moved", 1, accidents);
    let accidents = Accidents {
        moves: 1,
        messages: 2,
        cuts: 0,
        ..all
    };
    holds("moved, with a goodbye", 1, accidents);
}

#[test]
fn a_past_that_is_read_in_pieces_has_no_untold_hole() {
    let leaves = 1;
    let messages = 3 + more();
    let of_log = Accidents {
        messages,
        leaves,
        ..Accidents::default()
    };
    let begins = 1;
    holds("long past, new log", 1, Accidents { begins, ..of_log });
    let ends = 1;
    holds("long past, lost end", 1, Accidents { ends, ..of_log });
    let (messages, trims) = (messages + 1, 4);
    let accidents = Accidents {
        messages,
        trims,
        ..of_log
    };
    holds("long past, trimmed", 1, accidents);
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
