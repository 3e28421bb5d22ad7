//! The list of rooms: which there are, how many users are in each, and when something was said last.

use serde_json::{Value, json};

use crate::support::client::{Client, get};
use crate::support::hubbub::Hubbub;
use crate::support::until;

/// The answer to a request for the list.
fn list(hubbub: &Hubbub, query: &str) -> Value {
    let (status, body) = get(hubbub.address(), &format!("/api/rooms{query}"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// The names and the numbers of users in a list.
fn rooms(answer: &Value) -> Vec<(String, u64)> {
    let rooms = answer["rooms"].as_array().expect("rooms").iter();
    let rooms = rooms.map(|one| {
        let name = one["room"].as_str().expect("a name");
        (name.to_owned(), one["members"].as_u64().expect("a number"))
    });
    rooms.collect()
}

/// Waits until the list is this.
fn shows(hubbub: &Hubbub, query: &str, expected: &[(&str, u64)]) -> Value {
    let expected: Vec<_> = expected
        .iter()
        .map(|&(name, members)| (name.to_owned(), members))
        .collect();
    let mut last = Value::Null;
    until(&format!("the list is {expected:?}"), || {
        last = list(hubbub, query);
        (rooms(&last) == expected).then(|| last.clone())
    })
}

/// Says something, and returns its time.
fn says(client: &mut Client, room: &str) -> Value {
    client.asks(&json!({"type": "send", "room": room, "text": "hello"}));
    client.event_of("message")["at"].clone()
}

#[test]
fn one_instance_alone_lists_its_rooms_with_the_newest_message_first() {
    let hubbub = Hubbub::alone();
    assert_eq!(
        list(&hubbub, ""),
        json!({"type": "rooms", "rooms": [], "more": false})
    );
    let mut alice = Client::json(hubbub.address(), "alice");
    for room in ["quiet", "an old one", "new", "a silent one"] {
        alice.joins(room);
    }
    let old = says(&mut alice, "an old one");
    let new = until("the clock goes on", || {
        let at = says(&mut alice, "new");
        (at != old).then_some(at)
    });
    let mut bob = hubbub.join_room("bob", "quiet");
    let all = [
        ("new", 1),
        ("an old one", 1),
        ("a silent one", 1),
        ("quiet", 2),
    ];
    let answer = shows(&hubbub, "", &all);
    assert_eq!(answer["type"], "rooms");
    assert_eq!(answer["more"], false);
    assert_eq!(answer["rooms"][0]["at"], new);
    assert_eq!(answer["rooms"][1]["at"], old);
    assert_eq!(answer["rooms"][2].get("at"), None);
    alice.asks(&json!({"type": "rooms"}));
    assert_eq!(alice.event_of("rooms"), answer);
    bob.says("/rooms");
    assert_eq!(
        bob.hears(),
        "* rooms: new (1), an old one (1), a silent one (1), quiet (2)"
    );
    bob.says("/rooms an");
    assert_eq!(bob.hears(), "* rooms: an old one (1)");
    // Nobody is in it, and it remembers what was said.
    alice.asks(&json!({"type": "leave", "room": "new"}));
    // Nobody is in it, and nothing was said.
    alice.asks(&json!({"type": "leave", "room": "a silent one"}));
    shows(&hubbub, "", &[("new", 0), ("an old one", 1), ("quiet", 2)]);
}
