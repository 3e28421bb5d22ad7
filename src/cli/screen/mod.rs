//! The input and output of `hubbub join`: a terminal, or a pipe.
//!
//! On a terminal there is a prompt in the last row, and messages appear above it. If stdin or stdout is a
//! pipe, the lines of stdin are sent, messages go to stdout, and notices about the connection to stderr. Only a line
//! that is typed, at a terminal, can be a command.
//!
//! Read here the [`Screen`] of both; then, for a terminal, `terminal`, which draws; `tty`, the device;
//! `editor`, the line being typed; `keys`, which reads bytes as keys; `wrap`, for long lines; and `colour`.

mod colour;
mod keys;
mod editor;
mod wrap;
mod tty;
mod terminal;

use std::fmt;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::thread;

use crossbeam_channel::{Receiver, Sender};

pub(super) use self::colour::ColorChoice;
use self::colour::Paint;
use self::terminal::Terminal;
use self::tty::Tty;
use super::{LONGEST_TEXT, complain};
use crate::protocol::text::Line;

/// The capacity of the queue of raw input. While it is full, the thread that reads waits.
const INPUT_QUEUE: usize = 1;

/// The reason why a line of a pipe cannot be sent.
pub(super) enum BadLine {
    NotUtf8,
    TooLong,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => write!(f, "the line is not UTF-8"),
            Self::TooLong => write!(f, "the line is longer than {LONGEST_TEXT} bytes"),
        }
    }
}

/// An input of the user.
pub(super) enum Input {
    Line(Result<String, BadLine>),
    /// The input has ended. The lines before the end are still sent.
    End,
    /// The user, or a signal, wants to end the command now, with this exit code.
    Quit(u8),
}

/// An input as a reading thread delivers it. [`Screen::handle`] turns it into [`Input`].
pub(super) enum RawInput {
    Ready(Input),
    /// Bytes of a keyboard.
    Bytes(Vec<u8>),
    /// The window has another size.
    Resized,
    /// The process runs again after Ctrl-Z.
    Continued,
}

/// The output of the chat, and its input.
pub(super) struct Screen {
    kind: Kind,
    input: Receiver<RawInput>,
}

enum Kind {
    Plain(Paint),
    Terminal(Box<Terminal>),
}

impl Screen {
    /// Opens the screen. Call it before other threads start: it masks signals.
    pub(super) fn open(color: ColorChoice) -> io::Result<Self> {
        let (sender, input) = crossbeam_channel::bounded(INPUT_QUEUE);
        let paint = Paint::new(color);
        let kind = if Tty::is_available() {
            Kind::Terminal(Box::new(Terminal::open(&sender, paint)?))
        } else {
            read_lines(sender)?;
            Kind::Plain(paint)
        };
        Ok(Self { kind, input })
    }

    pub(super) fn raw_input(&self) -> &Receiver<RawInput> {
        &self.input
    }

    /// Handles raw input, and returns the first input in it. [`Screen::next_input`] returns the others.
    pub(super) fn handle(&mut self, raw: RawInput) -> io::Result<Option<Input>> {
        match (raw, &mut self.kind) {
            (RawInput::Ready(input), _) => Ok(Some(input)),
            (RawInput::Bytes(bytes), Kind::Terminal(terminal)) => {
                terminal.read(&bytes);
                terminal.next_input()
            }
            (RawInput::Resized, Kind::Terminal(terminal)) => terminal.print(&[]).map(|()| None),
            (RawInput::Continued, Kind::Terminal(terminal)) => terminal.resume().map(|()| None),
            // No thread delivers these in a pipe.
            (RawInput::Bytes(_) | RawInput::Resized | RawInput::Continued, Kind::Plain(_)) => {
                Ok(None)
            }
        }
    }

    /// The next input of the keys pressed. Call it once the input before is handled.
    pub(super) fn next_input(&mut self) -> io::Result<Option<Input>> {
        match &mut self.kind {
            Kind::Terminal(terminal) => terminal.next_input(),
            Kind::Plain(_) => Ok(None),
        }
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self.kind, Kind::Terminal(_))
    }

    /// Whether a person types the lines, may mean a command, sees an error, and can type the line again.
    pub(super) fn is_typed_at(&self) -> bool {
        self.is_terminal() || io::stdin().is_terminal()
    }

    pub(super) fn set_prompt(&mut self, prompt: &str) -> io::Result<()> {
        match &mut self.kind {
            Kind::Terminal(terminal) => terminal.set_prompt(prompt),
            Kind::Plain(_) => Ok(()),
        }
    }

    /// Prints lines of the chat.
    pub(super) fn print(&mut self, lines: &[Line]) -> io::Result<()> {
        match &mut self.kind {
            Kind::Terminal(terminal) => terminal.print(lines),
            Kind::Plain(paint) => {
                let lines: String = lines.iter().map(|line| paint.line(line) + "\n").collect();
                let mut out = io::stdout().lock();
                out.write_all(lines.as_bytes())?;
                out.flush()
            }
        }
    }

    /// Prints a notice that is no part of the chat. In a pipe it goes to stderr.
    pub(super) fn aside(&mut self, notice: String) -> io::Result<()> {
        let line = Line::Notice(notice);
        match &mut self.kind {
            Kind::Terminal(terminal) => terminal.print(&[line]),
            Kind::Plain(_) => {
                complain(line);
                Ok(())
            }
        }
    }
}

/// Starts the thread that reads the lines of a pipe.
fn read_lines(sender: Sender<RawInput>) -> io::Result<()> {
    let read = move || {
        let mut stdin = io::stdin().lock();
        while let Ok(Some(line)) = next_line(&mut stdin) {
            if sender.send(RawInput::Ready(Input::Line(line))).is_err() {
                return;
            }
        }
        let _ = sender.send(RawInput::Ready(Input::End));
    };
    let thread = thread::Builder::new().name("stdin".into());
    thread.spawn(read).map(drop)
}

/// Reads the next line, without its end; `None` at the end of the input. The bytes of a line that is too
/// long are not kept.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Result<String, BadLine>>> {
    let mut line = Vec::new();
    input
        .by_ref()
        .take(LONGEST_TEXT + 1)
        .read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 > LONGEST_TEXT {
        drop(line);
        input.skip_until(b'\n')?;
        return Ok(Some(Err(BadLine::TooLong)));
    }
    Ok(Some(String::from_utf8(line).map_err(|_| BadLine::NotUtf8)))
}
