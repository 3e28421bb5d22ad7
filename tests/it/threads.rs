//! Readers and writers share a bounded number of threads. Whatever happens at once, the process lives.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use hubbub::metrics;
use hubbub::server::Server;
use hubbub::server::config::{Config, Deadlines};
use nix::sys::signal::Signal;

use crate::support::client::Client;
use crate::support::hubbub::{Hubbub, threads_of_limited_user};
use crate::support::{DEADLINE, until};

/// 21 connections, and at least 3 writers.
const THREADS: usize = 24;
const CONNECTIONS: usize = 21;

/// A server in this process, since no option sets how many threads it may have.
struct Instance {
    address: SocketAddr,
    stop: Sender<()>,
    runs: JoinHandle<()>,
}

impl Instance {
    /// Nobody is given up for want of time.
    fn start() -> Self {
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            max_threads: Some(THREADS),
            send_rate: 0,
            outbox_bytes: 64 << 20,
            drain: 3 * DEADLINE,
            deadlines: Deadlines {
                write: DEADLINE,
                close: DEADLINE,
                ..Config::default().deadlines
            },
            ..Config::default()
        };
        let server = Server::bind(config).expect("a server");
        let address = server.address();
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let runs = std::thread::spawn(move || server.run(&stopped).expect("it runs"));
        Self {
            address,
            stop,
            runs,
        }
    }

    fn join(&self, user: &str) -> Client {
        let mut client = Client::text(self.address, &format!("/chat/{user}"));
        assert!(client.hears().starts_with("* online: "));
        client
    }

    /// Tears it down.
    fn ends(self) {
        self.stop.send(()).expect("it runs");
        self.runs.join().expect("it ends well");
    }
}

/// Connections let go since there was no thread for a writer. A test of the outbox may cause one, too.
fn let_go() -> usize {
    let text = metrics::render();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix("hubbub_no_writer_total "));
    value.expect("a counter").parse().expect("a number")
}

/// The lines that somebody else said, up to `end` or to the code of the close frame.
fn hears_to_the_end(client: &mut Client, end: &str) -> (Vec<String>, Option<u16>) {
    let mut heard = Vec::new();
    loop {
        match client.hears_or_ends() {
            Ok(line) if line.ends_with(end) => return (heard, None),
            Ok(line) if line.starts_with("alice: ") => heard.push(line),
            Ok(_) => {}
            Err(code) => return (heard, Some(code.expect("a close frame"))),
        }
    }
}

#[test]
fn when_many_stall_at_once_those_without_a_writer_are_let_go_and_the_others_hear_everything() {
    let instance = Instance::start();
    let mut alice = instance.join("alice");
    let mut bob = instance.join("bob");
    let stalled = CONNECTIONS - 2;
    let mut stalled: Vec<_> = (0..stalled)
        .map(|n| instance.join(&format!("stalled-{n}")))
        .collect();
    let full = Client::connect(instance.address, "/chat/late", None);
    assert!(matches!(full, Err((503, _))), "the rest is for writers");

    // While these stall, only as many as have a writer stay.
    let mut said = Vec::new();
    let text = "x".repeat(4000);
    let writers = THREADS - CONNECTIONS;
    until("the others are let go", || {
        for _ in 0..50 {
            let line = format!("{} {text}", said.len());
            alice.says(&line);
            said.push(format!("alice: {line}"));
            bob.hears_until(&line);
        }
        (let_go() >= stalled.len() - writers - 1).then_some(())
    });
    alice.says("the end");
    bob.hears_until("the end");

    let (mut stayed, mut left) = (0, 0);
    for client in &mut stalled {
        let (heard, code) = hears_to_the_end(client, "the end");
        assert_eq!(heard, said[..heard.len()], "in order, and no hole");
        match code {
            None => {
                assert_eq!(heard.len(), said.len());
                stayed += 1;
            }
            Some(code) => {
                assert_eq!(code, 1013);
                left += 1;
            }
        }
    }
    assert!(stayed >= writers, "{stayed} stayed, {left} left");
    assert!(left >= stalled.len() - writers - 2 && left <= let_go());

    // A drain tells the others, and needs no writer for it.
    let begun = Instant::now();
    let rest: Vec<_> = stalled.into_iter().chain([alice, bob]).collect();
    let hear = std::thread::spawn(move || {
        let codes = rest.into_iter().map(|mut user| user.is_closed());
        codes.filter(|code| *code == Some(1012)).count()
    });
    instance.ends();
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(hear.join().expect("it hears"), stayed + 2);
}

#[test]
fn when_the_system_gives_no_more_threads_newcomers_are_refused_and_all_others_are_served() {
    // Others of this user have most of the threads that it may have, more than the server reckons with.
    let many = ["--fanout-workers", "64"];
    let _others = [0; 2].map(|_| Hubbub::bound_by_processes(10_000, &many));
    let most = threads_of_limited_user() + 40;
    let mut hubbub = Hubbub::bound_by_processes(most, &["--fanout-workers", "1"]);
    let mut members = Vec::new();
    let refused = loop {
        let user = format!("/chat/u{}", members.len());
        match Client::connect(hubbub.address(), &user, None) {
            Ok(client) => members.push(client),
            Err((status, _)) => break status,
        }
    };
    assert_eq!(refused, 503);
    assert!(members.len() >= 10, "{} are in", members.len());
    let log = hubbub.log();
    assert!(log.contains("(ulimit -u)"), "{log}");
    // It is logged after the refusal.
    until("the reason is logged", || {
        let log = hubbub.log();
        log.contains("cannot take a connection: Resource temporarily")
            .then_some(())
    });
    members[0].says("still here");
    for member in &mut members[1..] {
        member.hears_until("u0: still here");
    }
    members.pop().expect("a member").leaves();
    until("there is room again", || {
        Client::connect(hubbub.address(), "/chat/late", None).ok()
    });
    hubbub.signal(Signal::SIGTERM);
    drop(members);
    assert!(hubbub.ends().success());
}
