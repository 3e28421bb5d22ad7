//! The source: where a shard's connections come from.

use std::sync::Arc;

use redis::Connection;

use super::address::RedisServer;
use super::sentinel::SentinelWatch;

/// Where a shard's master is.
#[derive(Clone)]
pub(super) enum Source {
    /// Always at the same place.
    Server(Arc<RedisServer>),
    /// Where the Sentinels say.
    Sentinel(Arc<SentinelWatch>),
}

impl Source {
    /// Connects to the master. The error is a sentence.
    pub(super) fn connect(&self) -> Result<Connection, String> {
        match self {
            Self::Server(server) => server.connect(),
            Self::Sentinel(watch) => {
                let connection = watch.master().and_then(|master| master.connect());
                connection.inspect_err(|_| watch.doubt())
            }
        }
    }

    /// A connection that was made while this number was another one is not to the master any more.
    pub(super) fn generation(&self) -> u64 {
        match self {
            Self::Server(_) => 0,
            Self::Sentinel(watch) => watch.generation(),
        }
    }
}

/// Said when a connection is ended since the generation changed.
pub(super) const ANOTHER_MASTER: &str = "Sentinel names another master";
