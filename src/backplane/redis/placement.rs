//! Placement: which server a room is on. Pure functions of the room's name; nothing here connects.
//!
//! Several independent servers share the rooms by a consistent hash of their names; a cluster shares them by
//! the hash slot of their keys.

use std::borrow::Cow;
use std::sync::Arc;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::message::RoomName;

/// Characters that would make a key ambiguous, or move a cluster's hash tag.
pub(super) const KEY_SYNTAX: &AsciiSet = &CONTROLS.add(b':').add(b'{').add(b'}').add(b'%');

/// The number of hash slots in a cluster
/// (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model>).
pub(super) const SLOTS: u16 = 16_384;

/// The hash tag of a room's keys: its name, without characters that have a meaning in keys.
pub(super) fn tag(room: &RoomName) -> Cow<'_, str> {
    utf8_percent_encode(room.as_str(), KEY_SYNTAX).into()
}

/// The hash slot of the keys with this tag.
pub(super) fn slot(tag: &str) -> u16 {
    crc16(tag.as_bytes()) % SLOTS
}

/// CRC-16/XMODEM, as the cluster specification has it.
fn crc16(bytes: &[u8]) -> u16 {
    const POLYNOMIAL: u16 = 0x1021;
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc: u16, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ POLYNOMIAL
            }
        })
    })
}

/// Which of so many servers a room is on. One more server at the end of the list takes an even share of the
/// rooms from each of the others; all other rooms stay where they are (Lamping and Veach, "A Fast, Minimal
/// Memory, Consistent Hash Algorithm", <https://arxiv.org/abs/1406.2294>).
pub(super) fn server_of(room: &RoomName, servers: usize) -> usize {
    let mut key = hash(room.as_str());
    let (mut chosen, mut next) = (0, 0);
    while next < servers as u64 {
        chosen = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let jump = (1_u64 << 31) as f64 / ((key >> 33) + 1) as f64;
        next = ((chosen + 1) as f64 * jump) as u64;
    }
    chosen as usize
}

/// FNV-1a and the finalizer of MurmurHash3. Without the finalizer, nine of ten short names are on one of three
/// servers. Instances of all versions must agree on it, so it is written out here.
fn hash(text: &str) -> u64 {
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// A set of hash slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotSet(Box<[bool]>);

impl SlotSet {
    pub(super) fn empty() -> Self {
        Self(vec![false; usize::from(SLOTS)].into())
    }

    pub(super) fn insert(&mut self, slot: u16) {
        self.0[usize::from(slot)] = true;
    }

    fn contains(&self, slot: u16) -> bool {
        self.0[usize::from(slot)]
    }

    /// The next number after this one, around the end, whose decimal form is a hash tag of a slot in this set; `None`
    /// if the set is empty.
    pub(super) fn tag_after(&self, last: u32) -> Option<u32> {
        if !self.0.contains(&true) {
            return None;
        }
        // Every slot has a tag among these.
        let numbers = 10 * u32::from(SLOTS);
        let numbers = (last + 1..numbers).chain(0..=last.min(numbers));
        numbers
            .into_iter()
            .find(|number| self.contains(slot(&number.to_string())))
    }
}

/// The rooms that are on one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Share {
    /// All: it is the only server.
    All,
    /// Those of this index among so many independent servers.
    Part { index: usize, servers: usize },
    /// Those in these slots of a cluster.
    Slots(Arc<SlotSet>),
}

impl Share {
    pub(super) fn holds(&self, room: &RoomName) -> bool {
        match self {
            Self::All => true,
            Self::Part { index, servers } => server_of(room, *servers) == *index,
            Self::Slots(slots) => slots.contains(slot(&tag(room))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> RoomName {
        name.parse().expect("a name")
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // As CLUSTER KEYSLOT answers.
        assert_eq!(slot("foo"), 12_182);
        assert_eq!(slot("bar"), 5061);
    }

    #[test]
    fn short_names_are_spread_evenly() {
        let names = [
            "lobby", "ops", "dev", "test", "general", "random", "news", "help", "team", "chat",
            "a", "b", "c", "d", "e", "f", "g", "h", "room1", "room2", "room3", "room4", "room5",
            "room6", "room7", "room8", "room9", "r1", "r2", "r3",
        ];
        for servers in 2..5 {
            let mut rooms = vec![0; servers];
            for name in names {
                rooms[server_of(&room(name), servers)] += 1;
            }
            let fair = names.len() / servers;
            for count in &rooms {
                assert!((fair / 2..=2 * fair).contains(count), "{rooms:?}");
            }
        }
    }

    #[test]
    fn one_more_server_takes_rooms_and_moves_no_others() {
        let rooms: Vec<_> = (0..10_000).map(|n| room(&format!("room{n}"))).collect();
        let moved = rooms.iter().filter(|room| {
            let (before, after) = (server_of(room, 3), server_of(room, 4));
            assert!(after == before || after == 3);
            after != before
        });
        let moved = moved.count();
        assert!((2300..2700).contains(&moved), "{moved} of 10000");
    }

    #[test]
    fn every_slot_has_a_tag() {
        for only in 0..SLOTS {
            let mut slots = SlotSet::empty();
            assert_eq!(slots.tag_after(0), None);
            if only % 997 == 0 {
                slots.insert(only);
                let tag = slots.tag_after(0).expect("a tag");
                assert_eq!(slot(&tag.to_string()), only);
                let next = slots.tag_after(tag).expect("a tag");
                assert_eq!(slot(&next.to_string()), only);
            }
        }
    }

    #[test]
    fn each_room_is_on_one_server() {
        let shares: Vec<_> = (0..3)
            .map(|index| Share::Part { index, servers: 3 })
            .collect();
        for n in 0..100 {
            let room = room(&format!("room{n}"));
            assert!(Share::All.holds(&room));
            assert_eq!(shares.iter().filter(|share| share.holds(&room)).count(), 1);
        }
    }

    #[test]
    fn instances_of_all_versions_look_for_a_room_on_the_same_server() {
        // Of 2, 3, 7 and 100 servers; computed apart from this code.
        for (name, servers) in [
            ("lobby", [1, 2, 2, 65]),
            ("Zürich", [1, 1, 3, 85]),
            ("a b", [0, 0, 0, 26]),
            ("日本", [1, 2, 5, 99]),
            ("general", [0, 0, 5, 93]),
        ] {
            let of = |count| server_of(&room(name), count);
            assert_eq!([2, 3, 7, 100].map(of), servers, "{name}");
        }
    }

    #[test]
    fn the_tags_of_a_set_of_slots_come_in_turn() {
        let mut slots = SlotSet::empty();
        for tag in ["7", "9"] {
            slots.insert(slot(tag));
        }
        assert_eq!(slots.tag_after(0), Some(7));
        assert_eq!(slots.tag_after(7), Some(9));
        let mut last = 9;
        while let Some(next) = slots.tag_after(last).filter(|next| *next > last) {
            assert!([slot("7"), slot("9")].contains(&slot(&next.to_string())));
            last = next;
        }
        assert_eq!(slots.tag_after(last), Some(7), "around the end");
        let (seven, other) = (Share::Slots(Arc::new(slots)), room("foo"));
        assert!(seven.holds(&room("7")) && !seven.holds(&other));
    }
}
