//! KeyParser: reads the bytes of a terminal as keys.
//!
//! A sequence may arrive in pieces, so an unfinished one waits for its rest. Reading cannot fail: unknown
//! sequences are skipped.

/// The longest unfinished sequence that is kept, in bytes. Real ones are shorter.
const MAX_SEQUENCE: usize = 32;

/// The longest paste, in bytes: more than any server accepts as one message.
const MAX_PASTE: usize = 1 << 20;

const PASTE_BEGINS: &[u8] = b"\x1b[200~";
const PASTE_ENDS: &[u8] = b"\x1b[201~";

/// A key, named after its effect in nearly every shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    /// Several characters at once, which may hold line breaks.
    Paste(String),
    Enter,
    Backspace,
    Delete,
    DeleteWord,
    DeleteToStart,
    DeleteToEnd,
    Left,
    Right,
    WordLeft,
    WordRight,
    Home,
    End,
    Up,
    Down,
    Redraw,
    Interrupt,
    /// Ctrl-D: ends the input if the line is empty, and otherwise deletes the character under the cursor.
    EndOrDelete,
    Suspend,
}

/// Reads keys from bytes.
#[derive(Default)]
pub(super) struct KeyParser {
    waiting: Vec<u8>,
    pasting: bool,
}

impl KeyParser {
    /// Adds bytes. Returns the keys that are complete.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.waiting.extend_from_slice(bytes);
        let mut keys = Vec::new();
        while !self.waiting.is_empty() {
            let (key, length) = if self.pasting {
                match self.pasted() {
                    Some((text, length)) => (Some(Key::Paste(text)), length),
                    None => break,
                }
            } else if self.waiting.starts_with(PASTE_BEGINS) {
                self.pasting = true;
                (None, PASTE_BEGINS.len())
            } else {
                match first_key(&self.waiting) {
                    Some(found) => found,
                    None if self.waiting.len() > MAX_SEQUENCE => (None, self.waiting.len()),
                    None => break,
                }
            };
            self.waiting.drain(..length);
            keys.extend(key);
        }
        keys
    }

    /// The pasted text and its length in bytes with the end mark; `None` until the mark arrives.
    fn pasted(&mut self) -> Option<(String, usize)> {
        let end = self
            .waiting
            .windows(PASTE_ENDS.len())
            .position(|window| window == PASTE_ENDS);
        let (end, length) = match end {
            Some(end) => (end, end + PASTE_ENDS.len()),
            // A terminal that never sends the end mark must not fill the memory.
            None if self.waiting.len() > MAX_PASTE => (self.waiting.len(), self.waiting.len()),
            None => return None,
        };
        self.pasting = false;
        let text = String::from_utf8_lossy(&self.waiting[..end]);
        Some((text.replace("\r\n", "\n").replace('\r', "\n"), length))
    }
}

/// The first key and its length in bytes; `None` if more bytes are needed. The key itself is `None` if
/// its bytes are unknown.
fn first_key(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    match bytes[0] {
        0x1b => escape(bytes),
        byte @ (0..=0x1f | 0x7f) => Some((control(byte), 1)),
        first => {
            let length = match first {
                0..=0x7f => 1,
                0xc0..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf7 => 4,
                _ => return Some((None, 1)),
            };
            let bytes = bytes.get(..length)?;
            match std::str::from_utf8(bytes) {
                Ok(text) => Some((text.chars().next().map(Key::Char), length)),
                Err(_) => Some((None, 1)),
            }
        }
    }
}

fn control(byte: u8) -> Option<Key> {
    Some(match byte {
        0x01 => Key::Home,
        0x02 => Key::Left,
        0x03 => Key::Interrupt,
        0x04 => Key::EndOrDelete,
        0x05 => Key::End,
        0x06 => Key::Right,
        0x08 | 0x7f => Key::Backspace,
        b'\r' | b'\n' => Key::Enter,
        0x0b => Key::DeleteToEnd,
        0x0c => Key::Redraw,
        0x0e => Key::Down,
        0x10 => Key::Up,
        0x15 => Key::DeleteToStart,
        0x17 => Key::DeleteWord,
        0x1a => Key::Suspend,
        _ => return None,
    })
}

/// A key that begins with an escape character: `ESC [ … letter`, `ESC O letter`, or a key with Alt.
fn escape(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    match *bytes.get(1)? {
        b'[' => {
            let end = bytes[2..]
                .iter()
                .position(|byte| (0x40..=0x7e).contains(byte))?
                + 2;
            let parameters = std::str::from_utf8(&bytes[2..end]).unwrap_or_default();
            Some((sequence(parameters, bytes[end]), end + 1))
        }
        b'O' => Some((sequence("", *bytes.get(2)?), 3)),
        b'b' => Some((Some(Key::WordLeft), 2)),
        b'f' => Some((Some(Key::WordRight), 2)),
        0x08 | 0x7f => Some((Some(Key::DeleteWord), 2)),
        // The escape key alone has no effect. The bytes after it are read as other keys.
        _ => Some((None, 1)),
    }
}

/// A sequence of xterm: `1;5` before the letter is Ctrl, `1;3` is Alt.
fn sequence(parameters: &str, last: u8) -> Option<Key> {
    let by_word = matches!(parameters, "1;5" | "1;3" | "5" | "3");
    Some(match (last, parameters) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', _) if by_word => Key::WordRight,
        (b'D', _) if by_word => Key::WordLeft,
        (b'C', _) => Key::Right,
        (b'D', _) => Key::Left,
        (b'H', _) | (b'~', "1" | "7") => Key::Home,
        (b'F', _) | (b'~', "4" | "8") => Key::End,
        (b'~', "3") => Key::Delete,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_pieces_of_any_size() {
        let bytes =
            "aé\u{1b}[A\u{1b}OD\u{1b}[1;5C\u{1b}[3~\u{1b}[200~x\r\ny\u{3}\u{1b}[201~日\r\u{3}";
        let expected = [
            Key::Char('a'),
            Key::Char('é'),
            Key::Up,
            Key::Left,
            Key::WordRight,
            Key::Delete,
            Key::Paste("x\ny\u{3}".to_owned()),
            Key::Char('日'),
            Key::Enter,
            Key::Interrupt,
        ];
        for size in 1..=bytes.len() {
            let mut keys = KeyParser::default();
            let read = bytes.as_bytes().chunks(size);
            let read: Vec<_> = read.flat_map(|chunk| keys.read(chunk)).collect();
            assert_eq!(read, expected, "{size} bytes at a time");
        }
    }

    #[test]
    fn unknown_sequences_are_skipped() {
        let read = |bytes: &[u8]| KeyParser::default().read(bytes);
        assert_eq!(
            read(b"\xffa\xc3(b"),
            [Key::Char('a'), Key::Char('('), Key::Char('b')]
        );
        assert_eq!(read(b"\x1b[99;99Xa"), [Key::Char('a')]);
        assert_eq!(read(b"\x1b\x1b[Aa"), [Key::Up, Key::Char('a')]);
        let mut keys = KeyParser::default();
        assert_eq!(
            keys.read(format!("\u{1b}[{}", "1".repeat(100)).as_bytes()),
            []
        );
        assert_eq!(
            keys.read(b"a"),
            [Key::Char('a')],
            "and nothing waits for ever"
        );
    }
}
