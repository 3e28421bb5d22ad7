//! Any interleaving of publishing, connecting, reading, breaking off and cutting gives each client
//! the room's one order, without a hole and without a double. And whatever the names and the texts
//! are, a line of the text encoding tells who speaks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use hubbub::backplane::Draft;
use hubbub::hub::outbox::outbox;
use hubbub::message::{ConnectionId, Message, MessageId, RoomName, UserName};
use hubbub::protocol::{Encoding, Event, text};
use hubbub::server::session::Session;
use hubbub::server::state::State;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::json;

use crate::support::DEADLINE;
use crate::support::house::{self, Reader};
use crate::support::redis::Redis;

const CLIENTS: usize = 3;

/// More than any case publishes, so that nothing is trimmed.
const KEPT: usize = 1000;

#[derive(Debug, Clone)]
enum Step {
    /// Several messages are published at once.
    Publish(usize),
    /// A client connects, resuming if it was there before.
    Connect(usize),
    /// A client reads so many events, if they are there.
    Read(usize, usize),
    /// A client breaks off; what it has not read is lost to it.
    BreakOff(usize),
    /// The subscription is cut.
    Cut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..CLIENTS;
    let step = prop_oneof![
        4 => (1..6_usize).prop_map(Step::Publish),
        3 => client.clone().prop_map(Step::Connect),
        3 => (client.clone(), 1..8_usize).prop_map(|(client, count)| Step::Read(client, count)),
        2 => client.prop_map(Step::BreakOff),
        1 => Just(Step::Cut),
    ];
    prop::collection::vec(step, 1..40)
}

static NEXT: AtomicU64 = AtomicU64::new(1);

#[derive(Default)]
struct Client {
    link: Option<(Session, Reader)>,
    seen: Vec<MessageId>,
    recovered: bool,
}

impl Client {
    fn connect(&mut self, state: &Arc<State>, user: &UserName, room: &RoomName) {
        if self.link.is_some() {
            return;
        }
        let (outbox, queue) = outbox(Encoding::Json, 1 << 20, None);
        let connection = ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed));
        let mut session = Session::begin(
            Arc::clone(state),
            connection,
            user.clone(),
            room.clone(),
            Arc::default(),
            outbox,
        );
        let since = self.seen.last().map(ToString::to_string);
        let join = json!({"type": "join", "room": room.as_str(), "since": since});
        session.handle(&join.to_string());
        self.link = Some((session, Reader::of(queue)));
        self.recovered |= since.is_some();
    }

    fn take(&mut self, event: Event) -> Result<(), TestCaseError> {
        let resuming = !self.seen.is_empty();
        match event {
            Event::Room {
                messages,
                recovered,
                last,
                ..
            } => {
                prop_assert!(recovered || !resuming, "nothing was trimmed");
                self.seen.extend(messages.iter().map(|message| message.id));
                if !resuming && self.seen.is_empty() {
                    // Where this client's part of the order begins.
                    self.seen.extend(last);
                }
            }
            Event::Message { message, .. } => self.seen.push(message.id),
            Event::Gap { .. } => return Err(TestCaseError::fail("nothing was lost")),
            _ => {}
        }
        Ok(())
    }

    fn read(&mut self, count: usize) -> Result<(), TestCaseError> {
        for _ in 0..count {
            let event = match &mut self.link {
                Some((_, reader)) => reader.has(),
                None => None,
            };
            match event {
                Some(event) => self.take(event)?,
                None => break,
            }
        }
        Ok(())
    }

    fn read_until(&mut self, end: MessageId) -> Result<(), TestCaseError> {
        while self.seen.last() != Some(&end) {
            let (_, reader) = self.link.as_mut().expect("it is connected");
            let event = reader.hears();
            self.take(event)?;
        }
        Ok(())
    }
}

/// Publishes without waiting in between; the ids, in the order of the calls.
fn publish(state: &State, room: &RoomName, count: usize) -> Vec<MessageId> {
    let (tell, told) = mpsc::channel();
    for _ in 0..count {
        let tell = tell.clone();
        let draft = Draft {
            room: room.clone(),
            from: "publisher".parse().expect("a name"),
            text: "text".to_owned(),
            reference: None,
            via: None,
        };
        let receipt = Box::new(move |outcome| {
            let _ = tell.send(outcome);
        });
        state.backplane.publish(draft, receipt);
    }
    (0..count)
        .map(|_| {
            let outcome = told.recv_timeout(DEADLINE).expect("a receipt");
            outcome.expect("it is stored").id
        })
        .collect()
}

fn one_order(state: &Arc<State>, steps: Vec<Step>, cut: impl Fn()) -> Result<(), TestCaseError> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let room: RoomName = format!("room-{number}").parse().expect("a name");
    let user: UserName = "client".parse().expect("a name");
    let mut clients: [Client; CLIENTS] = Default::default();
    let mut order = Vec::new();
    for step in steps {
        match step {
            Step::Publish(count) => order.extend(publish(state, &room, count)),
            Step::Connect(client) => clients[client].connect(state, &user, &room),
            Step::Read(client, count) => clients[client].read(count)?,
            Step::BreakOff(client) => clients[client].link = None,
            Step::Cut => cut(),
        }
    }
    for client in &mut clients {
        client.connect(state, &user, &room);
    }
    order.extend(publish(state, &room, 1));
    let end = order[order.len() - 1];
    for client in &mut clients {
        client.read_until(end)?;
        let begin = order.iter().position(|id| Some(id) == client.seen.first());
        let begin = begin.expect("it saw something of this room");
        prop_assert_eq!(&client.seen[..], &order[begin..]);
    }
    Ok(())
}

fn run(cases: u32, state: &Arc<State>, cut: impl Fn()) {
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&steps(), |steps| one_order(state, steps, &cut))
        .unwrap_or_else(|error| panic!("{error}"));
    state.backplane.close();
}

#[test]
fn every_client_sees_one_order_on_the_embedded_backplane() {
    run(300, &house::state(house::local(KEPT)), || {});
}

#[test]
fn every_client_sees_one_order_through_redis_and_its_cuts() {
    let redis = Redis::start();
    let shared = house::shared_by(&[redis.url()], "test", KEPT);
    run(60, &house::state(shared), || {
        let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    });
}

/// A name or a text, mostly of the pieces of which lines are made.
fn words() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        9 => prop::sample::select(vec![
            "bob", "eve", ":", ": ", " ", "* ", "! ", "*", "!", ", ", "online", "online: ", "\n",
            "\u{a0}", "\u{200b}",
        ])
        .prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat())
}

fn name() -> impl Strategy<Value = UserName> {
    words().prop_filter_map("a name", |words| words.parse().ok())
}

proptest! {
    #![proptest_config(Config { cases: 5_000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn no_line_begins_as_another_users_or_the_servers(a in name(), b in name(), said in words()) {
        prop_assume!(a != b);
        let message = Message { id: MessageId::ZERO, from: a.clone(), text: said, at: 0 };
        for (looks_like, author) in [(None, format!("{a}: ")), (Some(b.clone()), format!("{a}, not {b}: "))] {
            let message = message.clone();
            for line in text::encode(&Event::Message { room: RoomName::lobby(), message, looks_like, via: None }) {
                prop_assert!(line.starts_with(&author), "{line:?}");
                for other in [&*format!("{b}: "), &*format!("{b}, not "), "* ", "! "] {
                    prop_assert!(!line.starts_with(other), "{line:?} begins as {other:?}");
                }
            }
        }
    }

    #[test]
    fn no_notice_of_a_user_reads_as_one_of_others(a in name(), b in name()) {
        prop_assume!(a != b);
        let (room, user) = (RoomName::lobby(), a.clone());
        let own = [
            text::encode(&Event::Joined { room: room.clone(), user: user.clone(), looks_like: None }),
            text::encode(&Event::Left { room: room.clone(), user }),
        ];
        for line in own.concat() {
            for other in ["* online: ", "* these names look alike: "] {
                prop_assert!(!line.starts_with(other), "{line:?} begins as {other:?}");
            }
            prop_assert!(line != format!("* {b} joined") && line != format!("* {b} left"), "{line:?}");
        }
        let members = [a.clone(), b.clone()].into();
        let online = text::encode(&Event::Members { room, members, alike: Vec::new() });
        let names: Vec<_> = online[0]["* online: ".len()..].split(", ").collect();
        prop_assert_eq!(names, [a.as_str(), b.as_str()]);
    }
}
