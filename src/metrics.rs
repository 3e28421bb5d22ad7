//! Counters and gauges of this process, rendered for Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! They are statics: a process is one instance, and code that counts should not need a handle.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::process;

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The value only grows.
    Counter,
    /// The value goes up and down.
    Gauge,
    /// Many values, counted by their size.
    Histogram,
}

impl Kind {
    /// A name that ends in `_total` is a counter's.
    fn of(name: &str) -> Self {
        match name.ends_with("_total") {
            true => Self::Counter,
            false => Self::Gauge,
        }
    }

    /// Appends the lines that stand before a metric's values.
    fn describe(self, text: &mut String, name: &str, help: &str) {
        let kind = match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }
}

/// One number with its name and description.
#[derive(Debug)]
pub struct Metric {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    value: AtomicU64,
}

impl Metric {
    const fn new(kind: Kind, name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind,
            value: AtomicU64::new(0),
        }
    }

    /// Adds one.
    pub fn count(&self) {
        self.add(1);
    }

    /// Adds a number.
    pub fn add(&self, number: usize) {
        self.value.fetch_add(number as u64, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// Sets the value.
    pub fn set(&self, number: usize) {
        self.value.store(number as u64, Ordering::Relaxed);
    }
}

/// The buckets of [`DELIVERY`], by the longest time in each.
const BOUNDS: [Duration; 10] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];

/// The distribution of a duration.
#[derive(Debug)]
pub struct Histogram {
    name: &'static str,
    help: &'static str,
    /// The times in each bucket, and at last those above all bounds.
    counts: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Histogram {
    const fn new(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            counts: [const { AtomicU64::new(0) }; BOUNDS.len() + 1],
            microseconds: AtomicU64::new(0),
        }
    }

    /// Takes note of one time.
    pub fn observe(&self, took: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < took);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(took, Ordering::Relaxed);
    }

    fn render(&self, text: &mut String) {
        let Self { name, help, .. } = self;
        Kind::Histogram.describe(text, name, help);
        let mut so_far = 0;
        let bounds = BOUNDS.iter().map(|bound| bound.as_secs_f64().to_string());
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&self.counts) {
            so_far += count.load(Ordering::Relaxed);
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {so_far}");
        }
        let sum = Duration::from_micros(self.microseconds.load(Ordering::Relaxed)).as_secs_f64();
        let _ = write!(text, "{name}_sum {sum}\n{name}_count {so_far}\n");
    }
}

/// The time from a send to the end of its fan-out. See [`Stopwatch`](crate::hub::Stopwatch).
pub static DELIVERY: Histogram = Histogram::new(
    "hubbub_delivery_seconds",
    "Time from a send on this instance until its members here have the message, of one message at a time.",
);

macro_rules! metrics {
    ($($kind:ident $metric:ident $name:literal $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $metric: Metric = Metric::new(Kind::$kind, $name, $help);
        )*

        static ALL: &[&Metric] = &[$(&$metric),*];
    };
}

metrics! {
    Gauge STARTED "process_start_time_seconds" "When the process began, in seconds since 1970.";
    Gauge CONNECTIONS "hubbub_connections" "Connections that are open.";
    Gauge MAX_CONNECTIONS "hubbub_max_connections" "The most connections that may be open.";
    Gauge ROOMS "hubbub_rooms" "Rooms with a member on this instance.";
    Gauge READY "hubbub_ready" "Whether the instance can take users: 1 or 0.";
    Counter ACCEPTED "hubbub_connections_accepted_total" "Connections accepted.";
    Counter REFUSED_FULL "hubbub_connections_refused_total" "Connections refused because there were too many.";
    Counter REFUSED_ADDRESS "hubbub_connections_limited_total" "Connections refused because their address had too many, or opened them too fast.";
    Counter REQUESTS_REFUSED "hubbub_requests_refused_total" "Requests answered with a status of 400 or more.";
    Counter UNAUTHORIZED "hubbub_unauthorized_total" "Requests whose token, origin or room is not allowed.";
    Counter WRONG_ADMIN_SECRETS "hubbub_admin_unauthorized_total" "Requests to the operators' API without its secret.";
    Gauge IN_FLIGHT "hubbub_messages_in_flight" "Messages that wait for the backplane's receipt.";
    Counter STORED "hubbub_messages_stored_total" "Messages acknowledged.";
    Counter DUPLICATES "hubbub_messages_duplicate_total" "Messages acknowledged that were stored before, under the same ref.";
    Counter NOT_STORED "hubbub_messages_refused_total" "Messages that the backplane refused.";
    Counter TOO_FAST "hubbub_messages_limited_total" "Messages and requests refused because they came too fast.";
    Counter HEARD "hubbub_messages_heard_total" "Messages that the backplane delivered to rooms of this instance.";
    Counter DELIVERED "hubbub_deliveries_total" "Events that rooms pushed to members.";
    Counter SHED "hubbub_notices_shed_total" "Notices dropped for members that fell behind.";
    Counter SLOW "hubbub_slow_consumers_total" "Connections evicted because they read too slowly.";
    Counter NO_WRITER "hubbub_no_writer_total" "Connections evicted because no thread was left to write to them.";
    Counter STUCK "hubbub_write_timeouts_total" "Connections abandoned because a write took too long.";
    Counter UNANSWERED "hubbub_close_timeouts_total" "Connections shut down because the peer did not answer a close frame in time.";
    Counter LATE_HEADS "hubbub_head_timeouts_total" "Requests whose head did not arrive in time.";
    Counter SILENT "hubbub_silent_peers_total" "Connections abandoned because the peer sent nothing.";
    Counter VIOLATIONS "hubbub_protocol_errors_total" "Connections closed because they broke the protocol or a limit.";
    Counter PANICS "hubbub_panics_total" "Connections ended by a panic.";
    Counter GAPS "hubbub_gaps_total" "Gaps in the chain of messages that could not be filled.";
    Counter CAUGHT_UP "hubbub_messages_recovered_total" "Messages read from the log because the subscription missed them.";
    Gauge HISTORY_BYTES "hubbub_history_bytes" "Bytes of messages that are remembered without Redis.";
    Gauge DATA_BYTES "hubbub_data_bytes" "Bytes of the data file.";
    Counter COMMITS "hubbub_data_commits_total" "Commits to the data file.";
    Counter WEBHOOK_POSTED "hubbub_webhook_posted_total" "Messages and gaps that webhooks have posted.";
    Counter WEBHOOK_FAILED "hubbub_webhook_failed_total" "Messages that the receiver of a webhook refused for good.";
    Counter WEBHOOK_RETRIES "hubbub_webhook_retries_total" "Posts of webhooks that failed and are repeated.";
    Counter WEBHOOK_GAPS "hubbub_webhook_gaps_total" "Gaps that webhooks have told, since the log forgot what was not posted.";
    Counter SUBSCRIPTION_CUTS "hubbub_subscription_cuts_total" "Times the subscription was lost.";
    Counter REDIS_LOSSES "hubbub_redis_losses_total" "Times the command connection was lost.";
}

/// All metrics, in Prometheus's text format.
pub fn render() -> String {
    let mut text = String::new();
    let mut line = |kind: Kind, name, help, value: &dyn Display| {
        kind.describe(&mut text, name, help);
        let _ = writeln!(text, "{name} {value}");
    };
    for metric in ALL {
        let value = metric.value.load(Ordering::Relaxed);
        line(metric.kind, metric.name, metric.help, &value);
    }
    for (name, help, value) in process::own() {
        line(Kind::of(name), name, help, &value);
    }
    DELIVERY.render(&mut text);
    let build = "hubbub_build_info";
    Kind::Gauge.describe(
        &mut text,
        build,
        "The version, and the features that it was built with.",
    );
    let version = env!("CARGO_PKG_VERSION");
    let features = if cfg!(feature = "tls") { "tls" } else { "" };
    let _ = writeln!(
        text,
        "{build}{{version=\"{version}\",features=\"{features}\"}} 1"
    );
    text
}

/// Appends a metric that has a value for each of some labels.
pub fn render_labelled<'a>(
    text: &mut String,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'a str, u64)>,
) {
    Kind::of(name).describe(text, name, help);
    for (of, value) in values {
        let of = of.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(text, "{name}{{{label}=\"{of}\"}} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_our_prefix_a_sentence_and_the_ending_of_its_kind() {
        for metric in ALL {
            let name = metric.name;
            assert!(
                name.starts_with("hubbub_") || name == STARTED.name,
                "{name}"
            );
            assert!(metric.help.ends_with('.') || metric.help.ends_with('0'));
            assert_eq!(Kind::of(name), metric.kind, "{name}");
        }
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn each_metric_is_described_once_and_its_values_follow() {
        SHED.add(2);
        let text = render();
        assert!(
            text.contains("# TYPE hubbub_notices_shed_total counter\nhubbub_notices_shed_total ")
        );
        let mut names = std::collections::BTreeSet::new();
        for of_one in text.split("# HELP ").skip(1) {
            let mut lines = of_one.lines();
            let (name, _) = lines
                .next()
                .and_then(|help| help.split_once(' '))
                .expect("help");
            assert!(names.insert(name), "{name} is there twice");
            let kind = lines.next().and_then(|line| line.strip_prefix("# TYPE "));
            assert!(kind.is_some_and(|kind| kind.starts_with(name)), "{of_one}");
            let values: Vec<_> = lines.collect();
            assert!(!values.is_empty(), "{name} has no value");
            for line in values {
                let (key, value) = line.rsplit_once(' ').expect("a value");
                assert!(
                    key.starts_with(name) && value.parse::<f64>().is_ok(),
                    "{line}"
                );
            }
        }
        assert!(names.contains("process_threads") && names.contains("hubbub_build_info"));
    }

    #[test]
    fn a_time_counts_in_its_bucket_and_in_all_above() {
        let times = Histogram::new("took_seconds", "Times.");
        for millis in [0, 1, 2, 700, 5000] {
            times.observe(Duration::from_millis(millis));
        }
        let mut text = String::new();
        times.render(&mut text);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "# TYPE took_seconds histogram");
        let counts = [1, 2, 3, 3, 3, 3, 3, 3, 3, 4, 5];
        let bounds = "0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.5 2 +Inf";
        for (at, (bound, count)) in bounds.split(' ').zip(counts).enumerate() {
            let bucket = format!("took_seconds_bucket{{le=\"{bound}\"}} {count}");
            assert_eq!(lines[2 + at], bucket);
        }
        assert_eq!(
            lines[13..],
            ["took_seconds_sum 5.703", "took_seconds_count 5"]
        );
    }
}
