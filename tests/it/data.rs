//! `--data`: one binary that remembers, through restarts and crashes, and on a disk that is full.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs;
use std::fs::Permissions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::client::{Client, get, metric};
use crate::support::folder::Folder;
use crate::support::hubbub::{Hubbub, bound_by_modes, command, misuses, refuses};
use crate::support::redis::Redis;
use crate::support::until;

/// The seeds of the kills, and how often each kills the server, unless the environment says otherwise.
const SEEDS: u64 = 3;
const KILLS: usize = 9;

fn on(folder: &Folder) -> Hubbub {
    Hubbub::with(&["--data", folder.text()])
}

fn send(text: &str, reference: &str) -> Value {
    json!({"type": "send", "room": "lobby", "text": text, "ref": reference})
}

/// Joins the lobby from this id on.
fn resume(client: &mut Client, since: &Value) -> Value {
    client.asks(&json!({"type": "join", "room": "lobby", "since": since}));
    client.event_of("room")
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart_and_so_are_refs() {
    let folder = Folder::new();
    let mut hubbub = on(&folder);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    let say = |client: &mut Client, text: &str| {
        client.asks(&send(text, text));
        client.event_of("sent")
    };
    let first = say(&mut alice, "one");
    let second = say(&mut alice, "two");
    hubbub.signal(Signal::SIGTERM);
    assert!(hubbub.ends().success());
    let hubbub = on(&folder);
    let mut alice = Client::json(hubbub.address(), "alice");
    let room = resume(&mut alice, &first["id"]);
    assert_eq!(room["recovered"], true, "{room}");
    assert_eq!(room["messages"][0]["text"], "two");
    assert_eq!(room["last"], second["id"]);
    // A retry is the same message.
    let again = say(&mut alice, "two");
    assert_eq!(again["id"], second["id"]);
    assert_eq!(again["duplicate"], true);
    let third = say(&mut alice, "three");
    let mut bob = Client::json(hubbub.address(), "bob");
    let room = resume(&mut bob, &second["id"]);
    assert_eq!(room["recovered"], true, "the chain goes on: {room}");
    assert_eq!(room["last"], third["id"]);
}

#[test]
fn a_client_of_the_time_before_the_data_is_told_that_the_server_began_anew() {
    let folder = Folder::new();
    let hubbub = on(&folder);
    let mut alice = Client::json(hubbub.address(), "alice");
    let room = resume(&mut alice, &json!("1000-0"));
    assert_eq!(
        (&room["recovered"], &room["anew"]),
        (&json!(false), &json!(true))
    );
}

/// All messages of the lobby after this id, and what the room said about them. Large ones come one by one.
fn all_since(client: &mut Client, since: &Value, count: usize) -> (Value, Vec<Value>) {
    let room = resume(client, since);
    let mut messages = room["messages"].as_array().expect("messages").clone();
    while messages.len() < count {
        messages.push(client.event_of("message"));
    }
    (room, messages)
}

/// One user in a room of their own, through many lives of the server.
struct Speaker {
    name: String,
    /// The texts that were sent and not acknowledged yet.
    unanswered: VecDeque<String>,
    /// Text -> the id that it was acknowledged with.
    acknowledged: BTreeMap<String, String>,
    /// What the room's log told, each text once.
    log: HashSet<String>,
    /// The ids of those, too.
    told: BTreeMap<String, String>,
    last: String,
    count: usize,
}

impl Speaker {
    fn new(number: usize) -> Self {
        Self {
            name: format!("speaker-{number}"),
            unanswered: VecDeque::new(),
            acknowledged: BTreeMap::new(),
            log: HashSet::new(),
            told: BTreeMap::new(),
            last: "0-0".to_owned(),
            count: 0,
        }
    }

    /// Speaks until the server is gone, or has answered so many messages.
    fn speak(&mut self, address: SocketAddr, most: usize) {
        let mut client = Client::json(address, &self.name);
        let room = self.name.clone();
        client.asks(&json!({"type": "join", "room": room, "since": self.last}));
        let Ok(entered) = client.hears_or_ends() else {
            return;
        };
        let entered: Value = serde_json::from_str(&entered).expect("JSON");
        assert_eq!(entered["recovered"], true, "{}: {entered}", self.last);
        for message in entered["messages"].as_array().expect("messages") {
            self.hears(message);
        }
        for (text, id) in &self.acknowledged {
            assert_eq!(
                self.told.get(text),
                Some(id),
                "{text:?} was acknowledged, and is not in {entered}"
            );
        }
        let again: Vec<_> = self.unanswered.iter().cloned().collect();
        let say = |client: &mut Client, text: &str| {
            let send = json!({"type": "send", "room": room, "text": text, "ref": text});
            client.says_or_ends(&send.to_string())
        };
        let mut is_there = again.iter().all(|text| say(&mut client, text));
        let mut answered = 0;
        while is_there && answered < most {
            if self.unanswered.len() < 16 {
                let text = format!("{} {}", self.name, self.count);
                self.count += 1;
                self.unanswered.push_back(text.clone());
                is_there = say(&mut client, &text);
            }
            while is_there && self.unanswered.len() >= 16 {
                let Ok(event) = client.hears_or_ends() else {
                    return;
                };
                let event: Value = serde_json::from_str(&event).expect("JSON");
                match event["type"].as_str().expect("a type") {
                    "message" => self.hears(&event),
                    "sent" => {
                        let text = event["ref"].as_str().expect("a ref").to_owned();
                        self.unanswered.retain(|other| *other != text);
                        let id = event["id"].as_str().expect("an id").to_owned();
                        self.acknowledged.insert(text, id);
                        answered += 1;
                    }
                    "joined" | "left" => {}
                    other => panic!("{other}: {event}"),
                }
            }
        }
    }

    /// The room's next message.
    fn hears(&mut self, message: &Value) {
        let [id, text] = ["id", "text"].map(|field| message[field].as_str().expect("text"));
        assert!(place(id) > place(&self.last), "{id} after {}", self.last);
        assert!(self.log.insert(text.to_owned()), "{text:?} is told twice");
        self.told.insert(text.to_owned(), id.to_owned());
        self.last = id.to_owned();
    }
}

/// Numbers by chance, and the same each time. A linear congruence is dice enough.
struct Dice(u64);

impl Dice {
    /// Seeds that follow each other would begin alike.
    fn new(seed: u64) -> Self {
        let mut dice = Self(seed);
        dice.roll();
        dice
    }

    fn roll(&mut self) -> u64 {
        let Self(state) = self;
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }
}

/// An id as numbers, which sort as ids do.
fn place(id: &str) -> (u64, u64) {
    let (millis, number) = id.split_once('-').expect("two numbers");
    (
        millis.parse().expect("a number"),
        number.parse().expect("a number"),
    )
}

#[test]
fn killed_at_any_moment_it_has_all_that_it_acknowledged_and_everything_once() {
    let number = |name| {
        let number = std::env::var(name).ok();
        number.map(|number| number.parse().expect("a number"))
    };
    for seed in 0..number("HUBBUB_SEEDS").unwrap_or(SEEDS) {
        let kills = number("HUBBUB_KILLS").map_or(KILLS, |kills| kills as usize);
        let acknowledged = killed(seed, kills);
        assert!(acknowledged > kills, "seed {seed}: {acknowledged}");
    }
}

/// Kills the server so often while four users speak. The number of messages that it acknowledged.
fn killed(seed: u64, kills: usize) -> usize {
    let folder = Folder::new();
    let mut speakers: Vec<Speaker> = (0..4).map(Speaker::new).collect();
    let mut dice = Dice::new(seed);
    for _ in 0..kills {
        let lives = Duration::from_micros(2000 + dice.roll() % 60_000);
        let mut hubbub = on(&folder);
        let address = hubbub.address();
        thread::scope(|scope| {
            for speaker in &mut speakers {
                scope.spawn(move || speaker.speak(address, usize::MAX));
            }
            until("they are there", || {
                (metric(&hubbub, "hubbub_rooms") == 4).then_some(())
            });
            thread::sleep(lives); // the moment of the crash, not a wait for a fact
            hubbub.kill();
        });
    }
    let hubbub = on(&folder);
    for speaker in &mut speakers {
        // What was not answered is answered now, each as one message.
        speaker.speak(hubbub.address(), 20);
    }
    let acknowledged = speakers.iter().map(|speaker| speaker.acknowledged.len());
    acknowledged.sum()
}

#[test]
fn killed_while_it_makes_its_file_it_starts_the_next_time() {
    let mut dice = Dice::new(0);
    for _ in 0..40 {
        let folder = Folder::new();
        let mut first = command()
            .args(["--data", folder.text(), "--listen", "127.0.0.1:0"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("hubbub can be started");
        until("it makes the folder", || {
            folder.path().exists().then_some(())
        });
        thread::sleep(Duration::from_micros(dice.roll() % 6000)); // the moment of the crash
        first.kill().expect("it runs");
        first.wait().expect("its end");
        on(&folder);
    }
}

#[test]
fn a_folder_that_is_in_use_or_damaged_is_refused_with_a_sentence() {
    let folder = Folder::new();
    let arguments = ["--data", folder.text(), "--listen", "127.0.0.1:0"];
    let mut hubbub = on(&folder);
    refuses(&arguments, &["another process has it open"]);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    alice.asks(&send("hello", "r"));
    alice.event_of("sent");
    hubbub.signal(Signal::SIGTERM);
    assert!(hubbub.ends().success());
    let whole = fs::read(folder.file()).expect("the file");
    let mut damaged = whole.clone();
    for at in 0..whole.len() - 5 {
        if whole[at..].starts_with(b"hello") {
            damaged[at] = b'j';
        }
    }
    assert!(damaged != whole);
    fs::write(folder.file(), &damaged).expect("a bit is turned");
    refuses(
        &arguments,
        &[
            "cannot use",
            folder.text(),
            "it is damaged",
            "put a copy back",
        ],
    );
    assert!(
        fs::read(folder.file()).expect("the file") == damaged,
        "it was changed"
    );
    fs::write(folder.file(), &whole[..whole.len() / 2]).expect("half of it");
    refuses(&arguments, &["it is damaged"]);
    fs::write(folder.file(), b"something else").expect("another file");
    refuses(&arguments, &["it is no file of hubbub's"]);
    fs::write(folder.file(), &whole).expect("a copy put back");
    let hubbub = on(&folder);
    let mut bob = Client::json(hubbub.address(), "bob");
    assert_eq!(
        resume(&mut bob, &json!("0-0"))["messages"][0]["text"],
        "hello"
    );
    refuses(
        &["--data", "/proc/none/of/this", "--listen", "127.0.0.1:0"],
        &["cannot use /proc/none/of/this"],
    );
    let redis = ["--data", folder.text(), "--redis", "redis://127.0.0.1:1"];
    misuses(&redis, &["--data is for one instance alone"]);
}

#[test]
fn a_copy_made_at_any_moment_is_whole_or_refused() {
    const SAID: usize = 900;
    let folder = Folder::new();
    let hubbub = on(&folder);
    let address = hubbub.address();
    let copy = || {
        let copy = Folder::new();
        fs::create_dir_all(copy.path()).expect("a folder");
        fs::copy(folder.file(), copy.file()).expect("a copy");
        copy
    };
    let mut copies = Vec::new();
    thread::scope(|scope| {
        let mut speaker = Speaker::new(0);
        let speaking = scope.spawn(move || speaker.speak(address, SAID));
        while !speaking.is_finished() && copies.len() < 20 {
            copies.push(copy());
        }
    });
    // Nothing is written meanwhile.
    let last = copy();
    copies.push(last);
    let mut said = 0;
    for copy in &copies {
        let Ok(hubbub) = std::panic::catch_unwind(|| on(copy)) else {
            let arguments = ["--data", copy.text(), "--listen", "127.0.0.1:0"];
            refuses(&arguments, &["it is damaged"]);
            said = 0;
            continue;
        };
        let mut client = Client::json(hubbub.address(), "reader");
        client.asks(&json!({"type": "join", "room": "speaker-0", "since": "0-0"}));
        let room = client.event_of("room");
        let messages = room["messages"].as_array().expect("messages");
        for (number, message) in messages.iter().enumerate() {
            assert_eq!(message["text"], format!("speaker-0 {number}"));
        }
        said = messages.len();
    }
    assert!(said >= SAID, "the last copy has {said}");
}

/// No file of this process may become longer than this, in bytes.
fn limit_files(process: u32, bytes: &str) {
    // The soft limit, or it could not be lifted again.
    let limit = format!("--fsize={bytes}:");
    let process = process.to_string();
    let status = Command::new("prlimit")
        .args(["--pid", &process, &limit])
        .status();
    assert!(status.expect("prlimit, of util-linux").success());
}

#[test]
fn a_full_disk_refuses_for_a_while_is_told_and_heals_by_itself() {
    let folder = Folder::new();
    let hubbub = on(&folder);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    alice.asks(&send("before", "r0"));
    let first = alice.event_of("sent");
    let length = fs::metadata(folder.file()).expect("the file").len();
    limit_files(hubbub.id(), &length.to_string());
    // What is refused may be small enough for the space that the file has left.
    let large = "x".repeat(60_000);
    let mut stored = 1;
    let refused = (1..200).find_map(|number| {
        alice.asks(&send(&large, &format!("r{number}")));
        loop {
            let event = alice.event();
            match event["type"].as_str() {
                Some("sent") => {
                    stored += 1;
                    return None;
                }
                Some("error") => return Some((number, event)),
                _ => {}
            }
        }
    });
    let (number, refused) = refused.expect("the disk is full at some time");
    assert_eq!(
        (&refused["code"], &refused["retry"]),
        (&json!("unavailable"), &json!(true))
    );
    let why = refused["message"].as_str().expect("a sentence");
    assert!(why.contains("disk"), "{why}");
    let (status, why) = get(hubbub.address(), "/readyz");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("the disk takes no messages"), "{why}");
    let (_, metrics) = get(hubbub.address(), "/metrics");
    let ready = metrics
        .lines()
        .find(|line| line.starts_with("hubbub_shard_ready{"));
    assert!(ready.is_some_and(|line| line.ends_with(" 0")), "{ready:?}");
    limit_files(hubbub.id(), "unlimited");
    until("it is ready again", || {
        (get(hubbub.address(), "/readyz").0 == 200).then_some(())
    });
    // The retry is the one message.
    alice.asks(&send(&large, &format!("r{number}")));
    let sent = alice.event_of("sent");
    let mut bob = Client::json(hubbub.address(), "bob");
    let (room, messages) = all_since(&mut bob, &first["id"], stored);
    assert_eq!(room["recovered"], true);
    let last = messages.last().expect("messages");
    assert_eq!((messages.len(), &last["id"]), (stored, &sent["id"]));
    // All that was acknowledged is on disk.
    drop((alice, bob));
    drop(hubbub);
    let hubbub = on(&folder);
    let mut carol = Client::json(hubbub.address(), "carol");
    assert_eq!(all_since(&mut carol, &first["id"], stored).1, messages);
}

#[test]
fn a_store_that_cannot_be_written_is_refused_at_the_start_and_told_later() {
    let folder = Folder::new();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
    };
    let arguments = ["--data", folder.text()];
    drop(on(&folder));
    mode(&folder.file(), 0o400);
    let mut refused = bound_by_modes();
    let refused = refused
        .args(arguments)
        .args(["--listen", "127.0.0.1:0"])
        .output();
    let refused = text(refused.expect("hubbub can be started").stderr);
    assert!(refused.contains("cannot use"), "{refused}");
    assert!(refused.contains("Permission denied"), "{refused}");
    mode(&folder.file(), 0o600);
    let hubbub = Hubbub::bound_by_modes(&arguments);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    let is_ready = || get(hubbub.address(), "/readyz");
    mode(&folder.file(), 0o400);
    limit_files(hubbub.id(), "0");
    alice.asks(&send("hello", "r"));
    let refused = alice.event_of("error");
    assert_eq!(
        (&refused["code"], &refused["retry"]),
        (&json!("unavailable"), &json!(true))
    );
    // The disk has space again. The file is what cannot be written now.
    limit_files(hubbub.id(), "unlimited");
    until("the reason is told", || {
        let (status, why) = is_ready();
        assert_eq!(status, 503, "{why}");
        why.contains("Permission denied").then_some(())
    });
    alice.asks(&send("hello", "r"));
    assert_eq!(alice.event_of("error")["code"], "unavailable");
    mode(&folder.file(), 0o600);
    until("it is ready again", || (is_ready().0 == 200).then_some(()));
    alice.asks(&send("hello", "r"));
    let sent = alice.event_of("sent");
    let mut bob = Client::json(hubbub.address(), "bob");
    let (_, messages) = all_since(&mut bob, &json!("0-0"), 1);
    assert_eq!((messages.len(), &messages[0]["id"]), (1, &sent["id"]));
}

#[test]
fn what_is_forgotten_gives_its_space_back() {
    let folder = Folder::new();
    let mut hubbub = on(&folder);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("lobby");
    let large = "x".repeat(60_000);
    for number in 0..600 {
        alice.asks(&send(&large, &number.to_string()));
        alice.event_of("sent");
    }
    let long = metric(&hubbub, "hubbub_data_bytes");
    assert!(long > 30_000_000, "{long}");
    assert!(metric(&hubbub, "hubbub_history_bytes") > 30_000_000);
    hubbub.signal(Signal::SIGTERM);
    hubbub.ends();
    let hubbub = Hubbub::with(&["--data", folder.text(), "--history-length", "10"]);
    until("the space is given back", || {
        (metric(&hubbub, "hubbub_data_bytes") < 4_000_000).then_some(())
    });
    let mut bob = Client::json(hubbub.address(), "bob");
    let (room, messages) = all_since(&mut bob, &json!("0-0"), 10);
    assert_eq!(room["recovered"], false, "what is forgotten is told");
    assert_eq!(messages.len(), 10);
    bob.asks(&send("the eleventh", "r"));
    assert_eq!(bob.event_of("message")["text"], "the eleventh");
    // Beyond the budget, the oldest messages of all rooms are forgotten, on disk as well.
    drop(hubbub);
    let hubbub = Hubbub::with(&["--data", folder.text(), "--history-bytes", "1048576"]);
    let mut carol = Client::json(hubbub.address(), "carol");
    for number in 0..100 {
        carol.joins(&format!("room-{number}"));
        let room = format!("room-{number}");
        carol.asks(&json!({"type": "send", "room": room, "text": large, "ref": "r"}));
        carol.event_of("sent");
        carol.asks(&json!({"type": "leave", "room": room}));
        carol.event_of("parted");
    }
    assert!(metric(&hubbub, "hubbub_history_bytes") < 1_200_000);
    let long = metric(&hubbub, "hubbub_data_bytes");
    assert!(long < 20_000_000, "{long}");
}

/// Runs a command with this input; its output.
pub(crate) fn pipe(arguments: &[&str], input: &str) -> Output {
    let mut child = command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("hubbub can be started");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

#[test]
fn what_is_exported_can_be_imported_into_redis_and_back_and_clients_resume() {
    let (folder, other, redis) = (Folder::new(), Folder::new(), Redis::start());
    let mut hubbub = on(&folder);
    let mut alice = Client::json(hubbub.address(), "alice");
    let mut first = Value::Null;
    for room in ["lobby", "}x{:% ü"] {
        alice.joins(room);
        for number in 0..300 {
            let text = format!("{number}: \"{}\"\n", "é".repeat(number));
            alice.asks(&json!({"type": "send", "room": room, "text": text}));
            let sent = alice.event_of("sent");
            if (room, number) == ("lobby", 99) {
                first = sent["id"].clone();
            }
        }
    }
    let busy = pipe(&["export", "--data", folder.text()], "");
    assert!(text(busy.stderr).contains("another process has it open"));
    hubbub.signal(Signal::SIGTERM);
    hubbub.ends();
    let exported = pipe(&["export", "--data", folder.text()], "");
    assert_eq!(text(exported.stderr), "exported 600 messages\n");
    let exported = text(exported.stdout);
    assert_eq!(exported.lines().count(), 600);
    let url = redis.url();
    let imported = pipe(&["import", "--redis", &url], &exported);
    assert_eq!(
        text(imported.stderr),
        "imported 600 messages; 0 were there already\n"
    );
    let again = pipe(&["import", "--redis", &url], &exported);
    assert_eq!(
        text(again.stderr),
        "imported 0 messages; 600 were there already\n"
    );
    // Clients of the folder's server resume here.
    let there = Hubbub::on(&redis);
    let mut alice = Client::json(there.address(), "alice");
    let room = resume(&mut alice, &first);
    assert_eq!(room["recovered"], true);
    assert_eq!(room["messages"].as_array().expect("messages").len(), 200);
    alice.asks(&json!({"type": "send", "room": "lobby", "text": "said in Redis"}));
    let last = alice.event_of("sent");
    let back = pipe(&["export", "--redis", &url], "");
    let back = text(back.stdout);
    assert_eq!(back.lines().count(), 601);
    let imported = pipe(&["import", "--data", folder.text()], &back);
    assert_eq!(
        text(imported.stderr),
        "imported 1 messages; 600 were there already\n"
    );
    let here = on(&folder);
    let mut alice = Client::json(here.address(), "alice");
    let room = resume(&mut alice, &first);
    assert_eq!(
        (&room["recovered"], &room["last"]),
        (&json!(true), &last["id"])
    );
    // One room alone, into a folder that is new.
    let lobby = pipe(&["export", "--redis", &url, "--room", "lobby"], "");
    let lobby = text(lobby.stdout);
    assert_eq!(lobby.lines().count(), 301);
    let imported = pipe(&["import", "--data", other.text()], &lobby);
    assert_eq!(
        text(imported.stderr),
        "imported 301 messages; 0 were there already\n"
    );
    // A message that stands twice is one.
    let twice = lobby.clone() + lobby.lines().last().expect("a line") + "\n";
    let imported = pipe(&["import", "--redis", &url], &twice);
    assert_eq!(
        text(imported.stderr),
        "imported 0 messages; 302 were there already\n"
    );
    // A room that is quiet for long is not forgotten by a command.
    let nothing = pipe(
        &["import", "--data", other.text(), "--history-ttl", "1"],
        "",
    );
    assert!(nothing.status.success());
    let kept = pipe(&["export", "--data", other.text()], "");
    assert_eq!(text(kept.stderr), "exported 301 messages\n");
    let none = pipe(&["export", "--data", "/nowhere"], "");
    assert!(text(none.stderr).contains("there are no messages in /nowhere"));
    // What is older than the room's newest message cannot be put before it.
    let older = lobby
        .lines()
        .next()
        .expect("a line")
        .replace("\"id\":\"1", "\"id\":\"0");
    let elsewhere = older.replace("\"room\":\"lobby\"", "\"room\":\"elsewhere\"");
    let both = format!("{older}\n{elsewhere}\n");
    let refused = pipe(&["import", "--data", other.text()], &both);
    assert_eq!(refused.status.code(), Some(1));
    let why = text(refused.stderr);
    assert!(why.contains("has later messages than these"), "{why}");
    assert!(
        why.contains("imported 1 messages"),
        "the other room has its message: {why}"
    );
    let refused = pipe(&["import", "--data", other.text()], "{\"room\":7}");
    assert!(text(refused.stderr).contains("line 1: it is no message"));
}
