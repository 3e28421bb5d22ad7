//! The publisher: the one connection on which commands go to Redis, and the thread that owns it.
//!
//! Every thread may put a command into the queue. The publisher's thread writes all that is waiting as one
//! batch, and has up to two batches in flight. Once Redis begins to answer one, what waits by then is written
//! as the next, and Redis works on that while the answers are read. The callbacks run in the
//! order of the commands: on this thread, or on the [`receipts`](super::receipts) thread if a batch has many.
//!
//! Every command is answered exactly once, and within [`ANSWER_WITHIN`], also when Redis is frozen or slow:
//! a command waits [`QUEUED_WITHIN`] at most before it is written, and a batch that is not answered within
//! [`COMMAND_TIMEOUT`](super::COMMAND_TIMEOUT) costs the connection. While there is none, commands are
//! refused at once.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::{debug, info, warn};
use redis::{Cmd, Value};

use super::acknowledged::Acknowledged;
use super::address::describe;
use super::keys::Keys;
use super::link::Link;
use super::nature::IS_REPLICA;
use super::news::NewsSender;
use super::pipeline::{PendingCommand, Pipeline, other_list, refuse};
use super::placement::Share;
use super::receipts::{OnAnswer, Receipts};
use super::source::{ANOTHER_MASTER, Source};
use super::wire::{self, Scripts};
use super::{RETRY_CAP, RETRY_FIRST};
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

/// The most batches that are written before their answers are read. With one, Redis would idle while its
/// answers are read and the next batch is made.
const IN_FLIGHT: usize = 2;

/// Commands that nobody waits for are dropped when so many are queued already.
const UNANSWERED_BACKLOG: usize = 10_000;

/// The time at which it is too late to write a command that is queued now.
pub(super) fn due() -> Instant {
    Instant::now() + QUEUED_WITHIN
}

enum Queued {
    Command(PendingCommand),
    Stop,
}

/// What a publisher connects to, and what it needs for that.
#[derive(Clone)]
pub(super) struct Connecting {
    pub(super) source: Source,
    /// The server's name, for the log.
    pub(super) name: String,
    pub(super) keys: Keys,
    pub(super) scripts: Scripts,
    /// The list of servers that share the rooms. `None` in a cluster, which has its own order.
    pub(super) servers: Option<Arc<str>>,
    pub(super) news: NewsSender,
    /// Where a replica may take a master's place.
    pub(super) acknowledged: Option<Arc<Acknowledged>>,
}

impl Connecting {
    pub(super) fn connect(&self) -> Result<Pipeline, String> {
        let servers = self.servers.as_deref();
        Pipeline::connect(&self.source, &self.keys, &self.scripts, servers)
    }

    /// The questions whether this server has what was acknowledged before a master was lost.
    pub(super) fn look_for_acknowledged(&self, share: &Share) -> Vec<(Cmd, OnAnswer)> {
        let Some(acknowledged) = &self.acknowledged else {
            return Vec::new();
        };
        let doubted = acknowledged.in_doubt(share).into_iter();
        let questions = doubted.map(|(room, id)| {
            let question = self.scripts.look_for(&self.keys, &room, id);
            let acknowledged = Arc::clone(acknowledged);
            let on_answer = move |answer: Result<Value, BackplaneError>| {
                if answer.is_err() {
                    acknowledged.doubt_again(room, id);
                }
            };
            (question, Box::new(on_answer) as OnAnswer)
        });
        questions.collect()
    }
}

/// The handle that everyone shares.
pub(super) struct Publisher {
    queue: Sender<Queued>,
    link: Arc<Link>,
    to: Connecting,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Commands of one caller, who waits for their answers.
pub(super) struct Questions<'a> {
    publisher: &'a Publisher,
    tell: Sender<(usize, Result<Value, BackplaneError>)>,
    /// Each with the place of its command. They may come in another order: a command whose script Redis
    /// forgot is repeated behind the others.
    answers: Receiver<(usize, Result<Value, BackplaneError>)>,
    asked: usize,
    due: Instant,
}

impl Questions<'_> {
    /// Sends a command.
    pub(super) fn ask(&mut self, command: &Cmd) {
        let (place, tell) = (self.asked, self.tell.clone());
        self.asked += 1;
        let on_answer = move |answer| {
            // The caller may have given up.
            let _ = tell.send((place, answer));
        };
        self.publisher
            .submit_by(self.due, command, Box::new(on_answer));
    }

    /// Waits for the answers, and returns them in the order of the commands.
    pub(super) fn wait(self) -> Vec<Result<Value, BackplaneError>> {
        let deadline = self.due - QUEUED_WITHIN + ANSWER_WITHIN;
        let mut answers = vec![Err(BackplaneError::NoAnswer); self.asked];
        for _ in 0..self.asked {
            let Ok((place, answer)) = self.answers.recv_deadline(deadline) else {
                break;
            };
            answers[place] = answer;
        }
        answers
    }
}

impl Publisher {
    /// Starts the thread. Without a connection, it makes one.
    pub(super) fn start(to: Connecting, pipeline: Option<Pipeline>) -> io::Result<Self> {
        let (queue, jobs) = crossbeam_channel::unbounded();
        let link = Arc::new(Link::new(&to.name));
        let worker = PublisherThread::new(to.clone(), Arc::clone(&link))?;
        let thread = threads::spawn_vital("publisher", move || worker.run(pipeline, &jobs))?;
        Ok(Self {
            queue,
            link,
            to,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues a command. `on_answer` runs on the publisher's or the receipts thread and must not wait.
    pub(super) fn submit(&self, command: &Cmd, on_answer: OnAnswer) {
        self.submit_by(due(), command, on_answer);
    }

    fn submit_by(&self, due: Instant, command: &Cmd, on_answer: OnAnswer) {
        self.submit_pending(PendingCommand::new(command, due, on_answer));
    }

    /// Queues a command that another publisher may have had before.
    pub(super) fn submit_pending(&self, pending: PendingCommand) {
        if let Err(refused) = self.queue.send(Queued::Command(pending))
            && let Queued::Command(pending) = refused.into_inner()
        {
            (pending.on_answer)(Err(BackplaneError::Unavailable));
        }
    }

    /// Queues a command whose answer nobody waits for.
    pub(super) fn fire_and_forget(&self, command: &Cmd) {
        if self.queue.len() < UNANSWERED_BACKLOG {
            self.submit(command, Box::new(|_| {}));
        }
    }

    /// For the commands of one caller.
    pub(super) fn questions(&self) -> Questions<'_> {
        self.questions_by(due())
    }

    fn questions_by(&self, due: Instant) -> Questions<'_> {
        // The thread that answers must not wait for the caller.
        let (tell, answers) = crossbeam_channel::unbounded();
        Questions {
            publisher: self,
            tell,
            answers,
            asked: 0,
            due,
        }
    }

    /// Sends a command and waits for its answer.
    pub(super) fn call(&self, command: &Cmd) -> Result<Value, BackplaneError> {
        self.call_by(due(), command)
    }

    /// The same; the command is not written later than `due`.
    pub(super) fn call_by(&self, due: Instant, command: &Cmd) -> Result<Value, BackplaneError> {
        let mut questions = self.questions_by(due);
        questions.ask(command);
        let answer = questions.wait().pop();
        answer.unwrap_or(Err(BackplaneError::NoAnswer))
    }

    /// Sends all commands at once. Their answers come in the same order.
    pub(super) fn ask_all(&self, commands: &[Cmd]) -> Questions<'_> {
        let mut questions = self.questions();
        commands.iter().for_each(|command| questions.ask(command));
        questions
    }

    /// Sends all commands at once and waits for their answers.
    pub(super) fn call_all(&self, commands: &[Cmd]) -> Vec<Result<Value, BackplaneError>> {
        self.ask_all(commands).wait()
    }

    /// The state of the connection.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Checks that Redis takes messages, by running `publish.lua` on keys of this instance's own, and that
    /// no other instance uses another list of servers. The keeper calls it every second.
    pub(super) fn prove(&self) {
        let (link, keys) = (Arc::clone(&self.link), self.to.keys.clone());
        let proof = self.to.scripts.proof(&self.to.keys);
        self.submit_pending(PendingCommand {
            command: proof.get_packed_command(),
            on_answer: Box::new(move |answer| match answer {
                Ok(_) => link.is_proven(),
                Err(BackplaneError::Refused(why)) => link.refuses(why),
                // Nothing is proven, and if that goes on for long, `writable` says so. The slot may be on its way
                // to another node.
                Err(_) => keys.lie_elsewhere(),
            }),
            due: due(),
            repeated: false,
            // On another node it would prove nothing.
            stays: true,
        });
        if let Some(servers) = &self.to.servers {
            let link = Arc::clone(&self.link);
            self.submit(
                &wire::note_servers(&self.to.keys, servers),
                Box::new(move |answer| {
                    if let Some(list) = answer.ok().as_ref().and_then(wire::other_servers) {
                        link.give_up(other_list(list));
                    }
                }),
            );
        }
    }

    /// The number of commands that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The thread answers what is queued, closes the connection, and ends.
    pub(super) fn stop(&self) {
        let _ = self.queue.send(Queued::Stop);
    }

    /// Waits until the thread has ended.
    pub(super) fn join(&self) {
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

/// The thread's own state.
struct PublisherThread {
    to: Connecting,
    link: Arc<Link>,
    pipeline: Option<Pipeline>,
    /// The source's generation when it was connected to.
    generation: u64,
    /// The most commands of the next batch.
    most: usize,
    backoff: Backoff,
    next_attempt: Instant,
    lost_at: Option<Instant>,
    /// Commands whose script Redis did not know, in their order. They are repeated before anything else
    /// is written.
    unknown: Vec<PendingCommand>,
    /// What is written to a new master before anything that is queued.
    first: Vec<PendingCommand>,
    /// Whether it was told to stop.
    stops: bool,
    receipts: Receipts,
}

impl PublisherThread {
    fn new(to: Connecting, link: Arc<Link>) -> io::Result<Self> {
        Ok(Self {
            generation: to.source.generation(),
            to,
            link,
            pipeline: None,
            most: BATCH_COMMANDS,
            backoff: Backoff::new(RETRY_FIRST, RETRY_CAP),
            next_attempt: Instant::now(),
            lost_at: None,
            unknown: Vec::new(),
            first: Vec::new(),
            stops: false,
            receipts: Receipts::start()?,
        })
    }

    fn run(mut self, pipeline: Option<Pipeline>, queue: &Receiver<Queued>) {
        match pipeline {
            Some(pipeline) => self.connected(pipeline),
            None => self.connect(),
        }
        while !self.stops || self.in_flight() > 0 || !self.unknown.is_empty() {
            let batch = self.next_batch(queue);
            let wrote = !batch.is_empty();
            self.write(batch);
            if !wrote || self.in_flight() == IN_FLIGHT {
                self.read(queue);
            }
            let is_elsewhere = self.to.source.generation() != self.generation;
            if self.pipeline.is_none() && (is_elsewhere || Instant::now() >= self.next_attempt) {
                self.connect();
            }
        }
        self.link.ends();
        for queued in queue.try_iter() {
            if let Queued::Command(late) = queued {
                self.receipts.hand_over(refuse(vec![late]));
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.pipeline.as_ref().map_or(0, Pipeline::in_flight)
    }

    /// The commands to write next. Waits for the first of them if nothing is in flight.
    fn next_batch(&mut self, queue: &Receiver<Queued>) -> Vec<PendingCommand> {
        let mut batch = Vec::new();
        if !self.first.is_empty() {
            batch.extend(self.first.drain(..self.first.len().min(self.most)));
        } else if self.unknown.is_empty() {
            self.collect(queue, &mut batch);
        } else if self.in_flight() == 0 {
            batch = self.load_for_unknown();
        }
        batch
    }

    /// Takes what is waiting in the queue.
    fn collect(&mut self, queue: &Receiver<Queued>, batch: &mut Vec<PendingCommand>) {
        if self.stops {
            return;
        }
        let first = if self.in_flight() > 0 {
            queue.try_recv().map_err(|_| RecvTimeoutError::Timeout)
        } else if self.pipeline.is_some() {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            queue.recv_deadline(self.next_attempt)
        };
        let mut next = match first {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => return,
            Err(RecvTimeoutError::Disconnected) => Queued::Stop,
        };
        let mut bytes = 0;
        loop {
            match next {
                Queued::Stop => return self.stops = true,
                Queued::Command(pending) => {
                    bytes += pending.command.len();
                    batch.push(pending);
                }
            }
            if batch.len() >= self.most || bytes >= BATCH_BYTES {
                return;
            }
            match queue.try_recv() {
                Ok(queued) => next = queued,
                Err(_) => return,
            }
        }
    }

    /// Loads the scripts again after a SCRIPT FLUSH, and returns the commands that were answered with NOSCRIPT. Those
    /// did nothing, so they are safe to repeat. They stay in order, since nothing is in flight now, unless another
    /// instance loaded the scripts while they were.
    fn load_for_unknown(&mut self) -> Vec<PendingCommand> {
        if let Some(pipeline) = &mut self.pipeline
            && let Err(error) = pipeline.load(&self.to.scripts, Vec::new())
        {
            self.lost(&describe(&error));
        }
        let mut unknown = std::mem::take(&mut self.unknown);
        unknown.iter_mut().for_each(|one| one.repeated = true);
        unknown
    }

    fn connect(&mut self) {
        if self.link.is_closing() {
            self.next_attempt = Instant::now() + RETRY_CAP;
            return;
        }
        self.generation = self.to.source.generation();
        match self.to.connect() {
            Ok(pipeline) => self.connected(pipeline),
            Err(why) => {
                debug!("Redis at {} still away: {why}", self.to.name);
                self.link.is_away(why);
                self.to.news.stale(None);
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
        if let Source::Sentinel(_) = self.to.source {
            // Before anything else is asked of a new master: a client that resumes now must not be told that
            // nothing is missing. In a cluster, it is not known yet which rooms this node has.
            let questions = self.to.look_for_acknowledged(&Share::All).into_iter();
            self.first.extend(
                questions
                    .map(|(question, on_answer)| PendingCommand::new(&question, due(), on_answer)),
            );
        }
        self.link.stands();
        match self.lost_at.take() {
            None => info!("connected to Redis at {}", self.to.name),
            Some(lost) => info!(
                "Redis is back after {:.1} s: {} accepts messages again",
                lost.elapsed().as_secs_f64(),
                self.to.name
            ),
        }
    }

    /// Closes the connection, and answers every command in flight.
    fn lost(&mut self, why: &str) {
        self.link.is_lost();
        self.lost_at = Some(Instant::now());
        metrics::REDIS_LOSSES.count();
        self.to.news.stale(None);
        if let Some(acknowledged) = &self.to.acknowledged {
            // The receipts thread notes what it acknowledges.
            self.receipts.wait();
            acknowledged.doubt();
        }
        self.next_attempt = Instant::now() + self.backoff.next();
        warn!(
            "lost Redis at {} ({why}): messages are refused until it is back",
            self.to.name
        );
        let mut waiting = std::mem::take(&mut self.first);
        waiting.append(&mut self.unknown);
        self.receipts.hand_over(refuse(waiting));
        if let Some(pipeline) = self.pipeline.take() {
            self.receipts.hand_over(pipeline.abandon());
        }
    }

    fn write(&mut self, batch: Vec<PendingCommand>) {
        if batch.is_empty() {
            return;
        }
        if self.pipeline.is_some() {
            if let Some(why) = self.link.given_up() {
                self.lost(&why);
            } else if self.to.source.generation() != self.generation {
                self.lost(ANOTHER_MASTER);
            }
        }
        let Some(pipeline) = &mut self.pipeline else {
            return self.receipts.hand_over(refuse(batch));
        };
        if let Err(error) = pipeline.write(batch) {
            self.lost(&describe(&error));
        }
    }

    /// Reads the answers of the oldest batch, if one is in flight.
    fn read(&mut self, queue: &Receiver<Queued>) {
        if self.in_flight() == 0 {
            return;
        }
        let begins = self.pipeline.as_mut().is_some_and(Pipeline::wait);
        // Redis is done with most of this batch.
        if begins && self.in_flight() < IN_FLIGHT {
            let batch = self.next_batch(queue);
            self.write(batch);
        }
        let Some(pipeline) = &mut self.pipeline else {
            return;
        };
        let outcome = pipeline.read();
        if outcome.took > BATCH_TAKES {
            self.most = (outcome.size / 2).max(1);
        } else {
            self.most = (self.most * 2).min(BATCH_COMMANDS);
        }
        self.receipts.hand_over(outcome.answers);
        self.unknown.extend(outcome.unknown);
        if outcome.is_stale {
            self.to.news.stale(Some(&self.to.name));
        }
        for (slot, to, command) in outcome.moved {
            if let Some(command) = self.to.news.moved(slot, to, command) {
                self.receipts.hand_over(refuse(vec![command]));
            }
        }
        if let Some(why) = outcome.refused {
            self.link.refuses(why);
        }
        if let Some(error) = outcome.failed {
            self.lost(&describe(&error));
        } else if outcome.is_replica {
            // It stays connected for ever, and another Redis may be the master by now.
            self.lost(IS_REPLICA);
        }
    }
}

#[cfg(test)]
mod tests;
