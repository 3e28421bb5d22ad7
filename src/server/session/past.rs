//! A user's past messages: those that a joining user missed or asks for, and pages of history.
//!
//! The session sends them as fast as the user reads, and in pieces ([`history`]).

use std::sync::Arc;

use super::joiner::Joiner;
use crate::backplane::{BackplaneError, Entrance, Excerpt, PastPlace, Resumed, resume};
use crate::hub::framing;
use crate::message::{MemberList, Message, MessageId, RoomName, UserName};
use crate::protocol::{Cursor, Encoding, Event, Priority};
use crate::server::answers::failed;
use crate::server::history::{self, PAGE_MOST, PIECE, messages};
use crate::websocket::code;

impl Joiner<'_> {
    /// Answers with a page of history.
    pub(super) fn history(&self, room: &RoomName, page: Cursor, limit: usize) {
        let bytes = self.outbox.budget() / 2;
        match self.read_page(room, (page, limit.min(PAGE_MOST)), bytes, None) {
            Ok(excerpt) => {
                let deletions = self.state.deletions(room);
                self.answer(&Event::History {
                    room: room.clone(),
                    messages: messages(self.state, room, excerpt.entries),
                    more: excerpt.more,
                });
                // A slow reader waited for it.
                self.tell_deleted_since(room, &deletions);
            }
            Err(error) => self.answer(&failed("cannot read the history", Some(room), None, &error)),
        }
    }

    fn read_page(
        &self,
        room: &RoomName,
        which: (Cursor, usize),
        bytes: usize,
        first: Option<Excerpt>,
    ) -> Result<Excerpt, BackplaneError> {
        let backplane = &*self.state.backplane;
        let encoding = self.outbox.encoding();
        let is_over = || !self.outbox.is_open() || self.state.is_closing();
        history::read_page(backplane, encoding, room, which, bytes, first, is_over)
    }

    /// Sends the room's members and past to a connection that the hub holds messages back for, and then
    /// lets the hub release them.
    pub(super) fn send_past(
        &self,
        room: &RoomName,
        since: Option<MessageId>,
        page: Option<(Cursor, usize)>,
        entrance: Entrance,
    ) -> Result<(), BackplaneError> {
        let backplane = &self.state.backplane;
        let hub = &self.state.hub;
        let Entrance {
            tail,
            past,
            members,
        } = entrance;
        let mut past = match page {
            Some(page) => {
                let bytes = self.outbox.budget() / 4;
                self.read_page(room, page, bytes, Some(past))?
            }
            None => past,
        };
        let resumed = resume(since, &past, tail);
        let Resumed { recovered, last } = resumed;
        // Without `since`, older messages are sent on request only.
        past.more &= since.is_some();
        // A log that began after `since` knows nothing of the client's past.
        let anew = !recovered
            && since.is_some_and(|id| id != MessageId::ZERO && backplane.began_after(id));
        let list = with_user(members, self.user);
        let more = past.more;
        let encoding = self.outbox.encoding();
        let first_prev = past.entries.first().map_or(last, |entry| entry.prev);
        let mut messages = messages(self.state, room, past.entries);
        // A follower has a record for each message, and may break off before any of them.
        let (resume_from, apart) = match encoding.is_for_followers() {
            true => (first_prev, std::mem::take(&mut messages)),
            false => (last, Vec::new()),
        };
        let event = Event::Room {
            room: room.clone(),
            members: Arc::clone(&list.users),
            alike: hub.alike(room, Some(&list)),
            messages,
            recovered,
            anew,
            last: resume_from,
        };
        let mut first = Vec::new();
        if since.is_some() && !recovered && !anew && encoding == Encoding::Text {
            first.extend(encoding.encode(&Event::Gap {
                room: room.clone(),
                after: since,
                before: None,
            }));
        }
        first.extend(encoding.encode(&event));
        for message in apart {
            first.extend(encoding.encode(&past_message(room, message)));
        }
        let first = framing::payloads(encoding, &first);
        if !more {
            hub.release(room, self.connection, last, &list, first);
            return Ok(());
        }
        if let Some(first) = first {
            self.outbox.push(first, Priority::High);
        }
        match self.send_rest(room, resumed.reads_on(tail)) {
            Ok(last) => hub.release(room, self.connection, last, &list, None),
            // The client has its `room` event and takes itself for a member. It has to reconnect and
            // resume.
            Err(error) => self.outbox.close(
                code::TRY_AGAIN_LATER,
                &format!("the past cannot be read on: {error}"),
            ),
        }
        Ok(())
    }

    /// Sends the messages behind the first frame, one event each, as fast as the client reads. Meanwhile the hub holds
    /// new messages back. Ends with the log or with the connection, and returns the last id that was sent.
    fn send_rest(
        &self,
        room: &RoomName,
        mut place: PastPlace,
    ) -> Result<Option<MessageId>, BackplaneError> {
        let tell_gap = |after, before| {
            let room = room.clone();
            self.answer(&Event::Gap {
                room,
                after,
                before,
            });
        };
        let mut cursor = place.last.unwrap_or(MessageId::ZERO);
        while self.outbox.is_open() && !self.ends_with_token() {
            let page = Cursor::After(cursor);
            let piece = self.state.backplane.read(room, page, PIECE)?;
            for mut entry in piece.entries {
                self.state.conceal(room, &mut entry.message);
                let (after, id) = (place.last, entry.message.id);
                if !place.follow(&entry) {
                    tell_gap(after, Some(id));
                }
                self.answer(&past_message(room, entry.message));
            }
            match piece.reach {
                Some(reach) if piece.more => cursor = reach,
                _ => {
                    if !place.is_at_end() {
                        tell_gap(place.last, None);
                    }
                    break;
                }
            }
        }
        Ok(place.last)
    }
}

/// A message that was said before, as an event of its own.
fn past_message(room: &RoomName, message: Message) -> Event {
    Event::Message {
        room: room.clone(),
        message,
        looks_like: None,
        via: None,
    }
}

/// Adds this user to the list if missing: Redis may have forgotten the user a moment ago, and no user is
/// told of their own join.
fn with_user(list: MemberList, user: Option<&UserName>) -> MemberList {
    let Some(user) = user else {
        return list;
    };
    match list.users.binary_search(user) {
        Ok(_) => list,
        Err(index) => {
            let mut users = list.users.to_vec();
            users.insert(index, user.clone());
            MemberList {
                users: users.into(),
                ..list
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Revision;

    #[test]
    fn a_user_is_in_the_list_that_it_is_shown_once_and_in_its_place() {
        let user = |name: &str| name.parse::<UserName>().expect("a name");
        let shown = |names: &[&str]| {
            let users = names.iter().map(|name| user(name)).collect();
            let revision = Revision::ZERO;
            let list = with_user(MemberList { users, revision }, Some(&user("bob")));
            list.users.to_vec()
        };
        let all = ["alice", "bob", "carol"].map(user);
        assert_eq!(shown(&["alice", "carol"]), all);
        assert_eq!(shown(&["alice", "bob", "carol"]), all);
    }
}
