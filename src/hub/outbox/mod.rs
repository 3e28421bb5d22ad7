//! The outbox: what one user still has to be sent.
//!
//! There are two roads to the socket. While nothing waits, whoever pushes writes at once, without
//! blocking, which spares waking a thread. What does not go at once, and everything behind it, takes
//! the [`lane`]: the channel and the writer's thread, which coalesces. [`Lane::busy`] tells the roads
//! apart, under the lane's lock: frames never overtake each other. The writer is started when
//! something first has to wait. Who pushes faster than they can write is no concern here: the
//! backplane then pushes more at a time.
//!
//! Bounded in bytes; whoever pushes never blocks. Past half of its budget it sheds what is
//! [`Priority::Low`]; when it is full its owner is a slow consumer, and is given up with 1013
//! rather than waited for. Every outbox ends exactly once, and nothing is accepted afterwards.

mod lane;

use std::io::ErrorKind;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use log::error;
use socket2::SockRef;

pub use self::lane::{Batch, Queue, StartWriter};
use self::lane::{Item, Lane};
use crate::metrics;
use crate::protocol::{Encoding, Event, Priority};
use crate::threads::lock;
use crate::websocket::code;
use crate::websocket::frame::{self, Frame};

/// The states an outbox goes through, in this order only.
mod state {
    pub(super) const OPEN: u8 = 0;
    /// What is queued still goes out, then the last frame.
    pub(super) const ENDING: u8 = 1;
    /// What is queued is dropped; only the last frame is tried.
    pub(super) const EVICTED: u8 = 2;
}

/// Who ends the connection once the last frame is said, if nothing had to wait until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The reader, who is about to.
    Reader,
    /// The writer, who is started for it: it waits for the peer's answer and then frees the reader.
    Writer,
}

/// What became of a frame that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It is written, or will be.
    Taken,
    /// It is dropped, as the client has fallen behind and can do without.
    Shed,
    /// It is dropped, as the outbox has ended, perhaps for being too full for this.
    Ended,
}

/// The pushing side, shared by everyone who has something for this user.
pub struct Outbox {
    encoding: Encoding,
    /// Held while a frame is written at once, so that no other can get in between; it does not block.
    lane: Mutex<Lane>,
    /// For writing at once; without it everything takes the lane.
    socket: Option<Arc<TcpStream>>,
    queued: AtomicUsize,
    budget: usize,
    state: AtomicU8,
    /// Why it ended, for the log.
    why: OnceLock<String>,
    /// Whether the reading thread waits, for room or for a while. The flag is the only thing the lock
    /// guards.
    wanting_room: Mutex<bool>,
    room: Condvar,
}

/// An outbox that holds at most `budget` bytes, and the queue that empties it. With a `socket`,
/// what goes at once is written there by whoever pushes.
pub fn outbox(
    encoding: Encoding,
    budget: usize,
    socket: Option<Arc<TcpStream>>,
) -> (Arc<Outbox>, Queue) {
    let (lane, receiver) = Lane::new();
    let outbox = Arc::new(Outbox {
        encoding,
        lane: Mutex::new(lane),
        socket,
        queued: AtomicUsize::new(0),
        budget,
        state: AtomicU8::new(state::OPEN),
        why: OnceLock::new(),
        wanting_room: Mutex::new(false),
        room: Condvar::new(),
    });
    let queue = Queue::new(receiver, Arc::clone(&outbox));
    (outbox, queue)
}

impl Outbox {
    /// The encoding that this user speaks.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// What starts the writer when something first has to wait. Until the outbox ends it may hold the
    /// queue, and so this outbox itself. Without it, the queue has its writer already.
    pub fn start_writer_with(&self, start: StartWriter) {
        lock(&self.lane).start = Some(start);
    }

    /// Renders `event` for this user alone and queues it.
    pub fn send(&self, event: &Event) {
        if let Some(frame) = frame::text(&self.encoding.encode(event)) {
            self.push(frame, event.priority());
        }
    }

    /// Writes ready-made frames at once or queues them. Decides here, at the push, what "full" means.
    pub fn push(&self, frame: Frame, priority: Priority) -> Pushed {
        let mut lane = lock(&self.lane);
        // Under the lock: behind the last frame nothing may go.
        if !self.is_open() {
            return Pushed::Ended;
        }
        if !lane.busy && self.write_at_once(&frame, &mut lane) {
            return Pushed::Taken;
        }
        // It can only shrink meanwhile: whatever is queued is so under the lock.
        let before = self.queued.load(Ordering::Acquire);
        let after = before + frame.len();
        let refused = match priority {
            Priority::Low => after > self.budget / 2,
            // One frame larger than the budget is taken by who has room, or it could never be sent.
            Priority::High => after > self.budget && before > self.budget / 2,
        };
        match priority {
            _ if !refused => {
                self.queue(&mut lane, Item::Frame(frame));
                Pushed::Taken
            }
            Priority::Low => Pushed::Shed,
            Priority::High => {
                drop(lane);
                self.evict("too slow: the outbox is full");
                Pushed::Ended
            }
        }
    }

    /// Pings the peer (RFC 6455 §5.5.2). False if it is not: then something waits for it, or does from
    /// now on, and the writer's deadline tells whether the peer is there.
    pub fn ping(&self) -> bool {
        let mut lane = lock(&self.lane);
        if !self.is_open() || lane.busy {
            return false;
        }
        let ping = frame::ping();
        let pinged = self.write_at_once(&ping, &mut lane);
        if !pinged {
            self.queue(&mut lane, Item::Frame(ping));
        }
        pinged
    }

    fn queue(&self, lane: &mut Lane, item: Item) {
        self.queued.fetch_add(item.weighs(), Ordering::AcqRel);
        if let Err(error) = lane.send(item) {
            // What waits would wait for ever.
            error!("no thread to write with: {error}");
            self.break_off(lane, "no thread to write with");
        }
    }

    /// Ends the outbox, and the connection with it, of one who has no writer: the reader finds the
    /// socket shut.
    fn break_off(&self, lane: &mut Lane, why: &str) {
        lane.start = None;
        self.state.store(state::EVICTED, Ordering::Release);
        let _ = self.why.set(why.to_owned());
        if let Some(socket) = &self.socket {
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.wake_who_wants_room();
    }

    /// False if nothing was written, and all of it has to wait. Otherwise it was, or the rest is
    /// queued, or the peer is gone.
    fn write_at_once(&self, frame: &Frame, lane: &mut Lane) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        match SockRef::from(&**socket).send_with_flags(frame, flags) {
            Ok(0) => false,
            Ok(count) if count < frame.len() => {
                self.queue(lane, Item::Rest(frame[count..].into()));
                true
            }
            Ok(_) => true,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                false
            }
            // No thread is started only to find the same.
            Err(error) if lane.start.is_some() => {
                self.break_off(lane, &error.to_string());
                true
            }
            // The writer's to find.
            Err(_) => false,
        }
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

    /// Waits for so long, or until the outbox has ended; false if it has. Only the connection's own
    /// reading thread may wait here.
    pub fn stays_open_for(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut wanting = lock(&self.wanting_room);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // What wakes it is often room, which it does not want.
            *wanting = self.is_open() && !left.is_zero();
            if !*wanting {
                return self.is_open();
            }
            wanting = self
                .room
                .wait_timeout(wanting, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
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
        self.end(state::ENDING, frame::close(code, why), why, Then::Writer);
    }

    /// Gives its owner up: what is queued is dropped, and a 1013 is tried.
    /// The first end counts.
    pub fn evict(&self, why: &str) {
        let last = frame::close(code::TRY_AGAIN_LATER, why);
        if self.end(state::EVICTED, last, why, Then::Writer) {
            metrics::SLOW.count();
        }
    }

    /// Ends the outbox when the peer has ended its own side: what is queued goes out, then `last`.
    /// Called by the reader alone.
    pub fn finish(&self, last: Frame, why: &str) {
        self.end(state::ENDING, last, why, Then::Reader);
    }

    /// Ends the outbox without a word: the peer is gone. Called by the reader, or by the writer.
    pub fn abandon(&self, why: &str) {
        self.end(state::EVICTED, Frame::from([]), why, Then::Reader);
    }

    /// False if it had ended before.
    fn end(&self, into: u8, last: Frame, why: &str, then: Then) -> bool {
        let mut lane = lock(&self.lane);
        if !self.ends(into, why) {
            return false;
        }
        let mut last = last;
        // Also where no writer can be started, the peer is told.
        if lane.start.is_some() && (last.is_empty() || self.write_at_once(&last, &mut lane)) {
            last = Frame::from([]);
            // Unless it went in part, all is said.
            if then == Then::Reader && lane.start.take().is_some() {
                return true;
            }
        }
        self.queue(&mut lane, Item::Last(last));
        true
    }

    /// The first end counts. Called under the lane's lock: once it is released, whether there is a
    /// writer will not change any more.
    fn ends(&self, into: u8, why: &str) -> bool {
        let ended =
            self.state
                .compare_exchange(state::OPEN, into, Ordering::AcqRel, Ordering::Acquire);
        if ended.is_ok() {
            let _ = self.why.set(why.to_owned());
            self.wake_who_wants_room();
        }
        ended.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    fn frame(bytes: usize) -> Frame {
        vec![b'x'; bytes].into()
    }

    #[test]
    fn what_waits_is_taken_at_once_and_in_order() {
        let (outbox, queue) = outbox(Encoding::Text, 1000, None);
        outbox.push(Frame::from(*b"one"), Priority::High);
        outbox.push(Frame::from(*b"two"), Priority::Low);
        let mut bytes = Vec::new();
        assert_eq!(queue.collect_by(soon(), &mut bytes), Some(Batch::Frames));
        assert_eq!(bytes, b"onetwo");
        assert_eq!(queue.collect_by(soon(), &mut bytes), None);
    }

    #[test]
    fn past_half_passing_notices_are_shed_and_messages_are_not() {
        let (outbox, queue) = outbox(Encoding::Text, 100, None);
        outbox.push(frame(50), Priority::High);
        outbox.push(frame(10), Priority::Low);
        outbox.push(frame(50), Priority::High);
        let mut bytes = Vec::new();
        queue.collect_by(soon(), &mut bytes);
        assert_eq!(bytes.len(), 100);
        assert!(outbox.is_open());
    }

    #[test]
    fn a_full_outbox_drops_its_queue_and_says_1013() {
        let (outbox, queue) = outbox(Encoding::Text, 100, None);
        outbox.push(frame(90), Priority::High);
        outbox.push(frame(20), Priority::High);
        assert!(outbox.is_evicted());
        outbox.push(frame(1), Priority::High);
        let mut bytes = Vec::new();
        assert_eq!(queue.collect_by(soon(), &mut bytes), Some(Batch::Last));
        assert!(frame::is_close(&bytes));
        assert_eq!(bytes[2..4], code::TRY_AGAIN_LATER.to_be_bytes());
    }

    #[test]
    fn only_the_first_end_counts_and_the_queue_goes_out_before_it() {
        let (outbox, queue) = outbox(Encoding::Text, 100, None);
        outbox.push(frame(3), Priority::High);
        outbox.close(code::RESTART, "");
        outbox.evict("late");
        outbox.push(frame(5), Priority::High);
        let mut bytes = Vec::new();
        assert_eq!(queue.collect_by(soon(), &mut bytes), Some(Batch::Last));
        assert_eq!(bytes.len(), 3 + 4);
        assert_eq!(bytes[5..7], code::RESTART.to_be_bytes());
    }

    /// Tests that run beside it give up a few others.
    #[test]
    fn an_owner_who_is_given_up_again_and_again_is_counted_once() {
        let (outbox, _queue) = outbox(Encoding::Text, 100, None);
        let before = metrics::SLOW.value();
        for _ in 0..1000 {
            outbox.evict("too slow");
        }
        assert!(metrics::SLOW.value() - before < 100);
    }

    #[test]
    fn who_was_sent_away_already_is_not_counted_as_slow() {
        let (outbox, _queue) = outbox(Encoding::Text, 100, None);
        outbox.close(code::RESTART, "");
        let before = metrics::SLOW.value();
        for _ in 0..1000 {
            outbox.evict("too slow");
        }
        assert!(metrics::SLOW.value() - before < 100);
    }

    #[test]
    fn who_waits_a_while_is_woken_by_the_end() {
        let (outbox, _queue) = outbox(Encoding::Text, 100, None);
        assert!(outbox.stays_open_for(Duration::from_millis(1)));
        let begun = Instant::now();
        thread::scope(|scope| {
            let waits = scope.spawn(|| outbox.stays_open_for(Duration::from_secs(60)));
            outbox.close(code::RESTART, "");
            assert!(!waits.join().expect("it does not panic"));
        });
        assert!(!outbox.stays_open_for(Duration::from_secs(60)));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
