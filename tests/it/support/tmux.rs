//! A terminal: a window of a tmux server of its own, which tells what is on its screen.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::{DEADLINE, GLANCE, until};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A window in which one command runs.
pub(crate) struct Window {
    /// The tmux server's name.
    server: String,
}

impl Window {
    /// Runs the binary in a window of 60 columns and 20 rows.
    pub(crate) fn running(arguments: &[&str]) -> Self {
        Self::in_environment("", arguments)
    }

    /// The same, with variables for the environment as a shell takes them.
    pub(crate) fn in_environment(variables: &str, arguments: &[&str]) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let window = Self {
            server: format!("hubbub-test-{}-{count}", std::process::id()),
        };
        // When it ends, the shell tells how, and in which mode it left the terminal.
        let command = format!(
            "env -u NO_COLOR {variables} '{}' {}; echo \"exit code $?\"; \
             stty -a | tr ' ' '\\n' | grep -x 'icanon\\|echo\\|isig\\|icrnl' | tr '\\n' ' '; sleep 600",
            env!("CARGO_BIN_EXE_hubbub"),
            arguments.join(" "),
        );
        window.tmux(&[
            "-u",
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "60",
            "-y",
            "20",
            &command,
        ]);
        window
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let output = Command::new("tmux")
            .args(["-L", &self.server])
            .args(arguments)
            .env_remove("TMUX")
            .output()
            .expect("tmux can be started; on Debian: apt-get install tmux");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output
    }

    pub(crate) fn types(&self, text: &str) {
        self.tmux(&["send-keys", "-l", "--", text]);
    }

    /// A key by tmux's name for it, such as `Enter`, `C-c`, `Up`.
    pub(crate) fn presses(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    pub(crate) fn enters(&self, line: &str) {
        self.types(line);
        self.presses("Enter");
    }

    pub(crate) fn pastes(&self, text: &str) {
        self.tmux(&["set-buffer", "--", text]);
        self.tmux(&["paste-buffer", "-p"]);
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// The screen's lines, without the empty ones at its end.
    pub(crate) fn screen(&self) -> Vec<String> {
        Self::lines(&self.tmux(&["capture-pane", "-p"]))
    }

    /// The same with colours as escape sequences.
    pub(crate) fn colours(&self) -> Vec<String> {
        Self::lines(&self.tmux(&["capture-pane", "-p", "-e"]))
    }

    fn lines(output: &Output) -> Vec<String> {
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim_end().lines().map(str::to_owned).collect()
    }

    /// Waits until the screen ends with these lines.
    pub(crate) fn shows(&self, last: &[&str]) {
        self.shows_seen_as(|line| line, last);
    }

    /// The same, with each line changed before it is compared.
    pub(crate) fn shows_seen_as(&self, change: impl Fn(String) -> String, last: &[&str]) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let screen: Vec<_> = self.screen().into_iter().map(&change).collect();
            if screen.ends_with(&last.iter().map(ToString::to_string).collect::<Vec<_>>()) {
                return;
            }
            let screen = screen.join("\n");
            assert!(Instant::now() < deadline, "not {last:?}, but:\n{screen}");
            std::thread::sleep(GLANCE);
        }
    }

    /// Waits for the end of what runs in it; its exit code. The terminal must be as it was.
    pub(crate) fn ends(&self) -> u8 {
        until("it ends, and leaves the terminal as it was", || {
            let screen = self.screen();
            let [.., exit, modes] = &*screen else {
                return None;
            };
            let whole = ["icanon", "echo", "isig", "icrnl"];
            let restored = whole.iter().all(|mode| modes.contains(mode));
            let code = exit.strip_prefix("exit code ")?.parse().ok()?;
            restored.then_some(code)
        })
    }

    /// The process that runs in it.
    pub(crate) fn process(&self) -> i32 {
        let output = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        until("the shell has started it", || {
            let children = format!("/proc/{shell}/task/{shell}/children");
            let children = std::fs::read_to_string(children).ok()?;
            children.split_whitespace().next()?.parse().ok()
        })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let _ = Command::new("tmux")
            .args(["-L", &self.server, "kill-server"])
            .output();
    }
}
