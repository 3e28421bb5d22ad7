//! The subscriber's thread: connects, hears, follows each room's chain, and catches up with the rooms
//! that are behind. It alone reads the Pub/Sub connection.

mod catch_up;
mod handover;
mod probe;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::{debug, info, warn};
use redis::{Connection, PushKind, RedisError, Value};

use self::probe::{Due, Probe};
use super::address::describe;
use super::chain::{Chain, Heard, follow, tell_loss};
use super::orders;
use super::placement::Share;
use super::publisher::{Connecting, Publisher};
use super::source::ANOTHER_MASTER;
use super::subscription::{CONFIRM_WITHIN, Subscription, Task};
use super::wire::{self, Payload, PubSub};
use super::{RETRY_CAP, RETRY_FIRST};
use crate::backoff::Backoff;
use crate::backplane::ANSWER_WITHIN;
use crate::hub::{Delivery, Hub, Order, Pace};
use crate::message::RoomName;
use crate::metrics;
use crate::threads::lock;

/// The read time-out of the Pub/Sub connection: the thread checks its deadlines at least this often. A wake-up ends
/// the read earlier. Each time-out wakes the thread, which costs a quiet instance most.
const GLANCE: Duration = Duration::from_millis(250);

/// The same while Redis has yet to confirm a subscription, or while rooms are behind.
const CLOSE_GLANCE: Duration = Duration::from_millis(50);

/// A read shorter than this found a message that had been waiting; more may wait behind it
/// ([`Pace::Busy`]).
const THERE_ALREADY: Duration = Duration::from_micros(50);

/// A room without members is still heard for this long, since a member may come right back.
const LINGER: Duration = Duration::from_secs(5);

/// The most channels in one SUBSCRIBE.
const CHANNELS_AT_ONCE: usize = 1000;

const PROBE: &str = "probe";

/// A node of a cluster confirms a subscription within this time, or its slot is on another node. The `redis`
/// crate skips a refusal, so that a missing confirmation itself has to tell.
const CONFIRM_ON_NODE: Duration = Duration::from_millis(250);

/// Why the subscription ended.
enum Cut {
    /// A sentence.
    Failed(String),
    NotConfirmed(RoomName),
    NoSignOfLife,
    Stopping,
}

impl From<RedisError> for Cut {
    fn from(error: RedisError) -> Self {
        Self::Failed(describe(&error))
    }
}

/// The thread's own state.
pub(super) struct Listener {
    to: Connecting,
    /// The source's generation when it was connected to.
    generation: u64,
    /// The time-out that is set.
    glance: Duration,
    /// The rooms that this thread has to hear.
    share: Share,
    hub: Arc<Hub>,
    publisher: Arc<Publisher>,
    subscription: Arc<Subscription>,
    asked: Receiver<Task>,
    /// By channel.
    rooms: HashMap<String, Heard>,
    /// The channels among them that have to be subscribed to.
    wanted: Vec<String>,
    /// The channels of rooms that were given away, whose subscription has to be ended.
    unwanted: Vec<String>,
    /// The number of subscriptions that Redis has yet to confirm.
    unconfirmed: usize,
    /// When to look next whether a confirmation is overdue.
    overdue_at: Instant,
    /// The channels that are confirmed and not current.
    behind: HashSet<String>,
    catch_up_at: Instant,
    /// Since when confirmations are waited for before logs are read.
    collecting_since: Option<Instant>,
    /// The channels whose log key holds a value of another type, and when to read it again.
    unreadable: HashMap<String, Instant>,
    /// Rooms that may have no member any more, and when to look.
    forgetting: Vec<(Instant, RoomName)>,
    probe: Probe,
    started: Option<Sender<()>>,
    lost_at: Option<Instant>,
    stopping: bool,
}

impl Listener {
    /// Not connected yet; `started` is told once, when the first subscription stands.
    pub(super) fn new(
        to: Connecting,
        share: Share,
        hub: &Arc<Hub>,
        publisher: &Arc<Publisher>,
        subscription: &Arc<Subscription>,
        asked: Receiver<Task>,
        started: Sender<()>,
    ) -> Self {
        Self {
            generation: to.source.generation(),
            glance: GLANCE,
            to,
            share,
            hub: Arc::clone(hub),
            publisher: Arc::clone(publisher),
            subscription: Arc::clone(subscription),
            asked,
            rooms: HashMap::new(),
            wanted: Vec::new(),
            unwanted: Vec::new(),
            unconfirmed: 0,
            overdue_at: Instant::now(),
            behind: HashSet::new(),
            catch_up_at: Instant::now(),
            collecting_since: None,
            unreadable: HashMap::new(),
            forgetting: Vec::new(),
            probe: Probe::Sent(Instant::now()),
            started: Some(started),
            lost_at: None,
            stopping: false,
        }
    }

    pub(super) fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        loop {
            let cut = match self.connect() {
                Ok(mut connection) => {
                    let cut = self.listen(&mut connection, &mut backoff);
                    if matches!(cut, Cut::Stopping) {
                        let _ = redis::cmd("UNSUBSCRIBE")
                            .set_no_response(true)
                            .exec(&mut connection);
                        return;
                    }
                    cut
                }
                Err(why) => Cut::Failed(why),
            };
            self.lost(&cut);
            if self.pause(backoff.next()) {
                return;
            }
        }
    }

    /// Connects. The error is a sentence.
    fn connect(&mut self) -> Result<Connection, String> {
        self.generation = self.to.source.generation();
        let connection = self.to.source.connect()?;
        self.glance = GLANCE;
        let set = connection.set_read_timeout(Some(self.glance));
        set.map_err(|error| describe(&error))?;
        Ok(connection)
    }

    fn lost(&mut self, cut: &Cut) {
        self.hub.flush(|room| self.share.holds(room));
        lock(&self.subscription.heard).clear();
        lock(&self.subscription.lost_at).get_or_insert_with(Instant::now);
        self.subscription.alive.store(false, Ordering::Release);
        self.behind.clear();
        self.unreadable.clear();
        *lock(&self.subscription.behind_since) = None;
        for heard in self.rooms.values_mut() {
            heard.chain.cut();
        }
        if let Cut::NotConfirmed(_) = cut {
            // Redis may refuse some for good. The sessions that wait for them stop at their deadline.
            self.rooms.retain(|_, heard| heard.chain != Chain::Unknown);
        }
        let why = match cut {
            Cut::Failed(why) => why.clone(),
            Cut::NotConfirmed(room) => format!("room {room:?} was not confirmed"),
            Cut::NoSignOfLife => "no sign of life".to_owned(),
            Cut::Stopping => return,
        };
        let name = &self.to.name;
        if self.lost_at.is_none() {
            self.lost_at = Some(Instant::now());
            metrics::SUBSCRIPTION_CUTS.count();
            self.subscription.cuts.fetch_add(1, Ordering::Relaxed);
            warn!("the subscription is cut at {name} ({why}): it will be caught up with");
        } else {
            debug!("no subscription at {name} yet: {why}");
        }
    }

    /// Waits before the next attempt, and takes note of what is asked meanwhile. True to stop.
    fn pause(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            match self.asked.recv_deadline(until) {
                Ok(ask) => self.note(ask),
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
            if self.stopping {
                return true;
            }
        }
    }

    /// Takes note of what is asked, without talking to Redis.
    fn note(&mut self, ask: Task) {
        match ask {
            Task::Hear(room, tell) => {
                if lock(&self.subscription.heard).contains(&room) {
                    let _ = tell.send(());
                    return;
                }
                let until = Instant::now() + ANSWER_WITHIN;
                let heard = Heard::anew(room, vec![(until, tell)]);
                if self.share.holds(&heard.room) {
                    self.take(heard);
                } else {
                    self.to.news.unassigned(&self.to.name, vec![heard]);
                }
            }
            Task::MayForget(room) => self.forgetting.push((Instant::now() + LINGER, room)),
            Task::Present(room, list) => {
                if self.share.holds(&room) {
                    self.hub.deliver(&room, Delivery::Present(list), Pace::Busy);
                }
            }
            Task::Share(share) => self.take_share(share),
            Task::Adopt(rooms) => self.adopt(rooms),
            Task::Stop => self.stopping = true,
        }
    }

    /// One subscription's life.
    fn listen(&mut self, connection: &mut Connection, backoff: &mut Backoff) -> Cut {
        match self.listening(connection, backoff) {
            Ok(never) => match never {},
            Err(cut) => cut,
        }
    }

    fn listening(
        &mut self,
        connection: &mut Connection,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, Cut> {
        self.forget_unhosted();
        // In this order: once the subscription stands, no order is missed.
        let keys = &self.to.keys;
        connection.subscribe_resp3(&[keys.orders(), keys.control()])?;
        self.probe = Probe::Sent(Instant::now());
        self.wanted = self.rooms.keys().cloned().collect();
        self.unwanted.clear();
        self.unconfirmed = 0;
        for heard in self.rooms.values_mut() {
            heard.asked = None;
        }
        self.subscribe(connection)?;
        loop {
            let begin = Instant::now();
            match connection.recv_response() {
                Ok(Value::Push { kind, data }) => {
                    let pace = match begin.elapsed() < THERE_ALREADY {
                        true => Pace::Busy,
                        false => Pace::Calm,
                    };
                    if self.hear(&kind, &data, pace) {
                        backoff.reset();
                    }
                }
                Ok(_) => {}
                Err(error) if error.is_timeout() || is_interruption(&error) => {}
                Err(error) => return Err(error.into()),
            }
            if self.to.source.generation() != self.generation {
                return Err(Cut::Failed(ANOTHER_MASTER.to_owned()));
            }
            self.take_asks(connection)?;
            let due = self.look_after(connection)?;
            self.catch_up_if_due();
            self.set_glance(connection, due)?;
        }
    }

    /// Does what was asked meanwhile.
    fn take_asks(&mut self, connection: &mut Connection) -> Result<(), Cut> {
        if self.asked.is_empty() && self.unwanted.is_empty() {
            return Ok(());
        }
        while let Ok(ask) = self.asked.try_recv() {
            self.note(ask);
        }
        if self.stopping {
            return Err(Cut::Stopping);
        }
        self.subscribe(connection)
    }

    /// Ends the subscriptions to the channels that are unwanted, and subscribes to those that are wanted.
    fn subscribe(&mut self, connection: &mut Connection) -> Result<(), Cut> {
        let unwanted = std::mem::take(&mut self.unwanted);
        for some in unwanted.chunks(CHANNELS_AT_ONCE) {
            let commands = some
                .iter()
                .map(|channel| self.pubsub().unsubscribe(channel));
            let commands: Vec<_> = commands.collect();
            connection.send_packed_command(&commands.concat())?;
        }
        let now = Instant::now();
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.retain(|channel| {
            let heard = self.rooms.get_mut(channel);
            if let Some(heard) = heard {
                self.unconfirmed += usize::from(heard.asked.replace(now).is_none());
                return true;
            }
            false
        });
        for some in wanted.chunks(CHANNELS_AT_ONCE) {
            connection.send_packed_command(&self.pubsub().subscribe(some))?;
        }
        Ok(())
    }

    fn pubsub(&self) -> PubSub {
        self.to.scripts.pubsub()
    }

    /// Sets the time-out of the next read. `due` is when the next notices have to be told.
    fn set_glance(&mut self, connection: &Connection, due: Option<Instant>) -> Result<(), Cut> {
        let is_quiet = self.unconfirmed == 0 && self.behind.is_empty();
        let mut glance = if is_quiet { GLANCE } else { CLOSE_GLANCE };
        if let Some(due) = due {
            let left = due.saturating_duration_since(Instant::now());
            // A socket has no time-out of zero.
            glance = glance.min(left.max(Duration::from_millis(1)));
        }
        if glance != self.glance {
            connection.set_read_timeout(Some(glance))?;
            self.glance = glance;
        }
        Ok(())
    }

    /// Deadlines: notices, confirmations, the probe, rooms to forget. Returns when the next notices are due.
    fn look_after(&mut self, connection: &mut Connection) -> Result<Option<Instant>, Cut> {
        let now = Instant::now();
        let due = self.hub.flush_due(now, |room| self.share.holds(room));
        self.probe(now)?;
        if self.unconfirmed > 0 && now >= self.overdue_at {
            self.overdue_at = now + CLOSE_GLANCE;
            self.overdue(connection, now)?;
        }
        if self.subscription.alive.load(Ordering::Acquire) {
            self.forget_due(connection, now)?;
        }
        Ok(due)
    }

    fn probe(&mut self, now: Instant) -> Result<(), Cut> {
        // Without the publisher no probe goes out, and so none can come back.
        match self.probe.due(now, self.publisher.link().is_connected()) {
            Due::Nothing => {}
            Due::Probe => self
                .publisher
                .fire_and_forget(&wire::to_myself(&self.to.keys, PROBE)),
            Due::End => return Err(Cut::NoSignOfLife),
        }
        Ok(())
    }

    /// Looks for subscriptions that were not confirmed in time.
    fn overdue(&mut self, connection: &mut Connection, now: Instant) -> Result<(), Cut> {
        let within = match self.pubsub() {
            PubSub::Plain => CONFIRM_WITHIN,
            PubSub::Sharded => CONFIRM_ON_NODE,
        };
        let late = |heard: &Heard| {
            let asked = heard.asked;
            asked.is_some_and(|asked| now.duration_since(asked) > within)
        };
        let mut late = self
            .rooms
            .iter()
            .filter(|(_, heard)| late(heard))
            .peekable();
        match (late.peek(), self.pubsub()) {
            (None, _) => Ok(()),
            (Some((_, heard)), PubSub::Plain) => Err(Cut::NotConfirmed(heard.room.clone())),
            (Some(_), PubSub::Sharded) => {
                // Until there is a new map, the node is asked again.
                self.wanted.extend(late.map(|(channel, _)| channel.clone()));
                self.to.news.stale(Some(&self.to.name));
                self.subscribe(connection)
            }
        }
    }

    /// Takes in what Redis pushed. True when the subscription itself was confirmed.
    fn hear(&mut self, kind: &PushKind, data: &[Value], pace: Pace) -> bool {
        let Some(Value::BulkString(channel)) = data.first() else {
            return false;
        };
        let Ok(channel) = std::str::from_utf8(channel) else {
            return false;
        };
        self.probe.hears(Instant::now());
        match (kind, data.get(1)) {
            (PushKind::Message | PushKind::SMessage, Some(Value::BulkString(payload))) => {
                if let Some(heard) = self.rooms.get_mut(channel) {
                    match wire::payload(payload) {
                        Some(Payload::Message(entry)) => {
                            if !follow(&self.hub, heard, entry, pace) {
                                self.falls_behind(channel);
                            }
                        }
                        Some(Payload::Loss(loss)) => {
                            if !tell_loss(&self.hub, heard, &loss, pace) {
                                self.falls_behind(channel);
                            }
                        }
                        Some(Payload::Notice(notice)) => {
                            let notice = Delivery::Notice(notice);
                            self.hub.deliver(&heard.room, notice, pace);
                        }
                        None => warn!("{channel}: something that is not Hubbub's was published"),
                    }
                } else if channel == self.to.keys.orders() {
                    match orders::parse(payload) {
                        Some(order) => self.hub.order(order),
                        None => warn!("{channel}: something that is no order was published"),
                    }
                }
                false
            }
            (PushKind::SUnsubscribe, _) => {
                // While it is asked for anew, this confirms that it was ended before.
                let moved = self
                    .rooms
                    .get(channel)
                    .is_some_and(|heard| heard.asked.is_none());
                if moved {
                    self.give_away(&[channel.to_owned()]);
                    self.to.news.stale(Some(&self.to.name));
                }
                false
            }
            (PushKind::Subscribe | PushKind::SSubscribe, _) => {
                if let Some(heard) = self.rooms.get_mut(channel) {
                    if heard.asked.take().is_some() {
                        self.unconfirmed -= 1;
                    }
                    self.behind.insert(channel.to_owned());
                    self.catch_up_at = Instant::now();
                    return false;
                }
                // Any other channel is of a room that was forgotten before its subscription was confirmed.
                let stands = channel == self.to.keys.control();
                if stands {
                    self.stands();
                }
                stands
            }
            _ => false,
        }
    }

    /// The room's log has to be read.
    fn falls_behind(&mut self, channel: &str) {
        if let Some(heard) = self.rooms.get(channel) {
            lock(&self.subscription.heard).remove(&heard.room);
            self.behind.insert(channel.to_owned());
            self.catch_up_at = Instant::now();
        }
    }

    /// The control channel is confirmed: the subscription stands.
    fn stands(&mut self) {
        *lock(&self.subscription.lost_at) = None;
        self.hub.order(Order::ReadBans);
        self.subscription.epoch.fetch_add(1, Ordering::AcqRel);
        self.subscription.alive.store(true, Ordering::Release);
        if let Some(started) = self.started.take() {
            let _ = started.send(());
        }
        if let Some(lost) = self.lost_at.take() {
            info!(
                "subscribed again after {:.1} s at {}; {} rooms to catch up with",
                lost.elapsed().as_secs_f64(),
                self.to.name,
                self.rooms.len()
            );
        }
    }

    fn forget_due(&mut self, connection: &mut Connection, now: Instant) -> Result<(), Cut> {
        if self.forgetting.first().is_none_or(|(at, _)| *at > now) {
            return Ok(());
        }
        let due = self.forgetting.partition_point(|(at, _)| *at <= now);
        let rooms: Vec<_> = self.forgetting.drain(..due).collect();
        for (_, room) in rooms {
            // In this order: see `Subscription::heard`.
            let was_heard = lock(&self.subscription.heard).remove(&room);
            if self.hub.hosts(&room) {
                if was_heard {
                    lock(&self.subscription.heard).insert(room);
                }
                continue;
            }
            let channel = self.to.keys.channel(&room);
            if self.forget(&channel).is_some() {
                connection.send_packed_command(&self.pubsub().unsubscribe(&channel))?;
            }
        }
        if self.behind.is_empty() {
            *lock(&self.subscription.behind_since) = None;
        }
        self.subscribe(connection)
    }

    /// Before subscribing anew: rooms without members need not be heard.
    fn forget_unhosted(&mut self) {
        let hub = &self.hub;
        self.rooms.retain(|_, heard| hub.hosts(&heard.room));
    }
}

/// A process that is stopped and continued finds its reads interrupted. The crate tells it from no other
/// I/O error, and shows its cause as it keeps it, in an `Arc`.
fn is_interruption(error: &RedisError) -> bool {
    type Cause = Arc<dyn std::error::Error + Send + Sync>;
    let cause = std::error::Error::source(error).and_then(|error| error.downcast_ref::<Cause>());
    let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|error| error.kind() == io::ErrorKind::Interrupted)
}

#[cfg(test)]
pub(super) mod tests;
