//! The connection for commands: how it is made, and how a batch of commands is run on it.
//!
//! A connection is only used once Redis has shown that it is no replica and knows the scripts. Each
//! exchange has one deadline, however many replies it has: a Redis that trickles holds nobody longer
//! than one that is frozen.

use std::io;
use std::time::{Duration, Instant};

use log::warn;
use redis::{Cmd, Connection, RedisError, ServerError, ServerErrorKind, Value};

use super::wire::{self, Keys, Scripts};
use super::{COMMAND_TIMEOUT, RedisAddress, describe};
use crate::backplane::BackplaneError;

/// The time-out of the first questions on a connection, and then of loading the scripts.
const BEGIN_TIMEOUT: Duration = Duration::from_millis(300);

/// While replies come this close together, the socket's time-out is left as it is.
const TIMEOUT_STEP: Duration = Duration::from_millis(50);

/// Called with what Redis answered.
pub(super) type OnAnswer = Box<dyn FnOnce(Result<Value, BackplaneError>) + Send>;

/// A command on its way to Redis.
pub(super) struct PendingCommand {
    pub(super) command: Vec<u8>,
    pub(super) on_answer: OnAnswer,
    /// The time at which it is too late to write it.
    pub(super) due: Instant,
}

impl PendingCommand {
    /// Tells the asker what became of it.
    pub(super) fn answer(self, outcome: Result<Value, BackplaneError>) {
        (self.on_answer)(outcome);
    }
}

/// Said of a Redis that takes no writes.
pub(super) const IS_REPLICA: &str = "it is a read-only replica; connect to its master";

/// A connection for commands.
pub(super) struct Pipeline {
    connection: Connection,
    /// Why Redis took no writes when it was connected to.
    pub(super) refused: Option<String>,
}

/// The commands that an exchange did not run, and the refusals that it met.
#[derive(Default)]
pub(super) struct Outcome {
    /// Redis does not know their script, so they did nothing.
    pub(super) unknown: Vec<PendingCommand>,
    /// Why Redis refused something that it will take again later.
    pub(super) refused: Option<String>,
    /// Whether it refused since it is a replica.
    pub(super) is_replica: bool,
}

impl Pipeline {
    /// Connects, looks whether this Redis takes writes, and loads the scripts. A replica is not
    /// connected to. The error is a sentence.
    pub(super) fn connect(
        address: &RedisAddress,
        keys: &Keys,
        scripts: &Scripts,
    ) -> Result<Self, String> {
        let connection = address.connect().map_err(|error| describe(&error))?;
        let mut pipeline = Self {
            connection,
            refused: None,
        };
        let questions = [wire::hello(), wire::memory_policy()];
        let answers = pipeline.ask(&questions).map_err(|error| describe(&error))?;
        let [hello, memory] = &answers[..] else {
            return Err(describe(&late()));
        };
        if wire::is_replica(hello) {
            return Err(IS_REPLICA.to_owned());
        }
        let proof = pipeline
            .load(scripts, Some(scripts.proof(keys)))
            .map_err(|error| describe(&error))?;
        if let Some(Value::ServerError(error)) = proof {
            pipeline.refused = Some(sentence(&error));
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
    /// its reply is returned.
    pub(super) fn load(
        &mut self,
        scripts: &Scripts,
        then: Option<Cmd>,
    ) -> Result<Option<Value>, RedisError> {
        let mut commands = scripts.load().to_vec();
        let loads = commands.len();
        commands.extend(then);
        let mut answers = self.ask(&commands)?;
        let reply = answers.drain(loads..).next();
        for answer in answers {
            if let Value::ServerError(error) = answer {
                return Err(error.into());
            }
        }
        Ok(reply)
    }

    /// Runs some commands and returns their replies.
    fn ask(&mut self, commands: &[Cmd]) -> Result<Vec<Value>, RedisError> {
        let bytes: Vec<_> = commands.iter().map(Cmd::get_packed_command).collect();
        let mut replies = Replies::within(BEGIN_TIMEOUT);
        self.connection.send_packed_command(&bytes.concat())?;
        let answers = commands.iter().map(|_| replies.next(&mut self.connection));
        answers.collect()
    }

    /// Writes all commands at once and answers each as its reply arrives. Commands whose script Redis does
    /// not know are handed back. After an error, a command whose reply was not read may be done or not.
    pub(super) fn exchange(&mut self, batch: Vec<PendingCommand>) -> Result<Outcome, RedisError> {
        let commands: Vec<&[u8]> = batch.iter().map(|one| &one.command[..]).collect();
        let mut replies = Replies::within(COMMAND_TIMEOUT);
        let written = self.connection.send_packed_command(&commands.concat());
        let mut failed = written.err();
        let mut outcome = Outcome::default();
        for pending in batch {
            let reply = match failed {
                None => replies.next(&mut self.connection),
                Some(_) => Err(late()),
            };
            match reply {
                Ok(Value::ServerError(error))
                    if error.kind() == Some(ServerErrorKind::NoScript) =>
                {
                    outcome.unknown.push(pending);
                }
                Ok(Value::ServerError(error)) => pending.answer(Err(outcome.refuse(&error))),
                Ok(reply) => pending.answer(Ok(reply)),
                Err(error) => {
                    failed.get_or_insert(error);
                    pending.answer(Err(BackplaneError::NoAnswer));
                }
            }
        }
        match failed {
            None => Ok(outcome),
            Some(error) => {
                outcome.give_up_unknown();
                Err(error)
            }
        }
    }
}

/// The replies to one write, which all come by one deadline.
struct Replies {
    deadline: Instant,
    /// When the socket's time-out was last set to what was left.
    set: Option<Instant>,
}

impl Replies {
    fn within(limit: Duration) -> Self {
        Self {
            deadline: Instant::now() + limit,
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
    /// Answers the commands whose script Redis does not know: they did nothing.
    pub(super) fn give_up_unknown(&mut self) {
        for pending in self.unknown.drain(..) {
            pending.answer(Err(BackplaneError::Unavailable));
        }
    }

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

fn sentence(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

const READONLY: &str = "READONLY";

/// Loading its data, out of memory, a replica, failing over, unable to save, in a long script.
const PASSING_TROUBLE: [&str; 9] = [
    "LOADING",
    "OOM",
    READONLY,
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "MISCONF",
    "NOREPLICAS",
    "BUSY",
];
