//! A connection that follows one room: it hears what a member hears, and nobody is present for it.

use std::sync::Arc;

use super::joiner::Joiner;
use super::memberships::Memberships;
use crate::hub::outbox::Outbox;
use crate::message::{ConnectionId, MessageId, RoomName};
use crate::server::answers::failed;
use crate::server::grant::Grant;
use crate::server::state::State;
use crate::websocket::code;

/// A connection that follows one room. It leaves the room when it is dropped.
pub struct Follower {
    state: Arc<State>,
    connection: ConnectionId,
    outbox: Arc<Outbox>,
    rooms: Arc<Memberships>,
    /// What the token allows.
    grant: Arc<Grant>,
}

impl Follower {
    /// It is in no room yet.
    pub fn new(
        state: Arc<State>,
        connection: ConnectionId,
        grant: Arc<Grant>,
        outbox: Arc<Outbox>,
    ) -> Self {
        Self {
            state,
            connection,
            outbox,
            rooms: Arc::default(),
            grant,
        }
    }

    /// Its membership, once it has joined the room.
    pub fn memberships(&self) -> &Arc<Memberships> {
        &self.rooms
    }

    /// Joins the room, and sends the messages after `since`, or else the last `history`. If the room cannot be joined,
    /// closes the connection.
    pub fn join(&self, room: &RoomName, since: Option<MessageId>, history: Option<usize>) {
        let joiner = Joiner {
            state: &self.state,
            connection: self.connection,
            user: None,
            outbox: &self.outbox,
            rooms: &self.rooms,
            grant: &self.grant,
        };
        if let Err(error) = joiner.join(room, since, history) {
            self.outbox
                .send(&failed("cannot follow the room", Some(room), None, &error));
            self.outbox
                .close(code::TRY_AGAIN_LATER, "the room cannot be entered now");
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.rooms.take_all());
    }
}
