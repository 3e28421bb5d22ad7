//! The single flight of the lists of members.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use crate::message::{MemberList, Revision, RoomName};
use crate::single_flight::SingleFlight;

/// Each asks after a change of its own, which the answer has to show; one question is open at a time.
pub(super) fn no_answer_is_older_than_its_question() {
    const ASKERS: usize = 4;
    let single_flight = SingleFlight::default();
    let room = RoomName::lobby();
    let changes = AtomicU64::new(0);
    let open = AtomicUsize::new(0);
    let asked = AtomicUsize::new(0);
    let put = || {
        assert_eq!(open.fetch_add(1, Ordering::SeqCst), 0, "two are open");
        asked.fetch_add(1, Ordering::SeqCst);
        let number = changes.load(Ordering::SeqCst);
        // The answer is on its way.
        thread::yield_now();
        open.fetch_sub(1, Ordering::SeqCst);
        let revision = Revision { began: 1, number };
        let users = [].into();
        Ok(MemberList { users, revision })
    };
    thread::scope(|scope| {
        for _ in 0..ASKERS {
            scope.spawn(|| {
                let mine = changes.fetch_add(1, Ordering::SeqCst) + 1;
                let answer = single_flight.ask(&room, put).expect("an answer");
                assert!(answer.revision.number >= mine, "the answer is too old");
            });
        }
    });
    let before = asked.load(Ordering::SeqCst);
    let last = single_flight.ask(&room, put);
    assert!(
        last.is_ok() && asked.load(Ordering::SeqCst) == before + 1,
        "no question is left behind"
    );
}
