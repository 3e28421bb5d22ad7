//! The publisher: the one connection on which commands go to Redis, and the thread that owns it.
//!
//! Whoever has a command puts it in the queue; the thread pipelines all that is waiting and gives
//! each command its own answer, in order. Every command is answered exactly once, and within
//! [`ANSWER_WITHIN`] also when Redis is frozen: a reply that does not come in time costs the
//! connection, and while there is none, commands are refused at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;
use std::{io, thread};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::{debug, info, warn};
use redis::{Cmd, Connection, RedisError, ServerError, ServerErrorKind, Value};

use super::wire::{self, Scripts};
use super::{RETRY_CAP, RETRY_FIRST, RedisAddress, describe};
use crate::backoff::Backoff;
use crate::backplane::{ANSWER_WITHIN, BackplaneError};
use crate::lock::lock;
use crate::metrics;

/// The most commands in one pipeline, and the most bytes.
const BATCH_COMMANDS: usize = 128;
const BATCH_BYTES: usize = 1 << 20;

/// The most reads among them. Their answers may be large, and whoever sends must not wait for many
/// who read.
const BATCH_READS: usize = 8;

/// Commands that nobody waits for are dropped when so many are queued already.
const FORGETTABLE_BACKLOG: usize = 10_000;

/// Called with what Redis answered.
pub(super) type Answer = Box<dyn FnOnce(Result<Value, BackplaneError>) + Send>;

struct Job {
    command: Vec<u8>,
    answer: Answer,
}

enum Item {
    Job(Job),
    /// One whose answer may be large.
    Read(Job),
    Stop,
}

/// The handle that everyone shares.
pub(super) struct Publisher {
    queue: Sender<Item>,
    link: Arc<Link>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What others may know of the connection.
#[derive(Default)]
struct Link {
    connected: AtomicBool,
    closing: AtomicBool,
    /// How often a connection was made. A change means that Redis may have forgotten something.
    epoch: AtomicU64,
}

impl Publisher {
    /// Starts the thread with a connection on which the scripts are loaded.
    pub(super) fn start(
        address: RedisAddress,
        connection: Connection,
        scripts: Scripts,
    ) -> io::Result<Self> {
        let (queue, jobs) = crossbeam_channel::unbounded();
        let link = Arc::new(Link::default());
        let worker = Worker {
            address,
            scripts,
            link: Arc::clone(&link),
            connection: None,
            backoff: Backoff::new(RETRY_FIRST, RETRY_CAP),
            next_attempt: Instant::now(),
            lost_at: None,
            reads: VecDeque::new(),
        };
        let thread = thread::Builder::new()
            .name("publisher".into())
            .spawn(move || worker.run(connection, &jobs))?;
        Ok(Self {
            queue,
            link,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues a command; `answer` is called by the publisher's thread and must not wait.
    pub(super) fn submit(&self, command: &Cmd, answer: Answer) {
        let job = Job {
            command: command.get_packed_command(),
            answer,
        };
        let item = if wire::is_read(command) {
            Item::Read(job)
        } else {
            Item::Job(job)
        };
        if let Err(refused) = self.queue.send(item)
            && let Item::Job(job) | Item::Read(job) = refused.into_inner()
        {
            (job.answer)(Err(BackplaneError::Unavailable));
        }
    }

    /// Queues a command whose answer nobody waits for.
    pub(super) fn forget(&self, command: &Cmd) {
        if self.queue.len() < FORGETTABLE_BACKLOG {
            self.submit(command, Box::new(|_| {}));
        }
    }

    /// Sends a command and waits for its answer.
    pub(super) fn call(&self, command: &Cmd) -> Result<Value, BackplaneError> {
        let mut answers = self.call_all([command]);
        answers.pop().unwrap_or(Err(BackplaneError::NoAnswer))
    }

    /// Sends all commands at once and waits for their answers, which come in the same order.
    pub(super) fn call_all<'a>(
        &self,
        commands: impl IntoIterator<Item = &'a Cmd>,
    ) -> Vec<Result<Value, BackplaneError>> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let waiting: Vec<_> = commands
            .into_iter()
            .map(|command| {
                let (tell, told) = crossbeam_channel::bounded(1);
                self.submit(
                    command,
                    Box::new(move |answer| {
                        // Whoever asked may have given up.
                        let _ = tell.send(answer);
                    }),
                );
                told
            })
            .collect();
        waiting
            .into_iter()
            .map(|told| {
                told.recv_deadline(deadline)
                    .unwrap_or(Err(BackplaneError::NoAnswer))
            })
            .collect()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.link.connected.load(Ordering::Acquire)
    }

    /// From now on a connection that is lost is not made again.
    pub(super) fn connect_no_more(&self) {
        self.link.closing.store(true, Ordering::Release);
    }

    pub(super) fn epoch(&self) -> u64 {
        self.link.epoch.load(Ordering::Acquire)
    }

    /// Answers what is queued, closes the connection and joins the thread.
    pub(super) fn close(&self) {
        let _ = self.queue.send(Item::Stop);
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

/// The thread's own state.
struct Worker {
    address: RedisAddress,
    scripts: Scripts,
    link: Arc<Link>,
    connection: Option<Connection>,
    backoff: Backoff,
    next_attempt: Instant,
    lost_at: Option<Instant>,
    /// Reads that wait for their turn.
    reads: VecDeque<Job>,
}

impl Worker {
    fn run(mut self, connection: Connection, queue: &Receiver<Item>) {
        self.connected(connection);
        let mut batch = Vec::with_capacity(BATCH_COMMANDS);
        loop {
            let stop = self.collect(queue, &mut batch);
            // First the answers: connecting may take a while.
            self.exchange(&mut batch);
            if stop {
                self.link.connected.store(false, Ordering::Release);
                return;
            }
            if self.connection.is_none() && Instant::now() >= self.next_attempt {
                self.connect();
            }
        }
    }

    /// Waits for a command, or until it is time to connect again, and takes what is waiting.
    /// True once the publisher is told to stop.
    fn collect(&mut self, queue: &Receiver<Item>, batch: &mut Vec<Job>) -> bool {
        let stop = self.collect_jobs(queue, batch);
        let turn = self.reads.len().min(BATCH_READS);
        batch.extend(self.reads.drain(..turn));
        stop
    }

    fn collect_jobs(&mut self, queue: &Receiver<Item>, batch: &mut Vec<Job>) -> bool {
        let first = if !self.reads.is_empty() {
            queue.try_recv().map_err(|_| RecvTimeoutError::Timeout)
        } else if self.connection.is_some() {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            queue.recv_deadline(self.next_attempt)
        };
        let mut item = match first {
            Ok(item) => item,
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => return true,
        };
        let mut bytes = 0;
        loop {
            match item {
                Item::Stop => return true,
                Item::Read(job) => self.reads.push_back(job),
                Item::Job(job) => {
                    bytes += job.command.len();
                    batch.push(job);
                }
            }
            if batch.len() == BATCH_COMMANDS || bytes >= BATCH_BYTES {
                return false;
            }
            match queue.try_recv() {
                Ok(next) => item = next,
                Err(_) => return false,
            }
        }
    }

    fn connect(&mut self) {
        if self.link.closing.load(Ordering::Acquire) {
            self.next_attempt = Instant::now() + RETRY_CAP;
            return;
        }
        let attempt = self.address.connect().and_then(|mut connection| {
            self.scripts.load(&mut connection)?;
            Ok(connection)
        });
        match attempt {
            Ok(connection) => self.connected(connection),
            Err(error) => {
                debug!("Redis still away: {}", describe(&error));
                self.next_attempt = Instant::now() + self.backoff.next();
            }
        }
    }

    fn connected(&mut self, connection: Connection) {
        self.connection = Some(connection);
        self.backoff.reset();
        self.link.epoch.fetch_add(1, Ordering::AcqRel);
        self.link.connected.store(true, Ordering::Release);
        match self.lost_at.take() {
            None => info!("connected to Redis at {}", self.address),
            Some(lost) => info!(
                "Redis is back after {:.1} s: messages are accepted again",
                lost.elapsed().as_secs_f64()
            ),
        }
    }

    fn lost(&mut self, why: &str) {
        self.connection = None;
        self.link.connected.store(false, Ordering::Release);
        self.lost_at = Some(Instant::now());
        metrics::REDIS_LOSSES.count();
        self.next_attempt = Instant::now() + self.backoff.next();
        warn!("lost Redis ({why}): messages are refused until it is back");
    }

    /// Runs the batch and answers every job in it.
    fn exchange(&mut self, batch: &mut Vec<Job>) {
        if batch.is_empty() {
            return;
        }
        let Some(connection) = self.connection.as_mut() else {
            for job in batch.drain(..) {
                (job.answer)(Err(BackplaneError::Unavailable));
            }
            return;
        };
        let mut outcome = pipeline(connection, batch);
        // Somebody flushed the scripts. Those commands did nothing, so they are safe to repeat. They
        // stay in order unless another instance loads the scripts in the midst of this batch.
        if matches!(&outcome, Ok(unknown) if !unknown.is_empty()) {
            let mut again = outcome.unwrap_or_default();
            outcome = match self.scripts.load(connection) {
                Ok(()) => pipeline(connection, &mut again),
                Err(error) => Err(error),
            };
            for job in again {
                (job.answer)(Err(BackplaneError::Unavailable));
            }
        }
        match outcome {
            Ok(unknown) => {
                for job in unknown {
                    // It forgets them faster than they can be loaded.
                    (job.answer)(Err(BackplaneError::Unavailable));
                }
            }
            Err(error) => {
                self.lost(&describe(&error));
                for job in batch.drain(..) {
                    (job.answer)(Err(BackplaneError::NoAnswer));
                }
            }
        }
    }
}

/// Writes all commands at once and answers each as its reply arrives. Jobs whose script Redis does
/// not know are handed back; after an error, those that were not answered stay in `batch`.
fn pipeline(connection: &mut Connection, batch: &mut Vec<Job>) -> Result<Vec<Job>, RedisError> {
    let commands: Vec<&[u8]> = batch.iter().map(|job| &job.command[..]).collect();
    connection.send_packed_command(&commands.concat())?;
    let mut unknown = Vec::new();
    let mut answered = 0;
    let outcome = loop {
        if answered == batch.len() {
            break Ok(());
        }
        match connection.recv_response() {
            Ok(Value::Push { .. }) => {}
            Ok(value) => {
                let job = std::mem::replace(&mut batch[answered], Job::answered());
                answered += 1;
                match value {
                    Value::ServerError(error)
                        if error.kind() == Some(ServerErrorKind::NoScript) =>
                    {
                        unknown.push(job);
                    }
                    Value::ServerError(error) => (job.answer)(Err(refusal(&error))),
                    value => (job.answer)(Ok(value)),
                }
            }
            Err(error) => break Err(error),
        }
    };
    batch.drain(..answered);
    match outcome {
        Ok(()) => Ok(unknown),
        Err(error) => {
            // Their replies were read, so they did nothing, and may be tried again.
            for job in unknown {
                (job.answer)(Err(BackplaneError::Unavailable));
            }
            Err(error)
        }
    }
}

impl Job {
    /// Stands in a batch where a job was taken out.
    fn answered() -> Self {
        Self {
            command: Vec::new(),
            answer: Box::new(|_| {}),
        }
    }
}

/// What Redis will take again later, and what it will not.
fn refusal(error: &ServerError) -> BackplaneError {
    let why = match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    };
    warn!("Redis refuses a command: {why}");
    // Inside a script, older versions put the code into the sentence.
    if PASSING_TROUBLE.iter().any(|code| why.contains(code)) {
        BackplaneError::Unavailable
    } else {
        BackplaneError::Refused(why)
    }
}

/// Loading its data, out of memory, a replica, failing over, unable to save, in a long script.
const PASSING_TROUBLE: [&str; 9] = [
    "LOADING",
    "OOM",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "MISCONF",
    "NOREPLICAS",
    "BUSY",
];
