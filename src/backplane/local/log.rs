//! The logs of the embedded backplane: each room's past, in memory, within one budget of bytes.
//!
//! Beyond the budget the oldest message of all rooms is forgotten first. A room whose past was
//! forgotten still knows the id of its newest message for a while, as in Redis.
//!
//! A message is planned first, which gives it its id, and taken in once it is stored. So nobody reads what a crash may
//! still undo. What is forgotten is listed, for the disk to forget it with the next commit.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use crate::backplane::{
    BackplaneError, Draft, Excerpt, LAST_ID_LASTS, Retention, Stored, can_follow,
};
use crate::date::unix_millis;
use crate::message::{Entry, Message, MessageId, RoomName, UserName};
use crate::protocol::{Cursor, Ref};

/// The bytes that an entry, a ref, and a room take beside their text, about.
const ENTRY_BYTES: usize = 256;
const REF_BYTES: usize = 128;
const ROOM_BYTES: usize = 512;

/// A message's place in the order of all messages, of all rooms.
pub(super) type Position = u64;

/// An entry of some room's log, with its place in the order of all rooms.
#[derive(Debug, Clone)]
pub(super) struct PlacedEntry {
    pub(super) position: Position,
    pub(super) room: RoomName,
    pub(super) entry: Entry,
    pub(super) reference: Option<Ref>,
}

/// Messages that are about to be stored together.
#[derive(Default)]
pub(super) struct Plan {
    /// In their order.
    pub(super) entries: Vec<PlacedEntry>,
    /// The newest ids, and the refs, that the logs do not know yet.
    tails: HashMap<RoomName, MessageId>,
    refs: HashMap<(RoomName, UserName, Ref), MessageId>,
}

/// What the logs have forgotten, and the disk has not.
#[derive(Debug, Default, Clone)]
pub(super) struct Forgotten {
    pub(super) messages: Vec<Position>,
    pub(super) refs: Vec<Position>,
    /// The newest ids of rooms without messages. `None`: the room has messages again, or is forgotten as well.
    pub(super) tails: HashMap<RoomName, Option<MessageId>>,
}

impl Forgotten {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.refs.is_empty() && self.tails.is_empty()
    }
}

/// The logs of all rooms.
pub(super) struct Logs {
    rooms: HashMap<RoomName, Log>,
    /// Every room, under the id of the entry that it would forget next.
    oldest: BTreeSet<(MessageId, RoomName)>,
    retention: Retention,
    totals: Totals,
    /// The place of the next message.
    next: Position,
}

/// What is counted and listed over all rooms.
#[derive(Default)]
struct Totals {
    /// The bytes of all entries and rooms.
    bytes: usize,
    /// The bytes of all refs. They have a bound of their own, since a ref must last its time for a retry to
    /// be safe.
    ref_bytes: usize,
    forgotten: Forgotten,
}

/// One room's past.
#[derive(Default)]
struct Log {
    entries: VecDeque<(Position, Entry)>,
    refs: HashMap<(UserName, Ref), NotedRef>,
    /// The newest id, also when its entry is forgotten.
    last: Option<MessageId>,
    spoken: Option<Instant>,
}

/// A ref, which makes a repetition the same message.
struct NotedRef {
    id: MessageId,
    at: Instant,
    position: Position,
}

/// The clock's millisecond, as the first id within it.
pub(super) fn now_as_id() -> MessageId {
    MessageId {
        millis: unix_millis(SystemTime::now()),
        number: 0,
    }
}

/// When this was said, by the clock of an earlier process. A clock that went back since makes it now.
fn said_at(id: MessageId, now: Instant) -> Instant {
    let age = now_as_id().millis.saturating_sub(id.millis);
    now.checked_sub(Duration::from_millis(age)).unwrap_or(now)
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
            totals: Totals::default(),
            next: 0,
        }
    }

    /// Gives a message its id and its place, unless it was stored before.
    pub(super) fn plan(
        &mut self,
        plan: &mut Plan,
        draft: Draft,
        now: Instant,
    ) -> Result<Stored, BackplaneError> {
        let Draft {
            room,
            from,
            text,
            reference,
            via,
        } = draft;
        let log = self.rooms.get(&room);
        if let Some(reference) = &reference {
            let key = (room.clone(), from.clone(), reference.clone());
            let planned = plan.refs.get(&key).copied();
            let known = planned.or_else(|| log?.known_by(&from, reference, now));
            if let Some(id) = known {
                let is_it =
                    |placed: &&PlacedEntry| placed.room == room && placed.entry.message.id == id;
                let planned = plan.entries.iter().find(is_it).map(|one| &one.entry);
                return match planned.or_else(|| log?.entry(id)) {
                    Some(entry) if entry.message.text != text => Err(BackplaneError::RefReused),
                    Some(_) | None => Ok(Stored {
                        id,
                        duplicate: true,
                    }),
                };
            }
            let planned = plan.refs.len() * REF_BYTES;
            if self.totals.ref_bytes + planned >= self.retention.history_bytes {
                return Err(BackplaneError::Overloaded);
            }
        }
        let planned = plan.tails.get(&room).copied();
        let prev = planned.or_else(|| log?.last);
        let id = id_after(prev);
        plan.tails.insert(room.clone(), id);
        if let Some(reference) = &reference {
            let key = (room.clone(), from.clone(), reference.clone());
            plan.refs.insert(key, id);
        }
        let at = id.millis;
        let message = Message { id, from, text, at };
        plan.entries.push(PlacedEntry {
            position: self.next,
            room,
            entry: Entry { message, prev, via },
            reference,
        });
        self.next += 1;
        let duplicate = false;
        Ok(Stored { id, duplicate })
    }

    /// Gives messages that have an id their place. They must come after all that the room has.
    pub(super) fn plan_past(
        &mut self,
        plan: &mut Plan,
        room: &RoomName,
        entries: Vec<Entry>,
    ) -> Result<(), BackplaneError> {
        let planned = plan.tails.get(room).copied();
        let last = planned.or_else(|| self.tail(room));
        if !can_follow(last, &entries) {
            return Err(BackplaneError::has_later(room));
        }
        for entry in entries {
            plan.tails.insert(room.clone(), entry.message.id);
            plan.entries.push(PlacedEntry {
                position: self.next,
                room: room.clone(),
                entry,
                reference: None,
            });
            self.next += 1;
        }
        Ok(())
    }

    /// The rooms that have messages.
    pub(super) fn with_messages(&self) -> impl Iterator<Item = &RoomName> {
        let with_messages = self.rooms.iter().filter(|(_, log)| !log.entries.is_empty());
        with_messages.map(|(room, _)| room)
    }

    /// Whether the room has messages.
    pub(super) fn has_messages(&self, room: &RoomName) -> bool {
        let log = self.rooms.get(room);
        log.is_some_and(|log| !log.entries.is_empty())
    }

    /// Takes in a message that was stored.
    pub(super) fn take_in(&mut self, placed: &PlacedEntry, now: Instant) {
        self.add(placed, now);
        if let Some(reference) = &placed.reference {
            let message = &placed.entry.message;
            let by = (message.from.clone(), reference.clone());
            self.note_ref(&placed.room, by, message.id, placed.position, now);
        }
    }

    /// Takes in a message that an earlier process stored. Those of a room come in their order.
    pub(super) fn restore(&mut self, placed: &PlacedEntry, now: Instant) {
        self.begin_after(placed.position);
        self.add(placed, said_at(placed.entry.message.id, now));
    }

    /// Takes in a ref of an earlier process.
    pub(super) fn restore_ref(
        &mut self,
        position: Position,
        room: &RoomName,
        by: (UserName, Ref),
        id: MessageId,
        now: Instant,
    ) {
        self.begin_after(position);
        self.note_ref(room, by, id, position, said_at(id, now));
    }

    /// Takes in the newest id of a room whose messages an earlier process forgot.
    pub(super) fn restore_tail(&mut self, room: &RoomName, id: MessageId, now: Instant) {
        self.change(room, |log, _| {
            log.last = Some(id);
            log.spoken = Some(said_at(id, now));
        });
    }

    /// The next message comes after this place.
    fn begin_after(&mut self, last: Position) {
        self.next = self.next.max(last + 1);
    }

    /// Takes out what was forgotten: up to `most` messages and refs, and all newest ids, so that none of these is
    /// forgotten with its room's last message.
    pub(super) fn take_forgotten(&mut self, most: usize) -> Forgotten {
        let all = &mut self.totals.forgotten;
        let some = |positions: &mut Vec<Position>| {
            let rest = positions.split_off(positions.len().min(most));
            std::mem::replace(positions, rest)
        };
        Forgotten {
            messages: some(&mut all.messages),
            refs: some(&mut all.refs),
            tails: std::mem::take(&mut all.tails),
        }
    }

    /// Whether there is more that the disk has to forget.
    pub(super) fn has_forgotten(&self) -> bool {
        !self.totals.forgotten.is_empty()
    }

    /// The disk did not forget this yet.
    pub(super) fn forget_again(&mut self, forgotten: &Forgotten) {
        let all = &mut self.totals.forgotten;
        all.messages.extend(&forgotten.messages);
        all.refs.extend(&forgotten.refs);
        for (room, tail) in &forgotten.tails {
            // What happened since is newer.
            all.tails.entry(room.clone()).or_insert(*tail);
        }
    }

    /// The bytes of all that is remembered, about.
    pub(super) fn bytes(&self) -> usize {
        self.totals.bytes + self.totals.ref_bytes
    }

    fn add(&mut self, placed: &PlacedEntry, spoken: Instant) {
        let PlacedEntry {
            position,
            room,
            entry,
            ..
        } = placed;
        self.change(room, |log, totals| {
            if log.entries.is_empty() && log.last.is_some() {
                totals.forgotten.tails.insert(room.clone(), None);
            }
            log.last = Some(entry.message.id);
            log.spoken = Some(spoken);
            totals.bytes += weigh(entry);
            log.entries.push_back((*position, entry.clone()));
        });
        while self.rooms[room].entries.len() > self.retention.history_length {
            self.forget_first(room);
        }
        while self.totals.bytes > self.retention.history_bytes && self.forget_oldest() {}
    }

    fn note_ref(
        &mut self,
        room: &RoomName,
        by: (UserName, Ref),
        id: MessageId,
        position: Position,
        at: Instant,
    ) {
        self.change(room, |log, totals| {
            totals.ref_bytes += REF_BYTES;
            let noted = NotedRef { id, at, position };
            if let Some(before) = log.refs.insert(by, noted) {
                totals.ref_bytes -= REF_BYTES;
                totals.forgotten.refs.push(before.position);
            }
        });
    }

    /// Changes one room's log, and creates it if the room has none.
    fn change<T>(&mut self, name: &RoomName, change: impl FnOnce(&mut Log, &mut Totals) -> T) -> T {
        if !self.rooms.contains_key(name) {
            self.totals.bytes += ROOM_BYTES;
        }
        let log = self.rooms.entry(name.clone()).or_default();
        let before = log.forgets_next();
        let changed = change(log, &mut self.totals);
        let after = log.forgets_next();
        if before != after {
            self.oldest.remove(&(before, name.clone()));
        }
        self.oldest.insert((after, name.clone()));
        changed
    }

    /// Forgets a room's oldest entry.
    fn forget_first(&mut self, name: &RoomName) {
        self.change(name, |log, totals| {
            log.forget_messages(name, 1, totals);
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
        self.totals.bytes -= ROOM_BYTES;
        self.totals.forgotten.tails.insert(name.clone(), None);
    }

    /// Forgets refs and entries that are too old, and rooms that have neither.
    pub(super) fn forget(&mut self, now: Instant) {
        let ttl = self.retention.history_ttl;
        let quiet_for = |log: &Log, limit: Duration| {
            let quiet = |spoken| now.duration_since(spoken) >= limit;
            log.spoken.is_none_or(quiet)
        };
        let names: Vec<_> = self.rooms.keys().cloned().collect();
        for name in &names {
            let (over, next) = self.change(name, |log, totals| {
                log.forget_refs(now, totals);
                if quiet_for(log, ttl) {
                    log.forget_messages(name, log.entries.len(), totals);
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

    /// See [`Entrance::tail`](crate::backplane::Entrance::tail).
    pub(super) fn tail(&self, room: &RoomName) -> Option<MessageId> {
        self.rooms.get(room)?.last
    }
}

/// The clock's millisecond, or the next id where the clock stands still or goes back.
fn id_after(last: Option<MessageId>) -> MessageId {
    let next = last.and_then(MessageId::next);
    now_as_id().max(next.unwrap_or(MessageId::ZERO))
}

impl Log {
    /// The id of the next thing to forget: the oldest entry, or the room itself if it has no entry. A room
    /// with refs is not forgotten.
    fn forgets_next(&self) -> MessageId {
        match (self.entries.front(), self.last) {
            (Some((_, entry)), _) => entry.message.id,
            (None, Some(last)) if self.refs.is_empty() => last,
            (None, _) => MessageId::GREATEST,
        }
    }

    /// The message that this user sent under this ref lately.
    fn known_by(&self, from: &UserName, reference: &Ref, now: Instant) -> Option<MessageId> {
        let noted = self.refs.get(&(from.clone(), reference.clone()))?;
        (now.duration_since(noted.at) < Ref::LASTS).then_some(noted.id)
    }

    /// The message with this id, unless it is forgotten.
    fn entry(&self, id: MessageId) -> Option<&Entry> {
        let by_id = |(_, entry): &(Position, Entry)| entry.message.id;
        let index = self.entries.binary_search_by_key(&id, by_id).ok()?;
        Some(&self.entries[index].1)
    }

    /// Forgets its oldest messages.
    fn forget_messages(&mut self, name: &RoomName, count: usize, totals: &mut Totals) {
        if count == 0 {
            return;
        }
        for (position, entry) in self.entries.drain(..count) {
            totals.bytes -= weigh(&entry);
            totals.forgotten.messages.push(position);
        }
        if self.entries.is_empty() {
            totals.forgotten.tails.insert(name.clone(), self.last);
        }
    }

    /// Forgets the refs that are over.
    fn forget_refs(&mut self, now: Instant, totals: &mut Totals) {
        let over = self
            .refs
            .extract_if(|_, noted| now.duration_since(noted.at) >= Ref::LASTS);
        for (_, noted) in over {
            totals.ref_bytes -= REF_BYTES;
            totals.forgotten.refs.push(noted.position);
        }
    }

    fn excerpt(&self, page: Cursor, limit: usize) -> Excerpt {
        let length = self.entries.len();
        let range = match page {
            Cursor::Newest => length.saturating_sub(limit)..length,
            Cursor::Before(id) => {
                let end = self
                    .entries
                    .partition_point(|(_, entry)| entry.message.id < id);
                end.saturating_sub(limit)..end
            }
            Cursor::After(id) => {
                let start = self
                    .entries
                    .partition_point(|(_, entry)| entry.message.id <= id);
                start..length.min(start.saturating_add(limit))
            }
        };
        let more = match page {
            Cursor::Newest | Cursor::Before(_) => range.start > 0,
            Cursor::After(_) => range.end < length,
        };
        let entries = self.entries.range(range).map(|(_, entry)| entry.clone());
        let entries: Vec<_> = entries.collect();
        let reach = match page {
            Cursor::Newest | Cursor::Before(_) => entries.first(),
            Cursor::After(_) => entries.last(),
        };
        Excerpt {
            reach: reach.map(|entry| entry.message.id),
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
        let mut plan = Plan::default();
        let stored = logs.plan(&mut plan, draft, now).expect("it is stored");
        for placed in &plan.entries {
            logs.take_in(placed, now);
        }
        stored
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
        assert_eq!(logs.totals.ref_bytes, REF_BYTES, "the first one is gone");
        assert_eq!(logs.bytes(), logs.totals.bytes + REF_BYTES);
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
        // Nor is the room forgotten for others before its refs are.
        assert!(!logs.forget_oldest());
        let later = now + ttl + Ref::LASTS;
        logs.forget(later);
        say(&mut logs, "lobby", "b", None, later);
        let entry = &logs.excerpt(&lobby, Cursor::Newest, 9).entries[0];
        assert_eq!(entry.prev, Some(first.id));
        logs.forget(later + ttl + LAST_ID_LASTS);
        assert_eq!(logs.tail(&lobby), None);
        assert_eq!((logs.totals.bytes, logs.totals.ref_bytes), (0, 0));
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
            assert!(logs.totals.bytes <= BUDGET, "{}", logs.totals.bytes);
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
            assert!(logs.totals.bytes <= BUDGET, "{}", logs.totals.bytes);
        }
        assert_eq!(logs.tail(&"one".parse().expect("a name")), None);
        assert_eq!(logs.oldest.len(), logs.rooms.len());
    }

    #[test]
    fn ids_go_on_above_those_of_an_earlier_process_even_if_the_clock_went_back() {
        let (mut logs, now) = (logs(10, 1 << 20), Instant::now());
        let ahead = MessageId {
            millis: now_as_id().millis + 3_600_000,
            number: 7,
        };
        let message = Message {
            id: ahead,
            from: "alice".parse().expect("a name"),
            text: "before".to_owned(),
            at: ahead.millis,
        };
        let placed = PlacedEntry {
            position: 41,
            room: RoomName::lobby(),
            entry: Entry {
                message,
                prev: None,
                via: None,
            },
            reference: None,
        };
        logs.restore(&placed, now);
        let next = say(&mut logs, "lobby", "after", None, now);
        assert_eq!((next.id.millis, next.id.number), (ahead.millis, 8));
        let entries = logs.excerpt(&RoomName::lobby(), Cursor::Newest, 9).entries;
        assert_eq!(entries[1].prev, Some(ahead));
        // And so does a room of which only the newest id is left.
        let room: RoomName = "quiet".parse().expect("a name");
        logs.restore_tail(&room, ahead, now);
        let next = say(&mut logs, "quiet", "after", None, now);
        assert_eq!((next.id.millis, next.id.number), (ahead.millis, 8));
        let forgotten = logs.take_forgotten(usize::MAX);
        assert_eq!(forgotten.tails, HashMap::from([(room, None)]));
    }

    fn draft(room: &RoomName, text: &str, reference: &str) -> Draft {
        Draft {
            room: room.clone(),
            from: "alice".parse().expect("a name"),
            text: text.to_owned(),
            reference: Some(reference.to_owned().try_into().expect("a ref")),
            via: None,
        }
    }

    #[test]
    fn a_ref_is_known_within_one_plan_and_in_its_own_room() {
        let (mut logs, now, mut plan) = (logs(10, 1 << 20), Instant::now(), Plan::default());
        let rooms: [RoomName; 2] = ["one", "two"].map(|room| room.parse().expect("a name"));
        let ahead = MessageId {
            millis: now_as_id().millis + 3_600_000,
            number: 0,
        };
        // Both rooms give the same id.
        for room in &rooms {
            logs.restore_tail(room, ahead, now);
        }
        let mut say = |room, text| logs.plan(&mut plan, draft(room, text, "r"), now);
        let first = say(&rooms[0], "a").expect("it is new");
        let second = say(&rooms[1], "b").expect("it is new");
        assert_eq!(first.id, second.id);
        let again = say(&rooms[1], "b").expect("it is known");
        assert!(again.duplicate);
        assert_eq!(say(&rooms[1], "a"), Err(BackplaneError::RefReused));
    }

    #[test]
    fn the_refs_of_a_plan_count_before_they_are_stored() {
        let (mut logs, mut plan) = (logs(10, 3 * REF_BYTES), Plan::default());
        let mut say = |reference| {
            let draft = draft(&RoomName::lobby(), "a", reference);
            logs.plan(&mut plan, draft, Instant::now())
        };
        for reference in ["1", "2", "3"] {
            assert!(say(reference).is_ok());
        }
        assert_eq!(say("4"), Err(BackplaneError::Overloaded));
        assert!(say("3").is_ok_and(|stored| stored.duplicate));
    }

    #[test]
    fn what_fits_the_budget_to_the_byte_is_kept() {
        let two = ROOM_BYTES + 2 * (ENTRY_BYTES + "alice".len() + "xyz".len());
        for (budget, kept) in [(two, 2), (two - 1, 1)] {
            let (mut logs, now) = (logs(10, budget), Instant::now());
            say(&mut logs, "lobby", "xyz", None, now);
            say(&mut logs, "lobby", "xyz", None, now);
            let read = logs.excerpt(&RoomName::lobby(), Cursor::Newest, 9);
            assert_eq!(read.entries.len(), kept);
        }
    }

    #[test]
    fn what_the_disk_did_not_forget_is_given_to_it_again() {
        let (mut logs, now) = (logs(1, 1 << 20), Instant::now());
        let position = |logs: &Logs| logs.next - 1;
        say(&mut logs, "lobby", "a", Some("r"), now);
        let first = position(&logs);
        say(&mut logs, "lobby", "b", None, now);
        let second = position(&logs);
        logs.forget(now + Duration::from_secs(60));
        assert!(logs.has_forgotten());
        let all = logs.take_forgotten(usize::MAX);
        assert!(!logs.has_forgotten());
        assert_eq!(all.messages, [first, second]);
        let tail = (
            RoomName::lobby(),
            Some(logs.tail(&RoomName::lobby()).expect("an id")),
        );
        assert_eq!(all.tails, HashMap::from([tail]));
        // Meanwhile the room has messages again.
        say(&mut logs, "lobby", "c", None, now);
        logs.forget_again(&all);
        let again = logs.take_forgotten(usize::MAX);
        assert_eq!(again.messages, all.messages);
        assert_eq!(again.tails, HashMap::from([(RoomName::lobby(), None)]));
    }
}
