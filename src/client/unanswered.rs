//! The sends that are not answered yet, in the order in which the user asked for them.
//!
//! Only the first send of each room is on its way, so that a retry does not change their order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::message::RoomName;
use crate::protocol::{Command, ErrorCode, Event, Ref, json};

/// A send may be repeated under its ref for this long: a little less than the server remembers the ref.
const REF_IS_SAFE: Duration = Ref::LASTS.saturating_sub(Duration::from_secs(20));

/// The sends of all rooms.
#[derive(Default)]
pub(super) struct Unanswered(VecDeque<Sent>);

struct Sent {
    room: RoomName,
    text: String,
    reference: Ref,
    /// The time of the first write to a connection. The send may have arrived even if the write failed.
    first_given: Option<Instant>,
    /// Whether the connection that stands has it, and has not answered it yet.
    on_its_way: bool,
}

impl Unanswered {
    /// One more, behind the others of its room.
    pub(super) fn push(&mut self, room: RoomName, text: String, reference: Ref) {
        self.0.push_back(Sent {
            room,
            text,
            reference,
            first_given: None,
            on_its_way: false,
        });
    }

    /// Whether a room has none.
    pub(super) fn none_in(&self, room: &RoomName) -> bool {
        !self.0.iter().any(|send| send.room == *room)
    }

    /// A connection is about to be given this one. From the first time on its ref has an age.
    pub(super) fn gives(&mut self, reference: &Ref, now: Instant) {
        if let Some(send) = self.find(reference) {
            send.first_given.get_or_insert(now);
        }
    }

    /// The server wants this one sent again. False if nobody waits for it.
    pub(super) fn again(&mut self, reference: &Ref) -> bool {
        let send = self.find(reference);
        send.map(|send| send.on_its_way = false).is_some()
    }

    /// The connection is lost, and with it the answers.
    pub(super) fn disconnected(&mut self) {
        for send in &mut self.0 {
            send.on_its_way = false;
        }
    }

    /// This one is answered; the room in which it was said, if it was waited for.
    pub(super) fn remove(&mut self, reference: &Ref) -> Option<RoomName> {
        // Nearly always the first: no other of its room is on its way.
        let index = self
            .0
            .iter()
            .position(|send| send.reference == *reference)?;
        self.0.remove(index).map(|send| send.room)
    }

    /// Nothing can be said in this room; what cannot.
    pub(super) fn forget(&mut self, room: &RoomName) -> Vec<Ref> {
        let forgotten = self.0.iter().filter(|send| send.room == *room);
        let forgotten = forgotten.map(|send| send.reference.clone()).collect();
        self.0.retain(|send| send.room != *room);
        forgotten
    }

    fn find(&mut self, reference: &Ref) -> Option<&mut Sent> {
        self.0.iter_mut().find(|send| send.reference == *reference)
    }

    /// The first of a room, to be sent or sent again, unless it is on its way; `largest` is what a
    /// frame may have, in bytes. Those that cannot be sent are told to the user first. Whether one that
    /// is too old for its ref was stored can no longer be found out: then the user is told, instead of
    /// saying it twice.
    pub(super) fn next(
        &mut self,
        room: &RoomName,
        largest: usize,
        now: Instant,
        tell: &mut Vec<Event>,
    ) -> Option<Command> {
        loop {
            let first = self.0.iter_mut().find(|send| send.room == *room)?;
            if first.on_its_way {
                return None;
            }
            let command = first.command();
            let length = json::encode_command(&command).map_or(0, |frame| frame.len());
            let age = first.first_given.map(|given| now.duration_since(given));
            let (code, message) = if length > largest {
                let message = format!("not sent: too long, {length} bytes of at most {largest}");
                (ErrorCode::BadRequest, message)
            } else if age.is_none_or(|age| age < REF_IS_SAFE) {
                first.on_its_way = true;
                return Some(command);
            } else {
                let message = "not confirmed: it may have been sent or not".to_owned();
                (ErrorCode::Unavailable, message)
            };
            let reference = first.reference.clone();
            self.remove(&reference);
            tell.push(Event::Error {
                code,
                message,
                reference: Some(reference),
                room: Some(room.clone()),
                retry: false,
            });
        }
    }
}

impl Sent {
    fn command(&self) -> Command {
        Command::Send {
            room: self.room.clone(),
            text: self.text.clone(),
            reference: Some(self.reference.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(command: Option<Command>) -> Option<String> {
        match command? {
            Command::Send { text, .. } => Some(text),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_of_a_room_goes_until_it_is_answered() {
        let (lobby, now) = (RoomName::lobby(), Instant::now());
        let (first, second) = (Ref::random(), Ref::random());
        let mut unanswered = Unanswered::default();
        unanswered.push(lobby.clone(), "one".to_owned(), first.clone());
        unanswered.push(lobby.clone(), "two".to_owned(), second);
        let next = |unanswered: &mut Unanswered| {
            said(unanswered.next(&lobby, usize::MAX, now, &mut Vec::new()))
        };
        assert_eq!(next(&mut unanswered).as_deref(), Some("one"));
        assert_eq!(next(&mut unanswered), None, "it is on its way");
        unanswered.disconnected();
        assert_eq!(next(&mut unanswered).as_deref(), Some("one"));
        assert!(unanswered.again(&first));
        assert_eq!(next(&mut unanswered).as_deref(), Some("one"));
        unanswered.remove(&first);
        assert_eq!(next(&mut unanswered).as_deref(), Some("two"));
    }

    #[test]
    fn one_that_is_too_old_for_its_ref_is_told_of_and_not_said_again() {
        let (lobby, now) = (RoomName::lobby(), Instant::now());
        let (old, new) = (Ref::random(), Ref::random());
        let mut unanswered = Unanswered::default();
        unanswered.push(lobby.clone(), "old".to_owned(), old.clone());
        let mut told = Vec::new();
        let sent = unanswered.next(&lobby, usize::MAX, now, &mut told);
        assert_eq!(said(sent).as_deref(), Some("old"));
        unanswered.gives(&old, now);
        unanswered.disconnected();
        unanswered.push(lobby.clone(), "new".to_owned(), new);
        let later = now + REF_IS_SAFE;
        let sent = unanswered.next(&lobby, usize::MAX, later, &mut told);
        assert_eq!(said(sent).as_deref(), Some("new"));
        let [Event::Error { reference, .. }] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!(reference.as_ref(), Some(&old));
        assert!(!unanswered.again(&old));
    }

    #[test]
    fn a_refs_age_counts_from_the_first_time_it_was_given() {
        let (lobby, now, mine) = (RoomName::lobby(), Instant::now(), Ref::random());
        let mut unanswered = Unanswered::default();
        unanswered.push(lobby.clone(), "hello".to_owned(), mine.clone());
        let mut next = |now: Instant, is_given: bool| {
            let sent = unanswered.next(&lobby, usize::MAX, now, &mut Vec::new());
            if is_given {
                unanswered.gives(&mine, now);
            }
            unanswered.disconnected();
            said(sent)
        };
        // The connection ended before this one had its turn.
        assert_eq!(next(now, false).as_deref(), Some("hello"));
        let first = now + REF_IS_SAFE;
        assert_eq!(next(first, true).as_deref(), Some("hello"));
        let later = first + REF_IS_SAFE / 2;
        assert_eq!(next(later, true).as_deref(), Some("hello"));
        assert_eq!(next(first + REF_IS_SAFE, true), None);
    }
}
