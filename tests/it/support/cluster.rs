//! A Redis Cluster on this machine. Nodes are known by their numbers, in the order of their start:
//! the masters come first, then a replica for each of them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::commands::{ask, ask_all};
use super::redis::Redis;
use super::until;

const SLOTS: u16 = 16_384;

/// A node that nothing is heard of for two seconds is taken for dead. A master that has given away its last
/// slot stays a master.
#[rustfmt::skip]
const ARGUMENTS: [&str; 12] = [
    "--cluster-enabled", "yes",
    "--cluster-config-file", "nodes.conf",
    "--cluster-node-timeout", "2000",
    "--cluster-require-full-coverage", "no",
    "--cluster-allow-replica-migration", "no",
    "--repl-diskless-sync-delay", "0",
];

/// The time after which a planned failover is given up by the server.
const FAILS_OVER_WITHIN: Duration = Duration::from_secs(6);

/// How many slots [`Cluster::remove`] moves at a time. A room in one of them cannot take all messages until
/// all of them have moved.
const MOVED_AT_ONCE: usize = 100;

/// The keys that one MIGRATE moves, and how many milliseconds it may take.
const KEYS_AT_ONCE: &str = "100";
const MIGRATES_WITHIN: &str = "1000";

pub(crate) struct Cluster {
    nodes: Vec<Redis>,
    arguments: Vec<&'static str>,
}

/// What one node believes of another one, or of itself.
struct Belief {
    id: String,
    port: u16,
    /// Such as `myself`, `master` and `fail?`.
    flags: Vec<String>,
    /// The id of its master, or `-`.
    master: String,
    slots: Vec<RangeInclusive<u16>>,
}

impl Belief {
    /// Reads a line of CLUSTER NODES.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split_whitespace().collect();
        let (host, _) = words.get(1)?.split_once('@')?;
        let number = |text: &str| text.parse().ok();
        let range = |word: &&str| {
            // Slots on their way are in brackets, and listed before without them.
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            Some(number(first)?..=number(last)?)
        };
        Some(Self {
            id: words[0].to_owned(),
            port: number(host.rsplit_once(':')?.1)?,
            flags: words.get(2)?.split(',').map(str::to_owned).collect(),
            master: words.get(3)?.to_string(),
            slots: words.get(8..)?.iter().filter_map(range).collect(),
        })
    }

    fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|have| have == flag)
    }

    fn owns(&self, slot: u16) -> bool {
        self.is("master") && self.slots.iter().any(|range| range.contains(&slot))
    }
}

impl Cluster {
    /// So many masters.
    pub(crate) fn of(masters: usize) -> Self {
        Self::start(masters, 0, &[])
    }

    /// So many masters with a replica each.
    pub(crate) fn with_replicas(masters: usize) -> Self {
        Self::start(masters, masters, &[])
    }

    /// Nodes that are told this as well, such as `&["--appendonly", "yes"]`.
    pub(crate) fn start(masters: usize, replicas: usize, arguments: &[&'static str]) -> Self {
        let arguments = [&ARGUMENTS[..], arguments].concat();
        let start = |_| Redis::start_with(&arguments);
        let nodes = (0..masters + replicas).map(start).collect();
        let cluster = Self { nodes, arguments };
        for (number, node) in cluster.nodes.iter().enumerate() {
            let epoch = (number + 1).to_string();
            cluster.tell(number, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
            if number < masters {
                let share = |part: usize| part * usize::from(SLOTS) / masters;
                let first = share(number).to_string();
                let last = (share(number + 1) - 1).to_string();
                cluster.tell(number, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            }
            let port = node.port().to_string();
            cluster.tell(0, &["CLUSTER", "MEET", "127.0.0.1", &port]);
        }
        for number in masters..masters + replicas {
            cluster.replicate(number, number - masters);
        }
        cluster.wait_until_whole();
        cluster
    }

    fn replicate(&self, replica: usize, master: usize) {
        let id: String = self.get(master, &["CLUSTER", "MYID"]);
        until("the replica has met its master", || {
            let done = ask::<()>(self.nodes[replica].port(), &["CLUSTER", "REPLICATE", &id]);
            done.ok()
        });
    }

    /// Waits until all nodes are up, know each other, agree on who is a master, and have what they replicate.
    pub(crate) fn wait_until_whole(&self) {
        until("the cluster is whole", || {
            let mut views = Vec::new();
            for node in &self.nodes {
                let info: String = ask(node.port(), &["CLUSTER", "INFO"]).ok()?;
                let replication: String = ask(node.port(), &["INFO", "replication"]).ok()?;
                let whole = info.contains("cluster_state:ok")
                    && info.contains(&format!("cluster_slots_assigned:{SLOTS}"))
                    && !replication.contains("master_link_status:down");
                whole.then_some(())?;
            }
            for beliefs in self.beliefs() {
                let states = ["handshake", "noaddr", "fail?", "fail"];
                let doubts = |belief: &Belief| states.iter().any(|state| belief.is(state));
                let sound = beliefs.len() == self.nodes.len() && !beliefs.iter().any(doubts);
                let masters = beliefs.iter().filter(|belief| belief.is("master"));
                let mut masters: Vec<_> = masters.map(|belief| belief.port).collect();
                masters.sort_unstable();
                views.push(sound.then_some(masters)?);
            }
            let agreed = views.len() == self.nodes.len() && views.windows(2).all(|v| v[0] == v[1]);
            agreed.then_some(())
        });
    }

    pub(crate) fn url(&self) -> String {
        let hosts = self.nodes.iter();
        let hosts: Vec<_> = hosts
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    pub(crate) fn node(&self, number: usize) -> &Redis {
        &self.nodes[number]
    }

    pub(crate) fn node_mut(&mut self, number: usize) -> &mut Redis {
        &mut self.nodes[number]
    }

    fn tell(&self, number: usize, words: &[&str]) {
        self.get::<()>(number, words);
    }

    /// The answer of a node that is up.
    fn get<T: redis::FromRedisValue>(&self, number: usize, words: &[&str]) -> T {
        let answer = ask(self.nodes[number].port(), words);
        answer.unwrap_or_else(|error| panic!("{words:?} at node {number}: {error}"))
    }

    /// What each node that answers believes of all.
    fn beliefs(&self) -> impl Iterator<Item = Vec<Belief>> {
        let answers = self.nodes.iter();
        let answers = answers.filter_map(|node| ask(node.port(), &["CLUSTER", "NODES"]).ok());
        answers.map(|lines: String| lines.lines().filter_map(Belief::parse).collect())
    }

    fn known(&self) -> Vec<Belief> {
        until("a node answers", || self.beliefs().next())
    }

    fn number_of(&self, belief: &Belief) -> Option<usize> {
        let mut nodes = self.nodes.iter();
        nodes.position(|node| node.port() == belief.port)
    }

    /// The nodes that are masters now, and not dead.
    pub(crate) fn masters(&self) -> Vec<usize> {
        let known = self.known();
        let masters = known.iter().filter(|b| b.is("master") && !b.is("fail"));
        masters
            .filter_map(|belief| self.number_of(belief))
            .collect()
    }

    /// The slot of a room's keys.
    pub(crate) fn slot_of(&self, room: &str) -> u16 {
        let key = format!("hubbub:{{{room}}}:log");
        let words = ["CLUSTER", "KEYSLOT", &key];
        until("a node answers", || {
            self.nodes
                .iter()
                .find_map(|node| ask(node.port(), &words).ok())
        })
    }

    /// The master of a room's slot.
    pub(crate) fn owner_of(&self, room: &str) -> usize {
        self.owner_of_slot(self.slot_of(room))
    }

    fn owner_of_slot(&self, slot: u16) -> usize {
        until("the slot has a master", || {
            let known = self.known();
            let owner = known.iter().find(|belief| belief.owns(slot))?;
            self.number_of(owner)
        })
    }

    /// The name of a room whose slot this node owns.
    pub(crate) fn room_on(&self, number: usize) -> String {
        let mut names = (0..).map(|n| format!("r{n}"));
        let found = names.find(|name| self.owner_of(name) == number);
        found.expect("there is always another name")
    }

    /// From now on, keys that are not in the slot yet are written at `to`, and only after ASKING.
    pub(crate) fn begin_move(&self, slot: u16, to: usize) {
        self.begin_moves(&[slot], self.owner_of_slot(slot), to);
    }

    /// Moves the keys that a slot has now; the slot still belongs to the one that had it.
    pub(crate) fn move_keys(&self, slot: u16, to: usize) {
        self.move_keys_from(slot, self.owner_of_slot(slot), to);
    }

    /// The slot belongs to `to`.
    pub(crate) fn end_move(&self, slot: u16, to: usize) {
        self.end_moves(&[slot], self.owner_of_slot(slot), to);
    }

    pub(crate) fn move_slot(&self, slot: u16, to: usize) {
        self.move_slots(&[slot], self.owner_of_slot(slot), to);
    }

    fn move_slots(&self, slots: &[u16], from: usize, to: usize) {
        self.begin_moves(slots, from, to);
        for &slot in slots {
            self.move_keys_from(slot, from, to);
        }
        self.end_moves(slots, from, to);
    }

    fn begin_moves(&self, slots: &[u16], from: usize, to: usize) {
        self.set_slots(to, slots, "IMPORTING", from);
        self.set_slots(from, slots, "MIGRATING", to);
    }

    fn move_keys_from(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let port = self.nodes[to].port().to_string();
        loop {
            let words = ["CLUSTER", "GETKEYSINSLOT", &slot, KEYS_AT_ONCE];
            let keys: Vec<String> = self.get(from, &words);
            if keys.is_empty() {
                return;
            }
            #[rustfmt::skip]
            let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", MIGRATES_WITHIN, "KEYS"];
            let keys: Vec<_> = keys.iter().map(String::as_str).collect();
            self.tell(from, &[&migrate[..], &keys].concat());
        }
    }

    /// The new owner is told first, the old one next, and then the others: until then, each sends clients to
    /// one that knows.
    fn end_moves(&self, slots: &[u16], from: usize, to: usize) {
        let masters: Vec<_> = self
            .known()
            .into_iter()
            .filter(|b| b.is("master"))
            .collect();
        let masters = masters.iter().filter_map(|belief| self.number_of(belief));
        let others = masters.filter(|&number| number != from && number != to);
        self.wait_until_up_to_date(to);
        for number in [to, from].into_iter().chain(others) {
            self.set_slots(number, slots, "NODE", to);
        }
        until("all know the slot's new master", || {
            let knows = |known: Vec<Belief>| {
                let owner = known.iter().find(|belief| belief.owns(slots[0]));
                owner.and_then(|owner| self.number_of(owner)) == Some(to)
            };
            self.beliefs().all(knows).then_some(())
        });
    }

    /// Waits until a node knows the newest epoch. Otherwise it would take its own for the newest, and an older
    /// message of another node could take the slot away from it again.
    fn wait_until_up_to_date(&self, number: usize) {
        let epoch = |number: usize, name: &str| -> Option<u64> {
            let info: String = ask(self.nodes[number].port(), &["CLUSTER", "INFO"]).ok()?;
            let mut lines = info.lines();
            lines.find_map(|line| line.strip_prefix(name)?.parse().ok())
        };
        until("the node knows the newest epoch", || {
            let all = (0..self.nodes.len()).filter_map(|node| epoch(node, "cluster_my_epoch:"));
            (epoch(number, "cluster_current_epoch:") >= all.max()).then_some(())
        });
    }

    /// Tells a node of many slots at once.
    fn set_slots(&self, number: usize, slots: &[u16], state: &str, other: usize) {
        let id: String = self.get(other, &["CLUSTER", "MYID"]);
        let setslot = |slot: &u16| {
            let words = ["CLUSTER", "SETSLOT", &slot.to_string(), state, &id];
            words.map(str::to_owned).to_vec()
        };
        let commands: Vec<_> = slots.iter().map(setslot).collect();
        let done = ask_all(self.nodes[number].port(), &commands);
        done.unwrap_or_else(|error| panic!("SETSLOT {state} at node {number}: {error}"));
    }

    /// From now on no node has this slot.
    pub(crate) fn drop_slot(&self, slot: u16) {
        let slot = slot.to_string();
        for number in 0..self.nodes.len() {
            // A node may have heard of it from another one already.
            let _ = ask::<()>(self.nodes[number].port(), &["CLUSTER", "DELSLOTS", &slot]);
        }
        until("nobody has the slot", || {
            let number = slot.parse().expect("a number");
            let has = |known: Vec<Belief>| known.iter().any(|belief| belief.owns(number));
            (!self.beliefs().any(has)).then_some(())
        });
    }

    /// This node takes a slot that no node has.
    pub(crate) fn take_slot(&self, slot: u16, number: usize) {
        self.tell(number, &["CLUSTER", "ADDSLOTS", &slot.to_string()]);
    }

    /// A planned failover, which loses nothing. Returns once all know that this replica is the master.
    pub(crate) fn fail_over(&self, replica: usize) {
        until("the replica is the master", || {
            // It gives up after five seconds if it has not caught up by then.
            self.tell(replica, &["CLUSTER", "FAILOVER"]);
            let given_up = Instant::now() + FAILS_OVER_WITHIN;
            while self.masters().iter().all(|&master| master != replica) {
                if Instant::now() > given_up {
                    return None;
                }
            }
            Some(())
        });
        self.wait_until_master(replica);
    }

    /// Waits until all that answer know that this node is a master.
    pub(crate) fn wait_until_master(&self, number: usize) {
        until("all know the new master", || {
            let knows = |known: Vec<Belief>| {
                let mut masters = known.iter().filter(|belief| belief.is("master"));
                masters.any(|master| self.number_of(master) == Some(number))
            };
            self.beliefs().all(knows).then_some(())
        });
    }

    /// A node that replicates this one now.
    pub(crate) fn replica_of(&self, master: usize) -> usize {
        until("the master has a replica", || {
            let known = self.known();
            let ids: BTreeMap<_, _> = known.iter().map(|b| (&b.id, self.number_of(b))).collect();
            let replicates = |belief: &&Belief| ids.get(&belief.master) == Some(&Some(master));
            self.number_of(known.iter().find(replicates)?)
        })
    }

    /// A new master joins, without any slots.
    pub(crate) fn add_master(&mut self) -> usize {
        let node = Redis::start_with(&self.arguments);
        let port = node.port().to_string();
        self.nodes.push(node);
        self.tell(0, &["CLUSTER", "MEET", "127.0.0.1", &port]);
        self.wait_until_whole();
        self.nodes.len() - 1
    }

    /// Gives a master's slots to the other masters, has all nodes forget it, and ends it. The numbers behind
    /// it become smaller by one.
    pub(crate) fn remove(&mut self, number: usize) {
        let known = self.known();
        let is_it = |belief: &&Belief| self.number_of(belief) == Some(number);
        let it = known.iter().find(is_it).expect("it is in the cluster");
        let slots: Vec<u16> = it.slots.iter().cloned().flatten().collect();
        let mut masters = self.masters();
        masters.retain(|&master| master != number);
        for (slots, &to) in slots.chunks(MOVED_AT_ONCE).zip(masters.iter().cycle()) {
            self.move_slots(slots, number, to);
        }
        let others = (0..self.nodes.len()).filter(|&other| other != number);
        for other in others {
            self.tell(other, &["CLUSTER", "FORGET", &it.id]);
        }
        self.nodes.remove(number);
        self.wait_until_whole();
    }
}
