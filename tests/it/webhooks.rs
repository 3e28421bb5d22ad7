//! Webhooks: what is said in a room is posted to another service.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ring::hmac;
use serde_json::json;

use crate::support::client::{Client, metric, raw, request};
use crate::support::folder::Folder;
use crate::support::hubbub::{Hubbub, misuses, run};
use crate::support::receiver::Receiver;
use crate::support::redis::{Redis, free_port};
use crate::support::until;

const SECRET: &str = "an example of a secret of enough bytes";

/// The option for this receiver and the room `ops`.
fn to(receiver: &Receiver) -> String {
    format!("ops={}/hook", receiver.url())
}

fn posting_to(receiver: &Receiver, arguments: &[&str]) -> Hubbub {
    Hubbub::with(&[&["--webhook", &to(receiver)], arguments].concat())
}

/// Says it in the room `ops`; its id.
fn say(hubbub: &Hubbub, text: &str) -> String {
    let length = text.len();
    let request = format!(
        "POST /api/rooms/ops/messages?user=alice HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{text}"
    );
    let answer = String::from_utf8(raw(hubbub.address(), request.as_bytes())).expect("text");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let (_, id) = answer.split_once("\"id\":\"").expect("an id");
    id.split('"').next().expect("an id").to_owned()
}

#[test]
fn what_is_said_is_posted_in_order_as_clients_hear_it_and_signed() {
    let receiver = Receiver::start();
    let webhook = format!("ops={}/services/hidden?key=concealed", receiver.url());
    let options = ["--webhook", &webhook, "--webhook-secret", SECRET];
    let hubbub = Hubbub::with(&options);
    hubbub.join("bob").says("elsewhere");
    let mut listener = Client::json(hubbub.address(), "listener");
    listener.says(r#"{"type":"join","room":"ops"}"#);
    assert_eq!(listener.event()["type"], "room");
    let ids = ["one", "two \u{1f600}", "three"].map(|text| say(&hubbub, text));
    for id in ids {
        let post = receiver.gets();
        assert_eq!(post.target, "/services/hidden?key=concealed");
        assert_eq!(post.field("Content-Type"), Some("application/json"));
        assert_eq!(post.field("Idempotency-Key"), Some(&*format!("ops/{id}")));
        assert_eq!(post.json()["id"], id);
        assert_eq!(post.json(), listener.event());
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let mac = hmac::sign(&key, post.body.as_bytes());
        let hex: String = mac
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let signature = post.field("X-Hubbub-Signature-256");
        assert_eq!(signature, Some(&*format!("sha256={hex}")));
    }
    until("all are counted", || {
        (metric(&hubbub, "hubbub_webhook_posted_total") == 3).then_some(())
    });
    receiver.answers_all("500 Internal Server Error");
    say(&hubbub, "four");
    until("the trouble is logged", || {
        hubbub.log().contains("it answers 500").then_some(())
    });
    let checked = run(&[&["serve", "--check"], &options[..]].concat());
    let checked = String::from_utf8(checked.stdout).expect("text");
    assert!(checked.contains("ops at http://127.0.0.1"), "{checked}");
    for text in [hubbub.log(), checked] {
        for secret in ["hidden", "concealed", SECRET] {
            assert!(!text.replace("(hidden)", "").contains(secret), "{text}");
        }
    }
}

#[test]
fn what_is_not_taken_is_posted_again_and_what_is_refused_is_given_up() {
    let receiver = Receiver::start();
    receiver.answers_next(&[
        "500 Internal Server Error",
        "429 Too Many Requests\r\nRetry-After: 1",
        "200 OK",
        "410 Gone",
        "302 Found\r\nLocation: /elsewhere",
    ]);
    let hubbub = posting_to(&receiver, &[]);
    let id = say(&hubbub, "persistent");
    let posts = [(); 3].map(|()| receiver.gets());
    assert!(
        posts[2].at - posts[1].at >= Duration::from_secs(1),
        "as it was asked"
    );
    for post in &posts {
        assert_eq!(post.text(), "persistent");
        assert_eq!(post.field("Idempotency-Key"), Some(&*format!("ops/{id}")));
        assert_eq!(post.field("X-Hubbub-Signature-256"), None);
    }
    for text in ["refused", "sent elsewhere", "next"] {
        say(&hubbub, text);
        assert_eq!(receiver.reads(), text);
    }
    until("all are counted", || {
        (metric(&hubbub, "hubbub_webhook_posted_total") == 2).then_some(())
    });
    assert_eq!(metric(&hubbub, "hubbub_webhook_failed_total"), 2);
    assert_eq!(metric(&hubbub, "hubbub_webhook_retries_total"), 2);
    let log = hubbub.log();
    assert!(log.contains("it answers 410"), "{log}");
}

#[test]
fn several_webhooks_may_be_named_in_the_environment() {
    let receivers = [Receiver::start(), Receiver::start()];
    let [first, second] = receivers.each_ref().map(Receiver::url);
    let webhooks = format!("ops={first} an%20other={first} ops={second}");
    let hubbub = Hubbub::with_environment(&[("HUBBUB_WEBHOOK", &webhooks)], &[]);
    say(&hubbub, "one");
    assert_eq!(receivers.each_ref().map(Receiver::reads), ["one", "one"]);
    hubbub.join_room("bob", "an%20other").says("two");
    let post = receivers[0].gets();
    assert_eq!(post.json()["room"], "an other");
    let key = post.field("Idempotency-Key").expect("a key");
    assert!(key.starts_with("an%20other/"), "{key}");
}

#[cfg(feature = "tls")]
#[test]
fn by_tls_it_posts_only_to_a_receiver_that_it_trusts() {
    let authority = crate::support::authority::Authority::new("webhook");
    let (certificate, key) = (authority.file("server.pem"), authority.file("server.key"));
    let receiver = Hubbub::with(&["--tls-cert", &certificate, "--tls-key", &key]);
    let webhook = format!("ops=https://{}/hooks/ops?user=x", receiver.address());
    for (trusted, outcome) in [
        (authority.file("ca.pem"), "answers 422"),
        (certificate, "invalid peer"),
    ] {
        let hubbub =
            Hubbub::with_environment(&[("SSL_CERT_FILE", &trusted)], &["--webhook", &webhook]);
        say(&hubbub, "hello");
        until("the outcome is logged", || {
            hubbub.log().contains(outcome).then_some(())
        });
    }
}

#[test]
fn a_receiver_that_is_away_gets_it_once_it_is_back() {
    let port = free_port();
    let webhook = format!("ops=http://127.0.0.1:{port}");
    let hubbub = Hubbub::with(&["--webhook", &webhook]);
    say(&hubbub, "one");
    say(&hubbub, "two");
    until("it is tried again", || {
        (metric(&hubbub, "hubbub_webhook_retries_total") > 0).then_some(())
    });
    let name =
        format!("hubbub_webhook_lag_seconds{{webhook=\"1: ops at http://127.0.0.1:{port}\"}}");
    until("the lag is shown", || {
        (metric(&hubbub, &name) > 0).then_some(())
    });
    let receiver = Receiver::on(port);
    assert_eq!([receiver.reads(), receiver.reads()], ["one", "two"]);
    until("there is none", || {
        (metric(&hubbub, &name) == 0).then_some(())
    });
}

#[test]
fn several_instances_post_a_message_once_and_only_what_is_said_after_the_start() {
    let redis = Redis::start();
    let receiver = Receiver::start();
    say(&Hubbub::on(&redis), "before");
    let webhook = to(&receiver);
    let start = || Hubbub::on_with(&redis, &["--webhook", &webhook]);
    let instances = [start(), start()];
    for number in 0..20 {
        say(&instances[number % 2], &number.to_string());
    }
    for number in 0..20 {
        assert_eq!(receiver.reads(), number.to_string());
    }
}

#[test]
fn when_the_instance_that_posts_ends_or_is_killed_another_goes_on_without_a_loss() {
    let redis = Redis::start();
    let receiver = Receiver::start();
    let webhook = to(&receiver);
    let start = || Hubbub::on_with(&redis, &["--webhook", &webhook]);
    let mut first = start();
    let mut second = start();
    let one = say(&second, "one");
    assert_eq!(receiver.reads(), "one");
    let [lease] = &redis.run::<Vec<String>>(&["KEYS", "hubbub:{ops}:webhook:*"])[..] else {
        panic!("there is one webhook");
    };
    let field = |name| redis.run::<String>(&["HGET", lease, name]);
    let is_noted = |id: &str| until("it is noted", || (field("last") == id).then_some(()));
    // A message whose answer did not come before the end is posted once more.
    is_noted(&one);
    first.signal(Signal::SIGTERM);
    assert!(first.ends().success());
    let two = say(&second, "two");
    assert_eq!(receiver.reads(), "two", "the lease was given up");
    is_noted(&two);
    let owner = field("owner");
    let third = start();
    second.kill();
    say(&third, "three");
    // As after half a minute.
    let _: i32 = redis.run(&["HSET", lease, "until", "0"]);
    assert_eq!(receiver.reads(), "three");
    assert_ne!(field("owner"), owner);
}

#[test]
fn a_webhook_whose_lease_redis_refuses_is_named_in_the_log_and_goes_on_after_it() {
    let redis = Redis::start();
    let receiver = Receiver::start();
    let hubbub = Hubbub::on_with(&redis, &["--webhook", &to(&receiver)]);
    say(&hubbub, "one");
    assert_eq!(receiver.reads(), "one");
    let [lease] = &redis.run::<Vec<String>>(&["KEYS", "hubbub:{ops}:webhook:*"])[..] else {
        panic!("there is one webhook");
    };
    let _: () = redis.run(&["SET", lease, "something else"]);
    say(&hubbub, "two");
    let told = || hubbub.log().matches("cannot post to ops at").count();
    until("the trouble is logged", || (told() > 0).then_some(()));
    let _: i32 = redis.run(&["DEL", lease]);
    assert_eq!(receiver.reads(), "two");
    until("its end is logged", || {
        hubbub.log().contains("posts to ops at").then_some(())
    });
    assert_eq!(told(), 1, "once");
}

#[test]
fn a_receiver_that_does_not_answer_holds_no_teardown_up() {
    let receiver = Receiver::start();
    receiver.answers_all("");
    let mut hubbub = posting_to(&receiver, &[]);
    say(&hubbub, "hello");
    receiver.gets();
    let begun = Instant::now();
    hubbub.signal(Signal::SIGTERM);
    assert!(hubbub.ends().success());
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn what_the_log_forgot_is_told_as_a_gap() {
    let receiver = Receiver::start();
    receiver.answers_all("503 Service Unavailable");
    let hubbub = posting_to(&receiver, &["--history-length", "2"]);
    let ids: Vec<_> = (0..5).map(|n| say(&hubbub, &n.to_string())).collect();
    let gap = json!({"type": "gap", "room": "ops", "after": null, "before": ids[3]});
    until("the gap", || (receiver.gets().json() == gap).then_some(()));
    receiver.answers_next(&["200 OK", "500 Internal Server Error"]);
    receiver.answers_all("200 OK");
    let again = receiver.gets();
    assert_eq!(again.json(), gap);
    let key = format!("ops/gap-{}", ids[3]);
    assert_eq!(again.field("Idempotency-Key"), Some(&*key));
    let texts = [(); 3].map(|()| receiver.reads());
    assert_eq!(texts, ["3", "3", "4"], "it is told once");
    assert_eq!(metric(&hubbub, "hubbub_webhook_gaps_total"), 1);
}

#[test]
fn a_server_with_a_folder_goes_on_where_it_was() {
    let receiver = Receiver::start();
    let folder = Folder::new();
    let arguments = ["--data", folder.text()];
    let mut hubbub = posting_to(&receiver, &arguments);
    say(&hubbub, "one");
    assert_eq!(receiver.reads(), "one");
    hubbub.signal(Signal::SIGTERM);
    assert!(hubbub.ends().success());
    let mut hubbub = posting_to(&receiver, &arguments);
    receiver.answers_all("500 Internal Server Error");
    say(&hubbub, "two");
    assert_eq!(receiver.reads(), "two", "one was posted before");
    hubbub.kill();
    receiver.answers_all("200 OK");
    let _hubbub = posting_to(&receiver, &arguments);
    assert_eq!(receiver.reads(), "two", "again");
}

#[test]
fn two_rooms_that_post_to_each_other_come_to_an_end() {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let hook = format!("ops=http://{listen}/hooks/ops?user=hook");
    let api = format!("ops=http://{listen}/api/rooms/ops/messages?user=api");
    let hubbub = Hubbub::with(&["--listen", &listen, "--webhook", &hook, "--webhook", &api]);
    say(&hubbub, "hello");
    until("both are refused", || {
        (metric(&hubbub, "hubbub_webhook_failed_total") == 2).then_some(())
    });
    let target = "GET /api/rooms/ops/messages HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (_, past) = request(hubbub.address(), target);
    assert_eq!(past.matches("hello").count(), 1, "{past}");
}

#[test]
fn what_an_operator_deleted_is_not_posted() {
    let receiver = Receiver::start();
    receiver.answers_all("500 Internal Server Error");
    let hubbub = posting_to(&receiver, &["--admin-secret", SECRET]);
    let id = say(&hubbub, "rude");
    assert_eq!(receiver.reads(), "rude");
    let deletion = format!(
        "DELETE /api/admin/rooms/ops/messages/{id} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\r\n\r\n"
    );
    let (status, _) = request(hubbub.address(), &deletion);
    assert!(status < 300, "{status}");
    until("it is concealed", || {
        (receiver.reads() == "(deleted by an operator)").then_some(())
    });
}

#[test]
fn a_webhook_that_cannot_be_used_ends_the_start() {
    let good = "ops=http://127.0.0.1:1/x";
    misuses(&["--webhook", "ops"], &["--webhook", "ops=https://"]);
    misuses(&["--webhook", good, "--webhook", good], &["given twice"]);
    misuses(&["--webhook-secret", SECRET], &["--webhook"]);
    let output = run(&["--webhook", "ops=http://user:concealed@host/"]);
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(!stderr.contains("concealed"), "{stderr}");
    #[cfg(not(feature = "tls"))]
    misuses(&["--webhook", "ops=https://x"], &["--features tls"]);
}
