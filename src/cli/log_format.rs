//! The log on stderr: lines of text, which simplelog writes, or an object of JSON on each line.

use std::io::{self, Write};
use std::thread;

use clap::ValueEnum;
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::Serialize;
use simplelog::{ConfigBuilder, FormatItem, ThreadLogMode, WriteLogger, format_description};
use time::OffsetDateTime;

/// RFC 3339, in UTC, with milliseconds.
const TIME: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// The beginning of our own records' targets. At debug and trace, other crates would log the texts of users.
const OURS: &str = "hubbub";

/// The form of a record in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

/// Sets up the process's log. Threads are named only at debug and trace.
pub(super) fn log_to_stderr(level: LevelFilter, format: LogFormat) {
    let names_threads = level >= LevelFilter::Debug;
    // These fail only if the process has a logger already.
    match format {
        LogFormat::Text => {
            let config = ConfigBuilder::new()
                .set_time_format_custom(TIME)
                .set_thread_mode(ThreadLogMode::Names)
                .set_thread_level(match names_threads {
                    true => LevelFilter::Error,
                    false => LevelFilter::Off,
                })
                .set_target_level(LevelFilter::Off)
                .set_location_level(LevelFilter::Off)
                .add_filter_allow_str(OURS)
                .build();
            let _ = WriteLogger::init(level, config, io::stderr());
        }
        LogFormat::Json => {
            let log = JsonLog { names_threads };
            if log::set_boxed_logger(Box::new(log)).is_ok() {
                log::set_max_level(level);
            }
        }
    }
}

/// Writes each record as an object on a line of its own.
struct JsonLog {
    names_threads: bool,
}

/// The object for one record.
#[derive(Serialize)]
struct LogLine<'a> {
    /// Now, in the form of [`TIME`].
    time: String,
    level: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<&'a str>,
    target: &'a str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
}

impl LogLine<'_> {
    /// The object, and the end of its line.
    fn text(&self) -> String {
        // Strings can always be written as JSON.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

/// The time of a line.
fn now() -> String {
    OffsetDateTime::now_utc().format(TIME).unwrap_or_default()
}

/// The start line as an object, with the server's address.
pub(super) fn start_object(message: String, url: &str) -> String {
    let line = LogLine {
        time: now(),
        level: Level::Info.as_str(),
        thread: None,
        target: module_path!(),
        message,
        url: Some(url),
    };
    line.text()
}

/// Prints the reason why the server did not start, or ended, as an object on stderr, whatever the log's level.
pub(super) fn print_end(why: &str) {
    let line = LogLine {
        time: now(),
        level: Level::Error.as_str(),
        thread: None,
        target: module_path!(),
        message: why.to_owned(),
        url: None,
    };
    let _ = io::stderr().write_all(line.text().as_bytes());
}

impl Log for JsonLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && metadata.target().starts_with(OURS)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let thread = thread::current();
        let line = LogLine {
            time: now(),
            level: record.level().as_str(),
            thread: thread.name().filter(|_| self.names_threads),
            target: record.target(),
            message: record.args().to_string(),
            url: None,
        };
        // A log that cannot be written stops nobody, as with lines of text.
        let _ = io::stderr().write_all(line.text().as_bytes());
    }

    fn flush(&self) {}
}
