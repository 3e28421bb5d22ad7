//! The client's thread: it connects again whenever the connection is lost, and does there what the
//! [`Memory`] says.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};

use super::link::{FromServer, Link, NoLink, connect};
use super::memory::{Memory, Step};
use super::{Happening, Options};
use crate::backoff::{Backoff, spread};
use crate::message::{MessageId, RoomName};
use crate::protocol::{Command, Event, Ref};
use crate::websocket::client::ClientFrame;

/// The pause between two pings. Shorter than [`SILENCE`](super::link::SILENCE).
const PING_EVERY: Duration = Duration::from_secs(15);

/// The ceilings of the first and of the longest wait between two attempts.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_CAP: Duration = Duration::from_secs(5);

/// The pause before a request is repeated that the server could not do.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The time that the server has to answer a goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// A request of the handle.
pub(super) enum Ask {
    Join {
        room: RoomName,
        since: Option<MessageId>,
        history: Option<usize>,
    },
    Send {
        room: RoomName,
        text: String,
        reference: Ref,
    },
    Other(Command),
    /// Leave a room, once all sends there are answered.
    Part(RoomName),
    Leave,
}

/// The thread's own state.
pub(super) struct Worker {
    options: Options,
    /// The number of connections that were tried; the servers take turns.
    attempts: usize,
    asked: Receiver<Ask>,
    tell: Sender<Happening>,
    memory: Memory,
    leaving: bool,
}

impl Worker {
    pub(super) fn new(options: Options, asked: Receiver<Ask>, tell: Sender<Happening>) -> Self {
        Self {
            options,
            attempts: 0,
            asked,
            tell,
            memory: Memory::new(),
            leaving: false,
        }
    }

    pub(super) fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        while !self.leaving {
            let server = &self.options.servers[self.attempts % self.options.servers.len()];
            self.attempts += 1;
            let why = match connect(server, &self.options) {
                Ok(link) => {
                    self.tell(Happening::Connected);
                    let why = self.converse(&link, &mut backoff);
                    link.close();
                    self.memory.disconnected();
                    why
                }
                Err(NoLink::ForNow(why)) => why,
                Err(NoLink::ForGood(why)) => return self.tell(Happening::Refused(why)),
            };
            if !self.leaving {
                let asked_for = self.memory.come_back_in();
                let retry_in = asked_for.map_or_else(|| backoff.next(), spread);
                self.tell(Happening::Disconnected { why, retry_in });
                self.pause(retry_in);
            }
        }
    }

    /// Waits until there is room for it. Meanwhile nothing is read and no ping is answered, so that
    /// the server ends the connection after a while (when the outbox is full or a write takes too
    /// long, or after the silence that follows a ping). What was told until then is resumed from.
    fn tell(&self, happening: Happening) {
        // The user may have dropped the receiver; then `leaving` follows.
        let _ = self.tell.send(happening);
    }

    fn tell_events(&self, events: Vec<Event>) {
        for event in events {
            self.tell(Happening::Event(event));
        }
    }

    /// Waits, and takes note of what is asked meanwhile.
    fn pause(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.leaving {
            match self.asked.recv_deadline(until) {
                Ok(ask) => {
                    // Without a connection nothing is said but what was asked in passing, and that
                    // is not worth repeating.
                    let step = self.note(ask);
                    self.tell_events(step.tell);
                }
                Err(_) => return,
            }
        }
    }

    /// Takes note of what is asked.
    fn note(&mut self, ask: Ask) -> Step {
        match ask {
            Ask::Join {
                room,
                since,
                history,
            } => self.memory.join(&room, since, history),
            Ask::Send {
                room,
                text,
                reference,
            } => self.memory.send(&room, text, reference, Instant::now()),
            Ask::Other(command) => Step {
                say: vec![command],
                ..Step::default()
            },
            Ask::Part(room) => self.memory.part(&room),
            Ask::Leave => {
                self.leaving = true;
                Step::default()
            }
        }
    }

    /// Does what follows. True if something has to be asked again later, and the user is told why.
    fn follow(&mut self, link: &Link, step: Step) -> bool {
        self.tell_events(step.tell);
        for command in &step.say {
            let now = Instant::now();
            if link.request(command) {
                self.memory.gives(command, now);
            }
        }
        let asks_again = step.ask_again.is_some();
        if let Some(why) = step.ask_again {
            self.tell(Happening::Postponed(why));
        }
        asks_again
    }

    /// One connection's life, and why it ended.
    fn converse(&mut self, link: &Link, backoff: &mut Backoff) -> String {
        let step = self.memory.connected();
        self.follow(link, step);
        let mut next_ping = Instant::now() + PING_EVERY;
        let mut ask_again: Option<Instant> = None;
        loop {
            let now = Instant::now();
            if now >= next_ping {
                next_ping = now + PING_EVERY;
                link.write(ClientFrame::Ping);
            }
            if ask_again.is_some_and(|at| now >= at) {
                ask_again = None;
                let step = self.memory.ask_again(now);
                self.follow(link, step);
            }
            let wake = ask_again.map_or(next_ping, |at| at.min(next_ping));
            select! {
                recv(self.asked) -> ask => {
                    // The handle is never dropped without asking to leave.
                    let step = self.note(ask.unwrap_or(Ask::Leave));
                    self.follow(link, step);
                    if self.leaving {
                        return say_goodbye(link);
                    }
                }
                recv(link.incoming) -> incoming => match incoming {
                    Ok(FromServer::Event(event)) => {
                        backoff.reset();
                        let step = self.memory.take(event, Instant::now());
                        if self.follow(link, step) && ask_again.is_none() {
                            ask_again = Some(Instant::now() + spread(ASK_AGAIN));
                        }
                    }
                    Ok(FromServer::Reply(frames)) => {
                        link.pass_on(&frames);
                    }
                    Ok(FromServer::Alive) => {}
                    Ok(FromServer::Ended(why)) => return why,
                    Err(_) => return "the connection ended".to_owned(),
                },
                default(wake.saturating_duration_since(now)) => {}
            }
        }
    }
}

/// The server's answer to our close frame tells that it took everything before. Nobody is told any more
/// what it says until then.
fn say_goodbye(link: &Link) -> String {
    link.write(ClientFrame::Goodbye);
    let deadline = Instant::now() + GOODBYE_WITHIN;
    while let Ok(incoming) = link.incoming.recv_deadline(deadline) {
        if matches!(incoming, FromServer::Ended(_)) {
            break;
        }
    }
    "goodbye".to_owned()
}
