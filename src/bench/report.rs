//! What was found: one value, for people and as one line of JSON for programs.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::process::{Process, own_cpu};
use super::tally::Histogram;
use super::{Hall, Plan};
use crate::protocol::text;

/// What kind of measurement it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// At a rate; times count from when a message was due.
    Rate,
    /// As fast as they come back; times count from the sending.
    Most,
    /// Connections were held, and nothing said.
    Idle,
}

/// One measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// What kind it was.
    pub kind: Kind,
    /// Who listened, over all rooms.
    pub members: usize,
    /// Over how many rooms they were spread.
    pub rooms: usize,
    /// Messages a second over all rooms; 0 if as fast as they came back.
    pub rate: f64,
    /// Bytes a message.
    pub size: usize,
    /// How long it was to take.
    pub seconds: f64,
    /// How many messages were sent.
    pub sent: u64,
    /// How many were due and could not be sent: too many before them were still on their way.
    pub unsent: u64,
    /// How often they should have been heard.
    pub expected: u64,
    /// How often they were.
    pub delivered: u64,
    /// How often they were not, and will not be.
    pub lost: u64,
    /// How often they were still on their way when the meter had waited long enough for them.
    pub late: u64,
    /// How often one was heard again.
    pub doubled: u64,
    /// How often one was heard behind a later one.
    pub out_of_order: u64,
    /// How many members' connections the server ended.
    pub disconnected: usize,
    /// Why the first of them ended.
    pub disconnected_because: Option<String>,
    /// Deliveries a second.
    pub deliveries_per_s: f64,
    /// From when a message was due to when a member had it.
    pub latency_ms: Option<Times>,
    /// The server's processor time, in seconds.
    pub server_cpu_s: Option<f64>,
    /// The same for one delivery, in microseconds.
    pub server_cpu_us_per_delivery: Option<f64>,
    /// The meter's own processor time, in seconds.
    pub meter_cpu_s: f64,
    /// The same for one delivery, in microseconds.
    pub meter_cpu_us_per_delivery: Option<f64>,
    /// The server's memory.
    pub memory: Option<Memory>,
    /// Connections a second, through the handshake.
    pub connects_per_s: f64,
}

/// Quantiles, in milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Times {
    /// Half of all.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Times {
    pub(super) fn of(times: &Histogram) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Self {
            p50: ms(times.quantile(0.5)),
            p90: ms(times.quantile(0.9)),
            p99: ms(times.quantile(0.99)),
            max: ms(times.max()),
        }
    }
}

/// The server's resident memory, in KiB.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Memory {
    /// Before anybody was connected.
    pub before: f64,
    /// With all connected, before anything was said.
    pub idle: f64,
    /// The most that was seen since.
    pub peak: f64,
    /// What an idle connection takes.
    pub per_connection: f64,
}

impl Memory {
    pub(super) fn new(before: u64, idle: u64, connections: usize) -> Self {
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        Self {
            before: kib(before),
            idle: kib(idle),
            peak: kib(idle),
            per_connection: (kib(idle) - kib(before)) / connections as f64,
        }
    }

    pub(super) fn note(memory: &mut Option<Self>, server: Option<Process>) {
        if let Some((memory, now)) = memory.as_mut().zip(server.and_then(Process::memory)) {
            memory.peak = memory.peak.max(now as f64 / 1024.0);
        }
    }
}

/// Processor time that was used until now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    server: Option<Duration>,
    meter: Duration,
}

impl Used {
    pub(super) fn now(server: Option<Process>) -> Self {
        Self {
            server: server.and_then(Process::cpu),
            meter: own_cpu(),
        }
    }
}

impl Report {
    /// What every kind has; nothing said, nothing heard.
    pub(super) fn new(kind: Kind, plan: &Plan, hall: &Hall, memory: Option<Memory>) -> Self {
        let (disconnected, why) = hall.crowd.gone();
        Self {
            kind,
            members: plan.members,
            rooms: plan.rooms,
            rate: 0.0,
            size: 0,
            seconds: 0.0,
            sent: 0,
            unsent: 0,
            expected: 0,
            delivered: 0,
            lost: 0,
            late: 0,
            doubled: 0,
            out_of_order: 0,
            disconnected,
            disconnected_because: why.map(str::to_owned),
            deliveries_per_s: 0.0,
            latency_ms: None,
            server_cpu_s: None,
            server_cpu_us_per_delivery: None,
            meter_cpu_s: 0.0,
            meter_cpu_us_per_delivery: None,
            memory,
            connects_per_s: hall.connects_per_s,
        }
    }

    /// With the processor time that was used meanwhile.
    pub(super) fn having_used(mut self, before: Used, after: Used) -> Self {
        let delivered = (self.delivered > 0).then_some(self.delivered as f64);
        let each = |seconds: f64| delivered.map(|delivered| seconds * 1e6 / delivered);
        let server = before.server.zip(after.server);
        self.server_cpu_s = server.map(|(before, after)| (after - before).as_secs_f64());
        self.server_cpu_us_per_delivery = self.server_cpu_s.and_then(each);
        self.meter_cpu_s = (after.meter - before.meter).as_secs_f64();
        self.meter_cpu_us_per_delivery = each(self.meter_cpu_s);
        self
    }

    /// What a chat must not do, if the server did it: a sentence.
    pub fn fault(&self) -> Option<String> {
        let mut faults = Vec::new();
        for (count, what) in [
            (self.lost, "lost"),
            (self.late, "still on their way long after"),
            (self.doubled, "doubled"),
            (self.out_of_order, "out of order"),
        ] {
            if count > 0 {
                let of = grouped(self.expected as f64);
                faults.push(format!("{} of {of} {what}", grouped(count as f64)));
            }
        }
        if let Some(why) = &self.disconnected_because {
            let count = self.disconnected;
            faults.push(format!("{count} members disconnected, one because {why}"));
        }
        (!faults.is_empty()).then(|| faults.join(", "))
    }
}

impl fmt::Display for Report {
    /// Lines for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_title(f)?;
        if self.kind != Kind::Idle {
            self.fmt_deliveries(f)?;
        }
        if let Some(server) = self.server_cpu_s {
            write!(f, "server     {server:.2} s of CPU")?;
            if let Some(each) = self.server_cpu_us_per_delivery {
                write!(f, ", {each:.2} µs a delivery")?;
            }
            writeln!(f)?;
        }
        if let Some(memory) = &self.memory {
            let mib = |kib: f64| kib / 1024.0;
            writeln!(
                f,
                "memory     {:.1} MiB before, {:.1} MiB idle ({:.1} KiB a connection), \
                 {:.1} MiB at most",
                mib(memory.before),
                mib(memory.idle),
                memory.per_connection,
                mib(memory.peak)
            )?;
        }
        let connects = grouped(self.connects_per_s);
        writeln!(f, "connects   {connects}/s through the handshake")?;
        write!(f, "meter      {:.2} s of CPU", self.meter_cpu_s)?;
        match self.meter_cpu_us_per_delivery {
            Some(each) => writeln!(f, ", {each:.2} µs a delivery"),
            None => writeln!(f),
        }
    }
}

impl Report {
    fn fmt_title(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = grouped(self.members as f64);
        let rooms = match self.rooms {
            1 => "one room".to_owned(),
            rooms => format!("{} rooms", grouped(rooms as f64)),
        };
        write!(f, "{members} members in {rooms}, ")?;
        match self.kind {
            Kind::Idle => writeln!(f, "idle for {:.1} s", self.seconds),
            Kind::Rate => writeln!(
                f,
                "{} messages/s of {} bytes",
                grouped(self.rate),
                self.size
            ),
            Kind::Most => writeln!(
                f,
                "messages of {} bytes as fast as they come back",
                self.size
            ),
        }
    }

    fn fmt_deliveries(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |count: u64| grouped(count as f64);
        write!(f, "sent       {}", number(self.sent))?;
        match self.unsent {
            0 => writeln!(f)?,
            unsent => writeln!(f, ", {} more were due and held up", number(unsent))?,
        }
        writeln!(
            f,
            "delivered  {} of {}, lost {}, late {}, doubled {}, out of order {}",
            number(self.delivered),
            number(self.expected),
            number(self.lost),
            number(self.late),
            number(self.doubled),
            number(self.out_of_order)
        )?;
        if let Some(why) = &self.disconnected_because {
            writeln!(f, "ended      {} connections: {why}", self.disconnected)?;
        }
        let rate = grouped(self.deliveries_per_s);
        writeln!(f, "rate       {rate} deliveries/s")?;
        match &self.latency_ms {
            Some(Times { p50, p90, p99, max }) => writeln!(
                f,
                "latency    p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, max {max:.2} ms"
            ),
            None => Ok(()),
        }
    }
}

/// `1234567.8` as `1,234,568`.
fn grouped(number: f64) -> String {
    text::grouped(number.round() as usize)
}
