//! Who may come in: tokens, rooms, and the origins of pages.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hubbub::hub::outbox::outbox;
use hubbub::message::{ConnectionId, RoomName, UserName};
use hubbub::protocol::{Cursor, Encoding};
use hubbub::server::grant::Grant;
use hubbub::server::session::Session;
use hubbub::server::token::Claims;
use serde_json::json;
use tungstenite::client::IntoClientRequest;

use crate::support::client::{Client, get, request};
use crate::support::house;
use crate::support::hubbub::{Hubbub, command, run};

const SECRET: &str = "an example of a secret of enough bytes";

fn guarded() -> Hubbub {
    Hubbub::with(&["--token-secret", SECRET])
}

fn token(arguments: &[&str]) -> String {
    let output = run(&[&["token", "--secret", SECRET], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

/// The status and sentence with which a request with these header fields is refused; `None` if it
/// is let in.
fn refused(
    hubbub: &Hubbub,
    target: &str,
    fields: &[(&'static str, &str)],
) -> Option<(u16, String)> {
    let stream = std::net::TcpStream::connect(hubbub.address()).expect("a connection");
    let mut request = format!("ws://{}{target}", hubbub.address())
        .into_client_request()
        .expect("a request");
    for (name, value) in fields {
        let value = value.parse().expect("a header value");
        request.headers_mut().insert(*name, value);
    }
    match tungstenite::client(request, stream) {
        Ok(_) => None,
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
            let body = response.body().clone().unwrap_or_default();
            let why = String::from_utf8_lossy(&body).trim().to_owned();
            Some((response.status().as_u16(), why))
        }
        Err(error) => panic!("{target}: {error}"),
    }
}

#[test]
fn a_token_lets_its_user_in_from_the_query_the_field_and_the_subprotocols() {
    let hubbub = guarded();
    let token = token(&["alice"]);
    let query = format!("/chat/alice?token={token}");
    assert_eq!(refused(&hubbub, &query, &[]), None);
    let bearer = format!("Bearer {token}");
    assert_eq!(
        refused(&hubbub, "/chat/alice", &[("Authorization", &bearer)]),
        None
    );
    let bearer = format!("bEARER  {token}");
    assert_eq!(
        refused(&hubbub, "/chat/alice", &[("Authorization", &bearer)]),
        None,
        "RFC 9110 §11.1: in any case"
    );
    let list = format!("hubbub.v1, token.{token}");
    assert_eq!(
        refused(&hubbub, "/chat/alice", &[("Sec-WebSocket-Protocol", &list)]),
        None
    );
    assert!(!hubbub.log().contains(&token), "no token in the log");
    assert!(!hubbub.log().contains(SECRET), "nor the secret");
}

#[test]
fn tail_takes_its_name_from_its_token() {
    let hubbub = guarded();
    let (bearer, url) = (token(&["alice"]), hubbub.url());
    let said = run(&["say", "alice", "hello", "--token", &bearer, "--url", &url]);
    assert!(said.status.success(), "{said:?}");
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("tail-{}.token", std::process::id()));
    std::fs::write(&file, format!("{bearer}\n")).expect("a file");
    let path = file.to_str().expect("text");
    let tail = ["tail", "--history", "1", "--count", "1", "--url", &url];
    for arguments in [["--token", &bearer], ["--token-file", path]] {
        let tail = run(&[&tail[..], &arguments, &["--timeout", "20"]].concat());
        assert_eq!(
            String::from_utf8_lossy(&tail.stdout),
            "alice: hello\n",
            "{tail:?}"
        );
    }
    let _ = std::fs::remove_file(file);
    // The server verifies the name, whoever chose it.
    for arguments in [
        ["--token", &bearer, "--as", "bob"],
        ["--token", "a.e30.c", "--as", "alice"],
    ] {
        let tail = run(&[&tail[..], &arguments, &["--timeout", "20"]].concat());
        assert_eq!(tail.status.code(), Some(1), "{tail:?}");
    }
}

#[test]
fn without_a_valid_token_nobody_comes_in_and_nothing_is_given_away() {
    let hubbub = guarded();
    let good = token(&["alice"]);
    let expired = token(&["alice", "--life", "0"]);
    let other = run(&["token", "alice", "--secret", &"x".repeat(32)]);
    let other = String::from_utf8(other.stdout).expect("text");
    for bad in [
        "",
        "nonsense",
        &expired,
        other.trim(),
        &good[..good.len() - 2],
    ] {
        let found = refused(&hubbub, &format!("/chat/alice?token={bad}"), &[]);
        assert_eq!(
            found,
            Some((401, "a valid token is needed".to_owned())),
            "{bad}"
        );
    }
    assert_eq!(
        refused(&hubbub, "/chat/alice", &[]).map(|(status, _)| status),
        Some(401)
    );
    let bob = refused(&hubbub, &format!("/chat/bob?token={good}"), &[]);
    assert_eq!(bob.map(|(status, _)| status), Some(403));
    let nobody = get(hubbub.address(), "/api/rooms/ops/members");
    assert_eq!(nobody.0, 401);
    // Only the log says what is wrong, and with whom.
    let log = hubbub.log();
    for line in [
        r#""alice" at 127.0.0.1 is not let in: no token"#,
        r#""bob" at 127.0.0.1 is not let in: the token is another user's"#,
        "a client at 127.0.0.1 is not let in: no token",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
}

#[test]
fn a_bad_token_in_one_place_does_not_hide_a_good_one_in_another() {
    let hubbub = guarded();
    let good = token(&["alice"]);
    let bearer = format!("Bearer {good}");
    let field = [("Authorization", &*bearer)];
    assert_eq!(refused(&hubbub, "/chat/alice?token=bad", &field), None);
    assert_eq!(refused(&hubbub, "/chat/alice?token=", &field), None);
    let list = format!("hubbub.text, token.bad, token.{good}");
    let fields = [
        ("Authorization", "Basic YTpi"),
        ("Sec-WebSocket-Protocol", &*list),
    ];
    assert_eq!(refused(&hubbub, "/chat/alice", &fields), None);
    let fields = [
        ("Authorization", "Bearer bad"),
        ("Sec-WebSocket-Protocol", "hubbub.text, token.a.b.c"),
    ];
    let found = refused(&hubbub, "/chat/alice", &fields).map(|(status, _)| status);
    assert_eq!(found, Some(401));
}

#[test]
fn a_token_of_some_rooms_opens_no_other() {
    let hubbub = guarded();
    let token = token(&["alice", "--room", "ops", "--room", "dev"]);
    let target = |room: &str| format!("/chat/alice?room={room}&token={token}");
    assert_eq!(refused(&hubbub, &target("ops"), &[]), None);
    let other = refused(&hubbub, &target("board"), &[]);
    assert_eq!(other.map(|(status, _)| status), Some(403));
    let lobby = refused(&hubbub, &format!("/chat/alice?token={token}"), &[]);
    assert_eq!(
        lobby.map(|(status, _)| status),
        Some(403),
        "the lobby is a room, too"
    );
    let target = format!("/chat/alice?token={token}");
    let mut alice = Client::connect(hubbub.address(), &target, Some("hubbub.v1"))
        .unwrap_or_else(|(status, why)| panic!("{status} {why}"));
    assert_eq!(alice.joins("dev")["members"], json!(["alice"]));
    alice.asks(&json!({"type": "join", "room": "board"}));
    assert_eq!(alice.event_of("error")["code"], "forbidden");
}

#[test]
fn the_terminal_client_brings_its_token() {
    let hubbub = guarded();
    let url = hubbub.url();
    let token = token(&["alice"]);
    assert!(
        run(&["say", "alice", "hi", "--url", &url, "--token", &token])
            .status
            .success()
    );
    let refused = run(&["say", "alice", "hi", "--url", &url]);
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8(refused.stderr).expect("text");
    assert!(
        why.contains("401") && why.contains("a valid token is needed"),
        "{why}"
    );
}

#[test]
fn a_token_of_another_library_is_taken() {
    let hubbub = guarded();
    // RFC 7519 by hand, in Python.
    let program = "import hmac, hashlib, base64, json, sys\n\
        b = lambda x: base64.urlsafe_b64encode(x).rstrip(b'=')\n\
        s = b(b'{\"typ\":\"JWT\",\"alg\":\"HS256\"}') + b'.' + \
            b(json.dumps({'sub': 'alice', 'exp': 4102444800, 'extra': [1]}).encode())\n\
        m = hmac.new(sys.argv[1].encode(), s, hashlib.sha256).digest()\n\
        print((s + b'.' + b(m)).decode())";
    let Ok(output) = Command::new("python3")
        .args(["-c", program, SECRET])
        .output()
    else {
        return; // no Python here; the unit tests have another such token
    };
    let token = String::from_utf8(output.stdout).expect("text");
    let target = format!("/chat/alice?token={}", token.trim());
    assert_eq!(refused(&hubbub, &target, &[]), None);
}

#[test]
fn pages_of_other_hosts_may_not_connect_unless_they_are_named() {
    let hubbub = Hubbub::with(&["--allow-origin", "https://chat.example"]);
    let own = hubbub.url();
    let with_origin = |origin: &str| refused(&hubbub, "/chat/alice", &[("Origin", origin)]);
    assert_eq!(with_origin(&own), None);
    assert_eq!(with_origin("https://chat.example"), None);
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        assert_eq!(
            with_origin(origin).map(|(status, _)| status),
            Some(403),
            "{origin}"
        );
    }
    assert_eq!(
        refused(&hubbub, "/chat/alice", &[]),
        None,
        "no page, no origin"
    );
}

#[test]
fn what_users_choose_reaches_the_log_escaped() {
    let hubbub = guarded();
    let head = "GET /chat/a%1b%5b31m?token=x%0d%0aINFO HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(request(hubbub.address(), head).0, 400);
    // What a name may have and a log had better not show as it is.
    assert!(refused(&hubbub, "/chat/private%ee%80%80use?token=a", &[]).is_some());
    let log = hubbub.log();
    assert!(log.contains("private\\u{e000}use"), "{log:?}");
    let strange = log.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(strange, None, "{log:?}");
}

/// A client with this token.
fn connected(hubbub: &Hubbub, user: &str, token: &str) -> Client {
    let target = format!("/chat/{user}?token={token}");
    let client = Client::connect(hubbub.address(), &target, Some("hubbub.v1"));
    client.unwrap_or_else(|refused| panic!("{refused:?}"))
}

/// The same, and it has joined the lobby.
fn joined(hubbub: &Hubbub, user: &str, token: &str) -> Client {
    let mut client = connected(hubbub, user, token);
    client.joins("lobby");
    client
}

/// The code with which the server ends the connection, whatever it says before.
fn end_of(client: &mut Client) -> Option<u16> {
    loop {
        if let Err(code) = client.hears_or_ends() {
            return code;
        }
    }
}

#[test]
fn a_connection_whose_token_expires_is_told_and_closed_and_its_user_leaves() {
    let hubbub = Hubbub::with(&["--token-secret", SECRET, "--presence-grace", "600"]);
    let mut bob = joined(&hubbub, "bob", &token(&["bob"]));
    let short = token(&["alice", "--life", "2"]);
    let mut alice = connected(&hubbub, "alice", &short);
    let told = alice.event_of("expiring");
    alice.joins("lobby");
    assert!(
        told["expires_in_ms"]
            .as_u64()
            .is_some_and(|left| left <= 2000),
        "{told}"
    );
    assert_eq!(end_of(&mut alice), Some(4001));
    // At once: without the grace of a connection that broke.
    assert_eq!(bob.event_of("left")["user"], "alice");
    assert!(
        Client::connect(
            hubbub.address(),
            &format!("/chat/alice?token={short}"),
            None
        )
        .is_err()
    );
    let short = token(&["carol", "--life", "2"]);
    let mut lines = Client::text(hubbub.address(), &format!("/chat/carol?token={short}"));
    let lines = lines.hears_until("* your token expires in 1 s");
    assert!(lines.len() <= 2, "{lines:?}");
}

/// The heartbeat ends the connection as well, but not while the session's thread waits for something else.
#[test]
fn what_is_asked_after_the_token_expired_is_not_done() {
    let state = house::state(house::local(10));
    let (outbox, _queue) = outbox(Encoding::Json, 1 << 20, None);
    let alice: UserName = "alice".parse().expect("a name");
    let grant = Arc::new(Grant::all());
    let mut session = Session::begin(
        Arc::clone(&state),
        ConnectionId(1),
        alice.clone(),
        RoomName::lobby(),
        Arc::clone(&grant),
        Arc::clone(&outbox),
    );
    session.handle(r#"{"type":"join","room":"lobby"}"#);
    grant.replace(Claims::new(alice, Duration::ZERO, None));
    session.handle(r#"{"type":"send","room":"lobby","text":"too late"}"#);
    session.settle();
    let log = state
        .backplane
        .read(&RoomName::lobby(), Cursor::Newest, 1)
        .expect("a log");
    assert_eq!(log.entries, []);
    assert_eq!(outbox.why(), Some("the token has expired"));
    drop(session);
    state.backplane.close();
}

#[test]
fn a_fresh_token_on_the_same_connection_goes_on_and_any_other_is_refused() {
    let hubbub = guarded();
    let short = token(&["alice", "--life", "3"]);
    let mut alice = connected(&hubbub, "alice", &short);
    alice.event_of("expiring");
    alice.joins("lobby");
    // The same token, without a fresh one.
    let mut clock = joined(&hubbub, "alice", &short);
    let mut refused = |token: &str| {
        alice.asks(&json!({"type": "renew", "token": token}));
        alice.event_of("error")["code"].clone()
    };
    assert_eq!(refused("a.b.c"), "unauthorized");
    assert_eq!(refused(&token(&["bob"])), "forbidden");
    assert_eq!(refused(&token(&["alice", "--room", "ops"])), "forbidden");
    let fresh = token(&["alice", "--room", "lobby", "--life", "3600"]);
    alice.asks(&json!({"type": "renew", "token": fresh}));
    let renewed = alice.event_of("renewed");
    assert!(
        renewed["expires_in_ms"]
            .as_u64()
            .is_some_and(|left| left > 3_500_000)
    );
    assert_eq!(end_of(&mut clock), Some(4001));
    alice.asks(&json!({"type": "send", "room": "lobby", "text": "still here"}));
    alice.event_of("sent");
    // The rooms are those of the fresh token.
    alice.asks(&json!({"type": "join", "room": "ops"}));
    assert_eq!(alice.event_of("error")["code"], "forbidden");
    let without = Hubbub::alone();
    let mut open = Client::json(without.address(), "alice");
    open.asks(&json!({"type": "renew", "token": fresh}));
    assert_eq!(open.event_of("error")["code"], "bad_request");
}

#[test]
fn a_terminal_client_reads_its_fresh_token_from_the_file() {
    let hubbub = guarded();
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("token-{}", std::process::id()));
    let short = token(&["alice", "--life", "3"]);
    std::fs::write(&path, &short).expect("a file");
    let mut bob = joined(&hubbub, "bob", &token(&["bob"]));
    let mut tail = command()
        .args([
            "tail",
            "--url",
            &hubbub.url(),
            "--count",
            "1",
            "--timeout",
            "20",
        ])
        .args(["--as", "alice", "--token-file"])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("hubbub can be started");
    bob.event_of("joined");
    let mut clock = joined(&hubbub, "alice", &short);
    std::fs::write(&path, token(&["alice", "--life", "3600"]) + "\n").expect("a file");
    assert_eq!(end_of(&mut clock), Some(4001));
    bob.asks(&json!({"type": "send", "room": "lobby", "text": "after the end"}));
    let mut printed = String::new();
    let mut stdout = tail.stdout.take().expect("it is piped");
    stdout.read_to_string(&mut printed).expect("text");
    assert_eq!(printed, "bob: after the end\n");
    assert!(tail.wait().expect("its end").success());
    std::fs::remove_file(path).expect("it is gone");
}

#[test]
fn a_page_that_its_dns_entry_or_its_form_sends_here_is_refused() {
    let hubbub = Hubbub::alone();
    let refuses = |host: &str, fields: &str| {
        let head = format!(
            "POST /api/rooms/lobby/messages?user=eve HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: 2\r\n\r\nhi"
        );
        request(hubbub.address(), &head)
    };
    let (status, why) = refuses("evil.example:8080", "Origin: http://evil.example:8080\r\n");
    assert_eq!(status, 421, "{why}");
    assert!(why.contains("--host"), "{why}");
    let (status, why) = refuses("localhost", "Sec-Fetch-Site: cross-site\r\n");
    assert_eq!(status, 403, "{why}");
    assert_eq!(
        refuses("localhost", "Sec-Fetch-Site: same-origin\r\n").0,
        201
    );
    let upgrade = [("Host", "evil.example"), ("Origin", "http://evil.example")];
    assert!(refused(&hubbub, "/chat/eve", &upgrade).is_some_and(|(status, _)| status == 421));
    let named = Hubbub::with(&["--host", "chat.example"]);
    let post = |host: &str| {
        let head = format!(
            "POST /api/rooms/lobby/messages?user=ann HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\nhi"
        );
        request(named.address(), &head).0
    };
    assert_eq!((post("chat.example"), post("other.example")), (201, 421));
}
