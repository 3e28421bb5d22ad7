//! Where a conversation is seen and typed: on a terminal, or in a pipe.
//!
//! On a terminal there is a prompt, and lines come in above it. In a pipe, and wherever one end is
//! a pipe, there are plain lines: those of stdin are said, what is heard goes to stdout, and what is
//! only worth knowing to stderr.

mod colour;
mod editor;
mod keys;
mod terminal;
mod tty;

use std::io::{self, BufRead, IsTerminal, Write};
use std::string::FromUtf8Error;
use std::thread;

use crossbeam_channel::{Receiver, Sender};

use self::colour::Paint;
pub(super) use self::colour::When;
use self::terminal::Terminal;
use self::tty::Tty;
use super::complain;
use crate::protocol::text::Line;

/// How much of what is typed may wait. The thread that reads it waits when there is more.
const WAITING_INPUT: usize = 1;

/// What comes in, from whatever there is.
pub(super) enum Input {
    /// A line of a pipe.
    Line(Result<String, FromUtf8Error>),
    /// Bytes of a keyboard.
    Bytes(Vec<u8>),
    End,
    /// A signal that ends the process, by its number.
    Ending(u8),
    Resized,
    Continued,
}

/// What whoever sits at the screen asks for.
pub(super) enum Asked {
    Line(Result<String, FromUtf8Error>),
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

    /// What else was asked for, to be taken once the thing before it is done.
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

    /// What is no part of the conversation.
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
        for line in io::stdin().lock().split(b'\n') {
            let Ok(line) = line else { break };
            if tell.send(Input::Line(String::from_utf8(line))).is_err() {
                return;
            }
        }
        let _ = tell.send(Input::End);
    };
    let thread = thread::Builder::new().name("stdin".into());
    thread.spawn(read).map(drop)
}
