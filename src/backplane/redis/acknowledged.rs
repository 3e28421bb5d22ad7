//! What was acknowledged lately. After a failover the new master is asked whether it has it: the old one may have
//! taken messages that its replica never got.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::placement::Share;
use crate::message::{MessageId, RoomName};
use crate::threads::lock;

/// What was acknowledged longer ago was replicated, or the replica would not have been promoted.
const LATELY: Duration = Duration::from_secs(20);

/// The last message of each room that this instance got an acknowledgement for.
#[derive(Default)]
pub(super) struct Acknowledged {
    rooms: Mutex<Rooms>,
}

#[derive(Default)]
struct Rooms {
    /// By the master of now.
    lately: HashMap<RoomName, (MessageId, Instant)>,
    /// By a master that was lost since.
    in_doubt: HashMap<RoomName, MessageId>,
}

impl Acknowledged {
    pub(super) fn note(&self, room: &RoomName, id: MessageId) {
        let last = (id, Instant::now());
        lock(&self.rooms).lately.insert(room.clone(), last);
    }

    /// The master was lost: what it acknowledged lately is in doubt.
    pub(super) fn doubt(&self) {
        let rooms = &mut *lock(&self.rooms);
        for (room, (id, at)) in rooms.lately.drain() {
            if at.elapsed() < LATELY {
                // The first loss is the one to be told of.
                rooms.in_doubt.entry(room).or_insert(id);
            }
        }
    }

    /// This message is still in doubt.
    pub(super) fn doubt_again(&self, room: RoomName, id: MessageId) {
        lock(&self.rooms).in_doubt.entry(room).or_insert(id);
    }

    /// Takes out what is in doubt in the rooms of a server, and forgets what is not lately any more.
    pub(super) fn in_doubt(&self, share: &Share) -> Vec<(RoomName, MessageId)> {
        let rooms = &mut *lock(&self.rooms);
        rooms.lately.retain(|_, (_, at)| at.elapsed() < LATELY);
        let doubted = rooms.in_doubt.extract_if(|room, _| share.holds(room));
        doubted.collect()
    }
}
