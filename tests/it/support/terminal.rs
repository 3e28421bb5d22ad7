//! `hubbub join`, `say` and `tail` with pipes at both ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus, Stdio};

use super::hubbub::command;
use super::until;

/// A terminal client with pipes.
pub(crate) struct Terminal {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Terminal {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = command()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("hubbub can be started");
        Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().map(BufReader::new),
            child,
        }
    }

    pub(crate) fn types(&mut self, line: &str) {
        self.types_bytes(format!("{line}\n").as_bytes());
    }

    pub(crate) fn types_bytes(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("it is still typing");
        stdin.write_all(bytes).expect("it can be typed");
    }

    pub(crate) fn prints(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.stdout.as_mut().expect("it is still read");
        stdout.read_line(&mut line).expect("a line");
        line.trim_end_matches('\n').to_owned()
    }

    /// The end at which it is typed.
    pub(crate) fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("it is still typing")
    }

    /// How much memory it has, in bytes.
    pub(crate) fn resident(&self) -> usize {
        resident(self.child.id())
    }

    /// Ends the input and waits for the end; what was printed until then.
    pub(crate) fn ends(mut self) -> (ExitStatus, Vec<String>) {
        self.stdin = None;
        let stdout = self.stdout.take().expect("it is still read");
        let rest = stdout.lines().map(|line| line.expect("a line")).collect();
        (self.child.wait().expect("its end"), rest)
    }

    /// Waits for the end, which comes though the input goes on.
    pub(crate) fn ends_by_itself(mut self) -> ExitStatus {
        until("it ends", || self.child.try_wait().expect("its status"))
    }

    /// Reads no more, and waits for the end.
    pub(crate) fn loses_its_reader(mut self) -> ExitStatus {
        self.stdout = None;
        self.ends_by_itself()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How much memory a process has, in bytes.
fn resident(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    1024 * kib.expect("its memory").parse::<usize>().expect("a number")
}
