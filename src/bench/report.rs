//! The result of one measurement, printed as JSON. The tests and `tests/bench/fan_out` include this
//! file to read it.

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
    /// Messages a second over all rooms; 0 if not [`Kind::Rate`].
    pub(crate) rate: f64,
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
    /// The processor time of the server, its Redis and the meter for each delivery, in microseconds.
    pub(crate) server_cpu_us_per_delivery: Option<f64>,
    pub(crate) redis_cpu_us_per_delivery: Option<f64>,
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
        let grouped = |count| text::grouped(count as usize);
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
