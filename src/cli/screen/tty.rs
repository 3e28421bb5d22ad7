//! The terminal as a device: its mode, its width, its keys, and the signals about it.

use std::io::{self, IsTerminal, Read, Write};
use std::process;
use std::thread;

use crossbeam_channel::Sender;
use nix::sys::signal::{SigSet, Signal, raise};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};

use super::{Input, RawInput};

/// The width of a terminal that does not report its own.
const DEFAULT_WIDTH: usize = 80;

/// With this mode the terminal marks the begin and the end of a paste (xterm, "Bracketed Paste Mode").
const MARK_PASTES: &str = "\x1b[?2004h";
const MARK_NO_PASTES: &str = "\x1b[?2004l";

/// A terminal that sends every key at once and echoes none. Its old mode is restored on drop.
pub(super) struct Tty {
    /// The mode to restore.
    found: Termios,
}

impl Tty {
    /// Takes over the terminal. Keys and signals go to `sender`.
    ///
    /// The signals are masked in this thread and in all threads that it starts later.
    pub(super) fn open(sender: &Sender<RawInput>) -> io::Result<Self> {
        let tty = Self {
            found: tcgetattr(io::stdin())?,
        };
        watch_signals(sender.clone())?;
        read_keys(sender.clone())?;
        tty.take()?;
        Ok(tty)
    }

    /// Whether stdin and stdout are a terminal that understands escape sequences.
    pub(super) fn is_available() -> bool {
        let smart = std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty());
        smart && io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    fn take(&self) -> io::Result<()> {
        let mut ours = self.found.clone();
        // Ctrl-C, Ctrl-Z and Ctrl-S arrive as keys, and Enter differs from Ctrl-J. The output modes stay
        // as they are, so that other programs print correctly on this terminal.
        ours.input_modes -= InputModes::ICRNL | InputModes::IXON;
        ours.local_modes -=
            LocalModes::ECHO | LocalModes::ICANON | LocalModes::IEXTEN | LocalModes::ISIG;
        tcsetattr(io::stdin(), OptionalActions::Drain, &ours)?;
        write(MARK_PASTES)
    }

    fn give_back(&self) -> io::Result<()> {
        write(MARK_NO_PASTES)?;
        Ok(tcsetattr(io::stdin(), OptionalActions::Drain, &self.found)?)
    }

    /// Stops this process as Ctrl-Z does. [`RawInput::Continued`] follows.
    pub(super) fn suspend(&self) -> io::Result<()> {
        self.give_back()?;
        Ok(raise(Signal::SIGTSTP)?)
    }

    /// Takes the terminal over again.
    pub(super) fn resume(&self) -> io::Result<()> {
        self.take()
    }

    /// The present width, in columns.
    pub(super) fn width() -> usize {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 => size.ws_col.into(),
            _ => DEFAULT_WIDTH,
        }
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        // A failure means that the terminal is gone.
        let _ = self.give_back();
    }
}

/// Writes the text in one piece, so that a terminal never shows a half of it.
pub(super) fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Starts the thread that reads the keyboard.
fn read_keys(sender: Sender<RawInput>) -> io::Result<()> {
    let read = move || {
        let mut bytes = [0; 4096];
        loop {
            let input = match io::stdin().read(&mut bytes) {
                Ok(0) | Err(_) => RawInput::Ready(Input::End),
                Ok(length) => RawInput::Bytes(bytes[..length].to_vec()),
            };
            let ended = matches!(input, RawInput::Ready(Input::End));
            if sender.send(input).is_err() || ended {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("keys".into());
    thread.spawn(read).map(drop)
}

/// Starts the thread that delivers signals as input, so that the terminal is restored before a signal
/// ends the process.
fn watch_signals(sender: Sender<RawInput>) -> io::Result<()> {
    let signals: SigSet = [
        Signal::SIGWINCH,
        Signal::SIGCONT,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
    ]
    .into_iter()
    .collect();
    signals.thread_block()?;
    let watch = move || {
        while let Ok(signal) = signals.wait() {
            let input = match signal {
                Signal::SIGWINCH => RawInput::Resized,
                Signal::SIGCONT => RawInput::Continued,
                ending => RawInput::Ready(Input::Quit(128 + ending as u8)),
            };
            if let Err(unsent) = sender.send(input)
                && let RawInput::Ready(Input::Quit(code)) = unsent.0
            {
                // The chat is over, and the process only waits for the client's goodbye.
                process::exit(code.into());
            }
        }
    };
    let thread = thread::Builder::new().name("signals".into());
    thread.spawn(watch).map(drop)
}
