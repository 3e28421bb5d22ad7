//! Every backplane gives the same answers: random commands go to the embedded one, in memory and in a folder that is
//! reopened now and then, and to two instances on one Redis, and on a cluster. Logs are so short that they are trimmed.
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
//! - A user who comes and goes on two instances is one of the contract's: here each user, and each webhook, stays with
//!   one instance.
//! - Redis trims whole nodes of a log, which have one message each here, and an import when the next message comes: here
//!   none is longer than a log.
//! - The embedded backplane looks refs up before it trims for what is said at once: where it trims, a message with a ref
//!   is said behind the others.
//!
//! No grace, no log and no ref ends while a case runs: `contract.rs` and `clock.rs` wait for that.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use hubbub::backplane::{
    Backplane, Ban, Banned, Draft, Excerpt, Local, Redis as RedisBackplane, RedisAddress, Retention,
};
use hubbub::hub::outbox::outbox;
use hubbub::hub::{Hub, Order};
use hubbub::message::{ConnectionId, Entry, InstanceId, Message, MessageId, RoomName, UserName};
use hubbub::protocol::{Cursor, Encoding, Event, Ref};
use proptest::prop_assert;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use crate::support::cluster::Cluster;
use crate::support::folder::Folder;
use crate::support::house::Reader;
use crate::support::redis::Redis;
use crate::support::steps::{Name, OVER, Page, Place, ROOMS, Said, Step, Target, USERS, steps};
use crate::support::{DEADLINE, until};

/// How many sequences are tried, unless `HUBBUB_CASES` says otherwise.
const CASES: u32 = 40;

/// How long a sequence that fails may be made shorter, in milliseconds.
const SHORTENED_FOR: u32 = 120_000;

/// Has the steps of the running case: a backplane whose thread panics ends the process.
const RUNNING: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/differential-steps");

/// How many messages a room's log keeps. A long case has some more in a room.
const KEPT: usize = 8;

/// Makes Redis trim a log to its length, and not to whole nodes of a hundred messages.
const NODES_OF_ONE: [&str; 2] = ["--stream-node-max-entries", "1"];

/// Longer than any case, and than the age of what is restored.
const LONG: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The number of the next case, and of the next connection.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A hub with a backplane.
struct Instance {
    hub: Arc<Hub>,
    backplane: Box<dyn Backplane>,
}

/// Instances that share what they remember, and what one case did to them.
struct House {
    name: &'static str,
    instances: Vec<Instance>,
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
    /// The number of the instance.
    at: usize,
    room: Name,
    connection: ConnectionId,
    reader: Reader,
    knows: BTreeSet<UserName>,
    heard: Vec<String>,
}

fn retention() -> Retention {
    Retention {
        history_length: KEPT,
        history_ttl: LONG,
        history_bytes: 64 << 20,
        presence_ttl: Duration::from_secs(30),
        presence_grace: LONG,
    }
}

fn hub() -> Arc<Hub> {
    Arc::new(Hub::start(InstanceId::random(), 2).expect("threads"))
}

fn local(folder: Option<&Folder>) -> Instance {
    let hub = hub();
    // Another test may start a process just now, which holds all files of this one until it runs its own program.
    let backplane = until("the folder is free", || {
        match Local::start(Arc::clone(&hub), retention(), folder.map(Folder::path)) {
            Ok(local) => Some(Box::new(local) as Box<dyn Backplane>),
            Err(error) if error.to_string().contains("has it open") => None,
            Err(error) => panic!("{error}"),
        }
    });
    Instance { hub, backplane }
}

fn shared(url: &str) -> Instance {
    let (hub, address) = (hub(), RedisAddress::parse(url).expect("an address"));
    let shared = RedisBackplane::start(&[address], "differential", &hub, retention());
    let backplane = Box::new(shared.expect("Redis"));
    Instance { hub, backplane }
}

impl House {
    fn new(name: &'static str, instances: Vec<Instance>) -> Self {
        Self {
            name,
            instances,
            folder: None,
            case: 0,
            ids: BTreeMap::new(),
            listeners: Vec::new(),
            heard: BTreeSet::new(),
            presence: Vec::new(),
        }
    }

    fn in_memory() -> Self {
        Self::new("memory", vec![local(None)])
    }

    fn in_a_folder() -> Self {
        let folder = Folder::new();
        let house = Self::new("a folder", vec![local(Some(&folder))]);
        Self {
            folder: Some(folder),
            ..house
        }
    }

    fn shared(name: &'static str, url: &str) -> Self {
        Self::new(name, vec![shared(url), shared(url)])
    }

    /// The instance of this number; where there is only one, it is that.
    fn at(&self, number: usize) -> &Instance {
        &self.instances[number % self.instances.len()]
    }

    fn backplane(&self, number: usize) -> &dyn Backplane {
        &*self.at(number).backplane
    }

    /// Begins another case. What the last one left behind if it failed is not heard of again.
    fn begin(&mut self, case: u64) {
        for listener in std::mem::take(&mut self.listeners) {
            self.leave_hub(&listener);
        }
        for instance in &self.instances {
            instance.hub.orders().try_iter().for_each(drop);
        }
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

    /// The answer of the instance of this number to a step, as it is compared.
    fn run(&mut self, at: usize, step: &Step) -> String {
        let backplane = self.backplane(at);
        match step {
            Step::Say(drafts) => self.say(at, drafts),
            Step::Enter(room, user, past) => {
                self.presence.push(step.clone());
                self.enter(user.map_or(at, home), room, *user, *past)
            }
            Step::Depart(room, user, how) => {
                self.presence.push(step.clone());
                let (room, backplane) = (self.room(room), self.backplane(home(user)));
                backplane.depart(&room, &self.user(user), *how);
                // The other instance may say something next, and that comes later.
                let members = backplane.members(&room);
                format!("{members:?}")
            }
            Step::Type(room, user) => self.types(room, user),
            Step::Listen(room) => {
                self.listen(at, room, Vec::new());
                String::new()
            }
            Step::StopListening(room) => self.stop_listening(room),
            Step::Read(name, page, limit) => {
                let (room, page) = (self.room(name), self.cursor(name, *page));
                match backplane.read(&room, page, *limit) {
                    Ok(excerpt) => self.excerpt(name, &excerpt),
                    Err(error) => format!("{error:?}"),
                }
            }
            Step::Members(room) => format!("{:?}", backplane.members(&self.room(room))),
            Step::Describe => self.describe(at),
            Step::List => self.list(at),
            Step::Export => {
                let mut rooms = backplane.rooms();
                if let Ok(rooms) = &mut rooms {
                    rooms.retain(|room| self.is_ours(room));
                }
                format!("{rooms:?}")
            }
            Step::Restore(room, _) if self.heard.contains(room) => String::new(),
            Step::Restore(room, ids) if self.ids(room).len() + ids.len() > KEPT => String::new(),
            Step::Restore(room, ids) => self.restore(at, room, ids),
            Step::Lease(name, webhook, posted, ends) => {
                let posted = posted.map(|place| self.id(name, place));
                let lasts = Duration::from_secs(if *ends { 0 } else { 60 });
                let backplane = self.backplane(home(webhook));
                let lease = backplane.lease(&self.room(name), webhook, posted, lasts);
                format!("{:?}", lease.map(|id| self.perhaps(name, id)))
            }
            Step::SetBan(target, ban) => self.set_ban(at, *target, ban.as_ref()),
            Step::Bans => self.bans(at),
            Step::Disconnect(user) => {
                let order = Order::Disconnect(self.user(user));
                let done = backplane.order(&order);
                self.hears_order(&order);
                format!("{done:?}")
            }
            Step::Reopen => self.reopen(),
        }
    }

    fn enter(
        &self,
        at: usize,
        name: Name,
        user: Option<Name>,
        past: Option<(Page, usize)>,
    ) -> String {
        let (room, user) = (self.room(name), user.map(|user| self.user(user)));
        let past = past.map(|(page, limit)| (self.cursor(name, page), limit));
        match self.backplane(at).enter(&room, user.as_ref(), past) {
            Ok(entrance) => {
                let tail = self.perhaps(name, entrance.tail);
                let past = self.excerpt(name, &entrance.past);
                format!("{:?} until {tail}; {past}", entrance.members.users)
            }
            Err(error) => format!("{error:?}"),
        }
    }

    fn types(&mut self, name: Name, user: Name) -> String {
        // Nobody knows when it is heard, and those that begin to listen then would hear it.
        if self.listens(name) {
            let at = home(user);
            self.backplane(at)
                .typing(&self.room(name), &self.user(user));
            self.listen_to_the_end(at, name);
        }
        String::new()
    }

    fn say(&mut self, at: usize, drafts: &[Said]) -> String {
        let (tell, told) = mpsc::channel();
        let receipt = |_| told.recv_timeout(DEADLINE).expect("a receipt");
        // A cluster's masters answer in any order.
        let mut outcomes = BTreeMap::new();
        for (index, (room, from, text, reference)) in drafts.iter().enumerate() {
            if reference.is_some() && self.ids(room).len() + drafts.len() > KEPT {
                outcomes.extend((outcomes.len()..index).map(receipt));
            }
            let reference = reference.map(|one| Ref::try_from(one.to_owned()).expect("a ref"));
            let draft = Draft {
                room: self.room(room),
                from: self.user(from),
                text: (*text).to_owned(),
                reference,
                via: None,
            };
            let tell = tell.clone();
            let notify = move |outcome| {
                let _ = tell.send((index, outcome));
            };
            self.backplane(at).publish(draft, Box::new(notify));
        }
        outcomes.extend((outcomes.len()..drafts.len()).map(receipt));
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

    fn restore(&mut self, at: usize, room: Name, ids: &[MessageId]) -> String {
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
        let restored = self.backplane(at).restore(&self.room(room), &entries);
        if restored.is_ok() {
            ids.iter().for_each(|&id| self.take_id(room, id));
        }
        format!("{restored:?}")
    }

    fn describe(&self, at: usize) -> String {
        let rooms = ROOMS.map(|name| self.room(name));
        let mut rooms = match self.backplane(at).describe(&rooms) {
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

    fn list(&self, at: usize) -> String {
        let rooms = ROOMS.map(|name| self.room(name));
        until(&format!("{} lists its rooms", self.name), || {
            let there = self.backplane(at).describe(&rooms).ok()?;
            let mut listed = self.backplane(at).listed().ok()?;
            listed.retain(|room| self.is_ours(room));
            let at = listed.iter().map(|room| {
                let there = there.iter().find(|there| there.room == *room);
                there.map(|there| there.at)
            });
            let at: Option<Vec<_>> = at.collect();
            let is_sorted = at?.is_sorted_by(|one, next| one >= next);
            (listed.len() == there.len() && is_sorted).then_some(())
        });
        self.describe(at)
    }

    fn set_ban(&self, at: usize, target: Target, ban: Option<&Ban>) -> String {
        let banned = match target {
            Target::User(user) => Banned::User(self.user(user)),
            Target::Room(room) => Banned::Room(self.room(room)),
            Target::Message(room, place) => Banned::Message(self.room(room), self.id(room, place)),
            Target::Past(room, place) => Banned::Past(self.room(room), self.id(room, place)),
        };
        let done = self.backplane(at).set_ban(&banned, ban);
        self.hears_order(&Order::ReadBans);
        format!("{done:?}")
    }

    fn hears_order(&self, order: &Order) {
        for Instance { hub, .. } in &self.instances {
            until(&format!("{} hears the order", self.name), || {
                let heard = hub.orders().recv_timeout(DEADLINE).ok();
                (heard? == *order).then_some(())
            });
        }
    }

    fn bans(&self, at: usize) -> String {
        let bans = match self.backplane(at).bans() {
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

    fn listen(&mut self, at: usize, name: Name, heard: Vec<String>) {
        let (room, (outbox, queue)) = (self.room(name), outbox(Encoding::Json, 1 << 20, None));
        let connection = ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed));
        let Instance { hub, backplane } = self.at(at);
        hub.add_member(&room, connection, None, &outbox);
        backplane.subscribe(&room).expect("a subscription");
        let entrance = backplane.enter(&room, None, None).expect("an entrance");
        let (tail, members) = (entrance.tail, entrance.members);
        hub.release(&room, connection, tail, &members, None);
        self.heard.insert(name);
        self.listeners.push(Listener {
            at,
            room: name,
            connection,
            reader: Reader::of(queue),
            knows: members.users.iter().cloned().collect(),
            heard,
        });
    }

    fn leave_hub(&self, listener: &Listener) {
        let (room, Instance { hub, backplane }) = (self.room(listener.room), self.at(listener.at));
        hub.remove_member(&room, listener.connection);
        backplane.unsubscribe(&room);
    }

    fn stop_listening(&mut self, room: Name) -> String {
        self.listen_to_the_end(0, room);
        let is_there = |listener: &Listener| listener.room == room;
        let Some(first) = self.listeners.iter().position(is_there) else {
            return String::new();
        };
        let gone = self.listeners.remove(first);
        self.leave_hub(&gone);
        gone.heard.concat()
    }

    fn listens(&self, room: Name) -> bool {
        self.listeners.iter().any(|one| one.room == room)
    }

    /// All that listen in a room hear what was said there until now, and last what this instance says.
    fn listen_to_the_end(&mut self, at: usize, room: Name) {
        if !self.listens(room) {
            return;
        }
        self.say(at, &[(room, "alice", "marker", None)]);
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
        ROOMS
            .iter()
            .for_each(|room| self.listen_to_the_end(0, room));
        let heard = self
            .listeners
            .iter_mut()
            .map(|one| one.heard.drain(..).collect::<String>());
        let heard: Vec<_> = heard.collect();
        if let Some(folder) = &self.folder {
            self.backplane(0).close();
            self.instances = vec![local(Some(folder))];
            for step in std::mem::take(&mut self.presence) {
                self.run(0, &step);
            }
            for listener in std::mem::take(&mut self.listeners) {
                self.listen(listener.at, listener.room, listener.heard);
            }
        }
        heard.join("\n")
    }
}

/// The number of the instance that this user, or webhook, stays with.
fn home(name: Name) -> usize {
    usize::from(["alice", "early"].contains(&name))
}

fn give_the_same_answers(
    houses: &mut [House],
    steps: &[(usize, Step)],
) -> Result<(), TestCaseError> {
    let case = NEXT.fetch_add(1, Ordering::Relaxed);
    houses.iter_mut().for_each(|house| house.begin(case));
    for (number, (at, step)) in steps.iter().chain(&[(0, Step::Reopen)]).enumerate() {
        let answers = houses
            .iter_mut()
            .map(|house| (house.run(*at, step), house.name));
        let answers: Vec<_> = answers.collect();
        let (first, its) = &answers[0];
        for (answer, name) in &answers[1..] {
            let differ =
                || format!("step {number}, {step:?} at {at}\n{its}: {first}\n{name}: {answer}");
            prop_assert!(answer == first, "{}", differ());
        }
    }
    Ok(())
}

fn list(steps: &[(usize, Step)]) -> String {
    let steps = steps.iter().enumerate();
    let lines = steps.map(|(number, (at, step))| format!("{number}, at {at}: {step:?}\n"));
    lines.collect()
}

#[test]
fn every_backplane_gives_the_same_answers() {
    let redis = Redis::start_with(&NODES_OF_ONE);
    let cluster = Cluster::start(3, 0, &NODES_OF_ONE);
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
    let run = |steps: Vec<(usize, Step)>| {
        fs::write(RUNNING, list(&steps)).expect("a file");
        give_the_same_answers(&mut *houses.borrow_mut(), &steps)
    };
    match runner.run(&steps(), run) {
        Ok(()) => {
            let houses = houses.borrow();
            let instances = houses.iter().flat_map(|house| &house.instances);
            instances.for_each(|instance| instance.backplane.close());
        }
        Err(TestError::Fail(why, steps)) => {
            panic!("{why}\nof these steps:\n{}", list(&steps));
        }
        Err(error @ TestError::Abort(_)) => panic!("{error}"),
    }
}
