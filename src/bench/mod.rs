//! The meter: measures a running server as its clients do, and checks what it delivers.
//!
//! It owns one thread and all connections, none of which blocks, so that it stays cheap beside the
//! server. Whatever it asserts it has counted: every member's every message, once and in order. In
//! each room one more connection speaks, and what that hears does not count; so the server may give
//! a speaker its own lines, or not.

mod process;
mod target;
mod wire;
mod tally;
mod window;
mod crowd;
mod load;
mod report;

use std::time::{Duration, Instant};
use std::{fmt, io};

use self::crowd::{Crowd, Guests, Listener};
use self::load::{Load, Speech, check_senders, complaint};
use self::process::Process;
use self::report::Used;
pub use self::report::{Kind, Memory, Report, Times};
pub use self::target::Target;
use self::wire::{Stamp, Stamps};
use crate::server::limits;

/// How long the first message may take to reach everybody.
const ECHO_WITHIN: Duration = Duration::from_secs(15);

/// How often it is said again until then: a room may be entered later than the handshake ends.
const ECHO_AGAIN: Duration = Duration::from_millis(500);

/// Without a word for so long, all that comes with connecting is over; or after so long at most.
const SETTLED: Duration = Duration::from_millis(300);
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub target: Target,
    /// How many listen, over all rooms.
    pub members: usize,
    /// Over how many rooms they are spread.
    pub rooms: usize,
    /// What names begin with.
    pub prefix: String,
    /// The process of the server, if it is on this machine.
    pub server: Option<i32>,
    /// At most so many connections are made in a second; 0 for no limit.
    pub ramp: f64,
    /// How long each measurement takes.
    pub time: Duration,
    /// What is said, if anything is.
    pub talk: Option<Talk>,
}

impl Plan {
    /// The most rooms.
    pub const ROOMS: usize = Stamps::ROOMS;
}

/// What is said.
#[derive(Debug, Clone)]
pub struct Talk {
    /// Messages a second over all rooms, one after the other; 0 for as fast as they come back.
    pub rates: Vec<f64>,
    /// Bytes a message.
    pub size: usize,
    /// How many messages of a room may be on their way.
    pub window: u32,
}

impl Talk {
    /// The shortest message.
    pub const SIZE: usize = Stamps::LENGTH;
}

/// How a measurement goes.
#[derive(Debug, Clone, Copy)]
pub enum Progress {
    /// So many of so many are connected.
    Connecting(usize, usize),
    /// Waiting until everybody hears everybody.
    Settling,
    /// For so long, so many were sent, and so many delivered.
    Running(Duration, u64, u64),
}

/// Why there is nothing to report.
#[derive(Debug)]
pub enum BenchError {
    /// No connection can be made.
    Unreachable(String, io::Error),
    /// It answers the handshake with something else than an agreement.
    Refused(String, String),
    /// There is no such process.
    NoProcess(i32),
    /// The server did not take a message.
    Complaint(String),
    /// The server closed a sender's connection.
    SenderGone(String),
    /// So many members do not hear what is said in their room.
    Deaf(usize),
    /// This machine cannot do it.
    Machine(io::Error),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(server, error) => write!(f, "cannot reach {server}: {error}"),
            Self::Refused(server, why) => write!(f, "{server} answers: {why}"),
            Self::NoProcess(id) => write!(f, "there is no process {id} here"),
            Self::Complaint(what) => {
                write!(f, "the server does not take what is sent: {}", what.trim())?;
                if what.contains("fast") {
                    f.write_str(" (start it with --send-rate 0 to measure it)")?;
                }
                Ok(())
            }
            Self::SenderGone(why) => write!(f, "the server gave up a sender: {why}"),
            Self::Deaf(count) => write!(
                f,
                "{count} members do not hear what is said in their room; does this server pass on \
                 what it is sent, and is {{room}} at the right place in --url?"
            ),
            Self::Machine(error) => write!(f, "cannot measure here: {error}"),
        }
    }
}

impl std::error::Error for BenchError {}

/// Measures as planned: one report for each rate, or one of a crowd that only holds its connections.
pub fn run(
    plan: &Plan,
    progress: &mut dyn FnMut(Progress),
    report: &mut dyn FnMut(&Report),
) -> Result<(), BenchError> {
    // Where the limit cannot be raised, it is the connection that fails.
    let _ = limits::most_files();
    let server = match plan.server {
        Some(id) => Some(Process::of(id).ok_or(BenchError::NoProcess(id))?),
        None => None,
    };
    let mut gathered = None;
    let Some(talk) = &plan.talk else {
        let mut hall = gather(plan, server, progress)?;
        report(&hold(plan, &mut hall, progress)?);
        return Ok(());
    };
    for &rate in &talk.rates {
        // Whom the server gave up comes back for the next measurement, and nobody begins it with what
        // was late in the last.
        let mut hall = match gathered.take() {
            Some(hall) => hall,
            None => gather(plan, server, progress)?,
        };
        let found = speak(plan, talk, rate, &mut hall, progress)?;
        report(&found);
        gathered = (found.disconnected == 0 && found.late == 0).then_some(hall);
    }
    Ok(())
}

/// A crowd that is connected, and what that took.
struct Hall {
    crowd: Crowd,
    server: Option<Process>,
    connects_per_s: f64,
    memory: Option<Memory>,
}

fn gather(
    plan: &Plan,
    server: Option<Process>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Hall, BenchError> {
    let guests = Guests {
        prefix: plan.prefix.clone(),
        run: rand::random(),
        senders: if plan.talk.is_some() { plan.rooms } else { 0 },
        members: plan.members,
        rooms: plan.rooms,
        ramp: plan.ramp,
    };
    let count = guests.count();
    let before = server.and_then(Process::memory);
    let begin = Instant::now();
    let mut crowd = Crowd::gather(&plan.target, guests, &mut |connected| {
        progress(Progress::Connecting(connected, count));
    })?;
    let connects_per_s = count as f64 / begin.elapsed().as_secs_f64();
    progress(Progress::Settling);
    let mut silence = Silence::default();
    settle(&mut crowd, &mut silence)?;
    let idle = server.and_then(Process::memory);
    if let Some(talk) = &plan.talk {
        everybody_hears(&mut crowd, talk.size)?;
        settle(&mut crowd, &mut silence)?;
    }
    Ok(Hall {
        crowd,
        server,
        connects_per_s,
        memory: before
            .zip(idle)
            .map(|(before, idle)| Memory::new(before, idle, count)),
    })
}

/// Notes when something was heard.
#[derive(Default)]
struct Silence {
    broken: Option<Instant>,
}

impl Listener for Silence {
    fn hears(&mut self, _lane: usize, _payload: &[u8], now: Instant) {
        self.broken = Some(now);
    }
}

fn settle(crowd: &mut Crowd, silence: &mut Silence) -> Result<(), BenchError> {
    let begin = Instant::now();
    loop {
        let since = silence.broken.map_or(begin, |broken| broken.max(begin));
        let now = Instant::now();
        if now >= since + SETTLED || now >= begin + SETTLES_WITHIN {
            return Ok(());
        }
        crowd.listen(silence, since + SETTLED)?;
    }
}

/// Who has not heard anything yet.
struct Echo {
    stamps: Stamps,
    deaf: Vec<bool>,
    senders: usize,
    complaint: Option<String>,
}

impl Listener for Echo {
    fn hears(&mut self, lane: usize, payload: &[u8], _now: Instant) {
        if self.stamps.find(payload).is_some() {
            self.deaf[lane] = false;
        } else if lane < self.senders {
            self.complaint = self.complaint.take().or_else(|| complaint(payload));
        }
    }
}

/// Says something in every room until every member has heard it.
fn everybody_hears(crowd: &mut Crowd, size: usize) -> Result<(), BenchError> {
    let senders = crowd.guests.senders;
    let mut echo = Echo {
        stamps: Stamps::new(rand::random()),
        deaf: vec![true; crowd.guests.count()],
        senders,
        complaint: None,
    };
    echo.deaf[..senders].fill(false);
    let begin = Instant::now();
    let mut again = begin;
    loop {
        let deaf = echo.deaf.iter().filter(|deaf| **deaf).count();
        let now = Instant::now();
        match (deaf, crowd.gone()) {
            (0, _) => return Ok(()),
            (_, (1.., Some(why))) => return Err(BenchError::SenderGone(why.to_owned())),
            _ if now > begin + ECHO_WITHIN => return Err(BenchError::Deaf(deaf)),
            _ => {}
        }
        if now >= again {
            again = now + ECHO_AGAIN;
            for room in 0..senders {
                let mut frame = Vec::new();
                let stamp = Stamp {
                    room,
                    sequence: 0,
                    at: 0,
                };
                echo.stamps.write(stamp, size, &mut frame);
                crowd.mouth().say(room, &frame);
            }
        }
        crowd.listen(&mut echo, again.min(now + Duration::from_millis(10)))?;
        check_senders(crowd, echo.complaint.take())?;
    }
}

fn speak(
    plan: &Plan,
    talk: &Talk,
    rate: f64,
    hall: &mut Hall,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, BenchError> {
    let before = Used::now(hall.server);
    let mut memory = hall.memory.clone();
    let speech = Speech {
        run: rand::random(),
        rate,
        size: talk.size,
        time: plan.time,
        window: talk.window,
    };
    let mut load = Load::new(speech, &hall.crowd.guests);
    load.run(&mut hall.crowd, &mut |load| {
        progress(Progress::Running(
            load.elapsed(),
            load.sent(),
            load.delivered,
        ));
        Memory::note(&mut memory, hall.server);
    })?;
    Memory::note(&mut memory, hall.server);
    let after = Used::now(hall.server);
    let kind = if rate > 0.0 { Kind::Rate } else { Kind::Most };
    let report = Report {
        rate,
        seconds: load.elapsed().as_secs_f64(),
        size: talk.size,
        sent: load.sent(),
        unsent: load.unsent(),
        expected: load.expected(),
        delivered: load.delivered,
        lost: load.lost(),
        late: load.late(),
        doubled: load.doubled,
        out_of_order: load.out_of_order,
        deliveries_per_s: load.delivered as f64 / load.duration().as_secs_f64().max(1e-6),
        latency_ms: Some(Times::of(&load.times)),
        ..Report::new(kind, plan, hall, memory)
    };
    Ok(report.having_used(before, after))
}

/// Holds the connections, and says nothing.
fn hold(
    plan: &Plan,
    hall: &mut Hall,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, BenchError> {
    let before = Used::now(hall.server);
    let mut memory = hall.memory.clone();
    let begin = Instant::now();
    let mut silence = Silence::default();
    while begin.elapsed() < plan.time {
        let end = begin + plan.time;
        let tick = Instant::now() + Duration::from_millis(500);
        hall.crowd.listen(&mut silence, end.min(tick))?;
        Memory::note(&mut memory, hall.server);
        progress(Progress::Running(begin.elapsed(), 0, 0));
    }
    let report = Report {
        seconds: begin.elapsed().as_secs_f64(),
        ..Report::new(Kind::Idle, plan, hall, memory)
    };
    Ok(report.having_used(before, Used::now(hall.server)))
}
