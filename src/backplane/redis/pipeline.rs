//! The connection for commands: how it is made, and how batches of commands are run on it.
//!
//! A connection is only used once Redis has shown that it is no replica and knows the scripts. A batch is
//! written with [`Pipeline::write`], and its answers are read with [`Pipeline::read`]; other batches may be
//! written in between. Each batch has one deadline, however many replies it has: a Redis that trickles holds
//! nobody longer than one that is frozen.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use log::warn;
use redis::{Cmd, Connection, RedisError, ServerError, ServerErrorKind, Value};

use super::COMMAND_TIMEOUT;
use super::address::describe;
use super::keys::Keys;
use super::receipts::{Answered, OnAnswer};
use super::source::Source;
use super::wire::{self, Scripts};
use crate::backplane::BackplaneError;

/// The time-out of loading the scripts.
const BEGIN_TIMEOUT: Duration = Duration::from_millis(300);

/// While replies come this close together, the socket's time-out is left as it is.
const TIMEOUT_STEP: Duration = Duration::from_millis(50);

/// A command on its way to Redis.
pub(super) struct PendingCommand {
    pub(super) command: Vec<u8>,
    pub(super) on_answer: OnAnswer,
    /// The time at which it is too late to write it.
    pub(super) due: Instant,
    /// Whether Redis did not know its script once already.
    pub(super) repeated: bool,
    /// Whether it stays where it was sent, even if its slot is on another node.
    pub(super) stays: bool,
}

impl PendingCommand {
    pub(super) fn new(command: &Cmd, due: Instant, on_answer: OnAnswer) -> Self {
        Self {
            command: command.get_packed_command(),
            on_answer,
            due,
            repeated: false,
            stays: false,
        }
    }

    pub(super) fn answered(self, answer: Result<Value, BackplaneError>) -> Answered {
        Answered {
            on_answer: self.on_answer,
            answer,
        }
    }
}

/// A connection for commands.
pub(super) struct Pipeline {
    connection: Connection,
    /// Oldest first.
    in_flight: VecDeque<WrittenBatch>,
    /// Why Redis took no writes when it was connected to.
    pub(super) refused: Option<String>,
}

/// A batch whose answers were not read yet.
struct WrittenBatch {
    /// Commands that were too old to be written. They are answered here, to keep the order of answers.
    late: Vec<PendingCommand>,
    commands: Vec<PendingCommand>,
    /// When writing it began.
    begun: Instant,
    /// The reply to the first of them, once it has come.
    first: Option<Result<Value, RedisError>>,
}

/// What came of a batch.
#[derive(Default)]
pub(super) struct Outcome {
    /// In the order of the commands.
    pub(super) answers: Vec<Answered>,
    /// Commands whose script Redis does not know. They did nothing, and have no answer yet.
    pub(super) unknown: Vec<PendingCommand>,
    /// Commands whose slot is on another node, at this `host:port`. They did nothing, and have no answer yet.
    pub(super) moved: Vec<(u16, String, PendingCommand)>,
    /// Whether some slot is served by another node, or by none.
    pub(super) is_stale: bool,
    /// The number of its commands, and the time from its writing to its last answer.
    pub(super) size: usize,
    pub(super) took: Duration,
    /// Why Redis refused something that it will take again later.
    pub(super) refused: Option<String>,
    /// Whether it refused since it is a replica.
    pub(super) is_replica: bool,
    /// What ended the connection. A command whose reply was not read may be done or not.
    pub(super) failed: Option<RedisError>,
}

impl Pipeline {
    /// Connects, loads the scripts, and looks whether this Redis takes writes. The error is a sentence.
    pub(super) fn connect(
        source: &Source,
        keys: &Keys,
        scripts: &Scripts,
        servers: Option<&str>,
    ) -> Result<Self, String> {
        let mut pipeline = Self {
            connection: source.connect()?,
            in_flight: VecDeque::new(),
            refused: None,
        };
        let mut then = vec![wire::memory_policy(), scripts.proof(keys)];
        then.extend(servers.map(|list| wire::note_servers(keys, list)));
        let answers = pipeline.load(scripts, then);
        let answers = answers.map_err(|error| describe(&error))?;
        let [memory, proof, others @ ..] = &answers[..] else {
            return Err(describe(&late()));
        };
        if let Some(list) = others.first().and_then(wire::other_servers) {
            return Err(other_list(list));
        }
        if let Value::ServerError(error) = proof
            && !is_elsewhere(error)
        {
            pipeline.refused = Some(sentence(error));
        }
        if let Some(policy) = wire::evicting_policy(memory) {
            warn!(
                "this Redis may drop messages and users without a word: its maxmemory-policy is \
                 {policy}; set it to noeviction"
            );
        }
        Ok(pipeline)
    }

    /// Loads the scripts. One that Redis does not know cannot be mended inside a batch, so they are
    /// loaded ahead (<https://redis.io/docs/latest/commands/script-load/>). `then` runs behind them, and
    /// the replies to that are returned.
    pub(super) fn load(
        &mut self,
        scripts: &Scripts,
        then: Vec<Cmd>,
    ) -> Result<Vec<Value>, RedisError> {
        let mut commands = scripts.load().to_vec();
        let loads = commands.len();
        commands.extend(then);
        let mut answers = self.ask(&commands)?;
        let replies = answers.split_off(loads);
        for answer in answers {
            if let Value::ServerError(error) = answer {
                return Err(error.into());
            }
        }
        Ok(replies)
    }

    /// Runs some commands and returns their replies. Nothing is in flight meanwhile.
    fn ask(&mut self, commands: &[Cmd]) -> Result<Vec<Value>, RedisError> {
        let bytes: Vec<_> = commands.iter().map(Cmd::get_packed_command).collect();
        let mut replies = ReplyReader::by(Instant::now() + BEGIN_TIMEOUT);
        self.connection.send_packed_command(&bytes.concat())?;
        let answers = commands.iter().map(|_| replies.next(&mut self.connection));
        answers.collect()
    }

    /// The number of batches that are written and whose answers were not read yet.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Writes at once all commands that are not too old. After an error they are in flight as well: they may
    /// be done or not.
    pub(super) fn write(&mut self, commands: Vec<PendingCommand>) -> Result<(), RedisError> {
        let begun = Instant::now();
        // The oldest batch still has to be read in time.
        let oldest = self.in_flight.front().map_or(begun, |batch| batch.begun);
        let left = (oldest + COMMAND_TIMEOUT).saturating_duration_since(begun);
        let is_late = |one: &PendingCommand| one.due <= begun || left.is_zero();
        let (late, commands): (Vec<_>, Vec<_>) = commands.into_iter().partition(is_late);
        let bytes: Vec<&[u8]> = commands.iter().map(|one| &one.command[..]).collect();
        let bytes = bytes.concat();
        self.in_flight.push_back(WrittenBatch {
            late,
            commands,
            begun,
            first: None,
        });
        if bytes.is_empty() {
            return Ok(());
        }
        // A write that is cut short is tried a second time, with the same time-out again.
        self.connection.set_write_timeout(Some(left / 2))?;
        self.connection.send_packed_command(&bytes)
    }

    /// Waits for the first reply to the oldest batch. False if none comes any more.
    pub(super) fn wait(&mut self) -> bool {
        match self.in_flight.front_mut() {
            Some(oldest) if !oldest.commands.is_empty() => {
                let mut replies = ReplyReader::by(oldest.begun + COMMAND_TIMEOUT);
                let first = oldest.first.insert(replies.next(&mut self.connection));
                first.is_ok()
            }
            _ => true,
        }
    }

    /// Reads the answers of the oldest batch.
    pub(super) fn read(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(mut batch) = self.in_flight.pop_front() else {
            return outcome;
        };
        let mut replies = ReplyReader::by(batch.begun + COMMAND_TIMEOUT);
        outcome.size = batch.commands.len();
        outcome.answers = refuse(batch.late);
        outcome.answers.reserve(outcome.size);
        for pending in batch.commands {
            let reply = match (batch.first.take(), &outcome.failed) {
                (Some(first), _) => first,
                (None, None) => replies.next(&mut self.connection),
                (None, Some(_)) => Err(late()),
            };
            let answer = match reply {
                Ok(Value::ServerError(error))
                    if error.kind() == Some(ServerErrorKind::NoScript) =>
                {
                    if !pending.repeated {
                        outcome.unknown.push(pending);
                        continue;
                    }
                    // Redis forgets the scripts faster than they can be loaded.
                    Err(BackplaneError::Unavailable)
                }
                Ok(Value::ServerError(error)) if is_elsewhere(&error) => {
                    outcome.is_stale = true;
                    match redirection(&error) {
                        Some((slot, to)) if !pending.stays => {
                            outcome.moved.push((slot, to, pending));
                            continue;
                        }
                        // While a slot moves, nobody would hear there what is stored there.
                        _ => Err(BackplaneError::Unavailable),
                    }
                }
                Ok(Value::ServerError(error)) => Err(outcome.refuse(&error)),
                Ok(reply) => Ok(reply),
                Err(error) => {
                    outcome.failed.get_or_insert(error);
                    Err(BackplaneError::NoAnswer)
                }
            };
            outcome.answers.push(pending.answered(answer));
        }
        outcome.took = batch.begun.elapsed();
        outcome
    }

    /// Closes the connection. The commands that are in flight may be done or not.
    pub(super) fn abandon(self) -> Vec<Answered> {
        let mut answers = Vec::new();
        for batch in self.in_flight {
            answers.extend(refuse(batch.late));
            let commands = batch.commands.into_iter();
            answers.extend(commands.map(|one| one.answered(Err(BackplaneError::NoAnswer))));
        }
        answers
    }
}

/// Answers commands that were certainly not run.
pub(super) fn refuse(commands: Vec<PendingCommand>) -> Vec<Answered> {
    let commands = commands.into_iter();
    let answers = commands.map(|one| one.answered(Err(BackplaneError::Unavailable)));
    answers.collect()
}

/// The replies to one write, which all come by one deadline.
struct ReplyReader {
    deadline: Instant,
    /// When the socket's time-out was last set to what was left.
    set: Option<Instant>,
}

impl ReplyReader {
    fn by(deadline: Instant) -> Self {
        Self {
            deadline,
            set: None,
        }
    }

    /// The next reply; what Redis pushes in between is left out.
    fn next(&mut self, connection: &mut Connection) -> Result<Value, RedisError> {
        loop {
            let now = Instant::now();
            if self.set.is_none_or(|set| now - set > TIMEOUT_STEP) {
                let left = self.deadline.saturating_duration_since(now);
                if left.is_zero() {
                    return Err(late());
                }
                connection.set_read_timeout(Some(left))?;
                self.set = Some(now);
            }
            match connection.recv_response()? {
                Value::Push { .. } => {}
                reply => return Ok(reply),
            }
        }
    }
}

fn late() -> RedisError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

impl Outcome {
    /// Tells a refusal that passes from one that stays.
    fn refuse(&mut self, error: &ServerError) -> BackplaneError {
        let why = sentence(error);
        // Inside a script, older versions put the code into the sentence.
        let mut words = why.split(|c: char| !c.is_ascii_alphanumeric());
        if words.any(|word| PASSING_TROUBLE.contains(&word)) {
            self.is_replica |= why.contains(READONLY);
            self.refused = Some(why);
            BackplaneError::Unavailable
        } else {
            warn!("Redis refuses a command: {why}");
            BackplaneError::Refused(why)
        }
    }
}

/// Whether the slot of a command's keys is on another node of the cluster, or on its way there, or nowhere. Such
/// a command did nothing
/// (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding>).
fn is_elsewhere(error: &ServerError) -> bool {
    use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
    matches!(error.kind(), Some(Moved | Ask | TryAgain | ClusterDown))
}

/// The slot that moved for good, and the `host:port` of the node that has it. Without a host it is at the same
/// host.
fn redirection(error: &ServerError) -> Option<(u16, String)> {
    if error.kind() != Some(ServerErrorKind::Moved) {
        return None;
    }
    let (slot, to) = error.details()?.split_once(' ')?;
    Some((slot.parse().ok()?, to.to_owned()))
}

/// Said of a server that other instances use in another list of servers.
pub(super) fn other_list(list: &str) -> String {
    format!(
        "other instances use it as one of {list}; all of them need the same --redis in the same order \
         (a list that no instance uses is forgotten after ten seconds)"
    )
}

fn sentence(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

const READONLY: &str = "READONLY";

/// Loading its data, out of memory, a replica, failing over, unable to save, in a long script.
const PASSING_TROUBLE: [&str; 7] = [
    "LOADING",
    "OOM",
    READONLY,
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "BUSY",
];

#[cfg(test)]
mod tests;
