//! The index of rooms, for the list of them: one sorted set that all instances share, on the server that has the bans.
//!
//! A scan would find the rooms' own keys, but between those of millions of refs; and no script of a cluster may write a
//! room's keys and the index in one step. So each instance tells the index every second in which rooms it stored a
//! message or let somebody in, and from time to time all rooms that it hosts. The index is a hint: a room's own keys
//! decide whether the room is there ([`facts`]), and the instance that finds a room gone takes it out of the index.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::{Cmd, Value, cmd};

use super::keys::Keys;
use super::receipts::OnAnswer;
use super::wire;
use crate::backplane::{BackplaneError, LAST_ID_LASTS, MOST_LISTED, Retention};
use crate::message::{MessageId, RoomName};
use crate::protocol::ListedRoom;
use crate::threads::lock;

const INDEX: &str = include_str!("index.lua");

/// The pause between two times that all hosted rooms are told: a FLUSHALL may have taken the index, or a room that
/// seemed gone may have come back.
const TELL_HOSTED_EVERY: Duration = Duration::from_secs(10);

/// The number of questions about one room.
pub(super) const QUESTIONS: usize = 3;

/// The most rooms that one step tells: a script keeps Redis from everything else.
const TOLD_AT_ONCE: usize = 500;

/// News that the index does not have yet: rooms, and the time of the newest message in each (ms), 0 if none is known.
/// Beyond [`MOST_LISTED`] rooms, others have to wait for their next message.
#[derive(Default)]
pub(super) struct RoomNews(Mutex<HashMap<RoomName, u64>>);

impl RoomNews {
    /// The room is there, and this is its newest message.
    pub(super) fn note(&self, room: &RoomName, newest: Option<MessageId>) {
        self.note_at(room, newest.map_or(0, |id| id.millis));
    }

    fn note_at(&self, room: &RoomName, at: u64) {
        let mut news = lock(&self.0);
        if let Some(known) = news.get_mut(room) {
            *known = at.max(*known);
        } else if news.len() < MOST_LISTED {
            news.insert(room.clone(), at);
        }
    }
}

/// This instance's part of the index.
pub(super) struct RoomIndex {
    key: String,
    news: Arc<RoomNews>,
    /// The index is forgotten when no instance told it anything for so long.
    ttl: Duration,
    hosted_at: Instant,
}

impl RoomIndex {
    pub(super) fn new(keys: &Keys, news: &Arc<RoomNews>, retention: &Retention) -> Self {
        Self {
            key: keys.index(),
            news: Arc::clone(news),
            ttl: retention.history_ttl + LAST_ID_LASTS,
            hosted_at: Instant::now() + TELL_HOSTED_EVERY,
        }
    }

    /// Its key.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The commands that tell the index the news, and from time to time all rooms that are `hosted`. The news of a
    /// command that fails is kept for the next time.
    pub(super) fn news(
        &mut self,
        hosted: impl FnOnce() -> Vec<RoomName>,
        now: Instant,
    ) -> Vec<(Cmd, OnAnswer)> {
        if now >= self.hosted_at {
            self.hosted_at = now + TELL_HOSTED_EVERY;
            hosted().iter().for_each(|room| self.news.note(room, None));
        }
        let rooms: Vec<_> = lock(&self.news.0).drain().collect();
        let commands = rooms.chunks(TOLD_AT_ONCE).map(|some| {
            let mut command = cmd("EVAL");
            command.arg(INDEX).arg(1).arg(&self.key);
            command.arg(MOST_LISTED).arg(self.ttl.as_millis() as u64);
            for (room, at) in some {
                command.arg(*at).arg(room.as_str());
            }
            let (news, some) = (Arc::clone(&self.news), some.to_vec());
            let on_answer = move |answer: Result<Value, BackplaneError>| {
                if answer.is_err() {
                    some.iter().for_each(|(room, at)| news.note_at(room, *at));
                }
            };
            (command, Box::new(on_answer) as OnAnswer)
        });
        commands.collect()
    }
}

/// Reads the index.
pub(super) fn read(keys: &Keys) -> Cmd {
    let mut command = cmd("ZREVRANGE");
    command.arg(keys.index()).arg(0).arg(MOST_LISTED - 1);
    command.arg("WITHSCORES");
    command
}

/// Reads the answer to [`read`]: the rooms with the newest messages first, those without one last and by name.
pub(super) fn rooms(answer: &Value) -> Result<Vec<RoomName>, BackplaneError> {
    let parsed: Result<Vec<(Vec<u8>, f64)>, _> = redis::from_redis_value_ref(answer);
    let rows = parsed.map_err(|_| wire::unexpected("ZREVRANGE"))?;
    let rooms = rows.iter().filter_map(|(room, at)| {
        // The index may have something that is not Hubbub's, and no text.
        let room = std::str::from_utf8(room).ok()?;
        Some((Reverse(*at as u64), room.parse::<RoomName>().ok()?))
    });
    let mut rooms: Vec<_> = rooms.collect();
    rooms.sort_unstable();
    Ok(rooms.into_iter().map(|(_, room)| room).collect())
}

/// Takes rooms out of the index that are gone. One that comes back at this moment may go as well, until somebody says
/// something there, or [`TELL_HOSTED_EVERY`] is over.
pub(super) fn forget(keys: &Keys, rooms: &[RoomName]) -> Cmd {
    let mut command = cmd("ZREM");
    command.arg(keys.index());
    for room in rooms {
        command.arg(room.as_str());
    }
    command
}

/// Asks for the number of a room's users, also of those whose instances were not renewed in time.
pub(super) fn count_all(keys: &Keys, room: &RoomName) -> Cmd {
    let mut command = cmd("HLEN");
    command.arg(keys.members(room));
    command
}

/// The questions about a room beside that for the number of its users: for the id of its newest message, and whether
/// it remembers any.
pub(super) fn questions(keys: &Keys, room: &RoomName) -> [Cmd; 2] {
    let (mut newest, mut remembers) = (cmd("GET"), cmd("EXISTS"));
    newest.arg(keys.newest(room));
    remembers.arg(keys.log(room));
    [newest, remembers]
}

/// Reads the answers about a room: the number of its users, and those to [`questions`]. `None` if it is gone.
pub(super) fn facts(
    room: &RoomName,
    answers: &[Result<Value, BackplaneError>],
) -> Result<Option<ListedRoom>, BackplaneError> {
    let [members, newest, remembers] = answers else {
        return Err(wire::unexpected("EXISTS"));
    };
    let (Value::Int(members), newest, remembers) =
        (members.clone()?, newest.clone()?, remembers.clone()?)
    else {
        return Err(wire::unexpected("presence.lua"));
    };
    let is_there = members > 0 || remembers == Value::Int(1);
    let newest = wire::text(&newest).and_then(|id| id.parse::<MessageId>().ok());
    Ok(is_there.then(|| ListedRoom {
        room: room.clone(),
        members: usize::try_from(members).unwrap_or_default(),
        at: newest.map(|id| id.millis),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_room_is_left_out_of_the_list() {
        let row = |member: &[u8], at| {
            let row = vec![Value::BulkString(member.to_vec()), Value::Double(at)];
            Value::Array(row)
        };
        let answer = vec![row(b"a", 1.0), row(b"\xff", 2.0), row(b"a/b", 3.0)];
        let listed = rooms(&Value::Array(answer)).expect("a list");
        assert_eq!(listed, ["a".parse().expect("a name")]);
    }

    #[test]
    fn what_is_not_told_yet_is_bounded_and_keeps_the_newest_time() {
        let news = RoomNews::default();
        let id = |millis| Some(MessageId { millis, number: 0 });
        let lobby = RoomName::lobby();
        for newest in [id(7), None, id(5)] {
            news.note(&lobby, newest);
        }
        for number in 0..2 * MOST_LISTED {
            news.note(&number.to_string().parse().expect("a name"), id(9));
        }
        let news = lock(&news.0);
        assert_eq!(news.get(&lobby), Some(&7));
        assert_eq!(news.len(), MOST_LISTED);
    }

    #[test]
    fn the_hosted_rooms_are_told_from_time_to_time() {
        let keys = Keys::new("p", crate::message::InstanceId::random());
        let retention = Retention {
            history_length: 1,
            history_ttl: Duration::from_secs(1),
            history_bytes: 1,
            presence_ttl: Duration::from_secs(1),
            presence_grace: Duration::ZERO,
        };
        let mut index = RoomIndex::new(&keys, &Arc::default(), &retention);
        assert_eq!(index.key(), "p:rooms");
        let mut told_at = |now| index.news(|| vec![RoomName::lobby()], now).len();
        let now = Instant::now();
        let (first, second) = (now + TELL_HOSTED_EVERY, now + 2 * TELL_HOSTED_EVERY);
        assert_eq!(told_at(now), 0);
        // It was made a moment before `now`.
        assert_eq!(told_at(first), 1);
        assert_eq!(told_at(second - Duration::from_millis(1)), 0);
        assert_eq!(told_at(second), 1);
    }

    #[test]
    fn a_room_is_asked_for_under_its_own_keys() {
        let keys = Keys::new("p", crate::message::InstanceId::random());
        let packed =
            |command: &Cmd| String::from_utf8_lossy(&command.get_packed_command()).into_owned();
        let count = packed(&count_all(&keys, &RoomName::lobby()));
        assert!(
            count.contains("HLEN") && count.contains("p:{lobby}:members"),
            "{count}"
        );
        let newest = packed(&read(&keys));
        assert!(newest.contains(&(MOST_LISTED - 1).to_string()), "{newest}");
    }
}
