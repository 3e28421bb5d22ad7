//! A rolling restart: everyone comes back to the other instance, and nobody loses or doubles.

use std::collections::BTreeMap;

use hubbub::client::{Client, ClientEvent, ClientOptions, ServerUrl};
use hubbub::message::MessageId;
use hubbub::protocol::Event;

use crate::support::DEADLINE;
use crate::support::checker::{Seen, Speaker, faults};
use crate::support::hubbub::Hubbub;
use crate::support::redis::Redis;

/// One of two thousand: its client, and what it saw so far.
struct Member {
    client: Client,
    seen: Vec<Seen>,
}

impl Member {
    fn enter(servers: &[ServerUrl], number: usize, room: &str) -> Self {
        let client = Client::start_with(ClientOptions {
            servers: servers.to_vec(),
            user: format!("u{number}").parse().expect("a name"),
            token: None,
            ca: None,
        });
        let client = client.expect("a thread");
        client.join(room.parse().expect("a room"), None, None);
        Self {
            client,
            seen: Vec::new(),
        }
    }

    /// Takes in what happened until `wanted` does.
    fn until(&mut self, what: &str, wanted: impl Fn(&Event) -> bool) {
        loop {
            let event = self.client.events().recv_timeout(DEADLINE * 3);
            let event = match event.unwrap_or_else(|_| panic!("waited in vain: {what}")) {
                ClientEvent::Server(event) => event,
                ClientEvent::Refused(why) => panic!("{why}"),
                ClientEvent::Connected
                | ClientEvent::Disconnected { .. }
                | ClientEvent::Postponed(_) => {
                    continue;
                }
            };
            let found = wanted(&event);
            match event {
                Event::Message { message, .. } => {
                    self.seen.push(Seen::Message(message.id, message.text));
                }
                Event::Room { messages, .. } => {
                    let messages = messages.into_iter();
                    self.seen
                        .extend(messages.map(|m| Seen::Message(m.id, m.text)));
                }
                Event::Gap { after, before, .. } => self.seen.push(Seen::Gap(after, before)),
                _ => {}
            }
            if found || self.has(what) {
                return;
            }
        }
    }

    fn has(&self, text: &str) -> bool {
        let said = |seen: &Seen| matches!(seen, Seen::Message(_, said) if said == text);
        self.seen.iter().any(said)
    }
}

#[test]
fn two_thousand_clients_come_back_to_the_other_instance_without_losing_or_doubling() {
    const MEMBERS: usize = 2000;
    const ROOMS: usize = 100;
    let redis = Redis::start();
    let (mut first, second) = (Hubbub::on(&redis), Hubbub::on(&redis));
    let servers = [&first, &second].map(|h| ServerUrl::parse(&h.url()).expect("an address"));
    let room = |number: usize| format!("room-{}", number % ROOMS);
    let mut members: Vec<_> = (0..MEMBERS)
        .map(|number| Member::enter(&servers, number, &room(number)))
        .collect();
    for member in &mut members {
        member.until("in the room", |event| matches!(event, Event::Room { .. }));
    }
    let mut said: Vec<BTreeMap<MessageId, String>> = vec![BTreeMap::new(); ROOMS];
    let mut say = |speakers: &[Speaker], text: &str| {
        for (speaker, said) in speakers.iter().zip(&mut said) {
            said.insert(speaker.says(text), text.to_owned());
        }
    };
    let speakers: Vec<_> = (0..ROOMS)
        .map(|number| Speaker::enter(&second.url(), &format!("s{number}"), &room(number)))
        .collect();
    say(&speakers, "before");
    first.signal(nix::sys::signal::Signal::SIGTERM);
    say(&speakers, "during");
    assert_eq!(first.ends().code(), Some(0));
    say(&speakers, "after");
    say(&speakers, "the end");
    for (number, member) in members.iter_mut().enumerate() {
        member.until("the end", |_| false);
        let faults = faults(&member.seen, &said[number % ROOMS]);
        assert!(faults.is_empty(), "member {number}: {faults:#?}");
        assert!(!member.seen.iter().any(Seen::is_gap), "member {number}");
    }
}

#[test]
fn a_drain_says_when_to_come_back_and_takes_no_more() {
    let mut hubbub = Hubbub::alone();
    let mut users: Vec<_> = (0..120)
        .map(|n| {
            let user = format!("u{n}");
            crate::support::client::Client::json(hubbub.address(), &user)
        })
        .collect();
    hubbub.signal(nix::sys::signal::Signal::SIGTERM);
    for user in &mut users {
        let closing = user.event_of("closing");
        let retry_after = closing["retry_after_ms"].as_u64().expect("a number");
        assert!((500..=1000).contains(&retry_after), "{closing}");
        assert_eq!(user.is_closed(), Some(1012));
    }
    assert_eq!(hubbub.ends().code(), Some(0));
}
