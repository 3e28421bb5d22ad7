//! `hubbub-bench`, the meter: measures a running server as its clients do, and checks every delivery.
//!
//! One thread holds all connections, and none of them blocks, so that the meter takes little from a
//! server on the same machine. Every figure is counted: each message at each member, once and in
//! order. In each room one more connection sends; what that connection receives does not count, so a
//! server may echo a sender's own messages or not.
//!
//! Read from here down: `options` (the command line), `crowd` (the sockets), `load` (sending and
//! checking), `tally` (the counters), `wire` (frames and stamps), `report` (the result).

mod process;
mod wire;
mod options;
mod tally;
mod crowd;
mod load;
mod report;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use hubbub::server::capacity::most_files;

use self::crowd::Crowd;
use self::load::{Load, everybody_hears};
use self::options::Options;
use self::process::{Process, own_cpu};
use self::report::{Kind, Memory, Report, Times};

fn main() -> ExitCode {
    match Options::read().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            status(format_args!(""));
            let _ = writeln!(io::stderr(), "hubbub-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints one report for each rate, or one for `--idle`. An error also if the server made a mistake.
fn run(options: &Options) -> Result<(), String> {
    // If the limit cannot be raised, connecting fails and says so.
    let _ = most_files();
    let rates: Vec<_> = match options.idle {
        true => vec![None],
        false => options.rate.iter().copied().map(Some).collect(),
    };
    let mut faults = Vec::new();
    let mut connected = None;
    for rate in rates {
        let (mut crowd, memory) = match connected.take() {
            Some(connected) => connected,
            None => connect(options)?,
        };
        let report = measure(options, rate, &mut crowd, memory.clone())?;
        print(&report, options.json);
        // After a loss of connections, or with messages still on their way, the next measurement
        // starts with new connections.
        if report.disconnected == 0 && report.late == 0 {
            connected = Some((crowd, memory));
        }
        faults.extend(report.fault());
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(format!("not as it should be: {}", faults.join("; "))),
    }
}

/// Connects everybody, and waits until all members receive. Also measures the server's memory.
fn connect(options: &Options) -> Result<(Crowd, Option<Memory>), String> {
    let resident = || options.pid.and_then(Process::memory_kib);
    let before = resident();
    let mut crowd = Crowd::connect(options)?;
    status(format_args!("waiting until everybody hears everybody"));
    crowd.settle()?;
    let memory = before.zip(resident()).map(|(before, idle)| Memory {
        before,
        idle,
        peak: idle,
        per_connection: (idle - before) / options.connections() as f64,
    });
    if !options.idle {
        everybody_hears(options, &mut crowd)?;
        crowd.settle()?;
    }
    Ok((crowd, memory))
}

fn measure(
    options: &Options,
    rate: Option<f64>,
    crowd: &mut Crowd,
    mut memory: Option<Memory>,
) -> Result<Report, String> {
    let server_cpu = || options.pid.and_then(Process::cpu_s);
    let (server_before, meter_before) = (server_cpu(), own_cpu());
    let mut load = Load::new(options, rate);
    load.run(crowd, |load| {
        let (seconds, sent, delivered) = (load.elapsed(), load.sent(), load.delivered());
        status(format_args!(
            "{seconds:.0} s  sent {sent}  delivered {delivered}"
        ));
        if let Some((memory, now)) = memory
            .as_mut()
            .zip(options.pid.and_then(Process::memory_kib))
        {
            memory.peak = memory.peak.max(now);
        }
    })?;
    let server_cpu_s = server_cpu()
        .zip(server_before)
        .map(|(after, before)| after - before);
    let meter_cpu_s = own_cpu() - meter_before;
    let delivered = load.delivered();
    let each = |seconds: f64| (delivered > 0).then(|| seconds * 1e6 / delivered as f64);
    let (disconnected, why) = crowd.gone(options.senders()..options.connections());
    Ok(Report {
        kind: match rate {
            None => Kind::Idle,
            Some(0.0) => Kind::Most,
            Some(_) => Kind::Rate,
        },
        members: options.members,
        rooms: options.rooms,
        rate: rate.unwrap_or(0.0),
        size: if options.idle { 0 } else { options.size },
        seconds: load.elapsed(),
        sent: load.sent(),
        unsent: load.unsent(),
        expected: load.expected(),
        delivered,
        lost: load.lost(),
        late: load.late(),
        doubled: load.doubled(),
        out_of_order: load.out_of_order(),
        disconnected,
        disconnected_because: why.map(str::to_owned),
        deliveries_per_s: load.deliveries_per_s(),
        latency_ms: rate.map(|_| Times {
            p50: load.times.quantile_ms(0.5),
            p90: load.times.quantile_ms(0.9),
            p99: load.times.quantile_ms(0.99),
            max: load.times.quantile_ms(1.0),
        }),
        server_cpu_s,
        server_cpu_us_per_delivery: server_cpu_s.and_then(each),
        meter_cpu_s,
        meter_cpu_us_per_delivery: each(meter_cpu_s),
        memory,
        connects_per_s: crowd.connects_per_s,
    })
}

fn print(report: &Report, json: bool) {
    status(format_args!(""));
    let text = match json {
        true => serde_json::to_string(report).expect("a report has no keys that are not strings"),
        false => report.to_string(),
    };
    // If the reader of the pipe is gone, there is nobody to tell.
    let _ = writeln!(io::stdout(), "{text}");
}

/// Shows the progress in place of what was shown before, if stderr is a terminal.
fn status(text: fmt::Arguments<'_>) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r{text}\x1b[K");
    }
}
