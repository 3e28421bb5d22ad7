//! Events on their way to many: encoded once for each encoding.

use std::sync::{Arc, OnceLock};

use crate::protocol::{Encoding, Event, Priority};
use crate::websocket::frame::{self, Frame};

/// An event on its way to many, encoded at first use.
pub(super) struct Broadcast {
    pub(super) event: Event,
    text: OnceLock<Option<Frame>>,
    json: OnceLock<Option<Frame>>,
}

impl Broadcast {
    pub(super) fn new(event: Event) -> Arc<Self> {
        Arc::new(Self {
            event,
            text: OnceLock::new(),
            json: OnceLock::new(),
        })
    }

    pub(super) fn frame(&self, encoding: Encoding) -> Option<&Frame> {
        let cell = match encoding {
            Encoding::Text => &self.text,
            Encoding::Json => &self.json,
        };
        cell.get_or_init(|| frame::text(&encoding.encode(&self.event)))
            .as_ref()
    }
}

/// Events that go to many at once, all of one weight. Most members take all of them, which is one frame
/// for each encoding then, and one push for each member.
pub(super) struct Volley {
    pub(super) broadcasts: Vec<Arc<Broadcast>>,
    text: OnceLock<Option<Frame>>,
    json: OnceLock<Option<Frame>>,
}

impl Volley {
    pub(super) fn new(events: Vec<Event>) -> Self {
        Self {
            broadcasts: events.into_iter().map(Broadcast::new).collect(),
            text: OnceLock::new(),
            json: OnceLock::new(),
        }
    }

    /// What an outbox may do with it. Where there is nothing, it may drop that.
    pub(super) fn priority(&self) -> Priority {
        let first = self.broadcasts.first();
        first.map_or(Priority::Low, |first| first.event.priority())
    }

    /// All of them in one frame; `None` if the encoding has none of them.
    pub(super) fn frame(&self, encoding: Encoding) -> Option<&Frame> {
        let cell = match encoding {
            Encoding::Text => &self.text,
            Encoding::Json => &self.json,
        };
        cell.get_or_init(|| self.frame_without(encoding, &[]))
            .as_ref()
    }

    /// The same without those at some places, in ascending order.
    pub(super) fn frame_without(&self, encoding: Encoding, places: &[usize]) -> Option<Frame> {
        let wanted = self.broadcasts.iter().enumerate();
        let wanted = wanted.filter(|(place, _)| places.binary_search(place).is_err());
        let frames: Vec<&Frame> = wanted.filter_map(|(_, one)| one.frame(encoding)).collect();
        match frames[..] {
            [] => None,
            [one] => Some(Arc::clone(one)),
            _ => {
                let frames: Vec<&[u8]> = frames.into_iter().map(AsRef::as_ref).collect();
                Some(frames.concat().into())
            }
        }
    }
}
