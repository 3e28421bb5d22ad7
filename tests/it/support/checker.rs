//! The checker: what every member of a room saw, against what was acknowledged.
//!
//! A member here is our own client, which reconnects and resumes; so whatever it shows is what a
//! user sees through all faults.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use hubbub::client::{Client, ClientEvent, ServerUrl};
use hubbub::message::{MessageId, RoomName};
use hubbub::protocol::Event;

use super::until;

/// What one member saw, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Message(MessageId, String),
    /// What lies between these two is lost.
    Gap(Option<MessageId>, Option<MessageId>),
}

impl Seen {
    pub(crate) fn is_gap(&self) -> bool {
        matches!(self, Self::Gap(..))
    }
}

/// A member that notes all it sees until it is stopped.
pub(crate) struct Witness {
    seen: Arc<Mutex<Vec<Seen>>>,
    reconnects: Arc<Mutex<usize>>,
    stop: crossbeam_channel::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    /// Returns once it is in the room.
    pub(crate) fn enter(url: &str, name: &str, room: &str) -> Self {
        let server = ServerUrl::parse(url).expect("an address");
        let client = Client::start(server, name.parse().expect("a name")).expect("a thread");
        client.join(room.parse().expect("a room"), None, None);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let reconnects = Arc::new(Mutex::new(0));
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (entered, enters) = crossbeam_channel::bounded(1);
        let notes = Arc::clone(&seen);
        let counts = Arc::clone(&reconnects);
        let thread = thread::spawn(move || {
            loop {
                let event = crossbeam_channel::select! {
                    recv(client.events()) -> event => event,
                    recv(stopped) -> _ => return,
                };
                let mut seen = notes.lock().expect("no panic");
                match event.expect("the client lives") {
                    ClientEvent::Server(Event::Message { message, .. }) => {
                        seen.push(Seen::Message(message.id, message.text));
                    }
                    ClientEvent::Server(Event::Gap { after, before, .. }) => {
                        seen.push(Seen::Gap(after, before));
                    }
                    ClientEvent::Server(Event::Room { messages, .. }) => {
                        seen.extend(messages.into_iter().map(|m| Seen::Message(m.id, m.text)));
                        let _ = entered.try_send(());
                    }
                    ClientEvent::Disconnected { .. } => *counts.lock().expect("no panic") += 1,
                    ClientEvent::Refused(why) => panic!("{why}"),
                    ClientEvent::Connected | ClientEvent::Postponed(_) | ClientEvent::Server(_) => {
                    }
                }
            }
        });
        enters
            .recv_timeout(super::DEADLINE)
            .expect("the witness enters the room");
        Self {
            seen,
            reconnects,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    /// How often its connection was lost.
    pub(crate) fn reconnects(&self) -> usize {
        *self.reconnects.lock().expect("no panic")
    }

    /// Waits until it has seen this text, and returns all it saw.
    pub(crate) fn has_seen(&self, text: &str) -> Vec<Seen> {
        until(text, || {
            let seen = self.seen();
            let found = |seen: &Seen| matches!(seen, Seen::Message(_, said) if said == text);
            seen.iter().any(found).then_some(seen)
        })
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Says lines and waits for each acknowledgement, resending under the same ref.
pub(crate) struct Speaker {
    client: Client,
    room: RoomName,
}

impl Speaker {
    pub(crate) fn enter(url: &str, name: &str, room: &str) -> Self {
        let server = ServerUrl::parse(url).expect("an address");
        let client = Client::start(server, name.parse().expect("a name")).expect("a thread");
        let room: RoomName = room.parse().expect("a room");
        client.join(room.clone(), None, None);
        Self { client, room }
    }

    /// The id under which it was acknowledged.
    pub(crate) fn says(&self, text: &str) -> MessageId {
        let mine = self.client.send(self.room.clone(), text.to_owned());
        loop {
            let event = self.client.events().recv_timeout(super::DEADLINE);
            match event.expect("an answer") {
                ClientEvent::Server(Event::Sent { reference, id, .. })
                    if reference.as_ref() == Some(&mine) =>
                {
                    return id;
                }
                ClientEvent::Server(Event::Error {
                    message, reference, ..
                }) if reference.as_ref() == Some(&mine) => {
                    panic!("{text}: {message}")
                }
                ClientEvent::Refused(why) => panic!("{why}"),
                _ => {}
            }
        }
    }
}

/// What is wrong with what a member saw; `acknowledged` are the messages it must have seen unless a
/// gap was announced.
pub(crate) fn faults(seen: &[Seen], acknowledged: &BTreeMap<MessageId, String>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut ids = BTreeSet::new();
    let mut last: Option<MessageId> = None;
    let mut gaps = Vec::new();
    for item in seen {
        match item {
            Seen::Gap(after, before) => {
                gaps.push((*after, *before));
                last = None;
            }
            Seen::Message(id, text) => {
                if !ids.insert(*id) {
                    faults.push(format!("{id} {text:?} was seen twice"));
                } else if last.is_some_and(|last| *id < last) {
                    faults.push(format!("{id} {text:?} was seen after a later one"));
                }
                if let Some(said) = acknowledged.get(id)
                    && said != text
                {
                    faults.push(format!("{id} is {text:?} and was acknowledged as {said:?}"));
                }
                last = Some(*id);
            }
        }
    }
    for (id, text) in acknowledged {
        let announced = gaps.iter().any(|(after, before)| {
            after.is_none_or(|after| after < *id) && before.is_none_or(|before| *id < before)
        });
        if !ids.contains(id) && !announced {
            faults.push(format!("{id} {text:?} was acknowledged and not seen"));
        }
    }
    faults
}

/// Panics unless every member saw everything that was acknowledged, once and in order.
pub(crate) fn check(witnesses: &[&Witness], acknowledged: &BTreeMap<MessageId, String>) {
    for (index, witness) in witnesses.iter().enumerate() {
        let faults = faults(&witness.seen(), acknowledged);
        assert!(faults.is_empty(), "witness {index}: {faults:#?}");
    }
}

#[test]
fn the_checker_finds_holes_doubles_and_disorder() {
    let id = |number| MessageId { millis: 1, number };
    let said = |number: u64| Seen::Message(id(number), number.to_string());
    let acknowledged: BTreeMap<_, _> = (1..=3).map(|n| (id(n), n.to_string())).collect();
    let count = |seen: &[Seen]| faults(seen, &acknowledged).len();
    assert_eq!(count(&[said(1), said(2), said(3)]), 0);
    assert_eq!(count(&[said(1), said(3)]), 1, "a hole");
    assert_eq!(count(&[said(1), said(2), said(2), said(3)]), 1, "a double");
    assert_eq!(count(&[said(1), said(3), said(2)]), 1, "disorder");
    let gap = Seen::Gap(Some(id(1)), Some(id(3)));
    assert_eq!(count(&[said(1), gap.clone(), said(3)]), 0, "announced");
    assert_eq!(count(&[said(1), gap]), 1, "another hole than announced");
    let other = Seen::Message(id(2), "other".to_owned());
    assert_eq!(count(&[said(1), other, said(3)]), 1, "another text");
}
