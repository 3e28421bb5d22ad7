//! How fast a client may speak, and how many connections this machine can hold.
//!
//! Past the kernel's limits a thread does not merely fail to start: its signal stack cannot be
//! mapped, and the standard library aborts the process. So the count is bounded below them, from
//! what the machine says at the start.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use log::debug;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::message::UserName;
use crate::threads::lock;

/// A Rust thread maps its stack and its signal stack, each with a guard page of its own.
const MAPPINGS_PER_THREAD: u64 = 4;

/// A reader, and a writer once something has to wait. A drain needs them all.
const THREADS_PER_CONNECTION: u64 = 2;

/// What the process needs beside its connections: libraries, allocator arenas, large buffers.
const OTHER_MAPPINGS: u64 = 1500;
const OTHER_THREADS: u64 = 32;
const OTHER_FILES: u64 = 64;

/// With so many buckets, those that are full again are forgotten.
const PACES_SWEPT: usize = 10_000;

/// A token bucket: so many at once, and so many a second after that. Time is an argument.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    /// `None` for no limit.
    per_second: Option<f64>,
    burst: f64,
    held: f64,
    filled: Instant,
}

impl TokenBucket {
    /// A full one; a rate of 0 is no limit.
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Self {
            per_second: (per_second > 0).then_some(f64::from(per_second)),
            burst: f64::from(burst),
            held: f64::from(burst),
            filled: now,
        }
    }

    fn is_full(&self, now: Instant) -> bool {
        self.held_at(now) >= self.burst
    }

    fn held_at(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.per_second.map_or(self.burst, |per_second| {
            (self.held + since * per_second).min(self.burst)
        })
    }

    /// Takes one, if there is one; if not, how long until there is.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(per_second) = self.per_second else {
            return Ok(());
        };
        self.held = self.held_at(now);
        self.filled = now;
        if self.held < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.held) / per_second));
        }
        self.held -= 1.0;
        Ok(())
    }
}

/// A token bucket for each user whose requests come one by one, without a connection that could
/// hold it; and what those who had a connection left in theirs, or to reconnect would be to have a
/// full one.
#[derive(Debug)]
pub struct Paces {
    per_second: u32,
    burst: u32,
    buckets: Mutex<HashMap<UserName, TokenBucket>>,
}

impl Paces {
    /// Nobody has asked yet; a rate of 0 is no limit.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second,
            burst,
            buckets: Mutex::default(),
        }
    }

    /// Takes one of this user's, if there is one; if not, how long until there is.
    pub fn take(&self, user: &UserName, now: Instant) -> Result<(), Duration> {
        self.with_bucket(user, now, |bucket| bucket.take(now))
    }

    /// What a connection of this user begins with.
    pub fn bucket(&self, user: &UserName, now: Instant) -> TokenBucket {
        let full = || TokenBucket::new(self.per_second, self.burst, now);
        let kept = lock(&self.buckets).get(user).copied();
        kept.unwrap_or_else(full)
    }

    /// Keeps what a connection of this user leaves, unless another left less.
    pub fn keep(&self, user: &UserName, left: TokenBucket, now: Instant) {
        // One that is full says no more than none.
        if !left.is_full(now) {
            self.with_bucket(user, now, |bucket| {
                if left.held_at(now) < bucket.held_at(now) {
                    *bucket = left;
                }
            });
        }
    }

    fn with_bucket<T>(
        &self,
        user: &UserName,
        now: Instant,
        run: impl FnOnce(&mut TokenBucket) -> T,
    ) -> T {
        let mut buckets = lock(&self.buckets);
        if buckets.len() >= PACES_SWEPT && !buckets.contains_key(user) {
            buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        let full = || TokenBucket::new(self.per_second, self.burst, now);
        run(buckets.entry(user.clone()).or_insert_with(full))
    }
}

/// How many connections there may be at a time, and what bounds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// The number.
    pub connections: usize,
    /// What would run out next.
    pub bound_by: &'static str,
}

/// What the machine allows a process. `None` where it does not say.
#[derive(Debug, Clone, Copy)]
struct Machine {
    files: Option<u64>,
    mappings: Option<u64>,
    threads: Option<u64>,
    numbers: Option<u64>,
    processes: Option<u64>,
    group: Option<u64>,
}

impl Capacity {
    /// Raises the limit of open files as far as it goes, and works out what this machine can hold;
    /// at most `asked`, if the operator asked for a number.
    pub fn of_this_machine(asked: Option<usize>) -> Self {
        let machine = Machine {
            files: most_files(),
            mappings: number_in("/proc/sys/vm/max_map_count"),
            threads: number_in("/proc/sys/kernel/threads-max"),
            // Every thread takes one.
            numbers: number_in("/proc/sys/kernel/pid_max"),
            processes: processes(),
            group: tasks_of_group(),
        };
        debug!("this machine allows {machine:?}");
        machine.capacity(asked)
    }
}

impl Machine {
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
            (threads(self.numbers), "kernel.pid_max"),
            (
                threads(self.processes),
                "the limit of processes (ulimit -u)",
            ),
            (threads(self.group), "the control group's pids.max"),
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

/// Raises the limit of open files as far as it goes, and tells how far that is.
pub fn most_files() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Some(hard),
        Err(_) => Some(soft),
    }
}

/// Root is exempt from this one.
fn processes() -> Option<u64> {
    if nix::unistd::geteuid().is_root() {
        return None;
    }
    getrlimit(Resource::RLIMIT_NPROC).ok().map(|(soft, _)| soft)
}

/// The tightest limit of this process's control group and those around it: a container sees its own
/// as the outermost one, a systemd service has its own (`TasksMax=`) further in.
fn tasks_of_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let least = |line: &str| {
        // Version 2 has one hierarchy without a name, version 1 one for each kind of limit.
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

/// `None` also for `max`, which is no limit.
fn number_in(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 3, start);
        let taken = |bucket: &mut TokenBucket, now| {
            let mut count = 0;
            while bucket.take(now).is_ok() {
                count += 1;
            }
            count
        };
        assert_eq!(taken(&mut bucket, start), 3);
        let wait = bucket.take(start).expect_err("it is empty");
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(taken(&mut bucket, start + wait), 1);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(60)), 3);
        let mut open = TokenBucket::new(0, 1, start);
        assert!((0..1000).all(|_| open.take(start).is_ok()));
    }

    #[test]
    fn who_comes_back_goes_on_with_what_they_left() {
        let start = Instant::now();
        let paces = Paces::new(10, 3);
        let user: UserName = "alice".parse().expect("a name");
        let mut first = paces.bucket(&user, start);
        let second = paces.bucket(&user, start);
        while first.take(start).is_ok() {}
        paces.keep(&user, first, start);
        paces.keep(&user, second, start);
        assert!(paces.bucket(&user, start).take(start).is_err());
        assert!(paces.take(&user, start).is_err());
        let later = start + Duration::from_millis(100);
        assert!(paces.bucket(&user, later).take(later).is_ok());
    }

    #[test]
    fn a_stock_kernel_holds_eight_thousand_and_the_tightest_limit_binds() {
        let stock = Machine {
            files: Some(1 << 20),
            mappings: Some(65_530),
            threads: Some(192_730),
            numbers: Some(1 << 22),
            processes: None,
            group: None,
        };
        let capacity = stock.capacity(None);
        assert_eq!(capacity.connections, 8003);
        assert_eq!(capacity.bound_by, "vm.max_map_count");
        assert_eq!(stock.capacity(Some(100)).bound_by, "--max-connections");
        let few_files = Machine {
            files: Some(1024),
            ..stock
        };
        assert_eq!(few_files.capacity(Some(5000)).connections, 960);
        let few_numbers = Machine {
            mappings: Some(262_144),
            numbers: Some(32_768),
            ..stock
        };
        assert_eq!(few_numbers.capacity(None).connections, 16_368);
        let tiny = Machine {
            group: Some(10),
            ..stock
        };
        assert_eq!(tiny.capacity(None).connections, 1);
    }
}
