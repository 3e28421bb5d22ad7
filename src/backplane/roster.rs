//! The roster: which users are connected to this instance, in which rooms, and with how many
//! connections. Both backplanes keep one.
//!
//! It decides when a user is here (their first connection) and when they are gone (their last one
//! left cleanly, or broke off and the grace passed), and so what the backplane has to tell the
//! others. Time is an argument; nothing here waits.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::Departure;
use crate::message::{RoomName, UserName};

#[derive(Debug, Default)]
struct Presence {
    connections: usize,
    /// When the user is gone, unless they are back before.
    gone_at: Option<Instant>,
}

/// The users that are connected to this instance.
#[derive(Debug)]
pub(super) struct Roster {
    grace: Duration,
    rooms: HashMap<RoomName, BTreeMap<UserName, Presence>>,
    /// The number of users in their grace. While there are none, [`Roster::expire`] costs nothing.
    leaving: usize,
}

impl Roster {
    /// An empty roster. It keeps a user whose connection broke off for `grace`.
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            grace,
            rooms: HashMap::new(),
            leaving: 0,
        }
    }

    /// A connection of `user` entered `room`. True if they were not here before.
    pub(super) fn arrive(&mut self, room: &RoomName, user: &UserName) -> bool {
        let users = self.rooms.entry(room.clone()).or_default();
        let new = !users.contains_key(user);
        let presence = users.entry(user.clone()).or_default();
        presence.connections += 1;
        if presence.gone_at.take().is_some() {
            self.leaving -= 1;
        }
        new
    }

    /// A connection of `user` left `room`. True if they are gone.
    pub(super) fn depart(
        &mut self,
        room: &RoomName,
        user: &UserName,
        departure: Departure,
        now: Instant,
    ) -> bool {
        let Some(presence) = self.rooms.get_mut(room).and_then(|r| r.get_mut(user)) else {
            return false;
        };
        if presence.connections == 0 {
            return false;
        }
        presence.connections -= 1;
        if presence.connections > 0 {
            return false;
        }
        match departure {
            Departure::Clean => {
                self.remove(room, user);
                true
            }
            Departure::Dropped => {
                presence.gone_at = Some(now + self.grace);
                self.leaving += 1;
                false
            }
        }
    }

    /// Takes out those whose grace has passed.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(RoomName, UserName)> {
        if self.leaving == 0 {
            return Vec::new();
        }
        let mut gone = Vec::new();
        for (room, users) in &self.rooms {
            for (user, presence) in users {
                if presence.gone_at.is_some_and(|at| at <= now) {
                    gone.push((room.clone(), user.clone()));
                }
            }
        }
        for (room, user) in &gone {
            self.remove(room, user);
        }
        self.leaving -= gone.len();
        gone
    }

    /// The users in `room`, in alphabetical order.
    pub(super) fn users(&self, room: &RoomName) -> Vec<UserName> {
        self.rooms
            .get(room)
            .map(|users| users.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Whether anybody is in `room`.
    pub(super) fn has_users_in(&self, room: &RoomName) -> bool {
        self.rooms.contains_key(room)
    }

    /// The rooms that anybody is in.
    pub(super) fn rooms(&self) -> impl Iterator<Item = &RoomName> {
        self.rooms.keys()
    }

    fn remove(&mut self, room: &RoomName, user: &UserName) {
        if let Some(users) = self.rooms.get_mut(room) {
            users.remove(user);
            if users.is_empty() {
                self.rooms.remove(room);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    fn names() -> (RoomName, UserName) {
        (RoomName::lobby(), "alice".parse().expect("a name"))
    }

    #[test]
    fn only_the_first_connection_arrives_and_only_the_last_one_is_missed() {
        let (room, alice) = names();
        let mut roster = Roster::new(GRACE);
        let now = Instant::now();
        assert!(roster.arrive(&room, &alice));
        assert!(!roster.arrive(&room, &alice));
        assert!(!roster.depart(&room, &alice, Departure::Clean, now));
        assert!(roster.depart(&room, &alice, Departure::Clean, now));
        assert!(roster.users(&room).is_empty());
        assert_eq!(roster.rooms().count(), 0);
        assert!(!roster.depart(&room, &alice, Departure::Clean, now));
    }

    #[test]
    fn who_breaks_off_is_missed_after_the_grace_and_not_if_they_come_back() {
        let (room, alice) = names();
        let mut roster = Roster::new(GRACE);
        let now = Instant::now();
        roster.arrive(&room, &alice);
        assert!(!roster.depart(&room, &alice, Departure::Dropped, now));
        assert_eq!(roster.users(&room).len(), 1);
        assert!(roster.expire(now + GRACE / 2).is_empty());
        assert!(!roster.arrive(&room, &alice), "a reconnect shows nothing");
        assert!(roster.expire(now + 2 * GRACE).is_empty());
        roster.depart(&room, &alice, Departure::Dropped, now);
        assert_eq!(roster.expire(now + GRACE), [(room.clone(), alice.clone())]);
        assert!(roster.arrive(&room, &alice));
    }
}
