//! A `redis-server` of a test's own, or whatever program the environment names in `REDIS_SERVER`, such
//! as `valkey-server`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, io};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::until;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The name of the file in a server's folder that it begins with. Redis changes it when it is told to, and
/// Sentinel whenever it has learnt something.
const CONFIG: &str = "server.conf";

pub(crate) struct Redis {
    child: Child,
    port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
}

impl Redis {
    /// One that forgets everything when it is killed.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// One that keeps every write.
    pub(crate) fn that_remembers() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::start_from("", arguments)
    }

    /// One that begins with this text in its configuration file.
    pub(crate) fn start_from(config: &str, arguments: &[&str]) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("redis-{}-{count}", std::process::id()));
        let arguments: Vec<_> = arguments.iter().map(|&a| a.to_owned()).collect();
        // A port that was free a moment ago may be taken by another test: then the next one.
        for _ in 0..20 {
            let port = free_port();
            // One that did not come up has taken its folder along.
            fs::create_dir_all(&folder).expect("a folder for Redis");
            fs::write(folder.join(CONFIG), config).expect("its configuration");
            let child = spawn(port, &folder, &arguments);
            let mut redis = Self {
                child,
                port,
                folder: folder.clone(),
                arguments: arguments.clone(),
            };
            if redis.answers() {
                return redis;
            }
        }
        panic!("redis-server does not start; see {}", folder.display());
    }

    /// Whether it came up, rather than ending at once.
    fn answers(&mut self) -> bool {
        until("redis-server starts or ends", || {
            if let Ok(Some(_)) = self.child.try_wait() {
                return Some(false);
            }
            let mut connection = self.try_connect().ok()?;
            let password = self.arguments.iter().any(|a| a == "--requirepass");
            let pong = redis::cmd("PING").exec(&mut connection);
            (password || pong.is_ok()).then_some(true)
        })
    }

    fn try_connect(&self) -> redis::RedisResult<redis::Connection> {
        redis::Client::open(self.url())?.get_connection()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Runs a command, such as `&["CLIENT", "KILL", "TYPE", "pubsub"]`.
    pub(crate) fn run<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.try_connect().expect("a connection to Redis");
        redis::cmd(words[0])
            .arg(&words[1..])
            .query(&mut connection)
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Puts so many entries into a room's log that are not Hubbub's.
    pub(crate) fn add_foreign_entries(&self, room: &str, count: usize) {
        let log = format!("hubbub:{{{room}}}:log");
        for _ in 0..count {
            let _: String = self.run(&["XADD", &log, "*", "x", "y"]);
        }
    }

    /// Whether a room's log has expired.
    pub(crate) fn has_forgotten(&self, room: &str) -> bool {
        let log = format!("hubbub:{{{room}}}:log");
        self.run::<i64>(&["EXISTS", &log]) == 0
    }

    /// Takes the folder away that it saves to, and has it notice.
    pub(crate) fn fails_to_save(&self) {
        fs::remove_dir_all(&self.folder).expect("its folder");
        let _: String = self.run(&["BGSAVE"]);
        until("saving has failed", || {
            let info: String = self.run(&["INFO", "persistence"]);
            info.contains("rdb_last_bgsave_status:err").then_some(())
        });
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts again on the same port, with what it kept.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.port, &self.folder, &self.arguments);
        assert!(self.answers(), "redis-server does not start again");
    }

    /// Stops answering, without a word.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("a signal to Redis");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its number").port()
}

fn spawn(port: u16, folder: &Path, arguments: &[String]) -> Child {
    let log = fs::File::create(folder.join("log")).expect("a log for Redis");
    let program = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    Command::new(&program)
        .arg(folder.join(CONFIG))
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ])
        .arg("--dir")
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                panic!("{program} is missing; install it with: apt-get install redis-server")
            }
            _ => panic!("cannot start {program}: {error}"),
        })
}
