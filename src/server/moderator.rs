//! The moderator: the thread that carries out the orders of operators on this instance, and knows the bans.
//!
//! It reads the bans whenever they may have changed, also after each cut of the subscription, since an order may
//! have been missed meanwhile. Until they can be read, those that are known hold.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, select};
use log::warn;

use super::answers::deleted;
use super::connection::Connections;
use super::state::State;
use crate::backplane::{BackplaneError, Banned};
use crate::hub::Order;
use crate::message::MessageId;
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

/// Reads the bans into the state. Returns those that were not known.
pub(super) fn read_bans(state: &State) -> Result<Vec<Banned>, BackplaneError> {
    let bans = state.backplane.bans()?;
    let mut known = lock(&state.bans);
    let news = bans.keys().filter(|banned| !known.contains_key(banned));
    let news = news.cloned().collect();
    *known = bans;
    Ok(news)
}

/// Tells the members of rooms what was deleted there.
fn tell_deletions(state: &State, connections: &Connections, news: &[Banned]) {
    let rooms = news.iter().filter_map(|banned| match banned {
        Banned::Message(room, _) | Banned::Past(room, _) => Some(room),
        Banned::User(_) | Banned::Room(_) => None,
    });
    for room in rooms.collect::<BTreeSet<_>>() {
        let mut deletions = state.deletions(room);
        let is_new = |id: &MessageId| news.contains(&Banned::Message(room.clone(), *id));
        deletions.ids.retain(is_new);
        let past = deletions.up_to.map(|id| Banned::Past(room.clone(), id));
        deletions.up_to = deletions
            .up_to
            .filter(|_| past.is_some_and(|past| news.contains(&past)));
        connections.tell(room, &deleted(room.clone(), deletions));
    }
}

fn run(state: &State, connections: &Connections, stopped: &Receiver<()>) {
    let orders = state.hub.orders();
    let (mut is_unread, mut is_told) = (false, false);
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
            Ok(news) => {
                (is_unread, is_told) = (false, false);
                tell_deletions(state, connections, &news);
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
