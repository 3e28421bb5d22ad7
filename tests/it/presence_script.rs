//! The model of presence runs a copy of `presence.lua` in Rust. Here both take the same random steps, the script on a real
//! Redis: they must answer, publish and keep the same.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use redis::{Connection, Value};

use self::script::{
    Announced, InstanceTerm, ModelPresence, Operation, ScriptAnswer, ScriptRevision,
};
use crate::support::redis::Redis;

#[path = "../../src/backplane/redis/model/presence/script.rs"]
mod script;

const SCRIPT: &str = include_str!("../../src/backplane/redis/presence.lua");

/// So that a sweep meets its bound.
const MOST_SWEPT: usize = 2;

const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// The test sets the clock, and reads what was published from a list.
const CLOCK: &str = "clock";
const PUBLISHED: &str = "published";

/// A year before the turn of the millennium, in microseconds.
const BEGIN: u64 = 915_148_800_000_000;

/// Something that happens, so many milliseconds after the step before.
#[derive(Debug, Clone)]
enum Step {
    Run(u64, InstanceTerm, Operation),
    /// Redis forgets these keys: users, instances, revision.
    Forget(u64, [bool; 3]),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let term = (10..13_u8, 1..4_u64).prop_map(|(instance, term)| InstanceTerm { instance, term });
    let users = || prop::collection::vec(prop::sample::select(&USERS[..]), 0..3);
    let lasts = || 1..4000_u64;
    let operation = prop_oneof![
        4 => (lasts(), users()).prop_map(|(ttl, users)| Operation::Arrive { ttl, users }),
        2 => (lasts(), users()).prop_map(|(ttl, users)| Operation::Anew { ttl, users }),
        4 => users().prop_map(|users| Operation::Depart { users }),
        2 => lasts().prop_map(|ttl| Operation::Renew { ttl }),
        1 => lasts().prop_map(|grace| Operation::Retire { grace }),
        // By the clock as it is then: see `differs`.
        3 => (0..2000_u64).prop_map(|until| Operation::Sweep { until }),
        1 => Just(Operation::Roll),
        1 => Just(Operation::Members),
        1 => Just(Operation::Count),
    ];
    let forgotten = prop::array::uniform3(any::<bool>());
    let pause = || 0..2000_u64;
    let step = prop_oneof![
        20 => (pause(), term, operation).prop_map(|(pause, at, what)| Step::Run(pause, at, what)),
        1 => (pause(), forgotten).prop_map(|(pause, keys)| Step::Forget(pause, keys)),
    ];
    prop::collection::vec(step, 1..40)
}

#[test]
fn the_models_copy_of_the_script_does_what_the_script_does() {
    let redis = Redis::start();
    let client = redis::Client::open(redis.url()).expect("an address");
    let connection = RefCell::new(client.get_connection().expect("a connection"));
    let script = SCRIPT
        .replace("redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, 1)")
        .replace("MOST_SWEPT = 250", &format!("MOST_SWEPT = {MOST_SWEPT}"));
    assert!(script.contains("'clock'") && script.contains("MOST_SWEPT = 2\n"));
    let config = Config {
        cases: 200,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&steps(), |steps| {
        differs(&script, &mut connection.borrow_mut(), &steps)
            .map_or(Ok(()), |why| Err(TestCaseError::fail(why)))
    });
    outcome.unwrap_or_else(|why| panic!("{why}"));
}

/// Takes the steps in both. Returns the first difference.
fn differs(script: &str, connection: &mut Connection, steps: &[Step]) -> Option<String> {
    let mut copy = ModelPresence::default();
    let mut time = BEGIN;
    run(connection, &["FLUSHALL"]);
    for step in steps {
        match step {
            Step::Forget(pause, [users, instances, revision]) => {
                time += pause * 1000;
                let keys = ["users", "instances", "revision"];
                for (key, is_gone) in keys.iter().zip([users, instances, revision]) {
                    if *is_gone {
                        run(connection, &["DEL", key]);
                    }
                }
                copy = ModelPresence {
                    users: if *users { Vec::new() } else { copy.users },
                    instances: if *instances {
                        [].into()
                    } else {
                        copy.instances
                    },
                    revision: copy.revision.filter(|_| !revision),
                };
            }
            Step::Run(pause, at, operation) => {
                time += pause * 1000 + 7;
                let mut operation = operation.clone();
                if let Operation::Sweep { until } = &mut operation {
                    // About half of them come late.
                    *until += time / 1000 - 1000;
                }
                let wanted = copy.run(*at, &operation, time, MOST_SWEPT);
                let found = run_script(script, connection, *at, &operation, time);
                if wanted != found {
                    return Some(format!("{operation:?}: {wanted:?}, and not {found:?}"));
                }
            }
        }
        let kept = kept(connection);
        if copy != kept {
            return Some(format!("{step:?}: {copy:?}, and not {kept:?}"));
        }
    }
    None
}

fn run(connection: &mut Connection, words: &[&str]) -> Value {
    let answer = redis::cmd(words[0]).arg(&words[1..]).query(connection);
    answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn run_script(
    script: &str,
    connection: &mut Connection,
    at: InstanceTerm,
    operation: &Operation,
    time: u64,
) -> (ScriptAnswer, Vec<Announced>) {
    let (name, millis, users) = match operation {
        Operation::Arrive { ttl, users } => ("arrive", *ttl, &users[..]),
        Operation::Anew { ttl, users } => ("anew", *ttl, &users[..]),
        Operation::Depart { users } => ("depart", 0, &users[..]),
        Operation::Renew { ttl } => ("renew", *ttl, &[][..]),
        Operation::Retire { grace } => ("retire", *grace, &[][..]),
        Operation::Sweep { until } => ("sweep", *until, &[][..]),
        Operation::Roll => ("roll", 0, &[][..]),
        Operation::Members => ("members", 0, &[][..]),
        Operation::Count => ("count", 0, &[][..]),
    };
    run(connection, &["DEL", CLOCK, PUBLISHED]);
    let (seconds, micros) = (time / 1_000_000, time % 1_000_000);
    let clock = [seconds.to_string(), micros.to_string()];
    run(connection, &["RPUSH", CLOCK, &clock[0], &clock[1]]);
    let (at, millis) = (at.to_string(), millis.to_string());
    let keys = ["EVAL", script, "3", "users", "instances", "revision"];
    let arguments = [name, "RPUSH", PUBLISHED, &at, &millis];
    let answer = run(connection, &[&keys[..], &arguments[..], users].concat());
    let announced = texts(&run(connection, &["LRANGE", PUBLISHED, "0", "-1"]));
    let announced = announced.iter().map(|payload| announced_of(payload));
    (answer_of(operation, &answer), announced.collect())
}

fn announced_of(payload: &str) -> Announced {
    let lines: Vec<_> = payload.split('\n').collect();
    (lines[0] == "j", revision_of(lines[1]), user_of(lines[2]))
}

fn answer_of(operation: &Operation, answer: &Value) -> ScriptAnswer {
    match (operation, answer) {
        (_, Value::Nil) => ScriptAnswer::Nothing,
        (Operation::Renew { .. } | Operation::Retire { .. }, Value::Int(known)) => {
            ScriptAnswer::Known(*known == 1)
        }
        (Operation::Count, Value::Int(count)) => ScriptAnswer::Count(*count as usize),
        (Operation::Sweep { .. }, Value::Array(numbers)) => match numbers[..] {
            [Value::Int(known), Value::Int(clock), Value::Int(next)] => ScriptAnswer::Swept {
                is_known: known == 1,
                clock: clock as u64,
                next: next as u64,
            },
            _ => panic!("{answer:?}"),
        },
        (Operation::Roll | Operation::Members, Value::BulkString(lines)) => {
            let lines = String::from_utf8_lossy(lines);
            let mut lines = lines.lines();
            let revision = revision_of(lines.next().expect("a revision"));
            ScriptAnswer::List(revision, lines.map(user_of).collect())
        }
        _ => panic!("{operation:?}: {answer:?}"),
    }
}

/// What the three keys hold.
fn kept(connection: &mut Connection) -> ModelPresence {
    let users = texts(&run(connection, &["HGETALL", "users"]));
    let users = users.chunks(2).map(|pair| {
        let held = pair[1].split(' ').map(term_of).collect();
        (user_of(&pair[0]), held)
    });
    let instances = texts(&run(
        connection,
        &["ZRANGE", "instances", "0", "-1", "WITHSCORES"],
    ));
    let instances = instances.chunks(2).map(|pair| {
        let ends = pair[1].parse().expect("milliseconds");
        (term_of(&pair[0]), ends)
    });
    let revision = match run(connection, &["GET", "revision"]) {
        Value::BulkString(text) => Some(revision_of(&String::from_utf8_lossy(&text))),
        _ => None,
    };
    ModelPresence {
        users: users.collect(),
        instances: instances.collect(),
        revision,
    }
}

fn texts(value: &Value) -> Vec<String> {
    redis::from_redis_value_ref(value).expect("texts")
}

fn user_of(name: &str) -> &'static str {
    let known = USERS.iter().find(|user| **user == name);
    known.expect("one of the users")
}

fn revision_of(text: &str) -> ScriptRevision {
    let (began, number) = text.split_once('-').expect("two numbers");
    (
        began.parse().expect("microseconds"),
        number.parse().expect("a number"),
    )
}

fn term_of(name: &str) -> InstanceTerm {
    let (instance, term) = name.split_once('.').expect("an instance and its term");
    InstanceTerm {
        instance: u8::from_str_radix(instance, 16).expect("hexadecimal"),
        term: term.parse().expect("a number"),
    }
}
