//! The state that every connection of this instance shares.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use log::{error, info};

use super::config::Config;
use super::grant::Grant;
use super::rate::{Buckets, Permits, TokenBucket};
use super::room_list::RoomList;
use super::token::Verifier;
use crate::backplane::{Backplane, BackplaneError, Ban, Banned, Deletions, conceal};
use crate::hub::Hub;
use crate::message::{Message, RoomName, UserName};
use crate::protocol::{Event, ROOMS_DEFAULT, ROOMS_MOST};
use crate::stream::Identity;
use crate::threads::lock;

/// One address may send as many HTTP requests as this many users. A chat needs none, so these are its scripts.
const USERS_OF_ADDRESS: u32 = 4;

/// The most bodies of hooks in memory at a time that are larger than a message.
const MOST_LARGE_BODIES: usize = 32;

/// Requests with a wrong secret of operators: so many a second, so many at once.
const WRONG_SECRETS: (u32, u32) = (1, 10);

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
    pub buckets: Buckets<UserName>,
    /// The certificate of this server, if it speaks TLS.
    pub identity: Option<Identity>,
    /// The rate of commands of users who have just left a connection.
    pub command_buckets: Buckets<UserName>,
    /// The rate of HTTP requests of one address.
    pub address_buckets: Buckets<IpAddr>,
    /// The bans that this instance knows, perhaps some that are over.
    pub bans: Arc<Mutex<BTreeMap<Banned, Ban>>>,
    /// For each webhook, the time (ms since 1970) of the first message that this instance has to post; 0 if none waits.
    pub waiting_since: Vec<Arc<AtomicU64>>,
    /// Permits for the bodies of hooks that are larger than a message.
    pub large_bodies: Permits,
    /// The rate of requests with a wrong secret of operators, all together: so many are logged.
    pub wrong_secrets: Mutex<TokenBucket>,
    /// The list of rooms.
    room_list: RoomList,
    closing: AtomicBool,
}

impl State {
    /// The state of an instance that has no connection yet.
    pub fn new(config: Config, hub: Arc<Hub>, backplane: Box<dyn Backplane>) -> Self {
        let (per_second, burst) = WRONG_SECRETS;
        Self {
            command_buckets: Buckets::new(config.command_rate(), config.command_burst()),
            address_buckets: Buckets::new(
                config.send_rate.saturating_mul(USERS_OF_ADDRESS),
                config.send_burst.saturating_mul(USERS_OF_ADDRESS),
            ),
            buckets: Buckets::new(config.send_rate, config.send_burst),
            verifier: Verifier::new(&config.tokens),
            bans: Arc::default(),
            waiting_since: config.webhooks.iter().map(|_| Arc::default()).collect(),
            large_bodies: Permits::new(MOST_LARGE_BODIES),
            wrong_secrets: Mutex::new(TokenBucket::new(per_second, burst, Instant::now())),
            config,
            hub,
            backplane,
            identity: None,
            room_list: RoomList::default(),
            closing: AtomicBool::new(false),
        }
    }

    /// Whether an option names a file that [can be read again](Self::read_files_again).
    pub fn has_files(&self) -> bool {
        self.identity.is_some() || self.verifier.as_ref().is_some_and(Verifier::has_files)
    }

    /// Reads the certificate and the keys of tokens again, for the connections that come. What cannot be used is
    /// logged, and stays as it was.
    pub fn read_files_again(&self) {
        match self.identity.as_ref().map(Identity::read_again) {
            Some(Ok(())) => info!("the certificate and its key were read again"),
            Some(Err(why)) => error!("{why}: the certificate stays as it was"),
            None => {}
        }
        if let Some(Err(why)) = self.verifier.as_ref().map(Verifier::read_keys_again) {
            error!("{why}: the keys of tokens stay as they were");
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

    /// What operators have deleted in this room.
    pub fn deletions(&self, room: &RoomName) -> Deletions {
        Deletions::of(&lock(&self.bans), room)
    }

    /// Lists the rooms whose names begin with `prefix`, as far as the grant allows them and no operator closed them; at
    /// most `limit`, if the asker named one.
    pub fn list_rooms(
        &self,
        grant: &Grant,
        prefix: &str,
        limit: Option<usize>,
    ) -> Result<Event, BackplaneError> {
        let limit = limit.unwrap_or(ROOMS_DEFAULT).min(ROOMS_MOST);
        self.room_list.page(&*self.backplane, limit, |room| {
            room.as_str().starts_with(prefix)
                && grant.allows(room)
                && self.why_closed(room).is_none()
        })
    }

    /// Takes the text out of a message of this room, if it is deleted.
    pub fn conceal(&self, room: &RoomName, message: &mut Message) {
        conceal(&lock(&self.bans), room, message);
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
