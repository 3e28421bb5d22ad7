//! Events that go to many members: each is encoded once per encoding, and the frame is shared.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::framing;
use super::stopwatch::Lap;
use crate::message::{MessageId, Revision, UserName};
use crate::protocol::{Encoding, Event, Priority};
use crate::websocket::frame::Frame;

/// One frame for each encoding, made when it is first needed. `None` means that the encoding tells its
/// users nothing of the event.
#[derive(Default)]
struct Frames([OnceLock<Option<Frame>>; Encoding::ALL.len()]);

impl Frames {
    fn get_or_make(
        &self,
        encoding: Encoding,
        make: impl FnOnce() -> Option<Frame>,
    ) -> Option<&Frame> {
        self.0[encoding as usize].get_or_init(make).as_ref()
    }
}

/// One event and its frames.
pub(super) struct Broadcast {
    pub(super) event: Event,
    /// A join or leave goes to the members whose list has a revision in this range.
    pub(super) listed: Range<Revision>,
    /// The id that the room goes on from behind a gap.
    pub(super) until: Option<MessageId>,
    frames: Frames,
    /// Stops the time once the last worker has dropped this.
    _lap: Option<Lap>,
}

impl Broadcast {
    /// An event for all members.
    pub(super) fn new(event: Event) -> Arc<Self> {
        Self::for_listed(event, Revision::ZERO..Revision::ZERO)
    }

    /// A message, which may be timed.
    pub(super) fn timed(event: Event, lap: Option<Lap>) -> Arc<Self> {
        Arc::new(Self {
            event,
            listed: Revision::ZERO..Revision::ZERO,
            until: None,
            frames: Frames::default(),
            _lap: lap,
        })
    }

    /// A gap, behind which the room goes on from `until`.
    pub(super) fn gap(event: Event, until: Option<MessageId>) -> Arc<Self> {
        Arc::new(Self {
            event,
            listed: Revision::ZERO..Revision::ZERO,
            until,
            frames: Frames::default(),
            _lap: None,
        })
    }

    /// A join or leave.
    pub(super) fn for_listed(event: Event, listed: Range<Revision>) -> Arc<Self> {
        Arc::new(Self {
            event,
            listed,
            until: None,
            frames: Frames::default(),
            _lap: None,
        })
    }

    /// Whether it tells that this user joined, left or types.
    pub(super) fn is_about(&self, name: Option<&UserName>) -> bool {
        match &self.event {
            Event::Joined { user, .. } | Event::Left { user, .. } | Event::Typing { user, .. } => {
                Some(user) == name
            }
            _ => false,
        }
    }

    /// The bytes that it has, about.
    pub(super) fn size(&self) -> usize {
        match &self.event {
            Event::Message { message, .. } => message.text.len(),
            _ => 0,
        }
    }

    fn frame(&self, encoding: Encoding) -> Option<&Frame> {
        self.frames
            .get_or_make(encoding, || framing::event(encoding, &self.event))
    }
}

/// Events that are pushed together, all of one priority. Most members want all of them, so the batch
/// has a joint frame for each encoding, and costs one push for each member.
pub(super) struct EventBatch<'a> {
    pub(super) broadcasts: &'a [Arc<Broadcast>],
    joint: Frames,
}

impl<'a> EventBatch<'a> {
    pub(super) fn new(broadcasts: &'a [Arc<Broadcast>]) -> Self {
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
