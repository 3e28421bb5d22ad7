//! The publisher has two batches of commands in flight: order, and one answer each, hold all the same.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Client, get, metric};
use crate::support::hubbub::Hubbub;
use crate::support::proxy::{Link, Proxy};
use crate::support::redis::Redis;
use crate::support::{DEADLINE, until};

/// An instance that reaches its Redis through a proxy, and a user in the lobby.
struct House {
    redis: Redis,
    proxy: Proxy,
    hubbub: Hubbub,
    alice: Client,
    /// The number of the next ref.
    next: usize,
}

/// Answers may be withheld twice for so long, and stay well below the time-out of a batch.
const WITHHELD: Duration = Duration::from_millis(400);

impl House {
    fn new() -> Self {
        let redis = Redis::start();
        let proxy = Proxy::before(redis.port());
        let hubbub = Hubbub::with(&["--redis", &proxy.url(), "--send-rate", "0"]);
        let mut alice = Client::json(hubbub.address(), "alice");
        alice.joins("lobby");
        Self {
            redis,
            proxy,
            hubbub,
            alice,
            next: 0,
        }
    }

    /// Sends under the next ref, which is the text as well.
    fn send(&mut self) -> String {
        self.next += 1;
        let text = self.next.to_string();
        self.alice
            .asks(&json!({"type": "send", "room": "lobby", "text": text, "ref": text}));
        text
    }

    fn stored(&self) -> i64 {
        self.redis.run(&["XLEN", "hubbub:{lobby}:log"])
    }

    /// The commands for which Redis did not know the script.
    fn without_script(&self) -> i64 {
        let stats: String = self.redis.run(&["INFO", "errorstats"]);
        let count = stats.lines().find_map(|line| {
            let count = line.strip_prefix("errorstat_NOSCRIPT:count=")?;
            Some(count.parse().expect("a number"))
        });
        count.unwrap_or(0)
    }

    /// Withholds what Redis answers and sends three things, so that the last two are written together as
    /// soon as the first is answered. Returns their refs once Redis has run all, by this `count`. The
    /// instance's own commands may disturb it, and then it is tried again.
    fn a_batch_of_two(&mut self, count: impl Fn(&Self) -> i64) -> Vec<String> {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            self.proxy.set(Link::Stalled);
            let before = count(self);
            let mut sent = vec![self.send()];
            if soon(|| count(self) == before + 1) {
                sent.extend([self.send(), self.send()]);
                self.all_wait(3);
                self.proxy.set(Link::OneReply);
                if soon(|| count(self) == before + 3) {
                    return sent;
                }
            }
            self.proxy.set(Link::Open);
            sent.iter().for_each(|_| drop(self.answer()));
            self.is_ready_again();
        }
        panic!("there was no batch of two");
    }

    /// The same, and one more send, which is written as soon as the first of the two is answered.
    fn two_in_flight(&mut self) -> Vec<String> {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            let mut sent = self.a_batch_of_two(Self::stored);
            let before = self.stored();
            let first = self.answer();
            assert_eq!(first["ref"], *sent.remove(0));
            sent.push(self.send());
            self.all_wait(3);
            self.proxy.set(Link::OneReply);
            if soon(|| self.stored() == before + 1) {
                return sent;
            }
            self.proxy.set(Link::Open);
            sent.iter().for_each(|_| drop(self.answer()));
            self.is_ready_again();
        }
        panic!("the next batch is not written before the last one is answered");
    }

    fn all_wait(&self, count: u64) {
        soon(|| metric(&self.hubbub, "hubbub_messages_in_flight") == count);
    }

    /// The next answer to a send.
    fn answer(&mut self) -> Value {
        loop {
            let event = self.alice.event();
            if event["type"] == "sent" || event["type"] == "error" {
                return event;
            }
        }
    }

    fn is_ready_again(&self) {
        until("it is ready again", || {
            (get(self.hubbub.address(), "/readyz").0 == 200).then_some(())
        });
    }
}

/// Whether it comes true while answers may be withheld.
fn soon(mut fact: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !fact() {
        if begun.elapsed() > WITHHELD {
            return false;
        }
        thread::yield_now();
    }
    true
}

#[test]
fn the_next_batch_is_written_before_the_last_one_is_answered() {
    let mut house = House::new();
    let sent = house.two_in_flight();
    house.proxy.set(Link::Open);
    for reference in sent {
        let answer = house.answer();
        assert_eq!(answer["type"], "sent", "{answer}");
        assert_eq!(answer["ref"], reference);
    }
    until("nothing is in flight", || {
        (metric(&house.hubbub, "hubbub_messages_in_flight") == 0).then_some(())
    });
}

#[test]
fn a_cut_with_two_batches_in_flight_answers_every_send_once() {
    let mut house = House::new();
    let mut sent = house.two_in_flight();
    sent.push(house.send());
    house.all_wait(4);
    house.proxy.cut();
    for (number, reference) in sent.iter().enumerate() {
        let answer = house.answer();
        assert_eq!(answer["ref"], *reference, "in the order of the sends");
        // The answer to the first was read, the next two were written, and the last was not.
        let told = match number {
            0 => "null",
            1 | 2 => "it may have been sent or not",
            _ => "is unavailable",
        };
        assert!(answer["message"].to_string().contains(told), "{answer}");
    }
    house.proxy.set(Link::Open);
    house.proxy.mend();
    house.is_ready_again();
    // The next answer is the next send's: nothing was answered twice.
    for (number, reference) in sent.iter().enumerate() {
        let again = json!({"type": "send", "room": "lobby", "text": reference, "ref": reference});
        house.alice.asks(&again);
        let answer = house.answer();
        assert_eq!(answer["type"], "sent", "{answer}");
        assert_eq!(answer["ref"], *reference);
        assert_eq!(answer["duplicate"], number < 3, "{answer}");
    }
}

#[test]
fn sends_stay_in_order_when_redis_forgets_the_scripts_with_two_batches_in_flight() {
    let mut house = House::new();
    let _: String = house.redis.run(&["SCRIPT", "FLUSH"]);
    let mut sent = house.a_batch_of_two(|house| {
        let count = house.without_script();
        // Whatever made the instance load them again.
        let _: String = house.redis.run(&["SCRIPT", "FLUSH"]);
        count
    });
    // These would find the scripts, which are loaded again before they are written.
    sent.extend((0..20).map(|_| house.send()));
    house.proxy.set(Link::Open);
    for reference in &sent {
        let answer = house.answer();
        assert_eq!(answer["type"], "sent", "{answer}");
        assert_eq!(answer["ref"], **reference);
    }
    house
        .alice
        .asks(&json!({"type": "history", "room": "lobby", "limit": sent.len()}));
    let history = house.alice.event_of("history");
    let messages = history["messages"].as_array().expect("messages");
    let texts: Vec<_> = messages.iter().map(|message| &message["text"]).collect();
    assert_eq!(texts, sent.iter().collect::<Vec<_>>());
}

#[test]
fn a_room_is_entered_all_the_same_when_redis_forgets_the_scripts() {
    let mut house = House::new();
    for n in 0..30 {
        let _: String = house.redis.run(&["SCRIPT", "FLUSH"]);
        let room = format!("room-{n}");
        house
            .alice
            .asks(&json!({"type": "join", "room": room, "history": 5}));
        let answer = house.alice.event();
        assert_eq!(answer["type"], "room", "{answer}");
        assert_eq!(answer["members"], json!(["alice"]));
        house.alice.asks(&json!({"type": "leave", "room": room}));
        assert_eq!(house.alice.event()["type"], "parted");
    }
}
