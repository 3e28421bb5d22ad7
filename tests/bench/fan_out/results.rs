//! What was measured: all reports, and their medians.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use hubbub::protocol::text;

use crate::report::Report;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum System {
    Floor,
    Embedded,
    Redis,
}

impl System {
    pub(crate) const ALL: [Self; 3] = [Self::Floor, Self::Embedded, Self::Redis];
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Floor => "floor",
            Self::Embedded => "Hubbub, embedded",
            Self::Redis => "Hubbub, Redis",
        })
    }
}

impl FromStr for System {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "floor" => Ok(Self::Floor),
            "embedded" => Ok(Self::Embedded),
            "redis" => Ok(Self::Redis),
            _ => Err(()),
        }
    }
}

/// Who listens where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    pub(crate) rooms: usize,
    pub(crate) members: usize,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rooms {
            1 => write!(f, "{} members in one room", grouped(self.members as f64)),
            rooms => write!(
                f,
                "{} rooms of {}",
                grouped(rooms as f64),
                self.members / rooms
            ),
        }
    }
}

/// All reports.
pub(crate) struct Results {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// By system, shape, and rate in thousandths.
    cells: BTreeMap<(System, Shape, u64), Vec<Report>>,
    /// Of crowds that entered no room.
    handshakes: BTreeMap<System, Vec<Report>>,
}

fn key(rate: f64) -> u64 {
    match rate {
        // As fast as it goes is the fastest.
        0.0 => u64::MAX,
        _ => (rate * 1e3) as u64,
    }
}

impl Results {
    pub(crate) fn new(rounds: usize, seconds: f64) -> Self {
        Self {
            rounds,
            seconds,
            cells: BTreeMap::new(),
            handshakes: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, system: System, shape: Shape, report: Report) {
        let cell = self.cells.entry((system, shape, key(report.rate)));
        cell.or_default().push(report);
    }

    pub(crate) fn add_handshakes(&mut self, system: System, report: Report) {
        self.handshakes.entry(system).or_default().push(report);
    }

    /// Connections a second that enter no room.
    pub(crate) fn handshakes(&self, system: System) -> Option<f64> {
        let reports = self.handshakes.get(&system)?;
        median(reports.iter().map(|report| report.connects_per_s).collect())
    }

    pub(crate) fn shapes(&self) -> Vec<Shape> {
        let mut shapes: Vec<_> = self.cells.keys().map(|(_, shape, _)| *shape).collect();
        shapes.sort_unstable();
        shapes.dedup();
        shapes
    }

    /// The slowest first, 0 for the fastest last.
    pub(crate) fn rates(&self) -> Vec<f64> {
        let mut rates: Vec<_> = self.cells.keys().map(|(_, _, rate)| *rate).collect();
        rates.sort_unstable();
        rates.dedup();
        let rate = |key| match key {
            u64::MAX => 0.0,
            key => key as f64 / 1e3,
        };
        rates.into_iter().map(rate).collect()
    }

    pub(crate) fn reports(&self, system: System, shape: Shape, rate: f64) -> &[Report] {
        self.cells
            .get(&(system, shape, key(rate)))
            .map_or(&[], Vec::as_slice)
    }

    /// The median of what `of` finds in each round's report.
    pub(crate) fn median(
        &self,
        system: System,
        shape: Shape,
        rate: f64,
        of: impl Fn(&Report) -> Option<f64>,
    ) -> Option<f64> {
        let reports = self.reports(system, shape, rate);
        median(reports.iter().filter_map(of).collect())
    }
}

fn median(mut found: Vec<f64>) -> Option<f64> {
    found.sort_by(f64::total_cmp);
    let middle = found.len() / 2;
    match found.len() {
        0 => None,
        count if count % 2 == 1 => Some(found[middle]),
        _ => Some(f64::midpoint(found[middle - 1], found[middle])),
    }
}

/// The server's processor time for one delivery, in microseconds.
pub(crate) fn cpu(report: &Report) -> Option<f64> {
    report.server_cpu_us_per_delivery
}

/// What 99 of 100 deliveries took at most, in milliseconds.
pub(crate) fn p99(report: &Report) -> Option<f64> {
    report.latency_ms.as_ref().map(|times| times.p99)
}

/// `1234567.8` as `1,234,568`.
pub(crate) fn grouped(number: f64) -> String {
    text::grouped(number.round() as usize)
}
