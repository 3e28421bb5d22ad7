//! The lane: the queue to the writer's thread, for frames that cannot be written at once.
//!
//! The writer's thread is started for the first frame that is queued, and ends when nothing was queued
//! for a while. Most users never need it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::Outbox;
use crate::threads::lock;
use crate::websocket::frame::Frame;

/// The writer collects frames up to about so many bytes, to write many of them with one call.
const COLLECTED_BYTES: usize = 64 * 1024;

/// Starts the thread that empties the queue; false if no thread is left for it. The outbox calls it
/// under the lane's lock: other threads that push have to wait for that writer anyway.
pub type StartWriter = Box<dyn FnOnce() -> bool + Send>;

/// A frame, or a part of one, on its way to the writer.
pub(super) enum Unsent {
    /// A whole frame. It is dropped if the outbox discards its queue.
    Frame(Frame),
    /// The rest of a frame that was written in part, as it is on the wire. It is never dropped: the peer would take
    /// the next frame for the rest.
    Rest(Frame),
    /// The last frame; empty if the peer is gone or has it already.
    Last(Frame),
}

impl Unsent {
    /// The bytes that it takes of the budget. The last frame takes none, so it always fits.
    pub(super) fn budgeted_bytes(&self) -> usize {
        match self {
            Self::Frame(frame) | Self::Rest(frame) => frame.len(),
            Self::Last(_) => 0,
        }
    }
}

/// The pushing end of the lane.
pub(super) struct Lane {
    sender: Sender<Unsent>,
    /// Starts the writer; `None` while it runs.
    pub(super) start: Option<StartWriter>,
    /// True from the first queued frame until the writer has written all. Meanwhile only the writer
    /// writes to the socket.
    pub(super) busy: bool,
    /// The bytes that the reader has to write, since no writer could be started.
    pub(super) unsaid: Option<Frame>,
}

impl Lane {
    /// Both ends of an empty lane.
    pub(super) fn new() -> (Self, Receiver<Unsent>) {
        // Unbounded, since a bounded crossbeam channel allocates all its slots up front. The outbox's
        // budget is the bound.
        let (sender, receiver) = crossbeam_channel::unbounded();
        let lane = Self {
            sender,
            start: None,
            busy: false,
            unsaid: None,
        };
        (lane, receiver)
    }

    /// Queues a frame.
    pub(super) fn send(&mut self, outgoing: Unsent) {
        self.busy = true;
        // This fails only if the queue was dropped before the outbox, as when a connection ends. Then
        // nobody reads.
        let _ = self.sender.send(outgoing);
    }
}

/// The writer's end of the lane. There is one.
pub struct Queue {
    receiver: Receiver<Unsent>,
    outbox: Arc<Outbox>,
}

/// Tells the writer whether more can follow the bytes that it collected.
#[derive(Debug, PartialEq, Eq)]
pub enum Collected {
    /// More may follow.
    More,
    /// These bytes, if any, are the last.
    Last,
}

impl Queue {
    pub(super) fn new(receiver: Receiver<Unsent>, outbox: Arc<Outbox>) -> Self {
        Self { receiver, outbox }
    }

    /// The outbox that this queue empties.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// The number of pushes that wait.
    #[cfg(test)]
    pub(crate) fn length(&self) -> usize {
        self.receiver.len()
    }

    /// Waits until a frame is queued, and appends all queued frames (up to about 64 KiB) to `bytes`, as they are on
    /// the wire.
    /// Only the caller writes to the socket from then on, until [`Queue::written`]. `None` if no frame
    /// was queued until the deadline.
    pub fn collect_by(&self, deadline: Instant, bytes: &mut Vec<u8>) -> Option<Collected> {
        match self.receiver.recv_deadline(deadline) {
            Ok(first) => Some(self.take(first, bytes)),
            Err(RecvTimeoutError::Disconnected) => Some(Collected::Last),
            Err(RecvTimeoutError::Timeout) => None,
        }
    }

    /// Says that the collected bytes are written. If no frame was queued meanwhile, threads that push
    /// may write to the socket themselves again.
    pub fn written(&self) {
        let mut lane = lock(&self.outbox.lane);
        lane.busy = !self.receiver.is_empty();
    }

    /// Ends the writer, unless a frame is queued: then the queue is returned. The closure that `starter`
    /// makes starts the next writer. Both happen under the lane's lock, so there is never a second writer,
    /// and never a frame without one.
    pub fn rest(self, starter: impl FnOnce(Self) -> StartWriter) -> Option<Self> {
        let outbox = Arc::clone(&self.outbox);
        let mut lane = lock(&outbox.lane);
        if !self.receiver.is_empty() {
            return Some(self);
        }
        lane.start = Some(starter(self));
        None
    }

    fn take(&self, first: Unsent, bytes: &mut Vec<u8>) -> Collected {
        let collected = self.take_all(first, bytes);
        self.outbox.wake_reader();
        collected
    }

    fn take_all(&self, first: Unsent, bytes: &mut Vec<u8>) -> Collected {
        let mut outgoing = first;
        loop {
            let taken = outgoing.budgeted_bytes();
            self.outbox.queued_bytes.fetch_sub(taken, Ordering::AcqRel);
            match outgoing {
                Unsent::Last(frame) => {
                    bytes.extend_from_slice(&self.outbox.sealed_last(&frame));
                    return Collected::Last;
                }
                Unsent::Rest(rest) => bytes.extend_from_slice(&rest),
                Unsent::Frame(frame) => {
                    if !self.outbox.is_discarding() {
                        bytes.extend_from_slice(&self.outbox.sealed(&frame));
                    }
                }
            }
            if bytes.len() >= COLLECTED_BYTES {
                return Collected::More;
            }
            match self.receiver.try_recv() {
                Ok(next) => outgoing = next,
                // There may be no bytes yet if the outbox discards its queue; the last frame follows.
                Err(_) => return Collected::More,
            }
        }
    }
}
