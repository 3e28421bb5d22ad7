//! The logs of the embedded backplane: each room's past, in memory, within one budget of bytes.
//!
//! Beyond the budget the oldest message of all rooms is forgotten first. A room whose past was
//! forgotten still knows the id of its newest message for a while, as in Redis.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{BackplaneError, Draft, Excerpt, LAST_ID_LASTS, Retention, Stored};
use crate::message::{Entry, Message, MessageId, RoomName, UserName};
use crate::protocol::{Cursor, Ref};

/// The bytes that an entry, a ref, and a room take beside their text, about.
const ENTRY_BYTES: usize = 256;
const REF_BYTES: usize = 128;
const ROOM_BYTES: usize = 512;

/// The logs of all rooms.
pub(super) struct Logs {
    rooms: HashMap<RoomName, Log>,
    /// Every room, under the id of the entry that it would forget next.
    oldest: BTreeSet<(MessageId, RoomName)>,
    retention: Retention,
    /// The bytes of all entries and rooms.
    bytes: usize,
    /// The bytes of all refs. They have a bound of their own, since a ref must last its time for a retry to
    /// be safe.
    ref_bytes: usize,
}

/// One room's past.
#[derive(Default)]
struct Log {
    entries: VecDeque<Entry>,
    refs: HashMap<(UserName, Ref), (MessageId, Instant)>,
    /// The newest id, also when its entry is forgotten.
    last: Option<MessageId>,
    spoken: Option<Instant>,
}

/// The clock's millisecond, as the first id within it.
pub(super) fn now_as_id() -> MessageId {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    MessageId {
        millis: since.map_or(0, |since| since.as_millis() as u64),
        number: 0,
    }
}

fn weigh(entry: &Entry) -> usize {
    ENTRY_BYTES + entry.message.text.len() + entry.message.from.as_str().len()
}

impl Logs {
    /// No room has a past yet.
    pub(super) fn new(retention: Retention) -> Self {
        Self {
            rooms: HashMap::new(),
            oldest: BTreeSet::new(),
            retention,
            bytes: 0,
            ref_bytes: 0,
        }
    }

    /// Stores a message, and returns its entry unless it had been stored before.
    pub(super) fn append(
        &mut self,
        draft: Draft,
        now: Instant,
    ) -> Result<(Stored, Option<Entry>), BackplaneError> {
        let name = draft.room;
        let key = draft.reference.map(|r| (draft.from.clone(), r));
        if let Some(key) = &key {
            let known = self.rooms.get(&name).and_then(|log| log.refs.get(key));
            if let Some((id, noted)) = known
                && now.duration_since(*noted) < Ref::LASTS
            {
                let (id, duplicate) = (*id, true);
                return Ok((Stored { id, duplicate }, None));
            }
            if known.is_none() && self.ref_bytes >= self.retention.history_bytes {
                return Err(BackplaneError::Overloaded);
            }
        }
        let (from, text, via) = (draft.from, draft.text, draft.via);
        let entry = self.change(&name, |log, bytes, ref_bytes| {
            let id = log.next_id();
            let at = id.millis;
            let entry = Entry {
                message: Message { id, from, text, at },
                prev: log.last,
                via,
            };
            log.last = Some(id);
            log.spoken = Some(now);
            *bytes += weigh(&entry);
            log.entries.push_back(entry.clone());
            if let Some(key) = key
                && log.refs.insert(key, (id, now)).is_none()
            {
                *ref_bytes += REF_BYTES;
            }
            entry
        });
        while self.rooms[&name].entries.len() > self.retention.history_length {
            self.forget_first(&name);
        }
        while self.bytes > self.retention.history_bytes && self.forget_oldest() {}
        let (id, duplicate) = (entry.message.id, false);
        Ok((Stored { id, duplicate }, Some(entry)))
    }

    /// Changes one room's log, and creates it if the room has none.
    fn change<T>(
        &mut self,
        name: &RoomName,
        change: impl FnOnce(&mut Log, &mut usize, &mut usize) -> T,
    ) -> T {
        if !self.rooms.contains_key(name) {
            self.bytes += ROOM_BYTES;
        }
        let log = self.rooms.entry(name.clone()).or_default();
        let before = log.forgets_next();
        let changed = change(log, &mut self.bytes, &mut self.ref_bytes);
        let after = log.forgets_next();
        if before != after {
            self.oldest.remove(&(before, name.clone()));
        }
        self.oldest.insert((after, name.clone()));
        changed
    }

    /// Forgets a room's oldest entry.
    fn forget_first(&mut self, name: &RoomName) {
        self.change(name, |log, bytes, _| {
            *bytes -= log.entries.pop_front().as_ref().map_or(0, weigh);
        });
    }

    /// Forgets the oldest entry of all rooms, or the room of which nothing else is left. False if
    /// there is nothing that may be forgotten.
    fn forget_oldest(&mut self) -> bool {
        let Some((id, name)) = self.oldest.first().cloned() else {
            return false;
        };
        if id == MessageId::GREATEST {
            return false;
        }
        if self.rooms[&name].entries.is_empty() {
            self.remove(id, &name);
        } else {
            self.forget_first(&name);
        }
        true
    }

    fn remove(&mut self, forgets_next: MessageId, name: &RoomName) {
        self.rooms.remove(name);
        self.oldest.remove(&(forgets_next, name.clone()));
        self.bytes -= ROOM_BYTES;
    }

    /// Forgets refs and entries that are too old, and rooms that have neither.
    pub(super) fn forget(&mut self, now: Instant) {
        let ttl = self.retention.history_ttl;
        let quiet_for = |log: &Log, limit: Duration| {
            log.spoken
                .is_some_and(|spoken| now.duration_since(spoken) >= limit)
        };
        let names: Vec<_> = self.rooms.keys().cloned().collect();
        for name in &names {
            let (over, next) = self.change(name, |log, bytes, ref_bytes| {
                let refs = log.refs.len();
                log.refs
                    .retain(|_, (_, noted)| now.duration_since(*noted) < Ref::LASTS);
                *ref_bytes -= (refs - log.refs.len()) * REF_BYTES;
                if quiet_for(log, ttl) {
                    *bytes -= log
                        .entries
                        .drain(..)
                        .map(|entry| weigh(&entry))
                        .sum::<usize>();
                }
                let over = log.refs.is_empty() && quiet_for(log, ttl + LAST_ID_LASTS);
                (over, log.forgets_next())
            });
            if over {
                self.remove(next, name);
            }
        }
    }

    /// Reads a part of a room's log.
    pub(super) fn excerpt(&self, room: &RoomName, page: Cursor, limit: usize) -> Excerpt {
        let log = self.rooms.get(room);
        log.map(|log| log.excerpt(page, limit)).unwrap_or_default()
    }

    /// See [`Entrance::tail`](super::Entrance::tail).
    pub(super) fn tail(&self, room: &RoomName) -> Option<MessageId> {
        self.rooms.get(room)?.last
    }
}

impl Log {
    /// The id of the next thing to forget: the oldest entry, or the room itself if it has no entry. A room
    /// with refs is not forgotten.
    fn forgets_next(&self) -> MessageId {
        match (self.entries.front(), self.last) {
            (Some(entry), _) => entry.message.id,
            (None, Some(last)) if self.refs.is_empty() => last,
            (None, _) => MessageId::GREATEST,
        }
    }

    /// The clock's millisecond, or the last id's where the clock stands still or goes back.
    fn next_id(&self) -> MessageId {
        let now = now_as_id();
        match self.last {
            Some(last) if last.millis >= now.millis => MessageId {
                millis: last.millis,
                number: last.number + 1,
            },
            _ => now,
        }
    }

    fn excerpt(&self, page: Cursor, limit: usize) -> Excerpt {
        let ids = |entry: &Entry| entry.message.id;
        let length = self.entries.len();
        let range = match page {
            Cursor::Newest => length.saturating_sub(limit)..length,
            Cursor::Before(id) => {
                let end = self.entries.partition_point(|entry| ids(entry) < id);
                end.saturating_sub(limit)..end
            }
            Cursor::After(id) => {
                let start = self.entries.partition_point(|entry| ids(entry) <= id);
                start..length.min(start.saturating_add(limit))
            }
        };
        let more = match page {
            Cursor::Newest | Cursor::Before(_) => range.start > 0,
            Cursor::After(_) => range.end < length,
        };
        let entries: Vec<_> = self.entries.range(range).cloned().collect();
        let reach = match page {
            Cursor::Newest | Cursor::Before(_) => entries.first(),
            Cursor::After(_) => entries.last(),
        };
        Excerpt {
            reach: reach.map(ids),
            entries,
            more,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(history_length: usize, history_bytes: usize) -> Logs {
        Logs::new(Retention {
            history_length,
            history_ttl: Duration::from_secs(60),
            history_bytes,
            presence_ttl: Duration::from_secs(30),
            presence_grace: Duration::ZERO,
        })
    }

    fn say(
        logs: &mut Logs,
        room: &str,
        text: &str,
        reference: Option<&str>,
        now: Instant,
    ) -> Stored {
        let draft = Draft {
            room: room.parse().expect("a name"),
            from: "alice".parse().expect("a name"),
            text: text.to_owned(),
            reference: reference.map(|r| r.to_owned().try_into().expect("a ref")),
            via: None,
        };
        logs.append(draft, now).expect("it is stored").0
    }

    fn texts(excerpt: &Excerpt) -> String {
        let texts = excerpt.entries.iter().map(|e| e.message.text.as_str());
        texts.collect()
    }

    #[test]
    fn a_log_keeps_the_newest_and_its_pages_meet() {
        let mut logs = logs(7, 1 << 20);
        let now = Instant::now();
        for n in 0..10 {
            say(&mut logs, "lobby", &n.to_string(), None, now);
        }
        let read = |page, limit| logs.excerpt(&RoomName::lobby(), page, limit);
        let newest = read(Cursor::Newest, 3);
        assert_eq!((texts(&newest).as_str(), newest.more), ("789", true));
        let id = newest.entries[0].message.id;
        assert_eq!(newest.reach, Some(id));
        let before = read(Cursor::Before(id), 3);
        assert_eq!((texts(&before).as_str(), before.more), ("456", true));
        let rest = read(Cursor::Before(before.entries[0].message.id), 3);
        assert_eq!((texts(&rest).as_str(), rest.more), ("3", false));
        let after = read(Cursor::After(id), 1);
        assert_eq!((texts(&after).as_str(), after.more), ("8", true));
        assert_eq!(after.reach, Some(after.entries[0].message.id));
        assert_eq!(texts(&read(Cursor::After(id), 9)), "89");
    }

    #[test]
    fn a_repeated_ref_is_the_same_message_for_five_minutes() {
        let mut logs = logs(10, 1 << 20);
        let now = Instant::now();
        let first = say(&mut logs, "lobby", "a", Some("r"), now);
        let again = say(&mut logs, "lobby", "a", Some("r"), now + Ref::LASTS / 2);
        assert_eq!(again.id, first.id);
        assert!(again.duplicate);
        assert_eq!(
            logs.excerpt(&RoomName::lobby(), Cursor::Newest, 9)
                .entries
                .len(),
            1
        );
        let late = say(&mut logs, "lobby", "a", Some("r"), now + Ref::LASTS);
        assert!(!late.duplicate);
        assert!(late.id > first.id);
    }

    #[test]
    fn a_quiet_room_forgets_its_past_and_still_names_the_predecessor() {
        let mut logs = logs(10, 1 << 20);
        let now = Instant::now();
        let lobby = RoomName::lobby();
        let first = say(&mut logs, "lobby", "a", Some("r"), now);
        let ttl = Duration::from_secs(60);
        logs.forget(now + ttl);
        assert!(logs.excerpt(&lobby, Cursor::Newest, 9).entries.is_empty());
        assert_eq!(logs.tail(&lobby), Some(first.id));
        let later = now + ttl + Ref::LASTS;
        logs.forget(later);
        say(&mut logs, "lobby", "b", None, later);
        let entry = &logs.excerpt(&lobby, Cursor::Newest, 9).entries[0];
        assert_eq!(entry.prev, Some(first.id));
        logs.forget(later + ttl + LAST_ID_LASTS);
        assert_eq!(logs.tail(&lobby), None);
        assert_eq!((logs.bytes, logs.ref_bytes), (0, 0));
        assert!(logs.oldest.is_empty());
    }

    #[test]
    fn beyond_the_budget_the_oldest_of_all_rooms_is_forgotten_first() {
        const BUDGET: usize = 20_000;
        let mut logs = logs(1000, BUDGET);
        let now = Instant::now();
        let text = "x".repeat(1000);
        let rooms = ["one", "two", "three"];
        for n in 0..300 {
            say(&mut logs, rooms[n % 3], &text, None, now);
            assert!(logs.bytes <= BUDGET, "{}", logs.bytes);
        }
        let kept = |room: &str| {
            let room = room.parse().expect("a name");
            logs.excerpt(&room, Cursor::Newest, 1000).entries.len()
        };
        let kept = rooms.map(kept);
        assert!(kept.iter().all(|kept| (4..=6).contains(kept)), "{kept:?}");
        // A thousand rooms of one message each push the others out, and then each other.
        for n in 0..1000 {
            say(&mut logs, &format!("room-{n}"), "x", None, now);
            assert!(logs.bytes <= BUDGET, "{}", logs.bytes);
        }
        assert_eq!(logs.tail(&"one".parse().expect("a name")), None);
        assert_eq!(logs.oldest.len(), logs.rooms.len());
    }
}
