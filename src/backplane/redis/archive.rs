//! What all rooms remember: how the rooms on one server are found, and how messages are put back.

use redis::{Cmd, Value, cmd};

use super::keys::Keys;
use crate::backplane::{BackplaneError, LAST_ID_LASTS, Retention};
use crate::message::{Entry, RoomName};

const RESTORE: &str = concat!(include_str!("ids.lua"), include_str!("restore.lua"));

/// The keys that one SCAN looks at, about.
const SCANNED_AT_ONCE: usize = 1000;

/// Looks for rooms, from this cursor on; the first is 0.
pub(super) fn scan(keys: &Keys, cursor: u64) -> Cmd {
    let mut command = cmd("SCAN");
    command.arg(cursor).arg("MATCH").arg(keys.logs());
    command.arg("COUNT").arg(SCANNED_AT_ONCE);
    command
}

/// Reads the answer to [`scan`]: the next cursor, 0 at the end, and rooms. Some may come twice.
pub(super) fn scanned(keys: &Keys, answer: &Value) -> Result<(u64, Vec<RoomName>), BackplaneError> {
    let parsed: Result<(u64, Vec<String>), _> = redis::from_redis_value_ref(answer);
    let (cursor, logs) =
        parsed.map_err(|_| BackplaneError::Refused("SCAN has no such answer".to_owned()))?;
    let rooms = logs.iter().filter_map(|log| keys.room_of(log));
    Ok((cursor, rooms.collect()))
}

/// Puts messages into a room's log.
pub(super) fn restore(
    keys: &Keys,
    room: &RoomName,
    entries: &[Entry],
    retention: &Retention,
) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(RESTORE).arg(2);
    command.arg(keys.log(room)).arg(keys.newest(room));
    command.arg(retention.history_ttl.as_millis() as u64);
    command.arg((retention.history_ttl + LAST_ID_LASTS).as_millis() as u64);
    for Entry { message, prev, .. } in entries {
        command.arg(message.id.to_string());
        command.arg(message.from.as_str()).arg(&message.text);
        command.arg(prev.map(|prev| prev.to_string()).unwrap_or_default());
    }
    command
}

/// Whether the room took them, by the answer to [`restore`].
pub(super) fn is_restored(answer: &Value) -> bool {
    matches!(answer, Value::Int(1))
}
