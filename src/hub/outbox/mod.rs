//! The outbox: the frames that one connection still has to be sent, bounded in bytes.
//!
//! There are two ways to the socket. While nothing is queued, the thread that pushes writes the frame
//! itself, without blocking; this spares waking another thread. A frame that the kernel does not take
//! at once, and every frame behind it, goes through the [`lane`]: a queue and the writer's thread, which
//! joins queued frames to large writes. [`Lane::busy`] decides between the two ways, under the lane's
//! lock, so frames never overtake each other. The writer's thread is started for the first frame that
//! is queued, and ends when nothing was queued for a while. If the many small writes slow the fan-out
//! down, the backplane delivers more messages at a time, and each push becomes larger.
//!
//! The number of writers is bounded. If no thread is left for a writer, the outbox ends with 1013. It does
//! not wait for another writer to end: connections with a writer are slow, too, and may keep it until their
//! deadlines. The reader's thread writes the close frame, so that needs no other thread.
//!
//! A push never blocks. Past half of the budget, an outbox sheds frames of [`Priority::Low`]. When it is
//! full, its connection is a slow consumer and is evicted. An outbox ends exactly once, and accepts no
//! frame afterwards. It ends in one of four ways:
//!
//! | end | queued frames | last frame | reason |
//! |---|---|---|---|
//! | [`Outbox::close`] | are sent | a close frame | the server ends the connection |
//! | [`Outbox::evict`] | are dropped | a close frame with 1013 | the client is a slow consumer |
//! | [`Outbox::close_in_reply`] | are sent | the caller's | the peer has ended its own side |
//! | [`Outbox::abandon`] | are dropped | none | the peer is gone |

mod lane;

use std::borrow::Cow;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use socket2::SockRef;

pub use self::lane::{Collected, Queue, StartWriter};
use self::lane::{Lane, Unsent};
use crate::hub::framing;
use crate::metrics;
use crate::protocol::{Encoding, Event, Priority};
use crate::stream::Stream;
use crate::threads::lock;
use crate::websocket::code;
use crate::websocket::frame::Frame;

/// The states of an outbox. It begins as `OPEN` and goes through them in this order only.
mod state {
    pub(super) const OPEN: u8 = 0;
    /// Queued frames are still sent, and then the last frame.
    pub(super) const CLOSING: u8 = 1;
    /// Queued frames are dropped; only the last frame is sent.
    pub(super) const DISCARDING: u8 = 2;
}

/// The pause after which a reader that waits for space looks whether its connection is over otherwise.
const SPACE_CHECK: Duration = Duration::from_secs(1);

/// The close reason of a connection that gets no writer.
const NO_WRITER: &str = "too slow: no thread is left to write with";

/// What happened to a frame that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It is written, or queued.
    Taken,
    /// It is dropped: the client has fallen behind and can do without it.
    Shed,
    /// It is dropped: the outbox has ended, perhaps because it was too full for this frame.
    Ended,
}

/// The pushing end, shared by all threads that have frames for this connection.
pub struct Outbox {
    encoding: Encoding,
    /// Held while a frame is written at once, so that no other frame comes in between. That write does
    /// not block.
    lane: Mutex<Lane>,
    /// The stream to write to at once. Without it every frame goes through the lane. What is written to it is sealed
    /// under the lane's lock, or by the writer while the lane is busy, so the order on the wire is that of the sealing.
    stream: Option<Arc<Stream>>,
    queued_bytes: AtomicUsize,
    budget: usize,
    state: AtomicU8,
    /// Why it ended, for the log.
    why: OnceLock<String>,
    /// Whether the reader's thread waits on `wake`, for space or for some time.
    reader_waits: Mutex<bool>,
    wake: Condvar,
}

/// An outbox that holds at most `budget` bytes, and the queue from which its writer collects. With a
/// `stream`, threads that push may write to it at once.
pub fn outbox(
    encoding: Encoding,
    budget: usize,
    stream: Option<Arc<Stream>>,
) -> (Arc<Outbox>, Queue) {
    let (lane, receiver) = Lane::new();
    let outbox = Arc::new(Outbox {
        encoding,
        lane: Mutex::new(lane),
        stream,
        queued_bytes: AtomicUsize::new(0),
        budget,
        state: AtomicU8::new(state::OPEN),
        why: OnceLock::new(),
        reader_waits: Mutex::new(false),
        wake: Condvar::new(),
    });
    let queue = Queue::new(receiver, Arc::clone(&outbox));
    (outbox, queue)
}

impl Outbox {
    /// The encoding that this connection speaks.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Sets the closure that starts the writer, for the first frame that is queued. The closure may own
    /// the queue, and with it this outbox: it is dropped when the outbox ends. Without a closure, the
    /// queue must have its writer already.
    pub fn start_writer_with(&self, start: StartWriter) {
        lock(&self.lane).start = Some(start);
    }

    /// Encodes `event` for this connection alone and pushes it.
    pub fn send(&self, event: &Event) {
        if let Some(frame) = framing::event(self.encoding, event) {
            self.push(frame, event.priority());
        }
    }

    /// Writes ready-made frames at once or queues them. Sheds them or evicts the connection if it has
    /// fallen behind.
    pub fn push(&self, frame: Frame, priority: Priority) -> Pushed {
        let mut lane = lock(&self.lane);
        // Checked under the lock, so that nothing follows the last frame.
        if !self.is_open() {
            return Pushed::Ended;
        }
        if !lane.busy && self.write_at_once(&frame, &mut lane) {
            return Pushed::Taken;
        }
        // Frames are queued under the lock only, so this number can only shrink meanwhile.
        let before = self.queued_bytes.load(Ordering::Acquire);
        let after = before + frame.len();
        match priority {
            Priority::Low if after > self.budget / 2 => Pushed::Shed,
            // A frame larger than the budget is taken if half of it is free. Else it could never be
            // sent.
            Priority::High if after > self.budget && before > self.budget / 2 => {
                drop(lane);
                self.evict("too slow: the outbox is full");
                Pushed::Ended
            }
            Priority::Low | Priority::High => {
                self.queue(&mut lane, Unsent::Frame(frame));
                Pushed::Taken
            }
        }
    }

    /// Pings the peer (RFC 6455 §5.5.2); a follower gets bytes without meaning instead. Returns false if
    /// that is not on its way to the peer: other frames wait, or the ping itself does. Then the writer's deadline
    /// shows whether the peer is there.
    pub fn ping(&self) -> bool {
        let mut lane = lock(&self.lane);
        if !self.is_open() || lane.busy {
            return false;
        }
        let ping = framing::heartbeat(self.encoding);
        if !self.write_at_once(&ping, &mut lane) {
            self.queue(&mut lane, Unsent::Frame(ping));
        }
        !lane.busy
    }

    fn queue(&self, lane: &mut Lane, outgoing: Unsent) {
        if lane.start.take().is_some_and(|start| !start()) {
            return self.let_go(lane, outgoing);
        }
        let bytes = outgoing.budgeted_bytes();
        self.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        lane.send(outgoing);
    }

    /// Leaves the goodbye to the reader, since no writer can be started for `unsent`. Ends the outbox, if
    /// it is open.
    fn let_go(&self, lane: &mut Lane, unsent: Unsent) {
        let mut unsaid = match unsent {
            Unsent::Frame(_) => Vec::new(),
            Unsent::Rest(bytes) => bytes.to_vec(),
            Unsent::Last(frame) => self.sealed_last(&frame).into_owned(),
        };
        if self.is_open() {
            self.state.store(state::DISCARDING, Ordering::Release);
            let _ = self.why.set(NO_WRITER.to_owned());
            metrics::NO_WRITER.count();
            let close = framing::close(self.encoding, code::TRY_AGAIN_LATER, NO_WRITER);
            unsaid.extend_from_slice(&self.sealed_last(&close));
        }
        lane.unsaid = Some(unsaid.into());
        // The reader may wait for the peer, and finds the end of the input instead.
        self.shut(Shutdown::Read);
        self.wake_reader();
    }

    /// The bytes that the reader has to write before it closes the socket, if no writer could be started.
    pub fn take_unsaid(&self) -> Option<Frame> {
        lock(&self.lane).unsaid.take()
    }

    /// Ends the outbox of a peer that is gone. The reader finds the socket shut down, and ends the
    /// connection.
    fn shut_socket(&self, lane: &mut Lane, why: &str) {
        lane.start = None;
        self.state.store(state::DISCARDING, Ordering::Release);
        let _ = self.why.set(why.to_owned());
        self.shut(Shutdown::Both);
        self.wake_reader();
    }

    fn shut(&self, how: Shutdown) {
        if let Some(stream) = &self.stream {
            let _ = stream.socket().shutdown(how);
        }
    }

    /// A frame as it is written.
    fn sealed<'a>(&self, frame: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.stream {
            Some(stream) => stream.sealed(frame),
            None => Cow::Borrowed(frame),
        }
    }

    /// The last frame as it is written. A response over HTTP has no other end than TLS's own.
    fn sealed_last<'a>(&self, frame: &'a [u8]) -> Cow<'a, [u8]> {
        let sealed = self.sealed(frame);
        match &self.stream {
            Some(stream) if stream.is_encrypted() && self.encoding.is_for_followers() => {
                [&*sealed, &stream.farewell()].concat().into()
            }
            Some(_) | None => sealed,
        }
    }

    /// Writes a frame without blocking. False if nothing was written, and the frame still has to be
    /// queued. True if it was written, if its rest is queued, or if the peer is gone.
    fn write_at_once(&self, frame: &[u8], lane: &mut Lane) -> bool {
        self.write_sealed_at_once(&self.sealed(frame), lane)
    }

    fn write_sealed_at_once(&self, bytes: &[u8], lane: &mut Lane) -> bool {
        let Some(stream) = &self.stream else {
            return false;
        };
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let written = match SockRef::from(stream.socket()).send_with_flags(bytes, flags) {
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(0)
            }
            written => written,
        };
        match written {
            // What was encrypted is a part of the stream.
            Ok(0) if !stream.is_encrypted() => false,
            Ok(count) if count < bytes.len() => {
                self.queue(lane, Unsent::Rest(bytes[count..].into()));
                true
            }
            Ok(_) => true,
            // A writer would be started only to meet the same error.
            Err(error) if lane.start.is_some() => {
                self.shut_socket(lane, &error.to_string());
                true
            }
            // The writer runs, and will meet the same error.
            Err(_) if stream.is_encrypted() => {
                self.queue(lane, Unsent::Rest(bytes.into()));
                true
            }
            Err(_) => false,
        }
    }

    /// Waits until at most half of the budget is taken, so that a user's requests are answered only as
    /// fast as the user reads. Only the connection's reader may call this. The writer's deadline bounds
    /// the wait. False if the outbox has ended, or once `is_over`, which is asked now and then, with no lock held.
    pub fn wait_for_space(&self, is_over: impl Fn() -> bool) -> bool {
        while !is_over() {
            let mut waits = lock(&self.reader_waits);
            if !self.is_open() {
                return false;
            }
            // Set before the bytes are counted, so that a writer that takes some now wakes the reader.
            *waits = true;
            if self.queued_bytes.load(Ordering::Acquire) <= self.budget / 2 {
                *waits = false;
                return true;
            }
            drop(waits.wait_for(&self.wake, SPACE_CHECK));
        }
        false
    }

    /// Waits for `time`, or until the outbox ends; false if it has ended. Only the connection's reader
    /// may call this.
    pub fn stays_open_for(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut waits = lock(&self.reader_waits);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // The writer wakes the reader for space, too; then the wait goes on.
            *waits = self.is_open() && !left.is_zero();
            if !*waits {
                return self.is_open();
            }
            waits = waits.wait_for(&self.wake, left);
        }
    }

    fn wake_reader(&self) {
        let mut waits = lock(&self.reader_waits);
        if std::mem::take(&mut *waits) {
            self.wake.notify_all();
        }
    }

    /// The number of bytes that it holds at most.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Whether it still accepts frames.
    pub fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == state::OPEN
    }

    /// Whether it has ended and drops the frames that are queued.
    pub fn is_discarding(&self) -> bool {
        self.state.load(Ordering::Acquire) == state::DISCARDING
    }

    /// Why it ended; `None` before that.
    pub fn why(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }

    /// Ends the outbox: queued frames are sent, and then a close frame. Any thread may call this; only
    /// the first end counts.
    pub fn close(&self, code: u16, why: &str) {
        let last = framing::close(self.encoding, code, why);
        self.end(state::CLOSING, last, why);
    }

    /// Ends the outbox of a slow consumer: queued frames are dropped, and a close frame with 1013 is
    /// tried. Any thread may call this; only the first end counts.
    pub fn evict(&self, why: &str) {
        let last = framing::close(self.encoding, code::TRY_AGAIN_LATER, why);
        if self.end(state::DISCARDING, last, why) {
            metrics::SLOW.count();
        }
    }

    /// Ends the outbox when the peer has ended its own side: queued frames are sent, and then `last`.
    /// Only the reader may call this.
    pub fn close_in_reply(&self, last: Frame, why: &str) {
        self.end(state::CLOSING, last, why);
    }

    /// Ends the outbox when the peer is gone: nothing more is sent. Only the reader and the writer may
    /// call this.
    pub fn abandon(&self, why: &str) {
        self.end(state::DISCARDING, [].into(), why);
    }

    /// Ends the outbox. False if it had ended before.
    fn end(&self, into: u8, mut last: Frame, why: &str) -> bool {
        // Held to the end: from then on, no writer is started any more.
        let mut lane = lock(&self.lane);
        let ended =
            self.state
                .compare_exchange(state::OPEN, into, Ordering::AcqRel, Ordering::Acquire);
        if ended.is_err() {
            return false;
        }
        let _ = self.why.set(why.to_owned());
        self.wake_reader();
        // The last frame is written at once if no writer runs. Then none is needed any more.
        if lane.start.is_some()
            && (last.is_empty() || self.write_sealed_at_once(&self.sealed_last(&last), &mut lane))
        {
            last = [].into();
            // A frame that was written in part has started the writer, which then closes.
            if lane.start.take().is_some() {
                self.shut(Shutdown::Write);
                return true;
            }
        }
        self.queue(&mut lane, Unsent::Last(last));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    use crate::websocket::frame;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    fn frame(bytes: usize) -> Frame {
        vec![b'x'; bytes].into()
    }

    #[test]
    fn queued_frames_are_collected_together_and_in_order() {
        let (outbox, queue) = outbox(Encoding::Text, 1000, None);
        outbox.push(Frame::from(*b"one"), Priority::High);
        outbox.push(Frame::from(*b"two"), Priority::Low);
        let mut bytes = Vec::new();
        assert_eq!(queue.collect_by(soon(), &mut bytes), Some(Collected::More));
        assert_eq!(bytes, b"onetwo");
        assert_eq!(queue.collect_by(soon(), &mut bytes), None);
    }

    #[test]
    fn past_half_of_the_budget_notices_are_shed_and_messages_are_not() {
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
    fn the_budget_and_its_half_may_be_used_up() {
        let (outbox, _queue) = outbox(Encoding::Text, 100, None);
        assert_eq!(outbox.push(frame(50), Priority::Low), Pushed::Taken);
        assert_eq!(outbox.push(frame(1), Priority::Low), Pushed::Shed);
        assert_eq!(outbox.push(frame(1), Priority::High), Pushed::Taken);
        assert_eq!(outbox.push(frame(49), Priority::High), Pushed::Taken);
        assert_eq!(outbox.push(frame(1), Priority::High), Pushed::Ended);
    }

    #[test]
    fn a_frame_larger_than_the_budget_is_taken_if_half_of_it_is_free() {
        let (outbox, _queue) = outbox(Encoding::Text, 100, None);
        outbox.push(frame(50), Priority::High);
        assert_eq!(outbox.push(frame(1000), Priority::High), Pushed::Taken);
    }

    #[test]
    fn behind_what_waits_no_ping_is_queued() {
        let (outbox, queue) = outbox(Encoding::Text, 100, None);
        outbox.push(frame(1), Priority::High);
        assert!(!outbox.ping());
        assert_eq!(queue.length(), 1);
    }

    #[test]
    fn a_peer_that_is_gone_is_sent_nothing_more() {
        let (outbox, queue) = outbox(Encoding::Text, 100, None);
        outbox.push(frame(1), Priority::High);
        outbox.abandon("the peer is gone");
        assert_eq!(outbox.push(frame(1), Priority::High), Pushed::Ended);
        let mut bytes = Vec::new();
        assert_eq!(queue.collect_by(soon(), &mut bytes), Some(Collected::Last));
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_full_outbox_drops_its_queue_and_says_1013() {
        let (outbox, queue) = outbox(Encoding::Text, 100, None);
        outbox.push(frame(90), Priority::High);
        outbox.push(frame(20), Priority::High);
        assert!(outbox.is_discarding());
        outbox.push(frame(1), Priority::High);
        let mut bytes = Vec::new();
        assert_eq!(queue.collect_by(soon(), &mut bytes), Some(Collected::Last));
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
        assert_eq!(queue.collect_by(soon(), &mut bytes), Some(Collected::Last));
        assert_eq!(bytes.len(), 3 + 4);
        assert_eq!(bytes[5..7], code::RESTART.to_be_bytes());
    }

    #[test]
    fn a_writer_rests_only_while_nothing_waits_and_the_next_frame_starts_another() {
        let (outbox, queue) = outbox(Encoding::Text, 1000, None);
        outbox.push(Frame::from(*b"one"), Priority::High);
        let busy = queue.rest(|_| panic!("a frame waits"));
        let queue = busy.expect("it goes on");
        let mut bytes = Vec::new();
        queue.collect_by(soon(), &mut bytes);
        queue.written();
        let (start, started) = std::sync::mpsc::channel();
        let rests = queue.rest(|queue| Box::new(move || start.send(queue).is_ok()));
        assert!(rests.is_none() && started.try_recv().is_err());
        outbox.push(Frame::from(*b"two"), Priority::High);
        let queue = started.try_recv().expect("it is started");
        queue.collect_by(soon(), &mut bytes);
        assert_eq!(bytes, b"onetwo");
    }

    /// Tests that run at the same time evict a few connections, too.
    #[test]
    fn a_connection_that_is_evicted_again_and_again_is_counted_once() {
        let (outbox, _queue) = outbox(Encoding::Text, 100, None);
        let before = metrics::SLOW.value();
        for _ in 0..1000 {
            outbox.evict("too slow");
        }
        assert!(metrics::SLOW.value() - before < 100);
    }

    #[test]
    fn a_connection_that_was_closed_before_is_not_counted_as_slow() {
        let (outbox, _queue) = outbox(Encoding::Text, 100, None);
        outbox.close(code::RESTART, "");
        let before = metrics::SLOW.value();
        for _ in 0..1000 {
            outbox.evict("too slow");
        }
        assert!(metrics::SLOW.value() - before < 100);
    }

    #[test]
    fn a_reader_that_waits_is_woken_by_the_end() {
        let (outbox, _queue) = outbox(Encoding::Text, 100, None);
        let begun = Instant::now();
        assert!(outbox.stays_open_for(Duration::from_millis(1)));
        assert!(begun.elapsed() >= Duration::from_millis(1));
        thread::scope(|scope| {
            let waits = scope.spawn(|| outbox.stays_open_for(Duration::from_secs(60)));
            outbox.close(code::RESTART, "");
            assert!(!waits.join().expect("it does not panic"));
        });
        assert!(!outbox.stays_open_for(Duration::from_secs(60)));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
