//! The Redis backplane: any number of instances on one Redis.
//!
//! Four threads. The [`publisher`] owns the one connection for commands, and writes all that wait in one
//! batch. The [`receipts`] thread runs the callbacks of large batches of answers; the publisher's thread
//! runs those of small ones. The [`subscriber`] owns the Pub/Sub connection, fills gaps and delivers to the hub.
//! The keeper ([`presence`]) renews this instance and announces the users that are gone.
//!
//! Read [`wire`] and the `.lua` files, which are the atomic steps; then [`receipts`], [`pipeline`] and
//! [`publisher`] for the way in; [`chain`], [`listener`], [`subscription`] and
//! [`subscriber`] for the way out; then [`presence`], and [`single_flight`], which makes its lists cheap.
//! Nothing outside this folder knows the `redis` crate.

mod wire;
mod receipts;
mod pipeline;
mod publisher;
mod chain;
mod subscription;
mod listener;
mod subscriber;
mod single_flight;
mod presence;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, io};

use crossbeam_channel::{Receiver, Sender};
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    Client, Cmd, Connection, ConnectionAddr, ErrorKind, IntoConnectionInfo, ProtocolVersion,
    RedisError, Value,
};

use self::pipeline::Pipeline;
use self::presence::Keeper;
use self::publisher::{Publisher, QUEUED_WITHIN};
use self::single_flight::SingleFlight;
use self::subscriber::Subscriber;
use self::wire::{Keys, PresenceStep, Scripts};
use super::backlog::Backlog;
use super::{
    Backplane, BackplaneError, Departure, Draft, Entrance, Excerpt, Receipt, Retention, Stored,
};
use crate::hub::Hub;
use crate::message::{MessageId, RoomName, UserName};
use crate::protocol::Cursor;

/// The time-out of a TCP connection, and then of its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The time-out of a batch of commands. With [`CONNECT_TIMEOUT`] it stays below
/// [`super::ANSWER_WITHIN`]: a command may wait for one such time and one attempt to connect.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(1500);

/// The most pages of logs that are read at a time. They may be large, and sends must not wait behind many
/// of them; further readers wait for their turn before they ask Redis.
const READS: usize = 8;

/// The commands of one connection that enters a room: its arrival, the two for the newest id, and the past.
const MOST_AT_ENTRANCE: usize = 4;

/// The ceiling of the first and of the longest wait between two attempts to connect.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(1);

/// Where a Redis is and how to log in there. Shows itself without the password.
#[derive(Clone)]
pub struct RedisAddress {
    client: Client,
    shown: String,
    /// The time-out of each step of connecting.
    step: Duration,
}

impl RedisAddress {
    /// Reads `redis://[user][:password@]host[:port][/db]`, `rediss:` for the same over TLS, or
    /// `unix:` and a path.
    pub fn parse(url: &str) -> Result<Self, String> {
        if asks_for_tls(url) && !cfg!(feature = "tls") {
            return Err("this hubbub was built without TLS for Redis; \
                        cargo install --path . --features tls builds one with it"
                .to_owned());
        }
        let info = url.into_connection_info().map_err(|error| {
            let why = error.detail().unwrap_or("this is not the URL of a Redis");
            format!("{why}; it should look like redis://127.0.0.1:6379")
        })?;
        if let ConnectionAddr::TcpTls { insecure: true, .. } = info.addr() {
            return Err(
                "a certificate is always checked here; leave #insecure out, and name the file of \
                 your own authority in SSL_CERT_FILE"
                    .to_owned(),
            );
        }
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(5));
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive)
            .set_user_timeout(Duration::from_secs(10));
        let login = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3)
            // Each reply in a handshake has a time-out of its own, and nobody needs these two.
            .set_skip_set_lib_name();
        let replies = if login.db() == 0 { 1 } else { 2 };
        let step = CONNECT_TIMEOUT / replies;
        let shown = format!("{}, database {}", info.addr(), login.db());
        let info = info.set_tcp_settings(tcp).set_redis_settings(login);
        let client = Client::open(info).map_err(|error| error.to_string())?;
        Ok(Self {
            client,
            shown,
            step,
        })
    }

    fn connect(&self) -> Result<Connection, RedisError> {
        let connection = self.client.get_connection_with_timeout(self.step)?;
        connection.set_write_timeout(Some(COMMAND_TIMEOUT))?;
        connection.set_read_timeout(Some(COMMAND_TIMEOUT))?;
        Ok(connection)
    }
}

fn asks_for_tls(url: &str) -> bool {
    let scheme = url.split(':').next().unwrap_or_default();
    ["rediss", "valkeys"]
        .iter()
        .any(|tls| scheme.eq_ignore_ascii_case(tls))
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Why a Redis cannot be used at start. The operator acts next.
#[derive(Debug)]
pub struct ConnectError {
    address: String,
    why: String,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot use Redis at {}: {}", self.address, self.why)
    }
}

impl std::error::Error for ConnectError {}

/// A sentence for people; the crate's own text where it says it best.
fn describe(error: &RedisError) -> String {
    if error.is_timeout() {
        return "it accepts connections but does not answer".to_owned();
    }
    if error.is_connection_refusal() {
        return "nothing listens there (connection refused)".to_owned();
    }
    // A TLS error comes as the text of an I/O error.
    let text = error.to_string();
    if text.contains("CertificateRequired") {
        return "it wants a certificate of ours, and there is none (tls-auth-clients no)"
            .to_owned();
    }
    if text.contains("certificate") {
        return format!(
            "its certificate is not trusted; SSL_CERT_FILE may name the file of your own authority ({text})"
        );
    }
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => {
            let why = error.detail().unwrap_or("wrong user or password");
            format!("it refuses the login: {why}")
        }
        (ErrorKind::Parse, _) => "what answers there does not speak the Redis protocol".to_owned(),
        (ErrorKind::RESP3NotSupported, _) => {
            "it is too old; Redis 6.2 or newer is needed".to_owned()
        }
        _ => text,
    }
}

/// Many instances, one Redis.
pub struct Redis {
    publisher: Arc<Publisher>,
    subscriber: Subscriber,
    keeper: Keeper,
    keys: Keys,
    scripts: Scripts,
    single_flight: SingleFlight,
    /// Holds one item for each read that waits for Redis.
    reading: (Sender<()>, Receiver<()>),
    retention: Retention,
    backlog: Backlog,
    in_flight: Arc<AtomicUsize>,
}

impl Redis {
    /// Connects, checks that this Redis can do what is needed, and starts the threads. Deliveries
    /// go to `hub`; keys and channels begin with `prefix`.
    pub fn start(
        address: &RedisAddress,
        prefix: &str,
        hub: &Arc<Hub>,
        retention: Retention,
    ) -> Result<Self, ConnectError> {
        let fail = |why: String| ConnectError {
            address: address.to_string(),
            why,
        };
        let scripts = Scripts::new();
        let keys = Keys::new(prefix, hub.instance());
        let pipeline = Pipeline::connect(address, &keys, &scripts).map_err(fail)?;
        let spawned = |error: io::Error| fail(format!("no thread for it: {error}"));
        let publisher = Arc::new(
            Publisher::start(address.clone(), pipeline, keys.clone(), scripts.clone())
                .map_err(spawned)?,
        );
        let subscriber =
            Subscriber::start(address.clone(), hub, &publisher, &keys).map_err(spawned)?;
        let keeper = Keeper::start(hub, &publisher, &subscriber, &keys, &scripts, &retention)
            .map_err(spawned)?;
        subscriber.wait_until_heard().map_err(fail)?;
        Ok(Self {
            publisher,
            subscriber,
            keeper,
            keys,
            scripts,
            single_flight: SingleFlight::default(),
            reading: crossbeam_channel::bounded(READS),
            retention,
            backlog: Backlog::default(),
            in_flight: Arc::default(),
        })
    }
}

impl Redis {
    /// Sends a command whose answer may be large, once it is its turn.
    fn read_in_turn(&self, command: &Cmd) -> Result<Value, BackplaneError> {
        let due = Instant::now() + QUEUED_WITHIN;
        let (enter, leave) = &self.reading;
        if enter.send_deadline((), due).is_err() {
            return Err(BackplaneError::Unavailable);
        }
        let answer = self.publisher.call_by(due, command);
        let _ = leave.try_recv();
        answer
    }
}

impl Backplane for Redis {
    fn publish(&self, draft: Draft, receipt: Receipt) {
        let Some(place) = self.backlog.admit(&draft) else {
            return receipt(Err(BackplaneError::Overloaded));
        };
        let command = self.scripts.publish(&self.keys, &draft, &self.retention);
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        let in_flight = Arc::clone(&self.in_flight);
        self.publisher.submit(
            &command,
            Box::new(move |answer| {
                drop(place);
                receipt(answer.and_then(|value| {
                    let (id, duplicate) = wire::publish_answer(&value)?;
                    Ok(Stored { id, duplicate })
                }));
                in_flight.fetch_sub(1, Ordering::AcqRel);
            }),
        );
    }

    fn subscribe(&self, room: &RoomName) -> Result<(), BackplaneError> {
        self.subscriber.hear(room)
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.subscriber.may_forget(room);
    }

    fn read(&self, room: &RoomName, page: Cursor, limit: usize) -> Result<Excerpt, BackplaneError> {
        let command = wire::read_excerpt(&self.keys, room, page, limit);
        wire::excerpt(&self.read_in_turn(&command)?, page, limit)
    }

    fn began_after(&self, _id: MessageId) -> bool {
        // Redis is expected to keep what it acknowledged. What it lost is a gap.
        false
    }

    fn enter(
        &self,
        room: &RoomName,
        user: &UserName,
        past: Option<(Cursor, usize)>,
    ) -> Result<Entrance, BackplaneError> {
        let mut questions = self.publisher.questions(MOST_AT_ENTRANCE);
        self.keeper.arrive(room, user, &mut questions);
        for question in wire::tail(&self.keys, room) {
            questions.ask(&question);
        }
        if let Some((page, limit)) = past {
            questions.ask(&wire::read_excerpt(&self.keys, room, page, limit));
        }
        let members = self.single_flight.ask(room, || {
            let question = self.keeper.question(room, PresenceStep::Roll);
            wire::member_list(&self.publisher.call(&question)?)
        });
        let answers: Result<Vec<_>, _> = questions.wait().into_iter().collect();
        let mut answers = answers?;
        let past = match (past, answers.pop_if(|_| past.is_some())) {
            (Some((page, limit)), Some(answer)) => wire::excerpt(&answer, page, limit)?,
            _ => Excerpt::default(),
        };
        // An arrival may stand before them.
        let tail = answers.split_off(answers.len().saturating_sub(2));
        Ok(Entrance {
            tail: wire::tail_answer(&tail)?,
            past,
            members: members?,
        })
    }

    fn depart(&self, room: &RoomName, user: &UserName, departure: Departure) {
        self.keeper.depart(room, user, departure);
    }

    fn members(&self, room: &RoomName) -> Result<Arc<[UserName]>, BackplaneError> {
        // While Redis refuses writes, no instance can be renewed, so expired users are still listed.
        let step = match self.publisher.is_refused() {
            true => PresenceStep::Roll,
            false => PresenceStep::Members,
        };
        let question = self.keeper.question(room, step);
        Ok(wire::member_list(&self.publisher.call(&question)?)?.users)
    }

    fn typing(&self, room: &RoomName, user: &UserName) {
        self.publisher
            .fire_and_forget(&wire::typing(&self.keys, room, user));
    }

    fn ready(&self) -> Result<(), String> {
        self.publisher.writable()?;
        self.subscriber.ready()
    }

    fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    fn close(&self) {
        // From here on a Redis that does not answer costs one time-out, not one for each step.
        self.publisher.connect_no_more();
        self.subscriber.close();
        self.keeper.close();
        self.publisher.close();
    }
}
