//! The number of connections and threads that this machine can hold.
//!
//! Beyond the kernel's limits, starting a thread does not merely fail: the kernel cannot map the
//! thread's signal stack, and the standard library then aborts the process. So the server reads the
//! limits when it starts, and starts fewer threads than they allow. Each connection has a thread that
//! reads. Few have one that writes, since most frames are written at once; for these a part of the
//! threads is kept.

use std::fs;
use std::path::Path;

use log::debug;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::config::Config;

/// A Rust thread maps its stack and its signal stack, each with a guard page of its own.
const MAPPINGS_PER_THREAD: u64 = 4;

/// glibc makes up to eight allocator arenas for each core, each with a part that is not used yet.
const MAPPINGS_PER_CORE: u64 = 16;

/// Reserved for the rest of the process: libraries, its own threads (three for each Redis), large buffers.
const OTHER_MAPPINGS: u64 = 1000;
const OTHER_THREADS: u64 = 128;
const OTHER_FILES: u64 = 64;

/// The bits of `CAP_SYS_ADMIN` and `CAP_SYS_RESOURCE` (linux/capability.h).
const LIFTS_LIMITS: u64 = 1 << 21 | 1 << 24;

/// One in so many threads is kept for writers. The others are readers, or writers as well.
const KEPT_FOR_WRITERS: u64 = 8;

/// The most connections and threads at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// The most connections at a time.
    pub connections: usize,
    /// The most threads of connections at a time, readers and writers together.
    pub threads: usize,
    /// The number of these threads that no new connection may take.
    pub reserve: usize,
    /// The name of the limit that bounds the connections, for the log.
    pub bound_by: &'static str,
}

/// The kernel's limits for this process. `None` where the kernel gives no limit.
#[derive(Debug, Clone, Copy)]
struct KernelLimits {
    files: Option<u64>,
    mappings: Option<u64>,
    cores: u64,
    threads: Option<u64>,
    /// Every thread has a process id of its own.
    pids: Option<u64>,
    processes: Option<u64>,
    cgroup: Option<u64>,
}

impl Capacity {
    /// Raises the limit of open files as far as possible, and computes the capacity. It is at most what
    /// the options ask for.
    pub fn of_this_machine(config: &Config) -> Self {
        let limits = KernelLimits {
            files: most_files(),
            mappings: number_in("/proc/sys/vm/max_map_count"),
            cores: cores().unwrap_or(1),
            threads: number_in("/proc/sys/kernel/threads-max"),
            pids: number_in("/proc/sys/kernel/pid_max"),
            processes: processes(),
            cgroup: tasks_of_cgroup(),
        };
        debug!("this machine allows {limits:?}");
        limits.capacity(config)
    }
}

impl KernelLimits {
    fn capacity(self, config: &Config) -> Capacity {
        let others = OTHER_MAPPINGS + MAPPINGS_PER_CORE * self.cores;
        let mapped = |limit: u64| limit.saturating_sub(others) / MAPPINGS_PER_THREAD;
        let threads = |limit: Option<u64>| limit.map(|limit| limit.saturating_sub(OTHER_THREADS));
        let (most, most_bound_by) = tightest([
            (config.max_threads.map(|most| most as u64), "max_threads"),
            (self.mappings.map(mapped), "vm.max_map_count"),
            (threads(self.threads), "kernel.threads-max"),
            (threads(self.pids), "kernel.pid_max"),
            (
                threads(self.processes),
                "the limit of processes (ulimit -u)",
            ),
            (threads(self.cgroup), "the control group's pids.max"),
        ])
        .unwrap_or((1000, "a default, since no limit is known"));
        // One connection can always be tried, with a writer.
        let most = most.max(2);
        let reserve = most.div_ceil(KEPT_FOR_WRITERS);
        let (connections, bound_by) = tightest([
            (
                config.max_connections.map(|most| most as u64),
                "--max-connections",
            ),
            (
                self.files.map(|limit| limit.saturating_sub(OTHER_FILES)),
                "the limit of open files (ulimit -n)",
            ),
            (Some(most - reserve), most_bound_by),
        ])
        .expect("the last limit is known");
        let number = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Capacity {
            connections: number(connections).max(1),
            threads: number(most),
            reserve: number(reserve),
            bound_by,
        }
    }
}

/// The least of those limits that are known, and its name.
fn tightest<const N: usize>(
    limits: [(Option<u64>, &'static str); N],
) -> Option<(u64, &'static str)> {
    let known = limits
        .into_iter()
        .filter_map(|(limit, name)| Some((limit?, name)));
    known.min_by_key(|(limit, _)| *limit)
}

/// The number of cores as glibc counts them, which is the machine's, also in a container.
fn cores() -> Option<u64> {
    let possible = fs::read_to_string("/sys/devices/system/cpu/possible").ok()?;
    let last: u64 = possible.trim().rsplit([',', '-']).next()?.parse().ok()?;
    Some(last + 1)
}

/// Raises the limit of open files as far as possible, and returns it.
pub fn most_files() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Some(hard),
        Err(_) => Some(soft),
    }
}

/// The limit of processes, which counts the threads of all processes of a user.
fn processes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid_map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if may_exceed_processes(&status, &uid_map) {
        return None;
    }
    getrlimit(Resource::RLIMIT_NPROC).ok().map(|(soft, _)| soft)
}

/// Whether the kernel does not apply the limit of processes (getrlimit(2), `RLIMIT_NPROC`): to root, and to
/// the capabilities that lift limits. The root of a user namespace is another user to the kernel.
fn may_exceed_processes(status: &str, uid_map: &str) -> bool {
    let field = |name| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_whitespace().next()
    };
    let capabilities = field("CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let lifts_limits = capabilities.is_some_and(|all| all & LIFTS_LIMITS != 0);
    let is_outermost = uid_map.split_whitespace().eq(["0", "0", "4294967295"]);
    is_outermost && (field("Uid:") == Some("0") || lifts_limits)
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

    const STOCK: KernelLimits = KernelLimits {
        files: Some(1 << 20),
        mappings: Some(65_530),
        cores: 2,
        threads: Some(192_730),
        pids: Some(1 << 22),
        processes: None,
        cgroup: None,
    };

    #[test]
    fn a_stock_kernel_holds_fourteen_thousand_and_keeps_threads_for_writers() {
        let config = Config::default();
        for cores in [1, 2, 16, 32] {
            let capacity = KernelLimits { cores, ..STOCK }.capacity(&config);
            assert!(capacity.connections >= 14_000, "{cores}: {capacity:?}");
            assert!(capacity.reserve >= 2000, "{cores}: {capacity:?}");
            let threads = capacity.connections + capacity.reserve;
            assert_eq!(threads, capacity.threads);
            assert!(4 * threads as u64 + 1000 + 16 * cores <= 65_530);
            assert_eq!(capacity.bound_by, "vm.max_map_count");
        }
    }

    #[test]
    fn the_tightest_limit_binds() {
        let config = Config::default();
        let asked = |asked| Config {
            max_connections: Some(asked),
            ..Config::default()
        };
        assert_eq!(STOCK.capacity(&asked(100)).bound_by, "--max-connections");
        assert_eq!(
            STOCK.capacity(&asked(100)).threads,
            STOCK.capacity(&config).threads
        );
        let few_files = KernelLimits {
            files: Some(1024),
            ..STOCK
        };
        assert_eq!(few_files.capacity(&asked(5000)).connections, 960);
        let few_numbers = KernelLimits {
            mappings: Some(262_144),
            pids: Some(32_768),
            ..STOCK
        };
        let capacity = few_numbers.capacity(&config);
        assert_eq!((capacity.threads, capacity.reserve), (32_640, 4080));
        assert_eq!(capacity.bound_by, "kernel.pid_max");
        let tiny = KernelLimits {
            cgroup: Some(10),
            ..STOCK
        };
        let capacity = tiny.capacity(&config);
        assert_eq!((capacity.connections, capacity.reserve), (1, 1));
    }

    #[test]
    fn the_limit_of_processes_binds_all_but_the_outermost_root_and_those_that_may_exceed_it() {
        const OUTERMOST: &str = "         0          0 4294967295\n";
        let status = |user: u32, capabilities: u64| {
            format!("Name:\thubbub\nUid:\t{user}\t0\t0\t0\nCapEff:\t{capabilities:016x}\n")
        };
        for (user, capabilities, uid_map, exceeds) in [
            (0, 0, OUTERMOST, true),
            (1000, 1 << 24, OUTERMOST, true),
            (1000, 1 << 21, OUTERMOST, true),
            (1000, 1 << 10, OUTERMOST, false),
            (0, u64::MAX, "0 100000 65536\n", false),
        ] {
            let found = may_exceed_processes(&status(user, capabilities), uid_map);
            assert_eq!(found, exceeds, "{user} {capabilities:x} {uid_map}");
        }
        assert!(!may_exceed_processes("", ""));
    }
}
