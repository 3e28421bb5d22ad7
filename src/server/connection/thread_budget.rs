//! The threads that connections may have.
//!
//! Starting a thread beyond the kernel's limits can abort the process ([`crate::server::capacity`]).
//! So every reader and writer thread is started here, and there are never more of them than the machine
//! can hold. A thread counts until it is joined, since its stack stays mapped until then.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};

use crate::threads::lock;

/// Starts the readers and writers of all connections of this instance.
pub struct ThreadBudget {
    most: usize,
    /// Threads that are started and not joined.
    count: AtomicUsize,
    /// The thread that ended last. It is joined when the next one ends, or when its place is needed, so
    /// that at most one ended thread keeps its stack.
    ended: Mutex<Option<JoinHandle<()>>>,
}

impl ThreadBudget {
    /// There are never more than `most` threads.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            count: AtomicUsize::new(0),
            ended: Mutex::new(None),
        }
    }

    /// Starts a thread if more than `keep` places are free; `None` if not. An error means that the
    /// system gives no thread. The caller has to give the handle back, to [`ThreadBudget::join`] or
    /// [`ThreadBudget::join_later`].
    pub(super) fn start(
        &self,
        keep: usize,
        name: String,
        stack: usize,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<Option<JoinHandle<()>>> {
        if !self.take_place(keep) {
            self.join_ended();
            if !self.take_place(keep) {
                return Ok(None);
            }
        }
        let started = Builder::new().name(name).stack_size(stack).spawn(run);
        if started.is_err() {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
        started.map(Some)
    }

    fn take_place(&self, keep: usize) -> bool {
        let next = |count| (count + keep < self.most).then_some(count + 1);
        let taken = self
            .count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        taken.is_ok()
    }

    /// Waits for a thread to end.
    pub(super) fn join(&self, thread: JoinHandle<()>) {
        // A panic has been reported by the panic hook.
        let _ = thread.join();
        self.count.fetch_sub(1, Ordering::AcqRel);
    }

    /// Keeps a thread that has ended or is about to, and joins the one that was kept before. A thread
    /// may give its own handle, if it takes no lock and waits for nothing afterwards.
    pub(super) fn join_later(&self, ended: JoinHandle<()>) {
        let previous = lock(&self.ended).replace(ended);
        if let Some(thread) = previous {
            self.join(thread);
        }
    }

    /// Joins the thread that ended last, and with it all that ended before. That takes a moment: only
    /// the last statements of these threads are left to run.
    pub(super) fn join_ended(&self) {
        let ended = lock(&self.ended).take();
        if let Some(thread) = ended {
            self.join(thread);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn start(threads: &ThreadBudget, keep: usize, run: impl FnOnce() + Send + 'static) -> bool {
        let started = threads.start(keep, "test".to_owned(), 64 * 1024, run);
        started.expect("a thread").is_some()
    }

    #[test]
    fn a_part_is_kept_and_beyond_the_most_nothing_is_started() {
        let threads = ThreadBudget::new(3);
        let (end, wait) = crossbeam_channel::bounded::<()>(0);
        let waits = || {
            let wait = wait.clone();
            move || assert!(wait.recv().is_err())
        };
        assert!(start(&threads, 1, waits()) && start(&threads, 1, waits()));
        assert!(!start(&threads, 1, waits()), "the last place is kept");
        assert!(start(&threads, 0, waits()));
        assert!(!start(&threads, 0, waits()));
        drop(end);
    }

    #[test]
    fn the_place_of_a_thread_is_free_once_it_is_joined() {
        let threads = ThreadBudget::new(2);
        let started = || {
            let thread = threads.start(0, "test".to_owned(), 64 * 1024, || {});
            thread.expect("a thread").expect("a place")
        };
        let (first, second) = (started(), started());
        assert!(
            !start(&threads, 0, || {}),
            "it has ended and keeps its stack"
        );
        threads.join(first);
        let third = started();
        threads.join_later(second);
        // The second one is joined for it.
        let fourth = started();
        threads.join_later(third);
        threads.join_later(fourth);
        threads.join_ended();
        assert_eq!(threads.count.load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_thread_gives_its_own_handle_back() {
        let threads = std::sync::Arc::new(ThreadBudget::new(1));
        for _ in 0..100 {
            let (give, own) = mpsc::channel();
            let its_threads = std::sync::Arc::clone(&threads);
            let run = move || its_threads.join_later(own.recv().expect("its handle"));
            let thread = threads.start(0, "test".to_owned(), 64 * 1024, run);
            let thread = thread.expect("a thread");
            let Some(thread) = thread else {
                continue;
            };
            give.send(thread).expect("it waits for it");
        }
    }
}
