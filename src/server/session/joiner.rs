//! Joins rooms for one connection: of a user, or of nobody, who only follows.

use std::sync::Arc;
use std::time::SystemTime;

use super::membership::Membership;
use super::memberships::Memberships;
use super::put_out::tell_parted;
use crate::backplane::{BackplaneError, Deletions};
use crate::hub::outbox::Outbox;
use crate::message::{ConnectionId, MessageId, RoomName, UserName};
use crate::protocol::{Cursor, Event};
use crate::server::answers::deleted;
use crate::server::grant::Grant;
use crate::server::history::{PAGE_MOST, PIECE};
use crate::server::state::State;
use crate::websocket::code;

/// The most messages in the first frame of a room.
const FIRST_FRAME: usize = 1000;

/// The parts of a connection that joining a room needs. Only the connection's reader thread has one.
pub(super) struct Joiner<'a> {
    pub(super) state: &'a Arc<State>,
    pub(super) connection: ConnectionId,
    /// `None`: nobody is present for it.
    pub(super) user: Option<&'a UserName>,
    pub(super) outbox: &'a Arc<Outbox>,
    pub(super) rooms: &'a Memberships,
    pub(super) grant: &'a Grant,
}

impl Joiner<'_> {
    /// Joins a room: subscribes, reads the past, and merges it with the messages that came meanwhile.
    pub(super) fn join(
        &self,
        room: &RoomName,
        since: Option<MessageId>,
        history: Option<usize>,
    ) -> Result<(), BackplaneError> {
        let deleted_before = self.state.deletions(room);
        // A user who reads slowly joins slowly.
        self.outbox.wait_for_space(|| self.ends_with_token());
        let mut membership =
            Membership::begin(self.state, room, self.connection, self.user, self.outbox);
        let page = first_page(since, history);
        let entrance = membership.enter(page.map(|(cursor, limit)| (cursor, limit.min(PIECE))))?;
        self.send_past(room, since, page, entrance)?;
        self.rooms.insert(room.clone(), membership);
        // Messages that the client has from before may be deleted.
        let known = deleted_before
            .clone()
            .up_to(since.unwrap_or(MessageId::ZERO));
        if since.is_some() && !known.is_empty() {
            self.answer(&deleted(room.clone(), known, true));
        }
        self.tell_deleted_since(room, &deleted_before);
        // The room may have been closed meanwhile.
        if let Some(why) = self.state.why_closed(room)
            && self.rooms.remove(room)
        {
            tell_parted(self.outbox, room.clone(), why);
        }
        Ok(())
    }

    /// Tells the client of messages that were deleted since `before` was read: it may have got them meanwhile.
    pub(super) fn tell_deleted_since(&self, room: &RoomName, before: &Deletions) {
        let news = self.state.deletions(room).since(before);
        if !news.is_empty() {
            self.answer(&deleted(room.clone(), news, false));
        }
    }

    /// Sends an answer once the outbox has room: a user who reads slowly gets fewer answers.
    pub(super) fn answer(&self, event: &Event) {
        if self.outbox.wait_for_space(|| self.ends_with_token()) {
            self.outbox.send(event);
        }
    }

    /// Ends the connection if its token has expired. The heartbeat does so too, but not while the reader thread is
    /// here.
    pub(super) fn ends_with_token(&self) -> bool {
        let is_over = self.grant.is_over(SystemTime::now());
        if is_over {
            self.outbox.close(code::EXPIRED, "the token has expired");
        }
        is_over
    }
}

/// The messages of a room's first frame.
fn first_page(since: Option<MessageId>, history: Option<usize>) -> Option<(Cursor, usize)> {
    match since {
        Some(since) => Some((Cursor::After(since), FIRST_FRAME)),
        None => history.map(|limit| (Cursor::Newest, limit.min(PAGE_MOST))),
    }
}
