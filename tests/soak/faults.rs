//! The faults: what happens when, as a seed says, and how it is done.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hubbub::client::ServerUrl;

use crate::check::{self, Times};
use crate::crowd::{self, Crowd, ROOMS};
use crate::kinds::{Kind, Target};
use crate::processes::{Instance, Redis, is_ready, quiet_port};
use crate::servers::{Mode, Servers};
use crate::support::proxy::{Link, Proxy};
use crate::support::{Dice, lock};

pub(crate) const INSTANCES: usize = 2;

/// How long before a failover a message may have been acknowledged that the replica never got, and how long
/// after it an instance may still have been told of the old master.
const LOSES_WITHIN: u64 = 1000;

/// How far ids are ahead of the clock after a failover of Sentinel's (`publish.lua`).
const LEAP: u64 = 2000;

/// So many findings are shown.
const SHOWN: usize = 40;

/// The most entries that somebody else writes into one log at once: more than a reader asks for.
const OTHER_ENTRIES: usize = 64;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// Since the beginning.
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    mode: Mode,
    instance: usize,
    lasts: Duration,
    dice: u64,
}

impl Fault {
    pub(crate) fn over(&self) -> Duration {
        self.at + self.lasts + self.kind.settles(self.mode)
    }

    /// Whether it may rightly make the others believe that somebody left: it takes clients away, keeps one
    /// instance, and not the others, from telling Redis of them, or makes Redis forget.
    pub(crate) fn may_part(&self) -> bool {
        self.kind.target(self.mode, self.instance) != Target::Redis || self.kind.may_lose(self.mode)
    }

    pub(crate) fn describe(&self) -> String {
        let Self {
            instance, lasts, ..
        } = self;
        let lasts = format!("{:.1} s", lasts.as_secs_f64());
        let redis = match self.mode {
            Mode::One => "Redis",
            Mode::Three => "a Redis",
            Mode::Sentinel => "the master",
            Mode::Cluster => "a master",
        };
        let linked = match self.mode {
            Mode::One => format!("instance {instance}"),
            Mode::Three | Mode::Sentinel | Mode::Cluster => "all instances".to_owned(),
        };
        match self.kind {
            Kind::RedisKilled => format!("{redis} is killed, and back after {lasts}"),
            Kind::RedisFrozen => format!("{redis} is frozen for {lasts}"),
            Kind::RedisPaused => format!("{redis} pauses its clients for {lasts}"),
            Kind::PubSubKilled => format!("{redis} cuts the subscriptions"),
            Kind::NormalKilled => format!("{redis} cuts the ordinary connections"),
            Kind::RedisSleeps => format!("{redis} sleeps for {lasts}"),
            Kind::RedisReplica => format!("{redis} is a replica that takes no writes for {lasts}"),
            Kind::RedisFull => format!("{redis} is full for {lasts}"),
            Kind::ScriptsFlushed => format!("{redis} forgets the scripts"),
            Kind::FailedOver => format!("{redis} hands over to its replica"),
            Kind::SentinelFrozen => {
                format!("a sentinel is frozen for {lasts}, and {redis} becomes another")
            }
            Kind::SentinelKilled => format!("a sentinel is killed, and back after {lasts}"),
            Kind::SlotMoved => format!("the slot of a room moves for {lasts}"),
            Kind::MasterAdded => format!("a master is added, and removed after {lasts}"),
            Kind::OtherEntries => "somebody else writes into the rooms' logs".to_owned(),
            Kind::LinkCut => format!("the link of {linked} to {redis} is cut for {lasts}"),
            Kind::LinkStalled => format!("the link of {linked} to {redis} stalls for {lasts}"),
            Kind::LinkSwallowed => {
                format!("what {redis} tells {linked} is lost for {lasts}, then cut")
            }
            Kind::InstanceKilled => format!("instance {instance} is killed, back after {lasts}"),
            Kind::InstanceDrained => {
                format!("instance {instance} is drained, back {lasts} after its end")
            }
            Kind::ClientsCut => format!("half of instance {instance}'s clients: cut for {lasts}"),
            Kind::ClientsStalled => {
                format!("half of instance {instance}'s clients: stalled for {lasts}")
            }
            Kind::ClientsSwallowed => {
                format!("half of instance {instance}'s clients: deaf for {lasts}, then cut")
            }
            Kind::MembersChange => "some witnesses leave, others enter".to_owned(),
        }
    }
}

/// The same for the same seed. All kinds have had their turn before one has its second, and in a
/// minute each has had one. Faults overlap, but not on one target: there the next waits for the one
/// before, and is left out if it would not be over [`Mode::overtime`] after the end.
pub(crate) fn plan(seconds: u64, seed: u64, mode: Mode, kinds: &[Kind]) -> Vec<Fault> {
    let mut dice = Dice(seed);
    let mut plan = Vec::new();
    let mut deck = Vec::new();
    let mut over: BTreeMap<Target, Duration> = BTreeMap::new();
    let end = Duration::from_secs(seconds);
    let mut next = dice.wait(2000, 3000);
    while next + Duration::from_secs(2) < end {
        if deck.is_empty() {
            deck = kinds.to_vec();
        }
        let kind: Kind = deck.swap_remove(dice.below(deck.len()));
        let instance = dice.below(INSTANCES);
        let lasts = kind.lasts(mode, &mut dice);
        let over = over.entry(kind.target(mode, instance)).or_default();
        let fault = Fault {
            at: next.max(*over),
            kind,
            mode,
            instance,
            lasts,
            dice: dice.roll(),
        };
        if fault.over() <= end + mode.overtime() {
            *over = fault.over();
            plan.push(fault);
        }
        next += dice.wait(2000, 3000);
    }
    plan.sort_by_key(|fault| fault.at);
    plan
}

pub(crate) fn count(plan: &[Fault]) -> BTreeMap<Kind, usize> {
    let mut counts = BTreeMap::new();
    for fault in plan {
        *counts.entry(fault.kind).or_default() += 1;
    }
    counts
}

/// What the faults happen to. Each is locked while something happens to it: two faults may overlap,
/// but not on the same.
pub(crate) struct House {
    mode: Mode,
    servers: Mutex<Servers>,
    pub(crate) instances: [Mutex<Instance>; INSTANCES],
    /// Where each of them listens, to be asked also while something happens to it.
    pub(crate) addresses: [SocketAddr; INSTANCES],
    /// Between the instances and each Redis that they know by its address alone, by [`Mode::links_of`].
    links: [Mutex<Vec<Proxy>>; INSTANCES],
    /// Between half of the clients and each instance.
    doors: [Mutex<Proxy>; INSTANCES],
    /// When Redis may have forgotten what it had acknowledged.
    pub(crate) losses: Mutex<Times>,
    pub(crate) wrong: Mutex<Vec<String>>,
}

impl House {
    pub(crate) fn build(mode: Mode) -> Self {
        let servers = Servers::start(mode);
        let links: [Vec<Proxy>; INSTANCES] =
            std::array::from_fn(|_| servers.ports().into_iter().map(Proxy::before).collect());
        let instances: [_; INSTANCES] = std::array::from_fn(|number| {
            let links = links[mode.links_of(number)]
                .iter()
                .map(Proxy::url)
                .collect();
            let urls = servers.url().map_or(links, |url| vec![url]);
            Instance::start(&format!("hubbub-{number}"), urls)
        });
        let doors = std::array::from_fn(|n| Mutex::new(Proxy::before(instances[n].port())));
        Self {
            mode,
            servers: Mutex::new(servers),
            addresses: std::array::from_fn(|n| instances[n].address()),
            instances: instances.map(Mutex::new),
            links: links.map(Mutex::new),
            doors,
            losses: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    /// Each instance, and then each again through its door.
    pub(crate) fn entrances(&self) -> Vec<ServerUrl> {
        let direct = self.addresses.iter().map(ToString::to_string);
        // The proxy thinks that all the world is Redis.
        let doors = self.doors.iter().map(|door| lock(door).url());
        direct
            .chain(doors)
            .map(|url| ServerUrl::parse(url.trim_start_matches("redis://")).expect("an address"))
            .collect()
    }

    /// Shows the first ones at once: the soak may be stuck before its end.
    pub(crate) fn complain(&self, wrong: impl IntoIterator<Item = String>) {
        let mut all = lock(&self.wrong);
        for what in wrong {
            if all.len() < SHOWN {
                println!("wrong: {what}");
            }
            all.push(what);
        }
    }

    /// Returns once it is over and mended.
    pub(crate) fn suffer(&self, fault: &Fault, crowd: &Mutex<Crowd>) {
        let pause = || thread::sleep(fault.lasts);
        let dice = &mut Dice(fault.dice);
        let servers = || lock(&self.servers);
        let instance = || lock(&self.instances[fault.instance]);
        let door = || lock(&self.doors[fault.instance]);
        match fault.kind {
            Kind::RedisKilled => self.fail(fault, |servers| servers.kill_one(dice, pause)),
            Kind::RedisFrozen => self.fail(fault, |servers| servers.freeze_one(dice, pause)),
            Kind::RedisPaused => {
                let servers = servers();
                let millis = fault.lasts.as_millis().to_string();
                self.command(servers.master(dice), &["CLIENT", "PAUSE", &millis]);
                pause();
            }
            Kind::PubSubKilled => {
                let words = ["CLIENT", "KILL", "TYPE", "pubsub"];
                self.command(servers().master(dice), &words);
            }
            Kind::NormalKilled => {
                let words = ["CLIENT", "KILL", "TYPE", "normal"];
                self.command(servers().master(dice), &words);
            }
            Kind::RedisSleeps => {
                let seconds = fault.lasts.as_secs_f64().to_string();
                self.command(servers().master(dice), &["DEBUG", "SLEEP", &seconds]);
            }
            Kind::RedisReplica => {
                let servers = servers();
                let redis = servers.master(dice);
                // Of nothing: it keeps its data, and waits for a master that never answers.
                let nothing = quiet_port().to_string();
                self.command(redis, &["REPLICAOF", "127.0.0.1", &nothing]);
                pause();
                self.look_whether_unready("a replica");
                self.command(redis, &["REPLICAOF", "NO", "ONE"]);
            }
            Kind::RedisFull => {
                let servers = servers();
                let redis = servers.master(dice);
                self.command(redis, &["CONFIG", "SET", "maxmemory", "1"]);
                pause();
                // Sentinel may have made another one the master meanwhile.
                if servers.is_master(redis) {
                    self.look_whether_unready("full");
                }
                self.command(redis, &["CONFIG", "SET", "maxmemory", "0"]);
            }
            Kind::ScriptsFlushed => self.command(servers().master(dice), &["SCRIPT", "FLUSH"]),
            Kind::OtherEntries => {
                let servers = servers();
                for room in (0..ROOMS).map(crowd::room) {
                    let log = format!("hubbub:{{{room}}}:log");
                    let entries = (1 + dice.below(OTHER_ENTRIES)).to_string();
                    let script =
                        "for _ = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'x', 'y') end";
                    let words = ["EVAL", script, "1", &log, &entries];
                    self.command(servers.master_of(&room, &log), &words);
                }
            }
            Kind::FailedOver => servers().fail_over(dice),
            Kind::SentinelFrozen => {
                self.fail(fault, |servers| servers.freeze_a_sentinel(dice, pause));
            }
            Kind::SentinelKilled => servers().kill_a_sentinel(dice, pause),
            Kind::SlotMoved => servers().move_a_slot(dice, pause),
            Kind::MasterAdded => servers().add_and_remove_a_master(dice, pause),
            Kind::LinkCut => self.strike_a_link(fault, cut),
            Kind::LinkStalled => self.strike_a_link(fault, stall),
            Kind::LinkSwallowed => self.strike_a_link(fault, swallow),
            Kind::InstanceKilled => {
                let mut instance = instance();
                self.complain(instance.runs().err());
                instance.kill();
                pause();
                instance.start_again();
            }
            Kind::InstanceDrained => {
                let mut instance = instance();
                self.complain(instance.runs().err());
                self.complain(instance.drain().err());
                pause();
                instance.start_again();
            }
            Kind::ClientsCut => cut(&door(), fault.lasts),
            Kind::ClientsStalled => stall(&door(), fault.lasts),
            Kind::ClientsSwallowed => swallow(&door(), fault.lasts),
            Kind::MembersChange => lock(crowd).some_change(dice),
        }
    }

    /// Does what may cause a failover, and notes when Redis may have forgotten something by it.
    fn fail(&self, fault: &Fault, deed: impl FnOnce(&mut Servers)) {
        let mut servers = lock(&self.servers);
        let from = millis_now() - LOSES_WITHIN;
        deed(&mut servers);
        if fault.kind.may_lose(self.mode) {
            lock(&self.losses).push(from..=millis_now() + LOSES_WITHIN + LEAP);
        }
    }

    fn strike_a_link(&self, fault: &Fault, deed: fn(&Proxy, Duration)) {
        let links = lock(&self.links[self.mode.links_of(fault.instance)]);
        deed(&links[Dice(fault.dice).below(links.len())], fault.lasts);
    }

    fn command(&self, redis: &Redis, words: &[&str]) {
        let done = redis.run(words);
        self.complain(
            done.err()
                .map(|error| format!("{words:?} could not be done: {error}")),
        );
    }

    /// While Redis takes no writes, no instance may say that it is ready, unless other rooms are elsewhere.
    fn look_whether_unready(&self, what: &str) {
        if !self.mode.has_one_master() {
            return;
        }
        for (number, &address) in self.addresses.iter().enumerate() {
            self.complain(check::unready(number, is_ready(address), what).err());
        }
    }
}

/// As Redis tells the time, and so as ids do.
fn millis_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.expect("it is after 1970");
    u64::try_from(since.as_millis()).expect("it is before the year 500,000,000")
}

fn cut(proxy: &Proxy, lasts: Duration) {
    proxy.cut();
    thread::sleep(lasts);
    proxy.mend();
}

fn stall(proxy: &Proxy, lasts: Duration) {
    proxy.set(Link::Stalled);
    thread::sleep(lasts);
    proxy.set(Link::Open);
}

/// What was swallowed is cut before anything passes again: TCP leaves no holes.
fn swallow(proxy: &Proxy, lasts: Duration) {
    proxy.set(Link::Swallowed);
    thread::sleep(lasts);
    proxy.cut();
    proxy.set(Link::Open);
    proxy.mend();
}
