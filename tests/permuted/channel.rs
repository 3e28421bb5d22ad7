//! Stands for `crossbeam_channel`: queues between threads of the permuter.
//!
//! A wait with a limit may time out when nothing is queued: the permuter chooses, and no test waits for a clock.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::permuter::chance;
use crate::threads::{Guard, lock};

/// A wait up to this long is a pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Nobody is left at the other end.
#[derive(Debug)]
pub struct Disconnected;

/// The same, with what was not sent.
pub struct SendError<T>(T);

impl<T> SendError<T> {
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Why a limited wait brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecvTimeoutError {
    Timeout,
    Disconnected,
}

struct Queue<T> {
    items: VecDeque<T>,
    most: usize,
    senders: usize,
    is_received: bool,
}

struct Channel<T> {
    queue: Mutex<Queue<T>>,
    changed: Condvar,
}

pub struct Sender<T>(Arc<Channel<T>>);

pub struct Receiver<T>(Arc<Channel<T>>);

pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    bounded(usize::MAX)
}

pub fn bounded<T>(most: usize) -> (Sender<T>, Receiver<T>) {
    let queue = Queue {
        items: VecDeque::new(),
        most,
        senders: 1,
        is_received: true,
    };
    let channel = Arc::new(Channel {
        queue: Mutex::new(queue),
        changed: Condvar::new(),
    });
    (Sender(Arc::clone(&channel)), Receiver(channel))
}

impl<T> Sender<T> {
    /// Waits while the queue is full.
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        let mut queue = lock(&self.0.queue);
        while queue.is_received && queue.items.len() >= queue.most {
            queue = queue.wait(&self.0.changed);
        }
        self.put(queue, item)
    }

    pub fn try_send(&self, item: T) -> Result<(), SendError<T>> {
        let queue = lock(&self.0.queue);
        match queue.items.len() < queue.most {
            true => self.put(queue, item),
            false => Err(SendError(item)),
        }
    }

    fn put(&self, mut queue: Guard<'_, Queue<T>>, item: T) -> Result<(), SendError<T>> {
        if !queue.is_received {
            return Err(SendError(item));
        }
        queue.items.push_back(item);
        drop(queue);
        self.0.changed.notify_all();
        Ok(())
    }

    pub fn len(&self) -> usize {
        lock(&self.0.queue).items.len()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        lock(&self.0.queue).senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // After a failure the permuter has stopped.
        if !thread::panicking() {
            lock(&self.0.queue).senders -= 1;
            self.0.changed.notify_all();
        }
    }
}

impl<T> Receiver<T> {
    pub fn recv(&self) -> Result<T, Disconnected> {
        self.receive(|| false).map_err(|_| Disconnected)
    }

    /// Times out at last. Whoever waits like this has something else to do then.
    pub fn recv_deadline(&self, _: Instant) -> Result<T, RecvTimeoutError> {
        loop {
            match self.receive(|| true) {
                Err(RecvTimeoutError::Timeout) if chance(2) => thread::yield_now(),
                received => return received,
            }
        }
    }

    /// A short wait is a pause, and times out at last. Otherwise it does at once or never: what is awaited like this must
    /// come.
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        match limit <= PAUSE {
            true => self.recv_deadline(Instant::now()),
            false => self.receive(|| chance(2)),
        }
    }

    fn receive(&self, times_out: impl Fn() -> bool) -> Result<T, RecvTimeoutError> {
        let mut queue = lock(&self.0.queue);
        loop {
            if let Some(item) = self.take(&mut queue) {
                return Ok(item);
            }
            if queue.senders == 0 {
                return Err(RecvTimeoutError::Disconnected);
            }
            if times_out() {
                return Err(RecvTimeoutError::Timeout);
            }
            queue = queue.wait(&self.0.changed);
        }
    }

    fn take(&self, queue: &mut Queue<T>) -> Option<T> {
        let is_full = queue.items.len() >= queue.most;
        let item = queue.items.pop_front();
        if is_full {
            self.0.changed.notify_all();
        }
        item
    }

    pub fn try_recv(&self) -> Result<T, Disconnected> {
        let mut queue = lock(&self.0.queue);
        self.take(&mut queue).ok_or(Disconnected)
    }

    pub fn iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.recv().ok())
    }

    pub fn try_iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.try_recv().ok())
    }

    pub fn is_empty(&self) -> bool {
        lock(&self.0.queue).items.is_empty()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        let mut queue = lock(&self.0.queue);
        queue.is_received = false;
        // What nobody will receive is dropped, and may itself hold an end of this channel.
        let left = std::mem::take(&mut queue.items);
        drop(queue);
        self.0.changed.notify_all();
        drop(left);
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Box<dyn Iterator<Item = T> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}
