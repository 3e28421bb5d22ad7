//! Operators: who is here, and putting somebody out, on all instances.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;

use hubbub::backplane::{Ban, Banned};
use hubbub::hub::outbox::{Outbox, outbox};
use hubbub::message::{ConnectionId, RoomName};
use hubbub::protocol::{Encoding, Event};
use hubbub::server::grant::Grant;
use hubbub::server::session::{PUT_OUT, Session};
use hubbub::server::state::State;

use serde_json::{Value, json};

use crate::support::client::{Client, get, metric, raw};
use crate::support::cluster::Cluster;
use crate::support::folder::Folder;
use crate::support::house::{self, Reader};
use crate::support::hubbub::{Hubbub, command, misuses, refuses, run};
use crate::support::proxy::{Link, Proxy};
use crate::support::redis::Redis;
use crate::support::{DEADLINE, until};

const SECRET: &str = "an operators' secret of enough bytes";
const TOKENS: &str = "an example of a secret of enough bytes";
const OPERATED: [&str; 2] = ["--admin-secret", SECRET];

fn operated(redis: &Redis) -> Hubbub {
    Hubbub::on_with(redis, &OPERATED)
}

/// The status, the head, and the JSON of the answer.
fn ask(
    hubbub: &Hubbub,
    method: &str,
    path: &str,
    fields: &[&str],
    body: &str,
) -> (u16, String, Value) {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "{method} /api/admin/{path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    );
    let answer = String::from_utf8(raw(hubbub.address(), request.as_bytes())).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let value = serde_json::from_str(body).unwrap_or(Value::Null);
    (status.expect("a status"), head.to_owned(), value)
}

/// The same with the secret.
fn operate(hubbub: &Hubbub, method: &str, path: &str, body: &str) -> (u16, Value) {
    let bearer = format!("Authorization: Bearer {SECRET}");
    let (status, _, value) = ask(hubbub, method, path, &[&bearer], body);
    (status, value)
}

fn ban(hubbub: &Hubbub, user: &str, seconds: u64) {
    let body = json!({"seconds": seconds, "reason": "spam"}).to_string();
    let (status, answer) = operate(hubbub, "PUT", &format!("bans/{user}"), &body);
    assert_eq!(status, 200, "{answer}");
}

/// Whether a user may come in; the sentence if not.
fn refused(hubbub: &Hubbub, user: &str) -> Option<String> {
    match Client::connect(hubbub.address(), &format!("/chat/{user}"), None) {
        Ok(_) => None,
        Err((403, why)) => Some(why),
        Err(other) => panic!("{other:?}"),
    }
}

fn is_refused(hubbub: &Hubbub, user: &str) -> String {
    until("the user is refused", || refused(hubbub, user))
}

fn is_let_in(hubbub: &Hubbub, user: &str) {
    until("the user is let in", || {
        refused(hubbub, user).is_none().then_some(())
    });
}

#[test]
fn an_operator_sees_who_is_on_an_instance() {
    let hubbub = Hubbub::with(&OPERATED);
    let mut alice = Client::json(hubbub.address(), "alice");
    alice.joins("ops");
    alice.joins("lobby");
    let _bob = hubbub.join("bob");
    let (_, connections) = operate(&hubbub, "GET", "connections", "");
    let first = &connections["connections"][0];
    assert_eq!(first["user"], "alice");
    assert_eq!(first["address"], "127.0.0.1");
    assert!(
        first["since"]
            .as_u64()
            .is_some_and(|at| at > 1_700_000_000_000)
    );
    let mut rooms = first["rooms"].as_array().expect("rooms").clone();
    rooms.sort_by_key(ToString::to_string);
    assert_eq!(rooms, ["lobby", "ops"]);
    let (_, rooms) = operate(&hubbub, "GET", "rooms", "");
    assert_eq!(
        rooms["rooms"],
        json!([{"room": "lobby", "users": ["alice", "bob"]}, {"room": "ops", "users": ["alice"]}])
    );
    assert!(rooms["instance"].is_string());
    let mut second = Client::json(hubbub.address(), "alice");
    // The welcome is sent before the connection is listed.
    second.joins("lobby");
    let (_, users) = operate(&hubbub, "GET", "users", "");
    assert_eq!(
        users["users"],
        json!([{"user": "alice", "connections": 2}, {"user": "bob", "connections": 1}])
    );
}

#[test]
fn without_the_secret_nobody_operates_and_the_secret_is_in_no_log() {
    let hubbub = Hubbub::with(&[&OPERATED[..], &["--token-secret", TOKENS]].concat());
    let token = run(&["token", "root", "--secret", TOKENS]).stdout;
    let token = String::from_utf8(token).expect("text");
    let wrong = "a wrong secret of at least 32 bytes !";
    let cut = &SECRET[..SECRET.len() - 1];
    for given in [
        "",
        "x",
        wrong,
        cut,
        &format!("{SECRET}x"),
        TOKENS,
        token.trim(),
    ] {
        let field = format!("Authorization: Bearer {given}");
        let (status, head, body) = ask(&hubbub, "GET", "users", &[&field], "");
        assert_eq!(
            (status, &body["code"]),
            (401, &json!("unauthorized")),
            "{given}"
        );
        assert!(head.contains("WWW-Authenticate: Bearer"), "{head}");
    }
    let (status, ..) = ask(&hubbub, "PUT", "bans/alice", &[], "{\"seconds\":60}");
    assert_eq!(status, 401);
    let (status, ..) = ask(&hubbub, "GET", "nothing", &[], "");
    assert_eq!(status, 401, "no path is told");
    // In the query it would be in logs.
    let (status, ..) = ask(
        &hubbub,
        "GET",
        &format!("users?token={}", SECRET.replace(' ', "+")),
        &[],
        "",
    );
    assert_eq!(status, 401);
    until("wrong secrets are paced", || {
        let (status, head, _) = ask(&hubbub, "GET", "users", &[], "");
        (status == 429 && head.contains("Retry-After: 1")).then_some(())
    });
    assert_eq!(
        operate(&hubbub, "GET", "users", "").0,
        200,
        "the right one is not"
    );
    assert!(metric(&hubbub, "hubbub_admin_unauthorized_total") >= 11);
    let log = hubbub.log();
    assert!(log.contains("no operator, from 127.0.0.1"), "{log}");
    for secret in [SECRET, cut, wrong, TOKENS] {
        assert!(!log.contains(secret), "{log}");
    }
    let without = Hubbub::alone();
    assert_eq!(operate(&without, "GET", "users", "").0, 404);
    let (status, value) = operate(&without, "PUT", "bans/alice", "{\"seconds\":60}");
    assert_eq!((status, &value["code"]), (404, &json!("not_found")));
    misuses(&["--admin-secret", "short"], &["32 bytes"]);
    let same = ["--admin-secret", SECRET, "--token-secret", SECRET];
    misuses(&same, &["must differ"]);
}

#[test]
fn a_page_of_another_site_cannot_operate() {
    let hubbub = Hubbub::with(&OPERATED);
    let bearer = format!("Authorization: Bearer {SECRET}");
    let act = |field: &str| {
        let fields = [&*bearer, field];
        ask(&hubbub, "POST", "users/bob/disconnect", &fields, "").0
    };
    assert_eq!(act("Origin: https://evil.example"), 403);
    assert_eq!(act("Sec-Fetch-Site: cross-site"), 403);
    assert_eq!(act("Accept: */*"), 202);
    // No page is told that it may send the secret.
    let fields = [
        "Origin: http://localhost",
        "Access-Control-Request-Method: PUT",
    ];
    let (status, head, _) = ask(&hubbub, "OPTIONS", "bans/bob", &fields, "");
    assert!(status >= 400 && !head.contains("Access-Control"), "{head}");
}

#[test]
fn a_disconnected_user_leaves_every_instance_and_may_come_back() {
    let redis = Redis::start();
    let (here, there) = (operated(&redis), operated(&redis));
    let mut carol = there.join("carol");
    let mut lines = there.join("bob");
    let mut json = Client::json(here.address(), "bob");
    json.joins("attic");
    let (status, _) = operate(&here, "POST", "users/bob/disconnect", "");
    assert_eq!(status, 202);
    assert_eq!(
        lines
            .hears_until("an operator disconnected this user")
            .len(),
        1
    );
    assert_eq!(lines.is_closed(), Some(4002));
    let told = json.event_of("closing");
    assert_eq!(told["reason"], "an operator disconnected this user");
    assert_eq!(json.is_closed(), Some(4002));
    assert_eq!(carol.hears(), "* bob joined");
    assert_eq!(carol.hears(), "* bob left");
    is_let_in(&there, "bob");
    until("the act is in the log", || {
        let log = here.log();
        let line = log
            .lines()
            .find(|line| line.contains("disconnects \"bob\""))?;
        line.contains("an operator at 127.0.0.1").then_some(())
    });
}

#[test]
fn a_banned_user_is_put_out_and_refused_on_every_instance_until_the_ban_is_lifted() {
    let redis = Redis::that_remembers();
    let (here, mut there) = (operated(&redis), Hubbub::on(&redis));
    let mut bob = there.join("bob");
    ban(&here, "bob", 7200);
    let last = bob.hears();
    assert_eq!(
        last,
        "* an operator has banned this user for 2 more hours: spam"
    );
    assert_eq!(bob.is_closed(), Some(4002));
    for hubbub in [&here, &there] {
        let why = is_refused(hubbub, "bob");
        assert_eq!(
            why,
            "an operator has banned this user for 2 more hours: spam"
        );
        let post = "POST /api/rooms/lobby/messages?user=bob HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi";
        let answer = String::from_utf8(raw(hubbub.address(), post.as_bytes())).expect("text");
        assert!(
            answer.starts_with("HTTP/1.1 403") && answer.contains("spam"),
            "{answer}"
        );
        assert_eq!(refused(hubbub, "bobby"), None, "another user");
    }
    let (_, bans) = operate(&here, "GET", "bans", "");
    assert_eq!(bans["bans"][0]["user"], "bob");
    assert_eq!(bans["bans"][0]["reason"], "spam");
    // An instance that starts later knows it, and one that was killed.
    there.kill();
    let there = operated(&redis);
    assert!(
        refused(&there, "bob").is_some(),
        "from the first connection on"
    );
    let (status, _) = operate(&there, "DELETE", "bans/bob", "");
    assert_eq!(status, 204);
    is_let_in(&here, "bob");
    is_let_in(&there, "bob");
    let (status, answer) = operate(&there, "DELETE", "bans/bob", "");
    assert_eq!(
        (status, &answer["message"]),
        (404, &json!("bob is not banned"))
    );
    let log = here.log();
    assert!(log.contains("bans \"bob\" for 7200 s: \"spam\""), "{log}");
    assert!(there.log().contains("unbans \"bob\""));
}

#[test]
fn a_ban_holds_while_redis_is_away_and_one_that_an_instance_missed_holds_after() {
    let mut redis = Redis::that_remembers();
    let (here, there) = (operated(&redis), operated(&redis));
    ban(&here, "bob", 3600);
    is_refused(&there, "bob");
    redis.kill();
    assert!(refused(&there, "bob").is_some(), "the last known bans hold");
    let (status, _) = operate(&here, "PUT", "bans/eve", "{\"seconds\":60}");
    assert_eq!(status, 503);
    let (status, _) = operate(&here, "POST", "users/eve/disconnect", "");
    assert_eq!(status, 503);
    redis.start_again();
    assert!(refused(&there, "bob").is_some());
    until("a ban can be set again", || {
        let (status, _) = operate(&here, "PUT", "bans/eve", "{\"seconds\":60}");
        (status == 200).then_some(())
    });
    is_refused(&there, "eve");
    // As if the order had been lost with the subscription: the bans are read anew.
    let mallory = format!("{} missed", u64::MAX);
    let _: i64 = redis.run(&["HSET", "hubbub:bans", "user mallory", &mallory]);
    let mut mallory = there.join("mallory");
    let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_eq!(mallory.is_closed(), Some(4002));
}

#[test]
fn a_ban_ends_by_itself() {
    let hubbub = Hubbub::with(&OPERATED);
    ban(&hubbub, "bob", 2);
    is_refused(&hubbub, "bob");
    is_let_in(&hubbub, "bob");
    let (_, bans) = operate(&hubbub, "GET", "bans", "");
    assert_eq!(bans["bans"], json!([]));
}

#[test]
fn a_ban_is_kept_in_the_folder() {
    let folder = Folder::new();
    let arguments = [&OPERATED[..], &["--data", folder.text()]].concat();
    let mut hubbub = Hubbub::with(&arguments);
    let mut bob = hubbub.join("bob");
    ban(&hubbub, "bob", 3600);
    ban(&hubbub, "eve", 3600);
    assert_eq!(bob.is_closed(), Some(4002));
    assert_eq!(operate(&hubbub, "DELETE", "bans/eve", "").0, 204);
    hubbub.kill();
    let hubbub = Hubbub::with(&arguments);
    assert!(refused(&hubbub, "bob").is_some_and(|why| why.ends_with(": spam")));
    assert_eq!(refused(&hubbub, "eve"), None);
}

#[test]
fn a_ban_that_makes_no_sense_is_refused() {
    let hubbub = Hubbub::with(&OPERATED);
    let long = json!({"seconds": 60, "reason": "x".repeat(201)}).to_string();
    let huge = "x".repeat(5000);
    for (path, body, status) in [
        ("bans/bob", "", 400),
        ("bans/bob", "{}", 400),
        ("bans/bob", "{\"seconds\":0}", 400),
        ("bans/bob", "{\"seconds\":-1}", 400),
        ("bans/bob", "{\"seconds\":1e30}", 400),
        ("bans/bob", "{\"seconds\":18446744073709551615}", 400),
        ("bans/bob", "{\"seconds\":60,\"reason\":\"a\\nb\"}", 400),
        ("bans/bob", &long, 400),
        ("bans/bob", &huge, 413),
        ("bans/a%2Fb", "{\"seconds\":60}", 400),
        ("bans/", "{\"seconds\":60}", 400),
        ("bans/a/b", "{\"seconds\":60}", 404),
        ("bans/%ff", "{\"seconds\":60}", 404),
    ] {
        let (found, answer) = operate(&hubbub, "PUT", path, body);
        assert_eq!(found, status, "{path} {body}: {answer}");
    }
    assert_eq!(operate(&hubbub, "POST", "bans/bob", "").0, 405);
    assert_eq!(operate(&hubbub, "GET", "bans", "").1["bans"], json!([]));
}

#[test]
fn a_terminal_client_that_is_put_out_ends_with_the_reason() {
    let hubbub = Hubbub::with(&OPERATED);
    let mut watcher = hubbub.join("carol");
    let mut tail = command()
        .args([
            "tail",
            "--as",
            "bob",
            "--timeout",
            "20",
            "--url",
            &hubbub.url(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("hubbub can be started");
    assert_eq!(watcher.hears(), "* bob joined");
    assert_eq!(operate(&hubbub, "POST", "users/bob/disconnect", "").0, 202);
    let mut said = String::new();
    let mut stderr = tail.stderr.take().expect("it is piped");
    stderr.read_to_string(&mut said).expect("text");
    assert_eq!(tail.wait().expect("its end").code(), Some(1));
    assert_eq!(
        said.lines().last(),
        Some("hubbub: an operator disconnected this user")
    );
    assert_eq!(watcher.hears(), "* bob left");
}

/// What `hubbub admin` prints, or its error.
fn admin(hubbub: &Hubbub, arguments: &[&str]) -> Result<String, String> {
    let url = hubbub.url();
    let output = command()
        .env("HUBBUB_ADMIN_SECRET", SECRET)
        .args([&["admin", "--url", &url], arguments].concat())
        .output()
        .expect("hubbub can be started");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    match output.status.code() {
        Some(0) => Ok(text(output.stdout)),
        Some(1 | 2) => Err(text(output.stderr)),
        other => panic!("{other:?}: {}", text(output.stderr)),
    }
}

#[test]
fn an_operator_does_all_of_it_from_a_shell() {
    let hubbub = Hubbub::with(&OPERATED);
    let mut bob = hubbub.join("b%20o'b");
    let _alice = hubbub.join("alice");
    let lines = |arguments: &[&str]| admin(&hubbub, arguments).expect("it is done");
    assert_eq!(lines(&["rooms"]), "lobby\talice, b o'b\n");
    assert_eq!(lines(&["users"]), "alice\t1\nb o'b\t1\n");
    let connections = lines(&["connections"]);
    assert!(
        connections.contains("\tb o'b\t127.0.0.1\t"),
        "{connections}"
    );
    assert!(connections.lines().all(|line| line.ends_with("\tlobby")));
    let json: Value = serde_json::from_str(&lines(&["users", "--json"])).expect("JSON");
    assert_eq!(json["users"][1]["user"], "b o'b");
    assert_eq!(
        lines(&["ban", "b o'b", "--for", "1h", "--reason", "too loud"]),
        ""
    );
    assert_eq!(bob.is_closed(), Some(4002));
    let bans = lines(&["bans"]);
    let fields: Vec<_> = bans.trim_end().split('\t').collect();
    assert_eq!((fields[0], fields[2]), ("b o'b", "too loud"));
    assert!(
        fields[1]
            .parse::<u64>()
            .is_ok_and(|left| left > 3500 && left <= 3600)
    );
    assert_eq!(lines(&["unban", "b o'b"]), "");
    assert_eq!(lines(&["bans"]), "");
    assert_eq!(lines(&["disconnect", "nobody"]), "");
    let fails = |arguments: &[&str], word: &str| {
        let why = admin(&hubbub, arguments).expect_err("it fails");
        assert!(why.contains(word) && why.lines().count() == 1, "{why}");
        assert!(!why.contains(SECRET), "{why}");
    };
    fails(&["unban", "bob"], "bob is not banned");
    fails(&["ban", "bob"], "--for");
    fails(&["ban", "bob", "--for", "1x"], "30m");
    fails(&["ban", "bob", "--for", "99999d"], "seconds");
    fails(&["ban", "* bob", "--for", "1h"], "bob");
    fails(&["users", "--secret", "short"], "32 bytes");
    let wrong = "a wrong secret of at least 32 bytes !";
    fails(&["users", "--secret", wrong], "secret is needed");
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path()).expect("a folder");
    let file = folder.path().join("secret");
    let file = file.to_str().expect("text");
    fails(&["users", "--secret-file", file], "cannot read");
    std::fs::write(file, format!("{SECRET}\n")).expect("a file");
    let from_file = ["users", "--secret-file", file, "--secret", wrong];
    assert_eq!(
        lines(&from_file),
        "alice\t1\n",
        "a file counts before the rest"
    );
    let without = Hubbub::alone();
    let why = admin(&without, &["users"]).expect_err("it has none");
    assert!(why.contains("--admin-secret"), "{why}");
}

#[test]
fn a_closed_room_is_left_by_all_and_entered_by_nobody_until_it_is_opened() {
    let redis = Redis::that_remembers();
    let (here, there) = (operated(&redis), operated(&redis));
    let mut lines = there.join_room("bob", "den");
    let mut json = Client::json(here.address(), "alice");
    json.joins("den");
    json.joins("lobby");
    assert_eq!(lines.hears(), "* alice joined");
    let body = json!({"seconds": 3600, "reason": "a fire"}).to_string();
    let (status, answer) = operate(&here, "PUT", "closed/den", &body);
    assert_eq!((status, &answer["room"]), (200, &json!("den")), "{answer}");
    let why = "an operator has closed this room for 60 more minutes: a fire";
    let told = json.event_of("parted");
    assert_eq!(
        (&told["room"], &told["reason"]),
        (&json!("den"), &json!(why))
    );
    // Those of the other instance may leave first.
    let last = lines.hears_until(why);
    assert_eq!(last.last().map(String::as_str), Some(&*format!("* {why}")));
    assert_eq!(lines.is_closed(), Some(4002));
    json.asks(&json!({"type": "send", "room": "den", "text": "late", "ref": "1"}));
    let refused = json.event_of("error");
    assert_eq!(
        (&refused["code"], &refused["ref"]),
        (&json!("not_joined"), &json!("1"))
    );
    json.asks(&json!({"type": "join", "room": "den"}));
    let refused = json.event_of("error");
    assert_eq!(
        (&refused["code"], &refused["message"]),
        (&json!("forbidden"), &json!(why))
    );
    json.asks(&json!({"type": "send", "room": "lobby", "text": "still here"}));
    json.event_of("sent");
    // Nobody is left there, as both instances see it.
    let (_, rooms) = operate(&here, "GET", "rooms", "");
    assert_eq!(
        rooms["rooms"],
        json!([{"room": "lobby", "users": ["alice"]}])
    );
    for hubbub in [&here, &there] {
        until("the room is refused", || {
            let entered = Client::connect(hubbub.address(), "/chat/carol?room=den", None);
            entered
                .is_err_and(|refused| refused == (403, why.to_owned()))
                .then_some(())
        });
        let head = "GET /api/rooms/den/messages HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let answer = String::from_utf8(raw(hubbub.address(), head.as_bytes())).expect("text");
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
    assert_eq!(operate(&there, "GET", "bans", "").1["bans"], json!([]));
    let (_, closed) = operate(&there, "GET", "closed", "");
    assert_eq!(closed["closed"][0]["room"], "den");
    assert_eq!(operate(&there, "DELETE", "closed/den", "").0, 204);
    until("alice is let in again", || {
        json.asks(&json!({"type": "join", "room": "den"}));
        (json.event()["type"] == "room").then_some(())
    });
    let (status, answer) = operate(&there, "DELETE", "closed/den", "");
    assert_eq!(
        (status, &answer["message"]),
        (404, &json!("den is not closed"))
    );
    assert!(here.log().contains("closes \"den\" for 3600 s: \"a fire\""));
    assert!(there.log().contains("opens \"den\""));
}

#[test]
fn a_terminal_client_whose_room_is_closed_ends_with_the_reason() {
    let hubbub = Hubbub::with(&OPERATED);
    let mut watcher = hubbub.join("carol");
    let url = hubbub.url();
    let mut started = ["tail", "join"].map(|kind| {
        let mut client = command();
        match kind {
            "tail" => client
                .args(["tail", "--as", "bob", "--timeout", "20"])
                .stdin(Stdio::null()),
            _ => client.args(["join", "dave"]).stdin(Stdio::piped()),
        };
        let client = client.args(["--url", &url]).stdout(Stdio::null());
        let started = client.stderr(Stdio::piped()).spawn();
        assert!(watcher.hears().ends_with(" joined"));
        started.expect("hubbub can be started")
    });
    let closed = admin(&hubbub, &["close", "lobby", "--for", "90s"]);
    assert_eq!(closed, Ok(String::new()));
    for client in &mut started {
        let mut said = String::new();
        let mut stderr = client.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut said).expect("text");
        assert_eq!(client.wait().expect("its end").code(), Some(1), "{said}");
        let last = said.lines().last().expect("a line");
        assert!(
            last.starts_with("hubbub: an operator has closed this room for "),
            "{said}"
        );
    }
    assert_eq!(watcher.is_closed(), Some(4002));
    let closed = admin(&hubbub, &["closed"]).expect("a list");
    assert!(closed.starts_with("lobby\t"), "{closed}");
    assert_eq!(admin(&hubbub, &["open", "lobby"]), Ok(String::new()));
    assert_eq!(admin(&hubbub, &["closed"]), Ok(String::new()));
}

#[test]
fn a_ban_reaches_every_instance_on_several_servers_and_on_a_cluster() {
    let servers: [Redis; 2] = std::array::from_fn(|_| Redis::start());
    let cluster = Cluster::of(3);
    let several = servers.each_ref().map(Redis::url).join(" ");
    for urls in [several, cluster.url()] {
        let start = || Hubbub::with_environment(&[("HUBBUB_REDIS", &urls)], &OPERATED);
        let (here, there) = (start(), start());
        let mut rooms = ["a", "b", "c"].map(|room| there.join_room("bob", room));
        assert_eq!(operate(&here, "POST", "users/bob/disconnect", "").0, 202);
        for bob in &mut rooms {
            assert_eq!(bob.is_closed(), Some(4002), "{urls}");
        }
        ban(&here, "bob", 3600);
        is_refused(&there, "bob");
        assert!(refused(&start(), "bob").is_some(), "{urls}");
        assert_eq!(operate(&there, "DELETE", "bans/bob", "").0, 204);
        is_let_in(&here, "bob");
    }
}

fn session_of_bob(state: &Arc<State>, outbox: &Arc<Outbox>) -> Session {
    Session::begin(
        Arc::clone(state),
        ConnectionId(1),
        "bob".parse().expect("a name"),
        RoomName::lobby(),
        Arc::new(Grant::all()),
        Arc::clone(outbox),
    )
}

#[test]
fn a_chat_in_lines_ends_if_its_room_was_closed_since_the_request() {
    let state = house::state(house::local(10));
    let ban = Ban {
        until: u64::MAX,
        reason: String::new(),
    };
    let closed = Banned::Room(RoomName::lobby());
    state.bans.lock().expect("a lock").insert(closed, ban);
    let (outbox, _queue) = outbox(Encoding::Text, 1 << 20, None);
    let mut session = session_of_bob(&state, &outbox);
    session.join_first_room(None, None);
    assert_eq!(outbox.why(), Some(PUT_OUT));
    assert!(!state.hub.hosts(&RoomName::lobby()));
    drop(session);
    state.backplane.close();
}

/// A page of history waits until its reader has read what came before. Meanwhile one of its messages is deleted.
#[test]
fn a_user_that_is_shown_a_message_behind_its_deletion_is_told_of_it() {
    let state = house::state(house::local(10));
    let (outbox, queue) = outbox(Encoding::Json, 1000, None);
    let mut reader = Reader::of(queue);
    let mut session = session_of_bob(&state, &outbox);
    session.handle(r#"{"type":"join","room":"lobby"}"#);
    session.handle(r#"{"type":"send","room":"lobby","text":"a secret"}"#);
    let id = loop {
        if let Event::Message { message, .. } = reader.hears() {
            break message.id;
        }
    };
    let deletion = Banned::Message(RoomName::lobby(), id);
    let is_shown = |event: &Event| match event {
        Event::History { messages, .. } => Some(messages[0].text == "a secret"),
        _ => None,
    };
    let is_shown_behind = (0..24).any(|attempt| {
        outbox.send(&Event::Parted {
            room: RoomName::lobby(),
            reason: Some("more than half of the budget".repeat(20)),
        });
        thread::scope(|scope| {
            scope.spawn(|| session.handle(r#"{"type":"history","room":"lobby"}"#));
            // Until the page waits.
            (0..1 << attempt).for_each(|_| thread::yield_now());
            let ban = Ban {
                until: u64::MAX,
                reason: String::new(),
            };
            let mut bans = state.bans.lock().expect("a lock");
            bans.insert(deletion.clone(), ban);
            drop(bans);
            while !matches!(reader.hears(), Event::Parted { .. }) {}
        });
        let is_shown = std::iter::from_fn(|| reader.has()).find_map(|event| is_shown(&event));
        is_shown.expect("a page") || {
            state.bans.lock().expect("a lock").remove(&deletion);
            false
        }
    });
    assert!(is_shown_behind, "the page never waited");
    let told = reader.has();
    assert!(
        matches!(&told, Some(Event::Deleted { ids, .. }) if ids[..] == [id]),
        "{told:?}"
    );
    drop(session);
    state.backplane.close();
}

#[test]
fn a_post_that_began_before_a_ban_is_refused_after_it() {
    let redis = Redis::start();
    let hubbub = operated(&redis);
    let mut socket = TcpStream::connect(hubbub.address()).expect("a connection");
    socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    let head = "POST /api/rooms/lobby/messages?user=eve HTTP/1.1\r\nHost: localhost\r\n\
                Connection: close\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    socket.write_all(head.as_bytes()).expect("it is taken");
    let mut goes_on = [0; 25];
    socket.read_exact(&mut goes_on).expect("it may go on");
    assert_eq!(&goes_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    ban(&hubbub, "eve", 60);
    is_refused(&hubbub, "eve");
    socket.write_all(b"hello").expect("it is taken");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[test]
fn a_server_that_cannot_read_the_bans_does_not_start() {
    let redis = Redis::start();
    let _: String = redis.run(&["SET", "hubbub:bans", "something else"]);
    refuses(
        &["--redis", &redis.url(), "--listen", "127.0.0.1:0"],
        &["cannot read the operators' bans"],
    );
}

#[test]
fn a_deleted_message_is_shown_to_nobody_and_everybody_is_told() {
    let (redis, folder) = (Redis::start(), Folder::new());
    let on_redis = [operated(&redis), operated(&redis)];
    let alone = Hubbub::with(&[&OPERATED[..], &["--data", folder.text()]].concat());
    for (here, there) in [(&on_redis[0], &on_redis[1]), (&alone, &alone)] {
        let mut alice = Client::json(here.address(), "alice");
        let mut bob = Client::json(there.address(), "bob");
        let mut lines = there.join("carol");
        alice.joins("lobby");
        bob.joins("lobby");
        let ids = ["one", "a secret", "three"].map(|text| {
            alice.asks(&json!({"type": "send", "room": "lobby", "text": text}));
            let id = alice.event_of("sent")["id"].clone();
            lines.hears_until(&format!("alice: {text}"));
            id
        });
        let path = |id: &Value| format!("rooms/lobby/messages/{}", id.as_str().expect("an id"));
        assert_eq!(operate(here, "DELETE", &path(&ids[1]), "").0, 204);
        for client in [&mut alice, &mut bob] {
            let told = client.event_of("deleted");
            assert_eq!(
                told,
                json!({"type": "deleted", "room": "lobby", "ids": [ids[1]]})
            );
        }
        assert_eq!(lines.hears(), "* an operator deleted a message");
        // Nobody reads it any more, and nothing is missing.
        let mut dave = Client::json(there.address(), "dave");
        dave.asks(&json!({"type": "join", "room": "lobby", "since": ids[0]}));
        let room = dave.event_of("room");
        assert_eq!(room["recovered"], true, "{room}");
        let texts = |room: &Value| {
            let messages = room["messages"].as_array().expect("messages");
            let texts = messages
                .iter()
                .map(|one| one["text"].as_str().expect("text").to_owned());
            texts.collect::<Vec<_>>()
        };
        assert_eq!(texts(&room), ["(deleted by an operator)", "three"]);
        // Of what it has from before nothing is deleted, so it is told nothing.
        dave.asks(&json!({"type": "history", "room": "lobby"}));
        let page = dave.event();
        assert_eq!(page["type"], "history", "{page}");
        assert_eq!(texts(&page), ["one", "(deleted by an operator)", "three"]);
        // A client that has it from before is told.
        let mut erin = Client::json(there.address(), "erin");
        erin.asks(&json!({"type": "join", "room": "lobby", "since": ids[2]}));
        assert_eq!(erin.event_of("room")["messages"], json!([]));
        let told = erin.event_of("deleted");
        assert_eq!(
            (&told["ids"], &told["again"]),
            (&json!([ids[1]]), &json!(true))
        );
        let (_, page) = get(there.address(), "/api/rooms/lobby/messages");
        assert!(!page.contains("a secret"), "{page}");
        // The room goes on.
        alice.asks(&json!({"type": "send", "room": "lobby", "text": "four"}));
        let four = alice.event_of("sent")["id"].clone();
        assert_eq!(
            lines.hears_until("alice: four").last().expect("it"),
            "alice: four"
        );
        // All of it.
        assert_eq!(operate(there, "DELETE", "rooms/lobby/messages", "").0, 204);
        for client in [&mut alice, &mut bob] {
            assert_eq!(client.event_of("deleted")["up_to"], four);
        }
        assert_eq!(
            lines.hears_until("before").last().expect("it"),
            "* an operator deleted what was said here before"
        );
        alice.asks(&json!({"type": "send", "room": "lobby", "text": "five"}));
        alice.event_of("sent");
        let (_, page) = get(here.address(), "/api/rooms/lobby/messages");
        assert_eq!(
            page.matches("(deleted by an operator)").count(),
            4,
            "{page}"
        );
        assert!(page.contains("five"), "{page}");
        let missing = operate(here, "DELETE", "rooms/lobby/messages/7-0", "");
        assert_eq!(missing.0, 404, "{missing:?}");
        assert_eq!(operate(here, "DELETE", "rooms/lobby/messages/x", "").0, 400);
        assert_eq!(operate(here, "DELETE", "rooms/empty/messages", "").0, 404);
        assert!(!here.log().contains("a secret"));
    }
    // It holds over a restart, and in an export.
    drop(alone);
    let exported = run(&["export", "--data", folder.text()]);
    let exported = String::from_utf8(exported.stdout).expect("text");
    assert!(
        exported.contains("five") && !exported.contains("three"),
        "{exported}"
    );
    let alone = Hubbub::with(&["--data", folder.text()]);
    let (_, page) = get(alone.address(), "/api/rooms/lobby/messages");
    assert!(page.contains("five") && !page.contains("three"), "{page}");
    // From a shell.
    alice_says(&on_redis[0], "in error");
    let (_, page) = get(on_redis[0].address(), "/api/rooms/lobby/messages");
    let page: Value = serde_json::from_str(&page).expect("JSON");
    let last = page["messages"]
        .as_array()
        .and_then(|all| all.last())
        .expect("it");
    let id = last["id"].as_str().expect("an id");
    assert_eq!(
        admin(&on_redis[1], &["delete", "lobby", id]).as_deref(),
        Ok("")
    );
    assert_eq!(admin(&on_redis[1], &["purge", "lobby"]).as_deref(), Ok(""));
    let (_, page) = get(on_redis[1].address(), "/api/rooms/lobby/messages");
    assert!(!page.contains("in error"), "{page}");
}

fn alice_says(hubbub: &Hubbub, text: &str) {
    let said = run(&["say", "--url", &hubbub.url(), "alice", text]);
    assert!(said.status.success());
}

/// Whether the instance reads the log or the deletions first, after the cut.
#[test]
fn an_instance_that_was_cut_off_tells_its_members_what_was_deleted_meanwhile() {
    let redis = Redis::start();
    let proxy = Proxy::before(redis.port());
    let (here, there) = (
        operated(&redis),
        Hubbub::with(&[&OPERATED[..], &["--redis", &proxy.url()]].concat()),
    );
    let mut bob = Client::json(there.address(), "bob");
    bob.joins("lobby");
    proxy.set(Link::Swallowed);
    let mut alice = Client::json(here.address(), "alice");
    alice.joins("lobby");
    for text in ["a secret", "something else"] {
        alice.asks(&json!({"type": "send", "room": "lobby", "text": text}));
        alice.event_of("sent");
    }
    let (_, page) = get(here.address(), "/api/rooms/lobby/messages");
    let page: Value = serde_json::from_str(&page).expect("JSON");
    let id = page["messages"][0]["id"].as_str().expect("an id");
    assert_eq!(
        operate(&here, "DELETE", &format!("rooms/lobby/messages/{id}"), "").0,
        204
    );
    until("the cut is noticed", || {
        (get(there.address(), "/readyz").0 == 503).then_some(())
    });
    proxy.set(Link::Open);
    let (mut texts, mut is_told) = (Vec::new(), false);
    while texts.len() < 2 || !is_told {
        let event = bob.event();
        match event["type"].as_str() {
            Some("message") => texts.push(event["text"].clone()),
            Some("deleted") => is_told = event["ids"] == json!([id]),
            _ => {}
        }
    }
    assert_eq!(texts[1], "something else");
}
