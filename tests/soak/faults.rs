//! The faults: what happens when, as a seed says, and how it is done.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use hubbub::client::ServerUrl;

use crate::crowd::Crowd;
use crate::processes::{Instance, Redis};
use crate::support::proxy::{Link, Proxy};
use crate::support::{Dice, lock};

pub(crate) const INSTANCES: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    RedisKilled,
    RedisFrozen,
    RedisPaused,
    PubSubKilled,
    NormalKilled,
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

const KINDS: [Kind; 14] = [
    Kind::RedisKilled,
    Kind::RedisFrozen,
    Kind::RedisPaused,
    Kind::PubSubKilled,
    Kind::NormalKilled,
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

/// The same for the same seed. All kinds have had their turn before one has its second.
pub(crate) fn plan(seconds: u64, seed: u64) -> Vec<Fault> {
    let mut dice = Dice(seed);
    let mut plan = Vec::new();
    let mut deck = Vec::new();
    let mut at = dice.wait(2000, 5000);
    while at + Duration::from_secs(2) < Duration::from_secs(seconds) {
        if deck.is_empty() {
            deck = KINDS.to_vec();
        }
        plan.push(Fault {
            at,
            kind: deck.swap_remove(dice.below(deck.len())),
            instance: dice.below(INSTANCES),
            lasts: dice.wait(300, 4000),
            dice: dice.roll(),
        });
        at += dice.wait(2000, 5000);
    }
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
            instances: instances.map(Mutex::new),
            links: links.map(Mutex::new),
            doors,
            wrong: Mutex::default(),
        }
    }

    /// Each instance, and then each again through its door.
    pub(crate) fn entrances(&self) -> Vec<ServerUrl> {
        let direct = self.instances.iter().map(|i| lock(i).address().to_string());
        // The proxy thinks that all the world is Redis.
        let doors = self.doors.iter().map(|door| lock(door).url());
        direct
            .chain(doors)
            .map(|url| ServerUrl::parse(url.trim_start_matches("redis://")).expect("an address"))
            .collect()
    }

    pub(crate) fn complain(&self, what: String) {
        lock(&self.wrong).push(what);
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
                let millis = fault.lasts.as_millis().to_string();
                self.command(&redis(), &["CLIENT", "PAUSE", &millis]);
            }
            Kind::PubSubKilled => self.command(&redis(), &["CLIENT", "KILL", "TYPE", "pubsub"]),
            Kind::NormalKilled => self.command(&redis(), &["CLIENT", "KILL", "TYPE", "normal"]),
            Kind::LinkCut => cut(&link(), pause),
            Kind::LinkStalled => stall(&link(), pause),
            Kind::LinkSwallowed => swallow(&link(), pause),
            Kind::InstanceKilled => {
                let mut instance = instance();
                self.look_whether_it_ended(&mut instance);
                instance.kill();
                pause();
                instance.start_again();
            }
            Kind::InstanceDrained => {
                let mut instance = instance();
                self.look_whether_it_ended(&mut instance);
                if let Err(what) = instance.drain() {
                    self.complain(what);
                }
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
        if let Err(error) = redis.run(words) {
            self.complain(format!("{words:?} could not be done: {error}"));
        }
    }

    pub(crate) fn look_whether_it_ended(&self, instance: &mut Instance) {
        if let Some(what) = instance.ended() {
            self.complain(what);
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
