//! The keeper's rounds, with the test in Redis's place and the time as an argument.

use std::thread;

use crossbeam_channel::Receiver;
use redis::{Value, parse_redis_value};

use super::*;
use crate::backplane::Departure;
use crate::backplane::redis::acknowledged::Acknowledged;
use crate::backplane::redis::pipeline::PendingCommand;
use crate::backplane::redis::placement::SlotSet;
use crate::backplane::redis::schedule::SWEEP_WITHIN;
use crate::hub::outbox::outbox;
use crate::message::{ConnectionId, InstanceId, MessageId};
use crate::protocol::Encoding;

const TTL: Duration = Duration::from_secs(30);

/// Redis's clock, in milliseconds.
const CLOCK: u64 = 1_000_000;

/// What Redis was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AskedRedis {
    /// An operation of `presence.lua`, or the name of the command.
    operation: String,
    channel: String,
    /// The instance and its term.
    term: String,
    millis: u64,
}

impl AskedRedis {
    fn of(pending: &PendingCommand) -> Self {
        let words = match parse_redis_value(&pending.command).expect("a command") {
            Value::Array(words) => words,
            other => panic!("{other:?}"),
        };
        let words: Vec<String> = words
            .iter()
            .map(|word| redis::from_redis_value_ref(word).expect("text"))
            .collect();
        let is_presence = words[0] == "EVALSHA" && words[2] == "3";
        let word = |index: usize| words.get(index).filter(|_| is_presence).cloned();
        Self {
            operation: word(6).unwrap_or_else(|| words[0].clone()),
            channel: word(8).unwrap_or_default(),
            term: word(9).unwrap_or_default(),
            millis: word(10).map_or(0, |millis| millis.parse().expect("a number")),
        }
    }
}

/// The answer of a Redis to which nothing happens.
fn calm(asked: &AskedRedis) -> Result<Value, BackplaneError> {
    Ok(match &*asked.operation {
        "renew" => Value::Int(1),
        "sweep" => swept(1, 0),
        "roll" => Value::SimpleString("1-1\nalice".to_owned()),
        _ => Value::Nil,
    })
}

fn swept(is_known: i64, next: u64) -> Value {
    Value::Array(vec![
        Value::Int(is_known),
        Value::Int(CLOCK as i64),
        Value::Int(next as i64),
    ])
}

/// Redis answers this to one operation.
fn but(
    operation: &str,
    answer: Result<Value, BackplaneError>,
) -> impl Fn(&AskedRedis) -> Result<Value, BackplaneError> {
    move |asked| match asked.operation == operation {
        true => answer.clone(),
        false => calm(asked),
    }
}

/// An instance with alice in the lobby, and its rounds on a server.
struct House<F> {
    rounds: Rounds,
    next: F,
    tasks: Receiver<Task>,
    began: Instant,
}

fn house() -> House<impl Fn() -> Option<PendingCommand> + Sync> {
    house_on(Connecting::to_nobody())
}

fn house_on(to: Connecting) -> House<impl Fn() -> Option<PendingCommand> + Sync> {
    let hub = Hub::start(InstanceId::random(), 0).expect("no threads");
    let users = Users::new(
        &Arc::new(hub),
        &Retention {
            history_length: 1,
            history_ttl: TTL,
            history_bytes: 1,
            presence_ttl: TTL,
            presence_grace: TTL,
        },
    );
    let (publisher, next) = Publisher::without_thread(to.clone());
    publisher.link().stands();
    let presence = Presence::new(&Arc::new(publisher), to, &users, Share::All);
    let (subscriber, tasks) = crossbeam_channel::unbounded();
    let began = Instant::now();
    let mut house = House {
        rounds: Rounds {
            presence: Arc::new(presence),
            subscription: Box::new(|| 1),
            subscriber,
            schedule: Schedule::new(TTL, began),
        },
        next,
        tasks,
        began,
    };
    house.host(&RoomName::lobby());
    let presence = Arc::clone(&house.rounds.presence);
    let arrived = house.asks(calm, |_| {
        let mut questions = presence.publisher.questions();
        presence.arrive(&RoomName::lobby(), &alice(), &mut questions);
    });
    assert_eq!(arrived[0].operation, "arrive");
    house
}

fn alice() -> UserName {
    "alice".parse().expect("a name")
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

impl<F: Fn() -> Option<PendingCommand> + Sync> House<F> {
    /// A member enters the room.
    fn host(&self, room: &RoomName) {
        let (outbox, _) = outbox(Encoding::Text, 1000, None);
        let hub = &self.rounds.presence.users.hub;
        hub.add_member(room, ConnectionId(1), None, &outbox);
    }

    /// Does something, and returns what Redis is asked meanwhile, and answers.
    fn asks(
        &mut self,
        answer: impl Fn(&AskedRedis) -> Result<Value, BackplaneError> + Sync,
        act: impl FnOnce(&mut Rounds),
    ) -> Vec<AskedRedis> {
        let Self { rounds, next, .. } = self;
        thread::scope(|scope| {
            let redis = scope.spawn(|| {
                let mut all = Vec::new();
                while let Some(pending) = next() {
                    let asked = AskedRedis::of(&pending);
                    (pending.on_answer)(answer(&asked));
                    all.push(asked);
                }
                all
            });
            act(rounds);
            rounds.presence.publisher.stop();
            redis.join().expect("no panic")
        })
    }

    /// The operations of a round so many seconds after the beginning.
    fn round(
        &mut self,
        at: f64,
        answer: impl Fn(&AskedRedis) -> Result<Value, BackplaneError> + Sync,
    ) -> Vec<String> {
        let now = self.began + seconds(at);
        let asked = self.asks(answer, |rounds| rounds.tick(now));
        let operations = asked.into_iter().map(|asked| asked.operation);
        // A proof that Redis takes messages is the publisher's script.
        operations.filter(|name| name != "EVALSHA").collect()
    }

    fn is_swept(&self, room: &RoomName, at: Instant) -> bool {
        let presence = &self.rounds.presence;
        let mut rooms = presence.hosted();
        lock(&presence.sweeps).take_due(&mut rooms, at, || SWEPT_WITHIN);
        rooms.contains(room)
    }
}

#[test]
fn each_round_does_what_is_due_and_nothing_else() {
    let mut house = house();
    let red: RoomName = "red".parse().expect("a name");
    let began = house.began;
    let everything = house.asks(calm, |rounds| rounds.tick(began));
    let operations: Vec<_> = everything.iter().map(|asked| &*asked.operation).collect();
    assert_eq!(operations, ["EVALSHA", "anew"], "a proof, and all arrive");
    let nothing = house.asks(calm, |rounds| rounds.tick(began + seconds(0.9)));
    assert_eq!(nothing, []);
    let proof = house.asks(calm, |rounds| rounds.tick(began + seconds(1.0)));
    assert_eq!(proof.len(), 1);
    assert_eq!(house.round(9.9, calm), [""; 0]);
    assert_eq!(house.round(10.0, calm), ["renew", "sweep", "roll"]);
    assert!(
        matches!(house.tasks.try_recv(), Ok(Task::Present(room, _)) if room == RoomName::lobby())
    );
    // Another room is looked for every second. The lobby is swept again between 2.5 s and 5 s later.
    house.host(&red);
    assert_eq!(house.round(10.9, calm), [""; 0]);
    assert_eq!(house.round(11.0, calm), ["sweep"]);
    assert_eq!(house.round(12.1, calm), [""; 0]);
    assert_eq!(house.round(16.0, calm), ["sweep", "sweep"]);
    assert_eq!(house.round(16.9, calm), [""; 0]);
    // The second comparison soon, the third after a third of the TTL.
    let rolls = |operations: Vec<String>| operations.iter().filter(|one| *one == "roll").count();
    assert_eq!(rolls(house.round(17.0, calm)), 2);
    assert_eq!(rolls(house.round(26.9, calm)), 0);
    assert_eq!(rolls(house.round(27.0, calm)), 2);
    assert_eq!(rolls(house.round(33.9, calm)), 0);
    assert_eq!(rolls(house.round(34.0, calm)), 2);
}

#[test]
fn a_new_connection_has_all_arrive_in_a_new_term_before_anyone_is_swept() {
    let mut house = house();
    let began = house.began;
    let anew = |house: &mut House<_>, at| {
        let asked = house.asks(calm, |rounds| rounds.tick(began + seconds(at)));
        let mut terms = asked.into_iter().filter(|asked| asked.operation == "anew");
        terms.next().map(|asked| asked.term)
    };
    let first = anew(&mut house, 0.0).expect("all arrive");
    assert!(!first.ends_with(".0"), "{first}: alice was there in term 0");
    house.rounds.presence.publisher.link().stands();
    let second = anew(&mut house, 9.0).expect("all arrive");
    assert_ne!(first, second);
    assert_eq!(house.round(18.9, calm), [""; 0]);
    assert_eq!(house.round(19.0, calm), ["renew", "sweep", "roll"]);
}

#[test]
fn an_instance_that_redis_forgot_has_all_arrive_at_once_before_anyone_is_swept() {
    for forgets in ["renew", "sweep", "roll"] {
        let mut house = house();
        let answer = match forgets {
            "renew" => Value::Int(0),
            "sweep" => swept(0, 0),
            _ => Value::SimpleString("1-1".to_owned()),
        };
        assert_eq!(house.round(0.0, calm), ["anew"]);
        house.round(10.0, but(forgets, Ok(answer)));
        assert_eq!(house.round(10.3, calm), ["anew"], "{forgets}");
        assert_eq!(house.round(20.2, calm), [""; 0]);
        assert_eq!(house.round(20.3, calm), ["renew", "sweep", "roll"]);
    }
}

#[test]
fn a_room_without_users_of_ours_is_known_to_nobody_and_that_is_no_alarm() {
    let mut house = house();
    let presence = Arc::clone(&house.rounds.presence);
    let gone_at = Instant::now();
    let departure = Departure::Clean;
    let gone =
        lock(&presence.users.roster).depart(&RoomName::lobby(), &alice(), departure, gone_at);
    assert!(gone.is_some());
    house.round(0.0, calm);
    house.round(10.0, but("sweep", Ok(swept(0, 0))));
    assert_eq!(house.round(10.3, calm), [""; 0]);
}

#[test]
fn a_step_that_failed_has_all_arrive_after_a_pause_that_grows() {
    let mut house = house();
    let away = || but("anew", Err(BackplaneError::Unavailable));
    assert_eq!(house.round(0.0, away()), ["anew"]);
    assert_eq!(house.round(0.2, away()), [""; 0]);
    assert_eq!(house.round(2.1, away()), [""; 0]);
    assert_eq!(house.round(2.2, away()), ["anew"]);
    assert_eq!(house.round(2.4, away()), [""; 0]);
    assert_eq!(house.round(6.3, away()), [""; 0]);
    assert_eq!(house.round(6.4, calm), ["anew"]);
}

#[test]
fn a_room_with_a_failed_step_is_swept_after_all_could_arrive_and_a_refused_one_disturbs_nobody() {
    let mut house = house();
    let lobby = RoomName::lobby();
    assert_eq!(house.round(0.0, calm), ["anew"]);
    let before = Instant::now();
    let presence = Arc::clone(&house.rounds.presence);
    let refused = BackplaneError::Refused("WRONGTYPE".to_owned());
    presence.note_failure(lobby.clone(), Some(refused));
    presence.note_failure(lobby.clone(), None);
    assert_eq!(house.round(5.0, calm), [""; 0]);
    presence.note_failure(lobby.clone(), Some(BackplaneError::NoAnswer));
    let third = TTL / 3;
    assert!(!house.is_swept(&lobby, before + third - seconds(0.1)));
    assert!(house.is_swept(&lobby, Instant::now() + third));
    assert_eq!(house.round(5.0, calm), [""; 0]);
    assert_eq!(house.round(7.0, calm), ["anew"]);
}

#[test]
fn a_step_that_came_by_a_detour_has_all_arrive_anew() {
    let mut house = house();
    assert_eq!(house.round(0.0, calm), ["anew"]);
    house.rounds.presence.note_detour();
    house.round(1.0, calm);
    assert_eq!(house.round(3.0, calm), ["anew"]);
}

#[test]
fn other_rooms_than_before_have_all_arrive_anew() {
    let mut house = house();
    assert_eq!(house.round(0.0, calm), ["anew"]);
    let presence = Arc::clone(&house.rounds.presence);
    assert!(!presence.set_share(Share::All));
    house.round(1.0, calm);
    assert_eq!(house.round(3.0, calm), [""; 0]);
    let nothing = Share::Slots(Arc::new(SlotSet::empty()));
    assert!(presence.set_share(nothing.clone()));
    assert_eq!(presence.share(), nothing);
    assert!(presence.set_share(Share::All));
    house.round(4.0, calm);
    assert_eq!(house.round(6.0, calm), ["anew"]);
}

#[test]
fn a_sweep_ends_soon_and_comes_again_when_the_next_instance_lets_its_users_expire() {
    let mut house = house();
    let (lobby, began) = (RoomName::lobby(), house.began);
    let sweep = |house: &mut House<_>, at, next| {
        let answer = but("sweep", Ok(swept(1, next)));
        let asked = house.asks(answer, |rounds| rounds.sweep(at));
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked[0].millis
    };
    let soon = CLOCK + 1000;
    let until = sweep(&mut house, began, soon);
    assert_eq!(until, 0, "Redis's clock is not known yet");
    assert!(!house.is_swept(&lobby, began + seconds(0.9)));
    let again = Instant::now() + seconds(1.0);
    let late = CLOCK + 60_000;
    let until = sweep(&mut house, again, late);
    let within = SWEEP_WITHIN.as_millis() as u64 + 1000;
    let elapsed = began.elapsed().as_millis() as u64;
    assert!(
        (within..=within + elapsed).contains(&(until - CLOCK)),
        "{until}"
    );
    assert!(
        house.is_swept(&lobby, again + SWEPT_WITHIN),
        "not a minute later"
    );
}

#[test]
fn what_is_in_doubt_is_asked_for_in_each_round_until_there_is_an_answer() {
    let acknowledged = Arc::<Acknowledged>::default();
    let mut house = house_on(Connecting {
        acknowledged: Some(Arc::clone(&acknowledged)),
        ..Connecting::to_nobody()
    });
    house.round(0.0, calm);
    let (millis, number) = (1, 0);
    acknowledged.note(&RoomName::lobby(), MessageId { millis, number });
    acknowledged.doubt();
    let fails = but("EVAL", Err(BackplaneError::NoAnswer));
    assert_eq!(house.round(0.3, fails), ["EVAL"]);
    assert_eq!(house.round(0.6, calm), ["EVAL"]);
    assert_eq!(house.round(0.9, calm), [""; 0]);
}

#[test]
fn each_server_has_its_own_rounds() {
    let (one, other) = (house().rounds, house().rounds);
    assert!(one.are_on(&one.presence) && !one.are_on(&other.presence));
}
