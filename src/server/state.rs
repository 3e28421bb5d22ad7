//! The state that every connection of this instance shares.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use super::config::Config;
use super::rate::{TokenBucket, UserBuckets};
use crate::backplane::{Backplane, Ban, Banned};
use crate::hub::Hub;
use crate::message::{RoomName, UserName};
use crate::threads::lock;

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
    /// The bans that this instance knows, perhaps some that are over.
    pub bans: Mutex<BTreeMap<Banned, Ban>>,
    /// The rate of requests with a wrong secret of operators, all together: so many are logged.
    pub wrong_secrets: Mutex<TokenBucket>,
    closing: AtomicBool,
}

impl State {
    /// The state of an instance that has no connection yet.
    pub fn new(config: Config, hub: Arc<Hub>, backplane: Box<dyn Backplane>) -> Self {
        let (per_second, burst) = WRONG_SECRETS;
        Self {
            bans: Mutex::default(),
            wrong_secrets: Mutex::new(TokenBucket::new(per_second, burst, Instant::now())),
            buckets: UserBuckets::new(config.send_rate, config.send_burst),
            config,
            hub,
            backplane,
            closing: AtomicBool::new(false),
        }
    }

    /// Why this user may not come in, in a sentence, if they are banned now.
    pub fn why_banned(&self, user: &UserName) -> Option<String> {
        self.why_kept_out(&Banned::User(user.clone()))
    }

    /// Why nobody may be in this room, in a sentence, if it is closed now.
    pub fn why_closed(&self, room: &RoomName) -> Option<String> {
        self.why_kept_out(&Banned::Room(room.clone()))
    }

    fn why_kept_out(&self, banned: &Banned) -> Option<String> {
        let now = SystemTime::now();
        let ban = lock(&self.bans).get(banned).cloned();
        let ban = ban.filter(|ban| !ban.left(now).is_zero())?;
        Some(ban.sentence(banned, now))
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
