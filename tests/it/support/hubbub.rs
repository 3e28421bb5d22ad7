//! A `hubbub serve` process on a port of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::Client;
use super::redis::Redis;
use super::{lesson, until};

static COUNT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Hubbub {
    child: Child,
    address: SocketAddr,
    start_line: String,
    log: PathBuf,
}

/// The binary under test.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubbub"));
    command.stdin(Stdio::null());
    command
}

/// The binary under test, for which the modes of files hold even if root runs it.
pub(crate) fn bound_by_modes() -> Command {
    let mut command = match is_root() {
        true => {
            let mut command = Command::new("setpriv");
            let capabilities = "--bounding-set=-dac_override,-dac_read_search";
            command.args([capabilities, env!("CARGO_BIN_EXE_hubbub")]);
            command
        }
        false => command(),
    };
    command.stdin(Stdio::null());
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|of_process| of_process.uid() == 0)
}

/// Whose processes [`Hubbub::bound_by_processes`] counts: nobody else's if root runs the tests.
fn limited_user() -> u32 {
    match is_root() {
        true => 1_000_000 + std::process::id(),
        false => fs::metadata("/proc/self").map_or(0, |of_process| of_process.uid()),
    }
}

/// The threads of all processes of that user.
pub(crate) fn threads_of_limited_user() -> usize {
    let user = limited_user().to_string();
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let threads = processes.filter_map(|process| {
        // A process may end meanwhile.
        let status = fs::read_to_string(process.path().join("status")).ok()?;
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
        let is_theirs = field("Uid:")?.split_whitespace().next()? == user;
        is_theirs.then(|| field("Threads:")?.trim().parse::<usize>().ok())?
    });
    threads.sum()
}

/// Runs the binary to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    command()
        .args(arguments)
        .output()
        .expect("hubbub can be started")
}

/// The start fails with one line on stderr that has all these words, and nothing on stdout.
pub(crate) fn refuses(arguments: &[&str], words: &[&str]) {
    ends_with_a_sentence(1, &[&["--log-level", "off"], arguments].concat(), words);
}

/// The same with arguments that are wrong: a supervisor does not try again.
pub(crate) fn misuses(arguments: &[&str], words: &[&str]) {
    ends_with_a_sentence(2, arguments, words);
}

/// Ends with this exit code, and one line on stderr that has all these words.
pub(crate) fn ends_with_a_sentence(code: i32, arguments: &[&str], words: &[&str]) {
    let begun = Instant::now();
    let output = run(arguments);
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("hubbub: "), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    for word in words {
        assert!(stderr.contains(word), "{arguments:?}: {stderr}");
    }
    // Five seconds is the promise to whoever waits for a start.
    assert!(begun.elapsed() < Duration::from_secs(5), "{arguments:?}");
}

impl Hubbub {
    /// On the embedded backplane.
    pub(crate) fn alone() -> Self {
        Self::with(&[])
    }

    /// On a shared Redis.
    pub(crate) fn on(redis: &Redis) -> Self {
        Self::with(&["--redis", &redis.url()])
    }

    pub(crate) fn on_with(redis: &Redis, arguments: &[&str]) -> Self {
        Self::with(&[&["--redis", &redis.url()], arguments].concat())
    }

    pub(crate) fn with(arguments: &[&str]) -> Self {
        Self::with_environment(&[], arguments)
    }

    pub(crate) fn with_environment(variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self::serving(command(), variables, arguments)
    }

    /// The modes of files hold for it, even if root runs the tests.
    pub(crate) fn bound_by_modes(arguments: &[&str]) -> Self {
        Self::serving(bound_by_modes(), &[], arguments)
    }

    /// Of the user that [`limited_user`] names, who may have so many threads in all processes together.
    pub(crate) fn bound_by_processes(most: usize, arguments: &[&str]) -> Self {
        let mut command = Command::new("prlimit");
        command.stdin(Stdio::null()).arg(format!("--nproc={most}"));
        if is_root() {
            // The kernel does not bind root, nor a process that has these capabilities.
            let user = format!("--ruid={}", limited_user());
            command.args(["setpriv", &user, "--bounding-set=-sys_resource,-sys_admin"]);
        }
        command.arg(env!("CARGO_BIN_EXE_hubbub"));
        Self::serving(command, &[], arguments)
    }

    fn serving(mut command: Command, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        command
            // Through the environment, so that a test may say otherwise.
            .env("HUBBUB_LISTEN", "127.0.0.1:0")
            .env("HUBBUB_SEND_RATE", "0")
            .env("HUBBUB_LOG_LEVEL", "debug")
            .envs(variables.iter().copied())
            .args(arguments);
        Self::started(command)
    }

    /// The lesson instead (`src/lesson.rs`), which prints the same start line.
    pub(crate) fn lesson(redis: &str) -> Self {
        let mut command = Command::new(lesson::binary());
        command.stdin(Stdio::null()).args([redis, "127.0.0.1:0"]);
        Self::started(command)
    }

    fn started(mut command: Command) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("hubbub-{}-{count}.log", std::process::id()));
        let stderr = fs::File::create(&log).expect("a log for hubbub");
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("hubbub can be started");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it was piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("a start line");
        let address = line
            .split_once("listening on http")
            .and_then(|(_, rest)| rest.split_once("://")?.1.split(' ').next()?.parse().ok());
        let Some(address) = address else {
            let log = fs::read_to_string(&log).unwrap_or_default();
            panic!("hubbub did not start: {line:?}\n{log}");
        };
        Self {
            child,
            address,
            start_line: line,
            log,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it printed at its start.
    pub(crate) fn start_line(&self) -> &str {
        &self.start_line
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How much memory it has.
    pub(crate) fn resident_kib(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        let number = number.and_then(|number| number.parse().ok());
        number.expect("a number")
    }

    /// The most memory that it has while these threads run.
    pub(crate) fn most_resident_kib<T>(&self, threads: &[ScopedJoinHandle<'_, T>]) -> usize {
        let mut most = self.resident_kib();
        while threads.iter().any(|thread| !thread.is_finished()) {
            most = most.max(self.resident_kib());
            thread::sleep(Duration::from_millis(10)); // between two looks
        }
        most
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("its log")
    }

    /// Joins the lobby in the text encoding.
    pub(crate) fn join(&self, user: &str) -> Client {
        self.join_room(user, "lobby")
    }

    /// Joins a room in the text encoding, and has heard who is online.
    pub(crate) fn join_room(&self, user: &str, room: &str) -> Client {
        let mut client = Client::text(self.address, &format!("/chat/{user}?room={room}"));
        let first = client.hears();
        assert!(first.starts_with("* online: "), "{first}");
        client
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("a signal to hubbub");
    }

    /// Waits for its end.
    pub(crate) fn ends(&mut self) -> ExitStatus {
        until("hubbub ends", || self.child.try_wait().expect("its status"))
    }

    /// Ends it as kill -9 does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Hubbub {
    fn drop(&mut self) {
        self.kill();
        if !std::thread::panicking() {
            let _ = fs::remove_file(&self.log);
        }
    }
}
