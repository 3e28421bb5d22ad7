//! The kinds of faults: which mode has them, what they happen to, how long they last, and what they may cost.

use std::time::Duration;

use crate::processes::PRESENCE_TTL;
use crate::servers::Mode;
use crate::support::Dice;

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
    FailedOver,
    SentinelFrozen,
    SentinelKilled,
    SlotMoved,
    MasterAdded,
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

/// Those of all modes.
#[rustfmt::skip]
const EVERYWHERE: [Kind; 13] = [
    Kind::RedisKilled, Kind::RedisFrozen, Kind::PubSubKilled, Kind::NormalKilled, Kind::RedisFull,
    Kind::ScriptsFlushed, Kind::OtherEntries, Kind::InstanceKilled, Kind::InstanceDrained,
    Kind::ClientsCut, Kind::ClientsStalled, Kind::ClientsSwallowed, Kind::MembersChange,
];

impl Kind {
    /// All that happen in a mode.
    pub(crate) fn all(mode: Mode) -> Vec<Self> {
        let own: &[_] = match mode {
            Mode::One | Mode::Three => &[
                Self::RedisPaused,
                Self::RedisSleeps,
                Self::RedisReplica,
                Self::LinkCut,
                Self::LinkStalled,
                Self::LinkSwallowed,
            ],
            // A sentinel is frozen during a planned failover.
            Mode::Sentinel => &[Self::SentinelFrozen, Self::SentinelKilled],
            Mode::Cluster => &[
                Self::RedisPaused,
                Self::FailedOver,
                Self::SlotMoved,
                Self::MasterAdded,
            ],
        };
        [&EVERYWHERE, own].concat()
    }

    /// By its name, such as `RedisFull`.
    pub(crate) fn parse(name: &str, mode: Mode) -> Result<Self, String> {
        let named = |kind: &Self| format!("{kind:?}").eq_ignore_ascii_case(name);
        let all = Self::all(mode);
        let found = all.iter().copied().find(named);
        found.ok_or_else(|| format!("{name:?} is no fault of this mode; there are {all:?}"))
    }

    pub(crate) fn target(self, mode: Mode, instance: usize) -> Target {
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
            | Self::OtherEntries
            | Self::FailedOver
            | Self::SentinelFrozen
            | Self::SentinelKilled
            | Self::SlotMoved
            | Self::MasterAdded => Target::Redis,
            Self::LinkCut | Self::LinkStalled | Self::LinkSwallowed => {
                Target::Link(mode.links_of(instance))
            }
            Self::InstanceKilled | Self::InstanceDrained => Target::Instance(instance),
            Self::ClientsCut | Self::ClientsStalled | Self::ClientsSwallowed => {
                Target::Door(instance)
            }
            Self::MembersChange => Target::Crowd,
        }
    }

    pub(crate) fn lasts(self, mode: Mode, dice: &mut Dice) -> Duration {
        let lasts = dice.wait(300, 4000);
        match self {
            Self::PubSubKilled
            | Self::NormalKilled
            | Self::ScriptsFlushed
            | Self::OtherEntries
            | Self::FailedOver
            | Self::MembersChange => Duration::ZERO,
            // A replica takes over after some three seconds: before the end in half of all cases.
            Self::RedisKilled | Self::RedisFrozen if mode == Mode::Cluster => lasts * 2,
            // What refuses writes outlives presence that nobody renews.
            Self::RedisReplica | Self::RedisFull => PRESENCE_TTL + lasts,
            Self::RedisKilled
            | Self::RedisFrozen
            | Self::RedisPaused
            | Self::RedisSleeps
            | Self::SentinelFrozen
            | Self::SentinelKilled
            | Self::SlotMoved
            | Self::MasterAdded
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

    /// About how long the servers take beside that, until they agree again.
    pub(crate) fn settles(self, mode: Mode) -> Duration {
        Duration::from_secs(match (mode, self) {
            // Sentinel turns an old master into a replica after some ten seconds.
            (Mode::Sentinel, Self::RedisKilled | Self::RedisFrozen) => 13,
            // The frozen one learns of it late.
            (Mode::Sentinel, Self::SentinelFrozen) => 18,
            (Mode::Sentinel, Self::SentinelKilled) => 1,
            (Mode::Cluster, Self::RedisKilled | Self::RedisFrozen | Self::MasterAdded) => 3,
            (Mode::Cluster, Self::FailedOver) => 1,
            _ => 0,
        })
    }

    /// Whether Redis may forget by it what it has acknowledged: by a failover, unless that one is planned and
    /// of a cluster.
    pub(crate) fn may_lose(self, mode: Mode) -> bool {
        match self {
            Self::RedisKilled | Self::RedisFrozen => {
                matches!(mode, Mode::Sentinel | Mode::Cluster)
            }
            Self::SentinelFrozen => true,
            _ => false,
        }
    }
}

/// What a fault happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Redis,
    Link(usize),
    Instance(usize),
    Door(usize),
    Crowd,
}
