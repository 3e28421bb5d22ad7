//! The list of rooms: which there are, how many users are in each, and when something was said there last.
//!
//! Strangers may ask for it, so the backplane is asked for all of them together, one question at a time, and each
//! answer is kept for [`KEPT_FOR`].

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::backplane::{ANSWER_WITHIN, Backplane, BackplaneError};
use crate::message::RoomName;
use crate::protocol::{Event, ListedRoom};
use crate::threads::lock;

/// The time for which an answer of the backplane is kept, and also an error.
const KEPT_FOR: Duration = Duration::from_secs(2);

/// The most rooms that the backplane describes for one request, including those that turn out to be gone. If there are
/// others, the answer says that there are more.
const MOST_DESCRIBED: usize = 2000;

/// The answers of the backplane, shared by all that ask for the list.
pub struct RoomList {
    /// Holds one item while somebody asks the backplane.
    turn: (Sender<()>, Receiver<()>),
    told: Mutex<KeptAnswers>,
}

struct KeptAnswers {
    until: Instant,
    rooms: Result<Arc<[RoomName]>, BackplaneError>,
    /// `None` for a room that is gone.
    described: HashMap<RoomName, Option<ListedRoom>>,
}

/// The turn to ask the backplane. When it is dropped, also by a panic, the next request has the turn.
struct Turn<'a>(&'a Receiver<()>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

impl RoomList {
    /// Nothing is told yet.
    pub fn new() -> Self {
        Self {
            turn: crossbeam_channel::bounded(1),
            told: Mutex::new(KeptAnswers {
                until: Instant::now(),
                rooms: Ok([].into()),
                described: HashMap::new(),
            }),
        }
    }

    /// Lists up to `limit` of the rooms that are `shown` to the asker. Waits for the backplane, and for the requests
    /// that came before.
    pub fn page(
        &self,
        backplane: &dyn Backplane,
        limit: usize,
        shown: impl Fn(&RoomName) -> bool,
    ) -> Result<Event, BackplaneError> {
        let begun = Instant::now();
        let (enter, leave) = &self.turn;
        if enter.send_timeout((), ANSWER_WITHIN).is_err() {
            return Err(BackplaneError::Unavailable);
        }
        let _turn = Turn(leave);
        let all = self.names(backplane)?;
        let mut left = all.iter().filter(|room| shown(room)).peekable();
        let (mut rooms, mut described, mut failed) = (Vec::new(), 0, None);
        while rooms.len() < limit
            && described < MOST_DESCRIBED
            && failed.is_none()
            && begun.elapsed() < ANSWER_WITHIN
            && left.peek().is_some()
        {
            let some: Vec<_> = left.by_ref().take(limit - rooms.len()).cloned().collect();
            described += some.len();
            match self.describe(backplane, &some) {
                Ok(some) => rooms.extend(some),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed.filter(|_| rooms.is_empty()) {
            return Err(error);
        }
        let more = left.peek().is_some();
        rooms.sort_by_cached_key(|one| (Reverse(one.at), one.room.clone()));
        Ok(Event::Rooms { rooms, more })
    }

    /// The names of all rooms. The caller has the turn.
    fn names(&self, backplane: &dyn Backplane) -> Result<Arc<[RoomName]>, BackplaneError> {
        {
            let told = lock(&self.told);
            if Instant::now() < told.until {
                return told.rooms.clone();
            }
        }
        let rooms = backplane.listed().map(Arc::from);
        *lock(&self.told) = KeptAnswers {
            until: Instant::now() + KEPT_FOR,
            rooms: rooms.clone(),
            described: HashMap::new(),
        };
        rooms
    }

    /// Describes those of these rooms that are still there. The caller has the turn.
    fn describe(
        &self,
        backplane: &dyn Backplane,
        rooms: &[RoomName],
    ) -> Result<Vec<ListedRoom>, BackplaneError> {
        let mut unknown = rooms.to_vec();
        {
            let described = &lock(&self.told).described;
            unknown.retain(|room| !described.contains_key(room));
        }
        let told = match unknown[..] {
            [] => Vec::new(),
            _ => backplane.describe(&unknown)?,
        };
        let described = &mut lock(&self.told).described;
        described.extend(unknown.into_iter().map(|room| (room, None)));
        described.extend(told.into_iter().map(|one| (one.room.clone(), Some(one))));
        let all = rooms.iter().filter_map(|room| described.get(room)?.clone());
        Ok(all.collect())
    }
}

impl Default for RoomList {
    fn default() -> Self {
        Self::new()
    }
}
