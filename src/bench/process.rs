//! The processor time and the memory that a process on this machine has used.

use std::fs;
use std::time::Duration;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// The processor time of all its threads, in seconds; `None` once it has ended. `/proc/PID/stat` would
/// count hundredths of a second.
pub(crate) fn cpu_s(pid: i32) -> Option<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid)).ok()?;
    Some(Duration::from(clock.now().ok()?).as_secs_f64())
}

/// The resident memory; `None` once it has ended.
pub(crate) fn memory_kib(pid: i32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut lines = status.lines();
    let resident = lines.find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix(" kB"))?;
    resident.trim().parse().ok()
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
    }
}
