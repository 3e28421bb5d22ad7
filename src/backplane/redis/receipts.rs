//! The receipts thread: runs the callbacks of answered commands when a batch has many.
//!
//! An answer to a send is a receipt: an event to encode and a `send(2)`. Where there are many, the
//! publisher's thread leaves them to this one, so that Redis does not wait for them. All answers of a batch
//! are handed over together, which costs one wake-up. Answers are given in the order in which they are
//! handed over.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use redis::Value;

use crate::backplane::BackplaneError;
use crate::threads;

/// The most batches of answers that may wait. The publisher waits at this number, so that commands grow old
/// in its queue, where they have a deadline, and not here.
const BATCHES: usize = 4;

/// Called with what Redis answered.
pub(super) type OnAnswer = Box<dyn FnOnce(Result<Value, BackplaneError>) + Send>;

/// Up to this many callbacks run on the publisher's thread: waking the receipts thread would take longer,
/// and Redis works on the next batch meanwhile.
const FEW: usize = 16;

/// An answer, and the callback that takes it.
pub(super) struct Answered {
    pub(super) on_answer: OnAnswer,
    pub(super) answer: Result<Value, BackplaneError>,
}

impl Answered {
    fn give(self) {
        (self.on_answer)(self.answer);
    }
}

/// The handle of the receipts thread. Dropping it ends the thread and joins it.
pub(super) struct Receipts {
    /// `None` once it is dropped.
    queue: Option<Sender<Vec<Answered>>>,
    /// The batches of answers that were handed over and not all given.
    waiting: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Receipts {
    pub(super) fn start() -> io::Result<Self> {
        let (queue, batches) = crossbeam_channel::bounded(BATCHES);
        let waiting = Arc::default();
        let thread = threads::spawn_vital("receipts", {
            let waiting = Arc::clone(&waiting);
            move || give_all(&batches, &waiting)
        })?;
        Ok(Self {
            queue: Some(queue),
            waiting,
            thread: Some(thread),
        })
    }

    /// Gives these answers, behind those that were handed over before. A few are given by the caller's thread
    /// if none waits. Only the publisher's thread calls this.
    pub(super) fn hand_over(&self, answers: Vec<Answered>) {
        if answers.is_empty() {
            return;
        }
        // Only this thread adds to the number, so 0 stays 0.
        if answers.len() <= FEW && self.waiting.load(Ordering::Acquire) == 0 {
            answers.into_iter().for_each(Answered::give);
        } else if let Some(queue) = &self.queue {
            self.waiting.fetch_add(1, Ordering::AcqRel);
            // The thread ends only when the queue does.
            let _ = queue.send(answers);
        }
    }

    /// Waits until all answers are given that were handed over.
    pub(super) fn wait(&self) {
        let (given, all_given) = crossbeam_channel::bounded::<()>(0);
        self.hand_over(vec![Answered {
            on_answer: Box::new(move |_| drop(given)),
            answer: Err(BackplaneError::NoAnswer),
        }]);
        let _ = all_given.recv();
    }
}

impl Drop for Receipts {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn give_all(batches: &Receiver<Vec<Answered>>, waiting: &AtomicUsize) {
    for batch in batches {
        batch.into_iter().for_each(Answered::give);
        waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// The number of each answer, and the thread that gave it.
    type Given = mpsc::Receiver<(usize, Option<String>)>;

    /// Makes answers that are told when they are given. The one of number 0 is not given before the test lets it.
    fn answers() -> (impl Fn(usize) -> Answered, Sender<()>, Given) {
        let (tell, given) = mpsc::channel();
        let (release, released) = crossbeam_channel::bounded(1);
        let answer = move |number| {
            let (tell, released) = (tell.clone(), released.clone());
            let on_answer = move |_| {
                if number == 0 {
                    let let_go = released.recv_timeout(Duration::from_secs(5));
                    let_go.expect("the test lets it go");
                }
                let name = thread::current().name().map(str::to_owned);
                tell.send((number, name)).expect("the test waits");
            };
            Answered {
                on_answer: Box::new(on_answer),
                answer: Ok(Value::Nil),
            }
        };
        (answer, release, given)
    }

    #[test]
    fn many_answers_are_left_to_the_thread_and_a_few_wait_behind_them() {
        let receipts = Receipts::start().expect("a thread");
        let (answer, release, given) = answers();
        let numbers = || {
            given
                .try_iter()
                .map(|(number, _)| number)
                .collect::<Vec<_>>()
        };
        receipts.hand_over((1..=FEW).map(&answer).collect());
        assert_eq!(
            numbers(),
            (1..=FEW).collect::<Vec<_>>(),
            "a few are given at once"
        );
        receipts.hand_over((0..=FEW).map(&answer).collect());
        receipts.hand_over(vec![answer(FEW + 1)]);
        assert_eq!(numbers(), [0; 0], "they stay in order");
        release.send(()).expect("it waits");
        drop(receipts);
        let given: Vec<_> = given.try_iter().collect();
        let name = Some("receipts".to_owned());
        let expected = (0..=FEW + 1).map(|number| (number, name.clone()));
        assert_eq!(
            given,
            expected.collect::<Vec<_>>(),
            "and none is lost at the end"
        );
    }

    #[test]
    fn a_wait_and_the_end_come_after_all_answers() {
        for ends in [false, true] {
            let receipts = Receipts::start().expect("a thread");
            let (answer, release, given) = answers();
            receipts.hand_over((0..=FEW).map(&answer).collect());
            thread::scope(|scope| {
                scope.spawn(move || {
                    (0..1000).for_each(|_| thread::yield_now());
                    release.send(()).expect("it waits");
                });
                match ends {
                    true => drop(receipts),
                    false => receipts.wait(),
                }
                assert_eq!(given.try_iter().count(), FEW + 1);
            });
        }
    }
}
