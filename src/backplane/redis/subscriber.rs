//! The subscriber: the Pub/Sub connection, and the thread that owns it ([`Listener`]).
//!
//! It alone delivers messages to the hub, each room's in one order without a hole. The log is the
//! truth and Pub/Sub a hint: a room is *current* while each message heard names the last one
//! delivered as its predecessor. When one does not, or after a cut, the room is *behind*: what is
//! heard of it is ignored until its log has been read from where it was left. What the log no
//! longer holds becomes a gap.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use redis::Cmd;

use super::listener::Listener;
use super::placement::Share;
use super::publisher::{Connecting, Publisher};
use super::subscription::{Subscription, Task};
use super::wire;
use crate::backplane::{ANSWER_WITHIN, BackplaneError};
use crate::hub::Hub;
use crate::message::RoomName;
use crate::threads;
use crate::threads::lock;

/// For so long a room may be behind before the instance is not ready.
const BEHIND_IS_NORMAL: Duration = Duration::from_secs(1);

/// A subscription that was lost for longer than this is not waited for: the session that asks has other rooms, too.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(1);

const WAKE: &str = "wake";

/// The handle that everyone shares.
pub(super) struct Subscriber {
    asks: Sender<Task>,
    subscription: Arc<Subscription>,
    publisher: Arc<Publisher>,
    wake: Cmd,
    /// Told once, when the first subscription stands.
    stands: Receiver<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Subscriber {
    /// Starts the thread, which connects. `share` tells which rooms it has to hear.
    pub(super) fn start(
        to: &Connecting,
        share: Share,
        hub: &Arc<Hub>,
        publisher: &Arc<Publisher>,
    ) -> io::Result<Self> {
        let (asks, asked) = crossbeam_channel::unbounded();
        let subscription = Arc::new(Subscription::default());
        let (started, stands) = crossbeam_channel::bounded(1);
        let wake = wire::to_myself(&to.keys, WAKE);
        let listener = Listener::new(
            to.clone(),
            share,
            hub,
            publisher,
            &subscription,
            asked,
            started,
        );
        let thread = threads::spawn_vital("subscriber", move || listener.run())?;
        Ok(Self {
            asks,
            subscription,
            publisher: Arc::clone(publisher),
            wake,
            stands,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Gives the thread a task, and wakes it up.
    pub(super) fn ask(&self, ask: Task) {
        let _ = self.asks.send(ask);
        self.publisher.fire_and_forget(&self.wake);
    }

    /// Returns once the room is heard; see [`Backplane::subscribe`](crate::backplane::Backplane).
    pub(super) fn hear(&self, room: &RoomName) -> Result<(), BackplaneError> {
        if lock(&self.subscription.heard).contains(room) {
            return Ok(());
        }
        let lost_at = *lock(&self.subscription.lost_at);
        if lost_at.is_some_and(|at| at.elapsed() > COMES_BACK_WITHIN) {
            return Err(BackplaneError::Unavailable);
        }
        let (tell, told) = crossbeam_channel::bounded(1);
        self.ask(Task::Hear(room.clone(), tell));
        told.recv_timeout(ANSWER_WITHIN)
            .map_err(|_| BackplaneError::Unavailable)
    }

    /// Looks a while later whether the room still has a member.
    pub(super) fn may_forget(&self, room: &RoomName) {
        // No hurry, so no wake-up.
        let _ = self.asks.send(Task::MayForget(room.clone()));
    }

    /// The way to the thread: the keeper hands it the lists of members, since one thread alone delivers to
    /// the hub.
    pub(super) fn tasks(&self) -> Sender<Task> {
        self.asks.clone()
    }

    /// Whether the subscription was proven alive lately and its rooms can be caught up with; if
    /// not, why.
    pub(super) fn ready(&self) -> Result<(), String> {
        if !self.subscription.alive.load(Ordering::Acquire) {
            return Err("the subscription is not alive".to_owned());
        }
        match *lock(&self.subscription.behind_since) {
            Some(since) if since.elapsed() > BEHIND_IS_NORMAL => {
                Err("rooms are behind, and their logs cannot be read".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Tells how often the subscription was made.
    pub(super) fn epochs(&self) -> Box<dyn Fn() -> u64 + Send> {
        let subscription = Arc::clone(&self.subscription);
        Box::new(move || subscription.epoch.load(Ordering::Acquire))
    }

    /// At start: waits until the subscription stands.
    pub(super) fn wait_until_heard(&self, deadline: Instant) -> Result<(), String> {
        self.stands
            .recv_deadline(deadline)
            .map_err(|_| "it does not confirm a subscription (is SUBSCRIBE allowed?)".to_owned())
    }

    /// The number of times that the subscription was lost.
    pub(super) fn cuts(&self) -> u64 {
        self.subscription.cuts.load(Ordering::Relaxed)
    }

    /// The thread unsubscribes, closes the connection, and ends.
    pub(super) fn stop(&self) {
        self.ask(Task::Stop);
    }

    /// Waits until the thread has ended.
    pub(super) fn join(&self) {
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}
