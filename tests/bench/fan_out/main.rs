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

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::processes::Server;
use crate::report::Report;
use crate::results::{Results, Shape, System};

/// What connecting, settling and draining may take beside the measuring.
const BESIDE: Duration = Duration::from_secs(60);

/// How many connect for the sake of connecting: enough to take a while.
const HANDSHAKES: &str = "4000";

/// What is run.
struct Matrix {
    systems: Vec<System>,
    shapes: Vec<Shape>,
    rates: Vec<f64>,
    seconds: f64,
    rounds: usize,
    /// Where the page and the chart go.
    into: Option<PathBuf>,
}

impl Matrix {
    /// All of it, as the page shows it.
    fn whole() -> Self {
        let shapes = [(10, 1), (100, 1), (1000, 1), (4000, 1), (1000, 100)];
        Self {
            systems: System::ALL.to_vec(),
            shapes: shapes
                .map(|(members, rooms)| Shape { members, rooms })
                .into(),
            rates: vec![10.0, 100.0, 300.0, 1000.0, 0.0],
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
                matrix.shapes.retain(|shape| shape.members <= 1000);
                matrix.rates = vec![10.0, 100.0, 1000.0, 0.0];
                (matrix.rounds, matrix.seconds, part) = (1, 2.0, true);
                continue;
            }
            let value = arguments.next().ok_or(format!("{option} needs a value"))?;
            match &*option {
                "--into" => into = Some(PathBuf::from(value)),
                "--rounds" => matrix.rounds = number(&value)?,
                "--seconds" => matrix.seconds = number(&value)?,
                "--rates" => matrix.rates = list(&value)?,
                "--members" => {
                    let members: Vec<usize> = list(&value)?;
                    let one_room = |members| Shape { members, rooms: 1 };
                    matrix.shapes = members.into_iter().map(one_room).collect();
                }
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
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{text:?} cannot be understood"))
}

fn list<T: std::str::FromStr>(text: &str) -> Result<Vec<T>, String> {
    text.split(',').map(number).collect()
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some(processes::FLOOR) {
        return floor::serve();
    }
    let matrix = match Matrix::asked(std::env::args().skip(1)) {
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
    let sessions = matrix.rounds * matrix.shapes.len() * matrix.systems.len();
    let begin = Instant::now();
    let mut done = 0;
    for round in 1..=matrix.rounds {
        for &system in &matrix.systems {
            handshakes(system, &mut results);
        }
        for &shape in &matrix.shapes {
            for &system in &matrix.systems {
                done += 1;
                eprintln!(
                    "{:4.0} s  {done}/{sessions}  round {round}, {shape}: {system}",
                    begin.elapsed().as_secs_f64()
                );
                session(matrix, shape, system, &mut results);
            }
        }
    }
    results
}

fn start(system: System) -> Server {
    match system {
        System::Floor => processes::floor(),
        System::Embedded => processes::embedded(),
        System::Redis => processes::on_redis(),
    }
}

/// One server, anew, and many who connect and enter no room.
fn handshakes(system: System, results: &mut Results) {
    let server = start(system);
    let options = [
        "--members",
        HANDSHAKES,
        "--idle",
        "--outside",
        "--seconds",
        "0.1",
    ];
    let lines = processes::meter(&server, &options.map(str::to_owned), BESIDE);
    for line in lines.iter().flat_map(|lines| lines.lines()) {
        results.add_handshakes(system, serde_json::from_str(line).expect("a report"));
    }
}

/// One server, anew, and all rates.
fn session(matrix: &Matrix, shape: Shape, system: System, results: &mut Results) {
    let server = start(system);
    let rates: Vec<_> = matrix.rates.iter().map(ToString::to_string).collect();
    let options = [
        ("--members", shape.members.to_string()),
        ("--rooms", shape.rooms.to_string()),
        ("--seconds", matrix.seconds.to_string()),
        ("--rate", rates.join(",")),
    ];
    let options: Vec<_> = options
        .into_iter()
        .flat_map(|(option, value)| [option.to_owned(), value])
        .collect();
    let time = Duration::from_secs_f64(matrix.seconds * matrix.rates.len() as f64);
    let Some(lines) = processes::meter(&server, &options, 2 * time + BESIDE) else {
        return eprintln!("        the meter did not end in time");
    };
    for line in lines.lines() {
        let report: Report = serde_json::from_str(line).expect("a report");
        if let Some(fault) = report.fault() {
            eprintln!("        at {} messages/s: {fault}", report.rate);
        }
        results.add(system, shape, report);
    }
}
