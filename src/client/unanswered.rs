//! What was sent and is not answered yet, room by room in the order in which it was asked for.
//!
//! Of one room only the first is on its way, so that a retry changes no order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::backplane::REFS_LAST;
use crate::message::RoomName;
use crate::protocol::{Command, ErrorCode, Event, Ref, json};

/// For so long a send may be repeated under its ref: a little less than the server remembers it.
const REF_IS_SAFE: Duration = REFS_LAST.saturating_sub(Duration::from_secs(20));

/// The sends of all rooms.
#[derive(Default)]
pub(super) struct Unanswered(VecDeque<Sent>);

struct Sent {
    room: RoomName,
    text: String,
    reference: Ref,
    /// When it was sent first.
    sent: Option<Instant>,
}

impl Unanswered {
    /// One more, behind the others of its room.
    pub(super) fn push(&mut self, room: RoomName, text: String, reference: Ref) {
        self.0.push_back(Sent {
            room,
            text,
            reference,
            sent: None,
        });
    }

    /// Whether a room has none.
    pub(super) fn none_in(&self, room: &RoomName) -> bool {
        !self.0.iter().any(|send| send.room == *room)
    }

    /// Whether this one is among them.
    pub(super) fn holds(&self, reference: &Ref) -> bool {
        self.0.iter().any(|send| send.reference == *reference)
    }

    /// This one is answered.
    pub(super) fn remove(&mut self, reference: &Ref) {
        // Nearly always the first: no other of its room is on its way.
        let index = self.0.iter().position(|send| send.reference == *reference);
        if let Some(index) = index {
            self.0.remove(index);
        }
    }

    /// Nothing can be said in this room.
    pub(super) fn forget(&mut self, room: &RoomName) {
        self.0.retain(|send| send.room != *room);
    }

    /// The first of a room, to be sent or sent again; `largest` is what a frame may have, in bytes.
    /// Those that cannot be sent are told to the user first. Whether one that is too old for its ref
    /// was stored can no longer be found out: then the user is told, instead of saying it twice.
    pub(super) fn next(
        &mut self,
        room: &RoomName,
        largest: usize,
        now: Instant,
        tell: &mut Vec<Event>,
    ) -> Option<Command> {
        loop {
            let first = self.0.iter_mut().find(|send| send.room == *room)?;
            let command = first.command();
            let length = json::request(&command).map_or(0, |frame| frame.len());
            let sent = *first.sent.get_or_insert(now);
            let (code, message) = if length > largest {
                let message = format!("not sent: too long, {length} bytes of at most {largest}");
                (ErrorCode::BadRequest, message)
            } else if now.duration_since(sent) < REF_IS_SAFE {
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
        unanswered.push(lobby.clone(), "new".to_owned(), new);
        let later = now + REF_IS_SAFE;
        let sent = unanswered.next(&lobby, usize::MAX, later, &mut told);
        assert_eq!(said(sent).as_deref(), Some("new"));
        let [Event::Error { reference, .. }] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!(reference.as_ref(), Some(&old));
        assert!(!unanswered.holds(&old));
    }
}
