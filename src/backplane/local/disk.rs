//! The disk: the thread that commits to the [`Store`], so that a disk that is slow, full or broken holds up nothing
//! else.
//!
//! There is one commit at a time, and each is answered with whether it is on disk. After an error the thread opens
//! the file again, until that works and a proof can be written; then it tells what became of the commit.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::{error, info};

use super::log::{Forgotten, PlacedEntry};
use super::store::{BanChange, Posted, Store, StoreError};
use crate::backoff::Backoff;
use crate::backplane::ShardState;
use crate::metrics;
use crate::threads;
use crate::threads::lock;

/// The ceiling of the first and of the longest wait between two attempts to open the file again.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_CAP: Duration = Duration::from_secs(1);

/// A thread that takes longer to close the file is left behind.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// What is written together.
pub(super) struct Batch {
    /// In the order of their positions.
    pub(super) entries: Vec<PlacedEntry>,
    pub(super) forgotten: Forgotten,
    pub(super) bans: Vec<BanChange>,
    pub(super) posted: Vec<Posted>,
    /// What all that is stored takes, in bytes, about.
    pub(super) needed: usize,
}

/// Called with a batch and whether it is on disk.
pub(super) type OnCommitted = Box<dyn Fn(Batch, bool) + Send>;

/// The handle of the thread.
pub(super) struct Disk {
    batches: Mutex<Option<Sender<Batch>>>,
    condition: Arc<Condition>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Disconnected once the thread has closed the file.
    ended: Receiver<()>,
}

/// How the disk is.
struct Condition {
    path: PathBuf,
    /// Why it takes no messages.
    trouble: Mutex<Option<String>>,
    /// When the batch was begun that the disk has now.
    begun: Mutex<Option<Instant>>,
    losses: AtomicU64,
}

impl Disk {
    /// Starts the thread. `folder` is locked until it ends.
    pub(super) fn start(store: Store, folder: File, on_committed: OnCommitted) -> io::Result<Self> {
        let condition = Arc::new(Condition {
            path: store.path().to_owned(),
            trouble: Mutex::default(),
            begun: Mutex::default(),
            losses: AtomicU64::new(0),
        });
        metrics::DATA_BYTES.set(store.length() as usize);
        // There is one commit at a time.
        let (batches, queue) = crossbeam_channel::bounded(1);
        let committer = Committer {
            store: Some(store),
            condition: Arc::clone(&condition),
            on_committed,
        };
        let (ends, ended) = crossbeam_channel::bounded::<()>(0);
        let thread = threads::spawn_vital("disk", move || {
            committer.run(&queue);
            drop((folder, ends));
        })?;
        Ok(Self {
            batches: Mutex::new(Some(batches)),
            condition,
            thread: Mutex::new(Some(thread)),
            ended,
        })
    }

    /// The last batch was answered, so the disk is well. From here on it must not look like one that the disk has.
    pub(super) fn is_well(&self) {
        *lock(&self.condition.begun) = None;
        *lock(&self.condition.trouble) = None;
    }

    /// Writes a batch. The one before must have been answered.
    pub(super) fn commit(&self, batch: Batch) {
        // There is room, and the thread ends only after `close`.
        let batches = lock(&self.batches).clone();
        let _ = batches.map(|batches| batches.try_send(batch).is_ok());
    }

    /// Notes that the disk is in trouble if it has had its batch for longer than this.
    pub(super) fn answers_within(&self, limit: Duration, now: Instant) {
        let begun = *lock(&self.condition.begun);
        if begun.is_some_and(|begun| now.saturating_duration_since(begun) > limit) {
            let mut trouble = lock(&self.condition.trouble);
            trouble.get_or_insert_with(|| "it does not answer".to_owned());
        }
    }

    /// Why it takes no messages.
    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.condition.trouble).clone()
    }

    pub(super) fn state(&self, waiting: usize) -> ShardState {
        let trouble = self.trouble();
        ShardState {
            name: self.condition.path.display().to_string(),
            trouble: trouble.map(|why| format!("the disk takes no messages: {why}")),
            waiting,
            losses: self.condition.losses.load(Ordering::Relaxed),
            cuts: 0,
        }
    }

    /// Ends the thread. One that waits for a disk that does not answer is left behind.
    pub(super) fn close(&self) {
        drop(lock(&self.batches).take());
        let thread = lock(&self.thread).take();
        if self.ended.recv_timeout(ENDS_WITHIN) == Err(RecvTimeoutError::Disconnected) {
            // A panic there has been reported by its own thread.
            let _ = thread.map(JoinHandle::join);
        }
    }
}

/// The thread's own state.
struct Committer {
    /// `None` while the file is closed, after an error.
    store: Option<Store>,
    condition: Arc<Condition>,
    on_committed: OnCommitted,
}

impl Committer {
    fn run(mut self, queue: &Receiver<Batch>) {
        while let Ok(batch) = queue.recv() {
            *lock(&self.condition.begun) = Some(Instant::now());
            let Some(is_stored) = self.commit(&batch, queue) else {
                return;
            };
            let needed = batch.needed as u64;
            (self.on_committed)(batch, is_stored);
            if let Some(store) = &mut self.store {
                if let Err(why) = store.give_space_back(needed) {
                    // The next commit fails as well, and is told.
                    error!("{why}");
                }
                metrics::DATA_BYTES.set(store.length() as usize);
            }
        }
    }

    /// Whether the batch is on disk. `None` if the backplane closes meanwhile.
    fn commit(&mut self, batch: &Batch, queue: &Receiver<Batch>) -> Option<bool> {
        let written = self.write(batch);
        let Err(why) = written else {
            return Some(true);
        };
        error!("{why}: messages are refused until the disk takes them again");
        self.condition.losses.fetch_add(1, Ordering::Relaxed);
        *lock(&self.condition.trouble) = Some(why);
        let mut backoff = Backoff::new(AGAIN_FIRST, AGAIN_CAP);
        loop {
            // Nothing comes before this batch is answered.
            if let Err(RecvTimeoutError::Disconnected) = queue.recv_timeout(backoff.next()) {
                return None;
            }
            match self.reopen(batch) {
                Ok(is_stored) => {
                    info!("{} takes messages again", self.condition.path.display());
                    return Some(is_stored);
                }
                Err(why) => *lock(&self.condition.trouble) = Some(why.to_string()),
            }
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), String> {
        let Some(store) = &mut self.store else {
            return Err("it is closed".to_owned());
        };
        let committed = store.commit(&batch.entries, &batch.forgotten, &batch.bans, &batch.posted);
        committed.map_err(|error| error.to_string())?;
        metrics::COMMITS.count();
        Ok(())
    }

    /// Opens the file again. Returns whether it has the batch.
    fn reopen(&mut self, batch: &Batch) -> Result<bool, StoreError> {
        // The file is locked while it is open.
        self.store = None;
        let store = Store::reopened(&self.condition.path)?;
        // It is stored as a whole or not at all.
        let is_stored = match (batch.entries.last(), batch.bans.last()) {
            (Some(last), _) => store.has(last.position)?,
            (None, Some((banned, ban))) => store.bans()?.get(banned) == ban.as_ref(),
            (None, None) => false,
        };
        self.store = Some(store);
        Ok(is_stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::{Ban, Banned};
    use crate::message::{Entry, Message, MessageId, RoomName};

    #[test]
    fn after_an_error_it_is_known_whether_the_file_has_the_batch() {
        let name = format!("hubbub-disk-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let (store, _lock) = Store::open(&folder).expect("a store");
        let mut committer = Committer {
            condition: Arc::new(Condition {
                path: store.path().to_owned(),
                trouble: Mutex::default(),
                begun: Mutex::default(),
                losses: AtomicU64::new(0),
            }),
            store: Some(store),
            on_committed: Box::new(|_, _| {}),
        };
        let batch = |entries, bans| Batch {
            entries,
            forgotten: Forgotten::default(),
            bans,
            posted: Vec::new(),
            needed: 0,
        };
        let message = Message {
            id: MessageId::ZERO,
            from: "alice".parse().expect("a name"),
            text: "hello".to_owned(),
            at: 0,
        };
        let placed = PlacedEntry {
            position: 0,
            room: RoomName::lobby(),
            entry: Entry {
                message,
                prev: None,
                via: None,
            },
            reference: None,
        };
        let ban = Ban {
            until: u64::MAX,
            reason: String::new(),
        };
        let banned = Banned::Room(RoomName::lobby());
        for batch in [
            batch(vec![placed], Vec::new()),
            batch(Vec::new(), vec![(banned.clone(), Some(ban))]),
            batch(Vec::new(), vec![(banned, None)]),
        ] {
            let reopened = |committer: &mut Committer| committer.reopen(&batch).expect("it opens");
            assert!(!reopened(&mut committer));
            committer.write(&batch).expect("it is written");
            assert!(reopened(&mut committer));
        }
        drop(committer);
        std::fs::remove_dir_all(folder).expect("it is gone");
    }
}
