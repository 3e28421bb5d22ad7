//! Reading a room's log within a bound of bytes. Sessions and the HTTP API both read it this way.
//!
//! Messages may be large, and many clients may ask at the same time. So a read fetches a few entries
//! first, learns their average size, and then fetches as many as should still fit.

use super::state::State;
use crate::backplane::{Backplane, BackplaneError, Excerpt};
use crate::message::{Entry, Message, RoomName};
use crate::protocol::{Cursor, Encoding};

/// The most messages in one page of history.
pub const PAGE_MOST: usize = 200;

/// The number of messages in a page when the request names no limit.
pub const PAGE_DEFAULT: usize = 50;

/// The number of entries to read at once while their size is not known.
pub(super) const PIECE: usize = 32;

/// Reads up to `limit` messages of a log, and no more than fit into `bytes` when they are encoded, but
/// at least one. Each piece begins where the last one ended, so the loop ends with the log. It ends
/// earlier, with [`BackplaneError::Unavailable`], once `is_over` returns true. `first` is the first piece,
/// up to [`PIECE`] entries of the page, if it was read already.
pub fn read_page(
    backplane: &dyn Backplane,
    encoding: Encoding,
    room: &RoomName,
    (page, limit): (Cursor, usize),
    bytes: usize,
    mut first: Option<Excerpt>,
    is_over: impl Fn() -> bool,
) -> Result<Excerpt, BackplaneError> {
    let forwards = matches!(page, Cursor::After(_));
    // In reading order: newest first, unless the page is read forwards.
    let mut entries: Vec<Entry> = Vec::new();
    let mut size: usize = 0;
    let mut next = page;
    let mut more = true;
    let mut reach = None;
    'pieces: while more && entries.len() < limit {
        if is_over() {
            return Err(BackplaneError::Unavailable);
        }
        let count = match size.checked_div(entries.len()) {
            // The pieces so far held no message.
            None if reach.is_some() => PAGE_MOST,
            None => PIECE.min(limit),
            Some(average) => {
                let fit = bytes.saturating_sub(size) / average.max(1);
                fit.max(PIECE).min(limit - entries.len())
            }
        };
        let mut piece = match first.take() {
            Some(first) => first,
            None => backplane.read(room, next, count)?,
        };
        let Some(end) = piece.reach else {
            more = false;
            break;
        };
        more = piece.more;
        if !forwards {
            piece.entries.reverse();
        }
        for entry in piece.entries {
            let entry_size = encoding.estimated_bytes(&entry.message);
            if entries.len() == limit || (!entries.is_empty() && size + entry_size > bytes) {
                more = true;
                break 'pieces;
            }
            size += entry_size;
            reach = Some(entry.message.id);
            entries.push(entry);
        }
        reach = Some(end);
        next = if forwards {
            Cursor::After(end)
        } else {
            Cursor::Before(end)
        };
    }
    if !forwards {
        entries.reverse();
    }
    Ok(Excerpt {
        entries,
        more,
        reach,
    })
}

/// The messages of some entries, without their chain, and without the text of those that are deleted.
pub fn messages(state: &State, room: &RoomName, entries: Vec<Entry>) -> Vec<Message> {
    let messages = entries.into_iter().map(|mut entry| {
        state.conceal(room, &mut entry.message);
        entry.message
    });
    messages.collect()
}
