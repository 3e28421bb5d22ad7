//! A scene: two instances, and in each of some rooms a member on both and a speaker on the second.

use std::collections::BTreeMap;

use hubbub::message::MessageId;

use super::checker::{Speaker, Witness, check};
use super::hubbub::Hubbub;

pub(crate) struct Scene {
    pub(crate) here: Hubbub,
    pub(crate) there: Hubbub,
    rooms: Vec<Room>,
}

struct Room {
    witnesses: [Witness; 2],
    speaker: Speaker,
    said: BTreeMap<MessageId, String>,
}

impl Scene {
    /// Two instances with these options, and members in these rooms.
    pub(crate) fn on(arguments: &[&str], rooms: &[String]) -> Self {
        let (here, there) = (Hubbub::with(arguments), Hubbub::with(arguments));
        let rooms = rooms.iter().map(|room| Room {
            witnesses: [
                Witness::enter(&here.url(), "one", room),
                Witness::enter(&there.url(), "two", room),
            ],
            speaker: Speaker::enter(&there.url(), "speaker", room),
            said: BTreeMap::new(),
        });
        let rooms = rooms.collect();
        Self { here, there, rooms }
    }

    /// Says this in every room, and waits until it is acknowledged.
    pub(crate) fn says(&mut self, text: &str) {
        for room in 0..self.rooms.len() {
            self.says_in(room, text);
        }
    }

    /// Says this in one of the rooms, and waits until it is acknowledged.
    pub(crate) fn says_in(&mut self, room: usize, text: &str) {
        let room = &mut self.rooms[room];
        room.said.insert(room.speaker.says(text), text.to_owned());
    }

    /// Says so many lines in every room, with `meanwhile` after each.
    pub(crate) fn talks(&mut self, lines: usize, mut meanwhile: impl FnMut(usize)) {
        for n in 0..lines {
            self.says(&format!("line {n}"));
            meanwhile(n);
        }
    }

    /// Panics unless each member saw everything, once and in order, or was told of a gap. Returns the number of
    /// gaps that they were told of.
    pub(crate) fn ends(mut self) -> usize {
        self.says("the end");
        let mut gaps = 0;
        for room in &self.rooms {
            for witness in &room.witnesses {
                let seen = witness.has_seen("the end");
                gaps += seen.iter().filter(|one| one.is_gap()).count();
                assert_eq!(witness.reconnects(), 0, "nobody was disconnected");
            }
            let witnesses: Vec<_> = room.witnesses.iter().collect();
            check(&witnesses, &room.said);
        }
        gaps
    }
}
