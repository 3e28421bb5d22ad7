//! A cluster: a shard for each of its masters, and the thread that keeps the map of its slots.
//!
//! The `topology` thread alone changes the map, and starts and ends shards. It asks for the map every ten
//! seconds, and as soon as a shard finds that it is [stale](ClusterNews::Stale). What was sent to the wrong
//! node comes here and goes on to the right one: commands and rooms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::{error, info, warn};

use super::acknowledged::Acknowledged;
use super::address::{Login, RedisServer};
use super::chain::Heard;
use super::keys::Keys;
use super::news::{ClusterNews, NewsSender};
use super::pipeline::PendingCommand;
use super::placement::{SLOTS, Share, SlotSet, slot, tag};
use super::presence::Users;
use super::publisher::Connecting;
use super::shard::Shard;
use super::slot_map::{self, SlotRange};
use super::source::Source;
use super::subscription::Task;
use super::wire::Scripts;
use crate::backplane::{ANSWER_WITHIN, BackplaneError};
use crate::message::RoomName;
use crate::threads;
use crate::threads::lock;

/// The pause between two looks at the map when nothing happens.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The pause between two looks while the map is stale.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The pause while no node has the slot of some room.
const LOOK_FOR_UNASSIGNED: Duration = Duration::from_secs(1);

/// After this time no further node is asked.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// A shard that left the map still answers callers that found it there for this long.
const RETIRES_AFTER: Duration = ANSWER_WITHIN.saturating_mul(2);

/// The handle that everyone shares.
pub(super) struct RedisCluster {
    owners: Arc<Mutex<Owners>>,
    news: Sender<ClusterNews>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The shard that has each slot.
pub(super) struct Owners {
    by_slot: Vec<Option<Arc<Shard>>>,
    /// By the node's name.
    shards: BTreeMap<String, Arc<Shard>>,
}

impl RedisCluster {
    /// Asks for the map, starts a shard for each master, and the thread. The error is a sentence.
    pub(super) fn start(
        seeds: &[RedisServer],
        nodes: &Login,
        keys: &Keys,
        scripts: &Scripts,
        users: &Users,
    ) -> Result<Self, String> {
        let (news, told) = crossbeam_channel::unbounded();
        let owners = Arc::new(Mutex::new(Owners {
            by_slot: vec![None; usize::from(SLOTS)],
            shards: BTreeMap::new(),
        }));
        let mut topology = Topology {
            seeds: seeds.to_vec(),
            known: Vec::new(),
            nodes: nodes.clone(),
            keys: keys.clone(),
            scripts: scripts.clone(),
            users: users.clone(),
            owners: Arc::clone(&owners),
            news: NewsSender(Some(news.clone())),
            acknowledged: Arc::default(),
            unassigned: Vec::new(),
            moved: Vec::new(),
            retired: Vec::new(),
            is_silent: false,
        };
        let map = topology.ask(None)?;
        topology.take_in(&map);
        let cluster = Self {
            owners,
            news,
            thread: Mutex::default(),
        };
        let thread = threads::spawn_vital("topology", move || topology.run(&told));
        let thread = thread.map_err(|error| format!("no thread for it: {error}"))?;
        *lock(&cluster.thread) = Some(thread);
        Ok(cluster)
    }

    /// The shard that a room is on; `None` while no node has its slot.
    pub(super) fn shard(&self, room: &RoomName) -> Option<Arc<Shard>> {
        self.shard_of(slot(&tag(room)))
    }

    /// The shard that has this slot.
    pub(super) fn shard_of(&self, slot: u16) -> Option<Arc<Shard>> {
        lock(&self.owners).by_slot[usize::from(slot)].clone()
    }

    pub(super) fn shards(&self) -> Vec<Arc<Shard>> {
        lock(&self.owners).shards.values().cloned().collect()
    }

    /// The number of slots that no node has.
    pub(super) fn unserved(&self) -> usize {
        let owners = lock(&self.owners);
        owners
            .by_slot
            .iter()
            .filter(|owner| owner.is_none())
            .count()
    }

    /// Ends the thread: from here on the map stays as it is.
    pub(super) fn close(&self) {
        let _ = self.news.send(ClusterNews::Stop);
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

/// Answers a command that no node takes. It did nothing.
fn refuse(command: PendingCommand) {
    (command.on_answer)(Err(BackplaneError::Unavailable));
}

/// The thread's own state.
struct Topology {
    /// The nodes that the address names.
    seeds: Vec<RedisServer>,
    /// The nodes that the map named last, masters and replicas.
    known: Vec<RedisServer>,
    nodes: Login,
    keys: Keys,
    scripts: Scripts,
    users: Users,
    owners: Arc<Mutex<Owners>>,
    news: NewsSender,
    /// What all shards acknowledged: a room may move from one to another.
    acknowledged: Arc<Acknowledged>,
    /// Rooms that wait for the next look at the map.
    unassigned: Vec<Heard>,
    /// Commands that do, with their slot and the node that has it.
    moved: Vec<(u16, String, PendingCommand)>,
    /// Shards that left the map, and when.
    retired: Vec<(Instant, Arc<Shard>)>,
    /// Whether the last look found no node that answers.
    is_silent: bool,
}

impl Topology {
    fn run(mut self, told: &Receiver<ClusterNews>) {
        let mut look_at = Instant::now() + LOOK_EVERY;
        let mut looked = Instant::now();
        // The node that knows more.
        let mut knows = None;
        loop {
            if Instant::now() >= look_at {
                self.look(knows.take().as_deref());
                looked = Instant::now();
                look_at = match self.unassigned.is_empty() {
                    true => looked + LOOK_EVERY,
                    false => looked + LOOK_FOR_UNASSIGNED,
                };
            }
            match told.recv_deadline(look_at) {
                Ok(ClusterNews::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(ClusterNews::Stale(node)) => {
                    look_at = look_at.min(looked + LOOK_AGAIN);
                    knows = node.or(knows);
                }
                Ok(ClusterNews::Moved { slot, to, command }) => {
                    if lock(&self.owners).shards.contains_key(&to) {
                        self.hand_over(slot, &to, command);
                    } else {
                        look_at = look_at.min(looked + LOOK_AGAIN);
                        self.moved.push((slot, to, command));
                    }
                }
                Ok(ClusterNews::Unassigned { from, rooms }) => {
                    self.assign(rooms, Some(&from));
                    if !self.unassigned.is_empty() {
                        look_at = look_at.min(looked + LOOK_AGAIN);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        for (_, shard) in &self.retired {
            shard.stop_publishing();
        }
        for (_, shard) in &self.retired {
            shard.join_subscriber();
            shard.join_publisher();
        }
        for (_, _, command) in self.moved.drain(..) {
            refuse(command);
        }
        for late in told.try_iter() {
            if let ClusterNews::Moved { command, .. } = late {
                refuse(command);
            }
        }
    }

    /// Asks for the map and takes it in.
    fn look(&mut self, knows: Option<&str>) {
        match self.ask(knows) {
            Ok(map) => {
                self.is_silent = false;
                self.take_in(&map);
            }
            Err(why) => {
                if !std::mem::replace(&mut self.is_silent, true) {
                    warn!("the cluster's map cannot be read: {why}");
                }
            }
        }
        for (slot, to, command) in std::mem::take(&mut self.moved) {
            self.hand_over(slot, &to, command);
        }
        let rooms = std::mem::take(&mut self.unassigned);
        self.assign(rooms, None);
        self.end_retired();
    }

    /// Asks one node after the other: first the one that knows more, then the one that answered last. The error
    /// is a sentence.
    fn ask(&mut self, knows: Option<&str>) -> Result<Vec<SlotRange>, String> {
        let mut nodes = self.known.clone();
        nodes.extend(self.seeds.iter().cloned());
        nodes.sort_by_key(|node| Some(node.name()) != knows);
        let deadline = Instant::now() + ASK_WITHIN;
        let mut asked = BTreeSet::new();
        let mut trouble = Vec::new();
        for node in nodes {
            if !asked.insert(node.name().to_owned()) || Instant::now() > deadline {
                continue;
            }
            match slot_map::ask(&node) {
                Ok(map) => {
                    self.known = self.nodes_of(&map);
                    self.known.sort_by_key(|known| known.name() != node.name());
                    return Ok(map);
                }
                Err(why) => trouble.push(format!("{}: {why}", node.name())),
            }
        }
        Err(trouble.join("; "))
    }

    fn nodes_of(&self, map: &[SlotRange]) -> Vec<RedisServer> {
        let places = map
            .iter()
            .flat_map(|range| std::iter::once(&range.master).chain(&range.replicas));
        let places: BTreeSet<_> = places.collect();
        let servers = places.into_iter().map(|place| self.nodes.at(place));
        servers.filter_map(Result::ok).collect()
    }

    /// Starts shards for new masters, tells each shard its slots, and retires those that have none.
    fn take_in(&mut self, map: &[SlotRange]) {
        let mut slots: BTreeMap<&str, SlotSet> = BTreeMap::new();
        for range in map {
            let own = slots.entry(&range.master).or_insert_with(SlotSet::empty);
            range.slots.clone().for_each(|slot| own.insert(slot));
        }
        let slots: BTreeMap<_, _> = slots
            .into_iter()
            .map(|(master, slots)| (master, Arc::new(slots)))
            .collect();
        let mut shards = lock(&self.owners).shards.clone();
        for (master, slots) in &slots {
            if !shards.contains_key(*master) {
                match self.start(master, slots) {
                    Ok(shard) => drop(shards.insert((*master).to_owned(), Arc::new(shard))),
                    Err(why) => error!("the cluster's node {master} cannot be used: {why}"),
                }
            }
        }
        let (shards, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = shards
            .into_iter()
            .partition(|(master, _)| slots.contains_key(&master[..]));
        {
            let mut owners = lock(&self.owners);
            owners.by_slot.fill(None);
            for range in map {
                if let Some(shard) = shards.get(&range.master) {
                    for slot in range.slots.clone() {
                        owners.by_slot[usize::from(slot)] = Some(Arc::clone(shard));
                    }
                }
            }
            owners.shards.clone_from(&shards);
        }
        for (master, slots) in slots {
            if let Some(shard) = shards.get(master) {
                shard.set_share(Share::Slots(slots));
            }
        }
        let nothing = Arc::new(SlotSet::empty());
        for shard in gone.into_values() {
            info!("the cluster's node {} has no slots any more", shard.name());
            shard.set_share(Share::Slots(Arc::clone(&nothing)));
            shard.connect_no_more();
            shard.stop_hearing();
            self.retired.push((Instant::now(), shard));
        }
    }

    fn start(&self, master: &str, slots: &Arc<SlotSet>) -> Result<Shard, String> {
        let keys = self.keys.on_node(master);
        keys.lie_in(slots);
        let to = Connecting {
            source: Source::Server(Arc::new(self.nodes.at(master)?)),
            name: master.to_owned(),
            keys,
            scripts: self.scripts.clone(),
            servers: None,
            news: self.news.clone(),
            acknowledged: Some(Arc::clone(&self.acknowledged)),
        };
        let share = Share::Slots(Arc::clone(slots));
        Shard::start(to, None, share, &self.users).map_err(|error| error.to_string())
    }

    /// A slot moved: its node takes the command over, and those that follow.
    fn hand_over(&mut self, slot: u16, to: &str, mut command: PendingCommand) {
        // A second redirection in a row is not followed.
        command.stays = true;
        let owner = {
            let mut owners = lock(&self.owners);
            let named = owners.shards.get(to).cloned();
            let owner = &mut owners.by_slot[usize::from(slot)];
            if named.is_some() {
                *owner = named;
            }
            owner.clone()
        };
        match owner {
            Some(shard) => shard.take_over(command),
            None => refuse(command),
        }
    }

    /// Gives rooms to the subscribers of the nodes that have them. Those that the map has at the node that they
    /// come `from` wait for the next look.
    fn assign(&mut self, rooms: Vec<Heard>, from: Option<&str>) {
        let mut adopted: BTreeMap<String, (Arc<Shard>, Vec<Heard>)> = BTreeMap::new();
        for heard in rooms {
            let slot = slot(&tag(&heard.room));
            let owner = lock(&self.owners).by_slot[usize::from(slot)].clone();
            match owner.filter(|shard| Some(shard.name()) != from) {
                Some(shard) => {
                    let rooms = adopted.entry(shard.name().to_owned());
                    let (_, rooms) = rooms.or_insert_with(|| (shard, Vec::new()));
                    rooms.push(heard);
                }
                None => self.unassigned.push(heard),
            }
        }
        let hub = &self.users.hub;
        self.unassigned.retain(|heard| hub.hosts(&heard.room));
        for (shard, rooms) in adopted.into_values() {
            shard.ask(Task::Adopt(rooms));
        }
    }

    /// Ends the publishers of shards that nobody can have found in the map any more.
    fn end_retired(&mut self) {
        let due = |(retired, _): &mut (Instant, _)| retired.elapsed() > RETIRES_AFTER;
        for (_, shard) in self.retired.extract_if(.., due) {
            shard.stop_publishing();
            shard.join_subscriber();
            shard.join_publisher();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use redis::cmd;

    use super::*;
    use crate::backplane::Retention;
    use crate::backplane::redis::address::{Form, RedisAddress};
    use crate::backplane::redis::listener::tests::nowhere;
    use crate::backplane::redis::router::Router;
    use crate::backplane::redis::wire::PubSub;
    use crate::hub::Hub;
    use crate::hub::outbox::outbox;
    use crate::message::{ConnectionId, InstanceId};
    use crate::protocol::Encoding;

    /// The state of a thread that knows these nodes, and the way to it.
    fn topology(seeds: &[String]) -> (Topology, NewsSender, Receiver<ClusterNews>) {
        let url = format!("redis+cluster://{}", seeds.join(","));
        let Form::Cluster { seeds, nodes } = RedisAddress::parse(&url).expect("an address").0
        else {
            panic!("a cluster")
        };
        let (news, told) = crossbeam_channel::unbounded();
        let news = NewsSender(Some(news));
        let hub = Hub::start(InstanceId::random(), 0).expect("no threads");
        let Connecting { keys, scripts, .. } = nowhere(PubSub::Sharded, NewsSender(None));
        let retention = Retention {
            history_length: 1,
            history_ttl: LOOK_EVERY,
            history_bytes: 1,
            presence_ttl: LOOK_EVERY,
            presence_grace: LOOK_EVERY,
        };
        let topology = Topology {
            seeds,
            known: Vec::new(),
            nodes,
            keys,
            scripts,
            users: Users::new(&Arc::new(hub), &retention),
            owners: Arc::new(Mutex::new(Owners {
                by_slot: vec![None; usize::from(SLOTS)],
                shards: BTreeMap::new(),
            })),
            news: news.clone(),
            acknowledged: Arc::default(),
            unassigned: Vec::new(),
            moved: Vec::new(),
            retired: Vec::new(),
            is_silent: false,
        };
        (topology, news, told)
    }

    /// Nodes that nobody has.
    fn nobody() -> [String; 2] {
        ["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()]
    }

    fn shard(topology: &Topology) -> Arc<Shard> {
        let to = nowhere(PubSub::Sharded, NewsSender(None));
        let shard = Shard::start(to, None, Share::All, &topology.users);
        Arc::new(shard.expect("its threads"))
    }

    fn stop(news: &NewsSender) {
        let news = news.0.as_ref().expect("a way to the thread");
        news.send(ClusterNews::Stop).expect("the receiver is there");
    }

    type Answers = Receiver<Result<redis::Value, BackplaneError>>;

    fn command() -> (PendingCommand, Answers) {
        let (tell, told) = crossbeam_channel::unbounded();
        let on_answer = Box::new(move |answer| drop(tell.send(answer)));
        (
            PendingCommand::new(&cmd("PING"), Instant::now(), on_answer),
            told,
        )
    }

    #[test]
    fn at_its_end_every_command_that_no_node_took_is_answered() {
        let (topology, news, told) = topology(&nobody());
        let (early, of_early) = command();
        let (late, of_late) = command();
        let to = || "127.0.0.1:3".to_owned();
        assert!(news.moved(1, to(), early).is_none());
        stop(&news);
        assert!(news.moved(1, to(), late).is_none());
        topology.run(&told);
        for answers in [of_early, of_late] {
            assert_eq!(answers.try_recv(), Ok(Err(BackplaneError::Unavailable)));
        }
    }

    #[test]
    fn the_node_that_knows_more_is_asked_first_and_each_once() {
        let [first, second] = nobody();
        let (mut topology, ..) = topology(&[first.clone(), second.clone()]);
        let range = SlotRange {
            slots: 0..=1,
            master: first.clone(),
            replicas: vec![second.clone()],
        };
        topology.known = topology.nodes_of(&[range]);
        assert_eq!(topology.known.len(), 2, "a replica knows the map, too");
        for (knows, other) in [(&first, &second), (&second, &first)] {
            let why = topology.ask(Some(knows)).expect_err("nobody is there");
            let asked: Vec<_> = why.split("; ").collect();
            assert_eq!(asked.len(), 2, "{why}");
            assert!(asked[0].starts_with(&**knows), "{why}");
            assert!(asked[1].starts_with(&**other), "{why}");
        }
    }

    #[test]
    fn the_node_that_answered_is_asked_first_from_then_on() {
        let door = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = door.local_addr().expect("an address").port();
        let [dead, _] = nobody();
        let (mut topology, ..) = topology(&[dead.clone(), format!("127.0.0.1:{port}")]);
        // Two answers to HELLO, then those to CLUSTER INFO and CLUSTER SLOTS.
        let answers = format!(
            "+OK\r\n%2\r\n+version\r\n+8.0.0\r\n+mode\r\n+cluster\r\n+cluster_state:ok\r\n\
             *1\r\n*4\r\n:0\r\n:16383\r\n*2\r\n+127.0.0.1\r\n:1\r\n*2\r\n+127.0.0.1\r\n:{port}\r\n"
        );
        let node = thread::spawn(move || {
            let (mut peer, _) = door.accept().expect("a connection");
            peer.write_all(answers.as_bytes()).expect("a connection");
            let _ = peer.read_to_end(&mut Vec::new());
        });
        let map = topology.ask(Some(&dead)).expect("a map");
        assert_eq!(map[0].master, dead);
        let known: Vec<_> = topology.known.iter().map(RedisServer::name).collect();
        assert_eq!(known, [format!("127.0.0.1:{port}"), dead]);
        node.join().expect("the node");
    }

    #[test]
    fn however_many_nodes_are_silent_a_look_ends() {
        let doors = [(); 12].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let places = doors.each_ref().map(|door| {
            let place = door.local_addr().expect("an address");
            place.to_string()
        });
        let (mut topology, ..) = topology(&places);
        let why = topology.ask(None).expect_err("nobody answers");
        let asked = why.split("; ").count();
        assert!((1..places.len()).contains(&asked), "{asked}: {why}");
    }

    #[test]
    fn news_lead_to_a_look_soon_and_not_at_once() {
        let stale = |news: &NewsSender| news.stale(None);
        let moved = |news: &NewsSender| {
            let (command, _) = command();
            assert!(news.moved(1, "127.0.0.1:3".to_owned(), command).is_none());
        };
        let unassigned = |news: &NewsSender| {
            let room = Heard::anew(RoomName::lobby(), Vec::new());
            news.unassigned("127.0.0.1:3", vec![room]);
        };
        let kinds: [&dyn Fn(&NewsSender); 3] = [&stale, &moved, &unassigned];
        for tell in kinds {
            let door = TcpListener::bind("127.0.0.1:0").expect("a port");
            let place = door.local_addr().expect("an address").to_string();
            let (topology, news, told) = topology(&[place]);
            let (outbox, _queue) = outbox(Encoding::Text, 1 << 10, None);
            let hub = &topology.users.hub;
            hub.add_member(&RoomName::lobby(), ConnectionId(1), None, &outbox);
            let mut waits = Vec::new();
            thread::scope(|scope| {
                // Before the thread begins, and then before it has looked.
                let mut since = Instant::now();
                scope.spawn(|| topology.run(&told));
                for _ in 0..2 {
                    tell(&news);
                    let asked = door.accept();
                    waits.push(since.elapsed());
                    since = Instant::now();
                    drop(asked);
                }
                stop(&news);
            });
            for wait in waits {
                assert!((LOOK_AGAIN..LOOK_EVERY).contains(&wait), "{wait:?}");
            }
        }
    }

    #[test]
    fn a_shard_that_left_ends_once_nobody_can_have_found_it_in_the_map() {
        let (mut topology, news, told) = topology(&nobody());
        let (gone, leaves) = (shard(&topology), shard(&topology));
        let long_ago = Instant::now().checked_sub(2 * RETIRES_AFTER);
        let long_ago = long_ago.expect("the machine runs for longer");
        for (at, shard) in [(long_ago, &gone), (Instant::now(), &leaves)] {
            shard.stop_hearing();
            topology.retired.push((at, Arc::clone(shard)));
        }
        topology.end_retired();
        let [(_, left)] = &topology.retired[..] else {
            panic!("one is left")
        };
        assert!(Arc::ptr_eq(left, &leaves));
        stop(&news);
        topology.run(&told);
    }

    #[test]
    fn slots_that_no_node_has_are_told_and_the_end_waits_for_the_thread() {
        let (topology, news, told) = topology(&nobody());
        let owners = Arc::clone(&topology.owners);
        let shard = shard(&topology);
        let thread = threads::spawn_vital("topology", move || topology.run(&told));
        let router = Router::Cluster(RedisCluster {
            owners: Arc::clone(&owners),
            news: news.0.expect("a way to the thread"),
            thread: Mutex::new(thread.ok()),
        });
        let trouble = router.trouble().expect("no node has any");
        assert!(trouble.contains("16384 hash slots"), "{trouble}");
        lock(&owners).by_slot.fill(Some(Arc::clone(&shard)));
        assert_eq!(router.trouble(), None);
        router.hold_still();
        assert_eq!(Arc::strong_count(&owners), 2, "the thread has ended");
        shard.stop_hearing();
        shard.join_subscriber();
    }
}
