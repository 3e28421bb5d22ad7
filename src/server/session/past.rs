//! The past: what a joining member missed or asks for, and pages of the log. All of it is read as
//! fast as the user reads, and in pieces, since messages may be large and a crowd may come at once.

use super::Session;
use crate::backplane::{Backplane, BackplaneError, Excerpt, continues};
use crate::message::{Entry, Message, MessageId, RoomName};
use crate::protocol::{Cursor, Encoding, Event, Priority};
use crate::websocket::code;
use crate::websocket::frame;

/// The most messages in one page of history.
pub const PAGE_MOST: usize = 200;

/// How many there are without a limit.
pub const PAGE_DEFAULT: usize = 50;

/// How many entries of a log are read at once while their size is not known.
const PIECE: usize = 32;

/// The most messages in the frame with which a room begins.
const FIRST_FRAME: usize = 1000;

impl Session {
    pub(super) fn history(&self, room: &RoomName, page: Cursor, limit: usize) {
        let bytes = self.outbox.budget() / 2;
        match self.gather(room, (page, limit.min(PAGE_MOST)), bytes) {
            Ok(excerpt) => self.answer(&Event::History {
                room: room.clone(),
                messages: messages(excerpt.entries),
                more: excerpt.more,
            }),
            Err(error) => self.cannot("cannot read the history", room, &error),
        }
    }

    fn gather(
        &self,
        room: &RoomName,
        which: (Cursor, usize),
        bytes: usize,
    ) -> Result<Excerpt, BackplaneError> {
        let backplane = &*self.instance.backplane;
        let encoding = self.outbox.encoding();
        let is_over = || !self.outbox.is_open() || self.instance.is_closing();
        gather(backplane, encoding, room, which, bytes, is_over)
    }

    /// Sends the room with its past to a connection that the hub has admitted, and releases it.
    pub(super) fn read_past(
        &self,
        room: &RoomName,
        since: Option<MessageId>,
        history: Option<usize>,
    ) -> Result<(), BackplaneError> {
        let backplane = &self.instance.backplane;
        let first_frame = self.outbox.budget() / 4;
        let tail = backplane.tail(room)?;
        let (past, recovered) = match (since, history) {
            (Some(since), _) => {
                let missed = self.gather(room, (Cursor::After(since), FIRST_FRAME), first_frame)?;
                let recovered = continues(since, &missed.entries, tail);
                (missed, recovered)
            }
            (None, Some(limit)) => {
                let limit = limit.min(PAGE_MOST);
                let newest = self.gather(room, (Cursor::Newest, limit), first_frame)?;
                (
                    Excerpt {
                        more: false,
                        ..newest
                    },
                    false,
                )
            }
            (None, None) => (Excerpt::default(), false),
        };
        // The client's past is of another process, of which this one knows nothing.
        let anew = !recovered
            && since.is_some_and(|id| id != MessageId::ZERO && backplane.began_after(id));
        let members = backplane.members(room)?;
        let more = past.more;
        let last = past
            .entries
            .last()
            .map_or(tail, |entry| Some(entry.message.id));
        let event = Event::Room {
            room: room.clone(),
            members: members.clone(),
            messages: messages(past.entries),
            recovered,
            anew,
            last,
        };
        let encoding = self.outbox.encoding();
        let mut first = Vec::new();
        if since.is_some() && !recovered && !anew && encoding == Encoding::Text {
            first.extend(encoding.encode(&Event::Gap {
                room: room.clone(),
                after: since,
                before: None,
            }));
        }
        first.extend(encoding.encode(&event));
        let first = frame::text(&first);
        let hub = &self.instance.hub;
        if !more {
            hub.release(room, self.connection, last, &members, first);
            return Ok(());
        }
        if let Some(first) = first {
            self.outbox.push(first, Priority::High);
        }
        match self.read_on(room, last.unwrap_or(MessageId::ZERO)) {
            Ok(last) => hub.release(room, self.connection, Some(last), &members, None),
            // The client takes itself for a member already. It has to come back and resume.
            Err(error) => self.outbox.close(
                code::TRY_AGAIN_LATER,
                &format!("the past cannot be read on: {error}"),
            ),
        }
        Ok(())
    }

    /// Sends what follows `last` and did not fit one frame, as single messages, as fast as the client
    /// reads, while what is said meanwhile is held back. Ends with the log, or with the connection. The
    /// last id that was sent.
    fn read_on(&self, room: &RoomName, mut last: MessageId) -> Result<MessageId, BackplaneError> {
        let mut cursor = last;
        while self.outbox.is_open() {
            let page = Cursor::After(cursor);
            let piece = self.instance.backplane.read(room, page, PIECE)?;
            for entry in piece.entries {
                let id = entry.message.id;
                if entry.prev != Some(last) {
                    // Trimmed while it was being read.
                    self.answer(&Event::Gap {
                        room: room.clone(),
                        after: Some(last),
                        before: Some(id),
                    });
                }
                last = id;
                self.answer(&Event::Message {
                    room: room.clone(),
                    message: entry.message,
                    via: None,
                });
            }
            match piece.reach {
                Some(reach) if piece.more => cursor = reach,
                _ => break,
            }
        }
        Ok(last)
    }
}

/// Reads up to `limit` messages of a log, as many as `bytes` take when they are rendered, but at least
/// one. They may be large, and a crowd may ask at once: so a few first, and then as many as should
/// still fit. Each piece begins where the last one ended, so this ends with the log; and before that
/// once `is_over`, with [`BackplaneError::Unavailable`].
pub fn gather(
    backplane: &dyn Backplane,
    encoding: Encoding,
    room: &RoomName,
    (page, limit): (Cursor, usize),
    bytes: usize,
    is_over: impl Fn() -> bool,
) -> Result<Excerpt, BackplaneError> {
    // From where the page was asked for, outwards.
    let mut entries: Vec<Entry> = Vec::new();
    let mut weight: usize = 0;
    let mut next = page;
    let mut more = true;
    let mut reach = None;
    'pieces: while more && entries.len() < limit {
        if is_over() {
            return Err(BackplaneError::Unavailable);
        }
        let piece = match weight.checked_div(entries.len()) {
            // What was read before holds no message.
            None if reach.is_some() => PAGE_MOST,
            None => PIECE.min(limit),
            Some(average) => {
                let fit = bytes.saturating_sub(weight) / average.max(1);
                fit.max(PIECE).min(limit - entries.len())
            }
        };
        let piece = backplane.read(room, next, piece)?;
        let Some(end) = piece.reach else {
            more = false;
            break;
        };
        more = piece.more;
        let mut piece = piece.entries;
        if !matches!(page, Cursor::After(_)) {
            piece.reverse();
        }
        for entry in piece {
            let size = encoding.estimated_bytes(&entry.message);
            if entries.len() == limit || (!entries.is_empty() && weight + size > bytes) {
                more = true;
                break 'pieces;
            }
            weight += size;
            reach = Some(entry.message.id);
            entries.push(entry);
        }
        reach = Some(end);
        next = match page {
            Cursor::After(_) => Cursor::After(end),
            Cursor::Newest | Cursor::Before(_) => Cursor::Before(end),
        };
    }
    if !matches!(page, Cursor::After(_)) {
        entries.reverse();
    }
    Ok(Excerpt {
        entries,
        more,
        reach,
    })
}

/// What was said, without how it is chained.
pub fn messages(entries: Vec<Entry>) -> Vec<Message> {
    entries.into_iter().map(|entry| entry.message).collect()
}
