//! The store: the embedded backplane's messages on disk, in one file, by `redb`
//! (<https://docs.rs/redb>, a B-tree that copies what it changes). Nothing else uses that crate.
//!
//! A commit is on disk as a whole or not at all. Messages are stored under their [`Position`], so that a commit
//! writes at one place of the tree, however many rooms it is about. Reads are served from memory ([`Logs`]); the file
//! is read once, at start.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use redb::{
    CommitError, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, TableError, TransactionError, WriteTransaction,
};

use super::log::{Forgotten, Logs, PlacedEntry, Position, now_as_id};
use crate::backplane::ban::KEPT_LONGER;
use crate::backplane::{Ban, Banned};
use crate::message::{Entry, Message, MessageId, UserName};
use crate::protocol::Ref;

/// The version of the tables below. A file of a later version is refused.
const FORMAT: u64 = 1;

/// The file in the folder.
const FILE: &str = "hubbub.redb";

/// The bytes of the file that `redb` keeps in memory.
const CACHE_BYTES: usize = 8 << 20;

/// An id: milliseconds and number.
type Id = (u64, u64);

/// "format", and "began" (milliseconds: when the file was made).
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Position -> room, id, predecessor (0-0 for none), author, text.
type Row = (&'static str, Id, Id, &'static str, &'static str);
const MESSAGES: TableDefinition<'_, Position, Row> = TableDefinition::new("messages");

/// Position of the message -> room, author, ref, id.
type RefRow = (&'static str, &'static str, &'static str, Id);
const REFS: TableDefinition<'_, Position, RefRow> = TableDefinition::new("refs");

/// Room without messages -> its newest id.
const TAILS: TableDefinition<'_, &str, Id> = TableDefinition::new("tails");

/// [`Banned::key`] -> the end of the ban (milliseconds since 1970), and why. Made with the first ban.
const BANS: TableDefinition<'_, &str, (u64, &str)> = TableDefinition::new("bans");

/// A webhook -> the last message that was posted there. Made with the first of them.
const WEBHOOKS: TableDefinition<'_, &str, Id> = TableDefinition::new("webhooks");

/// A webhook, and the last message that was posted there.
pub(super) type Posted = (String, MessageId);

/// A ban, or `None` to lift it.
pub(super) type BanChange = (Banned, Option<Ban>);

/// What is written, and removed, to see whether the disk takes writes.
const PROOF: TableDefinition<'_, (), &[u8]> = TableDefinition::new("proof");

/// The file is rewritten when it has this much more than its messages need, and this many times as much.
const SPARSE_BYTES: u64 = 16 << 20;
const SPARSE_TIMES: u64 = 4;

/// Rewriting it takes seconds if more than this is left to be kept.
const MOST_REWRITTEN: u64 = 128 << 20;

/// Why the data in a folder cannot be used. The operator acts next.
#[derive(Debug)]
pub struct StoreError {
    path: PathBuf,
    why: Trouble,
}

#[derive(Debug)]
enum Trouble {
    InUse,
    Damaged(String),
    Foreign,
    Newer(u64),
    Io(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot use {}: ", self.path.display())?;
        match &self.why {
            Trouble::InUse => f.write_str("another process has it open"),
            Trouble::Damaged(why) => write!(
                f,
                "it is damaged ({why}). Nothing was changed; put a copy back, or move it away to start anew"
            ),
            Trouble::Foreign => f.write_str("it is no file of hubbub's"),
            Trouble::Newer(format) => write!(f, "a newer hubbub wrote it (format {format})"),
            Trouble::Io(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StoreError {}

/// The file.
pub(super) struct Store {
    path: PathBuf,
    database: Database,
    /// When it was made.
    began: MessageId,
}

impl Store {
    /// Whether there is a file in this folder.
    pub(super) fn is_in(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    /// Opens the file in this folder, and makes both if they are missing. The whole file is checked, and one that
    /// is damaged is left as it is. The folder is returned as well; it is locked for as long as that is held.
    pub(super) fn open(folder: &Path) -> Result<(Self, File), StoreError> {
        let path = folder.join(FILE);
        let fail = |why| StoreError {
            path: path.clone(),
            why,
        };
        // Only this user may read what was said.
        let folder_made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        folder_made.map_err(|error| fail(error.into()))?;
        let store = || -> Result<_, Trouble> {
            let folder = File::open(folder)?;
            // The file itself is closed for a moment after an error.
            folder.try_lock()?;
            if !path.try_exists()? {
                make(&path)?;
                // It is in its folder after a crash, too.
                folder.sync_all()?;
            }
            Ok((open(&path)?, folder))
        };
        store().map_err(fail)
    }

    /// Opens the file again after an error, and proves that it takes writes.
    pub(super) fn reopened(path: &Path) -> Result<Self, StoreError> {
        let proven = open(path).and_then(|store| store.prove().map(|()| store));
        proven.map_err(|why| StoreError {
            path: path.to_owned(),
            why,
        })
    }

    fn failed(&self, why: Trouble) -> StoreError {
        StoreError {
            path: self.path.clone(),
            why,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The first id that could be of this file.
    pub(super) fn began(&self) -> MessageId {
        self.began
    }

    /// The file's length in bytes.
    pub(super) fn length(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Gives all that is stored to the logs.
    pub(super) fn load(&self, logs: &mut Logs, now: Instant) -> Result<(), StoreError> {
        self.read_all(logs, now).map_err(|why| self.failed(why))
    }

    fn read_all(&self, logs: &mut Logs, now: Instant) -> Result<(), Trouble> {
        let stored = self.database.begin_read()?;
        for row in stored.open_table(TAILS)?.iter()? {
            let (room, id) = row?;
            logs.restore_tail(&name(room.value())?, id_of(id.value()), now);
        }
        for row in stored.open_table(MESSAGES)?.iter()? {
            let (position, row) = row?;
            logs.restore(&placed(position.value(), row.value())?, now);
        }
        for row in stored.open_table(REFS)?.iter()? {
            let (position, row) = row?;
            let (room, from, reference, id) = row.value();
            let reference = Ref::try_from(reference.to_owned()).map_err(Trouble::Damaged)?;
            let by = (name::<UserName>(from)?, reference);
            logs.restore_ref(position.value(), &name(room)?, by, id_of(id), now);
        }
        Ok(())
    }

    /// The bans that are stored.
    pub(super) fn bans(&self) -> Result<BTreeMap<Banned, Ban>, StoreError> {
        self.read_bans().map_err(|why| self.failed(why))
    }

    fn read_bans(&self) -> Result<BTreeMap<Banned, Ban>, Trouble> {
        let bans = match self.database.begin_read()?.open_table(BANS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
            bans => bans?,
        };
        let mut read = BTreeMap::new();
        for row in bans.iter()? {
            let (key, ban) = row?;
            let key = key.value();
            let banned = Banned::parse(key)
                .ok_or_else(|| Trouble::Damaged(format!("{key:?} is nothing to ban")))?;
            let (until, reason) = ban.value();
            let reason = reason.to_owned();
            read.insert(banned, Ban { until, reason });
        }
        Ok(read)
    }

    /// The webhooks that are stored, each with the last message that was posted there.
    pub(super) fn webhooks(&self) -> Result<BTreeMap<String, MessageId>, StoreError> {
        let read = || -> Result<_, Trouble> {
            let webhooks = match self.database.begin_read()?.open_table(WEBHOOKS) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
                webhooks => webhooks?,
            };
            let mut read = BTreeMap::new();
            for row in webhooks.iter()? {
                let (webhook, id) = row?;
                read.insert(webhook.value().to_owned(), id_of(id.value()));
            }
            Ok(read)
        };
        read().map_err(|why| self.failed(why))
    }

    /// Stores messages, bans and what was posted, and forgets others, all of it or nothing. Returns once it is on disk.
    /// After an error, the store must be [opened again](Self::reopened).
    pub(super) fn commit(
        &self,
        entries: &[PlacedEntry],
        forgotten: &Forgotten,
        bans: &[BanChange],
        posted: &[Posted],
    ) -> Result<(), StoreError> {
        let written = self.write(entries, forgotten, bans, posted);
        written.map_err(|why| self.failed(why))
    }

    fn write(
        &self,
        entries: &[PlacedEntry],
        forgotten: &Forgotten,
        bans: &[BanChange],
        posted: &[Posted],
    ) -> Result<(), Trouble> {
        let changes = self.begin()?;
        {
            let mut messages = changes.open_table(MESSAGES)?;
            let mut refs = changes.open_table(REFS)?;
            let mut tails = changes.open_table(TAILS)?;
            for position in &forgotten.messages {
                messages.remove(position)?;
            }
            for position in &forgotten.refs {
                refs.remove(position)?;
            }
            for (room, tail) in &forgotten.tails {
                match tail {
                    Some(id) => tails.insert(room.as_str(), (id.millis, id.number))?,
                    None => tails.remove(room.as_str())?,
                };
            }
            for placed in entries {
                let Entry { message, prev, .. } = &placed.entry;
                let id = (message.id.millis, message.id.number);
                let prev = prev.map_or((0, 0), |prev| (prev.millis, prev.number));
                let (room, from) = (placed.room.as_str(), message.from.as_str());
                let row = (room, id, prev, from, message.text.as_str());
                messages.insert(placed.position, row)?;
                if let Some(reference) = &placed.reference {
                    refs.insert(placed.position, (room, from, reference.as_str(), id))?;
                }
            }
        }
        if !bans.is_empty() {
            write_bans(&changes, bans)?;
        }
        if !posted.is_empty() {
            let mut webhooks = changes.open_table(WEBHOOKS)?;
            for (webhook, id) in posted {
                webhooks.insert(&**webhook, (id.millis, id.number))?;
            }
        }
        Ok(changes.commit()?)
    }

    /// Whether this message is stored.
    pub(super) fn has(&self, position: Position) -> Result<bool, StoreError> {
        let has = || -> Result<_, Trouble> {
            let stored = self.database.begin_read()?;
            Ok(stored.open_table(MESSAGES)?.get(position)?.is_some())
        };
        has().map_err(|why| self.failed(why))
    }

    /// Begins a change. What it writes is on disk before the file names it: after a failed `fsync` the kernel
    /// shows what the disk does not have.
    fn begin(&self) -> Result<WriteTransaction, Trouble> {
        let mut changes = self.database.begin_write()?;
        changes.set_two_phase_commit(true);
        Ok(changes)
    }

    /// Shows that as much as a large commit can be stored.
    fn prove(&self) -> Result<(), Trouble> {
        const PROOF_BYTES: usize = 2 << 20;
        let changes = self.begin()?;
        changes
            .open_table(PROOF)?
            .insert((), &vec![0; PROOF_BYTES][..])?;
        changes.commit()?;
        let changes = self.begin()?;
        changes.open_table(PROOF)?.remove(())?;
        Ok(changes.commit()?)
    }

    /// Gives space back to the disk if most of the file is empty. `needed` is what its messages take, in bytes.
    pub(super) fn give_space_back(&mut self, needed: u64) -> Result<(), StoreError> {
        let is_sparse = self.length() > needed * SPARSE_TIMES + SPARSE_BYTES;
        if !is_sparse || needed > MOST_REWRITTEN {
            return Ok(());
        }
        let compacted = self.database.compact();
        compacted
            .map(drop)
            .map_err(|error| self.failed(Trouble::Io(error.to_string())))
    }
}

/// Writes changes of bans, and takes those out that are over.
fn write_bans(changes: &WriteTransaction, bans: &[BanChange]) -> Result<(), Trouble> {
    let mut table = changes.open_table(BANS)?;
    for (banned, ban) in bans {
        let key = banned.key();
        match ban {
            Some(ban) => table.insert(&*key, (ban.until, ban.reason.as_str()))?,
            None => table.remove(&*key)?,
        };
    }
    let now = now_as_id().millis;
    Ok(table.retain(|_, (until, _)| until.saturating_add(KEPT_LONGER) > now)?)
}

/// Opens the file, which is there.
fn open(path: &Path) -> Result<Store, Trouble> {
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .open(path)?;
    let stored = database.begin_read()?;
    let meta = match stored.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => return Err(Trouble::Foreign),
        meta => meta?,
    };
    let value = |name: &str| Ok::<_, Trouble>(meta.get(name)?.map(|value| value.value()));
    let known = (value("format")?, value("began")?);
    drop(stored);
    match known {
        (Some(FORMAT), Some(millis)) => Ok(Store {
            path: path.to_owned(),
            database,
            began: MessageId { millis, number: 0 },
        }),
        (Some(newer), _) => Err(Trouble::Newer(newer)),
        (None, _) => Err(Trouble::Foreign),
    }
}

/// Makes the file. It has its name only once it is whole, or a crash could leave one that nobody can use.
fn make(path: &Path) -> Result<(), Trouble> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    // Only this user may read what was said, whatever the folder is.
    let mut new = OpenOptions::new();
    new.write(true).create_new(true).mode(0o600).open(&beside)?;
    let database = Database::create(&beside)?;
    let changes = database.begin_write()?;
    {
        let mut meta = changes.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("began", now_as_id().millis)?;
        changes.open_table(MESSAGES)?;
        changes.open_table(REFS)?;
        changes.open_table(TAILS)?;
    }
    changes.commit()?;
    drop(database);
    Ok(fs::rename(beside, path)?)
}

fn id_of((millis, number): Id) -> MessageId {
    MessageId { millis, number }
}

fn name<T: std::str::FromStr>(text: &str) -> Result<T, Trouble> {
    text.parse()
        .map_err(|_| Trouble::Damaged(format!("{text:?} is no name")))
}

fn placed(position: Position, row: (&str, Id, Id, &str, &str)) -> Result<PlacedEntry, Trouble> {
    let (room, id, prev, from, text) = row;
    let id = id_of(id);
    let prev = Some(id_of(prev)).filter(|&prev| prev != MessageId::ZERO);
    let message = Message {
        id,
        from: name(from)?,
        text: text.to_owned(),
        at: id.millis,
    };
    let via = None;
    Ok(PlacedEntry {
        position,
        room: name(room)?,
        entry: Entry { message, prev, via },
        reference: None,
    })
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

impl From<TryLockError> for Trouble {
    fn from(error: TryLockError) -> Self {
        match error {
            TryLockError::WouldBlock => Self::InUse,
            TryLockError::Error(error) => error.into(),
        }
    }
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Corrupted(why) => Self::Damaged(why),
            StorageError::Io(error) if error.kind() == io::ErrorKind::InvalidData => Self::Foreign,
            other => Self::Io(other.to_string()),
        }
    }
}

impl From<DatabaseError> for Trouble {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::InUse,
            DatabaseError::Storage(error) => error.into(),
            other => Self::Io(other.to_string()),
        }
    }
}

impl From<TransactionError> for Trouble {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            other => Self::Io(other.to_string()),
        }
    }
}

impl From<TableError> for Trouble {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            // The tables are not ours.
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<CommitError> for Trouble {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            other => Self::Io(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::local::log::Plan;
    use crate::backplane::{Draft, Retention};
    use crate::message::RoomName;
    use crate::protocol::Cursor;
    use std::time::Duration;

    const KEPT: usize = 3;

    fn logs() -> Logs {
        Logs::new(Retention {
            history_length: KEPT,
            history_ttl: Duration::from_secs(60),
            history_bytes: 1 << 20,
            presence_ttl: Duration::from_secs(30),
            presence_grace: Duration::ZERO,
        })
    }

    /// Says it, and commits.
    fn say(store: &Store, logs: &mut Logs, text: &str, now: Instant) -> MessageId {
        let draft = Draft {
            room: RoomName::lobby(),
            from: "alice".parse().expect("a name"),
            text: text.to_owned(),
            reference: Some(text.to_owned().try_into().expect("a ref")),
            via: None,
        };
        let mut plan = Plan::default();
        let stored = logs.plan(&mut plan, draft, now).expect("it is planned");
        let forgotten = logs.take_forgotten(usize::MAX);
        store
            .commit(&plan.entries, &forgotten, &[], &[])
            .expect("a commit");
        plan.entries.iter().for_each(|one| logs.take_in(one, now));
        stored.id
    }

    #[test]
    fn what_is_committed_is_loaded_and_what_is_forgotten_is_not() {
        let name = format!("hubbub-store-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let (now, lobby) = (Instant::now(), RoomName::lobby());
        let (store, lock) = Store::open(&folder).expect("a store");
        let began = store.began();
        let mut before = logs();
        let ids = ["a", "b", "c", "d", "e"].map(|text| say(&store, &mut before, text, now));
        let has = |position| store.has(position).expect("it can be read");
        assert_eq!((has(4), has(5)), (true, false));
        let why = Store::open(&folder)
            .err()
            .expect("it is in use")
            .to_string();
        assert!(why.contains("another process"), "{why}");
        drop(store);
        let why = Store::open(&folder).err().expect("locked").to_string();
        assert!(why.contains("another process"), "{why}");
        drop(lock);
        let (store, _lock) = Store::open(&folder).expect("it is there");
        assert_eq!(store.began(), began);
        let mut after = logs();
        store.load(&mut after, now).expect("all of it");
        let read = |logs: &Logs| logs.excerpt(&lobby, Cursor::Newest, 9).entries;
        assert_eq!(read(&after), read(&before));
        assert_eq!(read(&after).len(), KEPT);
        // A ref outlasts its message.
        assert_eq!(say(&store, &mut after, "a", now), ids[0]);
        // A room whose past is forgotten knows its newest id.
        after.forget(now + Duration::from_secs(400));
        store
            .commit(&[], &after.take_forgotten(usize::MAX), &[], &[])
            .expect("a commit");
        drop((store, _lock));
        let (store, _lock) = Store::open(&folder).expect("it is there");
        let mut last = logs();
        store.load(&mut last, now).expect("all of it");
        assert_eq!(read(&last), []);
        assert_eq!(last.tail(&lobby), Some(ids[4]));
        let again = say(&store, &mut last, "a", now);
        assert!(again > ids[4], "its ref is forgotten, too");
        assert_eq!(read(&last)[0].prev, Some(ids[4]));
        drop(store);
        fs::remove_dir_all(folder).expect("it is gone");
    }
}
