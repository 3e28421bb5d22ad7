//! The page of results, in Markdown: what was measured where, the targets, and the tables.

use std::fmt::{Display, Write};
use std::fs;
use std::process::Command;

use crate::report::Report;
use crate::results::{
    Case, Figure, Kind, Rate, Results, Shape, System, Threads, connects, cores, cpu, deliveries,
    grouped, p50, p99,
};
use crate::targets;

/// The share of a core, or of all cores, from which on it counts as used up.
const USED_UP: f64 = 0.9;

pub(crate) fn of(results: &Results) -> String {
    let mut page = String::from("# What a delivery costs\n\n");
    let (rounds, seconds) = (results.rounds, results.seconds);
    let _ = write!(
        page,
        "Messages of 100 bytes, medians of {rounds} rounds of {seconds} s each, floor and Hubbub in \
         turn. Measured by `hubbub-bench` on the same machine and so at the same processors' expense, \
         against a server started anew for each shape. {}\n\n\
         The **floor** writes the same bytes to as many sockets with nothing else, one write for each \
         message and member; with more than one thread, each writes to its part of the sockets. CPU is \
         the server's own, without Redis and the meter; times count from when a message was due to \
         when a member had it.\n",
        machine()
    );
    targets::table_of(results, &mut page);
    page.push_str("\n![CPU and latency by rate](results.svg)\n");
    beside_the_floor(results, &mut page);
    throughput(results, &mut page);
    saturated(results, &mut page);
    connecting(results, &mut page);
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

/// KiB an idle connection takes.
pub(crate) fn memory(report: &Report) -> Option<f64> {
    Some(report.memory.as_ref()?.per_connection)
}

/// How much more a system takes than another.
pub(crate) fn ratio(
    results: &Results,
    system: System,
    to: System,
    case: Case,
    of: Figure,
) -> Option<f64> {
    Some(results.median(system, case, of)? / results.median(to, case, of)?)
}

/// Three digits, or all of them.
pub(crate) fn shown(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        100.0.. => grouped(number),
        10.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// The same of what may not have been measured.
fn cell(number: Option<f64>) -> String {
    number.map_or(String::new(), shown)
}

/// A table, and one sentence that says what it shows; nothing if it has no rows.
pub(crate) fn table(
    page: &mut String,
    title: &str,
    sentence: impl Display,
    header: &str,
    rows: impl IntoIterator<Item = Vec<String>>,
) {
    let rows: Vec<_> = rows.into_iter().map(|row| row.join(" | ")).collect();
    if !rows.is_empty() {
        let rows = rows.join(" |\n| ");
        let _ = writeln!(page, "\n## {title}\n\n{sentence}\n\n{header}\n| {rows} |");
    }
}

/// What one case shows of one system; a row begins with their names.
struct Row<'a> {
    results: &'a Results,
    shape: Shape,
    rate: Rate,
    case: Case,
    system: System,
}

impl Row<'_> {
    fn figure(&self, of: Figure) -> String {
        cell(self.results.median(self.system, self.case, of))
    }

    /// To a floor that keeps up.
    fn to(&self, floor: System, of: Figure) -> String {
        let Rate::Of(rate) = self.rate else {
            return String::new();
        };
        let all = f64::from(rate) * self.shape.members as f64;
        let delivered = self.results.median(floor, self.case, deliveries);
        match self.system.0 {
            Kind::Embedded | Kind::Redis if delivered > Some(USED_UP * all) => {
                cell(ratio(self.results, self.system, floor, self.case, of))
            }
            Kind::Floor | Kind::Embedded | Kind::Redis => String::new(),
        }
    }

    fn reports(&self) -> &[Report] {
        self.results.reports(self.system, self.case)
    }
}

/// The rows of a table: all that was measured of the shapes, rates and systems that belong to it.
fn rows(results: &Results, belongs: impl Fn(Shape, Rate, System) -> bool) -> Vec<Row<'_>> {
    let loads = results.loads().into_iter();
    let rows = loads.flat_map(|(shape, rate)| {
        let case = Case::Load(shape, rate);
        let systems = results.systems(case).into_iter();
        systems.map(move |system| Row {
            results,
            shape,
            rate,
            case,
            system,
        })
    });
    rows.filter(|row| belongs(row.shape, row.rate, row.system))
        .collect()
}

fn beside_the_floor(results: &Results, page: &mut String) {
    let rows = rows(results, |shape, rate, _| {
        shape.rooms == 1 && rate < Rate::Of(300)
    });
    table(
        page,
        "Beside the floor",
        format!(
            "What Hubbub adds to the bare writing while the floor keeps up: × is the ratio of CPU to \
             `{}`, of p99 to `{}`, and is missing where that floor falls behind.",
            System::FLOOR_OF_ONE,
            System::FLOOR
        ),
        "| | messages/s | | CPU µs a delivery | × | p50 ms | p99 ms | × | faults |\n\
         |---|--:|---|--:|--:|--:|--:|--:|---|",
        rows.iter().map(|row| {
            vec![
                row.shape.to_string(),
                row.rate.to_string(),
                row.system.to_string(),
                row.figure(cpu),
                row.to(System::FLOOR_OF_ONE, cpu),
                row.figure(p50),
                row.figure(p99),
                row.to(System::FLOOR, p99),
                faults(row.reports()),
            ]
        }),
    );
}

fn throughput(results: &Results, page: &mut String) {
    let rows = rows(results, |shape, rate, system| {
        shape.rooms == 1
            && rate >= Rate::Of(300)
            && System::COMPARED.contains(&system)
            && system.0 != Kind::Floor
    });
    table(
        page,
        "Higher rates",
        "What Hubbub delivers by batching, where a floor falls behind in a large room; `max` is as fast as messages come back, with 256 of a room \
         on their way at most.",
        "| | messages/s | | deliveries/s | CPU µs a delivery | p50 ms | p99 ms | faults |\n\
         |---|--:|---|--:|--:|--:|--:|---|",
        rows.iter().map(|row| {
            vec![
                row.shape.to_string(),
                row.rate.to_string(),
                row.system.to_string(),
                row.figure(deliveries),
                row.figure(cpu),
                row.figure(p50),
                row.figure(p99),
                faults(row.reports()),
            ]
        }),
    );
}

fn saturated(results: &Results, page: &mut String) {
    let rows = rows(results, |shape, rate, _| {
        shape.is_of_all_systems() && rate == Rate::Most
    });
    table(
        page,
        "Threads and cores, saturated",
        format!(
            "What more workers and cores bring, and which process is at its end: × is the ratio of \
             deliveries/s to the same server with one thread on all cores, and redis-server and the meter \
             have one thread each, so either is at its end near 1.00 core, and the machine near {}; where none is named, a thread \
             of the server is at its end, or they wait for one another.",
            cores()
        ),
        "| | | deliveries/s | × | p99 ms | cores: server | redis-server | meter | at its end | faults |\n\
         |---|---|--:|--:|--:|--:|--:|--:|---|---|",
        rows.iter().map(|row| {
            let System(kind, threads) = row.system;
            let one = System(kind, Threads::One);
            let to_one = match threads {
                Threads::One => None,
                Threads::All | Threads::Pinned => {
                    ratio(results, row.system, one, row.case, deliveries)
                }
            };
            let used = CPUS.map(|of| results.median(row.system, row.case, of));
            vec![
                row.shape.to_string(),
                row.system.to_string(),
                row.figure(deliveries),
                cell(to_one),
                row.figure(p99),
                cell(used[0]),
                cell(used[1]),
                cell(used[2]),
                at_its_end(row.system, used.map(Option::unwrap_or_default)),
                faults(row.reports()),
            ]
        }),
    );
}

/// How many cores the server, redis-server and the meter used.
const CPUS: [Figure; 3] = [
    |report| used(report, report.server_cpu_us_per_delivery),
    |report| used(report, report.redis_cpu_us_per_delivery),
    |report| used(report, report.meter_cpu_us_per_delivery),
];

fn used(report: &Report, us_per_delivery: Option<f64>) -> Option<f64> {
    Some(us_per_delivery? * report.deliveries_per_s / 1e6)
}

/// Those that leave nothing of what they may use.
fn at_its_end(system: System, used: [f64; 3]) -> String {
    let [server, redis, meter] = used;
    // A floor does nothing but write; Hubbub has other threads beside its workers, unless it is pinned.
    let is_limited = system.0 == Kind::Floor || system.1 == Threads::Pinned;
    let limit = USED_UP * system.threads() as f64;
    let ends = [
        (is_limited && server > limit, "server"),
        (redis > USED_UP, "redis-server"),
        (meter > USED_UP, "meter"),
        (
            server + redis + meter > USED_UP * cores() as f64,
            "all cores",
        ),
    ];
    let ends = ends.into_iter().filter(|(is_at_its_end, _)| *is_at_its_end);
    ends.map(|(_, name)| name).collect::<Vec<_>>().join(", ")
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

fn connecting(results: &Results, page: &mut String) {
    let [enter, handshake] = [true, false].map(|enters| Case::Connecting { enters });
    let rows = results.systems(enter).into_iter().map(|system| {
        let median = |case, of: Figure| results.median(system, case, of);
        let to_floor = |case| match system.0 {
            Kind::Floor => None,
            Kind::Embedded | Kind::Redis => ratio(results, system, System::FLOOR, case, connects),
        };
        vec![
            system.to_string(),
            cell(median(enter, connects)),
            cell(to_floor(enter)),
            cell(median(handshake, connects)),
            cell(to_floor(handshake)),
            cell(median(enter, memory)),
        ]
    });
    table(
        page,
        "Connecting",
        format!(
            "How fast 4,000 users come, beside the meter, and what they take then: into four rooms, and \
             through the handshake alone; × is the ratio to `{}`, which sends no list of members.",
            System::FLOOR
        ),
        "| | connects/s into a room | × | handshakes/s | × | KiB an idle connection |\n\
         |---|--:|--:|--:|--:|--:|",
        rows,
    );
}
