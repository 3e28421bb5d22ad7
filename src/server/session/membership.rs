//! One connection's membership of one room.

use std::sync::Arc;

use super::Instance;
use crate::backplane::{BackplaneError, Departure};
use crate::hub::outbox::Outbox;
use crate::message::{ConnectionId, RoomName, UserName};

/// It lasts from when the hub admits the connection until it is dropped. However that comes about, also
/// by a panic, the connection is out of the room afterwards: otherwise presence would be renewed for a
/// user who is not there.
pub(super) struct Membership {
    instance: Arc<Instance>,
    room: RoomName,
    connection: ConnectionId,
    user: UserName,
    /// Whether the backplane was told of it. One that has not arrived cannot depart.
    arrived: bool,
    /// How it ends.
    pub(super) departure: Departure,
}

impl Membership {
    /// Admits a connection to a room of the hub, where it is heard by nobody yet.
    pub(super) fn begin(
        instance: &Arc<Instance>,
        room: &RoomName,
        connection: ConnectionId,
        user: &UserName,
        outbox: &Arc<Outbox>,
    ) -> Self {
        let membership = Self {
            instance: Arc::clone(instance),
            room: room.clone(),
            connection,
            user: user.clone(),
            arrived: false,
            departure: Departure::Clean,
        };
        instance.hub.add_member(room, connection, user, outbox);
        membership
    }

    /// Subscribes to the room, and is present there from then on.
    pub(super) fn arrive(&mut self) -> Result<(), BackplaneError> {
        let backplane = &self.instance.backplane;
        backplane.subscribe(&self.room)?;
        // Also where this fails: the backplane counts the connection before it asks anybody.
        self.arrived = true;
        backplane.arrive(&self.room, &self.user)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let Instance { hub, backplane, .. } = &*self.instance;
        hub.remove_member(&self.room, self.connection);
        if self.arrived {
            backplane.depart(&self.room, &self.user, self.departure);
        }
        backplane.unsubscribe(&self.room);
    }
}
