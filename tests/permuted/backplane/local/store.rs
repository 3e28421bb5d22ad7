//! Stands for `src/backplane/local/store.rs`, and for a disk: a commit may fail, with what it wrote or without, or take
//! long, and the file may not be there for a while.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::log::{Forgotten, PlacedEntry, Position};
use crate::backplane::{Ban, Banned};
use crate::clock;
use crate::message::MessageId;
use crate::permuter::chance;
use crate::threads::lock;

/// Longer than any commit is waited for, and than the pause between two looks at what is too old.
const LONG: Duration = Duration::from_secs(11);

pub(super) type Posted = (String, MessageId);
pub(super) type BanChange = (Banned, Option<Ban>);

#[derive(Default)]
struct Contents {
    entries: Vec<PlacedEntry>,
    bans: BTreeMap<Banned, Ban>,
}

/// Leads to a file.
#[derive(Clone, Default)]
pub struct PathBuf(Arc<Mutex<Contents>>);

impl PathBuf {
    pub fn display(&self) -> &'static str {
        "the file"
    }

    /// All that is stored, in its order.
    pub fn texts(&self) -> Vec<String> {
        let contents = lock(&self.0);
        let entries = contents.entries.iter();
        let texts = entries.map(|one| one.entry.message.text.clone());
        texts.collect()
    }

    pub fn has_ban(&self, banned: &Banned) -> bool {
        lock(&self.0).bans.contains_key(banned)
    }
}

/// The lock of the folder.
pub struct File;

#[derive(Debug)]
pub(super) struct StoreError;

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the permuter broke it")
    }
}

pub(super) struct Store(PathBuf);

impl Store {
    pub(super) fn open(path: &PathBuf) -> Self {
        Self(path.clone())
    }

    pub(super) fn reopened(path: &PathBuf) -> Result<Self, StoreError> {
        match chance(3) {
            true => Err(StoreError),
            false => Ok(Self::open(path)),
        }
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.0
    }

    pub(super) fn length(&self) -> u64 {
        0
    }

    pub(super) fn commit(
        &self,
        entries: &[PlacedEntry],
        _: &Forgotten,
        bans: &[BanChange],
        _: &[Posted],
    ) -> Result<(), StoreError> {
        if chance(6) {
            clock::pass(LONG);
        }
        thread::yield_now();
        let fails = chance(4);
        if !fails || chance(2) {
            let mut contents = lock(&self.0.0);
            contents.entries.extend_from_slice(entries);
            let bans = bans.iter().cloned();
            let bans = bans.filter_map(|(banned, ban)| Some((banned, ban?)));
            contents.bans.extend(bans);
        }
        thread::yield_now();
        match fails {
            true => Err(StoreError),
            false => Ok(()),
        }
    }

    pub(super) fn has(&self, position: Position) -> Result<bool, StoreError> {
        let contents = lock(&self.0.0);
        Ok(contents.entries.iter().any(|one| one.position == position))
    }

    pub(super) fn bans(&self) -> Result<BTreeMap<Banned, Ban>, StoreError> {
        Ok(lock(&self.0.0).bans.clone())
    }

    pub(super) fn give_space_back(&mut self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }
}
