//! The publisher, with threads that submit commands, and a Redis that breaks.

use std::sync::{Arc, Mutex};
use std::thread;

use crate::backplane::BackplaneError;
use crate::backplane::redis::commands::Commands;
use crate::master::{Done, Master};
use crate::permuter::chance;
use crate::threads::lock;

/// More than the publisher's thread answers itself.
const MANY: u64 = 18;

/// Every command is answered once, and truly: what is acknowledged is done, what was refused is not, and nothing is done
/// twice. Each thread's commands are done, and acknowledged, in their order. Before anything is stored on another connection, it is asked
/// for the last message that the one before acknowledged.
pub(super) fn each_command_is_answered_once_and_truly() {
    let master = Arc::<Master>::default();
    let commands = Commands::start(&master);
    type Answers = Vec<(u64, Result<u64, BackplaneError>)>;
    let answers: Arc<Mutex<Answers>> = Arc::default();
    thread::scope(|scope| {
        for (begin, count) in [(100, MANY), (200, 3)] {
            let (commands, answers) = (&commands, &answers);
            scope.spawn(move || {
                for number in begin..begin + count {
                    let answers = Arc::clone(answers);
                    commands.store(number, move |answer| lock(&answers).push((number, answer)));
                    if begin == 200 {
                        thread::yield_now();
                    }
                }
            });
        }
        if chance(4) {
            scope.spawn(|| master.fails_over());
        }
    });
    commands.end();
    let answers = std::mem::take(&mut *lock(&answers));
    let done = master.done();
    let stored = done.iter().filter_map(|(_, done)| match done {
        Done::Stored(number) => Some(*number),
        Done::LookedFor(_) => None,
    });
    let stored: Vec<_> = stored.collect();
    for (begin, count) in [(100, MANY), (200, 3)] {
        let mine = |number: &u64| *number / 100 == begin / 100;
        let answers = answers.iter().filter(|(number, _)| mine(number));
        let mut answered: Vec<_> = answers.clone().map(|(number, _)| *number).collect();
        answered.sort_unstable();
        assert!(answered.into_iter().eq(begin..begin + count), "{answers:?}");
        let taken = answers.filter(|(_, answer)| answer.is_ok());
        assert!(taken.is_sorted_by_key(|(number, _)| *number));
        let stored: Vec<_> = stored.iter().copied().filter(mine).collect();
        assert!(stored.is_sorted_by(|one, next| one < next), "{stored:?}");
    }
    let mut acknowledged = Vec::new();
    for (number, answer) in &answers {
        match answer {
            Ok(place) => {
                let (connection, what) = done[*place as usize];
                assert_eq!(what, Done::Stored(*number));
                acknowledged.push((connection, *place));
            }
            Err(BackplaneError::NoAnswer) => {}
            Err(error) => assert!(!stored.contains(number), "{number} is stored: {error}"),
        }
    }
    for (later, (connection, what)) in done.iter().enumerate() {
        let before = acknowledged.iter().filter(|(one, _)| one < connection);
        let Some((_, last)) = before.max().filter(|_| matches!(what, Done::Stored(_))) else {
            continue;
        };
        let looked = done[..later]
            .iter()
            .any(|(_, one)| *one == Done::LookedFor(*last));
        assert!(looked, "message {last} may be lost: {done:?}, {answers:?}");
    }
}
