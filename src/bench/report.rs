//! The result of one measurement: as text for people, and as one line of JSON for programs. The tests
//! and `tests/bench/fan_out` include this file to read that line.

use std::fmt;

use hubbub::protocol::text;
use serde::{Deserialize, Serialize};

/// What kind of measurement it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// At a rate. Latencies count from when a message was due.
    Rate,
    /// As fast as messages come back. Latencies count from the sending.
    Most,
    /// Nothing was sent.
    #[default]
    Idle,
}

/// One measurement.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) kind: Kind,
    /// Over all rooms, without the senders.
    pub(crate) members: usize,
    pub(crate) rooms: usize,
    /// Messages a second over all rooms; 0 if not [`Kind::Rate`].
    pub(crate) rate: f64,
    /// Bytes of a message.
    pub(crate) size: usize,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Messages sent.
    pub(crate) sent: u64,
    /// Messages that were due and had no space in their window.
    pub(crate) unsent: u64,
    /// Deliveries that there should have been: of each message to each member of its room.
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    /// Deliveries that are missing and will not come.
    pub(crate) lost: u64,
    /// Deliveries still on their way when the meter had waited long enough for them.
    pub(crate) late: u64,
    /// Deliveries of a message that the member had already; not in `delivered`.
    pub(crate) doubled: u64,
    /// Deliveries behind that of a later message.
    pub(crate) out_of_order: u64,
    /// Members whose connection ended.
    pub(crate) disconnected: usize,
    /// Why the first of them ended.
    pub(crate) disconnected_because: Option<String>,
    pub(crate) deliveries_per_s: f64,
    /// From when a message was due to when a member had it.
    pub(crate) latency_ms: Option<Times>,
    /// The processor time of the server and of the meter, in seconds, and in microseconds for each
    /// delivery.
    pub(crate) server_cpu_s: Option<f64>,
    pub(crate) server_cpu_us_per_delivery: Option<f64>,
    pub(crate) meter_cpu_s: f64,
    pub(crate) meter_cpu_us_per_delivery: Option<f64>,
    /// The server's.
    pub(crate) memory: Option<Memory>,
    /// Connections made in a second, with their handshakes.
    pub(crate) connects_per_s: f64,
}

/// Quantiles, in milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// Resident memory, in KiB.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Before anybody connected.
    pub(crate) before: f64,
    /// With everybody connected, before anything was sent.
    pub(crate) idle: f64,
    /// The most since then.
    pub(crate) peak: f64,
    /// What one idle connection takes.
    pub(crate) per_connection: f64,
}

impl Report {
    /// The server's mistakes as a sentence, if it made any.
    pub(crate) fn fault(&self) -> Option<String> {
        let counts = [
            (self.lost, "lost"),
            (self.late, "still on their way long after"),
            (self.doubled, "doubled"),
            (self.out_of_order, "out of order"),
        ];
        let expected = grouped(self.expected);
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let mut faults: Vec<_> = counts
            .map(|(count, what)| format!("{} of {expected} {what}", grouped(count)))
            .collect();
        if let Some(why) = &self.disconnected_because {
            let count = self.disconnected;
            faults.push(format!("{count} members disconnected, one because {why}"));
        }
        (!faults.is_empty()).then(|| faults.join(", "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = grouped(self.members as u64);
        let rooms = match self.rooms {
            1 => "one room".to_owned(),
            rooms => format!("{} rooms", grouped(rooms as u64)),
        };
        let (rate, size) = (grouped(self.rate.round() as u64), self.size);
        let what = match self.kind {
            Kind::Idle => format!("idle for {:.1} s", self.seconds),
            Kind::Rate => format!("{rate} messages/s of {size} bytes"),
            Kind::Most => format!("messages of {size} bytes as fast as they come back"),
        };
        writeln!(f, "{members} members in {rooms}, {what}")?;
        if let Some(Times { p50, p90, p99, max }) = &self.latency_ms {
            let counts = [self.sent, self.unsent, self.delivered, self.expected];
            let [sent, unsent, delivered, expected] = counts.map(grouped);
            let counts = [self.lost, self.late, self.doubled, self.out_of_order];
            let [lost, late, doubled, out_of_order] = counts.map(grouped);
            let rate = grouped(self.deliveries_per_s.round() as u64);
            writeln!(
                f,
                "sent       {sent}, held up {unsent}\n\
                 delivered  {delivered} of {expected}, lost {lost}, late {late}, doubled {doubled}, \
                 out of order {out_of_order}\n\
                 rate       {rate} deliveries/s\n\
                 latency    p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, max {max:.2} ms"
            )?;
        }
        if let Some(why) = &self.disconnected_because {
            writeln!(f, "ended      {} connections: {why}", self.disconnected)?;
        }
        let cpu = |seconds: f64, each: Option<f64>| match each {
            Some(each) => format!("{seconds:.2} s of CPU, {each:.2} µs a delivery"),
            None => format!("{seconds:.2} s of CPU"),
        };
        if let Some(seconds) = self.server_cpu_s {
            let server = cpu(seconds, self.server_cpu_us_per_delivery);
            writeln!(f, "server     {server}")?;
        }
        if let Some(memory) = &self.memory {
            let mib = [memory.before, memory.idle, memory.peak].map(|kib| kib / 1024.0);
            let ([before, idle, peak], each) = (mib, memory.per_connection);
            writeln!(
                f,
                "memory     {before:.1} MiB before, {idle:.1} MiB idle ({each:.1} KiB a connection), \
                 {peak:.1} MiB at most"
            )?;
        }
        let connects = grouped(self.connects_per_s.round() as u64);
        let meter = cpu(self.meter_cpu_s, self.meter_cpu_us_per_delivery);
        writeln!(
            f,
            "connects   {connects}/s through the handshake\nmeter      {meter}"
        )
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    text::grouped(number as usize)
}
