//! The moderator: the thread that carries out the orders of operators on this instance, and knows the bans.
//!
//! It reads the bans whenever they may have changed, also after each cut of the subscription, since an order may
//! have been missed meanwhile. Until they can be read, those that are known hold.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, select};
use log::warn;

use super::connection::Connections;
use super::state::State;
use crate::backplane::BackplaneError;
use crate::hub::Order;
use crate::threads;
use crate::threads::lock;

/// The pause before the bans are read again that could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);

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

fn run(state: &State, connections: &Connections, stopped: &Receiver<()>) {
    let orders = state.hub.orders();
    let mut is_unread = false;
    loop {
        let pause = match is_unread {
            true => crossbeam_channel::after(READ_AGAIN),
            false => crossbeam_channel::never(),
        };
        select! {
            recv(stopped) -> _ => return,
            recv(pause) -> _ => {}
            recv(orders) -> order => match order {
                Ok(Order::Disconnect(user)) => {
                    let sentence = "an operator disconnected this user";
                    connections.put_out(|one| (*one == user).then(|| sentence.to_owned()));
                    continue;
                }
                Ok(Order::ReadBans) => {}
                // The hub ends after this thread.
                Err(_) => return,
            },
        }
        let was_unread = is_unread;
        is_unread = match read_bans(state) {
            Ok(()) => false,
            Err(why) => {
                if !was_unread {
                    warn!("the bans cannot be read, and the last known hold: {why}");
                }
                true
            }
        };
        connections.put_out(|user| state.why_banned(user));
        connections.part(|room| state.why_closed(room));
    }
}
