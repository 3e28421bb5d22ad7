//! The JSON encoding: many rooms on one connection.

use hubbub::client::{Client as OurClient, ClientEvent, ClientOptions, ServerUrl};
use hubbub::protocol::Event;
use serde_json::json;

use crate::support::DEADLINE;
use crate::support::client::Client;
use crate::support::hubbub::Hubbub;
use crate::support::redis::Redis;

#[test]
fn one_connection_is_in_several_rooms_and_hears_itself() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let mut alice = Client::json(here.address(), "alice");
    let mut bob = Client::json(there.address(), "bob");
    for room in ["red", "blue"] {
        let entered = alice.joins(room);
        assert_eq!(entered["members"], json!(["alice"]));
        assert_eq!(entered["recovered"], json!(false));
    }
    assert_eq!(bob.joins("blue")["members"], json!(["alice", "bob"]));
    let joined = alice.event_of("joined");
    assert_eq!(
        (&joined["room"], &joined["user"]),
        (&json!("blue"), &json!("bob"))
    );
    alice.asks(&json!({"type": "send", "room": "blue", "text": "hi", "ref": "r1"}));
    let heard = bob.event_of("message");
    assert_eq!(heard["from"], "alice");
    assert_eq!(heard["text"], "hi");
    // The acknowledgement and the message come by two roads, in either order.
    let (mut sent, mut message) = (json!(null), json!(null));
    while sent.is_null() || message.is_null() {
        let event = alice.event();
        match event["type"].as_str() {
            Some("sent") => sent = event,
            Some("message") => message = event,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sent["ref"], "r1");
    assert_eq!(sent["duplicate"], false);
    assert_eq!(sent["id"], heard["id"]);
    assert_eq!(message, heard);
    // A ref is of one text.
    alice.asks(&json!({"type": "send", "room": "blue", "text": "ho", "ref": "r1"}));
    let refused = alice.event_of("error");
    assert_eq!(
        (&refused["code"], &refused["ref"], &refused["retry"]),
        (&json!("ref_reused"), &json!("r1"), &json!(false))
    );
    alice.asks(&json!({"type": "leave", "room": "blue"}));
    assert_eq!(alice.event_of("parted")["room"], "blue");
    assert_eq!(bob.event_of("left")["user"], "alice");
    alice.asks(&json!({"type": "members", "room": "red"}));
    assert_eq!(alice.event_of("members")["members"], json!(["alice"]));
}

#[test]
fn a_connection_enters_the_room_that_its_request_names_and_resumes_there() {
    let hubbub = Hubbub::alone();
    let connect = |query: &str| {
        let target = format!("/chat/alice?{query}");
        let mut alice = Client::connect(hubbub.address(), &target, Some("hubbub.v1"))
            .unwrap_or_else(|refused| panic!("{refused:?}"));
        assert_eq!(alice.event()["type"], "welcome");
        alice
    };
    let texts = |room: &serde_json::Value| {
        let messages = room["messages"].as_array().expect("messages");
        let texts = messages.iter().map(|one| one["text"].clone());
        texts.collect::<Vec<_>>()
    };
    let mut alice = connect("room=ops&history=5");
    let entered = alice.event();
    assert_eq!(entered["type"], "room");
    assert_eq!(entered["room"], "ops");
    assert_eq!(texts(&entered), [json!(null); 0]);
    let mut ids = ["one", "two", "three"].map(|text| {
        alice.asks(&json!({"type": "send", "room": "ops", "text": text}));
        alice.event_of("message")["id"].clone()
    });
    alice.asks(&json!({"type": "join", "room": "ops"}));
    assert_eq!(alice.event_of("error")["code"], "already_joined");
    // It may join others.
    alice.joins("lobby");
    alice.leaves();
    let mut alice = connect("room=ops&history=2");
    assert_eq!(texts(&alice.event()), ["two", "three"]);
    let since = ids[0].take();
    let since = since.as_str().expect("an id");
    let mut alice = connect(&format!("room=ops&since={since}"));
    let resumed = alice.event();
    assert_eq!(texts(&resumed), ["two", "three"]);
    assert_eq!(resumed["recovered"], true);
    // A request that names none enters none.
    let mut alice = connect("history=2");
    alice.asks(&json!({"type": "members", "room": "lobby"}));
    assert_eq!(alice.event()["code"], "not_joined");
}

#[test]
fn what_cannot_be_done_is_an_error_and_the_connection_stays() {
    let hubbub = Hubbub::with(&["--rooms-per-connection", "2"]);
    let mut alice = Client::json(hubbub.address(), "alice");
    let mut refused = |request: &str| {
        alice.says(request);
        let event = alice.event();
        assert_eq!(event["type"], "error", "{event}");
        (event["code"].as_str().unwrap_or_default().to_owned(), event)
    };
    assert_eq!(refused("hello").0, "bad_request");
    assert_eq!(refused(r#"{"type":"dance","room":"a"}"#).0, "unknown_type");
    assert_eq!(refused(r#"{"type":"join","room":"a/b"}"#).0, "bad_room");
    assert_eq!(refused(r#"{"type":"join"}"#).0, "bad_request");
    let (code, event) = refused(r#"{"type":"leave","room":"a"}"#);
    assert_eq!(code, "not_joined");
    assert_eq!(event["message"], "not in the room a; join it first");
    assert_eq!(refused(r#"{"type":"members","room":"a"}"#).0, "not_joined");
    assert_eq!(refused(r#"{"type":"history","room":"a"}"#).0, "not_joined");
    let (code, event) = refused(r#"{"type":"send","room":"a","text":"x","ref":"r"}"#);
    assert_eq!((code.as_str(), &event["ref"]), ("not_joined", &json!("r")));
    alice.joins("a");
    alice.joins("b");
    alice.asks(&json!({"type": "join", "room": "a"}));
    assert_eq!(alice.event_of("error")["code"], "already_joined");
    alice.asks(&json!({"type": "join", "room": "c"}));
    assert_eq!(alice.event_of("error")["code"], "too_many_rooms");
    alice.asks(&json!({"type": "send", "room": "a", "text": ""}));
    assert_eq!(alice.event_of("error")["code"], "empty");
    alice.asks(&json!({"type": "send", "room": "a", "text": "x", "later": [1, {"x": 2}]}));
    alice.event_of("sent");
}

#[test]
fn what_was_sent_before_a_goodbye_is_answered_before_its_reply() {
    let redis = Redis::start();
    for hubbub in [Hubbub::alone(), Hubbub::on(&redis)] {
        for half_closed in [false, true] {
            let mut alice = Client::json(hubbub.address(), "alice");
            alice.joins("lobby");
            for n in 0..20 {
                let reference = format!("{half_closed} {n}");
                alice
                    .asks(&json!({"type": "send", "room": "lobby", "text": "x", "ref": reference}));
            }
            if half_closed {
                let socket = alice.socket();
                socket
                    .shutdown(std::net::Shutdown::Write)
                    .expect("half a close");
            } else {
                alice.sends(tungstenite::Message::Close(None));
            }
            for _ in 0..20 {
                alice.event_of("sent");
            }
        }
    }
}

#[test]
fn typing_is_told_to_the_others_alone() {
    let redis = Redis::start();
    let (here, there) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let mut alice = Client::json(here.address(), "alice");
    let mut bob = Client::json(there.address(), "bob");
    let mut carol = here.join("carol");
    alice.joins("lobby");
    bob.joins("lobby");
    alice.asks(&json!({"type": "typing", "room": "lobby"}));
    assert_eq!(bob.event_of("typing")["user"], "alice");
    bob.asks(&json!({"type": "send", "room": "lobby", "text": "marker"}));
    loop {
        let event = alice.event();
        assert_ne!(event["type"], "typing");
        if event["type"] == "message" {
            break;
        }
    }
    let heard = carol.hears_until("marker");
    assert!(
        heard.iter().all(|line| !line.contains("typing")),
        "{heard:?}"
    );
}

/// They come at once, and each takes a token: those that are refused are asked for again.
#[test]
fn our_client_enters_as_many_rooms_as_it_may_again_after_a_reconnect() {
    const ROOMS: usize = 32;
    let limits = ["--command-rate", "40", "--command-burst", "5"];
    let (mut first, second) = (Hubbub::with(&limits), Hubbub::with(&limits));
    let client = OurClient::start_with(ClientOptions {
        servers: [&first, &second]
            .map(|one| ServerUrl::parse(&one.url()).expect("an address"))
            .to_vec(),
        user: "alice".parse().expect("a name"),
        token: None,
        ca: None,
    });
    let client = client.expect("a thread");
    for number in 0..ROOMS {
        let room = format!("room-{number}").parse().expect("a room");
        client.join(room, None, None);
    }
    let happens = || client.events().recv_timeout(DEADLINE).expect("more");
    let enters_all = || {
        let (mut entered, mut postponed) = (0, 0);
        while entered < ROOMS {
            match happens() {
                ClientEvent::Server(Event::Room { .. }) => entered += 1,
                ClientEvent::Server(Event::Welcome { .. }) | ClientEvent::Connected => {}
                ClientEvent::Postponed(why) => {
                    assert!(why.contains("too fast"), "{why}");
                    postponed += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(postponed > 0);
    };
    enters_all();
    first.kill();
    while !matches!(happens(), ClientEvent::Connected) {}
    enters_all();
}
