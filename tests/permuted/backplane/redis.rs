//! The protocols of `src/backplane/redis`: the subscriber with its listener. What they send to
//! Redis is not packed.

#[path = "../../../src/backplane/redis/placement.rs"]
mod placement;
#[path = "../../../src/backplane/redis/chain.rs"]
mod chain;
#[path = "../../../src/backplane/redis/subscription.rs"]
mod subscription;
#[path = "../../../src/backplane/redis/listener/mod.rs"]
mod listener;
#[path = "../../../src/backplane/redis/subscriber.rs"]
mod subscriber;

use std::sync::Arc;
use std::time::Duration;

use crate::backplane::BackplaneError;
use crate::hub::Hub;
use crate::message::RoomName;
use crate::pubsub::Redis;

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(1);

/// The subscriber of one Redis.
pub struct Rooms(subscriber::Subscriber);

impl Rooms {
    pub fn start(redis: &Arc<Redis>, hub: &Arc<Hub>) -> Self {
        let to = publisher::Connecting {
            source: source::Source(Arc::clone(redis)),
            name: "redis".to_owned(),
            keys: keys::Keys,
            scripts: wire::Scripts,
            news: news::NewsSender,
            acknowledged: None,
        };
        let publisher = Arc::new(publisher::Publisher(Arc::clone(redis)));
        let share = placement::Share::All;
        let started = subscriber::Subscriber::start(&to, share, hub, &publisher);
        Self(started.expect("a thread"))
    }

    pub fn hear(&self, room: &RoomName) -> Result<(), BackplaneError> {
        self.0.hear(room)
    }

    pub fn may_forget(&self, room: &RoomName) {
        self.0.may_forget(room);
    }

    pub fn end(&self) {
        self.0.stop();
        self.0.join();
    }
}

mod address {
    //! Errors in words.
    pub(super) fn describe(error: &crate::redis_crate::RedisError) -> String {
        error.to_string()
    }
}

mod source {
    //! One master, for ever.
    use crate::pubsub::{Redis, Subscribed};
    use crate::redis_crate::Connection;
    use std::sync::Arc;

    pub(super) const ANOTHER_MASTER: &str = "another master";

    #[derive(Clone)]
    pub(super) struct Source(pub(super) Arc<Redis>);

    impl Source {
        pub(super) fn connect(&self) -> Result<Connection, String> {
            Ok(Connection::to(Subscribed::new(&self.0)))
        }

        pub(super) fn generation(&self) -> u64 {
            0
        }
    }
}

mod keys {
    //! Names of channels.
    use crate::message::RoomName;

    #[derive(Clone)]
    pub(super) struct Keys;

    impl Keys {
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

mod news {
    //! No cluster.
    use super::chain::Heard;

    #[derive(Clone)]
    pub(super) struct NewsSender;

    impl NewsSender {
        pub(super) fn stale(&self, _: Option<&str>) {}

        pub(super) fn unassigned(&self, _: &str, rooms: Vec<Heard>) {
            assert!(rooms.is_empty(), "all rooms are here");
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
    use crate::pubsub::Redis;
    use crate::redis_crate::{Cmd, Value};
    use std::sync::Arc;

    #[derive(Clone)]
    pub(super) struct Connecting {
        pub(super) source: super::source::Source,
        pub(super) name: String,
        pub(super) keys: super::keys::Keys,
        pub(super) scripts: super::wire::Scripts,
        pub(super) news: super::news::NewsSender,
        pub(super) acknowledged: Option<()>,
    }

    pub(super) struct Publisher(pub(super) Arc<Redis>);

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
            commands.iter().map(|one| Ok(self.0.answer(one))).collect()
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
    pub(super) struct Scripts;

    impl Scripts {
        pub(super) fn pubsub(&self) -> PubSub {
            PubSub::Plain
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
