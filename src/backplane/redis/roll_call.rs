//! The roll call: who is in a room, asked of Redis once for all who want to know at the same time. When
//! a crowd enters a room at once, after a restart say, each of them would otherwise hold a list of all.
//!
//! Nobody gets an answer to a question that was put before they asked, so that none is stale.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::backplane::BackplaneError;
use crate::message::{RoomName, UserName};
use crate::threads::lock;

pub(super) type Answer = Result<Arc<[UserName]>, BackplaneError>;

/// The questions that are open.
#[derive(Default)]
pub(super) struct RollCall {
    rooms: Mutex<HashMap<RoomName, Room>>,
}

/// The questions about one room.
struct Room {
    /// It may have been put already.
    current: Arc<Question>,
    /// It is put once the current one is answered.
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
            answer = self
                .answered
                .wait(answer)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl RollCall {
    /// Has `put` answer the question, or shares the answer of somebody who puts it after this. Waits as
    /// long as `put` takes, twice at most.
    pub(super) fn ask(&self, room: &RoomName, put: impl FnOnce() -> Answer) -> Answer {
        let (question, before) = {
            let mut rooms = lock(&self.rooms);
            match rooms.get_mut(room) {
                None => {
                    let current = Arc::<Question>::default();
                    let question = Arc::clone(&current);
                    rooms.insert(
                        room.clone(),
                        Room {
                            current,
                            next: None,
                        },
                    );
                    (question, None)
                }
                Some(Room {
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
            // Its answer is too old for us.
            let _ = before.wait();
        }
        let mut asker = Asker {
            roll_call: self,
            room,
            question,
            // Should `put` panic.
            answer: Err(BackplaneError::NoAnswer),
        };
        asker.answer = put();
        asker.answer.clone()
    }
}

/// Who puts a question, and gives the answer to the others however it ends.
struct Asker<'a> {
    roll_call: &'a RollCall,
    room: &'a RoomName,
    question: Arc<Question>,
    answer: Answer,
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        let mut rooms = lock(&self.roll_call.rooms);
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
    use crossbeam_channel::{bounded, unbounded};
    use std::thread;

    fn names(name: &str) -> Answer {
        Ok([name.parse().expect("a name")].into())
    }

    #[test]
    fn whoever_asks_meanwhile_shares_the_next_answer() {
        let roll_call = RollCall::default();
        let room = RoomName::lobby();
        let (put, is_put) = unbounded();
        let (answer, answered) = bounded(0);
        thread::scope(|scope| {
            let ask = || {
                roll_call.ask(&room, || {
                    put.send(()).expect("it is counted");
                    answered.recv().expect("an answer")
                })
            };
            let first = scope.spawn(ask);
            is_put.recv().expect("the first is put");
            let others: Vec<_> = (0..10).map(|_| scope.spawn(ask)).collect();
            while lock(&roll_call.rooms)
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
        assert!(lock(&roll_call.rooms).is_empty());
    }

    #[test]
    fn a_panic_of_whoever_asks_leaves_nobody_waiting() {
        let roll_call = RollCall::default();
        let room = RoomName::lobby();
        let asked = thread::scope(|scope| {
            let ask = || roll_call.ask(&room, || panic!("on purpose"));
            scope.spawn(ask).join()
        });
        assert!(asked.is_err());
        assert_eq!(roll_call.ask(&room, || names("a")), names("a"));
    }
}
