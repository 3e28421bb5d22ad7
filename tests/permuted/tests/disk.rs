//! The embedded backplane on a disk: its sequencer, with threads that publish, and its disk, which breaks.

use std::sync::{Arc, Mutex};
use std::thread;

use super::rooms::{enter, heard};
use crate::backplane::local::{Local, PathBuf};
use crate::backplane::{BackplaneError, Ban, Banned, Draft, Stored};
use crate::hub::Hub;
use crate::message::{InstanceId, RoomName};
use crate::threads::lock;

type Outcome = Result<Stored, BackplaneError>;

fn draft(number: u64) -> Draft {
    Draft {
        room: RoomName::lobby(),
        from: "alice".parse().expect("a name"),
        text: number.to_string(),
        reference: None,
        via: None,
    }
}

/// Those of one publisher, whose numbers begin there.
fn of(begin: u64, numbers: &[u64]) -> Vec<u64> {
    let numbers = numbers.iter().copied();
    numbers.filter(|number| number / 10 == begin / 10).collect()
}

/// Every message is answered once. Acknowledged is what the disk has, the members heard, and the logs show; it is told in
/// the order of the log, which keeps each publisher's. What is said to be not stored is not. The disk takes messages again.
pub(super) fn what_is_acknowledged_is_on_disk_and_was_told() {
    const EACH: u64 = 3;
    let hub = Arc::new(Hub::start(InstanceId::random(), 0).expect("no threads"));
    let queue = enter(&hub, &RoomName::lobby(), 0);
    let path = PathBuf::default();
    let local = Local::start(&hub, &path);
    let answers: Arc<Mutex<Vec<(u64, Outcome)>>> = Arc::default();
    let says = |number: u64| {
        let (tell, told) = crossbeam_channel::unbounded();
        let (path, answers) = (path.clone(), Arc::clone(&answers));
        let receipt = move |outcome: Outcome| {
            let is_stored = path.texts().contains(&number.to_string());
            assert!(is_stored || outcome.is_err(), "it is not on disk");
            let _ = tell.send(outcome.is_ok());
            lock(&answers).push((number, outcome));
        };
        local.publish(draft(number), Box::new(receipt));
        thread::yield_now();
        told
    };
    thread::scope(|scope| {
        for begin in [10, 20] {
            let says = &says;
            scope.spawn(move || (begin..begin + EACH).for_each(|number| drop(says(number))));
        }
        scope.spawn(|| {
            let banned = Banned::User("mallory".parse().expect("a name"));
            let (until, reason) = (2, String::new());
            let told = local.set_ban(&banned, &Ban { until, reason });
            let outcome = told.recv().expect("an answer");
            let (is_stored, is_known) = (path.has_ban(&banned), local.is_banned(&banned));
            match outcome {
                Ok(()) => assert!(is_stored && is_known, "it is not there"),
                Err(BackplaneError::DiskSilent) => {}
                Err(_) => assert!(!is_stored && !is_known, "it is there"),
            }
        });
    });
    let last = (30..).find(|number| says(*number).recv().expect("an answer"));
    let last = last.expect("there are more numbers");
    let sent: Vec<_> = [10, 11, 12, 20, 21, 22]
        .into_iter()
        .chain(30..=last)
        .collect();
    local.close();
    let answers = std::mem::take(&mut *lock(&answers));
    let mut answered: Vec<_> = answers.iter().map(|(number, _)| *number).collect();
    answered.sort_unstable();
    assert_eq!(answered, sent);
    assert_eq!(local.in_flight(), 0);
    let with = |wanted: fn(&Outcome) -> bool| {
        let those = answers.iter().filter(|(_, outcome)| wanted(outcome));
        those.map(|(number, _)| *number).collect::<Vec<_>>()
    };
    let (acknowledged, refused) = (
        with(Outcome::is_ok),
        with(|outcome| *outcome == Err(BackplaneError::DiskUnavailable)),
    );
    let numbers = |texts: Vec<String>| -> Vec<u64> {
        let numbers = texts.iter().map(|text| text.parse().expect("a number"));
        numbers.collect()
    };
    let (stored, heard) = (numbers(path.texts()), heard(&queue));
    assert_eq!(numbers(local.texts()), heard);
    assert!(stored.starts_with(&heard), "{heard:?} of {stored:?}");
    for begin in [10, 20] {
        assert!(of(begin, &stored).is_sorted(), "{stored:?}");
    }
    let mut left = heard.iter();
    let in_order = acknowledged
        .iter()
        .all(|number| left.any(|one| one == number));
    assert!(in_order, "{acknowledged:?} of {heard:?}");
    assert!(!refused.iter().any(|number| stored.contains(number)));
    if answers.len() == acknowledged.len() + refused.len() {
        assert_eq!(heard, stored, "all is told");
    }
}
