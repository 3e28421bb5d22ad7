//! What a server is: a master or a replica, alone, in a cluster, or a Sentinel. It says so itself at every connect
//! (<https://redis.io/docs/latest/commands/hello/>).

use redis::{Cmd, Value, cmd};

use super::wire::text;

/// Asks Redis for its role, among other things.
pub(super) fn hello() -> Cmd {
    cmd("HELLO")
}

/// What a server has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// A master outside of a cluster.
    Alone,
    /// A master in a cluster that has sharded Pub/Sub.
    OfCluster,
    /// A master or a replica in such a cluster.
    Node,
    Sentinel,
}

/// Said of a Redis that takes no writes.
pub(super) const IS_REPLICA: &str = "it is a read-only replica; connect to its master";

/// Why a server that answers this to [`hello`] cannot be used as one of this nature.
pub(super) fn refusal(hello: &Value, nature: Nature) -> Option<String> {
    let Value::Map(fields) = hello else {
        return Some("HELLO was not answered as expected".to_owned());
    };
    let field = |name: &str| {
        let mut fields = fields.iter();
        fields.find_map(|(key, value)| (text(key) == Some(name)).then(|| text(value))?)
    };
    let version = field("version").unwrap_or_default();
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    let why = match (nature, field("mode").unwrap_or_default()) {
        (Nature::Sentinel, "sentinel") => return None,
        (Nature::Sentinel, _) => "it is not a Sentinel; give the addresses of the Sentinels",
        (_, "sentinel") => {
            "it is a Sentinel; with the name of its master it is redis+sentinel://HOST:PORT/NAME"
        }
        (Nature::Alone, "cluster") => {
            "it is a node of a cluster, and serves only some of the rooms; with redis+cluster:// in \
             place of redis:// the whole cluster is used"
        }
        (Nature::OfCluster | Nature::Node, "standalone") => "it is not a node of a cluster",
        (Nature::OfCluster | Nature::Node, _) if major.is_none_or(|major: u32| major < 7) => {
            return Some(format!(
                "a cluster has to be Redis 7.0 or newer, and it is {version}"
            ));
        }
        (Nature::Alone | Nature::OfCluster, _) if field("role") != Some("master") => IS_REPLICA,
        (Nature::Alone | Nature::OfCluster | Nature::Node, _) => return None,
    };
    Some(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(version: &str, mode: &str, role: &str) -> Value {
        let fields = [("version", version), ("mode", mode), ("role", role)];
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let fields = fields.map(|(name, value)| (text(name), text(value)));
        Value::Map(fields.to_vec())
    }

    #[test]
    fn what_cannot_serve_is_refused_with_what_to_do() {
        use Nature::{Alone, Node, OfCluster, Sentinel};
        let alone = says("6.2.0", "standalone", "master");
        let replica = says("7.4.1", "standalone", "replica");
        let node = says("7.0.0", "cluster", "master");
        let node_replica = says("10.0.0", "cluster", "replica");
        let old_node = says("6.2.14", "cluster", "master");
        let sentinel = says("7.4.1", "sentinel", "sentinel");
        for (hello, nature, why) in [
            (&alone, Alone, None),
            (&node, OfCluster, None),
            (&node, Node, None),
            (&node_replica, Node, None),
            (&sentinel, Sentinel, None),
            (&Value::Nil, Alone, Some("HELLO")),
            (&replica, Alone, Some("read-only replica")),
            (&node_replica, OfCluster, Some("read-only replica")),
            (&node, Alone, Some("redis+cluster://")),
            (&alone, OfCluster, Some("not a node of a cluster")),
            (&alone, Node, Some("not a node of a cluster")),
            (&old_node, OfCluster, Some("7.0 or newer, and it is 6.2.14")),
            (&old_node, Node, Some("7.0 or newer")),
            (&sentinel, Alone, Some("redis+sentinel://")),
            (&sentinel, Node, Some("redis+sentinel://")),
            (&alone, Sentinel, Some("not a Sentinel")),
        ] {
            let said = refusal(hello, nature);
            match why {
                None => assert_eq!(said, None, "{nature:?}"),
                Some(why) => assert!(said.is_some_and(|said| said.contains(why)), "{why}"),
            }
        }
    }
}
