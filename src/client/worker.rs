//! The client's thread: it connects again whenever the connection is lost, and does there what the
//! [`Memory`] says.

use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};

use super::link::{FromServer, Link, NoLink, SILENCE, connect};
use super::memory::{Memory, Step};
use super::{Happening, Options};
use crate::backoff::{Backoff, spread};
use crate::message::{MessageId, RoomName};
use crate::protocol::{Command, Event, Ref};
use crate::websocket::ClientFrame;

/// How often the client asks whether the server is there. Shorter than [`SILENCE`].
const PING_EVERY: Duration = Duration::from_secs(15);

/// The ceilings of the first and of the longest wait between two attempts.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_CAP: Duration = Duration::from_secs(5);

/// How long to wait before what the server could not do is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// How long a goodbye may take to be answered.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// What the handle asks for.
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
    /// Leave a room, once what was said there is answered.
    Part(RoomName),
    Leave,
}

/// The thread's own state.
pub(super) struct Worker {
    options: Options,
    /// How many connections were tried; the servers take turns.
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
                    let why = match self.converse(&link, &mut backoff) {
                        Ok(why) => why,
                        Err(error) => error.to_string(),
                    };
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

    fn tell(&self, happening: Happening) {
        // Whoever listened may be gone; then `leaving` follows.
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
    fn follow(&mut self, link: &Link, step: Step) -> io::Result<bool> {
        self.tell_events(step.tell);
        for command in &step.say {
            self.memory.gives(command, Instant::now());
            link.request(command)?;
        }
        let asks_again = step.ask_again.is_some();
        if let Some(why) = step.ask_again {
            self.tell(Happening::Postponed(why));
        }
        Ok(asks_again)
    }

    /// One connection's life. `Ok` says why it ended.
    fn converse(&mut self, link: &Link, backoff: &mut Backoff) -> io::Result<String> {
        let step = self.memory.connected();
        self.follow(link, step)?;
        let mut next_ping = Instant::now() + PING_EVERY;
        let mut heard = Instant::now();
        let mut ask_again: Option<Instant> = None;
        loop {
            let now = Instant::now();
            if now.duration_since(heard) > SILENCE {
                return Ok("the server is silent".to_owned());
            }
            if now >= next_ping {
                next_ping = now + PING_EVERY;
                link.write(ClientFrame::Ping)?;
            }
            if ask_again.is_some_and(|at| now >= at) {
                ask_again = None;
                let step = self.memory.ask_again(now);
                self.follow(link, step)?;
            }
            let wake = ask_again.map_or(next_ping, |at| at.min(next_ping));
            select! {
                recv(self.asked) -> ask => {
                    // The handle is never dropped without asking to leave.
                    let step = self.note(ask.unwrap_or(Ask::Leave));
                    self.follow(link, step)?;
                    if self.leaving {
                        return self.say_goodbye(link);
                    }
                }
                recv(link.incoming) -> incoming => {
                    heard = Instant::now();
                    match incoming {
                        Ok(FromServer::Event(event)) => {
                            backoff.reset();
                            let step = self.memory.take(event, heard);
                            if self.follow(link, step)? && ask_again.is_none() {
                                ask_again = Some(Instant::now() + spread(ASK_AGAIN));
                            }
                        }
                        Ok(FromServer::Reply(frames)) => link.reply(&frames)?,
                        Ok(FromServer::Alive) => {}
                        Ok(FromServer::Ended(why)) => return Ok(why),
                        Err(_) => return Ok("the connection ended".to_owned()),
                    }
                }
                default(wake.saturating_duration_since(now)) => {}
            }
        }
    }

    /// The server's answer to our close frame tells that it took everything before.
    fn say_goodbye(&self, link: &Link) -> io::Result<String> {
        link.write(ClientFrame::Goodbye)?;
        let deadline = Instant::now() + GOODBYE_WITHIN;
        while let Ok(incoming) = link.incoming.recv_deadline(deadline) {
            match incoming {
                FromServer::Ended(_) => break,
                FromServer::Event(event) => self.tell(Happening::Event(event)),
                FromServer::Reply(_) | FromServer::Alive => {}
            }
        }
        Ok("goodbye".to_owned())
    }
}
