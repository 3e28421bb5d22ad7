//! The checker is checked: for each of its properties a fault is planted, and must be found, by one
//! finding; without it there must be none.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use hubbub::client::ClientEvent;
use hubbub::message::{Message, MessageId, RoomName, UserName};
use hubbub::protocol::{ErrorCode, Event};

use crate::check::{self, Acknowledged, Losses, Present};
use crate::crowd::{Record, Seen};
use crate::faults;
use crate::kinds::Kind;
use crate::processes::{Load, is_ready};
use crate::servers::MODES;

/// What spoils a list of what was seen, and the words in which it must be found.
type Spoil = (&'static str, fn(&mut Vec<Seen>));

const SPOILS: [Spoil; 6] = [
    ("was acknowledged and not seen", |seen| {
        seen.remove(seen.len() / 2);
    }),
    ("was seen twice", |seen| {
        let middle = seen.len() / 2;
        seen.insert(middle, seen[middle].clone());
    }),
    ("was seen after a later one", |seen| {
        let middle = seen.len() / 2;
        seen.swap(middle, middle - 1);
    }),
    ("acknowledged as", |seen| {
        let middle = seen.len() / 2;
        if let Seen::Message(_, text) = &mut seen[middle] {
            text.push('!');
        }
    }),
    ("was never acknowledged", |seen| {
        let later = MessageId {
            millis: u64::MAX,
            number: 0,
        };
        seen.push(Seen::Message(later, "from nowhere".to_owned()));
    }),
    ("a gap", |seen| {
        seen.insert(seen.len() / 2, Seen::Gap(None, None));
    }),
];

/// Plants each spoil into what somebody really saw, in which nothing is wrong. Lists those that were not
/// found.
pub(crate) fn blind_spots(record: &Record, said: &BTreeMap<MessageId, String>) -> Vec<String> {
    if record.seen.len() < 2 {
        return vec![format!(
            "{} saw too little to plant a fault in it",
            record.name
        )];
    }
    let until = record.last_seen();
    let mut test = Test::default();
    for (words, spoil) in SPOILS {
        test.finds(words, |planted| {
            let mut record = record.clone();
            if planted {
                spoil(&mut record.seen);
            }
            check::faults(&record, said, until, &Losses::default())
        });
    }
    test.blind
}

#[derive(Default)]
struct Test {
    /// What was planted and not found, or found and not planted.
    blind: Vec<String>,
}

impl Test {
    /// `look` looks for faults, in something in which one is planted or not.
    fn finds<F: IntoIterator<Item = String>>(&mut self, words: &str, look: impl Fn(bool) -> F) {
        let found: Vec<_> = look(false).into_iter().collect();
        if !found.is_empty() {
            self.blind.push(format!(
                "nothing was planted, and the checker finds {found:?}"
            ));
        }
        let found: Vec<_> = look(true).into_iter().collect();
        if found.len() != 1 || !found[0].contains(words) {
            self.blind.push(format!(
                "what {words:?} tells of was planted, and the checker finds {found:?}"
            ));
        }
    }
}

/// What is wrong with the checker.
pub(crate) fn run() -> Vec<String> {
    let mut test = Test::default();
    acknowledgements(&mut test);
    members(&mut test);
    presence(&mut test);
    instances(&mut test);
    test.blind.extend(blind_spots(
        &witness(),
        &said(&speaker())[&RoomName::lobby()],
    ));
    losses(&mut test);
    schedule(&mut test);
    test.blind
}

fn user(name: &str) -> UserName {
    name.parse().expect("a user's name")
}

fn id(number: u64) -> MessageId {
    MessageId { millis: 1, number }
}

/// One who said three lines, and was told of each.
fn speaker() -> Record {
    Record {
        acknowledged: (1..=3).map(|n| (id(n), n.to_string())).collect(),
        ..Record::new(user("alice"), RoomName::lobby())
    }
}

/// One who entered before, and saw them. It heard them as anybody does in the soak.
fn witness() -> Record {
    let room = RoomName::lobby();
    let mut record = Record::new(user("bob"), room.clone());
    let mut hear = |event| record.note(ClientEvent::Server(event));
    hear(Event::Room {
        room: room.clone(),
        members: vec![user("alice"), user("bob")].into(),
        alike: Vec::new(),
        messages: Vec::new(),
        recovered: false,
        anew: false,
        last: None,
    });
    for (id, text) in speaker().acknowledged {
        let message = Message {
            id,
            from: user("alice"),
            text,
            at: 1,
        };
        hear(Event::Message {
            room: room.clone(),
            message,
            looks_like: None,
            via: None,
        });
    }
    record
}

fn said(speaker: &Record) -> Acknowledged {
    check::acknowledged(std::slice::from_ref(speaker)).0
}

fn acknowledgements(test: &mut Test) {
    test.finds("stored otherwise", |planted| {
        let mut speaker = speaker();
        if planted {
            speaker.acknowledged.swap(1, 2);
        }
        check::acknowledged(&[speaker]).1
    });
    test.finds("is the id of", |planted| {
        let mut other = Record::new(user("carol"), RoomName::lobby());
        let its = if planted { 2 } else { 4 };
        other.acknowledged.push((id(its), "mine".to_owned()));
        check::acknowledged(&[speaker(), other]).1
    });
}

/// What single members note, and what they do not do in time.
fn members(test: &mut Test) {
    let told = |event: Option<Event>| {
        let mut record = witness();
        if let Some(event) = event {
            record.note(ClientEvent::Server(event));
        }
        record
    };
    test.finds("bob was refused for good: no", |planted| {
        check::refusals(&[told(Some(Event::Error {
            code: ErrorCode::Refused,
            message: "no".to_owned(),
            reference: None,
            room: None,
            retry: !planted,
            retry_after_ms: None,
        }))])
    });
    test.finds("bob was refused for good: away", |planted| {
        let mut record = witness();
        if planted {
            record.note(ClientEvent::Refused("away".to_owned()));
        }
        check::refusals(&[record])
    });
    test.finds("bob was told that alice left", |planted| {
        let left = Event::Left {
            room: RoomName::lobby(),
            user: user(if planted { "alice" } else { "an auditor" }),
        };
        check::missed(&[speaker(), told(Some(left))])
    });
    test.finds("bob did not enter in", |planted| {
        let record = if planted {
            Record::new(user("bob"), RoomName::lobby())
        } else {
            witness()
        };
        late(&record, "enter", |record| record.entered.is_some())
    });
    test.finds("bob did not say its last words in", |planted| {
        let record = Record {
            silent: !planted,
            ..witness()
        };
        late(&record, "say its last words", |record| record.silent)
    });
    test.finds("bob did not see the last words in", |planted| {
        let mut record = witness();
        if planted {
            record.seen.pop();
        }
        let said = said(&speaker());
        late(&record, "see the last words", |record| {
            crate::has_seen_the_last(record, &said)
        })
    });
}

/// A failover excuses what was lost when it happened, and only if the member was told.
fn losses(test: &mut Test) {
    let said = &said(&speaker())[&RoomName::lobby()];
    let look = |record: &Record, from: u64| {
        let losses = Losses::during(&vec![from..=from + 10]);
        check::faults(record, said, record.last_seen(), &losses)
    };
    // All that was said was said in the first millisecond.
    let (then, later) = (0, 2);
    let gap = || Seen::Gap(Some(id(1)), None);
    test.finds("was acknowledged and not seen", |planted| {
        let mut record = witness();
        record.seen[1] = gap();
        if planted {
            record.seen.remove(1);
        }
        look(&record, then)
    });
    test.finds("a gap", |planted| {
        let mut record = witness();
        record.seen.insert(1, gap());
        look(&record, if planted { later } else { then })
    });
    test.finds("are too many", |planted| {
        let mut record = witness();
        for _ in 0..if planted { 30 } else { 10 } {
            record.seen.insert(1, gap());
        }
        look(&record, then)
    });
    test.finds("was never acknowledged", |planted| {
        let mut record = witness();
        let text = if planted { "from nowhere" } else { "3" };
        record.seen.insert(0, Seen::Message(id(0), text.to_owned()));
        look(&record, then)
    });
}

/// Waits for a fact about one member, and not at all.
fn late(record: &Record, what: &str, fact: impl Fn(&Record) -> bool) -> Vec<String> {
    check::late(Duration::ZERO, what, || {
        let others = [record].into_iter().filter(|&record| !fact(record));
        others.map(|record| record.name.clone()).collect()
    })
}

fn presence(test: &mut Test) {
    let room = RoomName::lobby();
    let both = || [user("alice"), user("bob")].into_iter().collect();
    let expected = Present::from([(room.clone(), both())]);
    let look = |told: Present, shown| {
        check::presence(&expected, &[told], &[(user("bob"), room.clone(), shown)])
    };
    for (words, plant) in [
        ("without [\"bob\"]", false),
        ("with [\"zoe\"] too many", true),
    ] {
        let change = |planted: bool| {
            let mut users: BTreeSet<UserName> = both();
            if planted && plant {
                users.insert(user("zoe"));
            } else if planted {
                users.remove(&user("bob"));
            }
            users
        };
        test.finds(words, |planted| {
            look(Present::from([(room.clone(), change(planted))]), both())
        });
        test.finds(words, |planted| look(expected.clone(), change(planted)));
    }
    test.finds("instance 0 shows lobby without", |planted| {
        look(
            if planted {
                Present::new()
            } else {
                expected.clone()
            },
            both(),
        )
    });
}

fn instances(test: &mut Test) {
    let before = Load {
        threads: 6,
        descriptors: 8,
        resident_kib: 8_000,
    };
    for words in ["threads", "descriptors", "KiB resident"] {
        test.finds(words, |planted| {
            let mut after = before;
            match words {
                _ if !planted => {}
                "threads" => after.threads += 3,
                "descriptors" => after.descriptors += 5,
                _ => after.resident_kib *= 10,
            }
            check::left_over(&before, &after)
        });
    }
    let code = |code: i32| Some(ExitStatus::from_raw(code << 8));
    test.finds("drained with exit status: 1", |planted| {
        check::drained(code(i32::from(planted))).err()
    });
    test.finds("drained with signal: 9", |planted| {
        let killed = Some(ExitStatus::from_raw(9));
        check::drained(if planted { killed } else { code(0) }).err()
    });
    test.finds("did not drain in time", |planted| {
        check::drained(if planted { None } else { code(0) }).err()
    });
    test.finds("ended by itself with exit status: 101", |planted| {
        check::runs(if planted { code(101) } else { None }).err()
    });
    test.finds("thread 'reader-1' panicked", |planted| {
        let line = if planted {
            "thread 'reader-1' panicked at"
        } else {
            "listening"
        };
        check::panics(&format!("before\n{line}\nbehind"))
    });
    test.finds("instance 0 did not become ready", |planted| {
        let instance = answers(if planted { 503 } else { 200 });
        check::late(Duration::ZERO, "become ready", || {
            if is_ready(instance) {
                vec![]
            } else {
                vec!["instance 0"]
            }
        })
    });
    test.finds(
        "instance 0 says that it is ready while Redis is full",
        |planted| {
            let instance = answers(if planted { 200 } else { 503 });
            check::unready(0, is_ready(instance), "full").err()
        },
    );
}

/// The address of what answers the next request with this status.
fn answers(status: u16) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for socket in listener.incoming().take(2) {
            let mut socket = socket.expect("a connection");
            let _ = socket.read(&mut [0; 1024]);
            let _ = write!(socket, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
        }
    });
    address
}

/// A minute of the soak has room for every fault of a mode, whatever the seed.
fn schedule(test: &mut Test) {
    for (mode, seed) in MODES
        .iter()
        .flat_map(|mode| (0..1000).map(move |seed| (*mode, seed)))
    {
        let kinds = Kind::all(mode);
        let plan = faults::plan(60, seed, mode, &kinds);
        let missing = kinds.len() - faults::count(&plan).len();
        if missing > 0 {
            let blind =
                format!("a minute of {mode:?} with seed {seed} leaves {missing} faults out");
            test.blind.push(blind);
        }
    }
}
