//! A terminal: the row of the line being typed is the last, and all other lines are above it.
//!
//! One thread writes to the terminal. Each output clears the typed row, prints, and draws the row again,
//! in one write.

use std::collections::VecDeque;
use std::io;

use crossbeam_channel::Sender;
use unicode_width::UnicodeWidthStr;

use super::colour::Paint;
use super::editor::{Edit, Editor};
use super::keys::{Key, KeyParser};
use super::tty::{Tty, write};
use super::wrap::wrap;
use super::{Input, RawInput};
use crate::protocol::text::{Line, shown};

/// Clears the row from the cursor on.
const CLEAR_ROW: &str = "\x1b[K";
/// Clears the row from the cursor on, and all rows below.
const CLEAR_BELOW: &str = "\x1b[J";
/// Moves the cursor to the top, and clears all rows.
const CLEAR_ALL: &str = "\x1b[H\x1b[2J";

/// The columns left free before the rows of a line that are not its first.
const INDENT: usize = 2;

/// The prompt takes at most one half of the row.
const PROMPT_SHARE: usize = 2;

pub(super) struct Terminal {
    tty: Tty,
    keys: KeyParser,
    /// KeyParser that are read and not handled yet.
    pressed: VecDeque<Key>,
    editor: Editor,
    paint: Paint,
    prompt: String,
    /// The typed row as it is on the screen now.
    drawn: Option<Drawn>,
}

/// The place that the typed row takes on the screen.
struct Drawn {
    columns: usize,
    /// The column of the cursor.
    cursor: usize,
}

impl Terminal {
    pub(super) fn open(sender: &Sender<RawInput>, paint: Paint) -> io::Result<Self> {
        Ok(Self {
            tty: Tty::open(sender)?,
            keys: KeyParser::default(),
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

    /// Prints lines above the typed row. Without lines, draws the row again.
    pub(super) fn print(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut out = self.erase();
        let columns = Tty::width();
        for line in lines {
            out += &wrap(&self.paint.line(line), columns, INDENT);
            out.push('\n');
        }
        out += &self.draw();
        write(&out)
    }

    /// Takes over the terminal again after Ctrl-Z.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        self.tty.resume()?;
        self.print(&[])
    }

    /// Reads bytes of the keyboard as keys; [`Terminal::next_input`] handles them.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        self.pressed.extend(self.keys.read(bytes));
    }

    /// Handles keys up to the first that gives an input. The others wait, so that the answer to a line
    /// is printed before the next line.
    pub(super) fn next_input(&mut self) -> io::Result<Option<Input>> {
        let mut out = String::new();
        let mut input = None;
        while input.is_none()
            && let Some(key) = self.pressed.pop_front()
        {
            match self.editor.press(key) {
                Edit::Changed => {}
                Edit::Line(line) if line.is_empty() => {}
                Edit::Line(line) => {
                    out += &self.erase();
                    out += &self.accepted(&line);
                    input = Some(Input::Line(Ok(line)));
                }
                Edit::End => input = Some(Input::End),
                Edit::Interrupt => input = Some(Input::Quit(128 + 2)),
                Edit::Redraw => {
                    out += CLEAR_ALL;
                    self.drawn = None;
                }
                Edit::Suspend => {
                    out += &self.erase();
                    write(&out)?;
                    // `resume` draws the row again.
                    self.tty.suspend()?;
                    return Ok(None);
                }
            }
        }
        out += &self.erase();
        out += &self.draw();
        write(&out)?;
        Ok(input)
    }

    /// The text of a complete line, which stays on the screen with its prompt.
    fn accepted(&self, line: &str) -> String {
        let (columns, indent) = (Tty::width(), self.prompt.width());
        let mut out = String::new();
        let mut before = self.paint.dim(&self.prompt);
        for line in line.split('\n') {
            out += &wrap(&(before + &shown(line)), columns, indent);
            out.push('\n');
            before = " ".repeat(indent);
        }
        out
    }

    /// The output that clears the typed row.
    fn erase(&mut self) -> String {
        let Some(Drawn { columns, cursor }) = self.drawn.take() else {
            return String::new();
        };
        let width = Tty::width();
        if columns <= width {
            // CLEAR_BELOW in the top row would make tmux keep a copy of the screen.
            return format!("\r{CLEAR_ROW}");
        }
        // The window has become narrower, so the terminal has wrapped the row.
        let up = match cursor / width {
            0 => String::new(),
            rows => format!("\x1b[{rows}A"),
        };
        format!("{up}\r{CLEAR_BELOW}")
    }

    /// The output that draws the typed row.
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

    /// The prompt, or its end if the prompt is wider than `columns`.
    fn short_prompt(&self, columns: usize) -> String {
        let mut prompt = self.prompt.as_str();
        while prompt.width() > columns {
            let mut rest = prompt.chars();
            rest.next();
            prompt = rest.as_str();
        }
        prompt.to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = write(&self.erase());
    }
}
