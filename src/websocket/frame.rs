//! Ready-made frames: the bytes that a server puts on the wire (RFC 6455 §5).
//!
//! A server's frames are not masked, so the bytes for one event in one encoding are the same for every
//! client. They are made once and shared.

use std::sync::Arc;

/// One or more whole frames, ready to be written.
pub type Frame = Arc<[u8]>;

/// The first byte of a final frame (FIN, and the opcode of RFC 6455 §5.2).
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

/// A control frame's payload is no longer than this (RFC 6455 §5.5).
const MAX_CONTROL_PAYLOAD: usize = 125;

/// Whether `bytes` begin with a close frame.
pub fn is_close(bytes: &[u8]) -> bool {
    bytes.first() == Some(&CLOSE)
}

/// One text frame for each payload; `None` if there is none.
pub fn text(payloads: &[String]) -> Option<Frame> {
    if payloads.is_empty() {
        return None;
    }
    let length: usize = payloads.iter().map(|payload| payload.len() + 10).sum();
    let mut bytes = Vec::with_capacity(length);
    for payload in payloads {
        header(TEXT, payload.len(), &mut bytes);
        bytes.extend_from_slice(payload.as_bytes());
    }
    Some(bytes.into())
}

/// A ping without payload (RFC 6455 §5.5.2).
pub fn ping() -> Frame {
    Arc::new([PING, 0])
}

/// A close frame with a status code (RFC 6455 §5.5.1) and a sentence, which is cut to the length of a
/// control frame.
pub fn close(code: u16, reason: &str) -> Frame {
    let mut end = reason.len().min(MAX_CONTROL_PAYLOAD - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = Vec::with_capacity(4 + end);
    header(CLOSE, 2 + end, &mut bytes);
    bytes.extend_from_slice(&code.to_be_bytes());
    bytes.extend_from_slice(&reason.as_bytes()[..end]);
    bytes.into()
}

fn header(first: u8, length: usize, bytes: &mut Vec<u8>) {
    bytes.push(first);
    match length {
        0..=125 => bytes.push(length as u8),
        126..=0xffff => {
            bytes.push(126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Splits the control frames that tungstenite writes of its own accord into single frames. They are
/// pongs and close frames, never masked on a server, and never longer than 125 bytes.
pub fn split_controls(bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while rest.len() >= 2 {
        let end = (2 + usize::from(rest[1] & 0x7f)).min(rest.len());
        frames.push(rest[..end].into());
        rest = &rest[end..];
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_takes_one_three_or_nine_bytes() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let frame = text(&["x".repeat(length)]).expect("a frame");
            assert_eq!(frame.len(), header + length);
            assert_eq!(frame[0], TEXT);
        }
        assert_eq!(
            text(&["a".to_owned(), "b".to_owned()]).as_deref(),
            Some(&[TEXT, 1, b'a', TEXT, 1, b'b'][..])
        );
        assert_eq!(text(&[]), None);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close(1013, &"é".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
        assert!(is_close(&frame));
    }

    #[test]
    fn a_pong_and_a_close_in_one_write_are_two_frames() {
        let pong = [0x8a, 2, b'h', b'i'];
        let mut both = pong.to_vec();
        both.extend_from_slice(&close(1000, ""));
        let frames = split_controls(&both);
        assert_eq!(frames.len(), 2);
        assert_eq!(&*frames[0], pong);
        assert!(is_close(&frames[1]));
    }
}
