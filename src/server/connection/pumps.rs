//! The two pumps of a socket, and the conversation between them.
//!
//! The reader takes one message at a time. To the socket goes only what the outbox lets go: what
//! waits there is the writer's, who alone may block on it, and who is started when something first
//! has to wait. Whatever ends one pump ends the other, in bounded time.

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
use crate::server::config::Deadlines;
use crate::server::limits::TokenBucket;
use crate::threads::lock;
use crate::websocket::code;
use crate::websocket::frame;
use crate::websocket::{Ended, Incoming, ReadHalf};

/// The writer only copies bytes.
const WRITER_STACK: usize = 64 * 1024;

/// How often a writer that is stuck looks at its deadline; the socket's write time-out.
pub(super) const WRITE_GLANCE: Duration = Duration::from_secs(1);

/// A writer's buffer is given back when it is larger and nothing is waiting.
const KEEP_BUFFER: usize = 4 * 1024;

/// Frames that ask for nothing but our time, as pings do, are read no faster than this: so many a
/// second, so many at once.
const IDLE_FRAMES: (u32, u32) = (100, 200);

/// How often what comes after the end is looked at, and the pause after each look. Who has not ended
/// by then floods; the others have little left to say.
const SCRAPS: usize = 100;
const SCRAP_PAUSE: Duration = Duration::from_millis(10);

/// What is said on a connection, once it is upgraded. It runs on the reader's thread.
pub trait Conversation {
    /// The client sent a text message.
    fn text(&mut self, text: &str);

    /// The client sent a binary message. An error closes the connection with 1003 and this sentence.
    fn binary(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// The client said goodbye: nobody has to wait for it to come back.
    fn goodbye(&mut self);

    /// Waits until everything that the client sent is answered. Bounded in time.
    fn settle(&mut self);
}

/// What a connection keeps to.
#[derive(Debug, Clone)]
pub struct Terms {
    /// What the client speaks.
    pub encoding: Encoding,
    /// How many bytes may wait for it.
    pub outbox_bytes: usize,
    /// The largest message, in bytes.
    pub max_message: usize,
    /// How often it is pinged.
    pub heartbeat: Duration,
    /// How long it may take for what it owes.
    pub deadlines: Deadlines,
}

/// Answers the upgrade with `opening`, and carries a conversation until it ends. Why it ended.
pub fn converse<C: Conversation>(
    socket: &Arc<TcpStream>,
    id: ConnectionId,
    terms: &Terms,
    opening: &[u8],
    read_already: Vec<u8>,
    begin: impl FnOnce(&Arc<Outbox>) -> C,
) -> String {
    let (outbox, queue) = outbox(terms.encoding, terms.outbox_bytes, Some(Arc::clone(socket)));
    let writer = Writer::default();
    outbox.start_writer_with(writer.starter(socket, id, terms, queue));
    let _ends = EndsWithReader(Arc::clone(&outbox));
    outbox.push(opening.into(), Priority::High);
    let replies = Arc::clone(&outbox);
    let heartbeat = Heartbeat::new(
        Arc::clone(socket),
        Arc::clone(&outbox),
        terms.heartbeat,
        terms.deadlines.pong,
    );
    let mut half = ReadHalf::server(
        Box::new(heartbeat),
        read_already,
        terms.max_message,
        Box::new(move |bytes| {
            for frame in frame::split_controls(bytes) {
                if frame::is_close(&frame) {
                    replies.close_in_reply(frame, "the client said goodbye");
                } else {
                    replies.push(frame, Priority::High);
                }
            }
        }),
    );
    let mut conversation = begin(&outbox);
    let ended = read_pump(&mut half, &mut conversation, &outbox);
    if outbox.is_open() && matches!(ended, Ended::Vanished | Ended::Wrong { .. }) {
        // It may still read the answers to what it said before.
        conversation.settle();
    }
    drop(conversation);
    goodbye(socket, &outbox, &ended, terms);
    writer.join();
    let _ = socket.shutdown(Shutdown::Both);
    outbox.why().unwrap_or("unknown").to_owned()
}

/// However the reader ends, also by a panic, the writer is told.
struct EndsWithReader(Arc<Outbox>);

impl Drop for EndsWithReader {
    fn drop(&mut self) {
        self.0.abandon("the connection failed");
    }
}

/// Takes one message at a time until there are no more. Called by the reader's thread alone; it
/// never writes.
fn read_pump(half: &mut ReadHalf, conversation: &mut impl Conversation, outbox: &Outbox) -> Ended {
    let (per_second, burst) = IDLE_FRAMES;
    let mut idle = TokenBucket::new(per_second, burst, Instant::now());
    loop {
        match half.read() {
            // What comes after our own last frame can no longer be answered. It ends soon.
            Ok(Incoming::Text(_) | Incoming::Binary(_) | Incoming::Alive) if !outbox.is_open() => {
                if idle.take(Instant::now()).is_err() {
                    let why = "it goes on after the end".to_owned();
                    let code = code::POLICY;
                    return Ended::Wrong { code, why };
                }
            }
            Ok(Incoming::Text(text)) => conversation.text(&text),
            Ok(Incoming::Binary(bytes)) => {
                if let Err(why) = conversation.binary(&bytes) {
                    let code = code::UNSUPPORTED;
                    return Ended::Wrong { code, why };
                }
            }
            Ok(Incoming::Alive) => {
                while let Err(wait) = idle.take(Instant::now()) {
                    thread::sleep(wait);
                }
            }
            Ok(Incoming::Close(_)) => {
                // Whom we sent away ourselves is expected back.
                if outbox.is_open() {
                    conversation.goodbye();
                    // Our own close frame, which the next reading brings, is the last.
                    conversation.settle();
                }
            }
            Err(ended) => return ended,
        }
    }
}

/// Ends the outbox, and reads to the end so that no reset takes the last frame along.
fn goodbye(socket: &TcpStream, outbox: &Outbox, ended: &Ended, terms: &Terms) {
    match ended {
        Ended::Closed => return outbox.abandon("the closing handshake is complete"),
        // It may have closed only its own side.
        Ended::Vanished => {
            let why = "the client broke off";
            return outbox.close_in_reply(frame::close(code::NORMAL, why), why);
        }
        Ended::Silent => {
            metrics::SILENT.count();
            return outbox.abandon("the client was silent for too long");
        }
        Ended::Broken(why) => return outbox.abandon(why),
        Ended::Wrong { code, why } => {
            metrics::VIOLATIONS.count();
            outbox.close(*code, why);
        }
    }
    // The writer, who says so, bounds the wait: not the heartbeat, whose time-out may be about to end.
    let _ = socket.set_read_timeout(Some(terms.heartbeat + terms.deadlines.pong));
    let mut scrap = [0; 32 * 1024];
    for _ in 0..SCRAPS {
        if !matches!((&mut &*socket).read(&mut scrap), Ok(1..)) {
            return;
        }
        thread::sleep(SCRAP_PAUSE);
    }
    // Closed with something unread, it is reset; with a clean end and a full window, a peer that only
    // writes would wait for as long as its kernel probes, which is a quarter of an hour.
}

/// The writer's thread, once there is one.
#[derive(Default)]
struct Writer(Arc<Mutex<Option<Running>>>);

struct Running {
    thread: JoinHandle<()>,
    /// Dropped when the reader has ended.
    reading: Sender<()>,
}

impl Writer {
    /// What starts it.
    fn starter(
        &self,
        socket: &Arc<TcpStream>,
        id: ConnectionId,
        terms: &Terms,
        queue: Queue,
    ) -> StartWriter {
        let running = Arc::clone(&self.0);
        let socket = Arc::clone(socket);
        let deadlines = terms.deadlines.clone();
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

    /// Waits for its end, if it was ever started. The outbox has ended, so that it will not be now.
    fn join(self) {
        if let Some(Running { thread, reading }) = lock(&self.0).take() {
            drop(reading);
            // A panic there has been reported; the socket is closed either way.
            let _ = thread.join();
        }
    }
}

/// Writes whatever waits in the outbox until its last frame. Called by the writer's thread alone;
/// nobody else writes to this socket meanwhile ([`Queue::collect`]). Afterwards it gives the peer a
/// moment to answer, and then frees the reader.
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

/// True once the last frame is written.
fn write_all(socket: &TcpStream, queue: &Queue, deadlines: &Deadlines) -> bool {
    if socket.set_write_timeout(Some(WRITE_GLANCE)).is_err() {
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

/// Writes one batch within its deadline, which comes nearer once the outbox is closed.
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

/// Writes it all until a deadline, which trickling does not move. `due` tells it, given the time,
/// whenever something was not taken at once.
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

    use crate::server::config::Config;
    use crate::server::connection::tests::pair;

    /// The heartbeat leaves a time-out behind that ends when the next ping would have been due.
    #[test]
    fn after_a_violation_everything_is_read_whatever_the_time_out_was() {
        let (near, mut far) = pair();
        near.set_read_timeout(Some(Duration::from_millis(1)))
            .expect("a time-out");
        let (outbox, _queue) = outbox(Encoding::Text, 1000, Some(Arc::clone(&near)));
        let config = Config::default();
        let terms = Terms {
            encoding: Encoding::Text,
            outbox_bytes: 1000,
            max_message: 1000,
            heartbeat: config.ping_interval,
            deadlines: config.deadlines,
        };
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
            goodbye(&near, &outbox, &violation, &terms);
        });
        assert_eq!((&*near).read(&mut [0]).expect("the end"), 0);
    }
}
