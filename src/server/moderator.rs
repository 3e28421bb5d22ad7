//! The moderator: the thread that carries out the orders of operators on this instance, and knows the bans.
//!
//! It reads the bans whenever they may have changed, also after each cut of the subscription, since an order may
//! have been missed meanwhile. Until they can be read, those that are known hold.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, select};
use log::warn;

use super::answers::deleted;
use super::connection::Connections;
use super::state::State;
use crate::backplane::{BackplaneError, Banned, Deletions};
use crate::hub::Order;
use crate::message::RoomName;
use crate::threads;
use crate::threads::lock;

/// The pause before the bans are read again that could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// What a user is told who is disconnected.
const DISCONNECTED: &str = "an operator disconnected this user";

/// The handle of the thread.
pub(super) struct Moderator {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Moderator {
    /// Starts the thread.
    pub(super) fn start(state: &Arc<State>, connections: &Arc<Connections>) -> io::Result<Self> {
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let (state, connections) = (Arc::clone(state), Arc::clone(connections));
        let thread =
            threads::spawn_vital("moderator", move || run(&state, &connections, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread. One that still asks the backplane ends once it is answered.
    pub(super) fn close(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// Reads the bans into the state.
pub(super) fn read_bans(state: &State) -> Result<(), BackplaneError> {
    let bans = state.backplane.bans()?;
    *lock(&state.bans) = bans;
    Ok(())
}

/// The deletions that this instance knows.
fn deletions(state: &State) -> BTreeSet<Banned> {
    let bans = lock(&state.bans);
    let deletions = bans.keys().filter(|banned| banned.is_deletion());
    deletions.cloned().collect()
}

/// Tells the members of rooms here what was deleted since `told`.
fn tell_deletions(state: &State, told: &mut BTreeSet<Banned>) {
    let now = deletions(state);
    let mut news: BTreeMap<RoomName, Deletions> = BTreeMap::new();
    for banned in now.difference(told) {
        match banned {
            Banned::User(_) | Banned::Room(_) => {}
            Banned::Message(room, id) => {
                news.entry(room.clone()).or_default().ids.insert(*id);
            }
            Banned::Past(room, id) => news.entry(room.clone()).or_default().up_to = Some(*id),
        }
    }
    for (room, deletions) in news {
        state.hub.tell_deleted(deleted(room, deletions, false));
    }
    *told = now;
}

fn run(state: &State, connections: &Connections, stopped: &Receiver<()>) {
    let orders = state.hub.orders();
    let (mut is_unread, mut is_told) = (false, false);
    let mut told = deletions(state);
    loop {
        let pause = match is_unread {
            true => crossbeam_channel::after(READ_AGAIN),
            false => crossbeam_channel::never(),
        };
        select! {
            recv(stopped) -> _ => return,
            recv(pause) -> _ => {}
            recv(orders) -> order => {
                // All that wait: after many changes the bans are read once.
                for order in order.into_iter().chain(orders.try_iter()) {
                    match order {
                        Order::Disconnect(user) => {
                            connections.put_out(|one| (*one == user).then(|| DISCONNECTED.to_owned()));
                        }
                        Order::ReadBans => is_unread = true,
                    }
                }
            }
        }
        if !is_unread {
            continue;
        }
        match read_bans(state) {
            Ok(()) => {
                (is_unread, is_told) = (false, false);
                tell_deletions(state, &mut told);
            }
            Err(why) if !is_told => {
                warn!("the bans cannot be read, so the last known hold: {why}");
                is_told = true;
            }
            Err(_) => {}
        }
        connections.put_out(|user| state.why_banned(user));
        connections.part(|room| state.why_closed(room));
    }
}
