//! Sending at a rate, or as fast as messages come back, and checking what every member receives.
//!
//! A message's latency counts from when it was due, not from when it could be sent: a server that
//! holds up its sender does not look faster for it. Only a window of a room's messages may be on its
//! way to the slowest member. So a rate of 0 finds how fast a server delivers and not how much it can
//! pile up, and a rate that is too high shows in the latencies.

use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::options::Options;
use crate::report::{Kind, Report, Times};
use crate::tally::{Histogram, Room, Track};
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

/// One measurement.
pub(crate) struct Load<'a> {
    options: &'a Options,
    kind: Kind,
    /// Messages a second, if it is [`Kind::Rate`].
    rate: f64,
    /// How many messages there are to send, if there is a rate.
    planned: u64,
    begin: Instant,
    end: Instant,
    next_tick: Instant,
    /// For how many ticks nothing came.
    quiet_ticks: u32,
    stamps: Stamps,
    rooms: Vec<Room>,
    /// By member.
    tracks: Vec<Track>,
    times: Histogram,
    sent: u64,
    delivered: u64,
    /// When a member last received a message of this measurement.
    last_heard: Instant,
    /// The server's answer to a message that it did not take.
    complaint: Option<String>,
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
            kind,
            rate,
            planned: (rate * time.as_secs_f64()) as u64,
            begin,
            end: begin + time,
            next_tick: begin,
            // So the first round sends in all rooms.
            quiet_ticks: QUIET_TICKS,
            stamps: Stamps::new(rand::random()),
            rooms,
            tracks: vec![Track::default(); options.members],
            times: Histogram::new(),
            sent: 0,
            delivered: 0,
            last_heard: begin,
            complaint: None,
        }
    }

    /// Sends and receives until everything has come, or nothing more comes. Calls `tick` now and then.
    pub(crate) fn run(&mut self, crowd: &mut Crowd, mut tick: impl FnMut()) -> Result<(), String> {
        loop {
            let now = Instant::now();
            let is_complete = self.delivered == self.expected();
            let is_over = is_complete || self.is_quiet() || now >= self.end + DRAIN_WITHIN;
            if now >= self.end && is_over {
                return Ok(());
            }
            if self.round(crowd)? {
                tick();
            }
        }
    }

    fn is_quiet(&self) -> bool {
        self.quiet_ticks >= QUIET_TICKS
    }

    /// Waits for messages, at most until the next is due, and takes those that are there. Sends after
    /// each connection, so that the reading of a thousand does not hold up what is due. True if a tick
    /// began.
    fn round(&mut self, crowd: &mut Crowd) -> Result<bool, String> {
        let now = Instant::now();
        if self.is_quiet() {
            self.quiet_ticks = 0;
            for room in 0..self.rooms.len() {
                self.rooms[room].give_up();
                self.send(room, now, crowd);
            }
        }
        let is_tick = now >= self.next_tick;
        if is_tick {
            self.next_tick = now + TICK;
            self.quiet_ticks += 1;
        }
        let until = match now < self.end {
            true => self.end.min(self.due().unwrap_or(self.end)),
            false => self.next_tick,
        };
        for connection in crowd.ready(until.min(self.next_tick))? {
            let now = Instant::now();
            let room = self.options.room(connection);
            let is_open = crowd.read(connection, |payload| self.hears(connection, payload, now));
            if !is_open && connection >= self.options.senders() {
                self.rooms[room].loses_one();
            }
            self.send(room, now, crowd);
        }
        self.send(0, Instant::now(), crowd);
        if let Some(complaint) = &self.complaint {
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
            (_, None) => Ok(is_tick),
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
            self.delivered += 1;
            room.hears(stamp.sequence);
        }
    }

    /// When the next message is due, if there is a rate and its room has space for it. The rooms take
    /// turns.
    fn due(&self) -> Option<Instant> {
        if self.sent >= self.planned || !self.has_space(self.next_room()) {
            return None;
        }
        Some(self.begin + Duration::from_secs_f64(self.sent as f64 / self.rate))
    }

    fn next_room(&self) -> usize {
        (self.sent % self.rooms.len() as u64) as usize
    }

    fn has_space(&self, room: usize) -> bool {
        self.rooms[room].on_their_way() < self.options.window
    }

    /// Sends what is due by now; or without a rate, refills the room's window once it is half empty,
    /// so that one write takes many messages.
    fn send(&mut self, room: usize, now: Instant, crowd: &mut Crowd) {
        match self.kind {
            Kind::Idle => {}
            Kind::Rate | Kind::Most if now >= self.end => {}
            Kind::Most => {
                let is_low = self.rooms[room].on_their_way() <= self.options.window / 2;
                if is_low && crowd.out(room).is_empty() {
                    while self.has_space(room) {
                        self.add(room, now, crowd.out(room));
                    }
                    crowd.flush(room);
                }
            }
            Kind::Rate => {
                while let Some(due) = self.due().filter(|&due| due <= now) {
                    let room = self.next_room();
                    if !crowd.out(room).is_empty() {
                        return;
                    }
                    self.add(room, due, crowd.out(room));
                    crowd.flush(room);
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
        self.sent += 1;
    }

    /// How many deliveries there should be.
    fn expected(&self) -> u64 {
        let expected = self.rooms.iter().map(|room| room.sent * room.members);
        expected.sum()
    }

    /// The part of the report that is counted here.
    pub(crate) fn report(&self) -> Report {
        let sum = |count: fn(&Track) -> u64| self.tracks.iter().map(count).sum::<u64>();
        let skipped = sum(|track| track.skipped.len() as u64);
        let delivered = self.delivered;
        let awaited = self.expected() - delivered - skipped;
        let time = self.last_heard.saturating_duration_since(self.begin);
        Report {
            kind: self.kind,
            rate: self.rate,
            sent: self.sent,
            unsent: self.planned.saturating_sub(self.sent),
            expected: self.expected(),
            delivered,
            // Behind a gap is a later message; behind the end, the silence tells.
            lost: skipped + if self.is_quiet() { awaited } else { 0 },
            late: if self.is_quiet() { 0 } else { awaited },
            doubled: sum(|track| track.doubled),
            out_of_order: sum(|track| track.out_of_order),
            deliveries_per_s: (delivered as f64 / time.as_secs_f64().max(1e-6)).round(),
            latency_ms: (self.kind != Kind::Idle).then(|| Times {
                p50: self.times.quantile_ms(0.5),
                p90: self.times.quantile_ms(0.9),
                p99: self.times.quantile_ms(0.99),
                max: self.times.quantile_ms(1.0),
            }),
            ..Report::default()
        }
    }
}

/// Sends in every room until every member has received something.
pub(crate) fn everybody_hears(options: &Options, crowd: &mut Crowd) -> Result<(), String> {
    let rate = ECHO_RATE * options.rooms as f64;
    let mut load = Load::new(options, rate, ECHO_WITHIN);
    loop {
        let deaf = load.tracks.iter().filter(|track| track.next == 0).count();
        match crowd.gone(options.senders()..options.connections()) {
            _ if deaf == 0 => return Ok(()),
            (_, Some(why)) => return Err(format!("the server gave up a member: {why}")),
            (_, None) if Instant::now() < load.end => load.round(crowd)?,
            (_, None) => {
                return Err(format!(
                    "{deaf} members do not hear what is said in their room; does this server pass \
                     on what it is sent, and is {{room}} at the right place in --url?"
                ));
            }
        };
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
            load.hears(1 + member, text.as_bytes(), Instant::now());
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
        assert!(load.due().is_none());
        hears(&mut load, 1, &[0]);
        assert!(load.due().is_some());
        load.rooms.iter_mut().for_each(Room::give_up);
        assert_eq!(load.report().lost, 3);
    }

    #[test]
    fn what_was_never_said_and_other_peoples_lines_do_not_count() {
        let options = options();
        let mut load = load(&options, 1);
        hears(&mut load, 0, &[5]);
        load.hears(1, b"* bob joined", Instant::now());
        load.hears(0, b"! not sent: too fast", Instant::now());
        assert_eq!((load.report().delivered, load.report().late), (0, 2));
        assert_eq!(load.complaint.as_deref(), Some("! not sent: too fast"));
    }
}
