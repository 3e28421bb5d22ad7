//! What a delivery costs, beside a floor that is measured in the same run: `scripts/bench.sh` runs
//! it, and its options are told there. It needs `redis-server`.
//!
//! Absolute times change with the machine and with whatever else it does; the ratio to the floor
//! changes less. So floor and Hubbub take turns within each round, and medians over the rounds are
//! what counts.

#![allow(clippy::print_stdout, clippy::print_stderr)] // the figures are what it is for

mod chart;
mod floor;
mod page;
mod processes;
#[path = "../../../src/bench/report.rs"]
mod report;
mod results;
mod targets;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::processes::can_pin;
use crate::report::Report;
use crate::results::{Case, Kind, Rate, Results, Shape, System, Threads};

/// What connecting, settling and draining may take beside the measuring.
const BESIDE: Duration = Duration::from_secs(60);

/// How many connect for the sake of connecting: enough to take a while, and 1,000 in each room.
const CONNECTING: &str = "--members 4000 --rooms 4 --idle --seconds 0.1";

/// The most messages on their way, in a room and in all.
const WINDOW: usize = 256;
const WINDOWS: usize = 100 * WINDOW;

/// What is run.
struct Matrix {
    systems: Vec<System>,
    shapes: Vec<Shape>,
    rates: Vec<Rate>,
    seconds: f64,
    rounds: usize,
    /// Where the page and the chart go.
    into: Option<PathBuf>,
}

impl Matrix {
    /// All of it, as the page shows it.
    fn whole() -> Self {
        let mut systems = Vec::new();
        for kind in [Kind::Floor, Kind::Embedded, Kind::Redis] {
            systems.extend([Threads::One, Threads::All].map(|threads| System(kind, threads)));
            if kind != Kind::Floor && can_pin() {
                systems.push(System(kind, Threads::Pinned));
            }
        }
        let shapes = [
            (1, 10),
            (1, 100),
            (1, 1000),
            (1, 4000),
            (100, 10),
            (1000, 10),
        ];
        Self {
            systems,
            shapes: shapes
                .map(|(rooms, members)| Shape { rooms, members })
                .into(),
            rates: vec![Rate::Of(10), Rate::Of(100), Rate::Of(1000), Rate::Most],
            seconds: 3.0,
            rounds: 3,
            into: Some(PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/bench"
            ))),
        }
    }

    /// What was asked for. Only the whole is written, or what is told where to.
    fn asked(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut matrix = Self::whole();
        let mut arguments = arguments.filter(|argument| argument != "--bench");
        let mut into = None;
        let mut part = false;
        while let Some(option) = arguments.next() {
            if option == "--quick" {
                let is_quick = |shape: &Shape| ![100, 4000].contains(&shape.members);
                matrix.shapes.retain(is_quick);
                (matrix.rounds, matrix.seconds, part) = (1, 1.0, true);
                continue;
            }
            let value = arguments.next().ok_or(format!("{option} needs a value"))?;
            match &*option {
                "--into" => into = Some(PathBuf::from(value)),
                "--rounds" => matrix.rounds = number(&value)?,
                "--seconds" => matrix.seconds = number(&value)?,
                "--rates" => matrix.rates = list(&value)?,
                "--shapes" => matrix.shapes = list(&value)?,
                "--systems" => matrix.systems = list(&value)?,
                _ => return Err(format!("there is no option {option}")),
            }
            part |= option != "--into";
        }
        if into.is_some() || part {
            matrix.into = into;
        }
        Ok(matrix)
    }

    /// The rates at which a system is measured in this shape.
    fn rates(&self, shape: Shape, system: System) -> Vec<Rate> {
        let is_compared = shape.rooms == 1 && System::COMPARED.contains(&system);
        let is_measured = |rate: &Rate| match (rate, system.0) {
            (Rate::Most, _) if shape.is_of_all_systems() => true,
            // From here on it is behind: it does not batch.
            (Rate::Most | Rate::Of(300..), Kind::Floor) => false,
            _ => is_compared,
        };
        self.rates.iter().copied().filter(is_measured).collect()
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{text:?} cannot be understood"))
}

fn list<T: std::str::FromStr>(text: &str) -> Result<Vec<T>, String> {
    text.split(',').map(number).collect()
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [processes::FLOOR, threads] =
        arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        return floor::serve(threads.parse().expect("how many threads write"));
    }
    let matrix = match Matrix::asked(arguments.into_iter()) {
        Ok(matrix) => matrix,
        Err(why) => {
            eprintln!("fan_out: {why}");
            std::process::exit(1);
        }
    };
    processes::end_when_asked();
    let results = measure(&matrix);
    let page = page::of(&results);
    println!("{page}");
    if let Some(folder) = &matrix.into {
        std::fs::create_dir_all(folder).expect("a folder for the results");
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            eprintln!("wrote {}", path.display());
        };
        write("results.md", &page);
        write("results.svg", &chart::of(&results));
    }
}

fn measure(matrix: &Matrix) -> Results {
    let mut results = Results::new(matrix.rounds, matrix.seconds);
    let begin = Instant::now();
    for round in 1..=matrix.rounds {
        let say = |what: &str| {
            let seconds = begin.elapsed().as_secs_f64();
            eprintln!(
                "{seconds:4.0} s  round {round} of {}, {what}",
                matrix.rounds
            );
        };
        say("connecting");
        for &system in &matrix.systems {
            if System::COMPARED.contains(&system) {
                for (enters, option) in [(true, ""), (false, " --outside")] {
                    let options = format!("{CONNECTING}{option}");
                    let case = Case::Connecting { enters };
                    session(system, &options, &[case], Duration::ZERO, &mut results);
                }
            }
        }
        for &shape in &matrix.shapes {
            for &system in &matrix.systems {
                let rates = matrix.rates(shape, system);
                if !rates.is_empty() {
                    say(&format!("{shape}: {system}"));
                    load(shape, system, &rates, matrix.seconds, &mut results);
                }
            }
        }
    }
    results
}

/// One server at all these rates.
fn load(shape: Shape, system: System, rates: &[Rate], seconds: f64, results: &mut Results) {
    let Shape { rooms, members } = shape;
    let plain = rates.iter().map(|rate| match rate {
        Rate::Of(rate) => rate.to_string(),
        Rate::Most => "0".to_owned(),
    });
    let options = format!(
        "--members {} --rooms {rooms} --seconds {seconds} --window {} --rate {}",
        rooms * members,
        WINDOW.min(WINDOWS / rooms),
        plain.collect::<Vec<_>>().join(",")
    );
    let cases: Vec<_> = rates.iter().map(|&rate| Case::Load(shape, rate)).collect();
    let time = Duration::from_secs_f64(seconds * rates.len() as f64);
    session(system, &options, &cases, time, results);
}

/// Starts a server anew, and has the meter measure these cases.
fn session(system: System, options: &str, cases: &[Case], time: Duration, results: &mut Results) {
    let server = processes::start(system);
    let Some(lines) = processes::meter(&server, options, 2 * time + BESIDE) else {
        return eprintln!("        the meter did not end in time");
    };
    for (&case, line) in cases.iter().zip(lines.lines()) {
        let report: Report = serde_json::from_str(line).expect("a report");
        if let Some(fault) = report.fault() {
            eprintln!("        {fault}");
        }
        results.add(system, case, report);
    }
}
