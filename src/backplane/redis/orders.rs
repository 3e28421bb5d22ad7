//! Orders of operators, and bans: how they are written in Redis.

use std::collections::BTreeMap;

use redis::{Cmd, Value, cmd};

use super::keys::Keys;
use crate::backplane::{BackplaneError, Ban, Banned};
use crate::hub::Order;

const BANS: &str = include_str!("bans.lua");

/// Tells every instance.
pub(super) fn publish(keys: &Keys, order: &Order) -> Cmd {
    let mut command = cmd("PUBLISH");
    command.arg(keys.orders()).arg(payload(order));
    command
}

/// Bans, or lifts a ban, and tells every instance.
pub(super) fn set_ban(keys: &Keys, banned: &Banned, ban: Option<&Ban>) -> Cmd {
    let ban = ban.map(|ban| format!("{} {}", ban.until, ban.reason));
    let mut command = cmd("EVAL");
    command.arg(BANS).arg(1).arg(keys.bans());
    command.arg(keys.orders()).arg(payload(&Order::ReadBans));
    command.arg(banned.key()).arg(ban.unwrap_or_default());
    command
}

/// Reads all bans.
pub(super) fn read_bans(keys: &Keys) -> Cmd {
    let mut command = cmd("HGETALL");
    command.arg(keys.bans());
    command
}

/// Reads the answer to [`read_bans`].
pub(super) fn bans(answer: &Value) -> Result<BTreeMap<Banned, Ban>, BackplaneError> {
    let parsed: Result<Vec<(String, String)>, _> = redis::from_redis_value_ref(answer);
    let rows = parsed
        .map_err(|_| BackplaneError::Refused("HGETALL was not answered as expected".to_owned()))?;
    let bans = rows.iter().filter_map(|(key, ban)| {
        let (until, reason) = ban.split_once(' ')?;
        let ban = Ban {
            until: until.parse().ok()?,
            reason: reason.to_owned(),
        };
        Some((Banned::parse(key)?, ban))
    });
    Ok(bans.collect())
}

fn payload(order: &Order) -> String {
    match order {
        Order::Disconnect(user) => format!("disconnect\n{user}"),
        Order::ReadBans => "bans".to_owned(),
    }
}

/// Parses a payload; `None` if it is no order.
pub(super) fn parse(payload: &[u8]) -> Option<Order> {
    let payload = std::str::from_utf8(payload).ok()?;
    match payload.split_once('\n') {
        Some(("disconnect", user)) => Some(Order::Disconnect(user.parse().ok()?)),
        None if payload == "bans" => Some(Order::ReadBans),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let user = "}x{ :%".parse().expect("a name");
        for order in [Order::Disconnect(user), Order::ReadBans] {
            assert_eq!(parse(payload(&order).as_bytes()), Some(order));
        }
        for foreign in ["", "disconnect", "disconnect\n", "bans\nx", "x"] {
            assert_eq!(parse(foreign.as_bytes()), None, "{foreign:?}");
        }
    }
}
