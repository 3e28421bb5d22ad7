//! The faults: what happens when, as a seed says, and how it is done.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use hubbub::client::ServerUrl;

use crate::check;
use crate::crowd::{self, Crowd, ROOMS};
use crate::processes::{Instance, PRESENCE_TTL, Redis, is_ready, quiet_port};
use crate::support::proxy::{Link, Proxy};
use crate::support::{Dice, lock};

pub(crate) const INSTANCES: usize = 2;

/// How much longer than asked for the faults may take.
pub(crate) const OVERTIME: Duration = Duration::from_secs(15);

/// So many findings are shown.
const SHOWN: usize = 40;

/// The most entries that somebody else writes into one log at once: more than a reader asks for.
const OTHER_ENTRIES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    RedisKilled,
    RedisFrozen,
    RedisPaused,
    PubSubKilled,
    NormalKilled,
    RedisSleeps,
    RedisReplica,
    RedisFull,
    ScriptsFlushed,
    OtherEntries,
    LinkCut,
    LinkStalled,
    LinkSwallowed,
    InstanceKilled,
    InstanceDrained,
    ClientsCut,
    ClientsStalled,
    ClientsSwallowed,
    MembersChange,
}

pub(crate) const KINDS: [Kind; 19] = [
    Kind::RedisKilled,
    Kind::RedisFrozen,
    Kind::RedisPaused,
    Kind::PubSubKilled,
    Kind::NormalKilled,
    Kind::RedisSleeps,
    Kind::RedisReplica,
    Kind::RedisFull,
    Kind::ScriptsFlushed,
    Kind::OtherEntries,
    Kind::LinkCut,
    Kind::LinkStalled,
    Kind::LinkSwallowed,
    Kind::InstanceKilled,
    Kind::InstanceDrained,
    Kind::ClientsCut,
    Kind::ClientsStalled,
    Kind::ClientsSwallowed,
    Kind::MembersChange,
];

impl Kind {
    /// By its name, such as `RedisFull`.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let named = |kind: &Self| format!("{kind:?}").eq_ignore_ascii_case(name);
        let found = KINDS.into_iter().find(named);
        found.ok_or_else(|| format!("{name:?} is no fault; there are {KINDS:?}"))
    }

    fn target(self, instance: usize) -> Target {
        match self {
            Self::RedisKilled
            | Self::RedisFrozen
            | Self::RedisPaused
            | Self::PubSubKilled
            | Self::NormalKilled
            | Self::RedisSleeps
            | Self::RedisReplica
            | Self::RedisFull
            | Self::ScriptsFlushed
            | Self::OtherEntries => Target::Redis,
            Self::LinkCut | Self::LinkStalled | Self::LinkSwallowed => Target::Link(instance),
            Self::InstanceKilled | Self::InstanceDrained => Target::Instance(instance),
            Self::ClientsCut | Self::ClientsStalled | Self::ClientsSwallowed => {
                Target::Door(instance)
            }
            Self::MembersChange => Target::Crowd,
        }
    }

    fn lasts(self, dice: &mut Dice) -> Duration {
        let lasts = dice.wait(300, 4000);
        match self {
            Self::PubSubKilled
            | Self::NormalKilled
            | Self::ScriptsFlushed
            | Self::OtherEntries
            | Self::MembersChange => Duration::ZERO,
            // What refuses writes outlives presence that nobody renews.
            Self::RedisReplica | Self::RedisFull => PRESENCE_TTL + lasts,
            Self::RedisKilled
            | Self::RedisFrozen
            | Self::RedisPaused
            | Self::RedisSleeps
            | Self::LinkCut
            | Self::LinkStalled
            | Self::LinkSwallowed
            | Self::InstanceKilled
            | Self::InstanceDrained
            | Self::ClientsCut
            | Self::ClientsStalled
            | Self::ClientsSwallowed => lasts,
        }
    }
}

/// What a fault happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Redis,
    Link(usize),
    Instance(usize),
    Door(usize),
    Crowd,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// Since the beginning.
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    instance: usize,
    lasts: Duration,
    dice: u64,
}

impl Fault {
    pub(crate) fn over(&self) -> Duration {
        self.at + self.lasts
    }

    /// Whether it may rightly make the others believe that somebody left: it takes clients away, or
    /// keeps one instance, and not the others, from telling Redis of them.
    pub(crate) fn may_part(&self) -> bool {
        self.kind.target(self.instance) != Target::Redis
    }

    pub(crate) fn describe(&self) -> String {
        let Self {
            instance, lasts, ..
        } = self;
        let lasts = format!("{:.1} s", lasts.as_secs_f64());
        match self.kind {
            Kind::RedisKilled => format!("Redis is killed, and back after {lasts}"),
            Kind::RedisFrozen => format!("Redis is frozen for {lasts}"),
            Kind::RedisPaused => format!("Redis pauses its clients for {lasts}"),
            Kind::PubSubKilled => "Redis cuts the subscriptions".to_owned(),
            Kind::NormalKilled => "Redis cuts the ordinary connections".to_owned(),
            Kind::RedisSleeps => format!("Redis sleeps for {lasts}"),
            Kind::RedisReplica => format!("Redis is a replica that takes no writes for {lasts}"),
            Kind::RedisFull => format!("Redis is full for {lasts}"),
            Kind::ScriptsFlushed => "Redis forgets the scripts".to_owned(),
            Kind::OtherEntries => "somebody else writes into the rooms' logs".to_owned(),
            Kind::LinkCut => format!("instance {instance} is cut off Redis for {lasts}"),
            Kind::LinkStalled => format!("instance {instance} waits for Redis for {lasts}"),
            Kind::LinkSwallowed => {
                format!("what Redis tells instance {instance} is lost for {lasts}, then cut")
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
/// before, and is left out if it would not be over [`OVERTIME`] after the end.
pub(crate) fn plan(seconds: u64, seed: u64, kinds: &[Kind]) -> Vec<Fault> {
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
        let lasts = kind.lasts(&mut dice);
        let over = over.entry(kind.target(instance)).or_default();
        let fault = Fault {
            at: next.max(*over),
            kind,
            instance,
            lasts,
            dice: dice.roll(),
        };
        if fault.over() <= end + OVERTIME {
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
    pub(crate) redis: Mutex<Redis>,
    pub(crate) instances: [Mutex<Instance>; INSTANCES],
    /// Where each of them listens, to be asked also while something happens to it.
    pub(crate) addresses: [SocketAddr; INSTANCES],
    /// Between each instance and Redis.
    links: [Mutex<Proxy>; INSTANCES],
    /// Between half of the clients and each instance.
    doors: [Mutex<Proxy>; INSTANCES],
    pub(crate) wrong: Mutex<Vec<String>>,
}

impl House {
    pub(crate) fn build(folder: &Path) -> Self {
        let redis = Redis::start(folder);
        let links: [_; INSTANCES] = std::array::from_fn(|_| Proxy::before(redis.port()));
        let instances: [_; INSTANCES] = std::array::from_fn(|number| {
            Instance::start(&format!("hubbub-{number}"), links[number].url(), folder)
        });
        let doors = std::array::from_fn(|n| Mutex::new(Proxy::before(instances[n].port())));
        Self {
            redis: Mutex::new(redis),
            addresses: std::array::from_fn(|n| instances[n].address()),
            instances: instances.map(Mutex::new),
            links: links.map(Mutex::new),
            doors,
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
        let redis = || lock(&self.redis);
        let instance = || lock(&self.instances[fault.instance]);
        let link = || lock(&self.links[fault.instance]);
        let door = || lock(&self.doors[fault.instance]);
        match fault.kind {
            Kind::RedisKilled => {
                let mut redis = redis();
                redis.kill();
                pause();
                redis.start_again();
            }
            Kind::RedisFrozen => {
                let redis = redis();
                redis.freeze();
                pause();
                redis.thaw();
            }
            Kind::RedisPaused => {
                let redis = redis();
                let millis = fault.lasts.as_millis().to_string();
                self.command(&redis, &["CLIENT", "PAUSE", &millis]);
                pause();
            }
            Kind::PubSubKilled => self.command(&redis(), &["CLIENT", "KILL", "TYPE", "pubsub"]),
            Kind::NormalKilled => self.command(&redis(), &["CLIENT", "KILL", "TYPE", "normal"]),
            Kind::RedisSleeps => {
                let seconds = fault.lasts.as_secs_f64().to_string();
                self.command(&redis(), &["DEBUG", "SLEEP", &seconds]);
            }
            Kind::RedisReplica => {
                let redis = redis();
                // Of nothing: it keeps its data, and waits for a master that never answers.
                let nothing = quiet_port().to_string();
                self.command(&redis, &["REPLICAOF", "127.0.0.1", &nothing]);
                pause();
                self.look_whether_unready("a replica");
                self.command(&redis, &["REPLICAOF", "NO", "ONE"]);
            }
            Kind::RedisFull => {
                let redis = redis();
                self.command(&redis, &["CONFIG", "SET", "maxmemory", "1"]);
                pause();
                self.look_whether_unready("full");
                self.command(&redis, &["CONFIG", "SET", "maxmemory", "0"]);
            }
            Kind::ScriptsFlushed => self.command(&redis(), &["SCRIPT", "FLUSH"]),
            Kind::OtherEntries => {
                let redis = redis();
                let mut dice = Dice(fault.dice);
                for room in (0..ROOMS).map(crowd::room) {
                    let log = format!("hubbub:{{{room}}}:log");
                    let entries = (1 + dice.below(OTHER_ENTRIES)).to_string();
                    let script =
                        "for _ = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'x', 'y') end";
                    self.command(&redis, &["EVAL", script, "1", &log, &entries]);
                }
            }
            Kind::LinkCut => cut(&link(), pause),
            Kind::LinkStalled => stall(&link(), pause),
            Kind::LinkSwallowed => swallow(&link(), pause),
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
            Kind::ClientsCut => cut(&door(), pause),
            Kind::ClientsStalled => stall(&door(), pause),
            Kind::ClientsSwallowed => swallow(&door(), pause),
            Kind::MembersChange => lock(crowd).some_change(&mut Dice(fault.dice)),
        }
    }

    fn command(&self, redis: &Redis, words: &[&str]) {
        let done = redis.run(words);
        self.complain(
            done.err()
                .map(|error| format!("{words:?} could not be done: {error}")),
        );
    }

    /// While Redis takes no writes, no instance may say that it is ready.
    fn look_whether_unready(&self, what: &str) {
        for (number, &address) in self.addresses.iter().enumerate() {
            self.complain(check::unready(number, is_ready(address), what).err());
        }
    }
}

fn cut(proxy: &Proxy, pause: impl Fn()) {
    proxy.cut();
    pause();
    proxy.mend();
}

fn stall(proxy: &Proxy, pause: impl Fn()) {
    proxy.set(Link::Stalled);
    pause();
    proxy.set(Link::Open);
}

/// What was swallowed is cut before anything passes again: TCP leaves no holes.
fn swallow(proxy: &Proxy, pause: impl Fn()) {
    proxy.set(Link::Swallowed);
    pause();
    proxy.cut();
    proxy.set(Link::Open);
    proxy.mend();
}
