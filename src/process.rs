//! The resources of a process on this machine: processor time, memory, files and threads. Most are read from `/proc`.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// The processor time of all its threads, in seconds; `None` once it has ended. `/proc/PID/stat` would
/// count hundredths of a second.
pub fn cpu_s(pid: i32) -> Option<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid)).ok()?;
    Some(Duration::from(clock.now().ok()?).as_secs_f64())
}

/// The resident memory; `None` once it has ended.
pub fn memory_kib(pid: i32) -> Option<f64> {
    status(pid, "VmRSS")
}

/// The first number of a field in `/proc/PID/status` (proc_pid_status(5)).
fn status(pid: i32, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

/// The resources that this process uses now, each with its name and description. The names are those of Prometheus's
/// client libraries (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>). Unknown values
/// are left out.
pub(crate) fn own() -> impl Iterator<Item = (&'static str, &'static str, f64)> {
    let pid = Pid::this().as_raw();
    let bytes = |field| status(pid, field).map(|kib| kib * 1024.0);
    let open = || Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64);
    let most = || Some(getrlimit(Resource::RLIMIT_NOFILE).ok()?.0 as f64);
    let figures = [
        (
            "process_cpu_seconds_total",
            "Processor time that the process has used, in seconds.",
            cpu_s(pid),
        ),
        (
            "process_resident_memory_bytes",
            "Memory that the process has, in bytes.",
            bytes("VmRSS"),
        ),
        (
            "process_virtual_memory_bytes",
            "Address space of the process, in bytes.",
            bytes("VmSize"),
        ),
        (
            "process_open_fds",
            "Files and sockets that are open.",
            open(),
        ),
        (
            "process_max_fds",
            "Files and sockets that may be open.",
            most(),
        ),
        (
            "process_threads",
            "Threads of the process.",
            status(pid, "Threads"),
        ),
    ];
    figures
        .into_iter()
        .filter_map(|(name, help, value)| Some((name, help, value?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something_and_no_process_has_not() {
        let own = std::process::id() as i32;
        assert!(cpu_s(own) > Some(0.0));
        assert!(memory_kib(own) > Some(100.0));
        assert_eq!(memory_kib(i32::MAX), None);
        let figures: Vec<_> = super::own().collect();
        assert_eq!(figures.len(), 6);
        assert!(
            figures.iter().all(|(.., value)| *value > 0.0),
            "{figures:?}"
        );
    }
}
