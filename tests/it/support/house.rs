//! Parts of the house in this process: a hub, a backplane (also one with a bug) and sessions, without
//! sockets.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hubbub::backplane::{
    Backplane, BackplaneError, Ban, Banned, Departure, Draft, Entrance, Excerpt, Local, Receipt,
    Redis as RedisBackplane, RedisAddress, Retention, ShardState,
};
use hubbub::hub::outbox::Queue;
use hubbub::hub::{Hub, Order};
use hubbub::message::{Entry, InstanceId, MemberList, MessageId, Revision, RoomName, UserName};
use hubbub::protocol::{Cursor, Event, ListedRoom, json};
use hubbub::server::config::Config;
use hubbub::server::state::State;

use super::DEADLINE;

fn retention(history_length: usize) -> Retention {
    Retention {
        history_length,
        history_ttl: Duration::from_secs(60),
        history_bytes: 64 << 20,
        presence_ttl: Duration::from_secs(30),
        presence_grace: Duration::ZERO,
    }
}

pub(crate) fn local(history_length: usize) -> (Arc<Hub>, Box<dyn Backplane>) {
    embedded(history_length, None)
}

/// The embedded backplane with its messages in this folder.
pub(crate) fn durable(history_length: usize, folder: &Path) -> (Arc<Hub>, Box<dyn Backplane>) {
    embedded(history_length, Some(folder))
}

fn embedded(history_length: usize, data: Option<&Path>) -> (Arc<Hub>, Box<dyn Backplane>) {
    let hub = Arc::new(Hub::start(InstanceId::random(), 2).expect("threads"));
    let local = Local::start(Arc::clone(&hub), retention(history_length), data);
    (hub, Box::new(local.expect("a backplane")))
}

/// On these servers, with this prefix.
pub(crate) fn shared_by(
    urls: &[String],
    prefix: &str,
    history_length: usize,
) -> (Arc<Hub>, Box<dyn Backplane>) {
    let hub = Arc::new(Hub::start(InstanceId::random(), 2).expect("threads"));
    let addresses: Result<Vec<_>, _> = urls.iter().map(|url| RedisAddress::parse(url)).collect();
    let addresses = addresses.expect("addresses");
    let retention = retention(history_length);
    let shared = RedisBackplane::start(&addresses, prefix, &hub, retention).expect("Redis");
    (hub, Box::new(shared))
}

/// The embedded backplane with a bug: this call panics, the first time it is about the room `cursed`.
pub(crate) fn faulty(call: Call) -> (Arc<Hub>, Box<dyn Backplane>) {
    let (hub, backplane) = local(10);
    let call = Mutex::new(Some(call));
    (hub, Box::new(Faulty { backplane, call }))
}

/// Its sessions may ask as fast as they like.
pub(crate) fn state((hub, backplane): (Arc<Hub>, Box<dyn Backplane>)) -> Arc<State> {
    let config = Config {
        send_rate: 0,
        ..Config::default()
    };
    Arc::new(State::new(config, hub, backplane))
}

/// A call of a backplane that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Subscribe,
    Enter,
    AfterEnter,
}

/// See [`faulty`].
struct Faulty {
    backplane: Box<dyn Backplane>,
    call: Mutex<Option<Call>>,
}

impl Faulty {
    fn may_panic(&self, call: Call, room: &RoomName) {
        let mut faulty = self.call.lock().expect("a lock");
        if room.as_str() == "cursed" && *faulty == Some(call) {
            *faulty = None;
            drop(faulty);
            panic!("the bug");
        }
    }
}

impl Backplane for Faulty {
    fn publish(&self, draft: Draft, receipt: Receipt) {
        self.backplane.publish(draft, receipt);
    }
    fn subscribe(&self, room: &RoomName) -> Result<(), BackplaneError> {
        self.may_panic(Call::Subscribe, room);
        self.backplane.subscribe(room)
    }
    fn unsubscribe(&self, room: &RoomName) {
        self.backplane.unsubscribe(room);
    }
    fn read(&self, room: &RoomName, page: Cursor, limit: usize) -> Result<Excerpt, BackplaneError> {
        self.backplane.read(room, page, limit)
    }
    fn listed(&self) -> Result<Vec<RoomName>, BackplaneError> {
        self.backplane.listed()
    }
    fn describe(&self, rooms: &[RoomName]) -> Result<Vec<ListedRoom>, BackplaneError> {
        self.backplane.describe(rooms)
    }
    fn rooms(&self) -> Result<Vec<RoomName>, BackplaneError> {
        self.backplane.rooms()
    }
    fn restore(&self, room: &RoomName, entries: &[Entry]) -> Result<(), BackplaneError> {
        self.backplane.restore(room, entries)
    }
    fn began_after(&self, id: MessageId) -> bool {
        self.backplane.began_after(id)
    }
    fn enter(
        &self,
        room: &RoomName,
        user: Option<&UserName>,
        past: Option<(Cursor, usize)>,
    ) -> Result<Entrance, BackplaneError> {
        self.may_panic(Call::Enter, room);
        let entrance = self.backplane.enter(room, user, past);
        self.may_panic(Call::AfterEnter, room);
        entrance
    }
    fn depart(&self, room: &RoomName, user: &UserName, departure: Departure) {
        self.backplane.depart(room, user, departure);
    }
    fn members(&self, room: &RoomName) -> Result<Arc<[UserName]>, BackplaneError> {
        self.backplane.members(room)
    }
    fn typing(&self, room: &RoomName, user: &UserName) {
        self.backplane.typing(room, user);
    }
    fn order(&self, order: &Order) -> Result<(), BackplaneError> {
        self.backplane.order(order)
    }
    fn set_ban(&self, banned: &Banned, ban: Option<&Ban>) -> Result<(), BackplaneError> {
        self.backplane.set_ban(banned, ban)
    }
    fn bans(&self) -> Result<BTreeMap<Banned, Ban>, BackplaneError> {
        self.backplane.bans()
    }
    fn lease(
        &self,
        room: &RoomName,
        webhook: &str,
        posted: Option<MessageId>,
        lasts: Duration,
    ) -> Result<Option<MessageId>, BackplaneError> {
        self.backplane.lease(room, webhook, posted, lasts)
    }
    fn shards(&self) -> Vec<ShardState> {
        self.backplane.shards()
    }
    fn in_flight(&self) -> usize {
        self.backplane.in_flight()
    }
    fn close(&self) {
        self.backplane.close();
    }
}

/// The other end of an outbox in the JSON encoding.
pub(crate) struct Reader {
    queue: Queue,
    /// The next one last.
    waiting: Vec<Event>,
}

impl Reader {
    pub(crate) fn of(queue: Queue) -> Self {
        Self {
            queue,
            waiting: Vec::new(),
        }
    }

    /// The next event.
    pub(crate) fn hears(&mut self) -> Event {
        self.hears_by(Instant::now() + DEADLINE).expect("an event")
    }

    /// The next event, if it is there already.
    pub(crate) fn has(&mut self) -> Option<Event> {
        self.hears_by(Instant::now())
    }

    fn hears_by(&mut self, deadline: Instant) -> Option<Event> {
        if self.waiting.is_empty() {
            let mut bytes = Vec::new();
            self.queue.collect_by(deadline, &mut bytes);
            self.waiting = payloads(&bytes)
                .into_iter()
                .map(|payload| json::parse_event(payload).expect("an event"))
                .collect();
            self.waiting.reverse();
        }
        self.waiting.pop()
    }
}

/// The payloads of unmasked text frames.
fn payloads(mut bytes: &[u8]) -> Vec<&str> {
    let mut payloads = Vec::new();
    while let [0x81, length, ..] = *bytes {
        let (start, length) = match length {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            127 => {
                let eight = bytes[2..10].try_into().expect("eight bytes");
                (10, u64::from_be_bytes(eight) as usize)
            }
            short => (2, usize::from(short)),
        };
        let payload = &bytes[start..start + length];
        payloads.push(std::str::from_utf8(payload).expect("text"));
        bytes = &bytes[start + length..];
    }
    payloads
}

/// The list of a room in which nobody is present.
pub(crate) fn nobody() -> MemberList {
    MemberList {
        users: [].into(),
        revision: Revision::ZERO,
    }
}
