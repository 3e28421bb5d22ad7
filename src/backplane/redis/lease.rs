//! The lease of a webhook: how it is written in Redis.

use std::time::Duration;

use redis::{Cmd, Value, cmd};

use super::keys::Keys;
use crate::backplane::{BackplaneError, LAST_ID_LASTS, Retention};
use crate::message::{MessageId, RoomName};

const LEASE: &str = concat!(include_str!("ids.lua"), include_str!("webhook.lua"));

/// Takes or keeps the lease. See [`Backplane::lease`](crate::backplane::Backplane::lease).
pub(super) fn take(
    keys: &Keys,
    room: &RoomName,
    webhook: &str,
    posted: Option<MessageId>,
    lasts: Duration,
    retention: &Retention,
) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(LEASE).arg(3).arg(keys.webhook(room, webhook));
    command.arg(keys.log(room)).arg(keys.newest(room));
    command.arg(keys.instance().to_string());
    command.arg(lasts.as_millis() as u64);
    command.arg(posted.map(|id| id.to_string()).unwrap_or_default());
    // As long as the room's newest id is known.
    command.arg((retention.history_ttl + LAST_ID_LASTS).as_millis() as u64);
    command
}

/// The last message that was posted, by the answer to [`take`]; `None` if another instance has the lease.
pub(super) fn taken(answer: &Value) -> Result<Option<MessageId>, BackplaneError> {
    let id: Option<Option<String>> = redis::from_redis_value_ref(answer).ok();
    let id = id.map(|id| id.map(|id| id.parse()).transpose());
    let strange = || BackplaneError::Refused("the lease has no such answer".to_owned());
    id.ok_or_else(strange)?.map_err(|_| strange())
}
