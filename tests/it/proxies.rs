//! Behind a proxy that is trusted, the client's address is the client's; from anybody else nothing is believed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::client::raw;
use crate::support::hubbub::{Hubbub, misuses};
use crate::support::{DEADLINE, until};

const TRUSTED: [&str; 2] = ["--trusted-proxy", "127.0.0.1"];

/// A request for `/livez` with these fields, and all that comes back.
fn asks(hubbub: &Hubbub, before: &[u8], fields: &str) -> String {
    let request = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    let answer = raw(hubbub.address(), &[before, request.as_bytes()].concat());
    String::from_utf8(answer).expect("text")
}

/// The client that the log names for the last request.
fn logged_client(hubbub: &Hubbub) -> String {
    until("it is logged", || {
        let log = hubbub.log();
        let line = log
            .lines()
            .rfind(|line| line.contains(": GET \"/livez\""))?;
        let before = line.split(": GET").next()?.split(' ').collect::<Vec<_>>();
        let at = before.iter().position(|word| *word == "through");
        let name = at.map_or(before.len() - 1, |at| at - 1);
        Some(before[name].to_owned())
    })
}

/// A header of version 2 for a client at 192.0.2.2, with a part that we do not know.
fn version_2() -> Vec<u8> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10";
    let addresses = [192, 0, 2, 2, 127, 0, 0, 1, 1, 2, 1, 187];
    [&signature[..], &addresses, b"\xe0\0\x01x"].concat()
}

#[test]
fn a_trusted_proxy_names_its_client_in_each_of_its_ways() {
    let more = [&TRUSTED[..], &["--trusted-proxy", "10.0.0.0/8"]].concat();
    let hubbub = Hubbub::with(&more);
    for (before, fields, client) in [
        (&b""[..], "X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
        (
            b"",
            "Forwarded: for=\"[2001:db8::1]:80\"\r\n",
            "2001:db8::1",
        ),
        // What the client wrote itself comes first, and does not count.
        (b"", "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\n", "192.0.2.1"),
        // A chain of two proxies.
        (b"", "X-Forwarded-For: 192.0.2.1, 10.1.2.3\r\n", "192.0.2.1"),
        (
            b"PROXY TCP4 10.1.2.3 10.0.0.7 56324 443\r\n",
            "X-Forwarded-For: 192.0.2.1\r\n",
            "192.0.2.1",
        ),
        // One that is not trusted, behind one that is.
        (
            b"PROXY TCP4 192.0.2.1 10.0.0.7 56324 443\r\n",
            "X-Forwarded-For: 6.6.6.6\r\n",
            "192.0.2.1",
        ),
        (&version_2(), "", "192.0.2.2"),
    ] {
        let answer = asks(&hubbub, before, fields);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{fields}: {answer}");
        assert_eq!(logged_client(&hubbub), client, "{before:?} {fields}");
    }
    // A proxy that speaks for itself, and one that does not know its client.
    for before in ["PROXY UNKNOWN\r\n", ""] {
        let fields = match before {
            "" => "",
            _ => "X-Forwarded-For: 6.6.6.6\r\n",
        };
        let answer = asks(&hubbub, before.as_bytes(), fields);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let client = logged_client(&hubbub);
        assert!(client.starts_with("127.0.0.1:"), "{client}");
    }
}

#[test]
fn from_anybody_else_nothing_is_believed() {
    for trusted in [&[][..], &["--trusted-proxy", "10.0.0.0/8,127.0.0.2"]] {
        let hubbub = Hubbub::with(trusted);
        let forged = "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=6.6.6.6\r\n";
        let answer = asks(&hubbub, b"", forged);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let client = logged_client(&hubbub);
        assert!(client.starts_with("127.0.0.1:"), "{client}");
        // It may be a proxy that was forgotten. Anybody can cause this, so it is told once.
        asks(&hubbub, b"", forged);
        let warned = hubbub.log().matches("is no --trusted-proxy").count();
        assert_eq!(warned, 1, "{}", hubbub.log());
        let line = b"PROXY TCP4 192.0.2.1 10.0.0.7 56324 443\r\n";
        for header in [&line[..], &version_2()] {
            let answer = asks(&hubbub, header, "");
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        }
        assert!(!hubbub.log().contains("192.0.2."), "{}", hubbub.log());
    }
}

#[test]
fn a_proxy_that_contradicts_itself_is_refused_with_the_reason() {
    let hubbub = Hubbub::with(&TRUSTED);
    let fields = "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=6.6.6.6\r\n";
    let answer = asks(&hubbub, b"", fields);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("name different clients"), "{answer}");
    let mut too_long = version_2();
    too_long[14..16].copy_from_slice(&521_u16.to_be_bytes());
    for malformed in [
        &b"PROXY TCP4 192.0.2.1 10.0.0.7 56324\r\n"[..],
        b"PROXY / HTTP/1.1\r\n",
        &[b"PROXY UNKNOWN ", "x".repeat(100).as_bytes()].concat(),
        b"\r\n\r\n\0\r\nQUIT \x21\x11\0\x0c............",
        b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c............",
        &too_long,
    ] {
        let answer = asks(&hubbub, malformed, "");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("the PROXY header"), "{answer}");
    }
}

/// Half a header, in one piece or a byte at a time, holds a thread for as long as half a request does.
#[test]
fn half_a_proxy_header_is_answered_by_the_deadline() {
    let hubbub = Hubbub::with(&[&TRUSTED[..], &["--head-timeout", "1"]].concat());
    for half in [
        &b"P"[..],
        b"PROXY TCP4 192.0",
        &version_2()[..7],
        &version_2()[..20],
    ] {
        let mut socket = TcpStream::connect(hubbub.address()).expect("a connection");
        socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        for byte in half {
            socket.write_all(&[*byte]).expect("it is taken");
        }
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{half:?}: {answer}");
    }
}

#[test]
fn the_bytes_of_a_header_may_come_one_at_a_time() {
    let hubbub = Hubbub::with(&TRUSTED);
    for header in [
        &b"PROXY TCP4 192.0.2.2 10.0.0.7 56324 443\r\n"[..],
        &version_2(),
    ] {
        let mut socket = TcpStream::connect(hubbub.address()).expect("a connection");
        socket.set_nodelay(true).expect("no delay");
        for byte in header
            .iter()
            .chain(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        {
            socket.write_all(&[*byte]).expect("it is taken");
        }
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(logged_client(&hubbub), "192.0.2.2");
    }
}

#[test]
fn a_proxy_is_an_address_or_a_range_of_them() {
    for wrong in ["proxy", "10.0.0.0/33", "127.0.0.1:80"] {
        misuses(
            &["--trusted-proxy", wrong],
            &["--trusted-proxy", "10.0.0.0/8"],
        );
    }
}

/// The head of a chat's request with these fields, and the socket, which goes on.
fn upgrades(hubbub: &Hubbub, fields: &str) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(hubbub.address()).expect("a connection");
    socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    let request = format!(
        "GET /chat/alice HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    );
    socket.write_all(request.as_bytes()).expect("it is taken");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && socket.read_exact(&mut byte).is_ok() {
        head.extend(byte);
    }
    (socket, String::from_utf8(head).expect("text"))
}

#[test]
fn the_clients_of_a_proxy_are_counted_each_under_their_own_address() {
    let limit = ["--max-per-address", "2"];
    let hubbub = Hubbub::with(&[&TRUSTED[..], &limit].concat());
    let comes = |client: &str| upgrades(&hubbub, &format!("X-Forwarded-For: {client}\r\n"));
    // Connections that do not say yet for whom they are do not count.
    let _silent: Vec<_> = (0..5)
        .map(|_| TcpStream::connect(hubbub.address()).expect("a connection"))
        .collect();
    let (first, head) = comes("192.0.2.1");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (_second, head) = comes("192.0.2.1");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for forged in ["192.0.2.1", "6.6.6.6, 192.0.2.1", "::ffff:192.0.2.1"] {
        let (_, head) = comes(forged);
        assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
        assert!(head.contains("\r\nRetry-After: 5\r\n"), "{head}");
    }
    let (_other, head) = comes("192.0.2.2");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    until("its address is logged", || {
        let words = "\"alice\" connected from 192.0.2.2 through 127.0.0.1:";
        hubbub.log().contains(words).then_some(())
    });
    drop(first);
    until("there is room again", || {
        comes("192.0.2.1")
            .1
            .starts_with("HTTP/1.1 101 ")
            .then_some(())
    });
}

#[test]
fn an_address_that_opens_connections_too_fast_is_told_when_to_come_again() {
    let limit = ["--connect-rate", "1"];
    for (arguments, fields) in [
        (&limit[..], ""),
        (
            &[&TRUSTED[..], &limit].concat(),
            "X-Forwarded-For: 192.0.2.1\r\n",
        ),
    ] {
        let hubbub = Hubbub::with(arguments);
        let mut taken = 0;
        let refused = until("one is refused", || {
            let answer = asks(&hubbub, b"", fields);
            taken += 1;
            answer.starts_with("HTTP/1.1 429 ").then_some(answer)
        });
        assert!(taken > 20, "{taken}");
        assert!(refused.contains("\r\nRetry-After: 1\r\n"), "{refused}");
        assert!(refused.contains("too fast"), "{refused}");
        // Nobody else is: another client of the proxy, or its own health check.
        if arguments.len() > limit.len() {
            for others in ["X-Forwarded-For: 192.0.2.2\r\n", ""] {
                let answer = asks(&hubbub, b"", others);
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            }
        }
    }
}

/// A shell loop with ever new names is still one address.
#[test]
fn requests_of_one_address_are_bounded_whatever_users_they_name() {
    let hubbub = Hubbub::with(&[&TRUSTED[..], &["--send-rate", "1", "--send-burst", "2"]].concat());
    let asks = |client: &str, head: &str| {
        let request = format!(
            "{head} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\nContent-Length: 1\r\n\r\nx"
        );
        String::from_utf8(raw(hubbub.address(), request.as_bytes())).expect("text")
    };
    let mut number = 0;
    let mut post = |client: &str| {
        number += 1;
        asks(
            client,
            &format!("POST /api/rooms/ops/messages?user=u{number}"),
        )
    };
    let mut taken = 0;
    let refused = until("a post is refused", || {
        let answer = post("192.0.2.1");
        taken += 1;
        answer.starts_with("HTTP/1.1 429 ").then_some(answer)
    });
    // As many as four users may at once.
    assert!(taken > 8, "{taken}");
    assert!(refused.contains("\r\nRetry-After: 1\r\n"), "{refused}");
    assert!(refused.contains("\"code\":\"too_fast\""), "{refused}");
    for path in ["messages", "members"] {
        let head = format!("GET /api/rooms/ops/{path}");
        let refused = until("a read is refused", || {
            let answer = asks("192.0.2.1", &head);
            answer.starts_with("HTTP/1.1 429 ").then_some(answer)
        });
        assert!(refused.contains("\r\nRetry-After: 1\r\n"), "{refused}");
    }
    // Another client, and this machine's own scripts.
    for client in ["192.0.2.2", "127.0.0.1"] {
        let answer = post(client);
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    }
    for _ in 0..20 {
        let answer = post("127.0.0.1");
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    }
}

#[test]
fn a_client_that_the_proxy_names_is_counted_before_it_asks_for_anything() {
    let few = [&TRUSTED[..], &["--max-per-address", "3"]].concat();
    let hubbub = Hubbub::with(&few);
    let says = |text: &str| {
        let mut socket = TcpStream::connect(hubbub.address()).expect("a connection");
        socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        socket.write_all(text.as_bytes()).expect("it is taken");
        socket
    };
    // Whichever of them are counted first keep their places, so they all stay.
    let mut silent = Vec::new();
    let answer = until("one is refused before it asks", || {
        let mut next = says("PROXY TCP4 192.0.2.1 10.0.0.7 9 443\r\n");
        let glance = Some(Duration::from_millis(100));
        next.set_read_timeout(glance).expect("a time-out");
        let mut answer = String::new();
        let refused = next.read_to_string(&mut answer).is_ok();
        silent.push(next);
        refused.then_some(answer)
    });
    assert!(silent.len() > 3, "three have their places");
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    let other = asks(&hubbub, b"PROXY TCP4 192.0.2.2 10.0.0.7 1 443\r\n", "");
    assert!(other.starts_with("HTTP/1.1 200 "), "{other}");
    drop(silent);
}
