//! The client's thread: it keeps the rooms and the unanswered sends through every reconnect.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};

use super::link::{FromServer, Link, NoLink, SILENCE, connect};
use super::{Happening, Options};
use crate::backoff::{Backoff, spread};
use crate::backplane::REFS_LAST;
use crate::message::{MessageId, RoomName};
use crate::protocol::{Command, ErrorCode, Event, Ref, json};
use crate::websocket::ClientFrame;

/// How often the client asks whether the server is there. Shorter than [`SILENCE`].
const PING_EVERY: Duration = Duration::from_secs(15);

/// The ceilings of the first and of the longest wait between two attempts.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_CAP: Duration = Duration::from_secs(5);

/// How long to wait before what the server could not do is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// For so long a send may be repeated under its ref: a little less than the server remembers it.
const REF_IS_SAFE: Duration = REFS_LAST.saturating_sub(Duration::from_secs(20));

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

/// What the client remembers of a room, so as to resume it.
struct Room {
    /// The last message seen.
    last: Option<MessageId>,
    /// For the first time: how much of the past to ask for.
    history: Option<usize>,
    state: RoomState,
    /// Whether it is left as soon as nothing that was said there is unanswered.
    parting: bool,
    /// Whether the log began anew, so that its ids may be lower than `last`.
    anew: bool,
}

/// A room on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RoomState {
    Outside,
    /// The server was asked.
    Joining,
    Joined,
}

/// What was sent and not answered yet. Of one room only the first is on its way, so that a retry
/// changes no order.
struct Unanswered {
    room: RoomName,
    text: String,
    reference: Ref,
    /// When it was sent first.
    sent: Option<Instant>,
}

/// What to do about an event.
enum Step {
    /// Nothing: the user has seen it.
    Drop,
    /// The user is told.
    Tell,
    /// The user is told, and the room's next send has its turn.
    TellAndSend(RoomName),
    /// The same is asked again a little later.
    AskAgain,
}

/// The thread's own state.
pub(super) struct Worker {
    options: Options,
    /// How many connections were tried; the servers take turns.
    attempts: usize,
    asked: Receiver<Ask>,
    tell: Sender<Happening>,
    rooms: BTreeMap<RoomName, Room>,
    /// In the order in which they were asked for.
    unanswered: VecDeque<Unanswered>,
    leaving: bool,
    /// When the server, before it closed, asked us to come back.
    come_back_in: Option<Duration>,
    /// The largest frame that the server takes, once it said so.
    max_message: usize,
}

impl Worker {
    pub(super) fn new(options: Options, asked: Receiver<Ask>, tell: Sender<Happening>) -> Self {
        Self {
            options,
            attempts: 0,
            asked,
            tell,
            rooms: BTreeMap::new(),
            unanswered: VecDeque::new(),
            leaving: false,
            come_back_in: None,
            max_message: usize::MAX,
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
                    for room in self.rooms.values_mut() {
                        room.state = RoomState::Outside;
                    }
                    let why = match self.converse(&link, &mut backoff) {
                        Ok(why) => why,
                        Err(error) => error.to_string(),
                    };
                    link.close();
                    why
                }
                Err(NoLink::ForNow(why)) => why,
                Err(NoLink::ForGood(why)) => return self.tell(Happening::Refused(why)),
            };
            if !self.leaving {
                let asked_for = self.come_back_in.take();
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

    /// Waits, and takes note of what is asked meanwhile.
    fn pause(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.leaving {
            match self.asked.recv_deadline(until) {
                Ok(ask) => drop(self.note(ask)),
                Err(_) => return,
            }
        }
    }

    /// Takes note of what is asked; what has to be said to a connected server is returned.
    fn note(&mut self, ask: Ask) -> Vec<Command> {
        match ask {
            Ask::Join {
                room,
                since,
                history,
            } => {
                let mut known = Room {
                    last: since,
                    history,
                    state: RoomState::Outside,
                    parting: false,
                    anew: false,
                };
                let mut commands = vec![known.join(&room)];
                // A room that was still to be left is left first: nobody is in a room twice.
                if self.rooms.insert(room.clone(), known).is_some() {
                    commands.insert(0, Command::Leave { room });
                }
                commands
            }
            Ask::Send {
                room,
                text,
                reference,
            } => {
                // Behind others it waits for its turn.
                let alone = !self.unanswered.iter().any(|u| u.room == room);
                self.unanswered.push_back(Unanswered {
                    room: room.clone(),
                    text,
                    reference,
                    sent: None,
                });
                let command = alone.then(|| self.next_send(&room)).flatten();
                command.into_iter().collect()
            }
            Ask::Other(command) => vec![command],
            Ask::Part(room) => {
                if let Some(known) = self.rooms.get_mut(&room) {
                    known.parting = true;
                }
                self.part(&room).into_iter().collect()
            }
            Ask::Leave => {
                self.leaving = true;
                Vec::new()
            }
        }
    }

    /// One connection's life. `Ok` says why it ended.
    fn converse(&mut self, link: &Link, backoff: &mut Backoff) -> io::Result<String> {
        for (name, room) in &mut self.rooms {
            link.request(&room.join(name))?;
        }
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
                self.ask_again(link)?;
            }
            let wake = ask_again.map_or(next_ping, |at| at.min(next_ping));
            select! {
                recv(self.asked) -> ask => {
                    // The handle is never dropped without asking to leave.
                    let ask = ask.unwrap_or(Ask::Leave);
                    for command in self.note(ask) {
                        link.request(&command)?;
                    }
                    if self.leaving {
                        return self.say_goodbye(link);
                    }
                }
                recv(link.incoming) -> incoming => {
                    heard = Instant::now();
                    match incoming {
                        Ok(FromServer::Event(event)) => {
                            backoff.reset();
                            if self.take(link, event)? && ask_again.is_none() {
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

    /// Joins what could not be joined, and sends what was not answered.
    fn ask_again(&mut self, link: &Link) -> io::Result<()> {
        for (name, room) in &mut self.rooms {
            if room.state == RoomState::Outside {
                link.request(&room.join(name))?;
            }
        }
        let rooms: Vec<RoomName> = self.rooms.keys().cloned().collect();
        for room in &rooms {
            self.send_next(link, room)?;
        }
        Ok(())
    }

    fn send_next(&mut self, link: &Link, room: &RoomName) -> io::Result<()> {
        match self.next_send(room).or_else(|| self.part(room)) {
            Some(command) => link.request(&command),
            None => Ok(()),
        }
    }

    /// Leaves a room that is to be left, if nothing that was said there is unanswered.
    fn part(&mut self, room: &RoomName) -> Option<Command> {
        let done =
            self.rooms.get(room)?.parting && !self.unanswered.iter().any(|u| u.room == *room);
        done.then(|| {
            self.rooms.remove(room);
            Command::Leave { room: room.clone() }
        })
    }

    /// The first unanswered send of a room that is joined. Whether one that is too old for its ref
    /// was stored can no longer be found out: then the user is told, instead of saying it twice.
    fn next_send(&mut self, room: &RoomName) -> Option<Command> {
        if self.rooms.get(room)?.state != RoomState::Joined {
            return None;
        }
        let now = Instant::now();
        loop {
            let first = self.unanswered.iter_mut().find(|u| u.room == *room)?;
            let command = first.command();
            let length = json::request(&command).map_or(0, |frame| frame.len());
            let sent = *first.sent.get_or_insert(now);
            let (code, message) = if length > self.max_message {
                let most = self.max_message;
                let message = format!("not sent: too long, {length} bytes of at most {most}");
                (ErrorCode::BadRequest, message)
            } else if now.duration_since(sent) < REF_IS_SAFE {
                return Some(command);
            } else {
                let message = "not confirmed: it may have been sent or not".to_owned();
                (ErrorCode::Unavailable, message)
            };
            let reference = first.reference.clone();
            self.tell(Happening::Event(Event::Error {
                code,
                message,
                reference: Some(reference.clone()),
                room: Some(room.clone()),
                retry: false,
            }));
            self.answered(&reference);
        }
    }

    /// Takes in an event and passes on what the user has not seen. True if something has to be
    /// asked again later.
    fn take(&mut self, link: &Link, event: Event) -> io::Result<bool> {
        let Some(event) = self.enter(event) else {
            return Ok(false);
        };
        match self.digest(&event) {
            Step::Drop => return Ok(false),
            Step::AskAgain => return Ok(true),
            Step::Tell => self.tell(Happening::Event(event)),
            Step::TellAndSend(room) => {
                self.tell(Happening::Event(event));
                self.send_next(link, &room)?;
            }
        }
        Ok(false)
    }

    /// When a room was entered: notes where it stands, tells of a gap, and leaves only what the
    /// user has not seen. Other events pass. `None` for a room that nobody asked for.
    fn enter(&mut self, event: Event) -> Option<Event> {
        let Event::Room {
            room: name,
            members,
            mut messages,
            recovered,
            last,
        } = event
        else {
            return Some(event);
        };
        let room = self.rooms.get_mut(&name)?;
        let seen = room.last;
        room.state = RoomState::Joined;
        // A log whose end is before what was seen lost it, and goes on from there.
        room.anew = !recovered && last < seen;
        // In an empty room, whatever is said while we are away comes after the least id.
        room.last = last.or(seen).or(Some(MessageId::ZERO));
        messages.retain(|message| seen.is_none_or(|seen| message.id > seen));
        if let (Some(after), false) = (seen, recovered) {
            self.tell(Happening::Event(Event::Gap {
                room: name.clone(),
                after: Some(after),
                before: messages.first().map(|message| message.id),
            }));
        }
        Some(Event::Room {
            room: name,
            members,
            messages,
            recovered,
            last,
        })
    }

    fn digest(&mut self, event: &Event) -> Step {
        match event {
            Event::Room { room, .. } => Step::TellAndSend(room.clone()),
            Event::Message { room, message, .. } => match self.rooms.get_mut(room) {
                Some(room) if room.anew || room.last.is_none_or(|last| message.id > last) => {
                    room.anew = false;
                    room.last = Some(message.id);
                    Step::Tell
                }
                Some(_) | None => Step::Drop,
            },
            Event::Gap { room, before, .. } => {
                if let (Some(room), None) = (self.rooms.get_mut(room), before) {
                    room.anew = true;
                }
                Step::Tell
            }
            Event::Sent {
                reference: Some(reference),
                room,
                ..
            } => {
                self.answered(reference);
                Step::TellAndSend(room.clone())
            }
            Event::Error {
                reference: Some(reference),
                room,
                retry,
                ..
            } => {
                if *retry && self.unanswered.iter().any(|u| u.reference == *reference) {
                    return Step::AskAgain;
                }
                self.answered(reference);
                room.clone().map_or(Step::Tell, Step::TellAndSend)
            }
            Event::Error {
                reference: None,
                room: Some(name),
                retry,
                ..
            } => match self.rooms.get_mut(name) {
                Some(room) if room.state == RoomState::Joining => {
                    room.state = RoomState::Outside;
                    if *retry {
                        return Step::AskAgain;
                    }
                    // It will not be entered, and so nothing can be said there.
                    self.rooms.remove(name);
                    self.unanswered
                        .retain(|unanswered| unanswered.room != *name);
                    Step::Tell
                }
                Some(_) | None => Step::Tell,
            },
            Event::Welcome { limits, .. } => {
                self.max_message = limits.max_message;
                Step::Tell
            }
            Event::Closing { retry_after_ms, .. } => {
                self.come_back_in = Some(Duration::from_millis(*retry_after_ms));
                Step::Tell
            }
            _ => Step::Tell,
        }
    }

    fn answered(&mut self, reference: &Ref) {
        // Nearly always the first: no other of its room is on its way.
        let index = self
            .unanswered
            .iter()
            .position(|unanswered| unanswered.reference == *reference);
        if let Some(index) = index {
            self.unanswered.remove(index);
        }
    }
}

impl Unanswered {
    fn command(&self) -> Command {
        Command::Send {
            room: self.room.clone(),
            text: self.text.clone(),
            reference: Some(self.reference.clone()),
        }
    }
}

impl Room {
    /// Asks for the room, from where it stands.
    fn join(&mut self, name: &RoomName) -> Command {
        self.state = RoomState::Joining;
        Command::Join {
            room: name.clone(),
            since: self.last,
            history: self.history,
        }
    }
}
