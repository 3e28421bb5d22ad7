//! The state that every connection of this instance shares.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::config::Config;
use super::rate::{TokenBucket, UserBuckets};
use crate::backplane::Backplane;
use crate::hub::Hub;

/// Requests with a wrong secret of operators: so many a second, so many at once.
const WRONG_SECRETS: (u32, u32) = (1, 10);

/// The shared state of one instance. The server makes it once, and each connection holds a reference.
pub struct State {
    /// The options.
    pub config: Config,
    /// The rooms of this instance.
    pub hub: Arc<Hub>,
    /// The logs and the presence that all instances share.
    pub backplane: Box<dyn Backplane>,
    /// The rate of users without a connection, and of users who have just left one.
    pub buckets: UserBuckets,
    /// The rate of requests with a wrong secret of operators, all together: so many are logged.
    pub wrong_secrets: Mutex<TokenBucket>,
    closing: AtomicBool,
}

impl State {
    /// The state of an instance that has no connection yet.
    pub fn new(config: Config, hub: Arc<Hub>, backplane: Box<dyn Backplane>) -> Self {
        let (per_second, burst) = WRONG_SECRETS;
        Self {
            wrong_secrets: Mutex::new(TokenBucket::new(per_second, burst, Instant::now())),
            buckets: UserBuckets::new(config.send_rate, config.send_burst),
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
