//! Posts what is said in a room to another service, in order, one message at a time.
//!
//! Each webhook has a thread. It reads the room's log from behind the last message that was posted, twice a second, so
//! nothing of it waits in memory. One instance at a time has the [lease](crate::backplane::Backplane::lease), and with
//! it the place in the log. It renews the lease after each message. If it dies, another one goes on, and may repeat the
//! last message under the same `Idempotency-Key`. A [`request`] posts one message.

mod request;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use log::{debug, info, warn};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

pub use self::request::AGENT;
use self::request::{Patience, PostError, post};
use super::history::{PAGE_MOST, read_page};
use super::state::State;
use super::webhook::Webhook;
use crate::backoff::Backoff;
use crate::backplane::BackplaneError;
use crate::date::unix_millis;
use crate::message::{Entry, MessageId};
use crate::metrics;
use crate::protocol::{Cursor, Encoding, Event, json};
use crate::stream::{Authorities, ResponseHead};
use crate::threads;

/// The pause between two reads of the log and of the lease.
const POLL_EVERY: Duration = Duration::from_millis(500);

/// The lease lasts for this long without being renewed. It must be longer than two POSTs (a gap and a message) and two
/// answers of the backplane ([`ANSWER_WITHIN`](crate::backplane::ANSWER_WITHIN)).
const LEASE: Duration = Duration::from_secs(30);

/// The time for one POST, from the connection to the answer.
const POST_WITHIN: Duration = Duration::from_secs(10);

/// The ceiling of the first and of the longest wait before a message is posted again.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_CAP: Duration = Duration::from_secs(60);

/// The longest wait that a receiver may ask for.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(5 * 60);

/// The bytes of messages that are read at once, unless one message has more.
const PAGE_BYTES: usize = 1 << 20;

/// Takes the leases that no instance has, so that all messages from now on will be posted. If that fails for a webhook,
/// its poster begins later.
pub fn take_leases(state: &State) {
    for webhook in &state.config.webhooks {
        let lease = state
            .backplane
            .lease(&webhook.room, &webhook.name(), None, LEASE);
        if let Err(why) = lease {
            warn!("{webhook} begins later: {why}");
        }
    }
}

/// The handle of the threads.
pub struct Posters {
    /// Dropping it stops them.
    stop: Option<Sender<()>>,
    /// Each thread with a channel that is disconnected once the thread has ended.
    threads: Vec<(JoinHandle<()>, Receiver<()>)>,
}

impl Posters {
    /// Starts a thread for each webhook.
    pub fn start(state: &Arc<State>) -> io::Result<Self> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let webhooks = state.config.webhooks.iter().zip(&state.waiting_since);
        let threads = webhooks.map(|(webhook, waiting_since)| {
            let authorities = webhook.server.authorities(None).map_err(io::Error::other)?;
            let poster = Poster {
                state: Arc::clone(state),
                name: webhook.name(),
                webhook: webhook.clone(),
                authorities,
                waiting_since: Arc::clone(waiting_since),
                posted: None,
                gap_told_before: None,
                backoff: Backoff::new(RETRY_FIRST, RETRY_CAP),
                again_at: None,
                is_in_trouble: false,
                stopped: stopped.clone(),
            };
            let (ends, ended) = crossbeam_channel::bounded::<()>(0);
            let name = format!("webhook-{}", webhook.room);
            let thread = threads::spawn_vital(&name, move || {
                poster.run();
                drop(ends);
            });
            Ok((thread?, ended))
        });
        let threads = threads.collect::<io::Result<_>>()?;
        let stop = Some(stop);
        Ok(Self { stop, threads })
    }

    /// Makes the threads end: they post nothing more, and give up the POST that is under way.
    pub fn stop(&mut self) {
        self.stop = None;
    }

    /// Waits for the threads until the deadline. A thread that still connects, or waits for a name server, is left
    /// behind.
    pub fn close(mut self, deadline: Instant) {
        self.stop();
        for (thread, ended) in self.threads {
            if ended.recv_deadline(deadline) == Err(RecvTimeoutError::Disconnected) {
                // A panic there has ended the process.
                let _ = thread.join();
            }
        }
    }
}

/// The metric of each webhook's lag: the age of the first message that is not posted yet.
pub fn render_lags(state: &State) -> String {
    let mut text = String::new();
    let webhooks = &state.config.webhooks;
    if webhooks.is_empty() {
        return text;
    }
    let names = webhooks.iter().enumerate();
    let names: Vec<_> = names
        .map(|(index, webhook)| format!("{}: {webhook}", index + 1))
        .collect();
    let now = unix_millis(SystemTime::now());
    let lags = state
        .waiting_since
        .iter()
        .map(|since| match since.load(Ordering::Relaxed) {
            0 => 0,
            since => now.saturating_sub(since) / 1000,
        });
    metrics::render_labelled(
        &mut text,
        "hubbub_webhook_lag_seconds",
        "The age of the first message that this instance has to post to a webhook.",
        "webhook",
        names.iter().map(String::as_str).zip(lags),
    );
    text
}

/// The state of one webhook's thread.
struct Poster {
    state: Arc<State>,
    webhook: Webhook,
    name: String,
    authorities: Option<Authorities>,
    /// See [`State::waiting_since`].
    waiting_since: Arc<AtomicU64>,
    /// The last message that was posted, or given up; `None` without the lease.
    posted: Option<MessageId>,
    /// The message before which a gap was told.
    gap_told_before: Option<MessageId>,
    backoff: Backoff,
    /// When a message that was not taken is posted again.
    again_at: Option<Instant>,
    /// Whether the last POST failed, and the log says so.
    is_in_trouble: bool,
    stopped: Receiver<()>,
}

/// The result of one POST.
enum PostResult {
    /// The message was taken, or will never be.
    Done,
    /// The message has to be posted again, after this time at the earliest.
    Again(Duration),
}

impl Poster {
    fn run(mut self) {
        let mut pause = Duration::ZERO;
        while self.stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            pause = self.round();
        }
        // Another instance may take the lease at once.
        if self.posted.is_some() {
            self.lease(Duration::ZERO);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Takes or keeps the lease. Returns the last message that was posted; `None` if another instance has the lease, or
    /// the backplane does not answer.
    fn lease(&mut self, lasts: Duration) -> Option<MessageId> {
        let Webhook { room, .. } = &self.webhook;
        let backplane = &self.state.backplane;
        match backplane.lease(room, &self.name, self.posted, lasts) {
            Ok(last) => {
                if last != self.posted {
                    self.gap_told_before = None;
                }
                if last.is_none() {
                    self.waiting_since.store(0, Ordering::Relaxed);
                }
                self.posted = last;
                last
            }
            Err(why) => {
                self.note_failure("there is no lease", &why);
                None
            }
        }
    }

    /// Posts the messages that wait. Returns the pause before the next round.
    fn round(&mut self) -> Duration {
        let Some(posted) = self.lease(LEASE) else {
            return POLL_EVERY;
        };
        let now = Instant::now();
        if let Some(left) = self.again_at.and_then(|at| at.checked_duration_since(now)) {
            return left.min(POLL_EVERY);
        }
        let page = (Cursor::After(posted), PAGE_MOST);
        let (backplane, room) = (&*self.state.backplane, &self.webhook.room);
        let is_over = || self.is_stopped();
        let excerpt = match read_page(
            backplane,
            Encoding::Json,
            room,
            page,
            PAGE_BYTES,
            None,
            is_over,
        ) {
            Ok(excerpt) => excerpt,
            Err(why) => {
                self.note_failure("the log cannot be read", &why);
                return POLL_EVERY;
            }
        };
        for entry in excerpt.entries {
            self.waiting_since
                .store(entry.message.at, Ordering::Relaxed);
            let id = entry.message.id;
            match self.post_entry(entry) {
                PostResult::Done => {
                    self.again_at = None;
                    self.posted = Some(id);
                }
                PostResult::Again(wait) => {
                    self.again_at = Some(Instant::now() + wait);
                    return Duration::ZERO;
                }
            }
            if self.lease(LEASE) != Some(id) {
                return POLL_EVERY;
            }
        }
        self.waiting_since.store(0, Ordering::Relaxed);
        if excerpt.more {
            Duration::ZERO
        } else {
            POLL_EVERY
        }
    }

    /// Posts a message. If the log has lost messages before it, posts a gap first.
    fn post_entry(&mut self, entry: Entry) -> PostResult {
        let (mut message, room) = (entry.message, self.webhook.room.clone());
        let id = message.id;
        let posted = self.posted.filter(|&posted| posted != MessageId::ZERO);
        if entry.prev != posted && self.gap_told_before != Some(id) {
            let (after, before) = (posted, Some(id));
            let gap = Event::Gap {
                room: room.clone(),
                after,
                before,
            };
            if let again @ PostResult::Again(_) = self.post(&format!("gap-{id}"), &gap) {
                return again;
            }
            metrics::WEBHOOK_GAPS.count();
            let webhook = &self.webhook;
            warn!("the log forgot messages before {id} that were not posted to {webhook}");
            self.gap_told_before = Some(id);
        }
        self.state.conceal(&room, &mut message);
        let event = Event::Message {
            room,
            message,
            looks_like: None,
            via: None,
        };
        self.post(&id.to_string(), &event)
    }

    /// Posts an event. The key names it within the room.
    fn post(&mut self, key: &str, event: &Event) -> PostResult {
        let body = json::encode(event);
        let room = utf8_percent_encode(self.webhook.room.as_str(), NON_ALPHANUMERIC);
        let mut fields = format!("Idempotency-Key: {room}/{key}\r\n");
        if let Some(secret) = &self.state.config.webhook_secret {
            let signature = secret.signature(&body);
            fields.push_str(&format!("X-Hubbub-Signature-256: sha256={signature}\r\n"));
        }
        let patience = Patience {
            due: Instant::now() + POST_WITHIN,
            is_stopped: || self.is_stopped(),
        };
        match post(
            &self.webhook,
            self.authorities.as_ref(),
            &fields,
            &body,
            &patience,
        ) {
            Ok(ResponseHead {
                status: 200..=299, ..
            }) => {
                metrics::WEBHOOK_POSTED.count();
                self.is_well();
                PostResult::Done
            }
            Ok(ResponseHead {
                status: status @ (408 | 429 | 500..),
                retry_after,
                ..
            }) => self.try_again(&format!("it answers {status}"), retry_after),
            Ok(ResponseHead { status, .. }) => {
                metrics::WEBHOOK_FAILED.count();
                warn!(
                    "{key} is not posted to {}: it answers {status}",
                    self.webhook
                );
                self.is_well();
                PostResult::Done
            }
            Err(PostError::Stopped) => PostResult::Again(Duration::ZERO),
            Err(why) => self.try_again(&why.to_string(), None),
        }
    }

    fn try_again(&mut self, why: &str, retry_after: Option<Duration>) -> PostResult {
        metrics::WEBHOOK_RETRIES.count();
        self.tell_trouble(why);
        let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_CAP);
        PostResult::Again(self.backoff.next().max(asked))
    }

    /// Notes that the backplane did not do its part. While it is away, the log has that already. Of what it refuses, such
    /// as a lease whose key holds something else, the log has only the refusal, and the operator has to know what stands
    /// still.
    fn note_failure(&mut self, what: &str, why: &BackplaneError) {
        match why {
            BackplaneError::Refused(_) => self.tell_trouble(&format!("{what}: {why}")),
            BackplaneError::Unavailable
            | BackplaneError::NoAnswer
            | BackplaneError::Overloaded
            | BackplaneError::DiskUnavailable
            | BackplaneError::DiskSilent
            | BackplaneError::RefReused => debug!("{}: {what}: {why}", self.webhook),
        }
    }

    fn tell_trouble(&mut self, why: &str) {
        if !self.is_in_trouble {
            warn!("cannot post to {}, and tries again: {why}", self.webhook);
            self.is_in_trouble = true;
        }
    }

    fn is_well(&mut self) {
        self.backoff.reset();
        if self.is_in_trouble {
            info!("posts to {} again", self.webhook);
            self.is_in_trouble = false;
        }
    }
}
