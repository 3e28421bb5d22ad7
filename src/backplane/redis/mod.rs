//! The Redis backplane: any number of instances on one Redis, on several, or on a cluster.
//!
//! A [`shard`] is one master. Three threads serve it. The [`publisher`] owns the one connection for commands, and
//! writes all that wait in one batch. The [`receipts`] thread runs the callbacks of large batches of answers; the
//! publisher's thread runs those of small ones. The [`subscriber`] owns the Pub/Sub connection, fills gaps and
//! delivers to the hub. The [`router`] says which shard a room is on. The [`keeper`] renews this instance on all of
//! them and announces the users that are gone.
//!
//! Read [`keys`], [`wire`] and the `.lua` files, which are the atomic steps; then [`receipts`], [`pipeline`], [`link`]
//! and [`publisher`] for the way in; [`chain`], [`listener`], [`subscription`] and [`subscriber`] for the way out; then
//! [`schedule`], [`presence`] and the [`keeper`], and [`single_flight`], which makes its lists cheap; [`index`], for the
//! list of rooms; [`archive`], for export and import; [`orders`], for operators; and [`lease`], for webhooks. More than
//! one server: [`address`], [`nature`] and [`placement`], then [`source`] and [`sentinel`], or [`news`], [`slot_map`]
//! and [`cluster`]; and [`acknowledged`], for what a failover lost. Nothing outside this folder knows the `redis` crate.

mod placement;
mod keys;
mod archive;
mod lease;
mod acknowledged;
mod wire;
mod orders;
mod nature;
mod address;
mod sentinel;
mod source;
mod receipts;
mod pipeline;
mod chain;
mod news;
mod link;
mod publisher;
mod subscription;
mod listener;
mod subscriber;
mod schedule;
mod presence;
mod single_flight;
mod index;
mod shard;
mod slot_map;
mod cluster;
mod router;
mod keeper;
#[cfg(test)]
mod model;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ::redis::{Cmd, Value};

pub use self::address::RedisAddress;

use self::address::Form;
use self::cluster::RedisCluster;
use self::index::{RoomIndex, RoomNews};
use self::keeper::Keeper;
use self::keys::Keys;
use self::news::NewsSender;
use self::placement::Share;
use self::presence::Users;
use self::publisher::Connecting;
use self::router::Router;
use self::sentinel::SentinelWatch;
use self::shard::Shard;
use self::source::Source;
use self::subscription::CONFIRM_WITHIN;
use self::wire::{PubSub, Scripts};
use super::{
    Backplane, BackplaneError, Ban, Banned, Departure, Draft, Entrance, Excerpt, Receipt,
    Retention, ShardState, can_follow,
};
use crate::hub::{Hub, Order};
use crate::message::{Entry, MessageId, RoomName, UserName};
use crate::protocol::{Cursor, ListedRoom};

/// The time-out of a batch of commands. With the time for an attempt to connect it stays below
/// [`super::ANSWER_WITHIN`]: a command may wait for one of each.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(1500);

/// The ceiling of the first and of the longest wait between two attempts to connect.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(1);

/// Why a Redis cannot be used at start. The operator acts next.
#[derive(Debug)]
pub struct ConnectError {
    address: String,
    why: String,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot use Redis at {}: {}", self.address, self.why)
    }
}

impl std::error::Error for ConnectError {}

/// Many instances, and the Redis servers that they share.
pub struct Redis {
    keys: Keys,
    router: Arc<Router>,
    keeper: Keeper,
    room_news: Arc<RoomNews>,
    retention: Retention,
    in_flight: Arc<AtomicUsize>,
}

impl Redis {
    /// Connects, checks that these servers can do what is needed, and starts the threads. Deliveries
    /// go to `hub`; keys and channels begin with `prefix`. There is at least one address; of several, each has a
    /// part of the rooms.
    pub fn start(
        addresses: &[RedisAddress],
        prefix: &str,
        hub: &Arc<Hub>,
        retention: Retention,
    ) -> Result<Self, ConnectError> {
        let fail = |address: &RedisAddress, why: String| ConnectError {
            address: address.to_string(),
            why,
        };
        let keys = Keys::new(prefix, hub.instance());
        let users = Users::new(hub, &retention);
        let deadline = || Instant::now() + CONFIRM_WITHIN;
        let router = match addresses {
            [address @ RedisAddress(Form::Cluster { seeds, nodes })] => {
                let scripts = Scripts::new(PubSub::Sharded);
                let cluster = RedisCluster::start(seeds, nodes, &keys, &scripts, &users)
                    .map_err(|why| fail(address, why))?;
                let (shards, deadline) = (cluster.shards(), deadline());
                // One that is away keeps nobody from the others.
                let heard = shards.iter().map(|one| one.wait_until_heard(deadline));
                if heard.filter(Result::is_ok).count() == 0 {
                    let names: Vec<_> = shards.iter().map(|shard| shard.name()).collect();
                    let why = format!(
                        "none of its masters can be used at the address that it announces ({})",
                        names.join(", ")
                    );
                    return Err(fail(address, why));
                }
                Router::Cluster(cluster)
            }
            _ => {
                let shards: Result<_, _> = (0..addresses.len())
                    .map(|index| {
                        let shard = start_server(addresses, index, &keys, &users);
                        shard.map_err(|why| fail(&addresses[index], why))
                    })
                    .collect();
                let shards: Vec<_> = shards?;
                for (shard, address) in shards.iter().zip(addresses) {
                    let heard = shard.wait_until_heard(deadline());
                    heard.map_err(|why| fail(address, why))?;
                }
                Router::Servers(shards)
            }
        };
        let router = Arc::new(router);
        let room_news = Arc::<RoomNews>::default();
        let index = RoomIndex::new(&keys, &room_news, &retention);
        let keeper = Keeper::start(&router, &users, index).map_err(|error| {
            let why = format!("no thread for it: {error}");
            fail(&addresses[0], why)
        })?;
        Ok(Self {
            keys,
            router,
            keeper,
            room_news,
            retention,
            in_flight: Arc::default(),
        })
    }

    fn shard(&self, room: &RoomName) -> Result<Arc<Shard>, BackplaneError> {
        self.router.shard(room).ok_or(BackplaneError::Unavailable)
    }

    /// Runs a command about a key that is of no room.
    fn call_on(&self, key: &str, command: &Cmd) -> Result<Value, BackplaneError> {
        let shard = self.router.shard_of_key(key);
        shard.ok_or(BackplaneError::Unavailable)?.call(command)
    }
}

/// Connects to the server at this index, and starts its shard. The error is a sentence.
fn start_server(
    addresses: &[RedisAddress],
    index: usize,
    keys: &Keys,
    users: &Users,
) -> Result<Arc<Shard>, String> {
    let address = &addresses[index];
    let no_thread = |error| format!("no thread for it: {error}");
    let source = match &address.0 {
        Form::Server(server) => Source::Server(Arc::new(server.clone())),
        Form::Sentinel {
            sentinels,
            name,
            master,
        } => {
            let watch = SentinelWatch::start(sentinels, name, master)?;
            Source::Sentinel(Arc::new(watch.map_err(no_thread)?))
        }
        Form::Cluster { .. } => return Err("a cluster serves alone".to_owned()),
    };
    let servers = addresses.len();
    let (share, list) = match servers {
        // Instances may know an only server by different names.
        1 => (Share::All, "one server".to_owned()),
        _ => {
            let names: Vec<_> = addresses.iter().map(RedisAddress::name).collect();
            (Share::Part { index, servers }, names.join(" "))
        }
    };
    let to = Connecting {
        source,
        name: address.name(),
        keys: keys.clone(),
        scripts: Scripts::new(PubSub::Plain),
        servers: Some(list.into()),
        news: NewsSender(None),
        acknowledged: matches!(address.0, Form::Sentinel { .. }).then(Arc::default),
    };
    let pipeline = to.connect()?;
    let shard = Shard::start(to, Some(pipeline), share, users);
    Ok(Arc::new(shard.map_err(no_thread)?))
}

impl Backplane for Redis {
    fn publish(&self, draft: Draft, receipt: Receipt) {
        let (news, room) = (Arc::clone(&self.room_news), draft.room.clone());
        let receipt: Receipt = Box::new(move |stored| {
            if let Ok(stored) = &stored {
                news.note(&room, Some(stored.id));
            }
            receipt(stored);
        });
        match self.router.shard(&draft.room) {
            Some(shard) => shard.publish(&draft, &self.retention, &self.in_flight, receipt),
            None => receipt(Err(BackplaneError::Unavailable)),
        }
    }

    fn subscribe(&self, room: &RoomName) -> Result<(), BackplaneError> {
        self.shard(room)?.hear(room)
    }

    fn unsubscribe(&self, room: &RoomName) {
        if let Some(shard) = self.router.shard(room) {
            shard.may_forget(room);
        }
    }

    fn read(&self, room: &RoomName, page: Cursor, limit: usize) -> Result<Excerpt, BackplaneError> {
        self.shard(room)?.read(room, page, limit)
    }

    fn listed(&self) -> Result<Vec<RoomName>, BackplaneError> {
        index::rooms(&self.call_on(&self.keys.index(), &index::read(&self.keys))?)
    }

    fn describe(&self, rooms: &[RoomName]) -> Result<Vec<ListedRoom>, BackplaneError> {
        let mut by_shard: Vec<(Arc<Shard>, Vec<RoomName>)> = Vec::new();
        for room in rooms {
            let Some(shard) = self.router.shard(room) else {
                continue;
            };
            let known = by_shard.iter_mut();
            match known.into_iter().find(|(one, _)| Arc::ptr_eq(one, &shard)) {
                Some((_, its)) => its.push(room.clone()),
                None => by_shard.push((shard, vec![room.clone()])),
            }
        }
        // All are asked before the first answers.
        let asked = by_shard.iter().map(|(shard, its)| shard.ask_about(its));
        let asked: Vec<_> = asked.collect();
        let (mut there, mut gone, mut failed) = (Vec::new(), Vec::new(), None);
        for (questions, (_, its)) in asked.into_iter().zip(&by_shard) {
            let answers = questions.wait();
            for (room, answers) in its.iter().zip(answers.chunks(index::QUESTIONS)) {
                match index::facts(room, answers) {
                    Ok(Some(listed)) => there.push(listed),
                    Ok(None) => gone.push(room.clone()),
                    Err(error) => failed = Some(error),
                }
            }
        }
        if !gone.is_empty()
            && let Some(shard) = self.router.shard_of_key(&self.keys.index())
        {
            let forget = index::forget(&self.keys, &gone);
            shard.submit(&forget, Box::new(|_| {}));
        }
        match failed {
            Some(error) if there.is_empty() && gone.is_empty() => Err(error),
            Some(_) | None => Ok(there),
        }
    }

    fn rooms(&self) -> Result<Vec<RoomName>, BackplaneError> {
        let shards = self.router.shards();
        let rooms: Result<Vec<_>, _> = shards.iter().map(|shard| shard.rooms()).collect();
        let mut rooms = rooms?.concat();
        rooms.sort();
        rooms.dedup();
        Ok(rooms)
    }

    fn restore(&self, room: &RoomName, entries: &[Entry]) -> Result<(), BackplaneError> {
        // The script could not take back what it has written before one that is out of order.
        if !can_follow(None, entries) {
            return Err(BackplaneError::has_later(room));
        }
        if entries.is_empty() {
            return Ok(());
        }
        self.shard(room)?.restore(room, entries, &self.retention)?;
        let newest = entries.last().map(|entry| entry.message.id);
        self.room_news.note(room, newest);
        Ok(())
    }

    fn began_after(&self, _id: MessageId) -> bool {
        // Redis is expected to keep what it acknowledged. What it lost is a gap.
        false
    }

    fn enter(
        &self,
        room: &RoomName,
        user: Option<&UserName>,
        past: Option<(Cursor, usize)>,
    ) -> Result<Entrance, BackplaneError> {
        let entrance = self.shard(room)?.enter(room, user, past)?;
        self.room_news.note(room, entrance.tail);
        Ok(entrance)
    }

    fn depart(&self, room: &RoomName, user: &UserName, departure: Departure) {
        self.keeper.depart(room, user, departure);
    }

    fn members(&self, room: &RoomName) -> Result<Arc<[UserName]>, BackplaneError> {
        self.shard(room)?.members(room)
    }

    fn typing(&self, room: &RoomName, user: &UserName) {
        if let Some(shard) = self.router.shard(room) {
            shard.typing(room, user);
        }
    }

    fn order(&self, order: &Order) -> Result<(), BackplaneError> {
        let command = orders::publish(&self.keys, order);
        let mut outcome = Err(BackplaneError::Unavailable);
        // Every instance hears all of them.
        for shard in self.router.shards() {
            outcome = shard.call(&command).map(drop);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn set_ban(&self, banned: &Banned, ban: Option<&Ban>) -> Result<(), BackplaneError> {
        let command = orders::set_ban(&self.keys, banned, ban);
        self.call_on(&self.keys.bans(), &command).map(drop)
    }

    fn bans(&self) -> Result<BTreeMap<Banned, Ban>, BackplaneError> {
        orders::bans(&self.call_on(&self.keys.bans(), &orders::read_bans(&self.keys))?)
    }

    fn lease(
        &self,
        room: &RoomName,
        webhook: &str,
        posted: Option<MessageId>,
        lasts: Duration,
    ) -> Result<Option<MessageId>, BackplaneError> {
        let lease = lease::take(&self.keys, room, webhook, posted, lasts, &self.retention);
        lease::taken(&self.shard(room)?.call(&lease)?)
    }

    fn shards(&self) -> Vec<ShardState> {
        let shards = self.router.shards();
        let states = shards.iter().map(|shard| shard.state());
        let nowhere = self.router.trouble().map(|trouble| ShardState {
            name: "no node".to_owned(),
            trouble: Some(trouble),
            waiting: 0,
            losses: 0,
            cuts: 0,
        });
        states.chain(nowhere).collect()
    }

    fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.router.hold_still();
        let shards = self.router.shards();
        // All at once: one that is frozen does not hold up the others.
        for shard in &shards {
            shard.connect_no_more();
            shard.stop_hearing();
        }
        shards.iter().for_each(|shard| shard.join_subscriber());
        self.keeper.close();
        let retiring: Vec<_> = shards
            .iter()
            .map(|shard| shard.presence().retire())
            .collect();
        retiring
            .into_iter()
            .for_each(|retired| drop(retired.wait()));
        shards.iter().for_each(|shard| shard.stop_publishing());
        shards.iter().for_each(|shard| shard.join_publisher());
    }
}
