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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;
    use crate::backplane::redis::listener::tests::nowhere;
    use crate::backplane::redis::news::NewsSender;
    use crate::backplane::redis::wire::PubSub;

    /// Longer than any time-out here.
    const LONG: Duration = Duration::from_secs(60);

    /// A handle whose thread is the test, and that thread's ends.
    fn subscriber() -> (Subscriber, Receiver<Task>, Sender<()>) {
        let to = nowhere(PubSub::Plain, NewsSender(None));
        let wake = wire::to_myself(&to.keys, WAKE);
        let publisher = Publisher::start(to, None).expect("its threads");
        let (asks, asked) = crossbeam_channel::unbounded();
        let (started, stands) = crossbeam_channel::bounded(1);
        let subscriber = Subscriber {
            asks,
            subscription: Arc::default(),
            publisher: Arc::new(publisher),
            wake,
            stands,
            thread: Mutex::default(),
        };
        (subscriber, asked, started)
    }

    fn long_ago() -> Option<Instant> {
        Instant::now().checked_sub(LONG)
    }

    #[test]
    fn it_is_ready_unless_it_is_dead_or_behind_for_long() {
        let (subscriber, ..) = subscriber();
        let behind = |since| {
            *lock(&subscriber.subscription.behind_since) = since;
            subscriber.ready()
        };
        assert!(behind(None).is_err(), "nothing was heard yet");
        subscriber.subscription.alive.store(true, Ordering::Release);
        assert_eq!(behind(None), Ok(()));
        assert_eq!(behind(Some(Instant::now())), Ok(()));
        let why = behind(long_ago()).expect_err("not ready");
        assert!(why.contains("cannot be read"), "{why}");
        assert_eq!(subscriber.cuts(), 0);
        subscriber.subscription.cuts.store(3, Ordering::Relaxed);
        assert_eq!(subscriber.cuts(), 3);
    }

    #[test]
    fn a_subscription_that_was_just_lost_is_waited_for_and_one_that_is_gone_is_not() {
        let (subscriber, asked, _) = subscriber();
        let room = RoomName::lobby();
        *lock(&subscriber.subscription.lost_at) = Some(Instant::now());
        let heard = thread::scope(|scope| {
            let heard = scope.spawn(|| subscriber.hear(&room));
            if let Ok(Task::Hear(_, tell)) = asked.recv_timeout(LONG) {
                let _ = tell.send(());
            }
            heard.join().expect("no panic")
        });
        assert_eq!(heard, Ok(()));
        *lock(&subscriber.subscription.lost_at) = long_ago();
        assert_eq!(subscriber.hear(&room), Err(BackplaneError::Unavailable));
        assert!(asked.is_empty(), "it is told at once");
        lock(&subscriber.subscription.heard).insert(room.clone());
        assert_eq!(subscriber.hear(&room), Ok(()));
        subscriber.may_forget(&room);
        assert!(matches!(asked.try_recv(), Ok(Task::MayForget(_))));
    }

    #[test]
    fn its_start_and_its_end_are_waited_for() {
        let (subscriber, asked, started) = subscriber();
        let why = subscriber.wait_until_heard(Instant::now());
        assert!(why.is_err_and(|why| why.contains("SUBSCRIBE")));
        started.send(()).expect("it waits");
        assert_eq!(subscriber.wait_until_heard(Instant::now() + LONG), Ok(()));
        let ended = Arc::new(AtomicBool::new(false));
        let thread = threads::spawn_vital("subscriber", {
            let ended = Arc::clone(&ended);
            move || {
                let stop = asked.recv();
                ended.store(matches!(stop, Ok(Task::Stop)), Ordering::Release);
            }
        });
        *lock(&subscriber.thread) = Some(thread.expect("a thread"));
        subscriber.stop();
        subscriber.join();
        assert!(ended.load(Ordering::Acquire));
    }
}
