//! `hubbub join`, `say` and `tail`, as a shell uses them.

use std::time::Instant;

use crate::support::hubbub::{Hubbub, run};
use crate::support::redis::Redis;
use crate::support::terminal::Terminal;
use crate::support::until;

#[test]
fn join_says_what_is_typed_and_prints_what_is_heard() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let mut alice = Terminal::start(&["join", "alice", "--url", &here.url()]);
    assert_eq!(alice.prints(), "* online: alice");
    let mut bob = Terminal::start(&["join", "bob", "--url", &there.url()]);
    assert_eq!(bob.prints(), "* online: alice, bob");
    assert_eq!(alice.prints(), "* bob joined");
    alice.types("hello");
    assert_eq!(bob.prints(), "alice: hello");
    bob.types("hello");
    assert_eq!(
        alice.prints(),
        "bob: hello",
        "and not her own line before it"
    );
    let (status, rest) = bob.ends();
    assert!(status.success());
    assert_eq!(rest, Vec::<String>::new());
    assert_eq!(alice.prints(), "* bob left");
}

#[test]
fn what_is_piped_into_join_is_all_stored_before_it_ends() {
    let hubbub = Hubbub::alone();
    let mut alice = Terminal::start(&["join", "alice", "--url", &hubbub.url()]);
    for n in 0..500 {
        alice.types(&n.to_string());
    }
    let (status, _) = alice.ends();
    assert!(status.success());
    let tail = run(&[
        "tail",
        "--url",
        &hubbub.url(),
        "--history",
        "200",
        "--count",
        "200",
    ]);
    let printed = String::from_utf8(tail.stdout).expect("text");
    let expected: String = (300..500).map(|n| format!("alice: {n}\n")).collect();
    assert_eq!(printed, expected);
}

#[test]
fn what_cannot_be_said_from_a_pipe_is_told_and_the_rest_is_said() {
    let hubbub = Hubbub::with(&["--max-message", "1000"]);
    let mut bob = hubbub.join("bob");
    let mut alice = Terminal::start(&["join", "alice", "--url", &hubbub.url()]);
    assert_eq!(bob.hears(), "* alice joined");
    alice.types("one");
    alice.types(&"x".repeat(2000));
    alice.types_bytes(b"\xff\xfe\n");
    alice.types("two");
    let (status, printed) = alice.ends();
    assert_eq!(status.code(), Some(1));
    let errors = printed.iter().filter(|line| line.starts_with("! ")).count();
    assert_eq!(errors, 2, "{printed:?}");
    assert_eq!(bob.hears(), "alice: one");
    assert_eq!(bob.hears(), "alice: two");
    assert_eq!(bob.hears(), "* alice left");
}

#[test]
fn a_line_that_was_refused_does_not_hide_what_the_same_user_says_elsewhere() {
    let redis = Redis::start();
    let (narrow, wide) = (
        Hubbub::on_with(&redis, &["--max-message", "1000"]),
        Hubbub::on(&redis),
    );
    let long = "x".repeat(2000);
    let mut alice = Terminal::start(&["join", "alice", "--url", &narrow.url()]);
    assert_eq!(alice.prints(), "* online: alice");
    alice.types(&long);
    let told = alice.prints();
    assert!(told.starts_with("! not sent: too long"), "{told}");
    let elsewhere = || {
        let said = run(&["say", "alice", &long, "--url", &wide.url()]);
        assert!(said.status.success(), "{said:?}");
    };
    elsewhere();
    let mut bob = wide.join("bob");
    bob.says("the end");
    assert_eq!(alice.prints(), format!("alice: {long}"));
    assert_eq!(alice.prints(), "* bob joined");
    assert_eq!(alice.prints(), "bob: the end");
}

#[test]
fn in_a_pipe_every_line_is_said_and_none_is_a_command() {
    let hubbub = Hubbub::alone();
    let (mut bob, mut dora) = (hubbub.join("bob"), hubbub.join_room("dora", "den"));
    let mut alice = Terminal::start(&["join", "alice", "--url", &hubbub.url()]);
    assert_eq!(bob.hears(), "* alice joined");
    let lines = [
        "one",
        "/join den",
        "/usr/bin/df: 98% full",
        "/who",
        "//",
        "/times",
        "/quit",
        "the end",
    ];
    for line in lines {
        alice.types(&format!("{line}\r"));
    }
    let (status, _) = alice.ends();
    assert!(status.success());
    for line in lines {
        assert_eq!(bob.hears(), format!("alice: {line}"));
    }
    assert_eq!(bob.hears(), "* alice left");
    hubbub.join_room("carol", "den").leaves();
    assert_eq!(dora.hears(), "* carol joined", "and alice did not");
}

#[test]
fn odd_numbers_are_taken_as_they_are_meant() {
    let hubbub = Hubbub::alone();
    let url = hubbub.url();
    let most = u64::MAX.to_string();
    assert!(
        run(&["say", "alice", "hi", "--url", &url, "--timeout", &most])
            .status
            .success()
    );
    assert!(
        run(&["tail", "--url", &url, "--count", "0"])
            .status
            .success()
    );
}

#[test]
fn say_succeeds_only_once_it_is_stored() {
    let mut redis = Redis::start();
    let hubbub = Hubbub::on(&redis);
    let url = hubbub.url();
    assert!(
        run(&["say", "alice", "stored", "--url", &url])
            .status
            .success()
    );
    redis.kill();
    let why = |timeout| {
        let refused = run(&["say", "alice", "lost", "--url", &url, "--timeout", timeout]);
        assert_eq!(refused.status.code(), Some(1));
        let why = String::from_utf8(refused.stderr).expect("text");
        assert_eq!(why.lines().count(), 1, "{why}");
        why
    };
    until(
        "the server knows that Redis is away, and has stored nothing",
        || {
            let why = why("1");
            assert!(why.starts_with("hubbub: not "), "{why}");
            why.starts_with("hubbub: not sent: Redis is unavailable")
                .then_some(())
        },
    );
    // After the three seconds in which the server answers.
    assert!(why("4").starts_with("hubbub: not sent: Redis is unavailable"));
}

#[test]
fn the_time_is_up_also_where_a_server_says_nothing() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("its address"));
    for arguments in [
        &["say", "alice", "hi", "--timeout", "1", "--url", &url][..],
        &["tail", "--count", "1", "--timeout", "1", "--url", &url],
    ] {
        let begun = Instant::now();
        assert_eq!(run(arguments).status.code(), Some(1), "{arguments:?}");
        // Less than a handshake may take.
        assert!(begun.elapsed().as_secs() < 4, "{:?}", begun.elapsed());
    }
}

#[test]
fn say_makes_nobody_join_or_leave() {
    let hubbub = Hubbub::alone();
    let mut bob = hubbub.join("bob");
    let say = |arguments: &[&str]| {
        let url = hubbub.url();
        let said = run(&[&["say", "alice", "--url", &url], arguments].concat());
        assert!(said.status.success(), "{said:?}");
    };
    say(&["hello"]);
    say(&["-1"]);
    let mut carol = hubbub.join("carol");
    carol.says("the end");
    let heard = bob.hears_until("the end");
    assert_eq!(
        heard,
        [
            "alice: hello",
            "alice: -1",
            "* carol joined",
            "carol: the end"
        ]
    );
}

#[test]
fn say_reads_stdin_whole() {
    let hubbub = Hubbub::with(&["--max-message", "1000"]);
    let mut bob = hubbub.join("bob");
    let url = hubbub.url();
    let say = |arguments: &[&str], text: &[u8]| {
        let arguments = [&["say", "alice", "--url", &url], arguments].concat();
        let mut say = Terminal::start(&arguments);
        say.types_bytes(text);
        say.ends().0.code()
    };
    for arguments in [&["-"][..], &[]] {
        assert_eq!(say(arguments, b"one\n\ntwo \n"), Some(0));
        for line in ["alice: one", "alice: ", "alice: two "] {
            assert_eq!(bob.hears(), line);
        }
        assert_eq!(say(arguments, b"\n"), Some(1), "there is nothing to say");
        assert_eq!(say(arguments, b"\xff"), Some(1), "it is no text");
        assert_eq!(say(arguments, &[b'x'; 1001]), Some(1), "it is too long");
    }
    let long = "x".repeat(1001);
    let refused = run(&["say", "alice", &long, "--url", &url]);
    let why = String::from_utf8(refused.stderr).expect("text");
    assert!(
        why.contains("not sent: the request's body is over 1000 bytes"),
        "{why}"
    );
}

#[test]
fn tail_prints_the_time_of_each_message_on_request() {
    let hubbub = Hubbub::alone();
    assert!(
        run(&["say", "alice", "one\ntwo", "--url", &hubbub.url()])
            .status
            .success()
    );
    let tail = run(&[
        "tail",
        "--url",
        &hubbub.url(),
        "--history",
        "1",
        "--count",
        "1",
        "--times",
    ]);
    let printed = String::from_utf8(tail.stdout).expect("text");
    let lines: Vec<_> = printed
        .lines()
        .map(|line| line.split_once(' ').expect("a time"))
        .collect();
    let (time, _) = lines[0];
    assert_eq!(lines, [(time, "alice: one"), (time, "alice: two")]);
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z");
}

#[test]
fn say_waits_for_a_server_that_comes_back() {
    let mut redis = Redis::that_remembers();
    let hubbub = Hubbub::on(&redis);
    let mut bob = hubbub.join("bob");
    redis.kill();
    let url = hubbub.url();
    let say = std::thread::spawn(move || {
        run(&["say", "alice", "patient", "--url", &url, "--timeout", "20"])
    });
    until("it has been tried in vain", || {
        hubbub.log().contains("/messages\": 503").then_some(())
    });
    redis.start_again();
    assert!(say.join().expect("it ends").status.success());
    assert_eq!(
        bob.hears_until("patient").last().map(String::as_str),
        Some("alice: patient")
    );
}

#[test]
fn a_connection_that_is_closed_in_the_handshake_is_tried_again() {
    let hubbub = Hubbub::alone();
    let server = hubbub.address();
    // Takes one connection and closes it; the ones after it are passed on.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    std::thread::spawn(move || {
        let mut streams = listener.incoming().map_while(Result::ok);
        drop(streams.next());
        for client in streams {
            let server = std::net::TcpStream::connect(server).expect("a connection");
            let clone = |s: &std::net::TcpStream| s.try_clone().expect("a second handle");
            let (mut up, mut to) = (clone(&client), clone(&server));
            std::thread::spawn(move || std::io::copy(&mut up, &mut to));
            let (mut down, mut back) = (server, client);
            std::thread::spawn(move || std::io::copy(&mut down, &mut back));
        }
    });
    let said = run(&["say", "alice", "hi", "--url", &url, "--timeout", "20"]);
    assert!(said.status.success(), "{said:?}");
}

#[test]
fn a_server_that_is_not_there_or_refuses_is_one_line_and_exit_one() {
    let nobody = format!("http://127.0.0.1:{}", crate::support::redis::free_port());
    let hubbub = Hubbub::alone();
    let url = hubbub.url();
    for arguments in [
        &["join", "alice", "--url", &nobody][..],
        &["say", "alice", "hi", "--timeout", "1", "--url", &nobody],
        &["tail", "--count", "1", "--timeout", "1", "--url", &nobody],
        &["tail", "--count", "1", "--timeout", "1", "--url", &url],
        &["say", "alice", "", "--url", &url],
    ] {
        let output = run(arguments);
        let why = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {why}");
        let last = why.lines().last().unwrap_or_default();
        assert!(last.starts_with("hubbub: "), "{arguments:?}: {why}");
    }
}

#[test]
fn tail_through_restarts_of_redis_and_of_the_instance_prints_each_line_once() {
    let mut redis = Redis::that_remembers();
    let port = crate::support::redis::free_port();
    let listen = format!("127.0.0.1:{port}");
    let at_the_same_place = ["--listen", &*listen];
    let mut here = Hubbub::on_with(&redis, &at_the_same_place);
    let there = Hubbub::on(&redis);
    let say = |text: &str| {
        let said = run(&[
            "say",
            "alice",
            text,
            "--url",
            &there.url(),
            "--timeout",
            "20",
        ]);
        assert!(said.status.success(), "{said:?}");
    };
    let mut tail = Terminal::start(&["tail", "--url", &here.url(), "--count", "6"]);
    until("tail is there", || {
        here.log().contains("\"tail\" joined").then_some(())
    });
    say("one");
    assert_eq!(tail.prints(), "alice: one");
    redis.kill();
    redis.start_again();
    say("two");
    say("three");
    here.kill();
    say("four");
    here = Hubbub::on_with(&redis, &at_the_same_place);
    say("five");
    here.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(here.ends().code(), Some(0));
    let _here = Hubbub::on_with(&redis, &at_the_same_place);
    say("six");
    let (status, rest) = tail.ends();
    assert!(status.success());
    let expected: Vec<_> = ["two", "three", "four", "five", "six"]
        .iter()
        .map(|text| format!("alice: {text}"))
        .collect();
    assert_eq!(rest, expected);
}
