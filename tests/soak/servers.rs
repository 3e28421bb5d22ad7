//! The Redis servers of each mode, and what happens to them. Each deed returns once it is over and mended:
//! all servers are up and agree.

use std::collections::BTreeSet;
use std::time::Duration;

use hubbub::message::RoomName;

use crate::crowd;
use crate::processes::Redis;
use crate::support::Dice;
use crate::support::cluster::Cluster;
use crate::support::commands::ask;
use crate::support::sentinel::Sentinels;

/// How many rooms a new master of a cluster gets.
const ROOMS_OF_THE_NEW: usize = 3;

/// What the instances share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One Redis.
    One,
    /// Three Redis that know nothing of each other, each with some of the rooms.
    Three,
    /// A master and a replica, with three sentinels.
    Sentinel,
    /// A cluster of three masters with a replica each.
    Cluster,
}

pub(crate) const MODES: [Mode; 4] = [Mode::One, Mode::Three, Mode::Sentinel, Mode::Cluster];

impl Mode {
    /// By its name, such as `cluster`.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let named = |mode: &Self| format!("{mode:?}").eq_ignore_ascii_case(name);
        let found = MODES.into_iter().find(named);
        found.ok_or_else(|| format!("{name:?} is no mode; there are {MODES:?}"))
    }

    /// How much longer than asked for the faults may take.
    pub(crate) fn overtime(self) -> Duration {
        Duration::from_secs(match self {
            Self::One | Self::Three | Self::Cluster => 15,
            // It takes some ten seconds to agree again after each failover.
            Self::Sentinel => 30,
        })
    }

    /// Which proxies an instance has between itself and Redis. Instances that share several Redis need the same
    /// addresses of them.
    pub(crate) fn links_of(self, instance: usize) -> usize {
        match self {
            Self::One => instance,
            Self::Three | Self::Sentinel | Self::Cluster => 0,
        }
    }

    /// Whether there is nothing left to be ready with while one server takes no writes.
    pub(crate) fn has_one_master(self) -> bool {
        matches!(self, Self::One | Self::Sentinel)
    }
}

pub(crate) enum Servers {
    Independent(Vec<Redis>),
    Sentinels(Box<Sentinels>),
    Cluster(Cluster),
}

impl Servers {
    pub(crate) fn start(mode: Mode) -> Self {
        let arguments = Redis::that_remembers();
        let independent = |count| (0..count).map(|_| Redis::start_with(&arguments)).collect();
        match mode {
            Mode::One => Self::Independent(independent(1)),
            Mode::Three => Self::Independent(independent(3)),
            Mode::Sentinel => Self::Sentinels(Box::new(Sentinels::start_with(&arguments))),
            Mode::Cluster => Self::Cluster(Cluster::start(3, 3, &arguments)),
        }
    }

    /// What the instances are told, if that one address leads them to all servers.
    pub(crate) fn url(&self) -> Option<String> {
        match self {
            Self::Independent(_) => None,
            Self::Sentinels(sentinels) => Some(sentinels.url()),
            Self::Cluster(cluster) => Some(cluster.url()),
        }
    }

    /// The ports of the servers if instances know no others, so that a proxy can stand before each.
    pub(crate) fn ports(&self) -> Vec<u16> {
        match self {
            Self::Independent(servers) => servers.iter().map(Redis::port).collect(),
            Self::Sentinels(_) | Self::Cluster(_) => Vec::new(),
        }
    }

    /// The servers that take writes.
    pub(crate) fn masters(&self) -> Vec<&Redis> {
        match self {
            Self::Independent(servers) => servers.iter().collect(),
            Self::Sentinels(sentinels) => vec![sentinels.master()],
            Self::Cluster(cluster) => {
                let masters = cluster.masters().into_iter();
                masters.map(|number| cluster.node(number)).collect()
            }
        }
    }

    /// One of [`Servers::masters`].
    pub(crate) fn master(&self, dice: &mut Dice) -> &Redis {
        let masters = self.masters();
        masters[dice.below(masters.len())]
    }

    /// Whether this is a master now.
    pub(crate) fn is_master(&self, redis: &Redis) -> bool {
        self.masters()
            .iter()
            .any(|master| master.port() == redis.port())
    }

    /// The master that has this room, whose log has this key.
    pub(crate) fn master_of(&self, room: &RoomName, log: &str) -> &Redis {
        match self {
            Self::Independent(servers) => {
                let exists = |redis: &&Redis| ask(redis.port(), &["EXISTS", log]) == Ok(1);
                servers.iter().find(exists).unwrap_or(&servers[0])
            }
            Self::Sentinels(sentinels) => sentinels.master(),
            Self::Cluster(cluster) => cluster.node(cluster.owner_of(&room.to_string())),
        }
    }

    /// Kills a master and starts it again. Sentinel promotes the replica before; a cluster does so if it has
    /// the time.
    pub(crate) fn kill_one(&mut self, dice: &mut Dice, pause: impl Fn()) {
        match self {
            Self::Independent(servers) => {
                let count = servers.len();
                let server = &mut servers[dice.below(count)];
                server.kill();
                pause();
                server.start_again();
            }
            Self::Sentinels(sentinels) => {
                let old = sentinels.master().port();
                sentinels.kill_master();
                sentinels.wait_until_named_other_than(old);
                pause();
                sentinels.restart_killed();
                sentinels.wait_until_whole();
            }
            Self::Cluster(cluster) => {
                let master = one_of(&cluster.masters(), dice);
                cluster.node_mut(master).kill();
                pause();
                cluster.node_mut(master).start_again();
                cluster.wait_until_whole();
            }
        }
    }

    /// Freezes a master and thaws it again. Sentinel promotes the replica before; a cluster does so if it has
    /// the time.
    pub(crate) fn freeze_one(&self, dice: &mut Dice, pause: impl Fn()) {
        match self {
            Self::Independent(_) => {
                let server = self.master(dice);
                server.freeze();
                pause();
                server.thaw();
            }
            Self::Sentinels(sentinels) => {
                let master = sentinels.master();
                master.freeze();
                sentinels.wait_until_named_other_than(master.port());
                pause();
                master.thaw();
                sentinels.wait_until_whole();
            }
            Self::Cluster(cluster) => {
                let master = cluster.node(one_of(&cluster.masters(), dice));
                master.freeze();
                pause();
                master.thaw();
                cluster.wait_until_whole();
            }
        }
    }

    /// A replica becomes the master in good order.
    pub(crate) fn fail_over(&self, dice: &mut Dice) {
        let cluster = self.cluster();
        let master = one_of(&cluster.masters(), dice);
        cluster.fail_over(cluster.replica_of(master));
        cluster.wait_until_whole();
    }

    /// A sentinel is frozen; meanwhile the others name another master.
    pub(crate) fn freeze_a_sentinel(&self, dice: &mut Dice, pause: impl Fn()) {
        let sentinels = self.sentinels();
        let frozen = sentinels.sentinel(dice.below(3));
        frozen.freeze();
        sentinels.fail_over();
        pause();
        frozen.thaw();
        sentinels.wait_until_whole();
    }

    pub(crate) fn kill_a_sentinel(&mut self, dice: &mut Dice, pause: impl Fn()) {
        let Self::Sentinels(sentinels) = self else {
            panic!("there is no sentinel");
        };
        let killed = dice.below(3);
        sentinels.sentinel_mut(killed).kill();
        pause();
        sentinels.sentinel_mut(killed).start_again();
        sentinels.wait_until_whole();
    }

    fn sentinels(&self) -> &Sentinels {
        let Self::Sentinels(sentinels) = self else {
            panic!("there is no sentinel");
        };
        sentinels
    }

    fn cluster(&self) -> &Cluster {
        let Self::Cluster(cluster) = self else {
            panic!("there is no cluster");
        };
        cluster
    }

    /// The slot of a room moves while its members talk. During the pause it is neither here nor there.
    pub(crate) fn move_a_slot(&self, dice: &mut Dice, pause: impl Fn()) {
        let cluster = self.cluster();
        let room = crowd::room(dice.below(crowd::ROOMS));
        let slot = cluster.slot_of(&room.to_string());
        let owner = cluster.owner_of(&room.to_string());
        let mut others = cluster.masters();
        others.retain(|&master| master != owner);
        let to = one_of(&others, dice);
        cluster.begin_move(slot, to);
        pause();
        cluster.move_keys(slot, to);
        cluster.end_move(slot, to);
    }

    /// A new master gets some rooms, gives them back, and is gone for good.
    pub(crate) fn add_and_remove_a_master(&mut self, dice: &mut Dice, pause: impl Fn()) {
        let Self::Cluster(cluster) = self else {
            panic!("there is no cluster");
        };
        let added = cluster.add_master();
        let first = dice.below(crowd::ROOMS);
        let rooms = (first..first + ROOMS_OF_THE_NEW).map(|n| crowd::room(n).to_string());
        let slots: BTreeSet<_> = rooms.map(|room| cluster.slot_of(&room)).collect();
        for slot in slots {
            cluster.move_slot(slot, added);
        }
        pause();
        cluster.remove(added);
    }
}

fn one_of(numbers: &[usize], dice: &mut Dice) -> usize {
    numbers[dice.below(numbers.len())]
}
