//! The protocols of `src/backplane/redis`: the subscriber with its listener, and the topology of a cluster, which hands
//! rooms over from one to another. What they send to Redis is not packed.

#[path = "../../../src/backplane/redis/placement.rs"]
mod placement;
#[path = "../../../src/backplane/redis/acknowledged.rs"]
mod acknowledged;
#[path = "../../../src/backplane/redis/chain.rs"]
mod chain;
#[path = "../../../src/backplane/redis/news.rs"]
mod news;
#[path = "../../../src/backplane/redis/subscription.rs"]
mod subscription;
#[path = "../../../src/backplane/redis/listener/mod.rs"]
mod listener;
#[path = "../../../src/backplane/redis/subscriber.rs"]
mod subscriber;
#[path = "../../../src/backplane/redis/cluster.rs"]
mod cluster;
#[path = "../../../src/backplane/redis/router.rs"]
mod router;
pub mod commands;

use std::sync::Arc;
use std::time::Duration;

use self::router::Router;
use self::wire::{PubSub, Scripts};
use crate::backplane::BackplaneError;
use crate::hub::Hub;
use crate::message::RoomName;
use crate::pubsub::Redis;

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(1);

/// What hears the rooms of one Redis.
pub struct Rooms(Router);

impl Rooms {
    /// The subscriber of one server.
    pub fn start(redis: &Arc<Redis>, hub: &Arc<Hub>) -> Self {
        let server = Arc::new(address::RedisServer::new(redis, 0));
        let to = publisher::Connecting {
            name: server.name().to_owned(),
            source: source::Source::Server(server),
            keys: keys::Keys,
            scripts: Scripts(PubSub::Plain),
            servers: None,
            news: news::NewsSender(None),
            acknowledged: None,
        };
        let users = presence::Users::new(hub);
        let shard = shard::Shard::start(to, None, placement::Share::All, &users);
        Self(Router::Servers(vec![Arc::new(shard.expect("a thread"))]))
    }

    /// The topology of a cluster, and the subscribers of its nodes.
    pub fn of_cluster(redis: &Arc<Redis>, hub: &Arc<Hub>) -> Self {
        let seeds = [address::RedisServer::new(redis, 0)];
        let scripts = Scripts(PubSub::Sharded);
        let users = presence::Users::new(hub);
        let nodes = address::Login(Arc::clone(redis));
        let cluster = cluster::RedisCluster::start(&seeds, &nodes, &keys::Keys, &scripts, &users);
        Self(Router::Cluster(cluster.expect("threads")))
    }

    pub fn hear(&self, room: &RoomName) -> Result<(), BackplaneError> {
        let shard = self.0.shard(room);
        shard.ok_or(BackplaneError::Unavailable)?.hear(room)
    }

    pub fn may_forget(&self, room: &RoomName) {
        let shard = self.0.shard(room);
        shard.iter().for_each(|shard| shard.may_forget(room));
    }

    pub fn end(&self) {
        self.0.hold_still();
        let shards = self.0.shards();
        shards.iter().for_each(|shard| shard.stop_hearing());
        shards.iter().for_each(|shard| shard.join_subscriber());
    }
}

mod address {
    //! Nodes by their numbers, and errors in words.
    use crate::pubsub::Redis;
    use std::sync::Arc;

    pub(super) const NODES: [&str; 2] = ["0", "1"];

    #[derive(Clone)]
    pub(super) struct RedisServer {
        pub(super) redis: Arc<Redis>,
        pub(super) node: usize,
    }

    impl RedisServer {
        pub(super) fn new(redis: &Arc<Redis>, node: usize) -> Self {
            let redis = Arc::clone(redis);
            Self { redis, node }
        }

        pub(super) fn name(&self) -> &str {
            NODES[self.node]
        }
    }

    #[derive(Clone)]
    pub(super) struct Login(pub(super) Arc<Redis>);

    impl Login {
        pub(super) fn at(&self, place: &str) -> Result<RedisServer, String> {
            let node = place.parse().expect("a node");
            Ok(RedisServer::new(&self.0, node))
        }
    }

    pub(super) fn describe(error: &crate::redis_crate::RedisError) -> String {
        error.to_string()
    }
}

mod source {
    //! Masters, each at its place for ever.
    use std::sync::Arc;

    use super::address::RedisServer;
    use crate::pubsub::Listening;
    use crate::redis_crate::Connection;

    pub(super) const ANOTHER_MASTER: &str = "another master";

    #[derive(Clone)]
    pub(super) enum Source {
        Server(Arc<RedisServer>),
    }

    impl Source {
        pub(super) fn connect(&self) -> Result<Connection, String> {
            let Self::Server(server) = self;
            let listening = Listening::new(&server.redis, server.node);
            Ok(Connection::to(listening))
        }

        pub(super) fn generation(&self) -> u64 {
            0
        }
    }
}

mod slot_map {
    //! The slot of the only room is where its log is; each node has another slot, or only the log's node has any.
    use super::address::{NODES, RedisServer};
    use super::placement::{slot, tag};
    use crate::message::RoomName;

    pub(super) struct SlotRange {
        pub(super) slots: std::ops::RangeInclusive<u16>,
        pub(super) master: String,
        pub(super) replicas: Vec<String>,
    }

    pub(super) fn ask(node: &RedisServer) -> Result<Vec<SlotRange>, String> {
        let range = |slot: u16, node: usize| SlotRange {
            slots: slot..=slot,
            master: NODES[node].to_owned(),
            replicas: Vec::new(),
        };
        let owner = node.redis.owner_by(node.node);
        let mut map = vec![range(slot(&tag(&RoomName::lobby())), owner)];
        if node.redis.keeps_nodes() {
            map.extend([range(0, 0), range(1, 1)]);
        }
        Ok(map)
    }
}

mod presence {
    //! Nobody is told who is there.
    use crate::hub::Hub;
    use std::sync::Arc;

    #[derive(Clone)]
    pub(super) struct Users {
        pub(super) hub: Arc<Hub>,
    }

    impl Users {
        pub(super) fn new(hub: &Arc<Hub>) -> Self {
            let hub = Arc::clone(hub);
            Self { hub }
        }
    }
}

mod pipeline {
    //! Nobody sends a command.
    use super::BackplaneError;

    pub(super) struct Pipeline;

    pub(super) struct PendingCommand {
        pub(super) on_answer: Box<dyn FnOnce(Result<(), BackplaneError>) + Send>,
        pub(super) stays: bool,
    }
}

mod shard {
    //! As in `src/backplane/redis/shard.rs`, what has to do with the subscriber.
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::BackplaneError;
    use super::pipeline::{PendingCommand, Pipeline};
    use super::placement::Share;
    use super::presence::Users;
    use super::publisher::{Connecting, Publisher};
    use super::source::Source;
    use super::subscriber::Subscriber;
    use super::subscription::Task;
    use crate::message::RoomName;
    use crate::threads::lock;

    pub(super) struct Shard {
        name: String,
        subscriber: Subscriber,
        share: Mutex<Share>,
    }

    impl Shard {
        pub(super) fn start(
            to: Connecting,
            _: Option<Pipeline>,
            share: Share,
            users: &Users,
        ) -> io::Result<Self> {
            let Source::Server(server) = &to.source;
            let publisher = Arc::new(Publisher(Arc::clone(server)));
            let subscriber = Subscriber::start(&to, share.clone(), &users.hub, &publisher)?;
            Ok(Self {
                name: to.name,
                subscriber,
                share: Mutex::new(share),
            })
        }

        pub(super) fn name(&self) -> &str {
            &self.name
        }

        pub(super) fn hear(&self, room: &RoomName) -> Result<(), BackplaneError> {
            self.subscriber.hear(room)
        }

        pub(super) fn may_forget(&self, room: &RoomName) {
            self.subscriber.may_forget(room);
        }

        pub(super) fn set_share(&self, share: Share) {
            let before = std::mem::replace(&mut *lock(&self.share), share.clone());
            if before != share {
                self.subscriber.ask(Task::Share(share));
            }
        }

        pub(super) fn ask(&self, task: Task) {
            self.subscriber.ask(task);
        }

        pub(super) fn take_over(&self, command: PendingCommand) {
            (command.on_answer)(Err(BackplaneError::Unavailable));
        }

        pub(super) fn connect_no_more(&self) {}

        pub(super) fn stop_hearing(&self) {
            self.subscriber.stop();
        }

        pub(super) fn join_subscriber(&self) {
            self.subscriber.join();
        }

        pub(super) fn stop_publishing(&self) {}

        pub(super) fn join_publisher(&self) {}
    }
}

mod keys {
    //! Names of channels.
    use super::placement::SlotSet;
    use crate::message::RoomName;
    use std::sync::Arc;

    #[derive(Clone)]
    pub(super) struct Keys;

    impl Keys {
        pub(super) fn on_node(&self, _: &str) -> Self {
            Self
        }

        pub(super) fn lie_in(&self, _: &Arc<SlotSet>) {}

        pub(super) fn channel(&self, room: &RoomName) -> String {
            format!("room:{room}")
        }

        pub(super) fn orders(&self) -> String {
            "orders".to_owned()
        }

        pub(super) fn control(&self) -> String {
            "control".to_owned()
        }
    }
}

mod orders {
    //! No operator.
    use crate::hub::Order;

    pub(super) fn parse(_: &[u8]) -> Option<Order> {
        None
    }
}

mod publisher {
    //! Commands, which are answered at once.
    use super::BackplaneError;
    use super::acknowledged::Acknowledged;
    use super::address::RedisServer;
    use crate::redis_crate::{Cmd, Value};
    use std::sync::Arc;

    #[derive(Clone)]
    pub(super) struct Connecting {
        pub(super) source: super::source::Source,
        pub(super) name: String,
        pub(super) keys: super::keys::Keys,
        pub(super) scripts: super::wire::Scripts,
        pub(super) servers: Option<Arc<str>>,
        pub(super) news: super::news::NewsSender,
        pub(super) acknowledged: Option<Arc<Acknowledged>>,
    }

    pub(super) struct Publisher(pub(super) Arc<RedisServer>);

    pub(super) struct Link;

    impl Link {
        /// No probe is sent.
        pub(super) fn is_connected(&self) -> bool {
            false
        }
    }

    impl Publisher {
        /// The listener wakes up by itself.
        pub(super) fn fire_and_forget(&self, _: &Cmd) {}

        pub(super) fn link(&self) -> Link {
            Link
        }

        pub(super) fn call_all(&self, commands: &[Cmd]) -> Vec<Result<Value, BackplaneError>> {
            let RedisServer { redis, node } = &*self.0;
            let answers = commands.iter().map(|one| redis.answer(*node, one));
            let answers = answers.map(|answer| answer.ok_or(BackplaneError::Unavailable));
            answers.collect()
        }
    }
}

mod wire {
    //! Commands and answers, not packed.
    use super::BackplaneError;
    use super::keys::Keys;
    use crate::message::{Entry, MessageId, Notice, RoomName};
    use crate::protocol::Cursor;
    use crate::redis_crate::{Cmd, Value};

    #[derive(Clone, Copy)]
    pub(super) enum PubSub {
        Plain,
        Sharded,
    }

    impl PubSub {
        pub(super) fn subscribe(self, channels: &[String]) -> Vec<u8> {
            channels.join("\n").into_bytes()
        }

        pub(super) fn unsubscribe(self, channel: &str) -> Vec<u8> {
            format!("-{channel}").into_bytes()
        }
    }

    #[derive(Clone)]
    pub(super) struct Scripts(pub(super) PubSub);

    impl Scripts {
        pub(super) fn pubsub(&self) -> PubSub {
            self.0
        }

        pub(super) fn look_for(&self, _: &Keys, _: &RoomName, _: MessageId) -> Cmd {
            Cmd::Wake
        }
    }

    pub(super) enum Payload {
        Message(Entry),
        Notice(Notice),
        Loss(Loss),
    }

    pub(super) struct Loss {
        pub(super) after: MessageId,
        pub(super) newest: MessageId,
        pub(super) mark: MessageId,
    }

    pub(super) struct LogItem(Entry);

    impl LogItem {
        pub(super) fn id(&self) -> MessageId {
            self.0.message.id
        }

        pub(super) fn into_entry(self) -> Option<Entry> {
            Some(self.0)
        }
    }

    pub(super) fn to_myself(_: &Keys, _: &str) -> Cmd {
        Cmd::Wake
    }

    pub(super) fn tail(_: &Keys, _: &RoomName) -> [Cmd; 2] {
        [Cmd::Wake, Cmd::Newest]
    }

    pub(super) fn read(_: &Keys, _: &RoomName, page: Cursor, _: usize) -> Cmd {
        match page {
            Cursor::After(id) => Cmd::After(id),
            Cursor::Newest | Cursor::Before(_) => Cmd::Newest,
        }
    }

    pub(super) fn tail_answer(values: &[Value]) -> Result<Option<MessageId>, BackplaneError> {
        let newest = items(values.last().ok_or(BackplaneError::NoAnswer)?)?;
        Ok(newest.last().map(LogItem::id))
    }

    pub(super) fn items(value: &Value) -> Result<Vec<LogItem>, BackplaneError> {
        match value {
            Value::Entries(entries) => Ok(entries.iter().cloned().map(LogItem).collect()),
            Value::Push { .. } | Value::BulkString(_) | Value::Int(_) | Value::ServerError(_) => {
                Err(BackplaneError::NoAnswer)
            }
        }
    }

    pub(super) fn is_of_another_kind(_: &str) -> bool {
        false
    }

    /// A message's payload is its number, and the number before it is its predecessor's.
    pub(super) fn payload(bytes: &[u8]) -> Option<Payload> {
        let number: u64 = str::from_utf8(bytes).ok()?.parse().ok()?;
        Some(Payload::Message(crate::pubsub::entry(number)))
    }
}
