//! What the meter puts on the wire and finds there.
//!
//! A million deliveries a second leave a microsecond for each, so frames are cut out of a read buffer
//! in place, and the stamp in a message is looked for where the last one was.

use std::fmt;

use crate::websocket::client::{ClientFrame, masked};

/// Opcodes of RFC 6455 §5.2.
pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;

/// A run's own number, in front of every stamp: letters and digits, which no chat escapes.
const NEEDLE: usize = 10;

/// A message's place in its run: room, sequence number, and the intended time of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) room: usize,
    pub(super) sequence: u32,
    /// Microseconds since the run began.
    pub(super) at: u64,
}

/// Writes and finds the stamps of one run.
#[derive(Debug)]
pub(super) struct Stamps {
    needle: [u8; NEEDLE],
    /// Where the last stamp was: the next is most likely there, too.
    hint: usize,
}

impl Stamps {
    /// How long a stamp is: the shortest message.
    pub(super) const LENGTH: usize = NEEDLE + 4 + 8 + 10;

    /// The most rooms that a stamp can tell apart.
    pub(super) const ROOMS: usize = 0xffff;

    pub(super) fn new(run: u32) -> Self {
        let mut needle = [0; NEEDLE];
        needle.copy_from_slice(format!("Qz{run:08x}").as_bytes());
        Self { needle, hint: 0 }
    }

    /// Appends a masked text frame that holds the stamp and is padded to `size` bytes.
    pub(super) fn write(&self, stamp: Stamp, size: usize, out: &mut Vec<u8>) {
        let Stamp { room, sequence, at } = stamp;
        let needle = String::from_utf8_lossy(&self.needle);
        let text = format!("{needle}{room:04x}{sequence:08x}{at:010x}");
        out.extend_from_slice(&masked(ClientFrame::Text(&format!("{text:x<size$}"))));
    }

    /// The stamp in a payload, wherever the server put it.
    pub(super) fn find(&mut self, payload: &[u8]) -> Option<Stamp> {
        let here = |at: usize| payload.get(at..at + NEEDLE) == Some(&self.needle[..]);
        if !here(self.hint) {
            self.hint = (0..payload.len()).find(|&at| here(at))?;
        }
        let stamp = payload.get(self.hint + NEEDLE..self.hint + Self::LENGTH)?;
        Some(Stamp {
            room: hex(&stamp[..4])? as usize,
            sequence: hex(&stamp[4..12])? as u32,
            at: hex(&stamp[12..])?,
        })
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

/// One frame of a server's, cut out of what was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut<'a> {
    pub(super) opcode: u8,
    pub(super) payload: &'a [u8],
    /// How long it is, header and all.
    pub(super) length: usize,
}

/// What cannot be taken from a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Masked;

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it sent a masked frame, which a server must not (RFC 6455 §5.1)")
    }
}

/// The first frame in `bytes`, if all of it is there.
pub(super) fn cut(bytes: &[u8]) -> Result<Option<Cut<'_>>, Masked> {
    let &[first, second, ref rest @ ..] = bytes else {
        return Ok(None);
    };
    if second & 0x80 != 0 {
        return Err(Masked);
    }
    let extended = match second {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(digits) = rest.get(..extended) else {
        return Ok(None);
    };
    let length = match extended {
        0 => usize::from(second),
        _ => digits
            .iter()
            .fold(0, |length, &byte| length << 8 | usize::from(byte)),
    };
    let start = 2 + extended;
    let end = start.saturating_add(length);
    Ok(bytes.get(start..end).map(|payload| Cut {
        opcode: first & 0x0f,
        payload,
        length: end,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        room: 99,
        sequence: 0xabcdef,
        at: 12_345_678,
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
        assert_eq!(stamps.find(&plain[..Stamps::LENGTH - 1]), None);
        assert_eq!(stamps.find(b"* bob joined"), None);
    }

    #[test]
    fn frames_of_every_length_are_cut_and_halves_are_waited_for() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let bytes = crate::websocket::frame::text(&["x".repeat(length)]).expect("a frame");
            let whole = cut(&bytes).expect("it is not masked").expect("it is whole");
            assert_eq!((whole.opcode, whole.payload.len()), (TEXT, length));
            assert_eq!(whole.length, bytes.len());
            for part in [0, 1, 2, bytes.len() - 1] {
                assert_eq!(cut(&bytes[..part.min(bytes.len() - 1)]), Ok(None));
            }
        }
        assert_eq!(cut(&[0x81, 0x80, 0, 0, 0, 0]), Err(Masked));
    }
}
