//! Sending at a rate, or as fast as messages come back, and checking what every member receives.
//!
//! A message's latency counts from when it was due, not from when it could be sent: a server that
//! holds up its sender does not look faster for it. Only a window of a room's messages may be on its
//! way to the slowest member. So a rate of 0 finds how fast a server delivers and not how much it can
//! pile up, and a rate that is too high shows in the latencies.

use std::time::{Duration, Instant};

use hubbub::process::memory_kib;

use crate::crowd::Crowd;
use crate::options::Options;
use crate::report::{Kind, Report, Times};
use crate::tally::{Latencies, Room, Track};
use crate::wire::{Stamp, Stamps};

/// After so many ticks in which nothing came, messages on their way are no longer waited for. It is
/// a number of ticks and not a time, because each tick has polled the sockets, however long a busy
/// machine kept the meter from running.
const QUIET_TICKS: u32 = 30;

/// How long messages may still come after the end.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);

/// How often the meter looks whether anything came, and how much memory the server has.
const TICK: Duration = Duration::from_millis(100);

/// How long the first messages may take to reach everybody, and how many are sent in each room and
/// second until then: a server may let a user into the room some time after the handshake.
const ECHO_WITHIN: Duration = Duration::from_secs(15);
const ECHO_RATE: f64 = 2.0;

/// Hubbub's limit of a sender is what refuses messages most often.
const HINT: &str = "a Hubbub is measured with --send-rate 0";

/// One measurement.
pub(crate) struct Load<'a> {
    options: &'a Options,
    begin: Instant,
    end: Instant,
    next_tick: Instant,
    /// For how many ticks nothing came.
    quiet_ticks: u32,
    stamps: Stamps,
    rooms: Vec<Room>,
    /// By member.
    tracks: Vec<Track>,
    times: Latencies,
    /// When a member last received a message of this measurement.
    last_heard: Instant,
    /// What is known already.
    pub(crate) so_far: Report,
}

impl<'a> Load<'a> {
    pub(crate) fn new(options: &'a Options, rate: f64, time: Duration) -> Self {
        let begin = Instant::now();
        let mut rooms = vec![Room::default(); options.rooms];
        for member in options.senders()..options.connections() {
            rooms[options.room(member)].members += 1;
        }
        let (kind, rate) = match rate {
            _ if options.idle => (Kind::Idle, 0.0),
            0.0 => (Kind::Most, 0.0),
            rate => (Kind::Rate, rate),
        };
        Self {
            options,
            begin,
            end: begin + time,
            next_tick: begin,
            // So the first round sends in all rooms.
            quiet_ticks: QUIET_TICKS,
            stamps: Stamps::new(rand::random()),
            rooms,
            tracks: vec![Track::default(); options.members],
            times: Latencies::new(),
            last_heard: begin,
            so_far: Report {
                kind,
                rate,
                ..Report::default()
            },
        }
    }

    /// Sends and receives until everything has come, or nothing more comes.
    pub(crate) fn run(&mut self, crowd: &mut Crowd) -> Result<(), String> {
        while !self.is_over(Instant::now()) {
            self.round(crowd)?;
        }
        Ok(())
    }

    fn is_over(&self, now: Instant) -> bool {
        let is_complete = self.so_far.delivered == self.so_far.expected;
        let is_drained = is_complete || self.is_quiet() || now >= self.end + DRAIN_WITHIN;
        now >= self.end && is_drained
    }

    fn is_quiet(&self) -> bool {
        self.quiet_ticks >= QUIET_TICKS
    }

    /// Waits for messages, at most until the next is due, and takes those that are there. Sends after
    /// each connection, so that the reading of a thousand does not hold up what is due.
    fn round(&mut self, crowd: &mut Crowd) -> Result<(), String> {
        let now = Instant::now();
        if self.is_quiet() {
            self.quiet_ticks = 0;
            for room in 0..self.rooms.len() {
                self.rooms[room].give_up();
                self.send(room, now, crowd);
            }
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.quiet_ticks += 1;
            if let Some(memory) = &mut self.so_far.memory {
                let used = self.options.pid.and_then(memory_kib);
                memory.peak = memory.peak.max(used.unwrap_or_default());
            }
        }
        let until = self.due(now).unwrap_or(self.next_tick);
        for number in crowd.ready(until.min(self.next_tick))? {
            let now = Instant::now();
            let room = self.options.room(number);
            let connection = &mut crowd.connections[number];
            let hears = |payload: &[u8]| self.hears(number, payload, now);
            if let Err(why) = connection.read(&mut crowd.buffer, hears) {
                if number < self.options.senders() {
                    return Err(format!("the server does not take what is sent: {why}"));
                }
                connection.has_ended = true;
                self.rooms[room].loses_one();
                self.so_far.disconnected += 1;
                self.so_far.disconnected_because.get_or_insert(why);
            }
            self.send(room, now, crowd);
        }
        self.send(0, Instant::now(), crowd);
        Ok(())
    }

    /// Takes a text. An error is what the server says to a sender whose message it does not take.
    fn hears(&mut self, connection: usize, payload: &[u8], now: Instant) -> Result<(), String> {
        // A late message of an earlier measurement is a sign of life, too.
        self.quiet_ticks = 0;
        let Some(member) = connection.checked_sub(self.options.senders()) else {
            let text = String::from_utf8_lossy(payload);
            return match text.strip_prefix("! ") {
                Some(why) => Err(format!("{} ({HINT})", why.trim())),
                None => Ok(()),
            };
        };
        let number = self.options.room(connection);
        let room = &mut self.rooms[number];
        let stamp = self.stamps.find(payload);
        let own = |stamp: &Stamp| stamp.room == number && stamp.sequence < room.sent;
        if let Some(stamp) = stamp.filter(own) {
            self.last_heard = now;
            if self.tracks[member].hear(stamp.sequence) {
                let since = now.saturating_duration_since(self.begin).as_micros() as u64;
                self.times.add(since.saturating_sub(stamp.due));
                self.so_far.delivered += 1;
                room.hears(stamp.sequence);
            }
        }
        Ok(())
    }

    /// When the next message is due, if there is a rate and its room has space for it. The rooms take
    /// turns.
    fn due(&self, now: Instant) -> Option<Instant> {
        if self.so_far.kind != Kind::Rate || now >= self.end || !self.has_space(self.next_room()) {
            return None;
        }
        let due = self.begin + Duration::from_secs_f64(self.so_far.sent as f64 / self.so_far.rate);
        (due < self.end).then_some(due)
    }

    fn next_room(&self) -> usize {
        (self.so_far.sent % self.rooms.len() as u64) as usize
    }

    fn has_space(&self, room: usize) -> bool {
        self.rooms[room].on_their_way() < self.options.window
    }

    /// Sends what is due by now; or without a rate, refills the room's window once it is half empty,
    /// so that one write takes many messages.
    fn send(&mut self, room: usize, now: Instant, crowd: &mut Crowd) {
        match self.so_far.kind {
            Kind::Idle => {}
            Kind::Rate => {
                while let Some(due) = self.due(now).filter(|&due| due <= now) {
                    let room = self.next_room();
                    let sender = &mut crowd.connections[room];
                    if sender.waits() {
                        return;
                    }
                    self.add(room, due, &mut sender.out);
                    sender.flush();
                }
            }
            Kind::Most => {
                let is_low = self.rooms[room].on_their_way() <= self.options.window / 2;
                let sender = &mut crowd.connections[room];
                if now < self.end && is_low && !sender.waits() {
                    while self.has_space(room) {
                        self.add(room, now, &mut sender.out);
                    }
                    sender.flush();
                }
            }
        }
    }

    /// Puts a room's next message behind what is to be written.
    fn add(&mut self, room: usize, due: Instant, out: &mut Vec<u8>) {
        let stamp = Stamp {
            room,
            sequence: self.rooms[room].sent,
            due: due.saturating_duration_since(self.begin).as_micros() as u64,
        };
        self.stamps.write(stamp, self.options.size, out);
        self.rooms[room].sends();
        self.so_far.sent += 1;
        self.so_far.expected += self.rooms[room].members;
    }

    /// The part of the report that is counted here.
    pub(crate) fn report(&self) -> Report {
        let sum = |count: fn(&Track) -> u64| self.tracks.iter().map(count).sum::<u64>();
        let so_far = self.so_far.clone();
        let missing = so_far.expected - so_far.delivered;
        // Behind a gap is a later message; behind the end, the silence tells.
        let lost = match self.is_quiet() {
            true => missing,
            false => sum(|track| track.skipped.len() as u64),
        };
        let planned = so_far.rate * (self.end - self.begin).as_secs_f64();
        let seconds = (self.last_heard - self.begin).as_secs_f64().max(1e-6);
        let quantile = |share| self.times.quantile_ms(share);
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(quantile);
        let times = Times { p50, p90, p99, max };
        Report {
            unsent: (planned as u64).saturating_sub(so_far.sent),
            lost,
            late: missing - lost,
            doubled: sum(|track| track.doubled),
            out_of_order: sum(|track| track.out_of_order),
            deliveries_per_s: (so_far.delivered as f64 / seconds).round(),
            latency_ms: (so_far.kind != Kind::Idle).then_some(times),
            ..so_far
        }
    }
}

/// Sends in every room until every member has received something.
pub(crate) fn everybody_hears(options: &Options, crowd: &mut Crowd) -> Result<(), String> {
    let mut load = Load::new(options, ECHO_RATE * options.rooms as f64, ECHO_WITHIN);
    while load.tracks.iter().any(|track| track.next == 0) {
        load.round(crowd)?;
        if let Some(why) = load.so_far.disconnected_because {
            return Err(format!("the server gave up a member: {why}"));
        }
        if Instant::now() >= load.end {
            return Err(
                "not every member hears what is said in its room; does this server pass on \
                 what it is sent, and is {room} at the right place in --url?"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn options() -> Options {
        Options::parse_from(["hubbub-bench", "--members", "2", "--window", "4"])
    }

    fn load(options: &Options, sent: u32) -> Load<'_> {
        let mut load = Load::new(options, 1.0, Duration::from_secs(10));
        load.stamps = Stamps::new(7);
        for _ in 0..sent {
            load.add(0, load.begin, &mut Vec::new());
        }
        load
    }

    /// A member receives messages as a server passes them on.
    fn hears(load: &mut Load<'_>, member: usize, sequences: &[u32]) {
        for sequence in sequences {
            let text = format!("name: Qz000000070000{sequence:08x}{:010x}xx", 0);
            let taken = load.hears(1 + member, text.as_bytes(), Instant::now());
            assert_eq!(taken, Ok(()));
        }
        // Nothing more comes.
        load.quiet_ticks = QUIET_TICKS;
    }

    fn found(load: &Load<'_>) -> (u64, u64, u64, u64) {
        let Report {
            delivered,
            lost,
            doubled,
            out_of_order,
            ..
        } = load.report();
        (delivered, lost, doubled, out_of_order)
    }

    #[test]
    fn all_that_was_said_and_heard_is_counted() {
        let options = options();
        let mut load = load(&options, 3);
        hears(&mut load, 0, &[0, 1, 2]);
        hears(&mut load, 1, &[0, 1, 2]);
        assert_eq!(found(&load), (6, 0, 0, 0));
        assert_eq!(load.report().expected, 6);
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
        assert!(load.due(load.begin).is_none());
        hears(&mut load, 1, &[0]);
        assert!(load.due(load.begin).is_some());
        load.rooms.iter_mut().for_each(Room::give_up);
        assert_eq!(load.report().lost, 3);
    }

    #[test]
    fn what_was_never_said_and_other_peoples_lines_do_not_count() {
        let options = options();
        let mut load = load(&options, 1);
        hears(&mut load, 0, &[5]);
        let others = load.hears(1, b"* bob joined", Instant::now());
        let refused = load.hears(0, b"! not sent: too fast", Instant::now());
        assert_eq!((load.report().delivered, load.report().late), (0, 2));
        assert_eq!(others, Ok(()));
        assert!(refused.is_err_and(|why| why.starts_with("not sent: too fast")));
    }
}
