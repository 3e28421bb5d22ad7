//! TLS for users: what holds in the clear holds with it. Compiled with `--features tls` alone.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use hubbub::stream::{Identity, Stream};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::authority::Authority;
use crate::support::client::{Client, get, metric};
use crate::support::hubbub::{Hubbub, command, misuses, refuses, run};
use crate::support::tunnel::tunnel;
use crate::support::{DEADLINE, until};

/// A server with a certificate.
struct Secure {
    hubbub: Hubbub,
    authority: Authority,
}

impl Secure {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let authority = Authority::new(name);
        let (certificate, key) = (authority.file("server.pem"), authority.file("server.key"));
        let files = ["--tls-cert", &certificate, "--tls-key", &key];
        let hubbub = Hubbub::with(&[&files, arguments].concat());
        Self { hubbub, authority }
    }

    /// Where one can come in the clear.
    fn tunnel(&self) -> SocketAddr {
        tunnel(self.hubbub.address(), self.authority.authorities())
    }

    fn url(&self) -> String {
        format!("https://{}", self.hubbub.address())
    }

    /// A client of ours that trusts this authority.
    fn run(&self, arguments: &[&str]) -> Output {
        let command = command()
            .args(arguments)
            .env("HUBBUB_CA", self.authority.file("ca.pem"))
            .output();
        command.expect("hubbub can be started")
    }

    /// A connection of a client that says this first.
    fn says(&self, bytes: &[u8]) -> Stream {
        let socket = TcpStream::connect(self.hubbub.address()).expect("a connection");
        socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        let authorities = self.authority.authorities();
        let stream = Stream::client(socket, &authorities, "127.0.0.1").expect("a client");
        let sent = stream.socket().write_all(&stream.sealed(bytes));
        sent.expect("it is taken");
        stream
    }
}

/// All that comes, up to the end. A connection that was broken off may end with a reset.
fn rest(stream: &Stream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return all,
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::ConnectionReset => return all,
                _ => panic!("{error} behind {all:?}"),
            },
        }
    }
}

fn error_of(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[test]
fn people_scripts_and_probes_come_by_tls() {
    let server = Secure::start("chat", &[]);
    let (url, near) = (server.url(), server.tunnel());
    let mut alice = Client::text(near, "/chat/alice");
    assert_eq!(alice.hears(), "* online: alice");
    let said = server.run(&["say", "--url", &url, "bob", "hello"]);
    assert!(said.status.success(), "{}", error_of(&said));
    assert_eq!(
        alice.hears_until("bob: hello").last().expect("it"),
        "bob: hello"
    );
    let long = "x".repeat(65_536);
    let mut carol = Client::text(near, "/chat/carol");
    carol.says(&long);
    alice.hears_until(&format!("carol: {long}"));
    let heard = server.run(&["tail", "--url", &url, "--since", "0-0", "--count", "2"]);
    let heard = String::from_utf8(heard.stdout).expect("text");
    assert_eq!(heard, format!("bob: hello\ncarol: {long}\n"));
    // Sealed before the handshake is over.
    let said = server.run(&["say", "--url", &url, "dora", &long]);
    assert!(said.status.success(), "{}", error_of(&said));
    alice.hears_until(&format!("dora: {long}"));
    assert!(server.run(&["ready", "--url", &url]).status.success());
    let (status, page) = get(near, "/");
    assert_eq!(status, 200);
    assert!(page.contains("</html>"), "it ends in the middle");
}

/// Its length is not told, so TLS alone shows that it was not cut off (RFC 9112 §9.8). curl does not mind.
#[test]
fn a_room_that_is_followed_ends_and_is_not_cut_off() {
    let mut server = Secure::start("follow", &[]);
    let client = Command::new("openssl")
        .args([
            "s_client",
            "-quiet",
            "-CAfile",
            &server.authority.file("ca.pem"),
        ])
        .args(["-connect", &server.hubbub.address().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut client = client.expect("openssl can be started");
    let mut request = client.stdin.take().expect("it is piped");
    let head = "GET /api/rooms/lobby/messages?follow HTTP/1.1\r\nHost: localhost\r\n\r\n";
    request.write_all(head.as_bytes()).expect("it is taken");
    let mut heard = BufReader::new(client.stdout.take().expect("it is piped"));
    let mut text = String::new();
    while !text.ends_with("}\n") {
        heard.read_line(&mut text).expect("a line");
    }
    server.hubbub.signal(Signal::SIGTERM);
    heard.read_to_string(&mut text).expect("the rest");
    assert!(text.contains(r#""code":1012"#), "{text}");
    let ended = client.wait_with_output().expect("its end");
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(server.hubbub.ends().code(), Some(0));
}

#[test]
fn a_client_refuses_what_it_cannot_trust_and_says_why() {
    let server = Secure::start("trust", &[]);
    let (url, other) = (server.url(), Authority::new("stranger"));
    let stranger = other.file("ca.pem");
    for ca in [&["--ca", &stranger][..], &[]] {
        for arguments in [&["say", "alice", "hello"][..], &["ready"]] {
            let output = run(&[arguments, &["--url", &url], ca].concat());
            let why = error_of(&output);
            assert!(
                why.contains("invalid peer certificate"),
                "{arguments:?}: {why}"
            );
            assert_eq!(why.lines().count(), 1, "{why}");
        }
    }
    // The certificate is for the address and not for this name.
    let name = url.replace("127.0.0.1", "localhost");
    let why = error_of(&server.run(&["say", "--url", &name, "alice", "hello"]));
    assert!(why.contains("not valid for name"), "{why}");
    let plain = Hubbub::alone();
    let url = format!("https://{}", plain.address());
    let why = error_of(&server.run(&["say", "--url", &url, "alice", "hello"]));
    assert!(why.contains("does not speak TLS"), "{why}");
    assert!(why.starts_with("hubbub: not sent: "), "{why}");
    let gone = error_of(&run(&[
        "say", "--url", &url, "--ca", "/gone", "alice", "hello",
    ]));
    assert!(gone.contains("cannot use /gone"), "{gone}");
    assert_eq!(metric(&plain, "hubbub_messages_heard_total"), 0);
}

/// `openssl req -x509` makes an authority's certificate by default.
#[test]
fn a_certificate_of_an_authority_is_refused_with_a_sentence_that_tells_what_to_do() {
    let authority = Authority::new("itself");
    let (certificate, key) = (authority.file("ca.pem"), authority.file("ca.key"));
    let hubbub = Hubbub::with(&["--tls-cert", &certificate, "--tls-key", &key]);
    let url = format!("https://{}", hubbub.address());
    let arguments = ["say", "--url", &url, "--ca", &certificate, "alice", "hello"];
    let why = error_of(&run(&arguments));
    assert!(why.contains("basicConstraints=critical,CA:FALSE"), "{why}");
    assert_eq!(why.lines().count(), 1, "{why}");
}

#[test]
fn files_that_cannot_be_used_end_the_start_with_a_sentence() {
    let (authority, other) = (Authority::new("start"), Authority::new("another"));
    let [certificate, key] = ["server.pem", "server.key"].map(|name| authority.file(name));
    let start = |certificate: &str, key: &str, words: &[&str]| {
        let files = ["--tls-cert", certificate, "--tls-key", key];
        refuses(&[&files[..], &["--listen", "127.0.0.1:0"]].concat(), words);
        refuses(&[&files[..], &["--check"]].concat(), words);
    };
    start("/gone", &key, &["cannot use /gone", "No such file"]);
    start(&key, &key, &[&key, "there is no certificate in it"]);
    start(&certificate, &certificate, &[&certificate, "no key in it"]);
    start(&certificate, &other.file("server.key"), &["cannot be used"]);
    misuses(&["--tls-cert", &certificate], &["--tls-key"]);
}

#[test]
fn a_new_certificate_is_taken_at_a_hangup_and_a_bad_one_is_not() {
    let server = Secure::start("hangup", &[]);
    let mut alice = Client::text(server.tunnel(), "/chat/alice");
    alice.hears();
    let renewed = Authority::new("renewed");
    let copy = |name: &str| {
        let copied = fs::copy(renewed.file(name), server.authority.file(name));
        copied.expect("a copy");
    };
    let log_has = |words: &str| {
        until(words, || server.hubbub.log().contains(words).then_some(()));
    };
    copy("server.pem");
    server.hubbub.signal(Signal::SIGHUP);
    log_has("the certificate stays as it was");
    Client::text(server.tunnel(), "/chat/bob");
    assert_eq!(alice.hears(), "* bob joined");
    copy("server.key");
    server.hubbub.signal(Signal::SIGHUP);
    log_has("were read again");
    let near = tunnel(server.hubbub.address(), renewed.authorities());
    Client::text(near, "/chat/carol").hears();
    let why = error_of(&server.run(&["ready", "--url", &server.url()]));
    assert!(why.contains("certificate"), "{why}");
    assert_eq!(alice.hears(), "* carol joined");
}

#[test]
fn a_hangup_ends_a_server_that_has_nothing_to_read_again() {
    let mut hubbub = Hubbub::alone();
    let mut alice = hubbub.join("alice");
    hubbub.signal(Signal::SIGHUP);
    assert_eq!(alice.is_closed(), Some(1012));
    assert!(hubbub.ends().success());
}

#[test]
fn a_handshake_that_does_not_end_is_ended_by_the_deadline() {
    let server = Secure::start("handshake", &["--head-timeout", "1"]);
    let address = server.hubbub.address();
    let hello = {
        let authorities = server.authority.authorities();
        let socket = TcpStream::connect(address).expect("a connection");
        let stream = Stream::client(socket, &authorities, "127.0.0.1").expect("a client");
        stream.sealed(b"").into_owned()
    };
    let silent = [&b""[..], &hello[..1], &hello[..hello.len() / 2], &hello];
    let sockets = silent.map(|bytes| {
        let mut socket = TcpStream::connect(address).expect("a connection");
        socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        socket.write_all(bytes).expect("it is taken");
        socket
    });
    for mut socket in sockets {
        let ended = socket.read_to_end(&mut Vec::new());
        assert!(
            ended.is_ok() || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
        );
    }
    // What is no handshake is ended at once, and what follows it is not read as a request.
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        &[0x16; 4096],
        &[0; 64],
    ] {
        let mut socket = TcpStream::connect(address).expect("a connection");
        socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        socket.write_all(garbage).expect("it is taken");
        let _ = socket.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    Client::text(server.tunnel(), "/chat/alice").hears();
    until("nobody else is there", || {
        (metric_of(&server, "hubbub_connections") <= 2).then_some(())
    });
}

/// A metric, by TLS.
fn metric_of(server: &Secure, name: &str) -> u64 {
    let (_, text) = get(server.tunnel(), "/metrics");
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.expect("a metric").parse().expect("a number")
}

#[test]
fn a_user_who_does_not_read_is_evicted_and_the_others_are_not() {
    let server = Secure::start(
        "slow",
        &["--max-message", "4096", "--outbox-bytes", "65536"],
    );
    let request = "GET /chat/slow HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let slow = server.says(request.as_bytes());
    let mut first = [0; 1024];
    while slow.read(&mut first).is_err() {}
    let near = server.tunnel();
    let mut alice = Client::text(near, "/chat/alice");
    alice.hears();
    let mut bob = Client::text(near, "/chat/bob");
    bob.hears();
    let text = "x".repeat(4000);
    let mut said = 0;
    until("the slow one is evicted", || {
        bob.says(&text);
        said += 1;
        alice.hears_until(&format!("bob: {text}"));
        (metric_of(&server, "hubbub_slow_consumers_total") == 1).then_some(())
    });
    assert!(said > 2, "{said}");
    // What it was sent is whole, up to where it was cut.
    let came = rest(&slow);
    assert!(came.len() > 60_000, "{}", came.len());
    bob.says("the end");
    alice.hears_until("bob: the end");
}

#[test]
fn everybody_is_told_of_a_drain_and_every_stream_ends_with_its_farewell() {
    let mut server = Secure::start("drain", &[]);
    let mut alice = Client::json(server.tunnel(), "alice");
    alice.joins("lobby");
    let response =
        server.says(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let response = rest(&response);
    let alive = concat!("\nalive ", env!("CARGO_PKG_VERSION"), "\n");
    assert!(response.ends_with(alive.as_bytes()), "{response:?}");
    alice.asks(&json!({"type": "send", "room": "lobby", "text": "the last", "ref": "r"}));
    alice.event_of("sent");
    server.hubbub.signal(Signal::SIGTERM);
    alice.event_of("closing");
    assert_eq!(alice.is_closed(), Some(1012));
    assert!(server.hubbub.ends().success());
}

#[test]
fn one_stream_carries_many_requests_and_ends_when_no_more_come() {
    let server = Secure::start("requests", &["--head-timeout", "1"]);
    let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let stream = server.says(&request.repeat(2));
    let mut first = [0; 12];
    let count = loop {
        match stream.read(&mut first) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => break read.expect("a response"),
        }
    };
    assert_eq!(&first[..count], b"HTTP/1.1 200");
    let sent = stream.socket().write_all(&stream.sealed(request));
    sent.expect("it is taken");
    let responses = String::from_utf8(rest(&stream)).expect("text");
    assert_eq!(responses.matches("\nalive ").count(), 3, "{responses}");
}

#[test]
fn many_write_to_one_at_the_same_time_and_every_record_is_in_its_place() {
    const SPEAKERS: usize = 8;
    const SAID: usize = 200;
    let server = Secure::start("order", &[]);
    let near = server.tunnel();
    let mut alice = Client::json(near, "alice");
    alice.joins("lobby");
    let mut speakers: Vec<_> = (0..SPEAKERS)
        .map(|number| {
            let mut speaker = Client::json(near, &format!("speaker-{number}"));
            // Each in a room of its own, so that several threads write to alice.
            let room = format!("room-{number}");
            alice.joins(&room);
            speaker.joins(&room);
            (speaker, room)
        })
        .collect();
    std::thread::scope(|scope| {
        for (speaker, room) in &mut speakers {
            scope.spawn(move || {
                for number in 0..SAID {
                    let text = format!("{number} {}", "x".repeat(number * 40));
                    speaker.asks(&json!({"type": "send", "room": room, "text": text}));
                    speaker.event_of("sent");
                }
            });
        }
        let mut next = [0; SPEAKERS];
        while next.iter().any(|&next| next < SAID) {
            let message = alice.event_of("message");
            let room = message["room"].as_str().expect("a room");
            let room: usize = room["room-".len()..].parse().expect("a number");
            let text = message["text"].as_str().expect("a text");
            assert!(text.starts_with(&format!("{} ", next[room])), "{text}");
            next[room] += 1;
        }
    });
}

/// What rustls takes at once is less than what comes here.
#[test]
fn what_follows_a_farewell_is_the_end_whatever_it_is() {
    let authority = Authority::new("farewell");
    let files = ["server.pem", "server.key"].map(|name| authority.file(name));
    let identity = Identity::read(files[0].as_ref(), files[1].as_ref()).expect("a certificate");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let socket = TcpStream::connect(listener.local_addr().expect("its address"));
    let socket = socket.expect("a connection");
    socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    let client = Stream::client(socket, &authority.authorities(), "127.0.0.1").expect("a client");
    let (accepted, _) = listener.accept().expect("the other end");
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let server = Stream::server(accepted, &identity).expect("a server");
        let mut buffer = vec![0; 64 * 1024];
        let mut next = || {
            loop {
                match server.read(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    count => return count.expect("no fault"),
                }
            }
        };
        assert_eq!(next(), 5);
        let hello = server.sealed(b"hello").into_owned();
        server.socket().write_all(&hello).expect("it is read");
        done.send(next())
    });
    let write = |bytes: &[u8]| client.socket().write_all(bytes).expect("it is read");
    write(&client.sealed(b"hello"));
    while client.read(&mut [0; 16]).is_err() {}
    write(&[&client.farewell()[..], &[0; 32 * 1024]].concat());
    assert_eq!(ended.recv_timeout(DEADLINE), Ok(0));
}
