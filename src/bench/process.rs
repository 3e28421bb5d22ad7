//! What a process on this machine has used: its processor time and its memory.

use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// A process that is looked at from outside. Its clock counts nanoseconds over all threads, also
/// those that ended; `/proc/PID/stat` would count hundredths of a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    id: i32,
    clock: ClockId,
}

impl Process {
    /// `None` if there is no such process.
    pub(super) fn of(id: i32) -> Option<Self> {
        let clock = clock_getcpuclockid(Pid::from_raw(id)).ok()?;
        let process = Self { id, clock };
        process.memory().map(|_| process)
    }

    /// The processor time it has used.
    pub(super) fn cpu(self) -> Option<Duration> {
        self.clock.now().ok().map(Duration::from)
    }

    /// Its resident memory, in bytes.
    pub(super) fn memory(self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    }
}

/// The processor time that this process has used.
pub(super) fn own_cpu() -> Duration {
    ClockId::CLOCK_PROCESS_CPUTIME_ID
        .now()
        .map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something_and_no_process_has_not() {
        let id = i32::try_from(std::process::id()).expect("an id");
        let own = Process::of(id).expect("it runs");
        assert!(own.cpu() > Some(Duration::ZERO));
        assert!(own.memory() > Some(100_000));
        assert!(own_cpu() > Duration::ZERO);
        assert!(Process::of(i32::MAX).is_none());
    }
}
