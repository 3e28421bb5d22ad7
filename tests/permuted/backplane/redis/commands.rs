//! The way of commands in `src/backplane/redis`: the publisher with its pipeline and its receipts, and what was
//! acknowledged lately.

#[path = "../../../../src/backplane/redis/receipts.rs"]
mod receipts;
#[rustfmt::skip] // where it stands, its tests are beside it
#[path = "../../../../src/backplane/redis/pipeline.rs"]
mod pipeline;
#[path = "../../../../src/backplane/redis/link.rs"]
mod link;
#[rustfmt::skip] // where it stands, its tests are beside it
#[path = "../../../../src/backplane/redis/publisher.rs"]
mod publisher;

use std::sync::Arc;
use std::time::Duration;

use super::acknowledged::{self, Acknowledged};
use super::placement;
use crate::backplane::BackplaneError;
use crate::master::Master;
use crate::message::{MessageId, RoomName};
use crate::redis_crate::{Cmd, Value};

const COMMAND_TIMEOUT: Duration = Duration::from_millis(1500);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(1);

/// The publisher of one master, which Sentinels watch.
pub struct Commands {
    publisher: publisher::Publisher,
    acknowledged: Arc<Acknowledged>,
}

impl Commands {
    pub fn start(master: &Arc<Master>) -> Self {
        let acknowledged = Arc::<Acknowledged>::default();
        let to = publisher::Connecting {
            source: source::Source::Sentinel(Arc::clone(master)),
            name: "redis".to_owned(),
            keys: keys::Keys,
            scripts: wire::Scripts,
            servers: None,
            news: news::NewsSender,
            acknowledged: Some(Arc::clone(&acknowledged)),
        };
        let publisher = publisher::Publisher::start(to, None).expect("threads");
        Self {
            publisher,
            acknowledged,
        }
    }

    /// Stores message `number`. As a shard does, notes its place before it is told to `on_answer`.
    pub fn store(
        &self,
        number: u64,
        on_answer: impl FnOnce(Result<u64, BackplaneError>) + Send + 'static,
    ) {
        let acknowledged = Arc::clone(&self.acknowledged);
        let on_answer = move |answer: Result<Value, BackplaneError>| {
            on_answer(answer.map(|value| {
                let Value::Int(number) = value else {
                    panic!("{value:?} is no place");
                };
                acknowledged.note(&RoomName::lobby(), MessageId { millis: 1, number });
                number
            }));
        };
        let command = Cmd::Line(format!("store {number}"));
        self.publisher.submit(&command, Box::new(on_answer));
    }

    pub fn end(&self) {
        self.publisher.stop();
        self.publisher.join();
    }
}

mod address {
    //! Errors in words.
    pub(super) fn describe(error: &crate::redis_crate::RedisError) -> String {
        error.to_string()
    }
}

mod nature {
    //! No replica.
    pub(super) const IS_REPLICA: &str = "a replica";
}

mod keys {
    //! Keys have no names.
    #[derive(Clone)]
    pub(super) struct Keys;

    impl Keys {
        pub(super) fn lie_elsewhere(&self) {}
    }
}

mod news {
    //! No cluster.
    use super::pipeline::PendingCommand;

    #[derive(Clone)]
    pub(super) struct NewsSender;

    impl NewsSender {
        pub(super) fn stale(&self, _: Option<&str>) {}

        pub(super) fn moved(
            &self,
            _: u16,
            _: String,
            command: PendingCommand,
        ) -> Option<PendingCommand> {
            Some(command)
        }
    }
}

mod source {
    //! The master that Sentinels name.
    use std::sync::Arc;

    use crate::master::Master;
    use crate::redis_crate::Connection;

    pub(super) const ANOTHER_MASTER: &str = "another master";

    #[derive(Clone)]
    pub(super) enum Source {
        Server,
        Sentinel(Arc<Master>),
    }

    impl Source {
        pub(super) fn connect(&self) -> Result<Connection, String> {
            let Self::Sentinel(master) = self else {
                return Err("there is none".to_owned());
            };
            let talk = master.connect().ok_or("it is away")?;
            Ok(Connection::to(talk))
        }

        pub(super) fn generation(&self) -> u64 {
            match self {
                Self::Server => 0,
                Self::Sentinel(master) => master.generation(),
            }
        }
    }
}

mod wire {
    //! Commands are lines.
    use super::keys::Keys;
    use crate::message::{MessageId, RoomName};
    use crate::redis_crate::{Cmd, Value};

    fn line(line: &str) -> Cmd {
        Cmd::Line(line.to_owned())
    }

    #[derive(Clone)]
    pub(super) struct Scripts;

    impl Scripts {
        pub(super) fn load(&self) -> [Cmd; 1] {
            [line("load")]
        }

        pub(super) fn proof(&self, _: &Keys) -> Cmd {
            line("proof")
        }

        pub(super) fn look_for(&self, _: &Keys, _: &RoomName, id: MessageId) -> Cmd {
            line(&format!("look {}", id.number))
        }
    }

    pub(super) fn memory_policy() -> Cmd {
        line("policy")
    }

    pub(super) fn note_servers(_: &Keys, _: &str) -> Cmd {
        line("servers")
    }

    pub(super) fn other_servers(_: &Value) -> Option<&str> {
        None
    }

    pub(super) fn evicting_policy(_: &Value) -> Option<&str> {
        None
    }
}
