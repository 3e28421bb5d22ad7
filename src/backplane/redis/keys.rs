//! Keys and channels: the names of everything in Redis.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use percent_encoding::{percent_decode_str, utf8_percent_encode};

use super::placement::{KEY_SYNTAX, SlotSet, tag};
use crate::backplane::Draft;
use crate::message::{InstanceId, RoomName};
use crate::threads::lock;

/// The names of everything that one installation has in Redis. The room stands in braces, so that
/// a cluster keeps all of a room on one node
/// (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>).
#[derive(Clone)]
pub(super) struct Keys {
    prefix: Arc<str>,
    instance: InstanceId,
    /// Only in a cluster.
    node: Option<Arc<Node>>,
}

/// The node of a cluster that the keys are on.
struct Node {
    name: String,
    slots: Mutex<Arc<SlotSet>>,
    /// A hash tag of one of these slots.
    tag: AtomicU32,
}

impl Keys {
    pub(super) fn new(prefix: &str, instance: InstanceId) -> Self {
        Self {
            prefix: prefix.into(),
            instance,
            node: None,
        }
    }

    /// The same for one node of a cluster.
    pub(super) fn on_node(&self, name: &str) -> Self {
        let node = Node {
            name: name.to_owned(),
            slots: Mutex::new(Arc::new(SlotSet::empty())),
            tag: AtomicU32::new(0),
        };
        Self {
            node: Some(Arc::new(node)),
            ..self.clone()
        }
    }

    /// From now on these are the node's slots.
    pub(super) fn lie_in(&self, slots: &Arc<SlotSet>) {
        if let Some(node) = &self.node {
            *lock(&node.slots) = Arc::clone(slots);
            self.lie_elsewhere();
        }
    }

    /// The instance's own keys are in another slot of the node from now on.
    pub(super) fn lie_elsewhere(&self) {
        if let Some(node) = &self.node {
            let slots = Arc::clone(&lock(&node.slots));
            if let Some(tag) = slots.tag_after(node.tag.load(Ordering::Acquire)) {
                node.tag.store(tag, Ordering::Release);
            }
        }
    }

    /// The instance that they belong to.
    pub(super) fn instance(&self) -> InstanceId {
        self.instance
    }

    /// The room's channel, with which its keys begin.
    pub(super) fn channel(&self, room: &RoomName) -> String {
        format!("{}:{{{}}}", self.prefix, tag(room))
    }

    /// The channel on which an instance hears only itself: wake-ups and probes. A cluster gives it to all
    /// nodes, so there it has the node's name in it.
    pub(super) fn control(&self) -> String {
        let (prefix, instance) = (&self.prefix, &self.instance);
        match &self.node {
            None => format!("{prefix}:instance:{instance}"),
            Some(node) => format!("{prefix}:instance:{instance}:{}", node.name),
        }
    }

    pub(super) fn log(&self, room: &RoomName) -> String {
        format!("{}:log", self.channel(room))
    }

    /// The keys of all logs, for SCAN.
    pub(super) fn logs(&self) -> String {
        format!("{}:{{*}}:log", self.prefix)
    }

    /// The room that this key of a log is of.
    pub(super) fn room_of(&self, log: &str) -> Option<RoomName> {
        let tag = log.strip_prefix(&*self.prefix)?.strip_prefix(":{")?;
        let name = percent_decode_str(tag.strip_suffix("}:log")?).decode_utf8();
        name.ok()?.parse().ok()
    }

    pub(super) fn newest(&self, room: &RoomName) -> String {
        format!("{}:newest", self.channel(room))
    }

    pub(super) fn members(&self, room: &RoomName) -> String {
        format!("{}:members", self.channel(room))
    }

    /// A channel of this instance's own, with which the keys begin that prove that Redis takes messages.
    pub(super) fn proof(&self) -> String {
        match &self.node {
            None => self.control(),
            Some(node) => {
                let tag = node.tag.load(Ordering::Acquire);
                format!("{}:instance:{}:{{{tag}}}", self.prefix, self.instance)
            }
        }
    }

    /// The key that names the list of servers over which rooms are spread.
    pub(super) fn servers(&self) -> String {
        format!("{}:servers", self.prefix)
    }

    /// The channel on which all instances hear the orders of operators. A cluster gives it to all nodes.
    pub(super) fn orders(&self) -> String {
        format!("{}:orders", self.prefix)
    }

    /// The key of all bans. It is of no room: it lies on the first server, or in a slot of its own.
    pub(super) fn bans(&self) -> String {
        format!("{}:bans", self.prefix)
    }

    /// The key of the index of rooms. It lies as [`Keys::bans`] does.
    pub(super) fn index(&self) -> String {
        format!("{}:rooms", self.prefix)
    }

    /// The key of a webhook's lease.
    pub(super) fn webhook(&self, room: &RoomName, webhook: &str) -> String {
        format!("{}:webhook:{webhook}", self.channel(room))
    }

    pub(super) fn reference(&self, draft: &Draft) -> Option<String> {
        let reference = draft.reference.as_ref()?;
        Some(format!(
            "{}:refs:{}:{}",
            self.channel(&draft.room),
            utf8_percent_encode(draft.from.as_str(), KEY_SYNTAX),
            utf8_percent_encode(reference.as_str(), KEY_SYNTAX),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::redis::placement::slot;
    use crate::protocol::Ref;

    #[test]
    fn keys_are_unambiguous_whatever_the_names_are() {
        let keys = Keys::new("hubbub", InstanceId::random());
        let channel = |room: &str| keys.channel(&room.parse().expect("a name"));
        assert_eq!(channel("lobby"), "hubbub:{lobby}");
        assert_eq!(channel("}x{:%"), "hubbub:{%7Dx%7B%3A%25}");
        for name in ["lobby", "}x{:%"] {
            let room: RoomName = name.parse().expect("a name");
            assert_eq!(keys.room_of(&keys.log(&room)), Some(room));
        }
        assert_eq!(keys.room_of("hubbub:instance:1:log"), None);
        let reference = |user: &str, reference: &str| {
            keys.reference(&Draft {
                room: RoomName::lobby(),
                from: user.parse().expect("a name"),
                text: String::new(),
                reference: Some(Ref::try_from(reference.to_owned()).expect("a ref")),
                via: None,
            })
        };
        assert_ne!(reference("a:b", "c"), reference("a", "b:c"));
    }

    #[test]
    fn instances_of_all_versions_use_the_same_names() {
        let keys = Keys::new("p", InstanceId::random());
        let (lobby, me) = (RoomName::lobby(), keys.instance());
        let names = [
            keys.channel(&lobby),
            keys.log(&lobby),
            keys.newest(&lobby),
            keys.members(&lobby),
            keys.webhook(&lobby, "w"),
            keys.logs(),
            keys.servers(),
            keys.orders(),
            keys.bans(),
            keys.index(),
            keys.control(),
            keys.proof(),
        ];
        assert_eq!(
            names,
            [
                "p:{lobby}",
                "p:{lobby}:log",
                "p:{lobby}:newest",
                "p:{lobby}:members",
                "p:{lobby}:webhook:w",
                "p:{*}:log",
                "p:servers",
                "p:orders",
                "p:bans",
                "p:rooms",
                &format!("p:instance:{me}"),
                &format!("p:instance:{me}"),
            ]
        );
    }

    #[test]
    fn the_proof_of_a_node_lies_in_its_slots_and_moves_within_them() {
        let keys = Keys::new("p", InstanceId::random()).on_node("node");
        let me = keys.instance();
        assert_eq!(keys.control(), format!("p:instance:{me}:node"));
        let mut slots = SlotSet::empty();
        for tag in ["7", "9"] {
            slots.insert(slot(tag));
        }
        keys.lie_in(&Arc::new(slots));
        assert_eq!(keys.proof(), format!("p:instance:{me}:{{7}}"));
        keys.lie_elsewhere();
        assert_eq!(keys.proof(), format!("p:instance:{me}:{{9}}"));
    }
}
