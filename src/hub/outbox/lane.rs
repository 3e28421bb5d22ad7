//! The lane: the way through the writer's thread, for what cannot be written at once.
//!
//! It has a writer from the first item on: most users never keep anything waiting, and are spared
//! the thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvError, RecvTimeoutError, Sender};

use super::Outbox;
use crate::threads::lock;
use crate::websocket::frame::Frame;

/// How many bytes the writer takes at once: enough to make one write worth many frames.
const BATCH_BYTES: usize = 64 * 1024;

/// Starts the thread that empties the queue. It is called once at most, under the lane's lock,
/// which it may hold for as long as a thread takes to start: whoever pushes meanwhile has to wait
/// for that writer anyway.
pub type StartWriter = Box<dyn FnOnce() -> io::Result<()> + Send>;

pub(super) enum Item {
    Frame(Frame),
    /// What is left of a frame that went in part. Without it the peer would take the next frame for
    /// its end, so it is never dropped.
    Rest(Frame),
    /// The last frame; empty when the peer is beyond hearing it.
    Last(Frame),
}

impl Item {
    /// How many bytes of the budget it takes. The last frame takes none: there is always room for it.
    pub(super) fn weighs(&self) -> usize {
        match self {
            Self::Frame(frame) | Self::Rest(frame) => frame.len(),
            Self::Last(_) => 0,
        }
    }
}

/// The pushing end of the lane.
pub(super) struct Lane {
    sender: Sender<Item>,
    /// What starts the writer, until there is one.
    pub(super) start: Option<StartWriter>,
    /// From the first item until the writer has written all: meanwhile nobody else writes.
    pub(super) busy: bool,
}

impl Lane {
    /// One that nobody empties yet, and the end that is emptied.
    pub(super) fn new() -> (Self, Receiver<Item>) {
        // Unbounded, since a bounded crossbeam channel allocates all its slots up front; the byte
        // budget is the bound.
        let (sender, receiver) = crossbeam_channel::unbounded();
        let lane = Self {
            sender,
            start: None,
            busy: false,
        };
        (lane, receiver)
    }

    /// Hands an item to the writer, who is started for the first. An error means that there is no
    /// thread for it, and never will be.
    pub(super) fn send(&mut self, item: Item) -> io::Result<()> {
        self.busy = true;
        // The queue outlives its outbox only while it is being torn down; then nobody reads.
        let _ = self.sender.send(item);
        self.start.take().map_or(Ok(()), |start| start())
    }
}

/// The writer's side. There is one.
pub struct Queue {
    lane: Receiver<Item>,
    outbox: Arc<Outbox>,
}

/// What the queue had for the writer.
#[derive(Debug, PartialEq, Eq)]
pub enum Batch {
    /// Bytes to write; more may follow.
    Frames,
    /// Bytes to write, if any, and nothing after them.
    Last,
}

impl Queue {
    pub(super) fn new(lane: Receiver<Item>, outbox: Arc<Outbox>) -> Self {
        Self { lane, outbox }
    }

    /// The outbox that this queue empties.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// How many pushes wait.
    #[cfg(test)]
    pub(crate) fn length(&self) -> usize {
        self.lane.len()
    }

    /// Waits for something to write, and puts all that is waiting (up to about 64 KiB) behind what
    /// `bytes` holds. From then on nobody else writes, until [`Queue::written`].
    pub fn collect(&self, bytes: &mut Vec<u8>) -> Batch {
        match self.lane.recv() {
            Ok(item) => self.take(item, bytes),
            Err(RecvError) => Batch::Last,
        }
    }

    /// The same for those who cannot wait for ever; `None` if there was nothing until `deadline`.
    pub fn collect_by(&self, deadline: Instant, bytes: &mut Vec<u8>) -> Option<Batch> {
        match self.lane.recv_deadline(deadline) {
            Ok(item) => Some(self.take(item, bytes)),
            Err(RecvTimeoutError::Disconnected) => Some(Batch::Last),
            Err(RecvTimeoutError::Timeout) => None,
        }
    }

    /// What was collected is written; if nothing waits by now, others may write at once again.
    pub fn written(&self) {
        let mut lane = lock(&self.outbox.lane);
        lane.busy = !self.lane.is_empty();
    }

    fn take(&self, first: Item, bytes: &mut Vec<u8>) -> Batch {
        let batch = self.take_all(first, bytes);
        self.outbox.wake_who_wants_room();
        batch
    }

    fn take_all(&self, first: Item, bytes: &mut Vec<u8>) -> Batch {
        let mut item = first;
        loop {
            self.outbox
                .queued
                .fetch_sub(item.weighs(), Ordering::AcqRel);
            match item {
                Item::Last(frame) => {
                    bytes.extend_from_slice(&frame);
                    return Batch::Last;
                }
                Item::Rest(rest) => bytes.extend_from_slice(&rest),
                Item::Frame(frame) => {
                    if !self.outbox.is_evicted() {
                        bytes.extend_from_slice(&frame);
                    }
                }
            }
            if bytes.len() >= BATCH_BYTES {
                return Batch::Frames;
            }
            match self.lane.try_recv() {
                Ok(next) => item = next,
                // After an eviction there may be nothing to write yet, but a last frame follows.
                Err(_) => return Batch::Frames,
            }
        }
    }
}
