//! The rooms that one connection is in. The session enters and leaves them; the moderator takes rooms out that
//! are closed. A membership ends with its removal, on the thread that removes it, and with no lock held.

use std::collections::HashMap;
use std::sync::Mutex;

use super::membership::Membership;
use crate::message::RoomName;
use crate::threads::lock;

/// The memberships of one connection.
#[derive(Default)]
pub struct Memberships(Mutex<HashMap<RoomName, Membership>>);

impl Memberships {
    pub(super) fn contains(&self, room: &RoomName) -> bool {
        lock(&self.0).contains_key(room)
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    pub(super) fn insert(&self, room: RoomName, membership: Membership) {
        let before = lock(&self.0).insert(room, membership);
        drop(before);
    }

    /// False if the connection is not in the room any more.
    pub(super) fn remove(&self, room: &RoomName) -> bool {
        let removed = lock(&self.0).remove(room);
        removed.is_some()
    }

    pub(super) fn take_all(&self) -> HashMap<RoomName, Membership> {
        std::mem::take(&mut *lock(&self.0))
    }

    /// The rooms.
    pub fn rooms(&self) -> Vec<RoomName> {
        lock(&self.0).keys().cloned().collect()
    }

    /// Leaves those rooms for which there is a reason. Returns them with it.
    pub fn part(&self, reason: impl Fn(&RoomName) -> Option<String>) -> Vec<(RoomName, String)> {
        let rooms = self.rooms().into_iter();
        let reasons = rooms.filter_map(|room| Some((reason(&room)?, room)));
        let parted = reasons.filter(|(_, room)| self.remove(room));
        parted.map(|(reason, room)| (room, reason)).collect()
    }
}
