//! The line being typed: takes keys, and returns the row to show. It knows no terminal.
//!
//! A line takes one row of any given width, and a longer line scrolls sideways. So the row stays whole
//! when messages appear above it or the window changes its size.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::keys::Key;
use crate::protocol::text::shown;

/// The number of lines that the arrow keys can recall. They are never written to a file, since they may
/// be private.
const REMEMBERED: usize = 200;

/// The character shown for a line break in a pasted text.
const BREAK: char = '\u{23ce}';

/// The effect of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// The line or the cursor may have changed.
    Changed,
    /// A line is complete.
    Line(String),
    End,
    Interrupt,
    Suspend,
    Redraw,
}

/// A line as it is shown in one row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) text: String,
    /// The number of columns that it takes.
    pub(super) width: usize,
    /// The column of the cursor.
    pub(super) cursor: usize,
}

/// The line, its cursor, and the lines before it.
#[derive(Default)]
pub(super) struct Editor {
    line: Vec<char>,
    /// The index of the character under the cursor.
    cursor: usize,
    remembered: Vec<String>,
    /// The index of the remembered line that is shown; their number for the line being typed.
    shown: usize,
    draft: Vec<char>,
}

impl Editor {
    pub(super) fn press(&mut self, key: Key) -> Edit {
        match key {
            Key::Char(c) => self.insert(&[c]),
            Key::Paste(text) => {
                let kept = |c: &char| matches!(c, '\n' | '\t') || !c.is_control();
                let text: Vec<char> = text.trim_end_matches('\n').chars().filter(kept).collect();
                self.insert(&text);
            }
            Key::Enter => return Edit::Line(self.accept()),
            Key::Backspace => self.delete(self.left(), self.cursor),
            Key::Delete => self.delete(self.cursor, self.right()),
            Key::DeleteWord => self.delete(self.word_left(), self.cursor),
            Key::DeleteToStart => self.delete(0, self.cursor),
            Key::DeleteToEnd => self.delete(self.cursor, self.line.len()),
            Key::Left => self.cursor = self.left(),
            Key::Right => self.cursor = self.right(),
            Key::WordLeft => self.cursor = self.word_left(),
            Key::WordRight => self.cursor = self.word_right(),
            Key::Home => self.cursor = 0,
            Key::End => self.cursor = self.line.len(),
            Key::Up => self.recall(self.shown.saturating_sub(1)),
            Key::Down => self.recall((self.shown + 1).min(self.remembered.len())),
            Key::Redraw => return Edit::Redraw,
            Key::Interrupt if self.line.is_empty() => return Edit::Interrupt,
            Key::Interrupt => self.clear(),
            Key::EndOrDelete if self.line.is_empty() => return Edit::End,
            Key::EndOrDelete => self.delete(self.cursor, self.right()),
            Key::Suspend => return Edit::Suspend,
        }
        Edit::Changed
    }

    fn insert(&mut self, text: &[char]) {
        self.line
            .splice(self.cursor..self.cursor, text.iter().copied());
        self.cursor += text.len();
    }

    fn delete(&mut self, from: usize, to: usize) {
        self.line.drain(from..to);
        self.cursor = from;
    }

    fn accept(&mut self) -> String {
        let line: String = std::mem::take(&mut self.line).into_iter().collect();
        self.cursor = 0;
        if !line.is_empty() && self.remembered.last() != Some(&line) {
            self.remembered.push(line.clone());
            if self.remembered.len() > REMEMBERED {
                self.remembered.remove(0);
            }
        }
        self.shown = self.remembered.len();
        line
    }

    /// Drops the line that is begun, as a shell does.
    fn clear(&mut self) {
        self.line.clear();
        self.cursor = 0;
        self.shown = self.remembered.len();
    }

    fn recall(&mut self, index: usize) {
        if index == self.shown {
            return;
        }
        if self.shown == self.remembered.len() {
            self.draft = std::mem::take(&mut self.line);
        }
        self.shown = index;
        self.line = match self.remembered.get(index) {
            Some(line) => line.chars().collect(),
            None => std::mem::take(&mut self.draft),
        };
        self.cursor = self.line.len();
    }

    /// The index of the character left of the cursor; its combining marks follow it.
    fn left(&self) -> usize {
        let mut at = self.cursor.saturating_sub(1);
        while at > 0 && belongs_to_the_one_before(&self.line, at) {
            at -= 1;
        }
        at
    }

    fn right(&self) -> usize {
        let mut at = (self.cursor + 1).min(self.line.len());
        while at < self.line.len() && belongs_to_the_one_before(&self.line, at) {
            at += 1;
        }
        at
    }

    fn word_left(&self) -> usize {
        let before = &self.line[..self.cursor];
        let end = before.iter().rposition(|c| !c.is_whitespace());
        let end = end.map_or(0, |last| last + 1);
        let start = before[..end].iter().rposition(|c| c.is_whitespace());
        start.map_or(0, |space| space + 1)
    }

    fn word_right(&self) -> usize {
        let behind = |from: usize, wanted: fn(&char) -> bool| {
            let found = self.line[from..].iter().position(wanted);
            found.map_or(self.line.len(), |index| from + index)
        };
        let start = behind(self.cursor, |c| !c.is_whitespace());
        behind(start, |c| c.is_whitespace())
    }

    /// The part of the line around the cursor that fits into `width` columns. `<` and `>` mark an end
    /// beyond which there is more. The last column is left for the cursor.
    pub(super) fn row(&self, width: usize) -> Row {
        let room = width.saturating_sub(1).max(1);
        let clusters = self.clusters();
        let at = clusters.partition_point(|cluster| cluster.end <= self.cursor);
        // If characters follow the cursor, at least a third of the row is for them.
        let before_room = if at == clusters.len() {
            room
        } else {
            room * 2 / 3
        };
        let all: usize = clusters.iter().map(|cluster| cluster.width).sum();
        let mut first = 0;
        if all > room {
            let mut used = 0;
            first = at;
            while first > 0 && used + clusters[first - 1].width < before_room {
                first -= 1;
                used += clusters[first].width;
            }
        }
        let mut row = Row {
            text: String::new(),
            width: 0,
            cursor: 0,
        };
        row.push(if first > 0 { "<" } else { "" });
        for (index, cluster) in clusters.iter().enumerate().skip(first) {
            if index == at {
                row.cursor = row.width;
            }
            let last = index + 1 == clusters.len();
            if row.width + cluster.width + usize::from(!last) > room {
                row.push(">");
                break;
            }
            row.push(&cluster.text);
        }
        if at == clusters.len() {
            row.cursor = row.width;
        }
        row
    }

    fn clusters(&self) -> Vec<Cluster> {
        let mut clusters: Vec<Cluster> = Vec::new();
        for (index, c) in self.line.iter().copied().enumerate() {
            let c = visible(c);
            match clusters.last_mut() {
                Some(last) if belongs_to_the_one_before(&self.line, index) => {
                    last.text.push(c);
                    last.end = index + 1;
                    last.width = last.text.width();
                }
                _ => clusters.push(Cluster {
                    text: c.to_string(),
                    end: index + 1,
                    width: c.width().unwrap_or(0),
                }),
            }
        }
        clusters
    }
}

impl Row {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.width += text.width();
    }
}

/// A cluster of characters that a reader takes for one.
struct Cluster {
    text: String,
    /// The index of the next cluster's first character.
    end: usize,
    width: usize,
}

/// Whether a character is in one cluster with the character before: marks and joiners have no width, and
/// a joiner joins the next character.
pub(super) fn belongs_to_the_one_before(line: &[char], at: usize) -> bool {
    const JOINER: char = '\u{200d}';
    const SKIN_TONES: std::ops::RangeInclusive<char> = '\u{1f3fb}'..='\u{1f3ff}';
    let c = line[at];
    at > 0
        && !c.is_control()
        && (c.width() == Some(0) || SKIN_TONES.contains(&c) || line[at - 1] == JOINER)
}

/// The character to show. It must not move the cursor or break the row.
fn visible(c: char) -> char {
    match c {
        '\n' => BREAK,
        '\t' => ' ',
        c => shown(c.encode_utf8(&mut [0; 4]))
            .chars()
            .next()
            .unwrap_or(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Editor {
        let mut editor = Editor::default();
        for c in text.chars() {
            assert_eq!(editor.press(Key::Char(c)), Edit::Changed);
        }
        editor
    }

    fn press(editor: &mut Editor, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            assert_eq!(editor.press(key), Edit::Changed);
        }
    }

    /// The whole line, with a bar where the cursor is.
    fn line(editor: &Editor) -> String {
        let (left, right) = editor.line.split_at(editor.cursor);
        left.iter().chain(&['|']).chain(right).collect()
    }

    #[test]
    fn the_keys_of_a_shell_edit_the_line() {
        let mut editor = typed("one two  three");
        press(&mut editor, [Key::WordLeft, Key::WordLeft]);
        assert_eq!(line(&editor), "one |two  three");
        press(&mut editor, [Key::WordRight, Key::Right]);
        assert_eq!(line(&editor), "one two | three");
        press(&mut editor, [Key::DeleteWord, Key::Char('2'), Key::Delete]);
        assert_eq!(line(&editor), "one 2|three");
        press(&mut editor, [Key::Home, Key::Delete, Key::EndOrDelete]);
        assert_eq!(line(&editor), "|e 2three");
        press(&mut editor, [Key::End, Key::Backspace, Key::Left]);
        assert_eq!(line(&editor), "e 2thr|e");
        press(&mut editor, [Key::DeleteToEnd]);
        assert_eq!(line(&editor), "e 2thr|");
        press(&mut editor, [Key::DeleteToStart]);
        assert_eq!(editor.press(Key::EndOrDelete), Edit::End);
    }

    #[test]
    fn sent_lines_are_recalled_and_the_draft_is_kept() {
        let mut editor = typed("one");
        assert_eq!(editor.press(Key::Enter), Edit::Line("one".to_owned()));
        press(&mut editor, "two".chars().map(Key::Char));
        assert_eq!(editor.press(Key::Enter), Edit::Line("two".to_owned()));
        press(&mut editor, "dra".chars().map(Key::Char));
        press(&mut editor, [Key::Up, Key::Up, Key::Up]);
        assert_eq!(line(&editor), "one|");
        press(&mut editor, [Key::Down]);
        assert_eq!(line(&editor), "two|");
        press(&mut editor, [Key::Down, Key::Down]);
        assert_eq!(line(&editor), "dra|");
    }

    #[test]
    fn an_interrupt_clears_the_line_and_then_ends() {
        let mut editor = typed("one");
        assert_eq!(editor.press(Key::Enter), Edit::Line("one".to_owned()));
        press(&mut editor, [Key::Char('d'), Key::Up, Key::Interrupt]);
        assert_eq!(line(&editor), "|");
        press(&mut editor, [Key::Up]);
        assert_eq!(line(&editor), "one|");
        press(&mut editor, [Key::Interrupt, Key::Down]);
        assert_eq!(line(&editor), "|", "the draft is gone as well");
        assert_eq!(editor.press(Key::Interrupt), Edit::Interrupt);
    }

    #[test]
    fn marks_and_joined_emoji_move_with_their_character() {
        let mut editor =
            typed("ae\u{301}\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{1f44d}\u{1f3fd}");
        press(&mut editor, [Key::Backspace]);
        assert_eq!(
            line(&editor),
            "ae\u{301}\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}|"
        );
        press(&mut editor, [Key::Left, Key::Left]);
        assert_eq!(
            line(&editor),
            "a|e\u{301}\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}"
        );
        press(&mut editor, [Key::Delete, Key::Delete]);
        assert_eq!(line(&editor), "a|");
    }

    #[test]
    fn a_long_line_is_scrolled_and_never_wider_than_its_row() {
        let mut editor = typed("0123456789");
        let row = |editor: &Editor| {
            let row = editor.row(8);
            (row.text, row.cursor)
        };
        assert_eq!(row(&editor), ("<456789".to_owned(), 7));
        press(&mut editor, [Key::Home]);
        assert_eq!(row(&editor), ("012345>".to_owned(), 0));
        let wide = "日本語 e\u{301} \u{1f600} text ".repeat(5);
        let mut editor = typed(&wide);
        for _ in 0..=wide.chars().count() {
            for width in 1..40 {
                let row = editor.row(width);
                assert!(
                    row.width <= width.max(2) && row.cursor <= row.width,
                    "{width}: {row:?}"
                );
                assert_eq!(row.width, row.text.width());
            }
            press(&mut editor, [Key::Left]);
        }
    }

    #[test]
    fn a_pasted_text_is_one_line_until_it_is_sent() {
        let mut editor = typed("see: ");
        press(&mut editor, [Key::Paste("a\nb\u{1b}[2J\u{7}\n".to_owned())]);
        assert_eq!(editor.row(40).text, "see: a\u{23ce}b[2J");
        assert_eq!(
            editor.press(Key::Enter),
            Edit::Line("see: a\nb[2J".to_owned())
        );
    }
}
