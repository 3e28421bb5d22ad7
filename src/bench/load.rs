//! Sending at a rate, or as fast as messages come back, and checking what every member receives.
//!
//! A message's latency counts from when it was due, not from when it could be sent: a server that
//! holds up its sender does not look faster for it. Only a window of a room's messages may be on its
//! way to the slowest member. So a rate of 0 finds how fast a server delivers and not how much it can
//! pile up, and a rate that is too high shows in the latencies.

use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::options::Options;
use crate::tally::{Histogram, Room, Track};
use crate::wire::{Stamp, Stamps};

/// After so many ticks in which nothing came, messages on their way are no longer waited for. It is
/// a number of ticks and not a time, because each tick has polled the sockets, however long a busy
/// machine kept the meter from running.
const QUIET_TICKS: u32 = 30;

/// How long messages may still come after the end.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);

/// How often the progress is shown.
const TICK: Duration = Duration::from_millis(100);

/// How long the first message may take to reach everybody, and how often it is repeated until then: a
/// server may let a user into the room some time after the handshake.
const ECHO_WITHIN: Duration = Duration::from_secs(15);
const ECHO_AGAIN: Duration = Duration::from_millis(500);

/// One measurement.
pub(crate) struct Load<'a> {
    options: &'a Options,
    /// Messages a second; 0 for as fast as they come back, `None` if nothing is sent.
    rate: Option<f64>,
    begin: Instant,
    end: Instant,
    stamps: Stamps,
    frames: Vec<u8>,
    rooms: Vec<Room>,
    /// By member.
    tracks: Vec<Track>,
    pub(crate) times: Histogram,
    sent: u64,
    /// When a member last received a message of this measurement.
    last_heard: Instant,
    /// For how many ticks nothing came.
    quiet_ticks: u32,
    /// The server's answer to a message that it did not take.
    complaint: Option<String>,
}

impl<'a> Load<'a> {
    pub(crate) fn new(options: &'a Options, rate: Option<f64>) -> Self {
        let begin = Instant::now();
        let rooms = (0..options.rooms).map(|room| {
            // The members that are left over go to the first rooms.
            let members = (options.members + options.rooms - 1 - room) / options.rooms;
            Room::new(members as u32, options.window)
        });
        Self {
            options,
            rate,
            begin,
            end: begin + Duration::from_secs_f64(options.seconds),
            stamps: Stamps::new(rand::random()),
            frames: Vec::new(),
            rooms: rooms.collect(),
            tracks: vec![Track::default(); options.members],
            times: Histogram::new(),
            sent: 0,
            last_heard: begin,
            quiet_ticks: 0,
            complaint: None,
        }
    }

    /// Sends and receives until everything has come, or nothing more comes.
    pub(crate) fn run(
        &mut self,
        crowd: &mut Crowd,
        mut tick: impl FnMut(&Self),
    ) -> Result<(), String> {
        let mut next_tick = self.begin;
        self.send_in_all_rooms(crowd);
        loop {
            let now = Instant::now();
            if now >= next_tick {
                tick(self);
                next_tick = now + TICK;
                self.quiet_ticks += 1;
            }
            let is_over = self.is_quiet() || now >= self.end + DRAIN_WITHIN;
            if now >= self.end && (is_over || self.delivered() == self.expected()) {
                tick(self);
                return Ok(());
            }
            if self.is_quiet() {
                self.quiet_ticks = 0;
                self.rooms.iter_mut().for_each(Room::give_up);
                self.send_in_all_rooms(crowd);
            }
            let mut until = next_tick;
            if now < self.end {
                until = until.min(self.end).min(self.due().unwrap_or(self.end));
            }
            self.listen(crowd, until)?;
        }
    }

    fn is_quiet(&self) -> bool {
        self.quiet_ticks > QUIET_TICKS
    }

    /// Waits for messages at most until then, and takes those that are there. Sends after each
    /// connection, so that the reading of a thousand does not hold up what is due.
    fn listen(&mut self, crowd: &mut Crowd, until: Instant) -> Result<(), String> {
        for connection in crowd.ready(until)? {
            let now = Instant::now();
            let room = self.options.room(connection);
            let is_open = crowd.read(connection, |payload| self.hears(connection, payload, now));
            if !is_open && connection >= self.options.senders() {
                self.rooms[room].loses_one();
            }
            self.send(room, now, crowd);
        }
        self.send(0, Instant::now(), crowd);
        if let Some(complaint) = self.complaint.take() {
            let hint = match complaint.contains("fast") {
                true => " (start it with --send-rate 0 to measure it)",
                false => "",
            };
            let complaint = complaint.trim();
            return Err(format!(
                "the server does not take what is sent: {complaint}{hint}"
            ));
        }
        match crowd.gone(0..self.options.senders()) {
            (_, Some(why)) => Err(format!("the server gave up a sender: {why}")),
            (_, None) => Ok(()),
        }
    }

    fn hears(&mut self, connection: usize, payload: &[u8], now: Instant) {
        // A late message of an earlier measurement is a sign of life, too.
        self.quiet_ticks = 0;
        let member = connection.checked_sub(self.options.senders());
        let (member, stamp) = match (member, self.stamps.find(payload)) {
            (Some(member), Some(stamp)) => (member, stamp),
            (None, None) => {
                self.complaint = self.complaint.take().or_else(|| complaint(payload));
                return;
            }
            _ => return,
        };
        let room = &mut self.rooms[self.options.room(connection)];
        if stamp.room != self.options.room(connection) || stamp.sequence >= room.sent {
            return;
        }
        self.last_heard = now;
        if self.tracks[member].hear(stamp.sequence) {
            let since = now.saturating_duration_since(self.begin).as_micros() as u64;
            self.times.add(since.saturating_sub(stamp.due));
            room.hears(stamp.sequence);
        }
    }

    /// When the next message is due, if there is a rate and its room has space for it. The rooms take
    /// turns.
    fn due(&self) -> Option<Instant> {
        let rate = self.rate.filter(|_| self.sent < self.planned())?;
        let has_space = self.rooms[self.next_room()].has_space();
        has_space.then(|| self.begin + Duration::from_secs_f64(self.sent as f64 / rate))
    }

    fn next_room(&self) -> usize {
        (self.sent % self.rooms.len() as u64) as usize
    }

    /// Sends what is due by now; or without a rate, refills the room's window once it is half empty,
    /// so that one write takes many messages.
    fn send(&mut self, room: usize, now: Instant, crowd: &mut Crowd) {
        match self.rate {
            Some(_) if now >= self.end => {}
            Some(0.0) => {
                let is_low = self.rooms[room].on_their_way() <= self.options.window / 2;
                if is_low && crowd.is_free(room) {
                    while self.rooms[room].has_space() {
                        self.add(room, now);
                    }
                    self.flush(room, crowd);
                }
            }
            Some(_) => {
                while let Some(due) = self.due().filter(|&due| due <= now) {
                    let room = self.next_room();
                    if !crowd.is_free(room) {
                        return;
                    }
                    self.add(room, due);
                    self.flush(room, crowd);
                }
            }
            None => {}
        }
    }

    fn send_in_all_rooms(&mut self, crowd: &mut Crowd) {
        for room in 0..self.rooms.len() {
            self.send(room, Instant::now(), crowd);
        }
    }

    /// Puts a room's next message behind the frames that are to be written.
    fn add(&mut self, room: usize, due: Instant) {
        let stamp = Stamp {
            room,
            sequence: self.rooms[room].sent,
            due: due.saturating_duration_since(self.begin).as_micros() as u64,
        };
        let size = self.options.size;
        self.stamps.write(stamp, size, &mut self.frames);
        self.rooms[room].sent += 1;
        self.sent += 1;
    }

    fn flush(&mut self, room: usize, crowd: &mut Crowd) {
        crowd.write(room, &self.frames);
        self.frames.clear();
    }

    /// How many messages there are to send, if there is a rate.
    fn planned(&self) -> u64 {
        (self.rate.unwrap_or(0.0) * self.options.seconds) as u64
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// How many messages were due, but had no space in their window.
    pub(crate) fn unsent(&self) -> u64 {
        self.planned().saturating_sub(self.sent)
    }

    /// How many deliveries there should have been.
    pub(crate) fn expected(&self) -> u64 {
        let rooms = self.rooms.iter();
        rooms
            .map(|room| u64::from(room.sent) * u64::from(room.members))
            .sum()
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.times.total
    }

    /// How many deliveries are missing and will not come: a later one came, or nothing comes any more.
    pub(crate) fn lost(&self) -> u64 {
        let skipped: u64 = self.tracks.iter().map(Track::skipped).sum();
        skipped + if self.is_quiet() { self.awaited() } else { 0 }
    }

    /// How many deliveries were still on their way when the meter had waited long enough.
    pub(crate) fn late(&self) -> u64 {
        if self.is_quiet() { 0 } else { self.awaited() }
    }

    fn awaited(&self) -> u64 {
        let tracks = self.tracks.iter().enumerate();
        tracks
            .map(|(member, track)| track.awaited(self.rooms[member % self.rooms.len()].sent))
            .sum()
    }

    pub(crate) fn doubled(&self) -> u64 {
        self.tracks.iter().map(|track| track.doubled).sum()
    }

    pub(crate) fn out_of_order(&self) -> u64 {
        self.tracks.iter().map(|track| track.out_of_order).sum()
    }

    /// From the beginning to the last delivery.
    pub(crate) fn deliveries_per_s(&self) -> f64 {
        let time = self.last_heard.saturating_duration_since(self.begin);
        self.delivered() as f64 / time.as_secs_f64().max(1e-6)
    }

    /// Seconds since the beginning.
    pub(crate) fn elapsed(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }
}

/// Sends in every room until every member has received something.
pub(crate) fn everybody_hears(options: &Options, crowd: &mut Crowd) -> Result<(), String> {
    let mut load = Load::new(options, None);
    let begin = load.begin;
    let mut again = begin;
    loop {
        let now = Instant::now();
        let deaf = load.tracks.iter().filter(|track| track.is_deaf()).count();
        if deaf == 0 {
            return Ok(());
        }
        if let (_, Some(why)) = crowd.gone(options.senders()..options.connections()) {
            return Err(format!("the server gave up a member: {why}"));
        }
        if now > begin + ECHO_WITHIN {
            return Err(format!(
                "{deaf} members do not hear what is said in their room; does this server pass on \
                 what it is sent, and is {{room}} at the right place in --url?"
            ));
        }
        if now >= again {
            again = now + ECHO_AGAIN;
            for room in 0..options.rooms {
                load.rooms[room].give_up();
                load.add(room, now);
                load.flush(room, crowd);
            }
        }
        load.listen(crowd, again.min(now + Duration::from_millis(10)))?;
    }
}

/// What a server says to a sender whose message it does not take, in either of Hubbub's encodings.
fn complaint(payload: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(payload);
    let refused = text.starts_with("! ") || text.contains(r#""type":"error""#);
    refused.then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn options() -> Options {
        Options::parse_from(["hubbub-bench", "--members", "2", "--window", "4"])
    }

    fn load(options: &Options, sent: u32) -> Load<'_> {
        let mut load = Load::new(options, Some(1.0));
        load.stamps = Stamps::new(7);
        // Nothing more comes.
        load.quiet_ticks = u32::MAX;
        for _ in 0..sent {
            load.add(0, load.begin);
        }
        load
    }

    /// A member receives messages as a server passes them on.
    fn hears(load: &mut Load<'_>, member: usize, sequences: &[u32]) {
        for sequence in sequences {
            let text = format!("name: Qz000000070000{sequence:08x}{:010x}xx", 0);
            load.hears(1 + member, text.as_bytes(), Instant::now());
        }
        load.quiet_ticks = u32::MAX;
    }

    fn found(load: &Load<'_>) -> (u64, u64, u64, u64) {
        let (doubled, out_of_order) = (load.doubled(), load.out_of_order());
        (load.delivered(), load.lost(), doubled, out_of_order)
    }

    #[test]
    fn all_that_was_said_and_heard_is_counted() {
        let options = options();
        let mut load = load(&options, 3);
        hears(&mut load, 0, &[0, 1, 2]);
        hears(&mut load, 1, &[0, 1, 2]);
        assert_eq!(found(&load), (6, 0, 0, 0));
        assert_eq!(load.expected(), 6);
    }

    #[test]
    fn a_loss_a_double_and_a_swap_at_one_member_are_each_found() {
        let options = options();
        for (sequences, counts) in [
            (&[0, 2][..], (5, 1, 0, 0)),
            (&[0, 1, 1, 2], (6, 0, 1, 0)),
            (&[1, 0, 2], (6, 0, 0, 1)),
        ] {
            let mut load = load(&options, 3);
            hears(&mut load, 0, &[0, 1, 2]);
            hears(&mut load, 1, sequences);
            assert_eq!(found(&load), counts);
        }
    }

    #[test]
    fn nothing_is_due_while_the_window_is_full() {
        let options = options();
        let mut load = load(&options, 4);
        hears(&mut load, 0, &[0, 1, 2, 3]);
        assert!(load.due().is_none());
        hears(&mut load, 1, &[0]);
        assert!(load.due().is_some());
        load.rooms.iter_mut().for_each(Room::give_up);
        assert_eq!(load.lost(), 3);
    }

    #[test]
    fn what_was_never_said_and_other_peoples_lines_do_not_count() {
        let options = options();
        let mut load = load(&options, 1);
        hears(&mut load, 0, &[5]);
        load.hears(1, b"* bob joined", Instant::now());
        load.hears(0, b"! not sent: too fast", Instant::now());
        assert_eq!((load.delivered(), load.late()), (0, 2));
        assert_eq!(load.complaint.as_deref(), Some("! not sent: too fast"));
    }
}
