//! Saying things at a rate, or as fast as they come back, and checking what every member hears.
//!
//! A message's time counts from when it was due, not from when it could be sent: a server that holds
//! its sender up does not look faster for it. Of each room, only a window of messages may be on its
//! way to its slowest member: so "as fast as it goes" finds how fast a server delivers, not how much
//! it can pile up, and a rate beyond that shows in the times.

use std::time::{Duration, Instant};

use super::BenchError;
use super::crowd::{Crowd, Guests, Listener, Mouth};
use super::tally::{Heard, Histogram, Track};
use super::window::Room;
use super::wire::{Stamp, Stamps};

/// When nothing is heard for so many ticks, what is still on its way is given up. Ticks, and no time:
/// each has looked, however long a busy machine kept the meter from it.
const QUIET_TICKS: u32 = 30;

/// How long what is on its way at the end may take, while some of it keeps coming.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);

/// How often somebody is told how it goes.
const TICK: Duration = Duration::from_millis(100);

/// What is said.
#[derive(Debug, Clone)]
pub(super) struct Speech {
    /// Tells this run's messages from all others.
    pub(super) run: u32,
    /// Messages a second over all rooms; 0 for as fast as they come back.
    pub(super) rate: f64,
    pub(super) size: usize,
    pub(super) time: Duration,
    pub(super) window: u32,
}

/// One speech, and what is heard of it.
pub(super) struct Load {
    speech: Speech,
    guests: Guests,
    begin: Instant,
    speaking: bool,
    stamps: Stamps,
    frames: Vec<u8>,
    /// How many messages were said in all rooms.
    said: u64,
    /// How many there are to say, if there is a rate.
    planned: u64,
    rooms: Vec<Room>,
    /// The rooms whose window has space again.
    ripe: Vec<usize>,
    tracks: Vec<Track>,
    complaint: Option<String>,
    pub(super) times: Histogram,
    pub(super) delivered: u64,
    pub(super) doubled: u64,
    pub(super) out_of_order: u64,
    last_heard: Instant,
    /// For how many ticks nothing was heard.
    quiet_ticks: u32,
    /// Whether more was coming at the end.
    still_coming: bool,
}

impl Load {
    pub(super) fn new(speech: Speech, guests: &Guests) -> Self {
        let begin = Instant::now();
        let mut rooms: Vec<_> = (0..guests.rooms)
            .map(|_| Room::new(speech.window))
            .collect();
        for lane in guests.senders..guests.count() {
            rooms[guests.room(lane)].members += 1;
        }
        Self {
            begin,
            speaking: true,
            stamps: Stamps::new(speech.run),
            frames: Vec::new(),
            said: 0,
            planned: (speech.rate * speech.time.as_secs_f64()) as u64,
            ripe: (0..rooms.len()).collect(),
            rooms,
            tracks: vec![Track::default(); guests.members],
            complaint: None,
            times: Histogram::new(),
            delivered: 0,
            doubled: 0,
            out_of_order: 0,
            last_heard: begin,
            quiet_ticks: 0,
            still_coming: false,
            speech,
            guests: guests.clone(),
        }
    }

    /// Speaks and listens until all is heard, or nothing more comes. `tick` is told how it goes.
    pub(super) fn run(
        &mut self,
        crowd: &mut Crowd,
        tick: &mut dyn FnMut(&Self),
    ) -> Result<(), BenchError> {
        let end = self.begin + self.speech.time;
        let mut next_tick = self.begin;
        let mut last_word = end + DRAIN_WITHIN;
        self.meanwhile(self.begin, &mut crowd.mouth());
        loop {
            let now = Instant::now();
            if now >= end && self.speaking {
                self.speaking = false;
                last_word = now + DRAIN_WITHIN;
            }
            if now >= next_tick {
                tick(self);
                next_tick = now + TICK;
                self.quiet_ticks += 1;
            }
            let quiet = self.quiet_ticks > QUIET_TICKS;
            if !self.speaking && (self.delivered == self.expected() || quiet || now >= last_word) {
                self.still_coming = !quiet;
                return Ok(());
            }
            if quiet {
                self.give_up();
            }
            let mut until = next_tick.min(if self.speaking { end } else { last_word });
            if let Some(due) = self.due() {
                until = until.min(due);
            }
            crowd.listen(self, until)?;
            check_senders(crowd, self.complaint.take())?;
        }
    }

    /// When the next message is due, if there is a rate and its room has space for it.
    fn due(&self) -> Option<Instant> {
        let room = &self.rooms[self.next_room()];
        let space = room.on_their_way() < self.speech.window;
        (self.speaking && space && self.said < self.planned)
            .then(|| self.begin + Duration::from_secs_f64(self.said as f64 / self.speech.rate))
    }

    fn next_room(&self) -> usize {
        (self.said % self.rooms.len() as u64) as usize
    }

    fn give_up(&mut self) {
        self.quiet_ticks = 0;
        self.rooms.iter_mut().for_each(Room::give_up);
        self.ripe = (0..self.rooms.len()).collect();
    }

    fn write(&mut self, index: usize, due: Instant) {
        let at = due.saturating_duration_since(self.begin).as_micros() as u64;
        let room = &mut self.rooms[index];
        let stamp = Stamp {
            room: index,
            sequence: room.said,
            at,
        };
        self.stamps.write(stamp, self.speech.size, &mut self.frames);
        room.said += 1;
        self.said += 1;
    }

    fn speak_at_rate(&mut self, now: Instant, mouth: &mut Mouth<'_>) {
        while let Some(due) = self.due().filter(|&due| due <= now) {
            let room = self.next_room();
            if !mouth.is_free(room) {
                return;
            }
            self.frames.clear();
            self.write(room, due);
            mouth.say(room, &self.frames);
        }
    }

    /// Fills the windows. One is filled when it is half empty, so that its sender's writes are worth
    /// it.
    fn speak_at_once(&mut self, now: Instant, mouth: &mut Mouth<'_>) {
        let mut ripe = std::mem::take(&mut self.ripe);
        ripe.retain(|&room| {
            if !mouth.is_free(room) {
                return true;
            }
            self.frames.clear();
            while self.rooms[room].on_their_way() < self.speech.window {
                self.write(room, now);
            }
            mouth.say(room, &self.frames);
            false
        });
        self.ripe = ripe;
    }

    /// How many messages were said.
    pub(super) fn sent(&self) -> u64 {
        self.said
    }

    /// How many were due, but had no space in their window.
    pub(super) fn unsent(&self) -> u64 {
        self.planned.saturating_sub(self.said)
    }

    /// How often they should have been heard.
    pub(super) fn expected(&self) -> u64 {
        let rooms = self.rooms.iter();
        rooms
            .map(|room| u64::from(room.said) * u64::from(room.members))
            .sum()
    }

    /// How often they were not, and will not be: a later one came, or nothing comes any more.
    pub(super) fn lost(&self) -> u64 {
        let skipped: u64 = self.tracks.iter().map(Track::skipped).sum();
        skipped + if self.still_coming { 0 } else { self.awaited() }
    }

    /// How often they were still on their way when the meter had waited long enough.
    pub(super) fn late(&self) -> u64 {
        if self.still_coming { self.awaited() } else { 0 }
    }

    /// How many are behind the last that each member heard.
    fn awaited(&self) -> u64 {
        let tracks = self.tracks.iter().enumerate();
        tracks
            .map(|(member, track)| {
                let room = self.guests.room(self.guests.senders + member);
                track.awaited(self.rooms[room].said)
            })
            .sum()
    }

    /// From the first message on to the last that was heard.
    pub(super) fn duration(&self) -> Duration {
        self.last_heard.saturating_duration_since(self.begin)
    }

    /// Since when it has been going on.
    pub(super) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }
}

impl Listener for Load {
    fn hears(&mut self, lane: usize, payload: &[u8], now: Instant) {
        // What is late from before is a sign of life, too.
        self.quiet_ticks = 0;
        let Some(stamp) = self.stamps.find(payload) else {
            if lane < self.guests.senders {
                self.complaint = self.complaint.take().or_else(|| complaint(payload));
            }
            return;
        };
        let Some(member) = lane.checked_sub(self.guests.senders) else {
            return;
        };
        let index = self.guests.room(lane);
        let room = &mut self.rooms[index];
        if stamp.room != index || stamp.sequence >= room.said {
            return;
        }
        self.last_heard = now;
        match self.tracks[member].hear(stamp.sequence) {
            Heard::InOrder => {}
            Heard::OutOfOrder => self.out_of_order += 1,
            Heard::Double => {
                self.doubled += 1;
                return;
            }
        }
        self.delivered += 1;
        let since = now.saturating_duration_since(self.begin).as_micros() as u64;
        self.times.add(since.saturating_sub(stamp.at));
        let half = self.speech.window / 2;
        let was_full = room.on_their_way() > half;
        if room.hears(stamp.sequence) && was_full && room.on_their_way() <= half {
            self.ripe.push(index);
        }
    }

    fn loses(&mut self, lane: usize) {
        let index = self.guests.room(lane);
        if lane >= self.guests.senders && self.rooms[index].loses_one() {
            self.ripe.push(index);
        }
    }

    fn meanwhile(&mut self, now: Instant, mouth: &mut Mouth<'_>) {
        if self.speech.rate > 0.0 {
            self.speak_at_rate(now, mouth);
        } else if self.speaking && !self.ripe.is_empty() {
            self.speak_at_once(now, mouth);
        }
    }
}

/// What a server says to a sender whose message it does not take, in either of Hubbub's encodings.
pub(super) fn complaint(payload: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(payload);
    let refused = text.starts_with("! ") || text.contains(r#""type":"error""#);
    refused.then(|| text.into_owned())
}

/// Without its senders there is nothing to measure.
pub(super) fn check_senders(crowd: &Crowd, complaint: Option<String>) -> Result<(), BenchError> {
    if let Some(complaint) = complaint {
        return Err(BenchError::Complaint(complaint));
    }
    let ended = (0..crowd.guests.senders).find_map(|lane| crowd.ended(lane));
    match ended {
        Some(why) => Err(BenchError::SenderGone(why.to_owned())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guests() -> Guests {
        Guests {
            prefix: "u".to_owned(),
            run: 1,
            senders: 1,
            members: 2,
            rooms: 1,
            ramp: 0.0,
        }
    }

    fn load(said: u32) -> Load {
        let speech = Speech {
            run: 7,
            rate: 1.0,
            size: 100,
            time: Duration::from_secs(10),
            window: 4,
        };
        let mut load = Load::new(speech, &guests());
        let begin = load.begin;
        for _ in 0..said {
            load.write(0, begin);
        }
        load
    }

    /// A member hears a message as a server passes it on.
    fn hears(load: &mut Load, member: usize, sequence: u32) {
        let text = format!("name: Qz000000070000{sequence:08x}{:010x}xx", 0);
        let now = Instant::now();
        load.hears(1 + member, text.as_bytes(), now);
    }

    fn hears_all(load: &mut Load, member: usize, sequences: &[u32]) {
        for &sequence in sequences {
            hears(load, member, sequence);
        }
    }

    fn found(load: &Load) -> (u64, u64, u64, u64) {
        (load.delivered, load.lost(), load.doubled, load.out_of_order)
    }

    #[test]
    fn all_that_was_said_and_heard_is_counted() {
        let mut load = load(3);
        for sequence in 0..3 {
            hears(&mut load, 0, sequence);
            hears(&mut load, 1, sequence);
        }
        assert_eq!(found(&load), (6, 0, 0, 0));
        assert_eq!(load.expected(), 6);
    }

    #[test]
    fn a_loss_a_double_and_a_swap_at_one_member_are_each_found() {
        let mut lossy = load(3);
        let mut doubling = load(3);
        let mut swapping = load(3);
        for load in [&mut lossy, &mut doubling, &mut swapping] {
            hears_all(load, 0, &[0, 1, 2]);
        }
        hears_all(&mut lossy, 1, &[0, 2]);
        assert_eq!(found(&lossy), (5, 1, 0, 0));
        hears_all(&mut doubling, 1, &[0, 1, 1, 2]);
        assert_eq!(found(&doubling), (6, 0, 1, 0));
        hears_all(&mut swapping, 1, &[1, 0, 2]);
        assert_eq!(found(&swapping), (6, 0, 0, 1));
    }

    #[test]
    fn nothing_is_due_while_the_window_is_full() {
        let mut load = load(4);
        hears_all(&mut load, 0, &[0, 1, 2, 3]);
        assert!(load.due().is_none());
        hears(&mut load, 1, 0);
        assert!(load.due().is_some());
        load.give_up();
        assert_eq!(load.lost(), 3);
    }

    #[test]
    fn what_was_never_said_and_other_peoples_lines_do_not_count() {
        let mut load = load(1);
        hears(&mut load, 0, 5);
        load.hears(1, b"* bob joined", Instant::now());
        load.hears(0, b"! not sent: too fast", Instant::now());
        assert_eq!(found(&load), (0, 2, 0, 0));
        assert_eq!(load.complaint.as_deref(), Some("! not sent: too fast"));
    }
}
