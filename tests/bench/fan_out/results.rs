//! What was measured: all reports, and their medians.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::thread::available_parallelism;

use hubbub::protocol::text;

use crate::report::Report;

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Floor,
    Embedded,
    Redis,
}

/// How many threads of a server write, and where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Threads {
    /// One, on all cores.
    One,
    /// One for each core.
    All,
    /// One, and the whole process is pinned to one core.
    Pinned,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct System(pub(crate) Kind, pub(crate) Threads);

impl System {
    pub(crate) const FLOOR: Self = Self(Kind::Floor, Threads::All);
    pub(crate) const FLOOR_OF_ONE: Self = Self(Kind::Floor, Threads::One);
    pub(crate) const REDIS: Self = Self(Kind::Redis, Threads::All);

    /// Those that are compared at each rate.
    pub(crate) const COMPARED: [Self; 4] = [
        Self::FLOOR_OF_ONE,
        Self::FLOOR,
        Self(Kind::Embedded, Threads::All),
        Self::REDIS,
    ];

    /// How many of its threads write.
    pub(crate) fn threads(self) -> usize {
        match self.1 {
            Threads::One | Threads::Pinned => 1,
            Threads::All => cores(),
        }
    }
}

pub(crate) fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, thread) = match self.0 {
            Kind::Floor => ("floor", "thread"),
            Kind::Embedded => ("Hubbub, embedded", "worker"),
            Kind::Redis => ("Hubbub, Redis", "worker"),
        };
        match (self.1, self.threads()) {
            (Threads::Pinned, _) => write!(f, "{name}, pinned to one core"),
            (Threads::One | Threads::All, 1) => write!(f, "{name}, 1 {thread}"),
            (Threads::One | Threads::All, many) => write!(f, "{name}, {many} {thread}s"),
        }
    }
}

impl FromStr for System {
    type Err = ();

    /// Reads `redis`, `redis-1` or `redis-pinned`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, threads) = text.split_once('-').unwrap_or((text, "all"));
        let kind = match kind {
            "floor" => Kind::Floor,
            "embedded" => Kind::Embedded,
            "redis" => Kind::Redis,
            _ => return Err(()),
        };
        let threads = match threads {
            "1" => Threads::One,
            "all" => Threads::All,
            "pinned" => Threads::Pinned,
            _ => return Err(()),
        };
        Ok(Self(kind, threads))
    }
}

/// Who listens where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    pub(crate) rooms: usize,
    /// In each room.
    pub(crate) members: usize,
}

impl Shape {
    /// The one that the targets are of.
    pub(crate) const HALL: Self = Self {
        rooms: 1,
        members: 1000,
    };

    /// Whether all systems are saturated in it, to compare their threads.
    pub(crate) fn is_of_all_systems(self) -> bool {
        self.rooms > 1 || self == Self::HALL
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rooms, members] = [self.rooms, self.members].map(|count| grouped(count as f64));
        match self.rooms {
            1 => write!(f, "one room of {members}"),
            _ => write!(f, "{rooms} rooms of {members}"),
        }
    }
}

impl FromStr for Shape {
    type Err = std::num::ParseIntError;

    /// Reads `1000`, or `100x10` for 100 rooms of 10.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rooms, members) = text.split_once('x').unwrap_or(("1", text));
        Ok(Self {
            rooms: rooms.parse()?,
            members: members.parse()?,
        })
    }
}

/// Messages a second over all rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rate {
    Of(u32),
    /// As fast as messages come back.
    Most,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(rate) => f.write_str(&grouped(f64::from(*rate))),
            Self::Most => f.write_str("max"),
        }
    }
}

impl FromStr for Rate {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.parse()? {
            0 => Self::Most,
            rate => Self::Of(rate),
        })
    }
}

/// What one measurement is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Case {
    Load(Shape, Rate),
    /// Many connect, and enter a room or not.
    Connecting {
        enters: bool,
    },
}

/// All reports.
pub(crate) struct Results {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    reports: BTreeMap<(System, Case), Vec<Report>>,
}

impl Results {
    pub(crate) fn new(rounds: usize, seconds: f64) -> Self {
        Self {
            rounds,
            seconds,
            reports: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, system: System, case: Case, report: Report) {
        self.reports.entry((system, case)).or_default().push(report);
    }

    /// All shapes and rates that were measured, in order.
    pub(crate) fn loads(&self) -> Vec<(Shape, Rate)> {
        let loads = self.reports.keys().filter_map(|(_, case)| match *case {
            Case::Load(shape, rate) => Some((shape, rate)),
            Case::Connecting { .. } => None,
        });
        let mut loads: Vec<_> = loads.collect();
        loads.sort_unstable();
        loads.dedup();
        loads
    }

    /// The systems that were measured so, floors first.
    pub(crate) fn systems(&self, case: Case) -> Vec<System> {
        let measured = self.reports.keys().filter(|(_, other)| *other == case);
        measured.map(|(system, _)| *system).collect()
    }

    pub(crate) fn reports(&self, system: System, case: Case) -> &[Report] {
        self.reports.get(&(system, case)).map_or(&[], Vec::as_slice)
    }

    /// The median of what `of` finds in each round's report.
    pub(crate) fn median(
        &self,
        system: System,
        case: Case,
        of: impl Fn(&Report) -> Option<f64>,
    ) -> Option<f64> {
        let reports = self.reports(system, case);
        let mut found: Vec<_> = reports.iter().filter_map(of).collect();
        found.sort_by(f64::total_cmp);
        let middle = found.len() / 2;
        match found.len() {
            0 => None,
            count if count % 2 == 1 => Some(found[middle]),
            _ => Some(f64::midpoint(found[middle - 1], found[middle])),
        }
    }
}

/// What a table shows of a report.
pub(crate) type Figure = fn(&Report) -> Option<f64>;

pub(crate) fn deliveries(report: &Report) -> Option<f64> {
    Some(report.deliveries_per_s)
}

pub(crate) fn connects(report: &Report) -> Option<f64> {
    Some(report.connects_per_s)
}

/// The server's processor time for one delivery, in microseconds.
pub(crate) fn cpu(report: &Report) -> Option<f64> {
    report.server_cpu_us_per_delivery
}

/// What half of the deliveries took at most, in milliseconds.
pub(crate) fn p50(report: &Report) -> Option<f64> {
    report.latency_ms.as_ref().map(|times| times.p50)
}

/// What 99 of 100 deliveries took at most, in milliseconds.
pub(crate) fn p99(report: &Report) -> Option<f64> {
    report.latency_ms.as_ref().map(|times| times.p99)
}

/// `1234567.8` as `1,234,568`.
pub(crate) fn grouped(number: f64) -> String {
    text::grouped(number.round() as usize)
}
