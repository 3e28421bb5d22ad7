//! An event, or several messages, on their way to many: encoded once for each rendering.

use std::sync::{Arc, OnceLock};

use crate::frame::{self, Frame};
use crate::protocol::{Event, Rendering};

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

    pub(super) fn frame(&self, rendering: Rendering) -> Option<&Frame> {
        let cell = match rendering {
            Rendering::Text => &self.text,
            Rendering::Json => &self.json,
        };
        cell.get_or_init(|| frame::text(&rendering.render(&self.event)))
            .as_ref()
    }
}

/// Messages that go to many at once. Most members take all of them, which is one frame for each
/// rendering then, and one push for each member.
pub(super) struct Volley {
    pub(super) broadcasts: Vec<Arc<Broadcast>>,
    text: OnceLock<Frame>,
    json: OnceLock<Frame>,
}

impl Volley {
    pub(super) fn new(events: Vec<Event>) -> Self {
        Self {
            broadcasts: events.into_iter().map(Broadcast::new).collect(),
            text: OnceLock::new(),
            json: OnceLock::new(),
        }
    }

    /// All frames in one.
    pub(super) fn frame(&self, rendering: Rendering) -> &Frame {
        let cell = match rendering {
            Rendering::Text => &self.text,
            Rendering::Json => &self.json,
        };
        cell.get_or_init(|| {
            let frames = self
                .broadcasts
                .iter()
                .filter_map(|one| one.frame(rendering));
            let frames: Vec<&[u8]> = frames.map(AsRef::as_ref).collect();
            frames.concat().into()
        })
    }
}
