//! Long lines on a terminal: broken between words, with the rows behind the first indented.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::editor::belongs_to_the_one_before;

/// A terminal's tab stops are so many columns apart.
const TAB: usize = 8;

/// The line in rows of so many columns, with line breaks between them. Only a word that is wider than a row is broken.
/// Colours take no columns.
pub(super) fn wrap(line: &str, columns: usize, indent: usize) -> String {
    // Half of the row is for the text.
    let indent = if 2 * indent > columns { 0 } else { indent };
    let mut rows = Rows {
        text: String::new(),
        column: 0,
        columns,
        indent,
    };
    let mut rest = line;
    while !rest.is_empty() {
        let word = rest.trim_start_matches([' ', '\t']);
        let spaces = &rest[..rest.len() - word.len()];
        let end = word.find([' ', '\t']).unwrap_or(word.len());
        rows.push(spaces, &word[..end]);
        rest = &word[end..];
    }
    rows.text
}

struct Rows {
    text: String,
    /// The first free column of the last row.
    column: usize,
    columns: usize,
    indent: usize,
}

impl Rows {
    fn push(&mut self, spaces: &str, word: &str) {
        let clusters = clusters(word);
        let width: usize = clusters.iter().map(|(_, width)| width).sum();
        let gap = spaces
            .chars()
            .fold(self.column, |column, space| match space {
                '\t' => (column / TAB + 1) * TAB,
                _ => column + 1,
            });
        let fits = gap + width <= self.columns;
        let fits_below = self.indent + width <= self.columns;
        if fits || (!fits_below && gap < self.columns) {
            self.text
                .extend(std::iter::repeat_n(' ', gap - self.column));
            self.column = gap;
        } else if !word.is_empty() {
            self.begin();
        }
        for (cluster, width) in clusters {
            if self.column + width > self.columns && self.column > self.indent {
                self.begin();
            }
            self.text += &cluster;
            self.column += width;
        }
    }

    fn begin(&mut self) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n(' ', self.indent));
        self.column = self.indent;
    }
}

/// The clusters of a word, each with its width. Each that begins with an escape is one of our colours.
fn clusters(word: &str) -> Vec<(String, usize)> {
    let characters: Vec<char> = word.chars().collect();
    let mut clusters: Vec<(String, usize)> = Vec::new();
    for (at, &c) in characters.iter().enumerate() {
        match clusters.last_mut() {
            Some((colour, 0)) if colour.starts_with('\x1b') && !colour.ends_with('m') => {
                colour.push(c);
            }
            Some((cluster, width)) if *width > 0 && belongs_to_the_one_before(&characters, at) => {
                cluster.push(c);
                *width = cluster.width();
            }
            _ => clusters.push((c.to_string(), c.width().unwrap_or(0))),
        }
    }
    clusters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_whole_and_the_rows_below_are_indented() {
        assert_eq!(wrap("bob: one two three", 12, 2), "bob: one two\n  three");
        assert_eq!(wrap("bob: one two three", 18, 2), "bob: one two three");
        assert_eq!(
            wrap("* /who          who is here", 60, 2),
            "* /who          who is here"
        );
        assert_eq!(wrap("  a  b", 10, 2), "  a  b");
        assert_eq!(wrap("a\tb", 10, 2), "a       b");
        assert_eq!(wrap("", 10, 2), "");
        assert_eq!(wrap("0123456789   ", 10, 2), "0123456789");
    }

    #[test]
    fn a_word_that_is_wider_than_a_row_is_broken() {
        assert_eq!(
            wrap("bob: 0123456789abcdef end", 10, 2),
            "bob: 01234\n  56789abc\n  def end"
        );
        assert_eq!(wrap("abcdef", 3, 2), "abc\ndef", "no room for an indent");
    }

    #[test]
    fn wide_characters_marks_and_colours_are_measured_as_they_are_shown() {
        assert_eq!(wrap("b: 日本語日本語", 9, 2), "b: 日本語\n  日本語");
        assert_eq!(
            wrap("e\u{301}e\u{301} e\u{301}e\u{301}", 5, 2),
            "e\u{301}e\u{301} e\u{301}e\u{301}"
        );
        let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}";
        assert_eq!(
            wrap(&family.repeat(3), 4, 0),
            format!("{}\n{family}", family.repeat(2))
        );
        assert_eq!(
            wrap("\x1b[38;5;130mbob:\x1b[0m hello", 10, 2),
            "\x1b[38;5;130mbob:\x1b[0m hello"
        );
    }

    #[test]
    fn no_row_is_wider_than_the_window() {
        let line = "bob: 日本語 e\u{301}\u{301} \u{1f44d}\u{1f3fd}\u{1f44d}\u{1f3fd} averyveryverylongword a \t b  ".repeat(3);
        for columns in 2..40 {
            for row in wrap(&line, columns, 2).split('\n') {
                assert!(row.width() <= columns, "{columns}: {row:?}");
            }
        }
        // A character that is wider than the window goes on alone.
        assert_eq!(wrap("日本", 1, 2), "日\n本");
    }
}
