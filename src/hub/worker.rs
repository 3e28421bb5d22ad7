//! The fan-out workers: threads that write the room's events to the members.
//!
//! The delivering thread hands a room's events over in their order, and a worker pushes them in this
//! order to those members that are its own. A worker takes all that waits at once, so events that come
//! during one fan-out go out together with the next. What waits is bounded in bytes: while it is too
//! much, the delivering thread waits, and nobody else.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::broadcast::Broadcast;
use super::room::Room;
use crate::threads::{lock, spawn_vital};

/// The most bytes that wait for one worker, and the bytes that an event takes beside its text, about.
const MOST_BYTES: usize = 1 << 20;
const BESIDE_TEXT: usize = 1024;

/// The most events that a worker takes at once.
const AT_ONCE: usize = 1024;

/// A fan-out that takes longer than `LONG` is followed by the next one `APART` after it began: meanwhile
/// more events gather, and go out together. Without the pause, a thousand members at a thousand messages a
/// second cost twice the CPU.
const LONG: Duration = Duration::from_millis(1);
const APART: Duration = Duration::from_millis(4);

enum Work {
    Push(Arc<Room>, Arc<Broadcast>),
    Stop,
}

/// The bytes of the events that were handed over and are not pushed yet.
#[derive(Default)]
struct Unfinished {
    bytes: Mutex<usize>,
    fewer: Condvar,
    /// Whether the last fan-out was long.
    is_long: AtomicBool,
}

/// The handle of one worker.
pub(super) struct Worker {
    // Unbounded, since a bounded crossbeam channel is bounded in events and not in bytes.
    queue: Sender<Work>,
    unfinished: Arc<Unfinished>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// Starts the thread `fanout-N`.
    pub(super) fn start(number: usize) -> io::Result<Self> {
        let (queue, jobs) = crossbeam_channel::unbounded();
        let unfinished = Arc::<Unfinished>::default();
        let counted = Arc::clone(&unfinished);
        let thread = spawn_vital(&format!("fanout-{number}"), move || {
            run(number, &jobs, &counted);
        })?;
        Ok(Self {
            queue,
            unfinished,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Whether everything that was handed over is pushed. Only the thread that hands over may ask.
    pub(super) fn is_idle(&self) -> bool {
        *lock(&self.unfinished.bytes) == 0
    }

    /// Whether something is being written that takes long, as it seems by the last fan-out. Only the thread that hands
    /// over may ask.
    pub(super) fn is_in_long_fan_out(&self) -> bool {
        self.unfinished.is_long.load(Ordering::Relaxed) && !self.is_idle()
    }

    /// Hands an event over. Waits while too much waits already.
    pub(super) fn push(&self, room: &Arc<Room>, broadcast: &Arc<Broadcast>) {
        let mut bytes = lock(&self.unfinished.bytes);
        while *bytes >= MOST_BYTES {
            bytes = bytes.wait(&self.unfinished.fewer);
        }
        *bytes += weight(broadcast);
        drop(bytes);
        // The thread ends only by `close`, after the last delivery.
        let _ = self
            .queue
            .send(Work::Push(Arc::clone(room), Arc::clone(broadcast)));
    }

    /// Joins the thread, after it has pushed what waits.
    pub(super) fn close(&self) {
        let _ = self.queue.send(Work::Stop);
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

fn weight(broadcast: &Broadcast) -> usize {
    broadcast.size() + BESIDE_TEXT
}

fn run(number: usize, jobs: &Receiver<Work>, unfinished: &Unfinished) {
    let mut taken = Vec::new();
    while let Ok(first) = jobs.recv() {
        let begun = Instant::now();
        let mut stop = false;
        for job in std::iter::once(first).chain(jobs.try_iter().take(AT_ONCE)) {
            match job {
                Work::Push(room, broadcast) => taken.push((room, broadcast)),
                Work::Stop => stop = true,
            }
        }
        // A stable sort keeps each room's order.
        taken.sort_by_key(|(room, _)| Arc::as_ptr(room));
        for of_room in taken.chunk_by(|(one, _), (other, _)| Arc::ptr_eq(one, other)) {
            let events: Vec<_> = of_room.iter().map(|(_, event)| Arc::clone(event)).collect();
            of_room[0].0.push(number, &events);
        }
        let finished: usize = taken.drain(..).map(|(_, event)| weight(&event)).sum();
        let mut bytes = lock(&unfinished.bytes);
        if *bytes >= MOST_BYTES {
            // Somebody may wait.
            unfinished.fewer.notify_one();
        }
        *bytes -= finished;
        drop(bytes);
        if stop {
            return;
        }
        let is_long = begun.elapsed() > LONG;
        unfinished.is_long.store(is_long, Ordering::Relaxed);
        if is_long {
            thread::sleep(APART.saturating_sub(begun.elapsed()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::hub::member::Member;
    use crate::hub::outbox::outbox;
    use crate::message::{ConnectionId, InstanceId, Message, MessageId, RoomName, Via};
    use crate::protocol::{Encoding, Event};

    const DEADLINE: Duration = Duration::from_secs(20);

    fn message(bytes: usize) -> Arc<Broadcast> {
        Broadcast::new(Event::Message {
            room: RoomName::lobby(),
            message: Message {
                id: MessageId::ZERO,
                from: "bob".parse().expect("a name"),
                text: "x".repeat(bytes),
                at: 1,
            },
            looks_like: None,
            via: None,
        })
    }

    #[test]
    fn a_worker_is_idle_when_all_is_pushed_and_what_waits_for_it_is_bounded_in_bytes() {
        let room = Arc::new(Room::new(RoomName::lobby(), 1));
        let (outbox, _queue) = outbox(Encoding::Json, 100, None);
        let via = Via {
            instance: InstanceId::random(),
            connection: ConnectionId(1),
        };
        assert!(room.add(Member::reading(via, None, outbox), 0).is_ok());
        let worker = Arc::new(Worker::start(0).expect("a thread"));
        let (tell, told) = mpsc::channel();
        // Meanwhile the worker cannot push.
        room.with_member(ConnectionId(1), |_| {
            let (worker, room) = (Arc::clone(&worker), Arc::clone(&room));
            thread::spawn(move || {
                for bytes in [0, MOST_BYTES, 1] {
                    worker.push(&room, &message(bytes));
                    let _ = tell.send(worker.is_idle());
                }
            });
            for _ in 0..2 {
                assert_eq!(told.recv_timeout(DEADLINE), Ok(false));
            }
            // Long enough for the next one.
            (0..1_000).for_each(|_| thread::yield_now());
            assert!(told.try_recv().is_err());
        });
        assert!(told.recv_timeout(DEADLINE).is_ok());
        let begun = Instant::now();
        while !worker.is_idle() {
            assert!(begun.elapsed() < DEADLINE, "it is never idle");
            thread::yield_now();
        }
        worker.close();
    }
}
