//! The processor time and the memory that a process on this machine has used.

use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// A process, measured from outside. Its clock counts nanoseconds over all threads, also those that
/// ended; `/proc/PID/stat` would count hundredths of a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    id: i32,
    clock: ClockId,
}

impl Process {
    pub(crate) fn parse(id: &str) -> Result<Self, String> {
        let missing = || format!("there is no process {id} here");
        let id = id.parse().map_err(|_| missing())?;
        let clock = clock_getcpuclockid(Pid::from_raw(id)).map_err(|_| missing())?;
        let process = Self { id, clock };
        process.memory_kib().map(|_| process).ok_or_else(missing)
    }

    /// The processor time it has used, in seconds. `None` once it has ended.
    pub(crate) fn cpu_s(self) -> Option<f64> {
        let time = self.clock.now().ok()?;
        Some(Duration::from(time).as_secs_f64())
    }

    /// Its resident memory. `None` once it has ended.
    pub(crate) fn memory_kib(self) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id)).ok()?;
        let mut lines = status.lines();
        let resident = lines.find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix(" kB"))?;
        resident.trim().parse().ok()
    }
}

/// The processor time that the meter itself has used, in seconds.
pub(crate) fn own_cpu() -> f64 {
    let time = ClockId::CLOCK_PROCESS_CPUTIME_ID.now();
    time.map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something_and_no_process_has_not() {
        let own = Process::parse(&std::process::id().to_string()).expect("it runs");
        assert!(own.cpu_s() > Some(0.0));
        assert!(own.memory_kib() > Some(100.0));
        assert!(own_cpu() > 0.0);
        assert!(Process::parse("2147483647").is_err());
    }
}
