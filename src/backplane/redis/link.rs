//! The link: the state of the publisher's connection, for all threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::threads::lock;

/// Without a proof for so long, Redis is not taken for writable.
const PROOF_LASTS: Duration = Duration::from_secs(3);

/// The state of one publisher's connection.
#[derive(Default)]
pub(super) struct Link {
    /// The server's name, for the log.
    name: String,
    connected: AtomicBool,
    closing: AtomicBool,
    epoch: AtomicU64,
    /// The reason why Redis takes no writes.
    trouble: Mutex<Option<String>>,
    /// Why this server must not be used any more, until it is connected to again.
    unusable: Mutex<Option<String>>,
    /// The last time that Redis took a write that was made to prove it.
    proven: Mutex<Option<Instant>>,
    losses: AtomicU64,
    /// Why it could not be connected to.
    away: Mutex<Option<String>>,
    /// When the connection was made.
    since: Mutex<Option<Instant>>,
}

impl Link {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Whether Redis refuses writes.
    pub(super) fn is_refused(&self) -> bool {
        lock(&self.trouble).is_some()
    }

    /// Whether Redis is connected and takes writes; if not, why.
    pub(super) fn writable(&self) -> Result<(), String> {
        if let Some(trouble) = &*lock(&self.trouble) {
            return Err(format!("Redis takes no messages: {trouble}"));
        }
        if !self.is_connected() {
            let away = lock(&self.away).clone();
            return Err(away.unwrap_or_else(|| "Redis does not answer".to_owned()));
        }
        match *lock(&self.proven) {
            Some(proven) if proven.elapsed() < PROOF_LASTS => Ok(()),
            _ => Err("Redis has not taken a write lately".to_owned()),
        }
    }

    /// The number of times that a connection was made, or that Redis took writes again. A change means
    /// that Redis may have forgotten something, or that users could not be renewed.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The number of times that the connection was lost.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// From now on a connection that is lost is not made again.
    pub(super) fn connect_no_more(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Whether the connection was made longer ago than this.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.is_connected() && lock(&self.since).is_some_and(|since| since.elapsed() > age)
    }

    /// No connection could be made, for this reason.
    pub(super) fn is_away(&self, why: String) {
        *lock(&self.away) = Some(why);
    }

    /// A connection was made.
    pub(super) fn stands(&self) {
        *lock(&self.away) = None;
        *lock(&self.since) = Some(Instant::now());
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.connected.store(true, Ordering::Release);
    }

    /// The connection was lost.
    pub(super) fn is_lost(&self) {
        self.ends();
        *lock(&self.proven) = None;
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    /// There is no connection any more.
    pub(super) fn ends(&self) {
        self.connected.store(false, Ordering::Release);
    }

    /// Redis took a write, and so it will take messages.
    pub(super) fn is_proven(&self) {
        *lock(&self.proven) = Some(Instant::now());
        if lock(&self.trouble).take().is_some() {
            self.epoch.fetch_add(1, Ordering::AcqRel);
            info!("Redis at {} takes messages again", self.name);
        }
    }

    /// Redis takes no writes, for this reason.
    pub(super) fn refuses(&self, why: String) {
        let mut trouble = lock(&self.trouble);
        if trouble.is_none() {
            warn!("Redis at {} takes no messages: {why}", self.name);
        }
        *trouble = Some(why);
    }

    /// The publisher has to end the connection, for this reason.
    pub(super) fn give_up(&self, why: String) {
        *lock(&self.unusable) = Some(why);
    }

    /// Why the connection has to be ended. Told once.
    pub(super) fn given_up(&self) -> Option<String> {
        lock(&self.unusable).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_writable_while_it_is_connected_and_takes_writes_and_has_lately() {
        let link = Link::new("redis");
        let why = || link.writable().expect_err("it is not");
        assert_eq!(why(), "Redis does not answer");
        link.is_away("it is asleep".to_owned());
        assert_eq!(why(), "it is asleep");
        link.stands();
        assert!(link.is_connected() && why().contains("lately"));
        link.is_proven();
        assert_eq!(link.writable(), Ok(()));
        *lock(&link.proven) = Some(Instant::now() - PROOF_LASTS);
        assert!(why().contains("lately"));
        link.is_proven();
        assert!(!link.is_refused());
        link.refuses("OOM".to_owned());
        assert!(link.is_refused() && why().contains("OOM"));
        link.is_proven();
        assert!(!link.is_refused());
        link.ends();
        assert!(!link.is_connected());
        assert_eq!(why(), "Redis does not answer", "not why it was away before");
    }

    #[test]
    fn each_connection_and_each_end_of_a_refusal_is_an_epoch_and_each_loss_is_counted() {
        let link = Link::new("redis");
        let counted = || (link.epoch(), link.losses());
        link.is_proven();
        assert_eq!(counted(), (0, 0));
        link.stands();
        assert_eq!(counted(), (1, 0));
        link.refuses("OOM".to_owned());
        link.is_proven();
        link.is_proven();
        assert_eq!(counted(), (2, 0));
        link.is_lost();
        link.is_lost();
        assert_eq!(counted(), (2, 2));
        assert!(!link.is_connected());
    }

    #[test]
    fn only_a_connection_that_stands_grows_old() {
        const AGE: Duration = Duration::from_secs(2);
        let link = Link::new("redis");
        assert!(!link.is_older_than(Duration::ZERO));
        link.stands();
        assert!(!link.is_older_than(AGE));
        *lock(&link.since) = Some(Instant::now() - AGE);
        assert!(link.is_older_than(AGE));
        link.is_lost();
        assert!(!link.is_older_than(AGE));
    }

    #[test]
    fn that_it_closes_stays_and_why_it_was_given_up_is_told_once() {
        let link = Link::new("redis");
        assert!(!link.is_closing());
        link.connect_no_more();
        assert!(link.is_closing() && link.is_closing());
        link.give_up("it is another's".to_owned());
        assert_eq!(link.given_up().as_deref(), Some("it is another's"));
        assert_eq!(link.given_up(), None);
    }
}
