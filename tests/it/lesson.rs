//! From the lesson to the house: one scenario each, played to `src/lesson.rs` and to Hubbub. Where the
//! lesson cuts a corner, it loses, stalls or doubles; Hubbub does not.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tungstenite::Message;

use crate::support::client::{Client, get};
use crate::support::hubbub::Hubbub;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::{DEADLINE, until};

/// The server that a scenario is played to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Lesson,
    House,
}
use Server::{House, Lesson};

impl Server {
    /// Starts an instance; the options are the house's, as the lesson has none.
    fn on(self, redis: &str, options: &[&str]) -> Hubbub {
        match self {
            Lesson => Hubbub::lesson(redis),
            House => Hubbub::with(&[&["--redis", redis], options].concat()),
        }
    }

    /// Connects a user, and waits until the user is in.
    fn enter(self, instance: &Hubbub, user: &str) -> Client {
        let mut client = Client::text(instance.address(), &format!("/chat/{user}"));
        let first = client.hears();
        match self {
            Lesson => assert!(first.ends_with(" joined"), "{first}"),
            House => assert!(first.starts_with("* online: "), "{first}"),
        }
        client
    }
}

/// The lines that others said, up to the one that ends so; `own` is this client's user.
fn said_until(client: &mut Client, own: &str, end: &str) -> Vec<String> {
    let mut said = client.hears_until(end);
    said.retain(|line| !line.starts_with("* ") && !line.starts_with(&format!("{own}: ")));
    said
}

/// The number of instances that listen to Redis.
fn subscriptions(redis: &Redis) -> usize {
    let clients: String = redis.run(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    clients.lines().filter(|line| !line.is_empty()).count()
}

/// The memory that the instance takes, in bytes.
fn memory(instance: &Hubbub) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", instance.id())).expect("its status");
    let kib = status.lines().find_map(|line| {
        let line = line.strip_prefix("VmRSS:")?.strip_suffix("kB")?;
        line.trim().parse::<usize>().ok()
    });
    kib.expect("its memory") * 1024
}

/// The number of sockets that the instance holds.
fn sockets(instance: &Hubbub) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", instance.id())).expect("its files");
    let names = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    names
        .filter(|name| name.to_string_lossy().starts_with("socket:"))
        .count()
}

/// The number of bytes that this client sent and the instance has not read yet.
fn unread(instance: &Hubbub, client: &Client) -> u64 {
    let ours = client.socket().local_addr().expect("an address").port();
    let ports = (instance.address().port(), ours);
    let table = fs::read_to_string("/proc/net/tcp").expect("the table of sockets");
    // Number, local address, remote address, state, tx_queue:rx_queue, and more; in hexadecimal.
    let hex = |text: &str| u64::from_str_radix(text.rsplit(':').next()?, 16).ok();
    let of = table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let found = (hex(fields.get(1)?)?, hex(fields.get(2)?)?);
        (found == (ports.0.into(), ports.1.into())).then(|| hex(fields[4]))?
    });
    of.expect("the instance's end of the connection")
}

/// Corner 3.
#[test]
fn half_a_request_holds_a_thread_of_the_lesson_and_is_given_up_by_the_house() {
    const HALF: &[u8] = b"GET /chat/alice HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n";
    const REST: &[u8] = b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let redis = Redis::start();
    let [mut lesson, mut house] = [Lesson, House].map(|server| {
        let instance = server.on(&redis.url(), &["--head-timeout", "1"]);
        let mut socket = TcpStream::connect(instance.address()).expect("a connection");
        socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        socket.write_all(HALF).expect("half a request");
        (socket, instance)
    });
    let mut answer = String::new();
    house.0.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    // The lesson, which got the same half before, still waits for the rest.
    lesson.0.write_all(REST).expect("it takes the rest");
    let mut answer = [0; 12];
    lesson.0.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 101");
}

/// Corner 5.
#[test]
fn lines_for_a_user_who_does_not_read_pile_up_in_the_lesson_and_not_in_the_house() {
    const LINES: usize = 1000;
    let text = "x".repeat(60_000);
    let grown = |server: Server| {
        let redis = Redis::start();
        let instance = server.on(&redis.url(), &["--history-length", "10"]);
        let _never_reads = server.enter(&instance, "mallory");
        let mut bob = server.enter(&instance, "bob");
        let mut alice = server.enter(&instance, "alice");
        let before = memory(&instance);
        for _ in 0..LINES {
            alice.says(&text);
            assert_eq!(
                bob.hears_until(&text).last(),
                Some(&format!("alice: {text}"))
            );
            if server == Lesson {
                alice.hears_until(&text);
            }
        }
        memory(&instance).saturating_sub(before)
    };
    let said = LINES * text.len();
    let (lesson, house) = (grown(Lesson), grown(House));
    assert!(lesson > said / 2, "{lesson} of {said} bytes");
    assert!(house < said / 4, "{house} of {said} bytes");
}

/// Corner 6.
#[test]
fn an_answer_to_a_ping_tears_a_line_of_the_lesson_and_none_of_the_house() {
    const LINES: usize = 15;
    // Both threads wait to write, and the kernel chooses. In about one round of five it chooses the
    // line until it is whole, and nothing is torn.
    const ROUNDS: usize = 10;
    let text = "x".repeat(1_000_000);
    let whole = |server: Server| {
        let redis = Redis::start();
        // The house, too, keeps everything for a user who reads late.
        let limits = ["--max-message", "1000000", "--outbox-bytes", "100000000"];
        let patience = ["--write-timeout", "60", "--history-length", "1"];
        let instance = server.on(&redis.url(), &[limits, patience].concat());
        let mut bob = server.enter(&instance, "bob");
        let mut carol = server.enter(&instance, "carol");
        let mut alice = server.enter(&instance, "alice");
        // More than the kernel takes for bob, who does not read yet.
        for _ in 0..LINES {
            alice.says(&text);
            carol.hears_until(&text);
            if server == Lesson {
                alice.hears_until(&text);
            }
        }
        bob.sends(Message::Ping("are you there".into()));
        until("the ping is read", || {
            (unread(&instance, &bob) == 0).then_some(())
        });
        let expected = format!("alice: {text}");
        let mut whole = 0;
        while whole < LINES {
            match bob.hears_or_ends() {
                Ok(line) if line == expected => whole += 1,
                Ok(line) if line.starts_with("* ") => {}
                _ => break,
            }
        }
        whole
    };
    let torn = (0..ROUNDS).any(|_| {
        assert_eq!(whole(House), LINES);
        whole(Lesson) < LINES
    });
    assert!(torn, "no line of the lesson is torn");
}

/// Corner 7.
#[test]
fn a_second_connection_of_one_name_ends_both_in_the_lesson_and_none_in_the_house() {
    let hears = |server: Server| {
        let redis = Redis::start();
        let instance = server.on(&redis.url(), &[]);
        let mut bob = server.enter(&instance, "bob");
        let mut desk = server.enter(&instance, "alice");
        let before = sockets(&instance);
        let mut phone = server.enter(&instance, "alice");
        let hears = |client: &mut Client, end: &str| loop {
            match client.hears_or_ends() {
                Ok(line) if line == end => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        };
        bob.says("one");
        let desk_hears = hears(&mut desk, "bob: one");
        drop(desk);
        until("the desk is gone", || {
            (sockets(&instance) <= before).then_some(())
        });
        bob.says("two");
        (desk_hears, hears(&mut phone, "bob: two"))
    };
    assert_eq!(hears(Lesson), (false, false));
    assert_eq!(hears(House), (true, true));
}

/// Corner 8.
#[test]
fn users_of_a_killed_instance_join_twice_in_the_lesson_and_once_in_the_house() {
    let heard = |server: Server| {
        let redis = Redis::start();
        let here = server.on(&redis.url(), &[]);
        let mut there = server.on(&redis.url(), &[]);
        let mut bob = server.enter(&here, "bob");
        let _alice = server.enter(&there, "alice");
        there.kill();
        let mut alice = server.enter(&here, "alice");
        alice.says("back again");
        bob.hears_until("alice: back again")
    };
    assert_eq!(
        heard(Lesson),
        ["* alice joined", "* alice joined", "alice: back again"]
    );
    assert_eq!(heard(House), ["* alice joined", "alice: back again"]);
}

/// Corner 10.
#[test]
fn a_message_of_any_size_reaches_everyone_in_the_lesson_and_nobody_in_the_house() {
    let heard = |server: Server| {
        let redis = Redis::start();
        let instance = server.on(&redis.url(), &[]);
        let mut bob = server.enter(&instance, "bob");
        let mut carol = server.enter(&instance, "carol");
        let mut mallory = server.enter(&instance, "mallory");
        mallory.says(&"x".repeat(100_000));
        let answer = mallory.hears_or_ends();
        carol.says("what was that?");
        let said = said_until(&mut bob, "bob", "carol: what was that?");
        let sizes = said.iter().map(String::len);
        (answer.map(|line| line.len()), sizes.max())
    };
    assert_eq!(heard(Lesson), (Ok(100_009), Some(100_009)));
    assert_eq!(heard(House), (Err(Some(1009)), Some(21)));
}

/// Corner 11.
#[test]
fn a_line_break_forges_a_line_in_the_lesson_and_not_in_the_house() {
    let heard = |server: Server| {
        let redis = Redis::start();
        let instance = server.on(&redis.url(), &[]);
        let mut bob = server.enter(&instance, "bob");
        let mut mallory = server.enter(&instance, "mallory");
        mallory.says("hi\nalice: I quit");
        mallory.says("really?");
        let frames = said_until(&mut bob, "bob", "mallory: really?");
        let shown = frames.iter().flat_map(|frame| frame.lines());
        shown.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        heard(Lesson),
        ["mallory: hi", "alice: I quit", "mallory: really?"]
    );
    assert_eq!(
        heard(House),
        ["mallory: hi", "mallory: alice: I quit", "mallory: really?"]
    );
}

/// Corner 12.
#[test]
fn what_is_said_while_redis_is_away_is_silently_lost_in_the_lesson_and_refused_in_the_house() {
    let heard = |server: Server| {
        let mut redis = Redis::start();
        let instance = server.on(&redis.url(), &[]);
        let mut alice = server.enter(&instance, "alice");
        let mut bob = server.enter(&instance, "bob");
        assert_eq!(alice.hears(), "* bob joined");
        redis.kill();
        alice.says("is anyone there?");
        let mut heard = Vec::new();
        match server {
            Lesson => until("the line is lost", || {
                instance.log().contains("a line is lost").then_some(())
            }),
            House => heard.push(alice.hears()),
        }
        redis.start_again();
        until("it is ready again", || match server {
            Lesson => (subscriptions(&redis) == 1).then_some(()),
            House => (get(instance.address(), "/readyz").0 == 200).then_some(()),
        });
        bob.says("I am");
        heard.append(&mut alice.hears_until("I am"));
        heard
    };
    assert_eq!(heard(Lesson), ["bob: I am"]);
    let [refused, answer] = &heard(House)[..] else {
        panic!("alice is told one thing more");
    };
    assert!(
        refused.starts_with("! ") && refused.contains("Redis "),
        "{refused}"
    );
    assert_eq!(answer, "bob: I am");
}

/// Corner 13.
#[test]
fn a_frozen_redis_stalls_every_reader_of_the_lesson_and_none_of_the_house() {
    let redis = Redis::start();
    let [
        (mut lessons_alice, mut lessons_bob, _lesson),
        (mut alice, mut bob, _house),
    ] = [Lesson, House].map(|server| {
        let instance = server.on(&redis.url(), &[]);
        let alice = server.enter(&instance, "alice");
        let bob = server.enter(&instance, "bob");
        (alice, bob, instance)
    });
    redis.freeze();
    for (alice, bob) in [
        (&mut lessons_alice, &mut lessons_bob),
        (&mut alice, &mut bob),
    ] {
        alice.says("is it slow today?");
        bob.says("what is?");
        bob.sends(Message::Ping("are you there".into()));
    }
    assert!(matches!(bob.reads(), Message::Pong(_)));
    let told = bob.hears();
    assert!(told.starts_with("! ") && told.contains("Redis "), "{told}");
    // All this time the lesson has not even answered the ping.
    let socket = lessons_bob.socket();
    socket.set_nonblocking(true).expect("a mode");
    let nothing = socket.peek(&mut [0]).expect_err("nothing is there");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    redis.thaw();
}

/// Corner 14.
#[test]
fn what_is_said_while_the_subscription_is_cut_is_lost_in_the_lesson_and_made_up_for_in_the_house() {
    let heard = |server: Server| {
        let redis = Redis::start();
        let proxy = Proxy::before(redis.port());
        let here = server.on(&proxy.url(), &[]);
        let there = server.on(&redis.url(), &[]);
        let mut bob = server.enter(&here, "bob");
        let mut alice = server.enter(&there, "alice");
        let mut carol = server.enter(&there, "carol");
        proxy.cut();
        until("Redis has lost one", || {
            (subscriptions(&redis) == 1).then_some(())
        });
        alice.says("during");
        carol.hears_until("alice: during");
        proxy.mend();
        until("both listen", || (subscriptions(&redis) == 2).then_some(()));
        alice.says("after");
        said_until(&mut bob, "bob", "alice: after")
    };
    assert_eq!(heard(Lesson), ["alice: after"]);
    assert_eq!(heard(House), ["alice: during", "alice: after"]);
}

/// Corner 16.
#[test]
fn what_is_said_while_a_user_is_away_is_gone_in_the_lesson_and_waits_in_the_house() {
    let heard = |server: Server| {
        let redis = Redis::start();
        let instance = server.on(&redis.url(), &[]);
        let mut alice = server.enter(&instance, "alice");
        let bob = server.enter(&instance, "bob");
        // The house tells nobody of a user that left before others were told of the join.
        alice.hears_until("* bob joined");
        bob.leaves();
        alice.hears_until("* bob left");
        let mut carol = server.enter(&instance, "carol");
        alice.says("bob, are you there?");
        carol.hears_until("alice: bob, are you there?");
        let mut bob = server.enter(&instance, "bob?history=10");
        carol.says("he is now");
        said_until(&mut bob, "bob", "carol: he is now")
    };
    assert_eq!(heard(Lesson), ["carol: he is now"]);
    assert_eq!(
        heard(House),
        ["alice: bob, are you there?", "carol: he is now"]
    );
}

/// The lesson's one promise about time. One client has sent half a request, and one never answers.
#[test]
fn the_lesson_says_goodbye_and_ends_within_ten_seconds() {
    let redis = Redis::start();
    let mut instance = Lesson.on(&redis.url(), &[]);
    let _half = TcpStream::connect(instance.address()).expect("a connection");
    let mut alice = Lesson.enter(&instance, "alice");
    let _silent = Lesson.enter(&instance, "mallory");
    assert_eq!(alice.hears(), "* mallory joined");
    let begun = Instant::now();
    instance.signal(Signal::SIGINT);
    assert_eq!(alice.reads(), Message::Close(None));
    drop(alice);
    assert_eq!(instance.ends().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
}
