//! A terminal: the line being typed in the last row, and everything else above it.
//!
//! One thread writes to it. Before anything is printed the typed line's row is cleared, and behind
//! it that row is drawn again, in the same write.

use std::collections::VecDeque;
use std::io;

use crossbeam_channel::Sender;
use unicode_width::UnicodeWidthStr;

use super::colour::Paint;
use super::editor::{Editor, Typed};
use super::keys::{Key, Keys};
use super::tty::{Tty, write};
use super::{Asked, Input};
use crate::protocol::text::{Line, shown};

/// Clears the line right of the cursor; and everything below as well.
const CLEAR_ROW: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
const CLEAR_ALL: &str = "\x1b[H\x1b[2J";

/// The prompt takes at most this part of the row.
const PROMPT_SHARE: usize = 2;

pub(super) struct Terminal {
    tty: Tty,
    keys: Keys,
    /// Keys that were pressed and not taken in yet.
    pressed: VecDeque<Key>,
    editor: Editor,
    paint: Paint,
    prompt: String,
    /// The row that is on the screen.
    drawn: Option<Drawn>,
}

/// The part of the screen that the typed line takes.
struct Drawn {
    columns: usize,
    /// The column of the cursor.
    cursor: usize,
}

impl Terminal {
    pub(super) fn open(tell: &Sender<Input>, paint: Paint) -> io::Result<Self> {
        Ok(Self {
            tty: Tty::open(tell)?,
            keys: Keys::default(),
            pressed: VecDeque::new(),
            editor: Editor::default(),
            paint,
            prompt: String::new(),
            drawn: None,
        })
    }

    pub(super) fn set_prompt(&mut self, prompt: &str) -> io::Result<()> {
        self.prompt = shown(prompt);
        self.print(&[])
    }

    /// Prints lines above the one being typed.
    pub(super) fn print(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut out = self.erase();
        for line in lines {
            out += &self.paint.line(line);
            out.push('\n');
        }
        out += &self.draw();
        write(&out)
    }

    /// Takes in what came from the keyboard or as a signal.
    pub(super) fn digest(&mut self, input: Input) -> io::Result<Option<Asked>> {
        match input {
            Input::Bytes(bytes) => {
                self.pressed.extend(self.keys.read(&bytes));
                self.press()
            }
            Input::Line(line) => Ok(Some(Asked::Line(line))),
            Input::End => Ok(Some(Asked::End)),
            Input::Ending(signal) => Ok(Some(Asked::Leave(128 + signal))),
            Input::Resized => self.print(&[]).map(|()| None),
            Input::Continued => {
                self.tty.resume()?;
                self.print(&[]).map(|()| None)
            }
        }
    }

    /// Takes the keys in up to the first that asks for something. The others wait, so that a line
    /// is answered before the next one is shown as said.
    pub(super) fn press(&mut self) -> io::Result<Option<Asked>> {
        let mut out = String::new();
        let mut asked = None;
        while asked.is_none()
            && let Some(key) = self.pressed.pop_front()
        {
            match self.editor.press(key) {
                Typed::Changed => {}
                Typed::Line(line) if line.is_empty() => {}
                Typed::Line(line) => {
                    out += &self.erase();
                    out += &self.accepted(&line);
                    asked = Some(Asked::Line(Ok(line)));
                }
                Typed::End => asked = Some(Asked::End),
                Typed::Interrupt => asked = Some(Asked::Leave(128 + 2)),
                Typed::Redraw => {
                    out += CLEAR_ALL;
                    self.drawn = None;
                }
                Typed::Suspend => {
                    out += &self.erase();
                    write(&out)?;
                    // Input::Continued draws the row again.
                    self.tty.suspend()?;
                    return Ok(None);
                }
            }
        }
        out += &self.erase();
        out += &self.draw();
        write(&out)?;
        Ok(asked)
    }

    /// The line that was typed stays on the screen, whole.
    fn accepted(&self, line: &str) -> String {
        let indent = " ".repeat(self.prompt.width());
        let mut out = self.paint.dim(&self.prompt);
        for (index, line) in line.split('\n').enumerate() {
            if index > 0 {
                out += &indent;
            }
            out += &shown(line);
            out.push('\n');
        }
        out
    }

    /// Clears the row of the typed line.
    fn erase(&mut self) -> String {
        let Some(Drawn { columns, cursor }) = self.drawn.take() else {
            return String::new();
        };
        let width = Tty::width();
        if columns <= width {
            // Not the rest of the screen: at its top, tmux would take that for a screen to keep.
            return format!("\r{CLEAR_ROW}");
        }
        // The window was made narrower, and the terminal has wrapped the row.
        let up = match cursor / width {
            0 => String::new(),
            rows => format!("\x1b[{rows}A"),
        };
        format!("{up}\r{CLEAR_BELOW}")
    }

    fn draw(&mut self) -> String {
        let width = Tty::width();
        let prompt = self.short_prompt(width / PROMPT_SHARE);
        let before = prompt.width();
        let row = self.editor.row(width.saturating_sub(before));
        let column = before + row.cursor;
        self.drawn = Some(Drawn {
            columns: before + row.width,
            cursor: column,
        });
        let right = match column {
            0 => String::new(),
            column => format!("\x1b[{column}C"),
        };
        format!("{}{}\r{right}", self.paint.dim(&prompt), row.text)
    }

    /// The prompt, or in a narrow window its end.
    fn short_prompt(&self, room: usize) -> String {
        let mut prompt = self.prompt.as_str();
        while prompt.width() > room {
            let mut rest = prompt.chars();
            rest.next();
            prompt = rest.as_str();
        }
        prompt.to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let gone = self.erase();
        let _ = write(&gone);
    }
}
