//! `hubbub bench`: what is measured, how it goes, and what was found.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;

use super::UserName;
use crate::bench::{self, Plan, Progress, Report, Talk, Target};

#[derive(Args)]
pub(super) struct Options {
    /// The server; a path with {user} and {room} in it says where its chat is, if it is not a Hubbub
    #[arg(long, env = "HUBBUB_URL", value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = Target::parse)]
    url: Target,
    /// How many listen. In each room one more connection speaks
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    members: u32,
    /// Over how many rooms they are spread
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=Plan::ROOMS as i64))]
    rooms: u32,
    /// Messages a second over all rooms, 0 for as fast as they come back; of several, separated by
    /// commas, each is measured
    #[arg(long, value_name = "RATE", default_value = "100", value_delimiter = ',', value_parser = rate)]
    rate: Vec<f64>,
    /// How long a message is
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(Talk::SIZE as i64..=65_536))]
    size: u32,
    /// How long each measurement takes
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,
    /// Only hold the connections
    #[arg(long, conflicts_with_all = ["rate", "size", "window"])]
    idle: bool,
    /// Enter no room, to measure the handshake alone; for a Hubbub
    #[arg(long, requires = "idle")]
    outside: bool,
    /// Connect so many a second [default: as fast as it goes]
    #[arg(long, value_name = "RATE", value_parser = rate, default_value = "0", hide_default_value = true)]
    ramp: f64,
    /// How many messages of a room may be on their way to its slowest member
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    window: u32,
    /// The server's process, if it is on this machine: its CPU and memory are measured, too
    #[arg(long, value_name = "PID")]
    pid: Option<i32>,
    /// What the names of users and rooms begin with
    #[arg(long, value_name = "NAME", default_value = "bench")]
    user_prefix: UserName,
    /// Print one line of JSON for each measurement
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok();
    rate.filter(|rate| (0.0..=1e7).contains(rate))
        .ok_or_else(|| "it is a number, 0 or more".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok();
    seconds
        .filter(|seconds| (0.1..=1e6).contains(seconds))
        .ok_or_else(|| "it is a number, 0.1 or more".to_owned())
}

impl Options {
    fn plan(self) -> Result<Plan, String> {
        if self.rooms > self.members {
            return Err("there are more --rooms than --members".to_owned());
        }
        let prefix = self.user_prefix.as_str();
        if !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric()) || prefix.len() > 20 {
            return Err("a --user-prefix is at most 20 letters and digits".to_owned());
        }
        let talk = Talk {
            rates: self.rate,
            size: self.size as usize,
            window: self.window,
        };
        Ok(Plan {
            target: match self.outside {
                true => self.url.outside(),
                false => self.url,
            },
            members: self.members as usize,
            rooms: self.rooms as usize,
            prefix: prefix.to_owned(),
            server: self.pid,
            ramp: self.ramp,
            time: Duration::from_secs_f64(self.seconds),
            talk: (!self.idle).then_some(talk),
        })
    }
}

pub(super) fn run(options: Options) -> Result<(), String> {
    let json = options.json;
    let plan = options.plan()?;
    let line = StatusLine::new(plan.time);
    let mut faults = Vec::new();
    let outcome = bench::run(&plan, &mut |progress| line.show(progress), &mut |report| {
        line.clear();
        faults.extend(report.fault());
        print(report, json);
    });
    line.clear();
    outcome.map_err(|error| error.to_string())?;
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!("not as it should be: {}", faults.join("; ")))
}

fn print(report: &Report, json: bool) {
    let mut out = io::stdout().lock();
    // Nobody reads a pipe that is closed.
    let _ = match json {
        true => serde_json::to_writer(&mut out, report)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out)),
        false => writeln!(out, "{report}"),
    };
    let _ = out.flush();
}

/// One line on a terminal that says how it goes; nothing elsewhere.
struct StatusLine {
    on_a_terminal: bool,
    time: Duration,
}

/// How many characters wide the bar is.
const BAR: usize = 24;

impl StatusLine {
    fn new(time: Duration) -> Self {
        Self {
            on_a_terminal: io::stderr().is_terminal(),
            time,
        }
    }

    fn show(&self, progress: Progress) {
        let (share, text) = match progress {
            Progress::Connecting(done, all) => (
                done as f64 / all as f64,
                format!("connected {done} of {all}"),
            ),
            Progress::Settling => (1.0, "waiting until everybody hears everybody".to_owned()),
            Progress::Running(time, sent, delivered) => (
                time.as_secs_f64() / self.time.as_secs_f64(),
                format!(
                    "{:.0} s  sent {sent}  delivered {delivered}",
                    time.as_secs_f64()
                ),
            ),
        };
        let full = (share.min(1.0) * BAR as f64) as usize;
        self.write(format_args!("\r[{:<BAR$}] {text}\x1b[K", "=".repeat(full)));
    }

    fn clear(&self) {
        self.write(format_args!("\r\x1b[K"));
    }

    fn write(&self, line: std::fmt::Arguments<'_>) {
        if self.on_a_terminal {
            let mut err = io::stderr().lock();
            let _ = err.write_fmt(line).and_then(|()| err.flush());
        }
    }
}
