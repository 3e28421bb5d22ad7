//! The page of results, in Markdown: what was measured where, the targets, and the tables.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use crate::report::Report;
use crate::results::{Results, Shape, System, cpu, grouped, p99};

const HALL: Shape = Shape {
    rooms: 1,
    members: 1000,
};

pub(crate) fn of(results: &Results) -> String {
    let mut page = String::from("# What a delivery costs\n\n");
    let (rounds, seconds) = (results.rounds, results.seconds);
    let _ = write!(
        page,
        "Messages of 100 bytes, medians of {rounds} rounds of {seconds} s each, floor and Hubbub in \
         turn. Measured by `hubbub-bench` on the same machine and so at the same processors' expense, \
         against a server started anew for each shape. {}\n\n\
         The **floor** is a loop that writes the same bytes to as many sockets with nothing else, one \
         write for each message and member. CPU is the server's own, without Redis and the meter; \
         times count from when a message was due to when a member had it. × is the ratio to the \
         floor. In the rows marked `max` messages are sent as fast as they come back, 256 of a room \
         on their way at most; the same holds for a rate that is too high, which shows in its times.\n",
        machine()
    );
    targets(results, &mut page);
    page.push_str("\n![CPU and latency by rate](results.svg)\n");
    for shape in results.shapes() {
        table(results, shape, &mut page);
    }
    connections(results, &mut page);
    page
}

/// The machine, and what ran on it.
fn machine() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
        text.unwrap_or_default().trim().to_owned()
    };
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let redis = said("redis-server", &["--version"]);
    let redis = redis
        .split(' ')
        .find_map(|word| word.strip_prefix("v="))
        .unwrap_or("unknown");
    let commit = said("git", &["rev-parse", "--short", "HEAD"]);
    let changed = match &*said("git", &["status", "--porcelain", "src", "Cargo.lock"]) {
        "" => "",
        _ => " with changes",
    };
    format!(
        "{cores} cores of {model}, Linux {}, Redis {redis}, commit {commit}{changed}.",
        kernel.trim()
    )
}

/// One target, and how far it is met.
struct Target {
    what: &'static str,
    wanted: String,
    found: Option<String>,
    met: bool,
}

impl Target {
    fn most(what: &'static str, most: f64, unit: &str, found: Option<f64>) -> Self {
        Self {
            what,
            wanted: format!("at most {most}{unit}"),
            found: found.map(|found| format!("{}{unit}", shown(found))),
            met: found.is_some_and(|found| found <= most),
        }
    }

    fn least(what: &'static str, least: f64, unit: &str, found: Option<f64>) -> Self {
        Self {
            what,
            wanted: format!("at least {}{unit}", grouped(least)),
            found: found.map(|found| format!("{}{unit}", shown(found))),
            met: found.is_some_and(|found| found >= least),
        }
    }
}

fn targets(results: &Results, page: &mut String) {
    let hall = |rate, of: fn(&Report) -> Option<f64>| results.median(System::Redis, HALL, rate, of);
    let ratio = |rate, of: fn(&Report) -> Option<f64>| {
        Some(hall(rate, of)? / results.median(System::Floor, HALL, rate, of)?)
    };
    let worst = |rate, of: fn(&Report) -> u64| {
        let reports = results.reports(System::Redis, HALL, rate);
        reports.iter().map(of).max().map(|count| count as f64)
    };
    let growth = |report: &Report| {
        let memory = report.memory.as_ref()?;
        Some((memory.peak - memory.idle) / 1024.0)
    };
    let targets = [
        Target::least(
            "saturated: deliveries/s",
            1.2e6,
            "",
            hall(0.0, |report| Some(report.deliveries_per_s)),
        ),
        Target::most("saturated: lost", 0.0, "", worst(0.0, |report| report.lost)),
        Target::most(
            "saturated: out of order or doubled",
            0.0,
            "",
            worst(0.0, |report| report.out_of_order + report.doubled),
        ),
        Target::most(
            "saturated: memory above idle",
            64.0,
            " MiB",
            hall(0.0, growth),
        ),
        Target::most(
            "1,000 messages/s: lost, late or held up",
            0.0,
            "",
            worst(1000.0, |report| report.lost + report.late + report.unsent),
        ),
        Target::most("1,000 messages/s: p99", 100.0, " ms", hall(1000.0, p99)),
        Target::most(
            "100 messages/s: CPU, to the floor's",
            3.0,
            " ×",
            ratio(100.0, cpu),
        ),
        Target::most(
            "100 messages/s: p99, to the floor's",
            3.0,
            " ×",
            ratio(100.0, p99),
        ),
        Target::most(
            "10 messages/s: CPU, to the floor's",
            3.0,
            " ×",
            ratio(10.0, cpu),
        ),
        Target::most(
            "10 messages/s: p99, to the floor's",
            3.0,
            " ×",
            ratio(10.0, p99),
        ),
        Target::most(
            "memory of an idle connection",
            40.0,
            " KiB",
            idle(results, HALL),
        ),
        Target::least(
            "connects/s, through the handshake",
            10_000.0,
            "",
            results.handshakes(System::Redis),
        ),
        Target::most(
            "CPU a delivery to 1,000 or 4,000 members, to that to 100",
            1.5,
            " ×",
            growth_with_members(results),
        ),
    ];
    page.push_str(
        "\n## The targets\n\n1,000 members in one room, through Redis.\n\n\
         | target | wanted | found | |\n|---|--:|--:|---|\n",
    );
    for target in targets {
        let Target { what, wanted, .. } = target;
        let (found, verdict) = match (target.found, target.met) {
            (None, _) => ("not measured".to_owned(), ""),
            (Some(found), true) => (found, "met"),
            (Some(found), false) => (found, "**not met**"),
        };
        let _ = writeln!(page, "| {what} | {wanted} | {found} | {verdict} |");
    }
}

/// KiB an idle connection takes.
fn idle(results: &Results, shape: Shape) -> Option<f64> {
    let rate = *results.rates().first()?;
    results.median(System::Redis, shape, rate, |report| {
        Some(report.memory.as_ref()?.per_connection)
    })
}

/// How much dearer a delivery is in large rooms than in one of 100. Cheaper is no fault: the larger the
/// room, the more goes out with one write.
fn growth_with_members(results: &Results) -> Option<f64> {
    let costs = [100, 1000, 4000].map(|members| {
        let shape = Shape { rooms: 1, members };
        results.median(System::Redis, shape, 100.0, cpu)
    });
    let [Some(small), Some(large), Some(largest)] = costs else {
        return None;
    };
    Some(large.max(largest) / small)
}

/// Three digits, or all of them.
fn shown(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        100.0.. => grouped(number),
        10.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

fn table(results: &Results, shape: Shape, page: &mut String) {
    let _ = write!(
        page,
        "\n## {shape}\n\n\
         | messages/s | | deliveries/s | CPU µs a delivery | × | p50 ms | p99 ms | × | meter µs | faults |\n\
         |--:|---|--:|--:|--:|--:|--:|--:|--:|---|\n"
    );
    for rate in results.rates() {
        for system in System::ALL {
            if results.reports(system, shape, rate).is_empty() {
                continue;
            }
            let found = |of: fn(&Report) -> Option<f64>| results.median(system, shape, rate, of);
            let ratio = |of: fn(&Report) -> Option<f64>| match system {
                System::Floor => None,
                System::Embedded | System::Redis => {
                    Some(found(of)? / results.median(System::Floor, shape, rate, of)?)
                }
            };
            let show = |number: Option<f64>| number.map_or(String::new(), shown);
            let name = match rate {
                0.0 => "max".to_owned(),
                rate => grouped(rate),
            };
            let _ = writeln!(
                page,
                "| {name} | {system} | {} | {} | {} | {} | {} | {} | {} | {} |",
                show(found(|report| Some(report.deliveries_per_s))),
                show(found(cpu)),
                show(ratio(cpu)),
                show(found(|report| Some(report.latency_ms.as_ref()?.p50))),
                show(found(p99)),
                show(ratio(p99)),
                show(found(|report| report.meter_cpu_us_per_delivery)),
                faults(results.reports(system, shape, rate))
            );
        }
    }
}

/// What went wrong in any round.
fn faults(reports: &[Report]) -> String {
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    [
        (sum(|report| report.lost), "lost"),
        (sum(|report| report.late), "late"),
        (sum(|report| report.doubled), "doubled"),
        (sum(|report| report.out_of_order), "out of order"),
        (sum(|report| report.disconnected as u64), "disconnected"),
        (sum(|report| report.unsent), "held up"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", grouped(count as f64)))
    .collect::<Vec<_>>()
    .join(", ")
}

fn connections(results: &Results, page: &mut String) {
    page.push_str(
        "\n## Connections\n\n\
         | | | KiB an idle connection | MiB above idle, at most | connects/s, into a room |\n|---|---|--:|--:|--:|\n",
    );
    let Some(&first) = results.rates().first() else {
        return;
    };
    for shape in results.shapes() {
        for system in [System::Embedded, System::Redis] {
            let found = |of: fn(&Report) -> Option<f64>| {
                results
                    .median(system, shape, first, of)
                    .map_or(String::new(), shown)
            };
            let growth = results.rates().into_iter().filter_map(|rate| {
                results.median(system, shape, rate, |report| {
                    let memory = report.memory.as_ref()?;
                    Some((memory.peak - memory.idle) / 1024.0)
                })
            });
            let growth = growth.max_by(f64::total_cmp).map_or(String::new(), shown);
            if results.reports(system, shape, first).is_empty() {
                continue;
            }
            let _ = writeln!(
                page,
                "| {shape} | {system} | {} | {growth} | {} |",
                found(|report| Some(report.memory.as_ref()?.per_connection)),
                found(|report| Some(report.connects_per_s))
            );
        }
    }
    let Some(floor) = results.handshakes(System::Floor) else {
        return;
    };
    let _ = write!(
        page,
        "\nThrough the handshake alone, connects/s beside the meter: the floor {}",
        shown(floor)
    );
    for system in [System::Embedded, System::Redis] {
        if let Some(handshakes) = results.handshakes(system) {
            let ratio = handshakes / floor;
            let _ = write!(page, "; {system}, {} ({ratio:.2} ×)", shown(handshakes));
        }
    }
    page.push_str(".\n");
}
