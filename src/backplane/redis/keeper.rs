//! The keeper: the thread that ends graces, renews this instance on every server, announces the users that
//! a killed instance left behind, and tells the index of rooms the news.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::index::RoomIndex;
use super::presence::{Rounds, Users};
use super::router::Router;
use crate::backplane::{BackplaneError, Departure};
use crate::message::{RoomName, UserName};
use crate::threads;
use crate::threads::lock;

/// The pause between two looks while a user is in their grace, and otherwise.
const TICK: Duration = Duration::from_millis(250);
const QUIET_TICK: Duration = Duration::from_secs(1);

/// The handle that everyone shares.
pub(super) struct Keeper {
    users: Users,
    router: Arc<Router>,
    stop: Sender<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Keeper {
    pub(super) fn start(router: &Arc<Router>, users: &Users, index: RoomIndex) -> io::Result<Self> {
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let thread = threads::spawn_vital("keeper", {
            let (router, users) = (Arc::clone(router), users.clone());
            move || run(&router, &users, index, &stopped)
        })?;
        Ok(Self {
            users: users.clone(),
            router: Arc::clone(router),
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// A connection of `user` left `room`.
    pub(super) fn depart(&self, room: &RoomName, user: &UserName, departure: Departure) {
        let mut roster = lock(&self.users.roster);
        let change = roster.depart(room, user, departure, Instant::now());
        if change.is_some() {
            tell_gone(&self.router, room, user);
        }
    }

    /// Ends the thread.
    pub(super) fn close(&self) {
        let _ = self.stop.send(());
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

/// Tells the room's server that the user left. The caller holds the roster's lock, so that Redis takes the
/// steps in its order.
fn tell_gone(router: &Router, room: &RoomName, user: &UserName) {
    if let Some(shard) = router.shard(room) {
        shard.presence().gone(room, user);
    }
}

fn run(router: &Router, users: &Users, mut index: RoomIndex, stopped: &Receiver<()>) {
    let mut all: Vec<Rounds> = Vec::new();
    let mut tick = TICK;
    while stopped.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
        {
            let mut roster = lock(&users.roster);
            for (room, change) in roster.expire(Instant::now()) {
                tell_gone(router, &room, &change.user);
            }
            tick = match roster.is_anyone_leaving() {
                true => TICK,
                false => QUIET_TICK,
            };
        }
        let shards = router.shards();
        all.retain(|rounds| shards.iter().any(|shard| rounds.are_on(shard.presence())));
        for shard in shards {
            if !all.iter().any(|rounds| rounds.are_on(shard.presence())) {
                all.push(shard.rounds());
            }
        }
        for rounds in &mut all {
            // One that does not answer must not hold up the teardown.
            if stopped.is_empty() {
                rounds.tick(Instant::now());
            }
        }
        tell(&mut index, router, users);
    }
    // The index hears of the last messages as well.
    tell(&mut index, router, users);
}

/// Tells the index of rooms the news. Does not wait.
fn tell(index: &mut RoomIndex, router: &Router, users: &Users) {
    let hosted = || lock(&users.roster).rooms().cloned().collect();
    let news = index.news(hosted, Instant::now());
    let shard = router.shard_of_key(index.key());
    for (command, on_answer) in news {
        match &shard {
            Some(shard) => shard.submit(&command, on_answer),
            None => on_answer(Err(BackplaneError::Unavailable)),
        }
    }
}
