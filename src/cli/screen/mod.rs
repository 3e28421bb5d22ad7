//! Where a conversation is seen and typed: on a terminal, or in a pipe.
//!
//! On a terminal there is a prompt, and lines come in above it. In a pipe, and wherever one end is
//! a pipe, there are plain lines: those of stdin are said, what is heard goes to stdout, and what is
//! only worth knowing to stderr.

mod colour;
mod keys;
mod editor;
mod tty;
mod terminal;

use std::fmt;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::thread;

use crossbeam_channel::{Receiver, Sender};

use self::colour::Paint;
pub(super) use self::colour::When;
use self::terminal::Terminal;
use self::tty::Tty;
use super::complain;
use super::talk::LONGEST_TEXT;
use crate::protocol::text::Line;

/// The most input that waits. Beyond it the reading thread waits.
const WAITING_INPUT: usize = 1;

/// Why a line of a pipe cannot be said.
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

/// Input, from a terminal or from a pipe.
pub(super) enum Input {
    /// A line of a pipe.
    Line(Result<String, BadLine>),
    /// Bytes of a keyboard.
    Bytes(Vec<u8>),
    End,
    /// A signal that ends the process, by its number.
    Ending(u8),
    Resized,
    Continued,
}

/// A request of the user at the screen.
pub(super) enum Asked {
    Line(Result<String, BadLine>),
    /// The input has ended: what was typed is still said.
    End,
    /// To leave at once, with this exit code.
    Leave(u8),
}

/// The screen, and what comes in from it.
pub(super) struct Screen {
    kind: Kind,
    input: Receiver<Input>,
}

enum Kind {
    Plain(Paint),
    Terminal(Box<Terminal>),
}

impl Screen {
    /// To be opened before other threads are started: it masks signals.
    pub(super) fn open(colours: When) -> io::Result<Self> {
        let (tell, input) = crossbeam_channel::bounded(WAITING_INPUT);
        let paint = Paint::new(colours);
        let kind = if Tty::there_is_one() {
            Kind::Terminal(Box::new(Terminal::open(&tell, paint)?))
        } else {
            read_lines(tell)?;
            Kind::Plain(paint)
        };
        Ok(Self { kind, input })
    }

    pub(super) fn input(&self) -> &Receiver<Input> {
        &self.input
    }

    /// Takes in what came in. What it asks for is the first thing; [`Screen::more`] has the rest.
    pub(super) fn digest(&mut self, input: Input) -> io::Result<Option<Asked>> {
        match (&mut self.kind, input) {
            (Kind::Terminal(terminal), input) => terminal.digest(input),
            (Kind::Plain(_), Input::Line(line)) => Ok(Some(Asked::Line(line))),
            (Kind::Plain(_), Input::End) => Ok(Some(Asked::End)),
            (Kind::Plain(_), Input::Ending(signal)) => Ok(Some(Asked::Leave(128 + signal))),
            (Kind::Plain(_), Input::Bytes(_) | Input::Resized | Input::Continued) => Ok(None),
        }
    }

    /// The next request of the same input, once the one before it is done.
    pub(super) fn more(&mut self) -> io::Result<Option<Asked>> {
        match &mut self.kind {
            Kind::Terminal(terminal) => terminal.press(),
            Kind::Plain(_) => Ok(None),
        }
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self.kind, Kind::Terminal(_))
    }

    /// Whether somebody is there who sees an error and types the line again.
    pub(super) fn is_typed_at(&self) -> bool {
        self.is_terminal() || io::stdin().is_terminal()
    }

    pub(super) fn set_prompt(&mut self, prompt: &str) -> io::Result<()> {
        match &mut self.kind {
            Kind::Terminal(terminal) => terminal.set_prompt(prompt),
            Kind::Plain(_) => Ok(()),
        }
    }

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

    /// Prints a line that is no part of the conversation.
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

fn read_lines(tell: Sender<Input>) -> io::Result<()> {
    let read = move || {
        let mut stdin = io::stdin().lock();
        while let Ok(Some(line)) = next_line(&mut stdin) {
            if tell.send(Input::Line(line)).is_err() {
                return;
            }
        }
        let _ = tell.send(Input::End);
    };
    let thread = thread::Builder::new().name("stdin".into());
    thread.spawn(read).map(drop)
}

/// The next line, without its end; `None` at the end of the input. Of one that is too long nothing is
/// kept.
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
