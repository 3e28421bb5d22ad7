//! The sends that the server has not answered yet, in the order in which the user made them.
//!
//! In each room only the first send is in flight, so a retry cannot change the order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::message::RoomName;
use crate::protocol::{Command, ErrorCode, Event, Ref, json};

/// A send may be repeated under its ref for this long: a little less than the server remembers the ref.
pub(in crate::client) const REF_IS_SAFE: Duration =
    Ref::LASTS.saturating_sub(Duration::from_secs(20));

/// The beginnings of the sentence about a send that is given up.
pub(in crate::client) const NOT_SENT: &str = "not sent";
pub(in crate::client) const NOT_CONFIRMED: &str = "not confirmed: it may have been sent or not";

/// The sends of all rooms.
#[derive(Default)]
pub(super) struct Outgoing(VecDeque<QueuedSend>);

struct QueuedSend {
    room: RoomName,
    text: String,
    reference: Ref,
    /// The time of the first write. The send may have arrived even if that write failed.
    first_written: Option<Instant>,
    /// Whether the send is written to the present connection and not answered yet.
    in_flight: bool,
}

impl Outgoing {
    /// Queues a send behind the others of its room.
    pub(super) fn push(&mut self, room: RoomName, text: String, reference: Ref) {
        self.0.push_back(QueuedSend {
            room,
            text,
            reference,
            first_written: None,
            in_flight: false,
        });
    }

    /// Whether a room has no outgoing sends.
    pub(super) fn none_in(&self, room: &RoomName) -> bool {
        !self.0.iter().any(|send| send.room == *room)
    }

    /// The caller is about to write this send. The age of its ref counts from the first write.
    pub(super) fn writing(&mut self, reference: &Ref, now: Instant) {
        if let Some(send) = self.find(reference) {
            send.first_written.get_or_insert(now);
        }
    }

    /// The server asks for a retry: the send may go again. Returns false if there is no such send.
    pub(super) fn requeue(&mut self, reference: &Ref) -> bool {
        let send = self.find(reference);
        send.map(|send| send.in_flight = false).is_some()
    }

    /// The connection is lost, so no answer to it can arrive any more.
    pub(super) fn disconnected(&mut self) {
        for send in &mut self.0 {
            send.in_flight = false;
        }
    }

    /// Removes a send that is answered. Returns its room.
    pub(super) fn remove(&mut self, reference: &Ref) -> Option<RoomName> {
        // It is nearly always the first, since each room has one send in flight.
        let index = self
            .0
            .iter()
            .position(|send| send.reference == *reference)?;
        self.0.remove(index).map(|send| send.room)
    }

    /// Removes all sends of a room that cannot be joined. Returns their errors.
    pub(super) fn remove_room(
        &mut self,
        room: &RoomName,
        code: ErrorCode,
        why: &str,
    ) -> Vec<Event> {
        let removed = self.0.iter().filter(|send| send.room == *room);
        let failed = removed.map(|send| send.failed(code, why)).collect();
        self.0.retain(|send| send.room != *room);
        failed
    }

    fn find(&mut self, reference: &Ref) -> Option<&mut QueuedSend> {
        self.0.iter_mut().find(|send| send.reference == *reference)
    }

    /// The command for the first send of a room, unless that send is in flight. `max_frame` is in
    /// bytes.
    ///
    /// A send that is too large for a frame fails, and so does one whose ref is too old: the server may
    /// have stored it and forgotten the ref, and would store it twice. `failed` takes their errors.
    pub(super) fn next(
        &mut self,
        room: &RoomName,
        max_frame: usize,
        now: Instant,
        failed: &mut Vec<Event>,
    ) -> Option<Command> {
        loop {
            let first = self.0.iter_mut().find(|send| send.room == *room)?;
            if first.in_flight {
                return None;
            }
            let command = first.command();
            let length = json::encode_command(&command).map_or(0, |frame| frame.len());
            let age = first
                .first_written
                .map(|written| now.duration_since(written));
            let (code, why) = if length > max_frame {
                let why = format!("too long, {length} bytes of at most {max_frame}");
                (ErrorCode::BadRequest, why)
            } else if age.is_none_or(|age| age < REF_IS_SAFE) {
                first.in_flight = true;
                return Some(command);
            } else {
                let why = "no answer came while it was safe to repeat it".to_owned();
                (ErrorCode::Unavailable, why)
            };
            failed.push(first.failed(code, &why));
            let reference = first.reference.clone();
            self.remove(&reference);
        }
    }
}

impl QueuedSend {
    fn command(&self) -> Command {
        Command::Send {
            room: self.room.clone(),
            text: self.text.clone(),
            reference: Some(self.reference.clone()),
        }
    }

    /// The event that tells the user that the send is given up. Once it was written, the server may have
    /// stored it.
    fn failed(&self, code: ErrorCode, why: &str) -> Event {
        let outcome = match self.first_written {
            None => NOT_SENT,
            Some(_) => NOT_CONFIRMED,
        };
        Event::Error {
            code,
            message: format!("{outcome}: {why}"),
            reference: Some(self.reference.clone()),
            room: Some(self.room.clone()),
            retry: false,
            retry_after_ms: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(command: Option<Command>) -> Option<String> {
        match command? {
            Command::Send { text, .. } => Some(text),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_send_of_a_room_is_repeated_until_it_is_answered() {
        let (lobby, now) = (RoomName::lobby(), Instant::now());
        let (first, second) = (Ref::random(), Ref::random());
        let mut outgoing = Outgoing::default();
        outgoing.push(lobby.clone(), "one".to_owned(), first.clone());
        outgoing.push(lobby.clone(), "two".to_owned(), second);
        let next =
            |outgoing: &mut Outgoing| text(outgoing.next(&lobby, usize::MAX, now, &mut Vec::new()));
        assert_eq!(next(&mut outgoing).as_deref(), Some("one"));
        assert_eq!(next(&mut outgoing), None, "it is in flight");
        outgoing.disconnected();
        assert_eq!(next(&mut outgoing).as_deref(), Some("one"));
        assert!(outgoing.requeue(&first));
        assert_eq!(next(&mut outgoing).as_deref(), Some("one"));
        outgoing.remove(&first);
        assert_eq!(next(&mut outgoing).as_deref(), Some("two"));
    }

    #[test]
    fn a_send_that_is_too_old_for_its_ref_fails_and_is_not_repeated() {
        let (lobby, now) = (RoomName::lobby(), Instant::now());
        let (old, new) = (Ref::random(), Ref::random());
        let mut outgoing = Outgoing::default();
        outgoing.push(lobby.clone(), "old".to_owned(), old.clone());
        let mut failed = Vec::new();
        let next = outgoing.next(&lobby, usize::MAX, now, &mut failed);
        assert_eq!(text(next).as_deref(), Some("old"));
        outgoing.writing(&old, now);
        outgoing.disconnected();
        outgoing.push(lobby.clone(), "new".to_owned(), new);
        let later = now + REF_IS_SAFE;
        let next = outgoing.next(&lobby, usize::MAX, later, &mut failed);
        assert_eq!(text(next).as_deref(), Some("new"));
        let [Event::Error { reference, .. }] = &failed[..] else {
            panic!("{failed:?}");
        };
        assert_eq!(reference.as_ref(), Some(&old));
        assert!(!outgoing.requeue(&old));
    }

    #[test]
    fn the_age_of_a_ref_counts_from_the_first_write() {
        let (lobby, now, mine) = (RoomName::lobby(), Instant::now(), Ref::random());
        let mut outgoing = Outgoing::default();
        outgoing.push(lobby.clone(), "hello".to_owned(), mine.clone());
        let mut next = |now: Instant, is_written: bool| {
            let next = outgoing.next(&lobby, usize::MAX, now, &mut Vec::new());
            if is_written {
                outgoing.writing(&mine, now);
            }
            outgoing.disconnected();
            text(next)
        };
        // The connection ended before the send was written.
        assert_eq!(next(now, false).as_deref(), Some("hello"));
        let first = now + REF_IS_SAFE;
        assert_eq!(next(first, true).as_deref(), Some("hello"));
        let later = first + REF_IS_SAFE / 2;
        assert_eq!(next(later, true).as_deref(), Some("hello"));
        assert_eq!(next(first + REF_IS_SAFE, true), None);
    }
}
