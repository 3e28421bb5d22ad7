//! The outbox and its lane, with the threads that push, the writer, and the reader.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::hub::outbox::{Collected, Outbox, Pushed, outbox};
use crate::message::ConnectionId;
use crate::permuter::{chance, up_to};
use crate::protocol::{Encoding, Priority};
use crate::server::config::Config;
use crate::server::connection::{Pumps, ThreadBudget, Upgrade, join_writers};
use crate::server::grant::Grant;
use crate::stream::Stream;
use crate::websocket::code;
use crate::websocket::frame::{Frame, is_close};

const OPENING: &[u8] = b"!!";

/// A connection: its socket, its outbox, and the reader, which returns why it ended.
struct Connection {
    stream: Arc<Stream>,
    outbox: Arc<Outbox>,
    reader: JoinHandle<String>,
    threads: Arc<ThreadBudget>,
}

impl Connection {
    /// With a budget in bytes, and with so many threads for a writer.
    fn new(outbox_bytes: usize, threads: usize) -> Self {
        let stream = Arc::new(Stream::default());
        let threads = Arc::new(ThreadBudget::new(threads));
        let (tell, told) = crossbeam_channel::unbounded();
        let (socket, budget) = (Arc::clone(&stream), Arc::clone(&threads));
        let reader = thread::spawn(move || {
            let config = Config {
                outbox_bytes,
                ..Config::default()
            };
            let upgrade = Upgrade {
                opening: OPENING.to_vec(),
                read_already: Vec::new(),
            };
            let grant = Arc::new(Grant::all());
            let (id, encoding) = (ConnectionId(1), Encoding::Text);
            let mut pumps = Pumps::start(&socket, id, encoding, &grant, &config, &budget, upgrade);
            let _ = tell.send(Arc::clone(pumps.outbox()));
            loop {
                // As a session does before it answers a request.
                pumps.outbox().wait_for_space(|| false);
                if let Err(ended) = pumps.read() {
                    return pumps.finish(&ended);
                }
            }
        });
        let outbox = told.recv().expect("the pumps start");
        Self {
            stream,
            outbox,
            reader,
            threads,
        }
    }

    /// Waits for the end. Returns all frames that were written before the last one, and why it ended.
    fn frames(self) -> (Vec<[u8; 2]>, Option<Vec<u8>>, String) {
        let why = self.reader.join().expect("the reader does not panic");
        join_writers(&self.threads);
        let sent = self.stream.socket().sent();
        assert!(self.stream.socket().is_shut(), "the socket is shut");
        let frames: Vec<[u8; 2]> = sent
            .chunks_exact(2)
            .take_while(|frame| !is_close(frame))
            .map(|frame| [frame[0], frame[1]])
            .collect();
        let last = sent[(2 * frames.len()).min(sent.len())..].to_vec();
        (frames, Some(last).filter(|last| !last.is_empty()), why)
    }
}

/// Frame `number` of the thread `by`, which takes two bytes.
fn frame(by: u8, number: u8) -> Frame {
    [by, number].into()
}

/// The numbers of the frames of one thread.
fn numbers(frames: &[[u8; 2]], by: u8) -> Vec<u8> {
    let mine = frames.iter().filter(|frame| frame[0] == by);
    mine.map(|frame| frame[1]).collect()
}

/// Two threads push while a third closes. Each frame that was taken is written, whole, in its thread's order, and
/// behind all of them the close frame, once.
pub(super) fn frames_keep_their_order_and_the_last_one_is_last() {
    let connection = Connection::new(1 << 20, 3);
    let pushers = [b'a', b'b'].map(|by| {
        let outbox = Arc::clone(&connection.outbox);
        thread::spawn(move || {
            let mut taken = Vec::new();
            for number in 1..4 {
                match outbox.push(frame(by, number), Priority::High) {
                    Pushed::Taken => taken.push(number),
                    Pushed::Ended => break,
                    Pushed::Shed => panic!("there is room"),
                }
            }
            taken
        })
    });
    connection.outbox.close(code::RESTART, "end");
    let taken = pushers.map(|pusher| pusher.join().expect("it does not panic"));
    assert_eq!(
        connection.outbox.push(frame(b'c', 1), Priority::High),
        Pushed::Ended
    );
    let (frames, last, why) = connection.frames();
    assert_eq!(frames.first(), Some(b"!!"));
    assert_eq!(numbers(&frames, b'a'), taken[0], "{frames:?}");
    assert_eq!(numbers(&frames, b'b'), taken[1], "{frames:?}");
    assert_eq!(
        frames.len(),
        1 + taken[0].len() + taken[1].len(),
        "{frames:?}"
    );
    let last = last.expect("the close frame");
    assert_eq!(
        (last.len(), &last[2..4]),
        (7, &code::RESTART.to_be_bytes()[..]),
        "{last:?}"
    );
    assert_eq!(why, "end");
}

/// The writer ends whenever nothing is queued, and another one starts: nothing is left behind without a writer.
pub(super) fn a_writer_that_rests_misses_no_frame() {
    let connection = Connection::new(1 << 20, 4);
    let outbox = Arc::clone(&connection.outbox);
    let pusher = thread::spawn(move || {
        for number in 1..6 {
            assert_eq!(
                outbox.push(frame(b'a', number), Priority::High),
                Pushed::Taken
            );
            outbox.ping();
            thread::yield_now();
        }
    });
    pusher.join().expect("it does not panic");
    // Only the last frame's own writer is left to close.
    connection.outbox.close(code::NORMAL, "");
    let (frames, last, _) = connection.frames();
    assert_eq!(numbers(&frames, b'a'), [1, 2, 3, 4, 5], "{frames:?}");
    assert!(last.is_some_and(|last| last.len() == 4));
}

/// Requests are answered as fast as the answers are read.
pub(super) fn a_reader_that_waits_for_space_is_woken() {
    let (outbox, queue) = outbox(Encoding::Text, 8, None);
    let writer = thread::spawn(move || {
        let (mut bytes, mut all) = (Vec::new(), 0);
        loop {
            bytes.clear();
            match queue.collect_by(Instant::now(), &mut bytes) {
                Some(Collected::Last) => return all,
                Some(Collected::More) => queue.written(),
                None => thread::yield_now(),
            }
            all += bytes.len();
        }
    });
    let others = Arc::clone(&outbox);
    let other = thread::spawn(move || others.push(frame(b'b', 1), Priority::Low));
    // The reader.
    let mut taken = 0;
    for number in 1..5 {
        assert!(outbox.wait_for_space(|| false), "it is open");
        let pushed = outbox.push(vec![number; 4].into(), Priority::High);
        assert_eq!(pushed, Pushed::Taken, "there was space");
        taken += 4;
    }
    if other.join().expect("it does not panic") == Pushed::Taken {
        taken += 2;
    }
    let ender = Arc::clone(&outbox);
    let ends = thread::spawn(move || ender.abandon("the end"));
    while outbox.wait_for_space(|| false) {
        let _ = outbox.push(frame(b'a', 9), Priority::Low);
        thread::yield_now();
    }
    ends.join().expect("it does not panic");
    let written = writer.join().expect("it does not panic");
    assert!(written <= taken + 8 * 100, "{written}");
}

/// A reader that was told to wait a minute is woken by the end, even if that needs no writer.
pub(super) fn a_reader_that_waits_for_time_is_woken_by_the_end() {
    let stream = Arc::new(Stream::default());
    let (outbox, queue) = outbox(Encoding::Text, 8, Some(stream));
    outbox.start_writer_with(Box::new(move || {
        thread::spawn(move || queue.collect_by(Instant::now(), &mut Vec::new()));
        true
    }));
    let others = Arc::clone(&outbox);
    let ends = thread::spawn(move || others.close(code::RESTART, "end"));
    assert!(!outbox.stays_open_for(Duration::from_secs(60)));
    ends.join().expect("it does not panic");
}

/// The peer resets, ends its side, or is too slow, and perhaps no thread is left for a writer: the connection ends, and
/// the frames that were written are whole, in order, and without a hole. A peer that is there is told goodbye.
pub(super) fn a_connection_that_is_broken_or_has_no_writer_ends() {
    let threads = usize::from(chance(2));
    let connection = Connection::new(8, threads);
    let socket = Arc::clone(&connection.stream);
    let what = up_to(2);
    let peer = thread::spawn(move || match what {
        0 => socket.socket().peer_resets(),
        1 => socket.socket().peer_ends(),
        _ => {}
    });
    let outbox = Arc::clone(&connection.outbox);
    let pusher = thread::spawn(move || {
        for number in 1..9 {
            if outbox.push(frame(b'a', number), Priority::High) != Pushed::Taken {
                break;
            }
        }
    });
    pusher.join().expect("it does not panic");
    peer.join().expect("it does not panic");
    connection.outbox.close(code::NORMAL, "the end");
    let (frames, last, why) = connection.frames();
    assert!(
        what == 0 || last.is_some_and(|last| is_close(&last)),
        "no goodbye"
    );
    let numbers = numbers(&frames, b'a');
    assert!(
        numbers.iter().copied().eq((1..).take(numbers.len())),
        "{frames:?}"
    );
    assert_ne!(why, "unknown");
}
