//! One room: its members on this instance, by the worker that serves them, and its [`Roll`].
//!
//! A member has one worker from its entry to its exit, and takes all events from that worker, in the
//! order in which the room's deliveries were handed over. While a room is small, a
//! new member gets the room's home worker. In a large room it gets the worker with the fewest members.

use std::sync::{Arc, Mutex};

use super::broadcast::{Broadcast, EventBatch};
use super::member::Member;
use super::roll::{News, Roll};
use crate::message::{ConnectionId, MemberList, MessageId, RoomName, UserName};
use crate::protocol::{Encoding, Event};
use crate::threads::lock;
use crate::websocket::frame::Frame;

/// A room of more members than this is spread over the workers. To hand a message to one more worker
/// costs about as much as to write to a few members.
const SMALL: usize = 32;

/// The most bytes of text in one push. A write takes 64 KiB.
const PUSH_BYTES: usize = 32 * 1024;

pub(super) struct Room {
    pub(super) name: RoomName,
    pub(super) roll: Mutex<Roll>,
    seats: Mutex<Seats>,
    /// Each worker's members.
    members: Box<[Mutex<Vec<Member>>]>,
}

/// The number of members, and whether any may still come.
#[cfg_attr(test, derive(Clone))]
struct Seats {
    by_worker: Box<[usize]>,
    by_encoding: [usize; Encoding::ALL.len()],
    /// The last member has left. Nobody enters a closed room; the next one makes a new room.
    closed: bool,
}

impl Seats {
    fn total(&self) -> usize {
        self.by_worker.iter().sum()
    }

    fn of(&mut self, encoding: Encoding) -> &mut usize {
        &mut self.by_encoding[encoding as usize]
    }
}

impl Room {
    pub(super) fn new(name: RoomName, workers: usize) -> Self {
        Self {
            name,
            roll: Mutex::default(),
            seats: Mutex::new(Seats {
                by_worker: vec![0; workers].into(),
                by_encoding: [0; Encoding::ALL.len()],
                closed: false,
            }),
            members: (0..workers).map(|_| Mutex::default()).collect(),
        }
    }

    /// Adds a member; `home` is the worker of the room while it is small. Gives the member back if the
    /// room is closed.
    pub(super) fn add(&self, member: Member, home: usize) -> Result<(), Member> {
        let mut seats = lock(&self.seats);
        if seats.closed {
            return Err(member);
        }
        let worker = match seats.total() {
            0..SMALL => home,
            _ => {
                let loads = seats.by_worker.iter().enumerate();
                loads
                    .min_by_key(|(_, load)| **load)
                    .map_or(home, |(worker, _)| worker)
            }
        };
        seats.by_worker[worker] += 1;
        *seats.of(member.encoding()) += 1;
        drop(seats);
        // A message delivered before the next line does not reach this member. The log holds it already,
        // and the member reads the log next.
        lock(&self.members[worker]).push(member);
        Ok(())
    }

    /// Removes a member. True if it was the last one, and the room is closed now.
    pub(super) fn remove(&self, connection: ConnectionId) -> bool {
        for (worker, members) in self.members.iter().enumerate() {
            let mut members = lock(members);
            let index = members
                .iter()
                .position(|member| member.connection() == connection);
            let Some(index) = index else { continue };
            let member = members.swap_remove(index);
            drop(members);
            let mut seats = lock(&self.seats);
            seats.by_worker[worker] -= 1;
            *seats.of(member.encoding()) -= 1;
            seats.closed = seats.total() == 0;
            return seats.closed;
        }
        false
    }

    /// The connections here.
    pub(super) fn members(&self) -> Vec<(ConnectionId, Option<UserName>)> {
        let mut all = Vec::new();
        for members in &self.members {
            let members = lock(members);
            all.extend(members.iter().map(|one| (one.connection(), one.user())));
        }
        all
    }

    /// See [`super::Hub::release`].
    pub(super) fn release(
        &self,
        connection: ConnectionId,
        last: Option<MessageId>,
        list: &MemberList,
        first: Option<Frame>,
    ) {
        lock(&self.roll).show(list);
        self.with_member(connection, |member| {
            member.release(last, list, first);
        });
    }

    /// The workers that have a member here.
    pub(super) fn workers(&self) -> Vec<usize> {
        let seats = lock(&self.seats);
        let loads = seats.by_worker.iter().enumerate();
        loads
            .filter(|(_, load)| **load > 0)
            .map(|(worker, _)| worker)
            .collect()
    }

    /// Gives events to all members of one worker, in order. Events of one priority that follow each
    /// other are one push for each member. False if no member needs any.
    pub(super) fn push(&self, worker: usize, broadcasts: &[Arc<Broadcast>]) -> bool {
        let mut told = false;
        let by_encoding = lock(&self.seats).by_encoding;
        let mut bytes = 0;
        let together = broadcasts.chunk_by(|one, next| {
            bytes += one.size();
            let fits = bytes + next.size() <= PUSH_BYTES;
            let together = fits && one.event.priority() == next.event.priority();
            if !together {
                bytes = 0;
            }
            together
        });
        for broadcasts in together {
            let batch = EventBatch::new(broadcasts);
            // Encoded here: those that enter and leave must not wait for it.
            for (encoding, members) in Encoding::ALL.into_iter().zip(by_encoding) {
                if members > 0 {
                    batch.frame(encoding, &[]);
                }
            }
            for member in &mut *lock(&self.members[worker]) {
                told |= member.take(&batch);
            }
        }
        told
    }

    /// The event that tells members of a join or leave.
    pub(super) fn broadcast(&self, news: News) -> Arc<Broadcast> {
        let (room, user) = (self.name.clone(), news.user);
        let event = match news.joined {
            true => Event::Joined {
                room,
                user,
                looks_like: news.looks_like,
            },
            false => Event::Left { room, user },
        };
        Broadcast::for_listed(event, news.listed)
    }

    /// A copy, whose members have the same outboxes.
    #[cfg(test)]
    pub(super) fn copy(&self) -> Self {
        let members = self.members.iter();
        let members = members.map(|members| Mutex::new(lock(members).clone()));
        let members = members.collect();
        // One lock at a time.
        let roll = lock(&self.roll).clone();
        let seats = lock(&self.seats).clone();
        Self {
            name: self.name.clone(),
            roll: Mutex::new(roll),
            seats: Mutex::new(seats),
            members,
        }
    }

    /// Tells one state from another by joins and leaves, for a model.
    #[cfg(test)]
    pub(super) fn hash_at(&self, now: std::time::Instant, hasher: &mut impl std::hash::Hasher) {
        lock(&self.roll).hash_at(now, hasher);
        for members in &self.members {
            lock(members).iter().for_each(|member| member.hash(hasher));
        }
    }

    /// Calls `run` with a member of this connection, if it is here.
    pub(super) fn with_member(&self, connection: ConnectionId, run: impl FnOnce(&mut Member)) {
        for members in &self.members {
            let mut members = lock(members);
            let member = members
                .iter_mut()
                .find(|member| member.connection() == connection);
            if let Some(member) = member {
                return run(member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::outbox::{Queue, outbox};
    use crate::message::{InstanceId, Message, Revision, Via};

    fn lobby(workers: usize) -> Room {
        Room::new(RoomName::lobby(), workers)
    }

    /// Adds a member with this budget, which the room does not hold events back for.
    fn enters(room: &Room, connection: u64, budget: usize) -> Queue {
        let (outbox, queue) = outbox(Encoding::Json, budget, None);
        let via = Via {
            instance: InstanceId::random(),
            connection: ConnectionId(connection),
        };
        let mut member = Member::reading(via, None, outbox);
        let list = MemberList {
            users: [].into(),
            revision: Revision::ZERO,
        };
        member.release(None, &list, None);
        assert!(room.add(member, 0).is_ok());
        queue
    }

    fn messages(count: u64, bytes: usize) -> Vec<Arc<Broadcast>> {
        let message = |number| Event::Message {
            room: RoomName::lobby(),
            message: Message {
                id: MessageId { millis: 1, number },
                from: "bob".parse().expect("a name"),
                text: "x".repeat(bytes),
                at: 1,
            },
            looks_like: None,
            via: None,
        };
        (1..=count).map(message).map(Broadcast::new).collect()
    }

    #[test]
    fn a_room_is_on_one_worker_until_it_is_large() {
        let room = lobby(3);
        let _members: Vec<_> = (0..32).map(|one| enters(&room, one, 100)).collect();
        assert_eq!(room.workers(), [0]);
        let _next = enters(&room, 32, 100);
        assert_eq!(room.workers(), [0, 1]);
    }

    #[test]
    fn messages_are_pushed_together_as_long_as_their_text_fits_into_one_push() {
        for (count, bytes, pushes) in [(1, 40_000, 1), (2, 10, 1), (3, 10_000, 1), (7, 10_000, 3)] {
            let room = lobby(1);
            let queue = enters(&room, 1, 1_000_000);
            assert!(room.push(0, &messages(count, bytes)));
            assert_eq!(queue.length(), pushes, "{count} messages of {bytes} bytes");
        }
    }

    /// What is pushed together is shed together.
    #[test]
    fn a_message_behind_a_notice_is_not_shed_with_it() {
        let room = lobby(1);
        let queue = enters(&room, 1, 1_000);
        room.push(0, &messages(1, 600));
        let typing = Event::Typing {
            room: RoomName::lobby(),
            user: "bob".parse().expect("a name"),
        };
        let mut both = vec![Broadcast::new(typing)];
        both.extend(messages(2, 10).pop());
        room.push(0, &both);
        assert_eq!(queue.length(), 2);
    }
}
