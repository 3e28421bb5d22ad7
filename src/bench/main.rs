//! `hubbub-bench`, the meter: measures a running server as its clients do, and checks every delivery.
//!
//! One thread holds all connections, and none of them blocks, so that the meter takes little from a
//! server on the same machine. Every figure is counted: each message at each member, once and in
//! order. In each room one more connection sends; what that connection receives does not count, so a
//! server may echo a sender's own messages or not.
//!
//! Read from here down: `options` (the command line), `crowd` (the sockets), `load` (sending and
//! checking), `tally` (the counters), `wire` (frames and stamps), `report` (the result).

mod wire;
mod options;
mod tally;
mod report;
mod crowd;
mod load;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use hubbub::process::{cpu_s, memory_kib};
use hubbub::server::capacity::most_files;

use self::crowd::Crowd;
use self::load::{Load, everybody_hears};
use self::options::Options;
use self::report::{Memory, Report};

fn main() -> ExitCode {
    let Err(error) = Options::read().and_then(|options| run(&options)) else {
        return ExitCode::SUCCESS;
    };
    let _ = writeln!(io::stderr(), "hubbub-bench: {error}");
    ExitCode::FAILURE
}

/// Prints one report for each rate, or one for `--idle`. A server's mistake is an error, too.
fn run(options: &Options) -> Result<(), String> {
    // If the limit cannot be raised, connecting fails and says so.
    let _ = most_files();
    let mut faults = Vec::new();
    let mut connected = None;
    for &rate in &options.rate {
        let mut crowd = connected.take().map_or_else(|| connect(options), Ok)?;
        let report = measure(options, rate, &mut crowd)?;
        let json = match options.json {
            true => serde_json::to_string(&report),
            false => serde_json::to_string_pretty(&report),
        };
        let json = json.expect("all keys are strings");
        // If the reader of the pipe is gone, there is nobody to tell.
        let _ = writeln!(io::stdout(), "{json}");
        // If connections were lost, or messages are still on their way, the next measurement connects
        // anew.
        connected = (report.disconnected == 0 && report.late == 0).then_some(crowd);
        faults.extend(report.fault());
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(format!("not as it should be: {}", faults.join("; "))),
    }
}

/// Connects everybody, and waits until all members receive. Also measures the server's memory.
fn connect(options: &Options) -> Result<Crowd, String> {
    let before = options.pid.and_then(memory_kib);
    let mut crowd = Crowd::connect(options)?;
    crowd.settle()?;
    let idle = options.pid.and_then(memory_kib);
    crowd.memory = before.zip(idle).map(|(before, idle)| Memory {
        before,
        idle,
        peak: idle,
        per_connection: (idle - before) / options.connections() as f64,
    });
    if !options.idle {
        everybody_hears(options, &mut crowd)?;
        crowd.settle()?;
    }
    Ok(crowd)
}

fn measure(options: &Options, rate: f64, crowd: &mut Crowd) -> Result<Report, String> {
    let meter = std::process::id() as i32;
    let processes = [options.pid, options.redis_pid, Some(meter)];
    let cpu_s = || processes.map(|pid| pid.and_then(cpu_s));
    let before = cpu_s();
    let mut load = Load::new(options, rate, Duration::from_secs_f64(options.seconds));
    load.so_far.memory = crowd.memory.clone();
    load.run(crowd)?;
    let after = cpu_s();
    let report = load.report();
    let cost = |process: usize| {
        let nanoseconds = (after[process]? - before[process]?) * 1e9;
        let cost = (nanoseconds / report.delivered as f64).round() / 1e3;
        (report.delivered > 0).then_some(cost)
    };
    Ok(Report {
        server_cpu_us_per_delivery: cost(0),
        redis_cpu_us_per_delivery: cost(1),
        meter_cpu_us_per_delivery: cost(2),
        connects_per_s: crowd.connects_per_s,
        ..report
    })
}
