//! What was acknowledged lately. After a failover the new master is asked whether it has it: the old one may have
//! taken messages that its replica never got.

use std::collections::{HashMap, HashSet};
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
    lately: HashMap<RoomName, (MessageId, Instant)>,
    /// Those of them since which a master was lost. There may be several of a room: whether one is there says
    /// nothing about another that a later master took.
    in_doubt: HashSet<(RoomName, MessageId)>,
}

impl Acknowledged {
    pub(super) fn note(&self, room: &RoomName, id: MessageId) {
        let last = (id, Instant::now());
        lock(&self.rooms).lately.insert(room.clone(), last);
    }

    /// The master was lost: what it acknowledged lately is in doubt.
    pub(super) fn doubt(&self) {
        let rooms = &mut *lock(&self.rooms);
        // They stay: the master that is asked first may be the old one still.
        for (room, (id, at)) in &rooms.lately {
            if at.elapsed() < LATELY {
                rooms.in_doubt.insert((room.clone(), *id));
            }
        }
    }

    /// This message is still in doubt.
    pub(super) fn doubt_again(&self, room: RoomName, id: MessageId) {
        lock(&self.rooms).in_doubt.insert((room, id));
    }

    /// Takes out what is in doubt in the rooms of a server, and forgets what is not lately any more.
    pub(super) fn in_doubt(&self, share: &Share) -> Vec<(RoomName, MessageId)> {
        let rooms = &mut *lock(&self.rooms);
        rooms.lately.retain(|_, (_, at)| at.elapsed() < LATELY);
        let doubted = rooms.in_doubt.extract_if(|(room, _)| share.holds(room));
        doubted.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_of_a_master_puts_what_was_last_acknowledged_in_doubt() {
        let (room, acknowledged) = (RoomName::lobby(), Acknowledged::default());
        let id = |number| MessageId { millis: 1, number };
        acknowledged.note(&room, id(1));
        acknowledged.note(&room, id(2));
        acknowledged.doubt();
        // By a master that is the old one still, and is lost at once.
        acknowledged.note(&room, id(3));
        acknowledged.doubt();
        let ids = || {
            let doubted = acknowledged.in_doubt(&Share::All);
            let ids: std::collections::BTreeSet<_> =
                doubted.into_iter().map(|(_, id)| id).collect();
            ids.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(ids(), [id(2), id(3)]);
        assert_eq!(ids(), [], "they are asked for once");
        acknowledged.doubt();
        assert_eq!(ids(), [id(3)], "and again when another master is lost");
        acknowledged.doubt_again(RoomName::lobby(), id(3));
        assert_eq!(
            ids(),
            [id(3)],
            "and again when the question was not answered"
        );
    }
}
