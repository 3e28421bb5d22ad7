//! Single flight for the list of a room's users: callers that ask at the same time share one answer.
//!
//! When a crowd enters a room at once, after a restart say, each session would otherwise parse and hold a list
//! of all. No caller gets the answer to a question that was sent before it asked, so no answer is stale.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};

use crate::backplane::BackplaneError;
use crate::message::{MemberList, RoomName};
use crate::threads::lock;

pub(super) type Answer = Result<MemberList, BackplaneError>;

/// The questions that are open.
#[derive(Default)]
pub(super) struct SingleFlight {
    rooms: Mutex<HashMap<RoomName, RoomQuestions>>,
}

/// The questions about one room.
struct RoomQuestions {
    /// It may have been sent already.
    current: Arc<Question>,
    /// It is sent once the current one is answered.
    next: Option<Arc<Question>>,
}

#[derive(Default)]
struct Question {
    answer: Mutex<Option<Answer>>,
    answered: Condvar,
}

impl Question {
    fn wait(&self) -> Answer {
        let mut answer = lock(&self.answer);
        loop {
            if let Some(answer) = &*answer {
                return answer.clone();
            }
            answer = answer.wait(&self.answered);
        }
    }
}

impl SingleFlight {
    /// Returns the answer of `put`, or of another caller whose `put` starts after this call. Waits for two
    /// runs of `put` at most.
    pub(super) fn ask(&self, room: &RoomName, put: impl FnOnce() -> Answer) -> Answer {
        let (question, before) = {
            let mut rooms = lock(&self.rooms);
            match rooms.get_mut(room) {
                None => {
                    let current = Arc::<Question>::default();
                    let question = Arc::clone(&current);
                    rooms.insert(
                        room.clone(),
                        RoomQuestions {
                            current,
                            next: None,
                        },
                    );
                    (question, None)
                }
                Some(RoomQuestions {
                    next: Some(next), ..
                }) => {
                    let next = Arc::clone(next);
                    drop(rooms);
                    return next.wait();
                }
                Some(asked) => {
                    let next = asked.next.insert(Arc::default());
                    (Arc::clone(next), Some(Arc::clone(&asked.current)))
                }
            }
        };
        if let Some(before) = before {
            // Its answer is too old for this caller.
            let _ = before.wait();
        }
        let mut asker = Asker {
            single_flight: self,
            room,
            question,
            // Should `put` panic.
            answer: Err(BackplaneError::NoAnswer),
        };
        asker.answer = put();
        asker.answer.clone()
    }
}

/// The caller that sends the question. Dropped, also by a panic, it gives the answer to the others.
struct Asker<'a> {
    single_flight: &'a SingleFlight,
    room: &'a RoomName,
    question: Arc<Question>,
    answer: Answer,
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        let mut rooms = lock(&self.single_flight.rooms);
        if let Some(asked) = rooms.get_mut(self.room) {
            match asked.next.take() {
                Some(next) => asked.current = next,
                None => drop(rooms.remove(self.room)),
            }
        }
        drop(rooms);
        *lock(&self.question.answer) = Some(self.answer.clone());
        self.question.answered.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Revision;
    use crossbeam_channel::{bounded, unbounded};
    use std::thread;

    fn names(name: &str) -> Answer {
        Ok(MemberList {
            users: [name.parse().expect("a name")].into(),
            revision: Revision::ZERO,
        })
    }

    #[test]
    fn whoever_asks_meanwhile_shares_the_next_answer() {
        let single_flight = SingleFlight::default();
        let room = RoomName::lobby();
        let (put, is_put) = unbounded();
        let (answer, answered) = bounded(0);
        thread::scope(|scope| {
            let ask = || {
                single_flight.ask(&room, || {
                    put.send(()).expect("it is counted");
                    answered.recv().expect("an answer")
                })
            };
            let first = scope.spawn(ask);
            is_put.recv().expect("the first is put");
            let others: Vec<_> = (0..10).map(|_| scope.spawn(ask)).collect();
            while lock(&single_flight.rooms)
                .get(&room)
                .and_then(|room| room.next.as_ref())
                .is_none_or(|next| Arc::strong_count(next) < 11)
            {
                thread::yield_now();
            }
            assert!(is_put.is_empty(), "one at a time");
            answer.send(names("old")).expect("it is awaited");
            answer.send(names("new")).expect("it is awaited");
            assert_eq!(first.join().expect("an answer"), names("old"));
            for other in others {
                assert_eq!(other.join().expect("an answer"), names("new"));
            }
        });
        assert_eq!(is_put.len(), 1, "of the others, one alone asked");
        assert!(lock(&single_flight.rooms).is_empty());
    }

    #[test]
    fn a_panic_of_whoever_asks_leaves_nobody_waiting() {
        let single_flight = SingleFlight::default();
        let room = RoomName::lobby();
        let asked = thread::scope(|scope| {
            let ask = || single_flight.ask(&room, || panic!("on purpose"));
            scope.spawn(ask).join()
        });
        assert!(asked.is_err());
        assert_eq!(single_flight.ask(&room, || names("a")), names("a"));
    }
}
