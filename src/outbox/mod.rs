//! The outbox: what one user still has to be sent.
//!
//! There are two roads to the socket. While nothing waits and the writer is idle, whoever pushes
//! writes at once, without blocking, which spares waking a thread. What does not go at once, and
//! everything behind it, takes the channel and the writer's thread, which coalesces. [`Lane::busy`]
//! tells the roads apart, under the lane's lock: frames never overtake each other. Who pushes faster
//! than they can write is no concern here: the backplane then pushes more at a time.
//!
//! Bounded in bytes; whoever pushes never blocks. Past half of its budget it sheds what is
//! [`Weight::Passing`]; when it is full its owner is a slow consumer, and is given up with 1013
//! rather than waited for. Every outbox ends exactly once, and nothing is accepted afterwards.

use std::net::TcpStream;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use socket2::SockRef;

use crate::frame::{self, Frame};
use crate::lock::lock;
use crate::metrics;
use crate::protocol::{Event, Rendering, Weight};

/// How many bytes the writer takes at once: enough to make one write worth many frames.
const BATCH_BYTES: usize = 64 * 1024;

/// Close codes (RFC 6455 §7.4.1 and the IANA registry).
pub mod code {
    /// Done.
    pub const NORMAL: u16 = 1000;
    /// The peer broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// A kind of data that is not taken here.
    pub const UNSUPPORTED: u16 = 1003;
    /// Text that is not UTF-8.
    pub const INVALID_TEXT: u16 = 1007;
    /// Not allowed, or too fast for too long.
    pub const POLICY: u16 = 1008;
    /// A message over the limit.
    pub const TOO_BIG: u16 = 1009;
    /// The server failed.
    pub const INTERNAL: u16 = 1011;
    /// The server restarts; come back.
    pub const RESTART: u16 = 1012;
    /// Too slow, or too full; come back later.
    pub const TRY_AGAIN_LATER: u16 = 1013;
}

enum Item {
    Frame(Frame),
    /// What is left of a frame that went in part. Without it the peer would take the next frame for
    /// its end, so it is never dropped.
    Rest(Frame),
    /// The last frame; empty when the peer is beyond hearing it.
    Last(Frame),
}

/// The states an outbox goes through, in this order only.
mod state {
    pub(super) const OPEN: u8 = 0;
    /// What is queued still goes out, then the last frame.
    pub(super) const ENDING: u8 = 1;
    /// What is queued is dropped; only the last frame is tried.
    pub(super) const EVICTED: u8 = 2;
}

/// The way through the writer's thread.
struct Lane {
    sender: Sender<Item>,
    /// From the first item until the writer has written all: meanwhile nobody else writes.
    busy: bool,
}

impl Lane {
    /// The queue outlives its outbox only while it is being torn down; then nobody reads.
    fn send(&mut self, item: Item) {
        self.busy = true;
        let _ = self.sender.send(item);
    }
}

/// The pushing side, shared by everyone who has something for this user.
pub struct Outbox {
    rendering: Rendering,
    /// Held while a frame is written at once, so that no other can get in between; it does not block.
    lane: Mutex<Lane>,
    /// For writing at once; without it everything takes the lane.
    socket: Option<Arc<TcpStream>>,
    queued: AtomicUsize,
    budget: usize,
    state: AtomicU8,
    /// Why it ended, for the log.
    why: OnceLock<String>,
    /// Whether somebody waits for room. The flag is the only thing the lock guards.
    wanting_room: Mutex<bool>,
    room: Condvar,
}

/// The writer's side. There is one.
pub struct Queue {
    lane: Receiver<Item>,
    outbox: Arc<Outbox>,
}

/// An outbox that holds at most `budget` bytes, and the queue that empties it. With a `socket`,
/// what goes at once is written there by whoever pushes.
pub fn outbox(
    rendering: Rendering,
    budget: usize,
    socket: Option<Arc<TcpStream>>,
) -> (Arc<Outbox>, Queue) {
    // Unbounded, since a bounded crossbeam channel allocates all its slots up front; the byte
    // budget is the bound.
    let (sender, receiver) = crossbeam_channel::unbounded();
    let outbox = Arc::new(Outbox {
        rendering,
        lane: Mutex::new(Lane {
            sender,
            busy: false,
        }),
        socket,
        queued: AtomicUsize::new(0),
        budget,
        state: AtomicU8::new(state::OPEN),
        why: OnceLock::new(),
        wanting_room: Mutex::new(false),
        room: Condvar::new(),
    });
    let queue = Queue {
        lane: receiver,
        outbox: Arc::clone(&outbox),
    };
    (outbox, queue)
}

impl Outbox {
    /// The rendering that this user speaks.
    pub fn rendering(&self) -> Rendering {
        self.rendering
    }

    /// Renders `event` for this user alone and queues it.
    pub fn send(&self, event: &Event) {
        if let Some(frame) = frame::text(&self.rendering.render(event)) {
            self.push(frame, event.weight());
        }
    }

    /// Writes ready-made frames at once or queues them. Decides here, at the push, what "full" means.
    pub fn push(&self, frame: Frame, weight: Weight) {
        let mut lane = lock(&self.lane);
        // Under the lock: behind the last frame nothing may go.
        if !self.is_open() {
            return;
        }
        if !lane.busy && self.write_at_once(&frame, &mut lane) {
            return;
        }
        let before = self.queued.fetch_add(frame.len(), Ordering::AcqRel);
        let after = before + frame.len();
        let refused = match weight {
            Weight::Passing => after > self.budget / 2,
            // One frame larger than the budget is taken by who has room, or it could never be sent.
            Weight::Essential => after > self.budget && before > self.budget / 2,
        };
        if refused {
            self.queued.fetch_sub(frame.len(), Ordering::AcqRel);
            drop(lane);
            match weight {
                Weight::Essential => self.evict("too slow: the outbox is full"),
                Weight::Passing => metrics::SHED.count(),
            }
            return;
        }
        lane.send(Item::Frame(frame));
    }

    /// True if all of it was written, or the rest is queued; false if nothing was.
    fn write_at_once(&self, frame: &Frame, lane: &mut Lane) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        // An error is the writer's to find, who can end the connection for it.
        let written = SockRef::from(&**socket)
            .send_with_flags(frame, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            .unwrap_or(0);
        match written {
            0 => return false,
            count if count < frame.len() => {
                let rest = &frame[count..];
                self.queued.fetch_add(rest.len(), Ordering::AcqRel);
                lane.send(Item::Rest(rest.into()));
            }
            _ => {}
        }
        true
    }

    /// Waits until less than half of the budget is taken, so that what one user asks for is paced
    /// by how fast they read. Only the connection's own reading thread may wait here; the writer's
    /// deadline bounds the wait. False if the outbox ended meanwhile.
    pub fn wait_for_room(&self) -> bool {
        let mut wanting = lock(&self.wanting_room);
        loop {
            if !self.is_open() {
                return false;
            }
            *wanting = true;
            if self.queued.load(Ordering::Acquire) <= self.budget / 2 {
                *wanting = false;
                return true;
            }
            wanting = self
                .room
                .wait(wanting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wake_who_wants_room(&self) {
        let mut wanting = lock(&self.wanting_room);
        if std::mem::take(&mut *wanting) {
            self.room.notify_all();
        }
    }

    /// How many bytes it holds.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Whether it still accepts frames.
    pub fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == state::OPEN
    }

    /// Whether its owner was given up as a slow consumer.
    pub fn is_evicted(&self) -> bool {
        self.state.load(Ordering::Acquire) == state::EVICTED
    }

    /// Why it ended, once it has.
    pub fn why(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }

    /// Ends the outbox: what is queued goes out, then a close frame. The first end counts.
    pub fn close(&self, code: u16, why: &str) {
        self.end(state::ENDING, frame::close(code, why), why);
    }

    /// Ends the outbox with the close frame that answers the peer's.
    pub fn close_with(&self, frame: Frame) {
        self.end(state::ENDING, frame, "the client said goodbye");
    }

    /// Ends the outbox without a word: the peer is gone.
    pub fn abandon(&self, why: &str) {
        self.end(state::EVICTED, Frame::from([]), why);
    }

    /// Gives its owner up: what is queued is dropped, and a 1013 is tried.
    pub fn evict(&self, why: &str) {
        metrics::SLOW.count();
        let last = frame::close(code::TRY_AGAIN_LATER, why);
        self.end(state::EVICTED, last, why);
    }

    fn end(&self, into: u8, last: Frame, why: &str) {
        let ended =
            self.state
                .compare_exchange(state::OPEN, into, Ordering::AcqRel, Ordering::Acquire);
        if ended.is_ok() {
            let _ = self.why.set(why.to_owned());
            lock(&self.lane).send(Item::Last(last));
            self.wake_who_wants_room();
        }
    }
}

/// What the queue had for the writer.
#[derive(Debug, PartialEq, Eq)]
pub enum Batch {
    /// Bytes to write; more may follow.
    Frames,
    /// Bytes to write, if any, and nothing after them.
    Last,
    /// Nothing until the deadline.
    Idle,
}

impl Queue {
    /// The outbox that this queue empties.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Waits until `deadline` for something to write, and puts all that is waiting (up to about
    /// 64 KiB) behind what `bytes` holds. From then on nobody else writes, until [`Queue::written`].
    pub fn collect(&self, bytes: &mut Vec<u8>, deadline: Instant) -> Batch {
        let batch = self.take(bytes, deadline);
        self.outbox.wake_who_wants_room();
        batch
    }

    /// What was collected is written; if nothing waits by now, others may write at once again.
    pub fn written(&self) {
        let mut lane = lock(&self.outbox.lane);
        lane.busy = !self.lane.is_empty();
    }

    fn take(&self, bytes: &mut Vec<u8>, deadline: Instant) -> Batch {
        let mut item = match self.lane.recv_deadline(deadline) {
            Ok(item) => item,
            Err(RecvTimeoutError::Disconnected) => return Batch::Last,
            Err(RecvTimeoutError::Timeout) => {
                let mut lane = lock(&self.outbox.lane);
                match self.lane.try_recv() {
                    Ok(item) => item,
                    Err(_) => {
                        // The caller may have something of its own to write.
                        lane.busy = true;
                        return Batch::Idle;
                    }
                }
            }
        };
        loop {
            match item {
                Item::Last(frame) => {
                    bytes.extend_from_slice(&frame);
                    return Batch::Last;
                }
                Item::Rest(rest) => {
                    self.outbox.queued.fetch_sub(rest.len(), Ordering::AcqRel);
                    bytes.extend_from_slice(&rest);
                }
                Item::Frame(frame) => {
                    self.outbox.queued.fetch_sub(frame.len(), Ordering::AcqRel);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    fn frame(bytes: usize) -> Frame {
        vec![b'x'; bytes].into()
    }

    #[test]
    fn what_waits_is_taken_at_once_and_in_order() {
        let (outbox, queue) = outbox(Rendering::Text, 1000, None);
        outbox.push(Frame::from(*b"one"), Weight::Essential);
        outbox.push(Frame::from(*b"two"), Weight::Passing);
        let mut bytes = Vec::new();
        assert_eq!(queue.collect(&mut bytes, soon()), Batch::Frames);
        assert_eq!(bytes, b"onetwo");
        assert_eq!(queue.collect(&mut bytes, soon()), Batch::Idle);
    }

    #[test]
    fn past_half_passing_notices_are_shed_and_messages_are_not() {
        let (outbox, queue) = outbox(Rendering::Text, 100, None);
        outbox.push(frame(50), Weight::Essential);
        outbox.push(frame(10), Weight::Passing);
        outbox.push(frame(50), Weight::Essential);
        let mut bytes = Vec::new();
        queue.collect(&mut bytes, soon());
        assert_eq!(bytes.len(), 100);
        assert!(outbox.is_open());
    }

    #[test]
    fn a_full_outbox_drops_its_queue_and_says_1013() {
        let (outbox, queue) = outbox(Rendering::Text, 100, None);
        outbox.push(frame(90), Weight::Essential);
        outbox.push(frame(20), Weight::Essential);
        assert!(outbox.is_evicted());
        outbox.push(frame(1), Weight::Essential);
        let mut bytes = Vec::new();
        assert_eq!(queue.collect(&mut bytes, soon()), Batch::Last);
        assert!(frame::is_close(&bytes));
        assert_eq!(bytes[2..4], code::TRY_AGAIN_LATER.to_be_bytes());
    }

    #[test]
    fn only_the_first_end_counts_and_the_queue_goes_out_before_it() {
        let (outbox, queue) = outbox(Rendering::Text, 100, None);
        outbox.push(frame(3), Weight::Essential);
        outbox.close(code::RESTART, "");
        outbox.evict("late");
        outbox.push(frame(5), Weight::Essential);
        let mut bytes = Vec::new();
        assert_eq!(queue.collect(&mut bytes, soon()), Batch::Last);
        assert_eq!(bytes.len(), 3 + 4);
        assert_eq!(bytes[5..7], code::RESTART.to_be_bytes());
    }
}
