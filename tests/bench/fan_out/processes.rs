//! The processes that are measured and measure: each is known by its id from its start until it was
//! waited for, so that nothing is left behind however this ends.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::results::{Kind, System, Threads};

/// How long a server may take to start.
const STARTS_WITHIN: Duration = Duration::from_secs(20);

static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn running() -> MutexGuard<'static, BTreeSet<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends this and all that it started, when somebody asks for it.
pub(crate) fn end_when_asked() {
    ctrlc::set_handler(|| {
        // The lock is kept, so that nothing is started any more.
        let running = running();
        for &id in &*running {
            let _ = kill(Pid::from_raw(id as i32), Signal::SIGKILL);
        }
        std::process::exit(130);
    })
    .expect("signals can be handled");
}

/// A process that ends with its owner.
pub(crate) struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut running = running();
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
        running.insert(child.id());
        Self(child)
    }

    fn id(&self) -> String {
        self.0.id().to_string()
    }

    /// What it prints until its end; `None` if that does not come in time.
    fn output(mut self, within: Duration) -> Option<String> {
        let mut stdout = self.0.stdout.take()?;
        let reader = thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        let deadline = Instant::now() + within;
        while !reader.is_finished() {
            if Instant::now() > deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(20));
        }
        reader.join().ok()?.ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut running = running();
        let _ = self.0.kill();
        let _ = self.0.wait();
        running.remove(&self.0.id());
    }
}

/// A server that says where it listens.
pub(crate) struct Server {
    process: Process,
    url: String,
    /// It may stand on another.
    redis: Option<Process>,
}

/// Starts a server, and waits until it listens.
pub(crate) fn start(system: System) -> Server {
    let System(kind, threads) = system;
    let program = match kind {
        Kind::Floor => std::env::current_exe().expect("this program"),
        Kind::Embedded | Kind::Redis => PathBuf::from(env!("CARGO_BIN_EXE_hubbub")),
    };
    let mut command = match threads {
        Threads::One | Threads::All => Command::new(program),
        Threads::Pinned => {
            let mut command = on_one_core();
            command.arg(program);
            command
        }
    };
    let count = system.threads().to_string();
    let mut redis = None;
    if kind == Kind::Floor {
        command.args([FLOOR, &count]);
    } else {
        command
            .args(["--listen", "127.0.0.1:0", "--log-level", "error"])
            .args(["--send-rate", "0", "--fanout-workers", &count]);
    }
    if kind == Kind::Redis {
        let (process, port) = start_redis();
        command.args(["--redis", &format!("redis://127.0.0.1:{port}")]);
        redis = Some(process);
    }
    listening(&mut command, redis)
}

/// Runs its arguments on the first core.
fn on_one_core() -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]);
    command
}

/// Whether there is a `taskset` here, and the first core may be used.
pub(crate) fn can_pin() -> bool {
    let outcome = on_one_core().arg("true").stderr(Stdio::null()).status();
    outcome.is_ok_and(|status| status.success())
}

fn listening(command: &mut Command, redis: Option<Process>) -> Server {
    let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let stdout = process.0.stdout.take().expect("it was piped");
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("a start line");
    let url = line
        .split(' ')
        .find(|word| word.starts_with("http://"))
        .unwrap_or_else(|| panic!("{:?} does not listen: {line:?}", command.get_program()));
    Server {
        url: url.trim_end().trim_end_matches(';').to_owned(),
        process,
        redis,
    }
}

/// What makes this program the floor, before the number of its threads.
pub(crate) const FLOOR: &str = "--floor";

fn start_redis() -> (Process, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its number").port();
    drop(listener);
    let process = Process::start(
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", ""])
            .stdout(Stdio::null()),
    );
    let deadline = Instant::now() + STARTS_WITHIN;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "redis-server does not start");
        thread::sleep(Duration::from_millis(10));
    }
    (process, port)
}

/// What the meter prints of a server.
pub(crate) fn meter(server: &Server, options: &str, within: Duration) -> Option<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubbub-bench"));
    command
        .args(["--json", "--url", &server.url])
        .args(["--pid", &server.process.id()])
        .args(options.split(' '))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    if let Some(redis) = &server.redis {
        command.args(["--redis-pid", &redis.id()]);
    }
    Process::start(&mut command).output(within)
}
