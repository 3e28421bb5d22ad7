//! The number of connections that this machine can hold.
//!
//! Beyond the kernel's limits, starting a thread does not merely fail: the kernel cannot map the
//! thread's signal stack, and the standard library then aborts the process. So the server reads the
//! limits when it starts, and accepts fewer connections than they allow.

use std::fs;
use std::path::Path;

use log::debug;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A Rust thread maps its stack and its signal stack, each with a guard page of its own.
const MAPPINGS_PER_THREAD: u64 = 4;

/// A reader, and a writer once a frame has to wait. A drain may start every writer.
const THREADS_PER_CONNECTION: u64 = 2;

/// Reserved for the rest of the process: libraries, allocator arenas, large buffers.
const OTHER_MAPPINGS: u64 = 1500;
const OTHER_THREADS: u64 = 32;
const OTHER_FILES: u64 = 64;

/// The most connections at a time, and the limit that sets this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// The most connections at a time.
    pub connections: usize,
    /// The name of the tightest limit, for the log.
    pub bound_by: &'static str,
}

/// The kernel's limits for this process. `None` where the kernel gives no limit.
#[derive(Debug, Clone, Copy)]
struct KernelLimits {
    files: Option<u64>,
    mappings: Option<u64>,
    threads: Option<u64>,
    /// Every thread has a process id of its own.
    pids: Option<u64>,
    processes: Option<u64>,
    cgroup: Option<u64>,
}

impl Capacity {
    /// Raises the limit of open files as far as possible, and computes the capacity. It is at most
    /// `asked`, if the operator asked for a number.
    pub fn of_this_machine(asked: Option<usize>) -> Self {
        let limits = KernelLimits {
            files: most_files(),
            mappings: number_in("/proc/sys/vm/max_map_count"),
            threads: number_in("/proc/sys/kernel/threads-max"),
            pids: number_in("/proc/sys/kernel/pid_max"),
            processes: processes(),
            cgroup: tasks_of_cgroup(),
        };
        debug!("this machine allows {limits:?}");
        limits.capacity(asked)
    }
}

impl KernelLimits {
    fn capacity(self, asked: Option<usize>) -> Capacity {
        let threads = |limit: Option<u64>| {
            limit.map(|limit| limit.saturating_sub(OTHER_THREADS) / THREADS_PER_CONNECTION)
        };
        let mappings = self.mappings.map(|limit| {
            limit.saturating_sub(OTHER_MAPPINGS) / (MAPPINGS_PER_THREAD * THREADS_PER_CONNECTION)
        });
        let files = self.files.map(|limit| limit.saturating_sub(OTHER_FILES));
        let bounds = [
            (asked.map(|asked| asked as u64), "--max-connections"),
            (mappings, "vm.max_map_count"),
            (files, "the limit of open files (ulimit -n)"),
            (threads(self.threads), "kernel.threads-max"),
            (threads(self.pids), "kernel.pid_max"),
            (
                threads(self.processes),
                "the limit of processes (ulimit -u)",
            ),
            (threads(self.cgroup), "the control group's pids.max"),
        ];
        let least = bounds
            .into_iter()
            .filter_map(|(limit, name)| Some((limit?, name)))
            .min_by_key(|(limit, _)| *limit);
        let (connections, bound_by) = least.unwrap_or((1000, "caution: nothing is known"));
        Capacity {
            connections: usize::try_from(connections).unwrap_or(usize::MAX).max(1),
            bound_by,
        }
    }
}

/// Raises the limit of open files as far as possible, and returns it.
pub fn most_files() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Some(hard),
        Err(_) => Some(soft),
    }
}

/// The limit of processes. The kernel does not apply it to root.
fn processes() -> Option<u64> {
    if nix::unistd::geteuid().is_root() {
        return None;
    }
    getrlimit(Resource::RLIMIT_NPROC).ok().map(|(soft, _)| soft)
}

/// The tightest limit of tasks, in this process's control group and in those above it. A container
/// sees its own group as the outermost one; a systemd service has its limit (`TasksMax=`) further in.
fn tasks_of_cgroup() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let least = |line: &str| {
        // Version 2 has one hierarchy without a name; version 1 has one hierarchy for each controller.
        let (_, rest) = line.split_once(':')?;
        let (mount, group) = match rest.split_once(':')? {
            ("", group) => (Path::new("/sys/fs/cgroup"), group),
            ("pids", group) => (Path::new("/sys/fs/cgroup/pids"), group),
            _ => return None,
        };
        let own = mount.join(group.trim_start_matches('/'));
        let all = own.ancestors().take_while(|group| group.starts_with(mount));
        all.filter_map(|group| number_in(group.join("pids.max")))
            .min()
    };
    groups.lines().filter_map(least).min()
}

/// The number that a file holds. `None` also for `max`, which means no limit.
fn number_in(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stock_kernel_holds_eight_thousand_and_the_tightest_limit_binds() {
        let stock = KernelLimits {
            files: Some(1 << 20),
            mappings: Some(65_530),
            threads: Some(192_730),
            pids: Some(1 << 22),
            processes: None,
            cgroup: None,
        };
        let capacity = stock.capacity(None);
        assert_eq!(capacity.connections, 8003);
        assert_eq!(capacity.bound_by, "vm.max_map_count");
        assert_eq!(stock.capacity(Some(100)).bound_by, "--max-connections");
        let few_files = KernelLimits {
            files: Some(1024),
            ..stock
        };
        assert_eq!(few_files.capacity(Some(5000)).connections, 960);
        let few_numbers = KernelLimits {
            mappings: Some(262_144),
            pids: Some(32_768),
            ..stock
        };
        assert_eq!(few_numbers.capacity(None).connections, 16_368);
        let tiny = KernelLimits {
            cgroup: Some(10),
            ..stock
        };
        assert_eq!(tiny.capacity(None).connections, 1);
    }
}
