//! `hubbub export` and `hubbub import`: all that rooms remember, as lines of JSON, one for each message. A backup, and
//! the way of a room's past from one backplane to another.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::complain;
use super::exit::Exit;
use super::values::within;
use crate::backplane::{Backplane, BackplaneError, Local, Redis, RedisAddress, Retention, conceal};
use crate::hub::Hub;
use crate::message::{Entry, InstanceId, Message, MessageId, RoomName, UserName};
use crate::protocol::Cursor;
use crate::server::config::limit;

/// The messages that are read or written at once.
const AT_ONCE: usize = 200;

/// The bytes of text that are written at once.
const BYTES_AT_ONCE: usize = 1 << 20;

/// No room has been quiet for so long.
const FOR_EVER: Duration = Duration::from_secs(1 << 40);

#[derive(Args)]
#[group(skip)]
pub(super) struct ArchiveArgs {
    /// The folder of a server that does not run now
    #[arg(
        long,
        env = "HUBBUB_DATA",
        value_name = "FOLDER",
        conflicts_with = "redis"
    )]
    data: Option<PathBuf>,
    /// The Redis of servers, which may run; as for `hubbub serve`
    #[arg(long, env = "HUBBUB_REDIS", value_name = "URL", value_parser = RedisAddress::parse, value_delimiter = ' ', hide_env_values = true)]
    redis: Vec<RedisAddress>,
    /// The prefix of all keys in Redis
    #[arg(
        long,
        env = "HUBBUB_PREFIX",
        value_name = "TEXT",
        default_value = "hubbub"
    )]
    prefix: String,
}

#[derive(Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    from: ArchiveArgs,
    /// This room alone; may be repeated
    #[arg(long = "room", value_name = "ROOM")]
    rooms: Vec<RoomName>,
}

#[derive(Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    to: ArchiveArgs,
    /// The time for which a room without new messages keeps its log in Redis
    #[arg(long, env = "HUBBUB_HISTORY_TTL", value_name = "SECONDS", default_value_t = limit::HISTORY_TTL.default, value_parser = within::<u64>(limit::HISTORY_TTL))]
    history_ttl: u64,
}

/// One message of a file.
#[derive(Serialize, Deserialize)]
struct ArchivedMessage {
    room: RoomName,
    id: MessageId,
    from: UserName,
    text: String,
    /// The message before it; none for a room's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prev: Option<MessageId>,
}

impl ArchiveArgs {
    /// Opens the backplane. It forgets nothing by itself.
    fn open(&self, history_ttl: Duration) -> Result<Box<dyn Backplane>, Exit> {
        if self.data.is_none() && self.redis.is_empty() {
            let why = "--data or --redis has to say where the messages are";
            return Err(Exit::Usage(why.to_owned()));
        }
        let hub = Hub::start(InstanceId::random(), 1)
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        let hub = Arc::new(hub);
        let retention = Retention {
            history_length: usize::MAX,
            history_ttl,
            history_bytes: usize::MAX,
            presence_ttl: Duration::from_secs(limit::PRESENCE_TTL.default),
            presence_grace: Duration::ZERO,
        };
        Ok(match &self.data {
            Some(folder) => {
                // What is too old is for the server to forget.
                let retention = Retention {
                    history_ttl: FOR_EVER,
                    ..retention
                };
                let local = Local::start(hub, retention, Some(folder));
                Box::new(local.map_err(|error| error.to_string())?)
            }
            None => {
                RedisAddress::check_together(&self.redis).map_err(Exit::Usage)?;
                let redis = Redis::start(&self.redis, &self.prefix, &hub, retention);
                Box::new(redis.map_err(|error| error.to_string())?)
            }
        })
    }
}

/// Runs `hubbub export`.
pub(super) fn export(args: &ExportArgs) -> Result<(), Exit> {
    if let Some(folder) = &args.from.data
        && !Local::is_in(folder)
    {
        let why = format!("there are no messages in {}", folder.display());
        return Err(Exit::Failed(why));
    }
    let backplane = args.from.open(FOR_EVER)?;
    let exported = print_rooms(&*backplane, &args.rooms);
    backplane.close();
    complain(format_args!("exported {} messages", exported?));
    Ok(())
}

/// Runs `hubbub import`.
pub(super) fn import(args: &ImportArgs) -> Result<(), Exit> {
    let backplane = args.to.open(Duration::from_secs(args.history_ttl))?;
    let mut import = Import::new(&*backplane);
    let imported = import.read(io::stdin().lock());
    let (count, known) = (import.count, import.known);
    backplane.close();
    complain(format_args!(
        "imported {count} messages; {known} were there already"
    ));
    Ok(imported?)
}

/// Calls `take` with all that the room remembers, oldest first.
fn each_entry(
    backplane: &dyn Backplane,
    room: &RoomName,
    mut take: impl FnMut(Entry) -> Result<(), String>,
) -> Result<(), String> {
    let mut after = MessageId::ZERO;
    loop {
        let page = backplane.read(room, Cursor::After(after), AT_ONCE);
        let page = page.map_err(|error| format!("cannot read {room:?}: {error}"))?;
        page.entries.into_iter().try_for_each(&mut take)?;
        match page.reach {
            Some(reach) if page.more => after = reach,
            _ => return Ok(()),
        }
    }
}

/// Prints all messages of these rooms, or of all; returns how many.
fn print_rooms(backplane: &dyn Backplane, only: &[RoomName]) -> Result<usize, String> {
    let rooms = match only {
        [] => backplane
            .rooms()
            .map_err(|error| format!("cannot list the rooms: {error}"))?,
        only => only.to_vec(),
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut count = 0;
    let bans = backplane.bans();
    let bans = bans.map_err(|error| format!("cannot read what is deleted: {error}"))?;
    for room in rooms {
        each_entry(backplane, &room, |mut entry| {
            conceal(&bans, &room, &mut entry.message);
            let Message { id, from, text, .. } = entry.message;
            let line = ArchivedMessage {
                room: room.clone(),
                id,
                from,
                text,
                prev: entry.prev,
            };
            count += 1;
            let line = serde_json::to_string(&line).map_err(|error| error.to_string())?;
            writeln!(out, "{line}").map_err(|error| cannot_write(&error))
        })?;
    }
    out.flush().map_err(|error| cannot_write(&error))?;
    Ok(count)
}

fn cannot_write(error: &io::Error) -> String {
    format!("cannot write: {error}")
}

/// Puts messages into rooms.
struct Import<'a> {
    backplane: &'a dyn Backplane,
    /// The ids that each room had before.
    ids: HashMap<RoomName, HashSet<MessageId>>,
    /// Messages that follow each other in one room, and are not written yet.
    room: RoomName,
    waiting: Vec<Entry>,
    bytes: usize,
    /// The messages that were written, and that were there before.
    count: usize,
    known: usize,
    /// Why some rooms did not take theirs.
    refused: BTreeMap<RoomName, String>,
}

impl<'a> Import<'a> {
    fn new(backplane: &'a dyn Backplane) -> Self {
        Self {
            backplane,
            ids: HashMap::new(),
            room: RoomName::lobby(),
            waiting: Vec::new(),
            bytes: 0,
            count: 0,
            known: 0,
            refused: BTreeMap::new(),
        }
    }

    fn read(&mut self, input: impl BufRead) -> Result<(), String> {
        for (number, line) in input.lines().enumerate() {
            let at = |why: String| format!("line {}: {why}", number + 1);
            let line = line.map_err(|error| at(error.to_string()))?;
            if line.trim().is_empty() {
                continue;
            }
            let line = serde_json::from_str(&line)
                .map_err(|error| at(format!("it is no message: {error}")))?;
            self.take(line).map_err(at)?;
        }
        self.write()?;
        match self.refused.values().next() {
            None => Ok(()),
            Some(first) if self.refused.len() == 1 => Err(first.clone()),
            Some(first) => Err(format!(
                "{first}; and {} more rooms did not take theirs",
                self.refused.len() - 1
            )),
        }
    }

    fn take(&mut self, line: ArchivedMessage) -> Result<(), String> {
        if line.room != self.room || self.waiting.len() >= AT_ONCE || self.bytes >= BYTES_AT_ONCE {
            self.write()?;
            self.room = line.room;
        }
        if !self.ids.contains_key(&self.room) {
            let mut ids = HashSet::new();
            each_entry(self.backplane, &self.room, |entry| {
                ids.insert(entry.message.id);
                Ok(())
            })?;
            self.ids.insert(self.room.clone(), ids);
        }
        let ArchivedMessage {
            id,
            from,
            text,
            prev,
            ..
        } = line;
        let is_known = |ids: &mut HashSet<MessageId>| !ids.insert(id);
        if self.ids.get_mut(&self.room).is_some_and(is_known) {
            self.known += 1;
            return Ok(());
        }
        let last = self.waiting.last().map(|entry| entry.message.id);
        if last.is_some_and(|last| id < last) {
            return Err(format!("{id} stands behind a later message of its room"));
        }
        self.bytes += text.len();
        let (at, via) = (id.millis, None);
        let message = Message { id, from, text, at };
        self.waiting.push(Entry { message, prev, via });
        Ok(())
    }

    fn write(&mut self) -> Result<(), String> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let entries = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        let fail = |error| format!("cannot import into {:?}: {error}", self.room);
        match self.backplane.restore(&self.room, &entries) {
            Ok(()) => self.count += entries.len(),
            // The others may take theirs.
            Err(error @ BackplaneError::Refused(_)) => {
                let why = fail(error);
                self.refused.entry(self.room.clone()).or_insert(why);
            }
            Err(error) => return Err(fail(error)),
        }
        Ok(())
    }
}
