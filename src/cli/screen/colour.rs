//! Colours: the name of a user has the same colour on every screen.

use std::io::{self, IsTerminal};

use clap::ValueEnum;

use crate::cli::times;
use crate::protocol::text::{Line, shown, sign};

/// The choice of `--color`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum ColorChoice {
    // Colours on a terminal, unless NO_COLOR is set. Not a doc comment: clap would print it.
    Auto,
    Always,
    Never,
}

/// The colours of user names, of xterm's 256: readable on a light and on a dark background, and not red,
/// which is for errors.
const USERS: [u8; 8] = [29, 31, 64, 67, 97, 130, 132, 136];
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// Colours lines, if colours are on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    pub(super) fn new(choice: ColorChoice) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            on: match choice {
                ColorChoice::Always => true,
                ColorChoice::Never => false,
                // https://no-color.org
                ColorChoice::Auto => {
                    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
                    io::stdout().is_terminal() && !dumb && !set("NO_COLOR")
                }
            },
        }
    }

    /// The text that is printed for a line, with its control characters replaced. In a message of another
    /// user they are replaced already.
    pub(super) fn line(self, line: &Line) -> String {
        let time = match line {
            Line::Said { at: Some(at), .. } => self.dim(&times::of_day(*at)) + " ",
            Line::Said { at: None, .. } | Line::Notice(_) | Line::Error(_) => String::new(),
        };
        if !self.on {
            return time + &shown(&line.to_string());
        }
        match line {
            Line::Said {
                from,
                looks_like,
                text,
                ..
            } => {
                let colour = USERS[hash(from.as_str()) % USERS.len()];
                let author = shown(&format!("{from}{}", sign(looks_like.as_ref())));
                format!("{time}\x1b[38;5;{colour}m{author}:{PLAIN} {}", shown(text))
            }
            Line::Notice(_) => self.dim(&shown(&line.to_string())),
            Line::Error(_) => format!("{RED}{}{PLAIN}", shown(&line.to_string())),
        }
    }

    pub(super) fn dim(self, text: &str) -> String {
        if self.on {
            format!("{DIM}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }
}

/// FNV-1a. Unlike the standard library's hash, it stays the same on every machine and in every version.
fn hash(name: &str) -> usize {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The low bits of FNV are its weakest.
    (hash >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance, as WCAG 2.1 defines it.
    fn luminance(colour: u8) -> f64 {
        let level = |step: u8| {
            let value = f64::from(if step == 0 { 0 } else { 55 + 40 * step }) / 255.0;
            if value <= 0.04045 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        let colour = colour - 16;
        0.2126 * level(colour / 36) + 0.7152 * level(colour / 6 % 6) + 0.0722 * level(colour % 6)
    }

    #[test]
    fn every_users_colour_can_be_read_on_black_and_on_white() {
        for colour in USERS {
            let on_black = (luminance(colour) + 0.05) / 0.05;
            let on_white = 1.05 / (luminance(colour) + 0.05);
            assert!(
                on_black >= 3.0 && on_white >= 3.0,
                "{colour}: {on_black} {on_white}"
            );
        }
    }

    #[test]
    fn no_escape_sequence_but_our_colours_is_printed() {
        let line = Line::Notice("a\u{1b}[2Jb\rc\u{202e}d\u{9b}2J".to_owned());
        let plain = Paint { on: false }.line(&line);
        assert_eq!(plain, "* a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}2J");
        assert_eq!(
            Paint { on: true }.line(&line),
            format!("{DIM}{plain}{PLAIN}")
        );
    }
}
