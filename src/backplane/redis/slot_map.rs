//! The slot map: which node of a cluster has which hash slots, as the nodes tell it.

use redis::{Value, cmd};

use super::address::{RedisServer, describe};
use super::sentinel::place;
use super::wire::text;

/// Slots that one master has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) slots: std::ops::RangeInclusive<u16>,
    /// Its `host:port`.
    pub(super) master: String,
    /// The `host:port` of its replicas.
    pub(super) replicas: Vec<String>,
}

/// Asks a node for the map (<https://redis.io/docs/latest/commands/cluster-slots/>). A node that is cut off from
/// the others knows no more than before, so its answer does not count. The error is a sentence.
pub(super) fn ask(node: &RedisServer) -> Result<Vec<SlotRange>, String> {
    let mut connection = node.connect_to_ask()?;
    let mut question = |word: &str| {
        let answer = cmd("CLUSTER").arg(word).query::<Value>(&mut connection);
        answer.map_err(|error| describe(&error))
    };
    let info = question("INFO")?;
    let slots = question("SLOTS")?;
    if !text(&info).is_some_and(|info| info.contains("cluster_state:ok")) {
        return Err("it says that the cluster is down (CLUSTER INFO)".to_owned());
    }
    let (host, _) = node.name().rsplit_once(':').unwrap_or((node.name(), ""));
    let map = ranges(&slots, host).filter(|map| !map.is_empty());
    map.ok_or_else(|| "it knows no slots (CLUSTER SLOTS)".to_owned())
}

/// Reads what CLUSTER SLOTS returns. A node without a host is at the host that was asked.
fn ranges(slots: &Value, host: &str) -> Option<Vec<SlotRange>> {
    let Value::Array(ranges) = slots else {
        return None;
    };
    let node = |node: &Value| match node {
        Value::Array(fields) => match &fields[..] {
            [named, Value::Int(port), ..] => {
                let named = text(named).filter(|named| !matches!(*named, "" | "?"));
                Some(place(named.unwrap_or(host), u16::try_from(*port).ok()?))
            }
            _ => None,
        },
        _ => None,
    };
    let range = |range: &Value| match range {
        Value::Array(fields) => match &fields[..] {
            [Value::Int(first), Value::Int(last), master, replicas @ ..] => Some(SlotRange {
                slots: u16::try_from(*first).ok()?..=u16::try_from(*last).ok()?,
                master: node(master)?,
                replicas: replicas.iter().filter_map(node).collect(),
            }),
            _ => None,
        },
        _ => None,
    };
    ranges.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_read_also_where_it_names_no_host() {
        let bulk = |text: &str| Value::BulkString(text.into());
        let node = |host, port| Value::Array(vec![host, Value::Int(port), bulk("id")]);
        let answer = Value::Array(vec![
            Value::Array(vec![
                Value::Int(0),
                Value::Int(99),
                node(bulk("10.0.0.1"), 7000),
                node(bulk("::1"), 7001),
            ]),
            Value::Array(vec![
                Value::Int(100),
                Value::Int(16_383),
                node(Value::Nil, 7002),
            ]),
        ]);
        let map = ranges(&answer, "h").expect("a map");
        assert_eq!(map[0].slots, 0..=99);
        assert_eq!(map[0].master, "10.0.0.1:7000");
        assert_eq!(map[0].replicas, ["[::1]:7001"]);
        assert_eq!(map[1].master, "h:7002");
        assert_eq!(ranges(&Value::Nil, "h"), None);
        assert_eq!(ranges(&Value::Array(vec![Value::Int(1)]), "h"), None);
    }
}
