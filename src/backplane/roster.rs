//! The roster: which users are connected to this instance, in which rooms, and with how many
//! connections. Both backplanes keep one.
//!
//! It decides when a user is here (their first connection) and when they are gone (their last one
//! left cleanly, or broke off and the grace passed), and so what the backplane has to tell the
//! others. Time is an argument; nothing here waits.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::Departure;
use crate::message::{MemberList, PresenceChange, Revision, RoomName, UserName};

#[derive(Debug, Clone, Default)]
struct UserConnections {
    connections: usize,
    /// When the user is gone, unless they are back before.
    gone_at: Option<Instant>,
}

/// A user is here now, or gone, in one room.
pub(super) type RosterChange = (RoomName, PresenceChange);

/// The users that are connected to this instance.
#[derive(Debug, Clone)]
pub(super) struct Roster {
    grace: Duration,
    rooms: HashMap<RoomName, BTreeMap<UserName, UserConnections>>,
    /// The number of users in their grace. While there are none, [`Roster::expire`] costs nothing.
    leaving: usize,
    /// The last change.
    revision: Revision,
}

impl Roster {
    /// An empty roster. It keeps a user whose connection broke off for `grace`.
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            grace,
            rooms: HashMap::new(),
            leaving: 0,
            revision: Revision::ZERO,
        }
    }

    /// A connection of `user` entered `room`. Returns the change if the user was not here before.
    pub(super) fn arrive(&mut self, room: &RoomName, user: &UserName) -> Option<RosterChange> {
        let users = self.rooms.entry(room.clone()).or_default();
        let new = !users.contains_key(user);
        let presence = users.entry(user.clone()).or_default();
        presence.connections += 1;
        if presence.gone_at.take().is_some() {
            self.leaving -= 1;
        }
        new.then(|| self.change(room, user, true))
    }

    /// A connection of `user` left `room`. Returns the change if the user is gone.
    pub(super) fn depart(
        &mut self,
        room: &RoomName,
        user: &UserName,
        departure: Departure,
        now: Instant,
    ) -> Option<RosterChange> {
        let presence = self.rooms.get_mut(room)?.get_mut(user)?;
        presence.connections = presence.connections.checked_sub(1)?;
        if presence.connections > 0 {
            return None;
        }
        match departure {
            Departure::Clean => Some(self.remove(room, user)),
            Departure::Dropped => {
                presence.gone_at = Some(now + self.grace);
                self.leaving += 1;
                None
            }
        }
    }

    /// Whether any user is in their grace.
    pub(super) fn is_anyone_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// Takes out those whose grace has passed.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<RosterChange> {
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
        self.leaving -= gone.len();
        let gone = gone.iter().map(|(room, user)| self.remove(room, user));
        gone.collect()
    }

    /// The users in `room`, in alphabetical order.
    pub(super) fn users(&self, room: &RoomName) -> Vec<UserName> {
        self.rooms
            .get(room)
            .map(|users| users.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// The number of users in `room`.
    pub(super) fn count(&self, room: &RoomName) -> usize {
        self.rooms.get(room).map_or(0, BTreeMap::len)
    }

    /// Whether anybody is in `room`.
    pub(super) fn has_users_in(&self, room: &RoomName) -> bool {
        self.rooms.contains_key(room)
    }

    /// The rooms that anybody is in.
    pub(super) fn rooms(&self) -> impl Iterator<Item = &RoomName> {
        self.rooms.keys()
    }

    /// The users in `room`, with the last change of this roster.
    pub(super) fn members(&self, room: &RoomName) -> MemberList {
        MemberList {
            users: self.users(room).into(),
            revision: self.revision,
        }
    }

    fn remove(&mut self, room: &RoomName, user: &UserName) -> RosterChange {
        if let Some(users) = self.rooms.get_mut(room) {
            users.remove(user);
            if users.is_empty() {
                self.rooms.remove(room);
            }
        }
        self.change(room, user, false)
    }

    fn change(&mut self, room: &RoomName, user: &UserName, joined: bool) -> RosterChange {
        self.revision = self.revision.next();
        let change = PresenceChange {
            user: user.clone(),
            joined,
            revision: self.revision,
        };
        (room.clone(), change)
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
        assert!(roster.arrive(&room, &alice).is_some());
        assert!(roster.arrive(&room, &alice).is_none());
        assert!(
            roster
                .depart(&room, &alice, Departure::Clean, now)
                .is_none()
        );
        assert!(
            roster
                .depart(&room, &alice, Departure::Clean, now)
                .is_some()
        );
        assert!(roster.users(&room).is_empty());
        assert_eq!(roster.rooms().count(), 0);
        assert!(
            roster
                .depart(&room, &alice, Departure::Clean, now)
                .is_none()
        );
    }

    #[test]
    fn who_breaks_off_is_missed_after_the_grace_and_not_if_they_come_back() {
        let (room, alice) = names();
        let mut roster = Roster::new(GRACE);
        let now = Instant::now();
        roster.arrive(&room, &alice);
        assert!(
            roster
                .depart(&room, &alice, Departure::Dropped, now)
                .is_none()
        );
        assert_eq!(roster.users(&room).len(), 1);
        assert!(roster.expire(now + GRACE / 2).is_empty());
        assert!(
            roster.arrive(&room, &alice).is_none(),
            "a reconnect shows nothing"
        );
        assert!(roster.expire(now + 2 * GRACE).is_empty());
        roster.depart(&room, &alice, Departure::Dropped, now);
        let gone = roster.expire(now + GRACE);
        let gone: Vec<_> = gone.iter().map(|(_, change)| &change.user).collect();
        assert_eq!(gone, [&alice]);
        assert!(roster.arrive(&room, &alice).is_some());
    }

    #[test]
    fn somebody_is_leaving_until_they_are_back_or_their_grace_is_over() {
        let (room, alice) = names();
        let mut roster = Roster::new(GRACE);
        let now = Instant::now();
        assert!(!roster.has_users_in(&room));
        roster.arrive(&room, &alice);
        assert!(roster.has_users_in(&room) && !roster.is_anyone_leaving());
        roster.depart(&room, &alice, Departure::Dropped, now);
        assert!(roster.is_anyone_leaving());
        roster.arrive(&room, &alice);
        assert!(!roster.is_anyone_leaving());
        roster.depart(&room, &alice, Departure::Dropped, now);
        assert_eq!(roster.expire(now + GRACE).len(), 1);
        assert!(!roster.has_users_in(&room) && !roster.is_anyone_leaving());
    }
}
