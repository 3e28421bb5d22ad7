//! The state that every connection of this instance shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::config::Config;
use super::rate::UserBuckets;
use super::token::Verifier;
use crate::backplane::Backplane;
use crate::hub::Hub;

/// The shared state of one instance. The server makes it once, and each connection holds a reference.
pub struct State {
    /// The options.
    pub config: Config,
    /// The judge of tokens; `None` if users need none.
    pub verifier: Option<Verifier>,
    /// The rooms of this instance.
    pub hub: Arc<Hub>,
    /// The logs and the presence that all instances share.
    pub backplane: Box<dyn Backplane>,
    /// The rate of users without a connection, and of users who have just left one.
    pub buckets: UserBuckets,
    closing: AtomicBool,
}

impl State {
    /// The state of an instance that has no connection yet.
    pub fn new(config: Config, hub: Arc<Hub>, backplane: Box<dyn Backplane>) -> Self {
        Self {
            buckets: UserBuckets::new(config.send_rate, config.send_burst),
            verifier: Verifier::new(&config.tokens),
            config,
            hub,
            backplane,
            closing: AtomicBool::new(false),
        }
    }

    /// Reads the files of `--token-key` again. If one is bad, the keys stay as they are, and the error is a sentence
    /// for the operator.
    pub fn read_keys_again(&self) -> Result<(), String> {
        self.verifier
            .as_ref()
            .map_or(Ok(()), Verifier::read_keys_again)
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
