//! The processes that the soak starts, torments and ends: Redis servers, sentinels and the instances.
//!
//! Each is known by its id from its start until it was waited for, so that nothing is left behind
//! however the soak ends.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::check;
use crate::support::commands::ask_within;
use crate::support::{lock, within};

/// How long a process may take to start, with one attempt after the other: while Redis is away an
/// instance does not start, as it should.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// How long a user is present whom nobody renews.
pub(crate) const PRESENCE_TTL: Duration = Duration::from_secs(6);

/// A drain may take 10 s, which is its default; some more on a busy machine.
const DRAINS_WITHIN: Duration = Duration::from_secs(12);

/// How long an instance may take to answer a question of ours.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// How long Redis may take to do what a fault asks of it. Longer than it is told to sleep, since it answers
/// that at the end.
const REDIS_ANSWERS_WITHIN: Duration = Duration::from_secs(6);

/// The name of the file in a server's folder that it begins with, and changes when it is told to.
const CONFIG: &str = "server.conf";

/// How many ports one soak has, of which it takes some twenty at a time.
const BLOCK_OF_PORTS: u16 = 100;

/// The ids of the processes that run. One is taken out in the same step that waits for it, or its
/// id could be another's by the time it is used.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Ends every process that still runs: for a soak that cannot end in order.
pub(crate) fn kill_all() {
    for &id in &*lock(&RUNNING) {
        let _ = signal::kill(Pid::from_raw(id as i32), Signal::SIGKILL);
    }
}

/// A process that ends with its owner.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut running = lock(&RUNNING);
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
        running.insert(child.id());
        Self(child)
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        let mut running = lock(&RUNNING);
        let status = self.0.try_wait().expect("its status can be asked for");
        if status.is_some() {
            running.remove(&self.0.id());
        }
        status
    }

    fn signal(&self, signal: Signal) {
        let _ = signal::kill(Pid::from_raw(self.0.id() as i32), signal);
    }

    fn kill(&mut self) {
        if self.ended().is_none() {
            let _ = self.0.kill();
            let _ = within(STARTS_WITHIN, || self.ended());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What all processes leave behind, which is kept if something is wrong.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{}", std::process::id()))
}

/// A port outside of the range from which connections take theirs: while its owner is down, a
/// client that tries to reach it must not get it as its own. A node of a cluster takes the port 10,000
/// above it as well, which is free too. No other soak takes it: each has a block of ports, whose first
/// one it holds.
pub(crate) fn quiet_port() -> u16 {
    static BLOCK: LazyLock<(u16, TcpListener)> = LazyLock::new(|| {
        let mut firsts = (12_000..22_000).step_by(BLOCK_OF_PORTS.into());
        let held = firsts.find_map(|first| Some((first, listen(first).ok()?)));
        held.expect("there are not so many soaks")
    });
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = BLOCK.0 + 1 + next % (BLOCK_OF_PORTS - 1);
        if listen(port).is_ok() && listen(port + 10_000).is_ok() {
            return port;
        }
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port))
}

/// The program that the environment names, or `redis-server`.
fn program() -> String {
    env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// DEBUG is refused from version 7.0 on, unless this allows it; older ones do not know the option.
fn debug_arguments() -> &'static [&'static str] {
    let told = Command::new(program()).arg("--version").output();
    let told = String::from_utf8(told.expect("the server runs").stdout).expect("its version");
    let major = told.split_once(" v=").and_then(|(_, version)| {
        let (major, _) = version.split_once('.')?;
        major.parse::<u32>().ok()
    });
    if major.is_some_and(|major| major < 7) {
        &[]
    } else {
        &["--enable-debug-command", "yes"]
    }
}

/// A redis-server.
pub(crate) struct Redis {
    process: Process,
    port: u16,
    arguments: Vec<String>,
}

impl Redis {
    /// What makes it lose nothing that it acknowledged when it is killed, and lets faults debug it.
    pub(crate) fn that_remembers() -> Vec<&'static str> {
        let remembers = ["--appendonly", "yes", "--appendfsync", "always"];
        [&remembers, debug_arguments()].concat()
    }

    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::start_from("", arguments)
    }

    /// One that begins with this text in its configuration file.
    pub(crate) fn start_from(config: &str, arguments: &[&str]) -> Self {
        let port = quiet_port();
        let folder = Self::folder(port);
        fs::create_dir_all(&folder).expect("a folder for Redis");
        fs::write(folder.join(CONFIG), config).expect("its configuration");
        let arguments: Vec<_> = arguments.iter().map(|&a| a.to_owned()).collect();
        let mut redis = Self {
            process: Self::spawn(port, &arguments),
            port,
            arguments,
        };
        redis.answers();
        redis
    }

    fn folder(port: u16) -> PathBuf {
        folder().join(format!("redis-{port}"))
    }

    fn spawn(port: u16, arguments: &[String]) -> Process {
        let folder = Self::folder(port);
        let log = folder.join("log");
        let appended = File::options().create(true).append(true).open(log);
        Process::start(
            Command::new(program())
                .arg(folder.join(CONFIG))
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .args(["--save", ""])
                .arg("--dir")
                .arg(folder)
                .args(arguments)
                .stdout(appended.expect("a log for Redis"))
                .stderr(Stdio::null()),
        )
    }

    fn answers(&mut self) {
        let answered = within(STARTS_WITHIN, || {
            assert!(self.process.ended().is_none(), "redis-server ended");
            self.run(&["PING"]).ok()
        });
        answered.expect("redis-server answers");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Runs a command, such as `&["CLIENT", "KILL", "TYPE", "pubsub"]`.
    pub(crate) fn run(&self, words: &[&str]) -> redis::RedisResult<()> {
        ask_within(REDIS_ANSWERS_WITHIN, self.port, words)
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) fn start_again(&mut self) {
        self.process = Self::spawn(self.port, &self.arguments);
        self.answers();
    }

    pub(crate) fn freeze(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    pub(crate) fn thaw(&self) {
        self.process.signal(Signal::SIGCONT);
    }
}

/// Whether the instance at this address says that it is ready. One that is down is not.
pub(crate) fn is_ready(instance: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&instance, ANSWERS_WITHIN)?;
        stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// What one instance takes of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
    pub(crate) resident_kib: usize,
}

/// A hubbub process on a port that it keeps when it is started again.
pub(crate) struct Instance {
    process: Process,
    port: u16,
    /// The addresses that it is told of, each behind a `--redis`.
    redis: Vec<String>,
    log: PathBuf,
}

impl Instance {
    pub(crate) fn start(name: &str, redis: Vec<String>) -> Self {
        let port = quiet_port();
        let log = folder().join(format!("{name}.log"));
        Self {
            process: Self::spawn(port, &redis, &log),
            port,
            redis,
            log,
        }
    }

    /// Tries until it serves, as a service manager would.
    fn spawn(port: u16, redis: &[String], log: &PathBuf) -> Process {
        let deadline = Instant::now() + STARTS_WITHIN;
        loop {
            let appended = File::options().create(true).append(true).open(log);
            let mut process = Process::start(
                Command::new(env!("CARGO_BIN_EXE_hubbub"))
                    .args(["--listen", &format!("127.0.0.1:{port}")])
                    .args(redis.iter().flat_map(|url| ["--redis", url]))
                    .args(["--history-length", "10000"])
                    // The auditors ask who is in every room, three times a second.
                    .args(["--command-rate", "0"])
                    .args(["--presence-ttl", &PRESENCE_TTL.as_secs().to_string()])
                    .args(["--presence-grace", "2"])
                    .stdout(Stdio::piped())
                    .stderr(appended.expect("a log for hubbub")),
            );
            let stdout = process.0.stdout.take().expect("it was piped");
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            if line.starts_with("listening on ") {
                return process;
            }
            let in_time = Instant::now() < deadline;
            assert!(in_time, "hubbub does not start; see {}", log.display());
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn start_again(&mut self) {
        self.process = Self::spawn(self.port, &self.redis, &self.log);
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it as a service manager does; the error says what is wrong with its end.
    pub(crate) fn drain(&mut self) -> Result<(), String> {
        self.process.signal(Signal::SIGTERM);
        check::drained(within(DRAINS_WITHIN, || self.process.ended()))
    }

    /// The error says how it ended although nobody asked it to.
    pub(crate) fn runs(&mut self) -> Result<(), String> {
        check::runs(self.process.ended())
    }

    /// The lines of its log that tell of a panic.
    pub(crate) fn panics(&self) -> Vec<String> {
        check::panics(&fs::read_to_string(&self.log).expect("its log"))
    }

    pub(crate) fn load(&self) -> Load {
        let process = PathBuf::from(format!("/proc/{}", self.process.0.id()));
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        let number = |name: &str| {
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
                .unwrap_or_default()
        };
        Load {
            threads: number("Threads:"),
            descriptors: fs::read_dir(process.join("fd")).map_or(0, Iterator::count),
            resident_kib: number("VmRSS:"),
        }
    }
}
