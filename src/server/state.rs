//! The state that every connection of this instance shares.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::config::Config;
use super::rate::Buckets;
use crate::backplane::Backplane;
use crate::hub::Hub;
use crate::message::UserName;

/// One address may send as many HTTP requests as this many users. A chat needs none, so these are its scripts.
const USERS_OF_ADDRESS: u32 = 4;

/// The shared state of one instance. The server makes it once, and each connection holds a reference.
pub struct State {
    /// The options.
    pub config: Config,
    /// The rooms of this instance.
    pub hub: Arc<Hub>,
    /// The logs and the presence that all instances share.
    pub backplane: Box<dyn Backplane>,
    /// The rate of users without a connection, and of users who have just left one.
    pub buckets: Buckets<UserName>,
    /// The rate of commands of users who have just left a connection.
    pub command_buckets: Buckets<UserName>,
    /// The rate of HTTP requests of one address.
    pub address_buckets: Buckets<IpAddr>,
    closing: AtomicBool,
}

impl State {
    /// The state of an instance that has no connection yet.
    pub fn new(config: Config, hub: Arc<Hub>, backplane: Box<dyn Backplane>) -> Self {
        Self {
            command_buckets: Buckets::new(config.command_rate(), config.command_burst()),
            address_buckets: Buckets::new(
                config.send_rate.saturating_mul(USERS_OF_ADDRESS),
                config.send_burst.saturating_mul(USERS_OF_ADDRESS),
            ),
            buckets: Buckets::new(config.send_rate, config.send_burst),
            config,
            hub,
            backplane,
            closing: AtomicBool::new(false),
        }
    }

    /// Begins the teardown: from now on the instance takes no connection and no message.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether the teardown has begun.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}
