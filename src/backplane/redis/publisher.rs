//! The publisher: the one connection on which commands go to Redis, and the thread that owns it.
//!
//! Every thread may put a command into the queue; the publisher's thread pipelines all that is waiting
//! and gives each command its own answer, in order. Every command is answered exactly once, and within
//! [`ANSWER_WITHIN`], also when Redis is frozen or slow: a command waits [`QUEUED_WITHIN`] at most
//! before it is written, and a batch that is not answered within
//! [`COMMAND_TIMEOUT`](super::COMMAND_TIMEOUT) costs the connection. While there is none, commands are
//! refused at once.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::{debug, info, warn};
use redis::{Cmd, RedisError, Value};

use super::pipeline::{IS_REPLICA, OnAnswer, Outcome, PendingCommand, Pipeline};
use super::wire::{self, Keys, Scripts};
use super::{RETRY_CAP, RETRY_FIRST, RedisAddress, describe};
use crate::backoff::Backoff;
use crate::backplane::{ANSWER_WITHIN, BackplaneError};
use crate::metrics;
use crate::threads;
use crate::threads::lock;

/// The time that a command may wait to be written. With
/// [`COMMAND_TIMEOUT`](super::COMMAND_TIMEOUT) it stays below [`ANSWER_WITHIN`].
const QUEUED_WITHIN: Duration = Duration::from_millis(1250);

/// A batch that takes longer than this is followed by a smaller one, and one that takes less by a
/// larger one: while Redis is slow, a batch must still be answered in time.
const BATCH_TAKES: Duration = Duration::from_millis(250);

/// The most commands in one pipeline, and the most bytes.
const BATCH_COMMANDS: usize = 128;
const BATCH_BYTES: usize = 1 << 20;

/// The most reads among them. Their answers may be large, and sends must not wait for many of them.
const BATCH_READS: usize = 8;

/// Commands that nobody waits for are dropped when so many are queued already.
const UNANSWERED_BACKLOG: usize = 10_000;

enum Queued {
    Command(PendingCommand),
    /// One whose answer may be large.
    Read(PendingCommand),
    Stop,
}

/// The handle that everyone shares.
pub(super) struct Publisher {
    queue: Sender<Queued>,
    link: Arc<Link>,
    keys: Keys,
    scripts: Scripts,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A command that was sent.
pub(super) struct Asked {
    answer: Receiver<Result<Value, BackplaneError>>,
    deadline: Instant,
}

impl Asked {
    /// Waits for the answer.
    pub(super) fn wait(self) -> Result<Value, BackplaneError> {
        let answer = self.answer.recv_deadline(self.deadline);
        answer.unwrap_or(Err(BackplaneError::NoAnswer))
    }
}

/// The state of the connection that other threads may read.
#[derive(Default)]
struct Link {
    connected: AtomicBool,
    closing: AtomicBool,
    /// The number of times that a connection was made, or that Redis took writes again. A change means
    /// that Redis may have forgotten something, or that users could not be renewed.
    epoch: AtomicU64,
    /// The reason why Redis takes no writes.
    trouble: Mutex<Option<String>>,
    /// The last time that Redis took a write that was made to prove it.
    proven: Mutex<Option<Instant>>,
}

/// Without a proof for so long, Redis is not taken for writable.
const PROOF_LASTS: Duration = Duration::from_secs(3);

impl Publisher {
    /// Starts the thread with a connection on which the scripts are loaded.
    pub(super) fn start(
        address: RedisAddress,
        pipeline: Pipeline,
        keys: Keys,
        scripts: Scripts,
    ) -> io::Result<Self> {
        let (queue, jobs) = crossbeam_channel::unbounded();
        let link = Arc::new(Link::default());
        let worker = Worker {
            address,
            keys: keys.clone(),
            scripts: scripts.clone(),
            link: Arc::clone(&link),
            pipeline: None,
            most: BATCH_COMMANDS,
            backoff: Backoff::new(RETRY_FIRST, RETRY_CAP),
            next_attempt: Instant::now(),
            lost_at: None,
            reads: VecDeque::new(),
        };
        let thread = threads::spawn_vital("publisher", move || worker.run(pipeline, &jobs))?;
        Ok(Self {
            queue,
            link,
            keys,
            scripts,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues a command; `on_answer` is called by the publisher's thread and must not wait.
    pub(super) fn submit(&self, command: &Cmd, on_answer: OnAnswer) {
        let job = PendingCommand {
            command: command.get_packed_command(),
            on_answer,
            due: Instant::now() + QUEUED_WITHIN,
        };
        let item = if wire::is_read(command) {
            Queued::Read(job)
        } else {
            Queued::Command(job)
        };
        if let Err(refused) = self.queue.send(item)
            && let Queued::Command(job) | Queued::Read(job) = refused.into_inner()
        {
            job.answer(Err(BackplaneError::Unavailable));
        }
    }

    /// Queues a command whose answer nobody waits for.
    pub(super) fn fire_and_forget(&self, command: &Cmd) {
        if self.queue.len() < UNANSWERED_BACKLOG {
            self.submit(command, Box::new(|_| {}));
        }
    }

    /// Sends a command whose answer the caller waits for.
    pub(super) fn ask(&self, command: &Cmd) -> Asked {
        let (tell, answer) = crossbeam_channel::bounded(1);
        self.submit(
            command,
            Box::new(move |answer| {
                // The caller may have given up.
                let _ = tell.send(answer);
            }),
        );
        Asked {
            answer,
            deadline: Instant::now() + ANSWER_WITHIN,
        }
    }

    /// Sends all commands at once.
    pub(super) fn ask_all(&self, commands: &[Cmd]) -> Vec<Asked> {
        commands.iter().map(|command| self.ask(command)).collect()
    }

    /// Sends a command and waits for its answer.
    pub(super) fn call(&self, command: &Cmd) -> Result<Value, BackplaneError> {
        self.ask(command).wait()
    }

    /// Sends all commands at once and waits for their answers, which come in the same order.
    pub(super) fn call_all(&self, commands: &[Cmd]) -> Vec<Result<Value, BackplaneError>> {
        self.ask_all(commands)
            .into_iter()
            .map(Asked::wait)
            .collect()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.link.connected.load(Ordering::Acquire)
    }

    /// Has Redis prove that it takes messages: it runs all that a message runs. Called again and again by the keeper.
    pub(super) fn prove(&self) {
        let link = Arc::clone(&self.link);
        self.submit(
            &self.scripts.proof(&self.keys),
            Box::new(move |answer| match answer {
                Ok(_) => link.is_proven(),
                Err(BackplaneError::Refused(why)) => link.refuses(why),
                // Nothing is proven, and if that goes on for long, `writable` says so.
                Err(_) => {}
            }),
        );
    }

    /// Whether Redis refuses writes.
    pub(super) fn is_refused(&self) -> bool {
        lock(&self.link.trouble).is_some()
    }

    /// Whether Redis is connected and takes writes; if not, why.
    pub(super) fn writable(&self) -> Result<(), String> {
        if let Some(trouble) = &*lock(&self.link.trouble) {
            return Err(format!("Redis takes no messages: {trouble}"));
        }
        if !self.is_connected() {
            return Err("Redis does not answer".to_owned());
        }
        match *lock(&self.link.proven) {
            Some(proven) if proven.elapsed() < PROOF_LASTS => Ok(()),
            _ => Err("Redis has not taken a write lately".to_owned()),
        }
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
        let _ = self.queue.send(Queued::Stop);
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Link {
    /// Redis took a write, and so it will take messages.
    fn is_proven(&self) {
        *lock(&self.proven) = Some(Instant::now());
        if lock(&self.trouble).take().is_some() {
            self.epoch.fetch_add(1, Ordering::AcqRel);
            info!("Redis takes messages again");
        }
    }

    fn refuses(&self, why: String) {
        let mut trouble = lock(&self.trouble);
        if trouble.is_none() {
            warn!("Redis takes no messages: {why}");
        }
        *trouble = Some(why);
    }
}

/// The thread's own state.
struct Worker {
    address: RedisAddress,
    keys: Keys,
    scripts: Scripts,
    link: Arc<Link>,
    pipeline: Option<Pipeline>,
    /// The most commands of the next batch.
    most: usize,
    backoff: Backoff,
    next_attempt: Instant,
    lost_at: Option<Instant>,
    /// Reads that wait for their turn.
    reads: VecDeque<PendingCommand>,
}

impl Worker {
    fn run(mut self, pipeline: Pipeline, queue: &Receiver<Queued>) {
        self.connected(pipeline);
        let mut batch = Vec::new();
        loop {
            let stop = self.collect(queue, &mut batch);
            // First the answers: connecting may take a while.
            self.run_batch(std::mem::take(&mut batch));
            if stop {
                self.link.connected.store(false, Ordering::Release);
                return;
            }
            if self.pipeline.is_none() && Instant::now() >= self.next_attempt {
                self.connect();
            }
        }
    }

    /// Waits for a command, or until it is time to connect again, and takes what is waiting.
    /// True once the publisher is told to stop.
    fn collect(&mut self, queue: &Receiver<Queued>, batch: &mut Vec<PendingCommand>) -> bool {
        let stop = self.collect_jobs(queue, batch);
        let turn = self.reads.len().min(BATCH_READS);
        batch.extend(self.reads.drain(..turn));
        let now = Instant::now();
        for late in batch.extract_if(.., |job| job.due <= now) {
            late.answer(Err(BackplaneError::Unavailable));
        }
        stop
    }

    fn collect_jobs(&mut self, queue: &Receiver<Queued>, batch: &mut Vec<PendingCommand>) -> bool {
        let first = if !self.reads.is_empty() {
            queue.try_recv().map_err(|_| RecvTimeoutError::Timeout)
        } else if self.pipeline.is_some() {
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
                Queued::Stop => return true,
                Queued::Read(job) => self.reads.push_back(job),
                Queued::Command(job) => {
                    bytes += job.command.len();
                    batch.push(job);
                }
            }
            if batch.len() >= self.most || bytes >= BATCH_BYTES {
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
        match Pipeline::connect(&self.address, &self.keys, &self.scripts) {
            Ok(pipeline) => self.connected(pipeline),
            Err(why) => {
                debug!("Redis still away: {why}");
                self.next_attempt = Instant::now() + self.backoff.next();
            }
        }
    }

    fn connected(&mut self, mut pipeline: Pipeline) {
        match pipeline.refused.take() {
            None => self.link.is_proven(),
            Some(why) => self.link.refuses(why),
        }
        self.pipeline = Some(pipeline);
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
        self.pipeline = None;
        self.link.connected.store(false, Ordering::Release);
        *lock(&self.link.proven) = None;
        self.lost_at = Some(Instant::now());
        metrics::REDIS_LOSSES.count();
        self.next_attempt = Instant::now() + self.backoff.next();
        warn!("lost Redis ({why}): messages are refused until it is back");
    }

    /// Runs the batch and answers every command in it.
    fn run_batch(&mut self, batch: Vec<PendingCommand>) {
        if batch.is_empty() {
            return;
        }
        let Some(pipeline) = self.pipeline.as_mut() else {
            for pending in batch {
                pending.answer(Err(BackplaneError::Unavailable));
            }
            return;
        };
        let (size, begun) = (batch.len(), Instant::now());
        let outcome = exchange(pipeline, &self.scripts, batch);
        if begun.elapsed() > BATCH_TAKES {
            self.most = (size / 2).max(1);
        } else {
            self.most = (self.most * 2).min(BATCH_COMMANDS);
        }
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => return self.lost(&describe(&error)),
        };
        if let Some(why) = outcome.refused {
            self.link.refuses(why);
        }
        if outcome.is_replica {
            // It stays connected for ever, and another Redis may be the master by now.
            self.lost(IS_REPLICA);
        }
    }
}

/// Runs the batch and answers every command in it. The scripts are loaded again if Redis forgot them.
fn exchange(
    pipeline: &mut Pipeline,
    scripts: &Scripts,
    batch: Vec<PendingCommand>,
) -> Result<Outcome, RedisError> {
    let mut first = pipeline.exchange(batch)?;
    if first.unknown.is_empty() {
        return Ok(first);
    }
    // Somebody flushed the scripts. Those commands did nothing, so they are safe to repeat. They stay
    // in order unless another instance loads the scripts in the midst of this batch.
    if let Err(error) = pipeline.load(scripts, None) {
        first.give_up_unknown();
        return Err(error);
    }
    let mut again = pipeline.exchange(first.unknown)?;
    // Redis forgets the scripts faster than they can be loaded.
    again.give_up_unknown();
    Ok(Outcome {
        refused: again.refused.or(first.refused),
        is_replica: again.is_replica || first.is_replica,
        unknown: Vec::new(),
    })
}
