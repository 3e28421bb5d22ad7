//! Frames, and the stamps in the messages.
//!
//! A million deliveries a second leave a microsecond for each, so frames are cut out of the read
//! buffer in place, and a stamp is first looked for where the last one was.

use std::io::Cursor;
use std::str;

use hubbub::websocket::client::{ClientFrame, masked};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::OpCode;

/// The bytes that begin every stamp of a run: letters and digits, which no chat escapes.
const NEEDLE: usize = 10;

/// A message's place in its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) room: usize,
    pub(crate) sequence: u64,
    /// When it was due, in microseconds since the run began.
    pub(crate) due: u64,
}

impl Stamp {
    /// The length of a stamp, and of the shortest message.
    pub(crate) const LENGTH: usize = NEEDLE + 4 + 8 + 10;

    /// The most rooms that a stamp can tell apart.
    pub(crate) const ROOMS: u64 = 0xffff;
}

/// Writes and finds the stamps of one run.
#[derive(Debug)]
pub(crate) struct Stamps {
    needle: String,
    /// Where the last stamp was: the next is most likely there, too.
    hint: usize,
}

impl Stamps {
    pub(crate) fn new(run: u32) -> Self {
        let needle = format!("Qz{run:08x}");
        Self { needle, hint: 0 }
    }

    /// Appends a masked text frame that holds the stamp and is padded to `size` bytes.
    pub(crate) fn write(&self, stamp: Stamp, size: usize, out: &mut Vec<u8>) {
        let needle = &self.needle;
        let (room, sequence, due) = (stamp.room, stamp.sequence, stamp.due);
        let text = format!("{needle}{room:04x}{sequence:08x}{due:010x}");
        out.extend_from_slice(&masked(ClientFrame::Text(&format!("{text:x<size$}"))));
    }

    /// The stamp in a payload, wherever the server put it.
    pub(crate) fn find(&mut self, payload: &[u8]) -> Option<Stamp> {
        let needle = self.needle.as_bytes();
        let here = |at: usize| payload.get(at..at + NEEDLE) == Some(needle);
        if !here(self.hint) {
            self.hint = (0..payload.len()).find(|&at| here(at))?;
        }
        let stamp = payload.get(self.hint + NEEDLE..self.hint + Stamp::LENGTH)?;
        let digits = str::from_utf8(stamp).ok()?;
        Some(Stamp {
            room: usize::from_str_radix(digits.get(..4)?, 16).ok()?,
            sequence: u64::from_str_radix(digits.get(4..12)?, 16).ok()?,
            due: u64::from_str_radix(digits.get(12..)?, 16).ok()?,
        })
    }
}

/// A frame's opcode, its payload, and the bytes behind it.
type Frame<'a> = (OpCode, &'a [u8], &'a [u8]);

/// The first frame in `bytes`, if all of it is there.
pub(crate) fn first_frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, String> {
    let mut cursor = Cursor::new(bytes);
    let header = FrameHeader::parse(&mut cursor).map_err(|error| error.to_string())?;
    let Some((header, length)) = header else {
        return Ok(None);
    };
    if header.mask.is_some() {
        return Err("the server sent a masked frame, which it must not (RFC 6455 §5.1)".to_owned());
    }
    let behind = &bytes[cursor.position() as usize..];
    let split = behind.split_at_checked(length as usize);
    Ok(split.map(|(payload, rest)| (header.opcode, payload, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        room: 99,
        sequence: 0xabcdef,
        due: 12_345_678,
    };

    /// What a server makes of it: unmasked, behind a name.
    fn relayed(stamps: &Stamps, before: &str) -> Vec<u8> {
        let mut sent = Vec::new();
        stamps.write(STAMP, 100, &mut sent);
        let (mask, text) = sent[2..].split_at(4);
        let text = text.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b);
        before.bytes().chain(text).collect()
    }

    #[test]
    fn a_stamp_is_found_wherever_the_server_puts_it() {
        let mut stamps = Stamps::new(7);
        let plain = relayed(&stamps, "");
        assert_eq!(plain.len(), 100);
        for before in ["", "alice: ", r#"{"text":""#, "alice: ", ""] {
            let payload = relayed(&stamps, before);
            assert_eq!(stamps.find(&payload), Some(STAMP), "{before}");
        }
        assert_eq!(Stamps::new(8).find(&plain), None);
        assert_eq!(stamps.find(&plain[..Stamp::LENGTH - 1]), None);
        assert_eq!(stamps.find(b"* bob joined"), None);
    }

    #[test]
    fn a_frame_is_taken_once_all_of_it_is_there() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let bytes = hubbub::websocket::frame::text(&["x".repeat(length)]).expect("a frame");
            let (_, payload, rest) = first_frame(&bytes).expect("not masked").expect("whole");
            assert_eq!((payload.len(), rest), (length, &[][..]));
            for part in [0, 1, 2, bytes.len() - 1] {
                let part = first_frame(&bytes[..part.min(bytes.len() - 1)]);
                assert!(part.expect("not masked").is_none());
            }
        }
        assert!(first_frame(&[0x81, 0x80, 0, 0, 0, 0]).is_err());
    }
}
