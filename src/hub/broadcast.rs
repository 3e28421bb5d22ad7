//! Events that go to many members: each is encoded once per encoding, and the frame is shared.

use std::sync::{Arc, OnceLock};

use crate::protocol::{Encoding, Event, Priority};
use crate::websocket::frame::{self, Frame};

/// One frame for each encoding, made when the first member needs it. `None` means that the encoding
/// tells its users nothing of the event.
#[derive(Default)]
struct Frames {
    text: OnceLock<Option<Frame>>,
    json: OnceLock<Option<Frame>>,
}

impl Frames {
    fn get_or_make(
        &self,
        encoding: Encoding,
        make: impl FnOnce() -> Option<Frame>,
    ) -> Option<&Frame> {
        let cell = match encoding {
            Encoding::Text => &self.text,
            Encoding::Json => &self.json,
        };
        cell.get_or_init(make).as_ref()
    }
}

/// One event and its frames.
pub(super) struct Broadcast {
    pub(super) event: Event,
    frames: Frames,
}

impl Broadcast {
    pub(super) fn new(event: Event) -> Arc<Self> {
        Arc::new(Self {
            event,
            frames: Frames::default(),
        })
    }

    fn frame(&self, encoding: Encoding) -> Option<&Frame> {
        self.frames
            .get_or_make(encoding, || frame::text(&encoding.encode(&self.event)))
    }
}

/// Events that are pushed together, all of one priority. Most members want all of them, so the batch
/// has a joint frame for each encoding, and costs one push for each member.
pub(super) struct EventBatch {
    pub(super) broadcasts: Vec<Arc<Broadcast>>,
    joint: Frames,
}

impl EventBatch {
    pub(super) fn new(broadcasts: Vec<Arc<Broadcast>>) -> Self {
        Self {
            broadcasts,
            joint: Frames::default(),
        }
    }

    /// The priority of all its events. An empty batch has nothing that a client could miss.
    pub(super) fn priority(&self) -> Priority {
        let first = self.broadcasts.first();
        first.map_or(Priority::Low, |first| first.event.priority())
    }

    /// A frame of the events that are not in `unwanted`, a list of indexes in ascending order. `None` if
    /// there are none, or if the encoding does not tell of them.
    pub(super) fn frame(&self, encoding: Encoding, unwanted: &[usize]) -> Option<Frame> {
        if unwanted.is_empty() {
            let joint = self
                .joint
                .get_or_make(encoding, || self.join(encoding, &[]));
            return joint.cloned();
        }
        self.join(encoding, unwanted)
    }

    fn join(&self, encoding: Encoding, unwanted: &[usize]) -> Option<Frame> {
        let wanted = self.broadcasts.iter().enumerate();
        let wanted = wanted.filter(|(index, _)| unwanted.binary_search(index).is_err());
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
