//! The handover of a room from one node's listener to another's.

use std::thread;

use super::rooms::{LONG, Subscribed};
use crate::clock;
use crate::permuter::chance;

impl Subscribed {
    /// The log moves, and perhaps comes back.
    fn moves(&self) {
        self.redis.moves_to(1);
        if self.redis.keeps_nodes() && chance(2) {
            thread::yield_now();
            self.redis.moves_to(0);
        }
    }
}

/// The room moves while messages are said, while one comes and goes and another comes. Those who stay hear all, once and
/// in order. Where one who comes has the room heard anew meanwhile, something may be missing, and is told.
pub(super) fn a_room_that_moves_is_heard_on() {
    let subscribed = Subscribed::to_cluster();
    let first = std::iter::repeat_with(|| subscribed.comes(2)).find_map(|came| came);
    let mut second = None;
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3 {
                subscribed.redis.say();
                thread::yield_now();
            }
        });
        scope.spawn(|| subscribed.moves());
        scope.spawn(|| subscribed.comes_and_goes(1));
        let comes = scope.spawn(|| subscribed.comes(4));
        second = comes.join().expect("it does not panic");
    });
    let stay = [(2, first), (4, second)];
    let stay = stay
        .into_iter()
        .filter_map(|(id, stays)| Some((id, stays?)));
    subscribed.ends(stay.collect::<Vec<_>>());
}

/// The room moves while its last member leaves and others come and go, and while time passes: no node is subscribed to
/// it for ever.
pub(super) fn a_room_that_is_left_while_it_moves_is_forgotten() {
    let subscribed = Subscribed::to_cluster();
    let mut came = std::iter::repeat_with(|| subscribed.comes(2));
    assert!(came.any(|came| came.is_some()));
    thread::scope(|scope| {
        scope.spawn(|| subscribed.goes(2));
        scope.spawn(|| subscribed.moves());
        scope.spawn(|| clock::pass(LONG));
        scope.spawn(|| subscribed.comes_and_goes(1));
    });
    subscribed.ends([]);
}
