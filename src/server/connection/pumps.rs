//! The two pumps of an upgraded connection: one reads the socket, the other writes to it.
//!
//! The reader thread owns [`Pumps`], and takes one message at a time from [`Pumps::read`]. It never
//! blocks on a write: every frame goes into the outbox. The outbox writes a frame at once if it can. If
//! it cannot, it queues the frame and starts the writer thread, which runs [`write_pump`] and alone may
//! block on a write. When one pump ends, the other one ends within a bounded time.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::heartbeat::Heartbeat;
use crate::hub::outbox::{Collected, Outbox, Queue, StartWriter, outbox};
use crate::message::ConnectionId;
use crate::metrics;
use crate::protocol::{Encoding, Priority};
use crate::server::config::{Config, Deadlines};
use crate::server::rate::TokenBucket;
use crate::threads::lock;
use crate::websocket::code;
use crate::websocket::frame;
use crate::websocket::{Ended, Incoming, ReadHalf};

/// The writer only copies bytes.
const WRITER_STACK: usize = 64 * 1024;

/// The socket's write time-out. After each one, a writer that is stuck checks its deadline.
pub(super) const WRITE_CHECK: Duration = Duration::from_secs(1);

/// When nothing is left to write, the writer frees a buffer larger than this.
const KEEP_BUFFER: usize = 4 * 1024;

/// The rate limit of pings and pongs, which the session does not count: so many a second, so many at
/// once.
const CONTROL_FRAMES: (u32, u32) = (100, 200);

/// Reads drained after a violation, before a client that floods is reset, and the pause after each.
const DISCARDED_READS: usize = 100;
const DISCARD_PAUSE: Duration = Duration::from_millis(10);

/// An upgraded connection, held by its reader thread.
pub struct Pumps<'a> {
    socket: &'a Arc<TcpStream>,
    config: &'a Config,
    outbox: Arc<Outbox>,
    read_half: ReadHalf,
    control_frames: TokenBucket,
    writer: Writer,
}

impl<'a> Pumps<'a> {
    /// Answers the upgrade with `opening`. `read_already` are the bytes that followed the request's
    /// head.
    pub fn start(
        socket: &'a Arc<TcpStream>,
        id: ConnectionId,
        encoding: Encoding,
        config: &'a Config,
        opening: &[u8],
        read_already: Vec<u8>,
    ) -> Self {
        let (outbox, queue) = outbox(encoding, config.outbox_bytes, Some(Arc::clone(socket)));
        let writer = Writer::default();
        outbox.start_writer_with(writer.starter(socket, id, config, queue));
        outbox.push(opening.into(), Priority::High);
        let heartbeat = Heartbeat::new(
            Arc::clone(socket),
            Arc::clone(&outbox),
            config.ping_interval,
            config.deadlines.pong,
        );
        let replies = Arc::clone(&outbox);
        let read_half = ReadHalf::server(
            Box::new(heartbeat),
            read_already,
            config.max_message,
            Box::new(move |frames| push_replies(&replies, frames)),
        );
        let (per_second, burst) = CONTROL_FRAMES;
        Self {
            socket,
            config,
            outbox,
            read_half,
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
            let incoming = self.read_half.read()?;
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
        if matches!(ended, Ended::Wrong { .. }) {
            discard_input(self.socket, self.config);
        }
        self.writer.join();
        let _ = self.socket.shutdown(Shutdown::Both);
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
            outbox.close_in_reply(frame::close(code::NORMAL, why), why);
        }
        Ended::Silent => {
            metrics::SILENT.count();
            outbox.abandon("the client was silent for too long");
        }
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
fn discard_input(mut socket: &TcpStream, config: &Config) {
    // The heartbeat's time-out may be about to end. The writer bounds this wait: it shuts the socket.
    let _ = socket.set_read_timeout(Some(config.ping_interval + config.deadlines.pong));
    let mut discarded = [0; 32 * 1024];
    for _ in 0..DISCARDED_READS {
        if !matches!(socket.read(&mut discarded), Ok(1..)) {
            return;
        }
        thread::sleep(DISCARD_PAUSE);
    }
    // The client floods. The reset is meant: a client that only writes would otherwise keep the socket
    // in the kernel for a quarter of an hour, behind a full window.
}

/// The writer thread, once it runs.
#[derive(Default)]
struct Writer(Arc<Mutex<Option<Running>>>);

struct Running {
    thread: JoinHandle<()>,
    /// Dropped when the reader has ended.
    reading: Sender<()>,
}

impl Writer {
    /// The function with which the outbox starts the writer.
    fn starter(
        &self,
        socket: &Arc<TcpStream>,
        id: ConnectionId,
        config: &Config,
        queue: Queue,
    ) -> StartWriter {
        let running = Arc::clone(&self.0);
        let socket = Arc::clone(socket);
        let deadlines = config.deadlines.clone();
        Box::new(move || {
            let (reading, reader_ended) = crossbeam_channel::bounded(0);
            let thread = thread::Builder::new()
                .name(format!("writer-{id}"))
                .stack_size(WRITER_STACK)
                .spawn(move || write_pump(&socket, &queue, &deadlines, &reader_ended))?;
            *lock(&running) = Some(Running { thread, reading });
            Ok(())
        })
    }

    /// Waits until the writer has ended, if it was started. The outbox has ended, so nothing starts it
    /// any more.
    fn join(&self) {
        let running = lock(&self.0).take();
        if let Some(Running { thread, reading }) = running {
            drop(reading);
            // A panic of the writer has been reported, and the socket is shut either way.
            let _ = thread.join();
        }
    }
}

/// The write pump: writes the frames of the outbox, up to the last one. Then it gives the client a moment
/// to answer, and shuts the socket, which ends the reader. It runs on the writer thread. While it writes,
/// no other thread does ([`Queue::collect`]).
fn write_pump(
    socket: &TcpStream,
    queue: &Queue,
    deadlines: &Deadlines,
    reader_ended: &Receiver<()>,
) {
    if write_all(socket, queue, deadlines)
        && socket.shutdown(Shutdown::Write).is_ok()
        && let Err(RecvTimeoutError::Timeout) = reader_ended.recv_timeout(deadlines.close)
    {
        metrics::UNANSWERED.count();
    }
    let _ = socket.shutdown(Shutdown::Both);
}

/// Returns true once the last frame is written.
fn write_all(socket: &TcpStream, queue: &Queue, deadlines: &Deadlines) -> bool {
    if socket.set_write_timeout(Some(WRITE_CHECK)).is_err() {
        return false;
    }
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let collected = queue.collect(&mut bytes);
        if let Err(why) = write_batch(socket, &bytes, queue.outbox(), deadlines) {
            queue.outbox().abandon(&why);
            return false;
        }
        if collected == Collected::Last {
            return true;
        }
        queue.written();
        if bytes.capacity() > KEEP_BUFFER {
            bytes = Vec::new();
        }
    }
}

/// Writes one batch within its deadline. Once the outbox has ended, the deadline is shorter.
fn write_batch(
    socket: &TcpStream,
    bytes: &[u8],
    outbox: &Outbox,
    deadlines: &Deadlines,
) -> Result<(), String> {
    let mut due = Instant::now() + deadlines.write;
    write_by(socket, bytes, |now| {
        if !outbox.is_open() {
            due = due.min(now + deadlines.close);
        }
        due
    })
}

/// Writes all bytes before the deadline that `due` returns, given the time. A peer that takes a few
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
        near.set_read_timeout(Some(Duration::from_millis(1)))
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
            discard_input(&near, &Config::default());
        });
        assert_eq!((&*near).read(&mut [0]).expect("the end"), 0);
    }
}
