//! How far one room is: a message is done when every member has heard it, and only a window of
//! messages is on its way.

/// How far one room is.
pub(super) struct Room {
    pub(super) members: u32,
    /// How many of them are gone.
    gone: u32,
    /// How many messages were said there.
    pub(super) said: u32,
    /// How many of them every member has heard, or are given up.
    done: u32,
    /// By how many members each message in the window was heard.
    heard: Vec<u32>,
}

impl Room {
    /// A room without members, in which so many messages may be on their way.
    pub(super) fn new(window: u32) -> Self {
        Self {
            members: 0,
            gone: 0,
            said: 0,
            done: 0,
            heard: vec![0; window as usize],
        }
    }

    fn slot(&mut self, sequence: u32) -> &mut u32 {
        let window = self.heard.len();
        &mut self.heard[sequence as usize % window]
    }

    /// A member has heard a message for the first time. True if that moved the window.
    pub(super) fn hears(&mut self, sequence: u32) -> bool {
        if sequence < self.done {
            return false;
        }
        *self.slot(sequence) += 1;
        self.moves()
    }

    /// A member is gone, and no longer waited for. True if that moved the window.
    pub(super) fn loses_one(&mut self) -> bool {
        self.gone += 1;
        self.moves()
    }

    fn moves(&mut self) -> bool {
        let before = self.done;
        while self.done < self.said && *self.slot(self.done) + self.gone >= self.members {
            *self.slot(self.done) = 0;
            self.done += 1;
        }
        self.done > before
    }

    /// How many messages some member has still to hear.
    pub(super) fn on_their_way(&self) -> u32 {
        self.said - self.done
    }

    /// Waits no longer for those that are on their way.
    pub(super) fn give_up(&mut self) {
        self.done = self.said;
        self.heard.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_waits_for_the_slowest_and_what_is_lost_is_given_up() {
        let mut room = Room::new(4);
        (room.members, room.said) = (2, 4);
        for sequence in 0..4 {
            assert!(!room.hears(sequence));
        }
        assert_eq!(room.on_their_way(), 4);
        // Out of order, it moves when the first is there.
        assert!(!room.hears(1));
        assert!(room.hears(0));
        assert_eq!(room.on_their_way(), 2);
        room.give_up();
        assert_eq!(room.on_their_way(), 0);
        room.said = 8;
        assert!(!room.hears(3));
        assert!(!room.hears(4));
        assert!(room.hears(4));
        assert_eq!(room.on_their_way(), 3);
        assert!(!room.hears(5));
        assert!(room.loses_one());
        assert_eq!(room.on_their_way(), 2);
    }
}
