//! The targets, and how far they are met.

use crate::page::{memory, ratio, shown, table};
use crate::report::Report;
use crate::results::{
    Case, Figure, Rate, Results, Shape, System, connects, cpu, deliveries, grouped, p99,
};

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

/// The table of all targets.
pub(crate) fn table_of(results: &Results, page: &mut String) {
    let hall = |rate| Case::Load(Shape::HALL, rate);
    let [slow, faster, fast] = [10, 100, 1000].map(|rate| hall(Rate::Of(rate)));
    let most = hall(Rate::Most);
    let redis = |case, of: Figure| results.median(System::REDIS, case, of);
    let worst = |cases: &[Case], of: fn(&Report) -> u64| {
        let reports = cases
            .iter()
            .flat_map(|&case| results.reports(System::REDIS, case));
        reports.map(of).max().map(|count| count as f64)
    };
    let small = Case::Load(
        Shape {
            rooms: 1,
            members: 10,
        },
        Rate::Of(10),
    );
    let small_rooms = [100, 1000].map(|rooms| Case::Load(Shape { rooms, members: 10 }, Rate::Most));
    let cpu_ratio = |case| ratio(results, System::REDIS, System::FLOOR_OF_ONE, case, cpu);
    let p99_ratio = |case| ratio(results, System::REDIS, System::FLOOR, case, p99);
    let connects = |enters| redis(Case::Connecting { enters }, connects);
    let wrong = |report: &Report| report.lost + report.out_of_order + report.doubled;
    let growth = |report: &Report| {
        let memory = report.memory.as_ref()?;
        Some((memory.peak - memory.idle) / 1024.0)
    };
    let targets = [
        Target::least(
            "saturated: deliveries/s",
            1.2e6,
            "",
            redis(most, deliveries),
        ),
        Target::most(
            "saturated: lost, out of order or doubled",
            0.0,
            "",
            worst(&[most], wrong),
        ),
        Target::most(
            "saturated: memory above idle",
            64.0,
            " MiB",
            redis(most, growth),
        ),
        Target::most(
            "1,000 messages/s: lost, late or held up",
            0.0,
            "",
            worst(&[fast], |report| report.lost + report.late + report.unsent),
        ),
        Target::most("1,000 messages/s: p99", 100.0, " ms", redis(fast, p99)),
        Target::most(
            "100 messages/s: CPU, to the floor's",
            3.0,
            " ×",
            cpu_ratio(faster),
        ),
        Target::most(
            "100 messages/s: p99, to the floor's",
            1.3,
            " ×",
            p99_ratio(faster),
        ),
        Target::most(
            "10 messages/s: CPU, to the floor's",
            3.0,
            " ×",
            cpu_ratio(slow),
        ),
        Target::most(
            "10 messages/s: p99, to the floor's",
            1.3,
            " ×",
            p99_ratio(slow),
        ),
        Target::most(
            "10 messages/s to 10 members: CPU, to the floor's",
            3.0,
            " ×",
            cpu_ratio(small),
        ),
        Target::most(
            "100 and 1,000 rooms of 10, saturated: lost, out of order or doubled",
            0.0,
            "",
            worst(&small_rooms, wrong),
        ),
        Target::most(
            "memory of an idle connection",
            24.0,
            " KiB",
            redis(Case::Connecting { enters: true }, memory),
        ),
        Target::least("connects/s, into a room", 10_000.0, "", connects(true)),
        Target::least(
            "connects/s, the handshake alone",
            12_000.0,
            "",
            connects(false),
        ),
        Target::most(
            "CPU a delivery to 1,000 or 4,000 members, to that to 100",
            1.5,
            " ×",
            growth_with_members(results),
        ),
    ];
    let rows = targets.map(|target| {
        let (found, verdict) = match (target.found, target.met) {
            (None, _) => ("not measured".to_owned(), ""),
            (Some(found), true) => (found, "met"),
            (Some(found), false) => (found, "**not met**"),
        };
        vec![
            target.what.to_owned(),
            target.wanted,
            found,
            verdict.to_owned(),
        ]
    });
    table(
        page,
        "The targets",
        "What is wanted of Hubbub through Redis with all workers, where nothing else is said in one room \
         of 1,000.",
        "| target | wanted | found | |\n|---|--:|--:|---|",
        rows,
    );
}

/// How much dearer a delivery is in large rooms than in one of 100. Cheaper is no fault: the larger the
/// room, the more goes out with one write.
fn growth_with_members(results: &Results) -> Option<f64> {
    let costs = [100, 1000, 4000].map(|members| {
        let case = Case::Load(Shape { rooms: 1, members }, Rate::Of(100));
        results.median(System::REDIS, case, cpu)
    });
    let [Some(small), Some(large), Some(largest)] = costs else {
        return None;
    };
    Some(large.max(largest) / small)
}
