//! A model of who is in one room, on two or three instances, searched exhaustively up to a bound. Redis, its Pub/Sub and
//! the connections are models; each run of `presence.lua` is one step, of a copy that a test holds to the real script. The
//! code under test is the real one: the roster, the hub with its roll and its members, and what the keeper does when
//! (`schedule.rs`).
//!
//! Time goes by in seconds, and the presence TTL is three of them, the least that an operator may set. In some seconds
//! everything may happen in any order; then no accident happens any more, and in the end everybody has to agree.
//!
//! What is promised: nobody is announced to leave who is on an instance that can be reached and has told Redis so. Nobody is
//! told of more joins or leaves than there were by the shared state, and those of one user alternate; unless the
//! instance missed a notice of this user. Then one may be repeated, and the end is right all the same.

mod script;
mod client;
mod instance;
mod world;

use self::client::{ModelConnection, VisitPhase};
use self::world::{PresenceAccidents, PresenceWorld};
use crate::backplane::redis::model::search::{holds, more};

/// A connection that is in from the beginning, and stays.
fn stays(user: &'static str, instance: usize) -> ModelConnection {
    ModelConnection {
        phase: VisitPhase::In,
        enters: 0,
        ..ModelConnection::new(user, instance)
    }
}

/// A connection that may enter, and leave.
fn visits(user: &'static str, instance: usize) -> ModelConnection {
    ModelConnection {
        leaves: 1,
        ..ModelConnection::new(user, instance)
    }
}

/// A connection that may leave, and come back.
fn comes_back(user: &'static str, instance: usize) -> ModelConnection {
    ModelConnection {
        enters: 1,
        leaves: 1,
        ..stays(user, instance)
    }
}

/// The seconds before anything happens: some, or so many that instances compare for the second time soon.
const BEFORE: [u64; 2] = [2, 7];

/// One second in which everything may happen, and so many more. `HUBBUB_MODEL=1` adds one.
fn seconds(seconds: u8) -> PresenceAccidents {
    PresenceAccidents {
        seconds: seconds + more(),
        ..PresenceAccidents::default()
    }
}

#[test]
fn a_user_with_connections_to_two_instances_joins_once_and_leaves_once() {
    let connections = vec![stays("bob", 0), visits("alice", 0), visits("alice", 1)];
    holds(
        "two tabs",
        PresenceWorld::new(2, connections, 2, seconds(0)),
    );
}

#[test]
fn a_user_with_two_connections_to_one_instance_joins_once_and_leaves_once() {
    let connections = vec![stays("bob", 1), visits("alice", 0), visits("alice", 0)];
    holds(
        "one instance",
        PresenceWorld::new(2, connections, 2, seconds(0)),
    );
}

#[test]
fn a_departure_that_redis_refuses_is_made_up_for() {
    let connections = vec![stays("bob", 0), comes_back("alice", 0)];
    let accidents = PresenceAccidents {
        refusals: 1,
        ..seconds(1)
    };
    holds("refused", PresenceWorld::new(1, connections, 2, accidents));
}

#[test]
fn a_redis_that_was_frozen_takes_nobody_for_gone() {
    let connections = vec![stays("bob", 0), stays("carol", 1)];
    let accidents = PresenceAccidents {
        outages: 1,
        late: true,
        waits: 1,
        ..seconds(1)
    };
    holds("frozen", PresenceWorld::new(2, connections, 2, accidents));
}

#[test]
fn a_user_who_breaks_off_and_comes_back_within_the_grace_does_not_leave() {
    let alice = ModelConnection {
        leaves: 0,
        breaks: 1,
        ..comes_back("alice", 0)
    };
    let connections = vec![stays("bob", 0), alice, stays("carol", 1)];
    holds(
        "broken off",
        PresenceWorld::new(2, connections, 2, seconds(1)),
    );
}

#[test]
fn the_users_of_an_instance_that_is_killed_are_gone() {
    let connections = vec![stays("bob", 0), visits("alice", 0), stays("alice", 1)];
    let accidents = PresenceAccidents {
        crashes: 1,
        ..seconds(1)
    };
    holds("killed", PresenceWorld::new(2, connections, 2, accidents));
}

#[test]
fn two_instances_that_sweep_announce_the_users_of_a_third_once() {
    let connections = vec![stays("bob", 0), stays("alice", 1), stays("carol", 2)];
    let accidents = PresenceAccidents {
        crashes: 1,
        waits: 1,
        ..seconds(1)
    };
    holds("three", PresenceWorld::new(3, connections, 2, accidents));
}

#[test]
fn a_redis_that_is_away_for_long_makes_nobody_come_or_go() {
    let alice = ModelConnection {
        enters: 0,
        ..comes_back("alice", 0)
    };
    let connections = vec![stays("bob", 0), alice, stays("carol", 1)];
    let accidents = PresenceAccidents {
        outages: 1,
        waits: 1,
        ..seconds(1)
    };
    holds("away", PresenceWorld::new(2, connections, 2, accidents));
}

#[test]
fn the_users_of_an_instance_that_ends_are_gone() {
    let connections = vec![stays("bob", 0), visits("alice", 0), stays("alice", 1)];
    let accidents = PresenceAccidents {
        ends: 1,
        ..seconds(1)
    };
    holds("ended", PresenceWorld::new(2, connections, 2, accidents));
}

#[test]
fn the_users_of_an_instance_that_was_cut_off_are_here_again() {
    let alice = ModelConnection {
        leaves: more(),
        ..visits("alice", 0)
    };
    let connections = vec![stays("bob", 0), alice, stays("carol", 1)];
    let accidents = PresenceAccidents {
        cuts: 1,
        waits: 1,
        ..seconds(0)
    };
    holds("cut", PresenceWorld::new(2, connections, 2, accidents));
}

#[test]
fn a_command_that_arrives_after_its_instance_is_back_makes_nobody_leave() {
    let connections = vec![stays("bob", 0), comes_back("alice", 0)];
    let accidents = PresenceAccidents {
        cuts: 1,
        late: true,
        ..seconds(1)
    };
    holds("late", PresenceWorld::new(1, connections, 2, accidents));
}

#[test]
fn a_notice_that_is_lost_is_made_up_for() {
    for before in BEFORE {
        let connections = vec![stays("bob", 0), visits("alice", 1)];
        let accidents = PresenceAccidents {
            drops: 1,
            ..seconds(1)
        };
        holds(
            "lost notice",
            PresenceWorld::new(2, connections, before, accidents),
        );
    }
}

#[test]
fn a_subscription_that_is_cut_is_made_up_for() {
    let connections = vec![stays("bob", 0), visits("alice", 1)];
    let accidents = PresenceAccidents {
        deaf: 1,
        ..seconds(1)
    };
    holds("deaf", PresenceWorld::new(2, connections, 2, accidents));
}

#[test]
fn a_user_who_enters_beside_a_lost_notice_is_right_in_the_end() {
    let (mut alice, mut dave) = (comes_back("alice", 1), visits("dave", 0));
    (alice.enters, dave.leaves) = (more(), more());
    let connections = vec![stays("bob", 0), alice, dave];
    let accidents = PresenceAccidents {
        drops: 1,
        ..seconds(0)
    };
    holds("newcomer", PresenceWorld::new(2, connections, 2, accidents));
}

#[test]
fn a_redis_that_forgets_everything_is_told_again() {
    for instance in 0..2 {
        let connections = vec![stays("bob", 0), visits("alice", instance)];
        let accidents = PresenceAccidents {
            forgets: 1,
            ..seconds(1)
        };
        holds(
            "forgotten",
            PresenceWorld::new(2, connections, 2, accidents),
        );
    }
}
