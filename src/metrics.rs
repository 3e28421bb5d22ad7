//! Counters and gauges of this process, rendered for Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! They are statics: a process is one instance, and code that counts should not need a handle.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The value only grows.
    Counter,
    /// The value goes up and down.
    Gauge,
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
    for metric in ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let Metric { name, help, .. } = metric;
        let value = metric.value.load(Ordering::Relaxed);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
        );
    }
    text
}

/// Appends a metric that has a value for each of some labels. One whose name ends in `_total` is a counter.
pub fn render_labelled<'a>(
    text: &mut String,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'a str, u64)>,
) {
    let kind = if name.ends_with("_total") {
        "counter"
    } else {
        "gauge"
    };
    // Writing to a string does not fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
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
            assert!(metric.name.starts_with("hubbub_"), "{}", metric.name);
            assert!(metric.help.ends_with('.') || metric.help.ends_with('0'));
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == Kind::Counter, "{}", metric.name);
        }
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn a_metric_is_three_lines() {
        SHED.add(2);
        let text = render();
        assert!(
            text.contains("# TYPE hubbub_notices_shed_total counter\nhubbub_notices_shed_total ")
        );
        assert_eq!(text.lines().count(), ALL.len() * 3);
    }
}
