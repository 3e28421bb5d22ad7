//! The two halves of an upgraded connection: the reading that `read_pump` does, and the write pump.
//!
//! The reader thread owns [`Pumps`], and takes one message at a time from [`Pumps::read`]. It never
//! blocks on a write: every frame goes into the outbox. The outbox writes a frame at once if it can. If
//! it cannot, it queues the frame and starts the writer thread, which runs [`Writer::write_pump`] and
//! alone may block on a write. If no thread is left for a writer, the outbox has ended, and the reader
//! writes the goodbye before it returns. When one pump ends, the other one ends within a bounded time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::error;

use super::heartbeat::Heartbeat;
use super::thread_budget::ThreadBudget;
use crate::hub::framing;
use crate::hub::outbox::{Collected, Outbox, Queue, StartWriter, outbox};
use crate::message::ConnectionId;
use crate::metrics;
use crate::protocol::{Encoding, Priority};
use crate::server::config::{Config, Deadlines};
use crate::server::grant::Grant;
use crate::server::rate::TokenBucket;
use crate::stream::Stream;
use crate::threads::lock;
use crate::websocket::code;
use crate::websocket::frame;
use crate::websocket::{Ended, Incoming, ReadHalf};

/// The writer only copies bytes.
const WRITER_STACK: usize = 64 * 1024;

/// The socket's write time-out. After each one, a writer that is stuck checks its deadline.
pub(super) const WRITE_CHECK: Duration = Duration::from_secs(1);

/// A writer ends when nothing was queued for this time. So the threads of users who were slow for a
/// moment become free, and a user who is often slow does not cost a start for each frame.
const WRITER_RESTS: Duration = Duration::from_secs(2);

/// When nothing is left to write, the writer frees a buffer larger than this.
const KEEP_BUFFER: usize = 4 * 1024;

/// The rate limit of pings and pongs, which the session does not count: so many a second, so many at
/// once.
const CONTROL_FRAMES: (u32, u32) = (100, 200);

/// The most bytes that a follower may send, such as a second request. Nobody reads their meaning.
const MOST_FROM_FOLLOWER: usize = 16 * 1024;

/// Reads discarded after a violation, before a client that floods is reset, and the pause after each.
const DISCARDED_READS: usize = 100;
const DISCARD_PAUSE: Duration = Duration::from_millis(10);

/// The bytes in both directions when a connection is upgraded, or begins to follow a room.
pub struct Upgrade {
    /// The response, and the first event.
    pub opening: Vec<u8>,
    /// The bytes that followed the request's head.
    pub read_already: Vec<u8>,
}

/// An upgraded connection, held by its reader thread.
pub struct Pumps<'a> {
    stream: &'a Arc<Stream>,
    config: &'a Config,
    outbox: Arc<Outbox>,
    reads: ReadSide,
    control_frames: TokenBucket,
    writer: Arc<Writer>,
}

/// The reading half: frames of a chat, or nothing of meaning from a follower.
enum ReadSide {
    WebSocket(ReadHalf),
    /// The follower's heartbeat, and the number of bytes that the follower may still send.
    Follower(Heartbeat, usize),
}

impl ReadSide {
    fn read(&mut self) -> Result<Incoming, Ended> {
        match self {
            Self::WebSocket(half) => half.read(),
            Self::Follower(heartbeat, left) => match heartbeat.read(&mut [0; 256]) {
                Ok(0) => Err(Ended::Vanished),
                Ok(count) if count > *left => Err(Ended::Wrong {
                    code: code::POLICY,
                    why: "a follower only listens".to_owned(),
                }),
                Ok(count) => {
                    *left -= count;
                    Ok(Incoming::Alive)
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => Err(Ended::Silent),
                Err(error) => Err(Ended::Broken(error.to_string())),
            },
        }
    }
}

impl<'a> Pumps<'a> {
    /// Answers the upgrade. The writer takes its thread from `threads`.
    pub fn start(
        stream: &'a Arc<Stream>,
        id: ConnectionId,
        encoding: Encoding,
        grant: &Arc<Grant>,
        config: &'a Config,
        threads: &Arc<ThreadBudget>,
        upgrade: Upgrade,
    ) -> Self {
        // The time-out of a blocking write, by the writer or by the reader's goodbye. A time-out above zero
        // is always accepted.
        let _ = stream.socket().set_write_timeout(Some(WRITE_CHECK));
        let (outbox, queue) = outbox(encoding, config.outbox_bytes, Some(Arc::clone(stream)));
        let writer = Arc::new(Writer {
            threads: Arc::clone(threads),
            stream: Arc::clone(stream),
            id,
            deadlines: config.deadlines.clone(),
            running: Mutex::new(None),
        });
        outbox.start_writer_with(writer.starter(queue));
        outbox.push(upgrade.opening.into(), Priority::High);
        let heartbeat = Heartbeat::new(
            Arc::clone(stream),
            Arc::clone(&outbox),
            Arc::clone(grant),
            config.ping_interval,
            &config.deadlines,
        );
        let replies = Arc::clone(&outbox);
        let reads = match encoding.is_for_followers() {
            true => ReadSide::Follower(heartbeat, MOST_FROM_FOLLOWER),
            false => ReadSide::WebSocket(ReadHalf::server(
                Box::new(heartbeat),
                upgrade.read_already,
                config.max_message,
                Box::new(move |frames| push_replies(&replies, frames)),
            )),
        };
        let (per_second, burst) = CONTROL_FRAMES;
        Self {
            stream,
            config,
            outbox,
            reads,
            control_frames: TokenBucket::new(per_second, burst, Instant::now()),
            writer,
        }
    }

    /// The outbox of this connection.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Waits for the next message of the client. Once the outbox has ended, messages are discarded,
    /// since nothing can answer them, until the client ends its side or has sent too many.
    pub fn read(&mut self) -> Result<Incoming, Ended> {
        loop {
            let incoming = self.reads.read()?;
            match incoming {
                Incoming::Text(_) | Incoming::Binary(_) | Incoming::Alive
                    if !self.outbox.is_open() =>
                {
                    if self.control_frames.take(Instant::now()).is_err() {
                        let why = "it goes on after the end".to_owned();
                        let code = code::POLICY;
                        return Err(Ended::Wrong { code, why });
                    }
                    continue;
                }
                Incoming::Alive => {
                    while let Err(wait) = self.control_frames.take(Instant::now()) {
                        thread::sleep(wait);
                    }
                }
                Incoming::Text(_) | Incoming::Binary(_) | Incoming::Close(_) => {}
            }
            return Ok(incoming);
        }
    }

    /// Ends the connection, for the reason that [`Pumps::read`] gave. Returns the reason why the outbox
    /// ended, which may be an earlier one.
    pub fn finish(self, ended: &Ended) -> String {
        end_outbox(&self.outbox, ended);
        if let Some(unsaid) = self.outbox.take_unsaid() {
            let _ = self.writer.write_batch(&unsaid, &self.outbox);
            let _ = self.stream.socket().shutdown(Shutdown::Write);
        }
        if matches!(ended, Ended::Wrong { .. }) {
            discard_input(self.stream.socket(), &self.config.deadlines);
        }
        self.writer.join();
        let _ = self.stream.socket().shutdown(Shutdown::Both);
        self.outbox.why().unwrap_or("unknown").to_owned()
    }
}

/// When the reader ends by a panic, its outbox ends too, and with it the writer.
impl Drop for Pumps<'_> {
    fn drop(&mut self) {
        self.outbox.abandon("the connection failed");
    }
}

/// Puts tungstenite's own answers, pongs and close frames, into the outbox.
fn push_replies(outbox: &Outbox, frames: &[u8]) {
    for frame in frame::split_controls(frames) {
        if frame::is_close(&frame) {
            outbox.close_in_reply(frame, "the client said goodbye");
        } else {
            outbox.push(frame, Priority::High);
        }
    }
}

fn end_outbox(outbox: &Outbox, ended: &Ended) {
    match ended {
        Ended::Closed => outbox.abandon("the closing handshake is complete"),
        // The client may have closed only its own side, and may still read.
        Ended::Vanished => {
            let why = "the client broke off";
            let last = framing::close(outbox.encoding(), code::NORMAL, why);
            outbox.close_in_reply(last, why);
        }
        Ended::Silent if outbox.is_open() => {
            metrics::SILENT.count();
            outbox.abandon("the client was silent for too long");
        }
        Ended::Silent => metrics::UNANSWERED.count(),
        Ended::Broken(why) => outbox.abandon(why),
        Ended::Wrong { code, why } => {
            metrics::VIOLATIONS.count();
            outbox.close(*code, why);
        }
    }
}

/// Reads until the client ends its side. If the socket were closed with unread bytes, the kernel would
/// send a reset, and the client could lose our close frame.
// Inlined, its buffer would be part of the stack of every connection that is open.
#[inline(never)]
fn discard_input(mut socket: &TcpStream, deadlines: &Deadlines) {
    let due = Instant::now() + deadlines.goodbye();
    let mut discarded = [0; 32 * 1024];
    for _ in 0..DISCARDED_READS {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            metrics::UNANSWERED.count();
            return;
        }
        let _ = socket.set_read_timeout(Some(left));
        match socket.read(&mut discarded) {
            Ok(1..) => thread::sleep(DISCARD_PAUSE),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(0) | Err(_) => return,
        }
    }
    // The client floods. The reset is meant: a client that only writes would otherwise keep the socket
    // in the kernel for a quarter of an hour, behind a full window.
}

/// The writer of one connection: what its thread needs, and the thread while it runs.
struct Writer {
    threads: Arc<ThreadBudget>,
    stream: Arc<Stream>,
    id: ConnectionId,
    deadlines: Deadlines,
    running: Mutex<Option<Running>>,
}

struct Running {
    thread: JoinHandle<()>,
    /// Dropped when the reader has ended.
    reading: Sender<()>,
}

/// Why a writer has written all that it will.
enum Written {
    /// The last frame is written.
    Last,
    /// The client takes nothing any more.
    Broken,
    /// Nothing was queued for a while. The writer's own handle is in here.
    Resting(Option<Running>),
}

impl Writer {
    /// The function with which the outbox starts the thread.
    fn starter(self: &Arc<Self>, queue: Queue) -> StartWriter {
        let writer = Arc::clone(self);
        Box::new(move || writer.start(queue))
    }

    fn start(self: &Arc<Self>, queue: Queue) -> bool {
        let (reading, reader_ended) = crossbeam_channel::bounded(0);
        let writer = Arc::clone(self);
        let run = move || writer.write_pump(queue, &reader_ended);
        let name = format!("writer-{}", self.id);
        let thread = self.threads.start(0, name, WRITER_STACK, run);
        let thread = thread.unwrap_or_else(|error| {
            error!("no thread to write with: {error}");
            None
        });
        let Some(thread) = thread else {
            return false;
        };
        *lock(&self.running) = Some(Running { thread, reading });
        true
    }

    /// Waits until the writer has ended, if it runs. The outbox has ended, so nothing starts it any
    /// more.
    fn join(&self) {
        let running = lock(&self.running).take();
        if let Some(Running { thread, reading }) = running {
            drop(reading);
            // The socket is shut, also after a panic of the writer.
            self.threads.join(thread);
        }
    }

    /// The write pump: writes the frames of the outbox, up to the last one. Then it gives the client a
    /// moment to answer, and shuts the socket, which ends the reader. It runs on the writer thread. While
    /// it writes, no other thread does ([`Queue::collect_by`]). If nothing is queued for a while, the
    /// thread ends, and the outbox starts another one when it is needed.
    fn write_pump(self: &Arc<Self>, queue: Queue, reader_ended: &Receiver<()>) {
        match self.write_all(queue) {
            Written::Resting(own) => {
                if let Some(own) = own {
                    self.threads.join_later(own.thread);
                }
                return;
            }
            Written::Last => {
                if self.stream.socket().shutdown(Shutdown::Write).is_ok()
                    && let Err(RecvTimeoutError::Timeout) =
                        reader_ended.recv_timeout(self.deadlines.close)
                {
                    metrics::UNANSWERED.count();
                }
            }
            Written::Broken => {}
        }
        let _ = self.stream.socket().shutdown(Shutdown::Both);
    }

    fn write_all(self: &Arc<Self>, mut queue: Queue) -> Written {
        let outbox = Arc::clone(queue.outbox());
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let Some(collected) = queue.collect_by(Instant::now() + WRITER_RESTS, &mut bytes)
            else {
                let mut own = None;
                let again = queue.rest(|queue| {
                    // Taken before the next writer can be started.
                    own = lock(&self.running).take();
                    self.starter(queue)
                });
                match again {
                    Some(busy) => queue = busy,
                    None => return Written::Resting(own),
                }
                continue;
            };
            if let Err(why) = self.write_batch(&bytes, &outbox) {
                outbox.abandon(&why);
                return Written::Broken;
            }
            if collected == Collected::Last {
                return Written::Last;
            }
            queue.written();
            if bytes.capacity() > KEEP_BUFFER {
                bytes = Vec::new();
            }
        }
    }

    /// Writes one batch, as it is on the wire, within its deadline. Once the outbox has ended, the deadline is shorter.
    fn write_batch(&self, bytes: &[u8], outbox: &Outbox) -> Result<(), String> {
        let mut due = Instant::now() + self.deadlines.write;
        write_by(self.stream.socket(), bytes, |now| {
            if !outbox.is_open() {
                due = due.min(now + self.deadlines.close);
            }
            due
        })
    }
}

/// Writes all bytes, which are sealed, before the deadline that `due` returns, given the time. A peer that takes a few
/// bytes at a time does not move the deadline.
pub(super) fn write_by(
    mut socket: &TcpStream,
    mut bytes: &[u8],
    mut due: impl FnMut(Instant) -> Instant,
) -> Result<(), String> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(0) => return Err("the client takes nothing any more".to_owned()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted
                | io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut => {}
                _ => return Err(error.to_string()),
            },
        }
        if bytes.is_empty() {
            break;
        }
        let now = Instant::now();
        if now >= due(now) {
            metrics::STUCK.count();
            return Err("too slow: what was sent was not taken in time".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::server::connection::tests::pair;

    /// The heartbeat leaves a time-out behind that ends when the next ping would have been due.
    #[test]
    fn after_a_violation_everything_is_read_whatever_the_time_out_was() {
        let (near, mut far) = pair();
        near.socket()
            .set_read_timeout(Some(Duration::from_millis(1)))
            .expect("a time-out");
        let (outbox, _queue) = outbox(Encoding::Text, 1000, Some(Arc::clone(&near)));
        let violation = Ended::Wrong {
            code: code::PROTOCOL,
            why: "a test".to_owned(),
        };
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(100)); // longer than the time-out
                far.write_all(b"x").expect("it is read");
                far.shutdown(Shutdown::Write).expect("an end");
            });
            end_outbox(&outbox, &violation);
            discard_input(near.socket(), &Config::default().deadlines);
        });
        assert_eq!(near.read(&mut [0]).expect("the end"), 0);
    }
}
