//! One connection's membership of one room.

use std::sync::Arc;

use crate::backplane::{BackplaneError, Departure, Entrance};
use crate::hub::outbox::Outbox;
use crate::message::{ConnectionId, RoomName, UserName};
use crate::protocol::Cursor;
use crate::server::state::State;

/// Begins when the hub takes the connection into the room, and ends when it is dropped. Also a panic
/// drops it. So the connection always leaves the room: otherwise the presence keeper would renew a user
/// who is gone.
pub(super) struct Membership {
    state: Arc<State>,
    room: RoomName,
    connection: ConnectionId,
    /// `None`: nobody is present for it.
    user: Option<UserName>,
    /// Whether the backplane was told of the arrival. Without an arrival there is no departure.
    arrived: bool,
    /// How the connection leaves.
    pub(super) departure: Departure,
}

impl Membership {
    /// Adds the connection to the room in the hub. Other users do not see it yet.
    pub(super) fn begin(
        state: &Arc<State>,
        room: &RoomName,
        connection: ConnectionId,
        user: Option<&UserName>,
        outbox: &Arc<Outbox>,
    ) -> Self {
        let membership = Self {
            state: Arc::clone(state),
            room: room.clone(),
            connection,
            user: user.cloned(),
            arrived: false,
            departure: Departure::Clean,
        };
        state.hub.add_member(room, connection, user, outbox);
        membership
    }

    /// Subscribes to the room, makes the user, if there is one, present there, and reads what a member needs to know.
    pub(super) fn enter(
        &mut self,
        past: Option<(Cursor, usize)>,
    ) -> Result<Entrance, BackplaneError> {
        let backplane = &self.state.backplane;
        backplane.subscribe(&self.room)?;
        // Set before the call: the backplane counts the connection even if the call then fails.
        self.arrived = true;
        backplane.enter(&self.room, self.user.as_ref(), past)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let State { hub, backplane, .. } = &*self.state;
        hub.remove_member(&self.room, self.connection);
        if let Some(user) = self.user.as_ref().filter(|_| self.arrived) {
            backplane.depart(&self.room, user, self.departure);
        }
        backplane.unsubscribe(&self.room);
    }
}
