//! The router: which shard a room is on.

use std::sync::Arc;

use super::cluster::RedisCluster;
use super::placement::{server_of, slot};
use super::shard::Shard;
use crate::message::RoomName;

/// All shards of this instance.
pub(super) enum Router {
    /// One server, or several that share the rooms by their names.
    Servers(Vec<Arc<Shard>>),
    /// A cluster, which shares the rooms by their slots.
    Cluster(RedisCluster),
}

impl Router {
    /// The shard that a room is on. `None` while no node of the cluster has it.
    pub(super) fn shard(&self, room: &RoomName) -> Option<Arc<Shard>> {
        match self {
            Self::Servers(shards) => shards.get(server_of(room, shards.len())).cloned(),
            Self::Cluster(cluster) => cluster.shard(room),
        }
    }

    /// The shard of a key that is of no room.
    pub(super) fn shard_of_key(&self, key: &str) -> Option<Arc<Shard>> {
        match self {
            // The list grows at its end.
            Self::Servers(shards) => shards.first().cloned(),
            Self::Cluster(cluster) => cluster.shard_of(slot(key)),
        }
    }

    pub(super) fn shards(&self) -> Vec<Arc<Shard>> {
        match self {
            Self::Servers(shards) => shards.clone(),
            Self::Cluster(cluster) => cluster.shards(),
        }
    }

    /// Why some rooms are on no shard, if that is so.
    pub(super) fn trouble(&self) -> Option<String> {
        let Self::Cluster(cluster) = self else {
            return None;
        };
        let unserved = cluster.unserved();
        (unserved > 0).then(|| format!("no node of the cluster has them ({unserved} hash slots)"))
    }

    /// From here on no shard comes or goes.
    pub(super) fn hold_still(&self) {
        if let Self::Cluster(cluster) = self {
            cluster.close();
        }
    }
}
