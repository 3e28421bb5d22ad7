//! The terminal as a device: its mode, its width, and the signals that concern it.

use std::io::{self, IsTerminal, Read, Write};
use std::process;
use std::thread;

use crossbeam_channel::Sender;
use nix::sys::signal::{SigSet, Signal, raise};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};

use super::Input;

/// The width of a terminal that does not tell its own.
const USUAL_WIDTH: usize = 80;

/// A paste arrives as one piece with its ends marked (xterm, "Bracketed Paste Mode").
const MARK_PASTES: &str = "\x1b[?2004h";
const MARK_NO_PASTES: &str = "\x1b[?2004l";

/// A terminal that sends every key at once and echoes none, until this is dropped.
pub(super) struct Tty {
    /// As it was found, and is left.
    found: Termios,
}

impl Tty {
    /// Takes over the terminal. Its keys and the signals come over `tell`.
    ///
    /// The signals are masked in this thread and all that it starts from now on.
    pub(super) fn open(tell: &Sender<Input>) -> io::Result<Self> {
        let tty = Self {
            found: tcgetattr(io::stdin())?,
        };
        watch_signals(tell.clone())?;
        read_keys(tell.clone())?;
        tty.take()?;
        Ok(tty)
    }

    pub(super) fn there_is_one() -> bool {
        let smart = std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty());
        smart && io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    fn take(&self) -> io::Result<()> {
        let mut ours = self.found.clone();
        // Ctrl-C, Ctrl-Z and Ctrl-S are keys like others, and Enter is not Ctrl-J. What is written
        // is treated as before, so that whatever else prints here looks as it should.
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

    /// Stops this process as Ctrl-Z does, until [`Input::Continued`].
    pub(super) fn suspend(&self) -> io::Result<()> {
        self.give_back()?;
        Ok(raise(Signal::SIGTSTP)?)
    }

    /// Takes the terminal over again.
    pub(super) fn resume(&self) -> io::Result<()> {
        self.take()
    }

    /// The number of columns that it has now.
    pub(super) fn width() -> usize {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 => size.ws_col.into(),
            _ => USUAL_WIDTH,
        }
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        // If it is gone, there is nothing to give back.
        let _ = self.give_back();
    }
}

/// In one piece, so that a terminal never shows a half of it.
pub(super) fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn read_keys(tell: Sender<Input>) -> io::Result<()> {
    let read = move || {
        let mut bytes = [0; 4096];
        loop {
            let input = match io::stdin().read(&mut bytes) {
                Ok(0) | Err(_) => Input::End,
                Ok(length) => Input::Bytes(bytes[..length].to_vec()),
            };
            let ended = matches!(input, Input::End);
            if tell.send(input).is_err() || ended {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("keys".into());
    thread.spawn(read).map(drop)
}

/// Signals become input like any other, so that the terminal is given back before they end us.
fn watch_signals(tell: Sender<Input>) -> io::Result<()> {
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
                Signal::SIGWINCH => Input::Resized,
                Signal::SIGCONT => Input::Continued,
                ending => Input::Ending(ending as u8),
            };
            if let Err(unheard) = tell.send(input)
                && let Input::Ending(number) = unheard.0
            {
                // The conversation is over, and only its goodbye still takes time.
                process::exit(128 + i32::from(number));
            }
        }
    };
    let thread = thread::Builder::new().name("signals".into());
    thread.spawn(watch).map(drop)
}
