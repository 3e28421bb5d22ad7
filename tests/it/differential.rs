//! Every backplane gives the same answers: random commands go to the embedded one, in memory and in a folder that is
//! reopened now and then, to one Redis, and to a cluster.
//!
//! `contract.rs` says what is right; here the backplanes are compared, in states that nobody thought of. What
//! differs by design is made the same first:
//!
//! - An id is written as its place among the ids of its room, a time as whether it is that of its message.
//! - Joins and leaves in quick succession are told together, and sometimes again to members that know of them. So a
//!   member's messages are compared, each with the users that the member knew of when it came.
//! - Users and members of the hub end with a process: when the folder is reopened, all come back to it.
//! - The list of rooms may be some seconds old: it is asked for until it agrees with what the rooms are.
//! - Messages are restored only where nobody has listened yet: on Redis, those that listen hear them as missed.
//! - An order may be heard from each master of a cluster.
//! - A ban that is over may be listed or not.
//!
//! No grace, no log and no ref ends while a case runs: `contract.rs` and `clock.rs` wait for that.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use hubbub::backplane::{
    Backplane, Ban, Banned, Departure, Draft, Excerpt, Local, Redis as RedisBackplane,
    RedisAddress, Retention,
};
use hubbub::hub::outbox::outbox;
use hubbub::hub::{Hub, Order};
use hubbub::message::{ConnectionId, Entry, InstanceId, Message, MessageId, RoomName, UserName};
use hubbub::protocol::{Cursor, Encoding, Event, Ref};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use crate::support::cluster::Cluster;
use crate::support::folder::Folder;
use crate::support::house::Reader;
use crate::support::redis::Redis;
use crate::support::{DEADLINE, until};

/// How many sequences are tried, unless `HUBBUB_CASES` says otherwise.
const CASES: u32 = 40;

/// How long a sequence that fails may be made shorter, in milliseconds.
const SHORTENED_FOR: u32 = 120_000;

/// Has the steps of the running case: a backplane whose thread panics ends the process.
const RUNNING: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/differential-steps");

/// Longer than any case, and than the age of what is restored.
const LONG: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Names, to which each case adds its number: no case sees another one's rooms and bans.
const ROOMS: [&str; 3] = ["lobby", "}x{ :%\u{e9}", "past"];
const USERS: [&str; 3] = ["alice", "bob", "}x{ :%\u{e9}"];
const TEXTS: [&str; 4] = ["", "one", "prev", "two\n\"\u{e9}\"\0"];
const REFS: [&str; 2] = ["r", "r \u{e9}:{"];

/// The milliseconds of messages that are restored: some are long past, others ahead of the clock.
const RESTORED: [u64; 3] = [1_000_000_000_000, 1_000_000_000_001, 4_000_000_000_000];

type Name = &'static str;

/// A place in a room's log.
#[derive(Debug, Clone, Copy)]
enum Place {
    Zero,
    /// The message of this number, or of what remains of it by their count.
    Nth(usize),
    Greatest,
}

#[derive(Debug, Clone, Copy)]
enum Page {
    Newest,
    Before(Place),
    UpTo(Place),
    After(Place),
    From(Place),
}

#[derive(Debug, Clone, Copy)]
enum Target {
    User(Name),
    Room(Name),
    Message(Name, Place),
    Past(Name, Place),
}

/// A draft: room, author, text and ref.
type Said = (Name, Name, Name, Option<Name>);

#[derive(Debug, Clone)]
enum Step {
    /// These are said at once.
    Say(Vec<Said>),
    Enter(Name, Option<Name>, Option<(Page, usize)>),
    Depart(Name, Name, Departure),
    Type(Name, Name),
    /// A member of the hub begins to listen.
    Listen(Name),
    /// The first that listens there tells what it heard, and leaves.
    StopListening(Name),
    Read(Name, Page, usize),
    Members(Name),
    Describe,
    List,
    Export,
    Restore(Name, Vec<MessageId>),
    /// The webhook, what it posted, and whether the lease is given up.
    Lease(Name, Name, Option<Place>, bool),
    SetBan(Target, Option<Ban>),
    Bans,
    Disconnect(Name),
    /// All listeners tell what they heard, and the folder is reopened.
    Reopen,
}

fn page() -> impl Strategy<Value = Page> {
    let place = place();
    (0..5_usize, place).prop_map(|(kind, place)| match kind {
        0 => Page::Newest,
        1 => Page::Before(place),
        2 => Page::UpTo(place),
        3 => Page::After(place),
        _ => Page::From(place),
    })
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        8 => (0..30_usize).prop_map(Place::Nth),
        1 => Just(Place::Zero),
        1 => Just(Place::Greatest),
    ]
}

fn ids() -> impl Strategy<Value = Vec<MessageId>> {
    let number = prop_oneof![3 => 0..4_u64, 1 => Just(u64::MAX)];
    let id = prop_oneof![
        20 => (select(&RESTORED), number).prop_map(|(millis, number)| MessageId { millis, number }),
        1 => Just(MessageId::ZERO),
    ];
    let in_order = |(mut ids, in_order): (Vec<_>, bool)| {
        if in_order {
            ids.sort_unstable();
            ids.dedup();
        }
        ids
    };
    (prop::collection::vec(id, 0..4), prop::bool::weighted(0.8)).prop_map(in_order)
}

fn ban() -> impl Strategy<Value = (Target, Option<Ban>)> {
    let target = prop_oneof![
        select(&USERS).prop_map(Target::User),
        select(&ROOMS).prop_map(Target::Room),
        (select(&ROOMS), place()).prop_map(|(room, place)| Target::Message(room, place)),
        (select(&ROOMS), place()).prop_map(|(room, place)| Target::Past(room, place)),
    ];
    let ban =
        (select(&[OVER, 4_000_000_000_000]), select(&TEXTS)).prop_map(|(until, reason)| Ban {
            until,
            reason: reason.to_owned(),
        });
    (target, prop::option::weighted(0.7, ban))
}

/// The end of a ban that is over.
const OVER: u64 = 1000;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (room, user) = (|| select(&ROOMS), || select(&USERS));
    let reference = prop::option::weighted(0.4, select(&REFS));
    let said = (room(), user(), select(&TEXTS), reference);
    let departure = select(&[Departure::Clean, Departure::Dropped]);
    let limit = || select(&[0_usize, 1, 2, 5, 100]);
    let past = prop::option::of((page(), limit()));
    let posted = prop::option::of(place());
    let step = prop_oneof![
        16 => prop::collection::vec(said, 1..4).prop_map(Step::Say),
        8 => (room(), prop::option::weighted(0.9, user()), past).prop_map(|(r, u, p)| Step::Enter(r, u, p)),
        8 => (room(), user(), departure).prop_map(|(room, user, how)| Step::Depart(room, user, how)),
        3 => (room(), user()).prop_map(|(room, user)| Step::Type(room, user)),
        3 => room().prop_map(Step::Listen),
        2 => room().prop_map(Step::StopListening),
        10 => (room(), page(), limit()).prop_map(|(room, page, limit)| Step::Read(room, page, limit)),
        3 => room().prop_map(Step::Members),
        3 => Just(Step::Describe),
        1 => Just(Step::List),
        1 => Just(Step::Export),
        4 => (room(), ids()).prop_map(|(room, ids)| Step::Restore(room, ids)),
        4 => (room(), select(&["early", "late"]), posted, any::<bool>())
            .prop_map(|(room, webhook, posted, ends)| Step::Lease(room, webhook, posted, ends)),
        4 => ban().prop_map(|(target, ban)| Step::SetBan(target, ban)),
        2 => Just(Step::Bans),
        1 => user().prop_map(Step::Disconnect),
        2 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..80)
}

/// The number of the next case, and of the next connection.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A hub with a backplane, and what one case did to it.
struct House {
    name: &'static str,
    hub: Arc<Hub>,
    backplane: Box<dyn Backplane>,
    folder: Option<Folder>,
    case: u64,
    /// The ids that each room was given.
    ids: BTreeMap<Name, Vec<MessageId>>,
    listeners: Vec<Listener>,
    /// The rooms that anybody has listened to.
    heard: BTreeSet<Name>,
    /// All that entered and left.
    presence: Vec<Step>,
}

/// A member of the hub.
struct Listener {
    room: Name,
    connection: ConnectionId,
    reader: Reader,
    knows: BTreeSet<UserName>,
    heard: Vec<String>,
}

fn retention() -> Retention {
    Retention {
        history_length: 10_000,
        history_ttl: LONG,
        history_bytes: 64 << 20,
        presence_ttl: Duration::from_secs(30),
        presence_grace: LONG,
    }
}

fn hub() -> Arc<Hub> {
    Arc::new(Hub::start(InstanceId::random(), 2).expect("threads"))
}

fn local(hub: &Arc<Hub>, folder: Option<&Folder>) -> Box<dyn Backplane> {
    let local = Local::start(Arc::clone(hub), retention(), folder.map(Folder::path));
    Box::new(local.expect("a backplane"))
}

impl House {
    fn new(name: &'static str, hub: Arc<Hub>, backplane: Box<dyn Backplane>) -> Self {
        Self {
            name,
            hub,
            backplane,
            folder: None,
            case: 0,
            ids: BTreeMap::new(),
            listeners: Vec::new(),
            heard: BTreeSet::new(),
            presence: Vec::new(),
        }
    }

    fn in_memory() -> Self {
        let hub = hub();
        let local = local(&hub, None);
        Self::new("memory", hub, local)
    }

    fn in_a_folder() -> Self {
        let (hub, folder) = (hub(), Folder::new());
        let local = local(&hub, Some(&folder));
        let house = Self::new("a folder", hub, local);
        Self {
            folder: Some(folder),
            ..house
        }
    }

    fn shared(name: &'static str, url: &str) -> Self {
        let (hub, address) = (hub(), RedisAddress::parse(url).expect("an address"));
        let shared = RedisBackplane::start(&[address], "differential", &hub, retention());
        let backplane = Box::new(shared.expect("Redis"));
        Self::new(name, hub, backplane)
    }

    /// Begins another case. What the last one left behind if it failed is not heard of again.
    fn begin(&mut self, case: u64) {
        for Listener {
            room, connection, ..
        } in std::mem::take(&mut self.listeners)
        {
            self.leave_hub(room, connection);
        }
        self.hub.orders().try_iter().for_each(drop);
        self.case = case;
        self.ids.clear();
        self.heard.clear();
        self.presence.clear();
    }

    fn room(&self, name: Name) -> RoomName {
        let name = format!("{name} {}", self.case);
        name.parse().expect("a name")
    }

    fn user(&self, name: Name) -> UserName {
        let name = format!("{name} {}", self.case);
        name.parse().expect("a name")
    }

    /// Whether it is a room of this case.
    fn is_ours(&self, room: &RoomName) -> bool {
        ROOMS.iter().any(|name| self.room(name) == *room)
    }

    fn ids(&self, room: Name) -> &[MessageId] {
        self.ids.get(room).map_or(&[], |ids| ids)
    }

    fn id(&self, room: Name, place: Place) -> MessageId {
        let ids = self.ids(room);
        match place {
            Place::Nth(number) if !ids.is_empty() => ids[number % ids.len()],
            Place::Nth(_) | Place::Zero => MessageId::ZERO,
            Place::Greatest => MessageId::GREATEST,
        }
    }

    /// An id as it is compared.
    fn place(&self, room: Name, id: MessageId) -> String {
        match self.ids(room).iter().position(|one| *one == id) {
            Some(nth) => format!("#{nth}"),
            None => id.to_string(),
        }
    }

    fn perhaps(&self, room: Name, id: Option<MessageId>) -> String {
        id.map_or("none".to_owned(), |id| self.place(room, id))
    }

    /// Between two messages there may be room for an id or not, so a page ends beside one of them.
    fn cursor(&self, room: Name, page: Page) -> Cursor {
        match page {
            Page::Newest => Cursor::Newest,
            Page::Before(place) => Cursor::Before(self.id(room, place)),
            Page::After(place) => Cursor::After(self.id(room, place)),
            Page::UpTo(place) => {
                let id = self.id(room, place);
                Cursor::Before(id.next().unwrap_or(id))
            }
            Page::From(place) => {
                let id = self.id(room, place);
                Cursor::After(id.previous().unwrap_or(id))
            }
        }
    }

    fn excerpt(&self, room: Name, excerpt: &Excerpt) -> String {
        let entries = excerpt.entries.iter().map(|Entry { message, prev, .. }| {
            let Message { id, from, text, at } = message;
            let (at, prev) = (*at == id.millis, self.perhaps(room, *prev));
            let id = self.place(room, *id);
            format!("{id} behind {prev}, {from}: {text:?}, at its time: {at}; ")
        });
        let (more, reach) = (excerpt.more, self.perhaps(room, excerpt.reach));
        format!("{}more: {more}, to {reach}", entries.collect::<String>())
    }

    /// The answer to a step, as it is compared.
    fn run(&mut self, step: &Step) -> String {
        match step {
            Step::Say(drafts) => self.say(drafts),
            Step::Enter(name, user, past) => {
                self.presence.push(step.clone());
                let (room, user) = (self.room(name), user.map(|user| self.user(user)));
                let past = past.map(|(page, limit)| (self.cursor(name, page), limit));
                match self.backplane.enter(&room, user.as_ref(), past) {
                    Ok(entrance) => {
                        let tail = self.perhaps(name, entrance.tail);
                        let past = self.excerpt(name, &entrance.past);
                        format!("{:?} until {tail}; {past}", entrance.members.users)
                    }
                    Err(error) => format!("{error:?}"),
                }
            }
            Step::Depart(room, user, how) => {
                self.presence.push(step.clone());
                let (room, user) = (self.room(room), self.user(user));
                self.backplane.depart(&room, &user, *how);
                String::new()
            }
            Step::Type(name, user) => {
                // Nobody knows when it is heard, and those that begin to listen then would hear it.
                if self.listens(name) {
                    let (room, user) = (self.room(name), self.user(user));
                    self.backplane.typing(&room, &user);
                    self.listen_to_the_end(name);
                }
                String::new()
            }
            Step::Listen(room) => {
                self.listen(room, Vec::new());
                String::new()
            }
            Step::StopListening(room) => self.stop_listening(room),
            Step::Read(name, page, limit) => {
                let (room, page) = (self.room(name), self.cursor(name, *page));
                match self.backplane.read(&room, page, *limit) {
                    Ok(excerpt) => self.excerpt(name, &excerpt),
                    Err(error) => format!("{error:?}"),
                }
            }
            Step::Members(room) => format!("{:?}", self.backplane.members(&self.room(room))),
            Step::Describe => self.describe(),
            Step::List => self.list(),
            Step::Export => {
                let mut rooms = self.backplane.rooms();
                if let Ok(rooms) = &mut rooms {
                    rooms.retain(|room| self.is_ours(room));
                }
                format!("{rooms:?}")
            }
            Step::Restore(room, _) if self.heard.contains(room) => String::new(),
            Step::Restore(room, ids) => self.restore(room, ids),
            Step::Lease(name, webhook, posted, ends) => {
                let posted = posted.map(|place| self.id(name, place));
                let lasts = Duration::from_secs(if *ends { 0 } else { 60 });
                let lease = self
                    .backplane
                    .lease(&self.room(name), webhook, posted, lasts);
                format!("{:?}", lease.map(|id| self.perhaps(name, id)))
            }
            Step::SetBan(target, ban) => self.set_ban(*target, ban.as_ref()),
            Step::Bans => self.bans(),
            Step::Disconnect(user) => {
                let order = Order::Disconnect(self.user(user));
                let done = self.backplane.order(&order);
                self.hears_order(&order);
                format!("{done:?}")
            }
            Step::Reopen => self.reopen(),
        }
    }

    fn say(&mut self, drafts: &[Said]) -> String {
        let (tell, told) = mpsc::channel();
        for (index, (room, from, text, reference)) in drafts.iter().enumerate() {
            let reference = reference.map(|one| Ref::try_from(one.to_owned()).expect("a ref"));
            let draft = Draft {
                room: self.room(room),
                from: self.user(from),
                text: (*text).to_owned(),
                reference,
                via: None,
            };
            let tell = tell.clone();
            let receipt = move |outcome| {
                let _ = tell.send((index, outcome));
            };
            self.backplane.publish(draft, Box::new(receipt));
        }
        let receipt = |_| told.recv_timeout(DEADLINE).expect("a receipt");
        // A cluster's masters answer in any order.
        let outcomes: BTreeMap<_, _> = drafts.iter().map(receipt).collect();
        let mut answer = String::new();
        for ((room, ..), outcome) in drafts.iter().zip(outcomes.into_values()) {
            answer += &match outcome {
                Ok(stored) => {
                    if !stored.duplicate {
                        self.take_id(room, stored.id);
                    }
                    let id = self.place(room, stored.id);
                    format!("{id}, duplicate: {}; ", stored.duplicate)
                }
                Err(error) => format!("{error:?}; "),
            };
        }
        answer
    }

    fn take_id(&mut self, room: Name, id: MessageId) {
        let ids = self.ids.entry(room).or_default();
        let last = ids.last();
        assert!(last < Some(&id), "{}: {id} came behind {last:?}", self.name);
        ids.push(id);
    }

    fn restore(&mut self, room: Name, ids: &[MessageId]) -> String {
        // The log that it comes from has forgotten the one before.
        let mut prev = Some(MessageId {
            millis: 7,
            number: 0,
        });
        let entries = ids.iter().map(|&id| Entry {
            message: Message {
                id,
                from: self.user("alice"),
                text: format!("restored\n\"{id}\""),
                at: id.millis,
            },
            prev: prev.replace(id),
            via: None,
        });
        let entries: Vec<_> = entries.collect();
        let restored = self.backplane.restore(&self.room(room), &entries);
        if restored.is_ok() {
            ids.iter().for_each(|&id| self.take_id(room, id));
        }
        format!("{restored:?}")
    }

    fn describe(&self) -> String {
        let rooms = ROOMS.map(|name| self.room(name));
        let mut rooms = match self.backplane.describe(&rooms) {
            Ok(rooms) => rooms,
            Err(error) => return format!("{error:?}"),
        };
        rooms.sort_by(|one, next| one.room.cmp(&next.room));
        let rooms = rooms.iter().map(|one| {
            let name = ROOMS.into_iter().find(|name| self.room(name) == one.room);
            let newest = name.and_then(|name| self.ids(name).last());
            let at = one
                .at
                .map(|at| newest.is_some_and(|newest| newest.millis == at));
            format!("{:?}: {}, at its newest: {at:?}; ", one.room, one.members)
        });
        rooms.collect()
    }

    fn list(&self) -> String {
        let rooms = ROOMS.map(|name| self.room(name));
        until("the list is up to date", || {
            let there = self.backplane.describe(&rooms).ok()?;
            let mut listed = self.backplane.listed().ok()?;
            listed.retain(|room| self.is_ours(room));
            let at = listed.iter().map(|room| {
                let there = there.iter().find(|there| there.room == *room);
                there.map(|there| there.at)
            });
            let at: Option<Vec<_>> = at.collect();
            let is_sorted = at?.is_sorted_by(|one, next| one >= next);
            (listed.len() == there.len() && is_sorted).then_some(())
        });
        self.describe()
    }

    fn set_ban(&self, target: Target, ban: Option<&Ban>) -> String {
        let banned = match target {
            Target::User(user) => Banned::User(self.user(user)),
            Target::Room(room) => Banned::Room(self.room(room)),
            Target::Message(room, place) => Banned::Message(self.room(room), self.id(room, place)),
            Target::Past(room, place) => Banned::Past(self.room(room), self.id(room, place)),
        };
        let done = self.backplane.set_ban(&banned, ban);
        self.hears_order(&Order::ReadBans);
        format!("{done:?}")
    }

    fn hears_order(&self, order: &Order) {
        until("the order is heard", || {
            let heard = self.hub.orders().recv_timeout(DEADLINE).ok();
            (heard? == *order).then_some(())
        });
    }

    fn bans(&self) -> String {
        let bans = match self.backplane.bans() {
            Ok(bans) => bans,
            Err(error) => return format!("{error:?}"),
        };
        let mut answer = String::new();
        for (banned, ban) in bans {
            let (kind, room, id) = match &banned {
                Banned::User(user) => {
                    if USERS.iter().any(|name| self.user(name) == *user) && ban.until != OVER {
                        answer += &format!("{user}: {ban:?}; ");
                    }
                    continue;
                }
                Banned::Room(room) => ("room", room, None),
                Banned::Message(room, id) => ("message", room, Some(*id)),
                Banned::Past(room, id) => ("past", room, Some(*id)),
            };
            let name = ROOMS.into_iter().find(|name| self.room(name) == *room);
            if let Some(name) = name.filter(|_| ban.until != OVER) {
                let id = self.perhaps(name, id);
                answer += &format!("{kind} {id} of {room}: {ban:?}; ");
            }
        }
        answer
    }

    fn listen(&mut self, name: Name, heard: Vec<String>) {
        let (room, (outbox, queue)) = (self.room(name), outbox(Encoding::Json, 1 << 20, None));
        let connection = ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed));
        self.hub.add_member(&room, connection, None, &outbox);
        self.backplane.subscribe(&room).expect("a subscription");
        let entrance = self
            .backplane
            .enter(&room, None, None)
            .expect("an entrance");
        let (tail, members) = (entrance.tail, entrance.members);
        self.hub.release(&room, connection, tail, &members, None);
        self.heard.insert(name);
        self.listeners.push(Listener {
            room: name,
            connection,
            reader: Reader::of(queue),
            knows: members.users.iter().cloned().collect(),
            heard,
        });
    }

    fn leave_hub(&self, room: Name, connection: ConnectionId) {
        let room = self.room(room);
        self.hub.remove_member(&room, connection);
        self.backplane.unsubscribe(&room);
    }

    fn stop_listening(&mut self, room: Name) -> String {
        self.listen_to_the_end(room);
        let is_there = |listener: &Listener| listener.room == room;
        let Some(first) = self.listeners.iter().position(is_there) else {
            return String::new();
        };
        let gone = self.listeners.remove(first);
        self.leave_hub(room, gone.connection);
        gone.heard.concat()
    }

    fn listens(&self, room: Name) -> bool {
        self.listeners.iter().any(|one| one.room == room)
    }

    /// All that listen in a room hear what was said there until now.
    fn listen_to_the_end(&mut self, room: Name) {
        if !self.listens(room) {
            return;
        }
        self.say(&[(room, "alice", "marker", None)]);
        let mut listeners = std::mem::take(&mut self.listeners);
        for listener in listeners.iter_mut().filter(|one| one.room == room) {
            while !self.hears_last(listener) {}
        }
        self.listeners = listeners;
    }

    /// Hears one event. Whether it is the room's last message.
    fn hears_last(&self, listener: &mut Listener) -> bool {
        let Listener {
            room,
            reader,
            knows,
            heard,
            ..
        } = listener;
        let told = match reader.hears() {
            Event::Message { message, .. } => {
                let Message { id, from, text, .. } = &message;
                let place = self.place(room, *id);
                heard.push(format!("{place} {from}: {text:?}, to {knows:?}; "));
                return Some(id) == self.ids(room).last();
            }
            Event::Joined { user, .. } => {
                knows.insert(user);
                return false;
            }
            Event::Left { user, .. } => {
                knows.remove(&user);
                return false;
            }
            Event::Typing { user, .. } => format!("{user} types, to {knows:?}; "),
            other => format!("{other:?}; "),
        };
        heard.push(told);
        false
    }

    fn reopen(&mut self) -> String {
        ROOMS.iter().for_each(|room| self.listen_to_the_end(room));
        let heard = self
            .listeners
            .iter_mut()
            .map(|one| one.heard.drain(..).collect::<String>());
        let heard: Vec<_> = heard.collect();
        if let Some(folder) = &self.folder {
            self.backplane.close();
            self.hub = hub();
            self.backplane = local(&self.hub, Some(folder));
            for step in std::mem::take(&mut self.presence) {
                self.run(&step);
            }
            for listener in std::mem::take(&mut self.listeners) {
                self.listen(listener.room, listener.heard);
            }
        }
        heard.join("\n")
    }
}

fn give_the_same_answers(houses: &mut [House], steps: &[Step]) -> Result<(), TestCaseError> {
    let case = NEXT.fetch_add(1, Ordering::Relaxed);
    houses.iter_mut().for_each(|house| house.begin(case));
    for (number, step) in steps.iter().chain(&[Step::Reopen]).enumerate() {
        let answers = houses.iter_mut().map(|house| (house.run(step), house.name));
        let answers: Vec<_> = answers.collect();
        let (first, its) = &answers[0];
        for (answer, name) in &answers[1..] {
            let differ = || format!("step {number}, {step:?}\n{its}: {first}\n{name}: {answer}");
            prop_assert!(answer == first, "{}", differ());
        }
    }
    Ok(())
}

fn list(steps: &[Step]) -> String {
    let steps = steps.iter().enumerate();
    let lines = steps.map(|(number, step)| format!("{number}: {step:?}\n"));
    lines.collect()
}

#[test]
fn every_backplane_gives_the_same_answers() {
    let (redis, cluster) = (Redis::start(), Cluster::of(3));
    let houses = RefCell::new([
        House::in_memory(),
        House::in_a_folder(),
        House::shared("one Redis", &redis.url()),
        House::shared("a cluster", &cluster.url()),
    ]);
    let cases = std::env::var("HUBBUB_CASES").ok();
    let cases = cases.map_or(CASES, |cases| cases.parse().expect("a number"));
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_time: SHORTENED_FOR,
        max_shrink_iters: 10_000,
        ..Config::default()
    });
    let run = |steps: Vec<Step>| {
        fs::write(RUNNING, list(&steps)).expect("a file");
        give_the_same_answers(&mut *houses.borrow_mut(), &steps)
    };
    match runner.run(&steps(), run) {
        Ok(()) => houses
            .borrow()
            .iter()
            .for_each(|house| house.backplane.close()),
        Err(TestError::Fail(why, steps)) => {
            panic!("{why}\nof these steps:\n{}", list(&steps));
        }
        Err(error @ TestError::Abort(_)) => panic!("{error}"),
    }
}
