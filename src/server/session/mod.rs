//! One user's conversation: commands in, events into their outbox. Knows no socket.
//!
//! A session runs on its connection's reading thread, and that thread alone. It may wait for the
//! backplane and for its own user, never for another's. When it ends, however it ends, its user is
//! out of every room it was in.

mod answers;
mod in_flight;
mod membership;
mod pace;
mod past;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use log::info;

use self::answers::not_joined;
pub use self::answers::{receipt, refused, too_fast};
use self::in_flight::InFlight;
use self::membership::Membership;
use self::pace::{PAUSE, Pace, Verdict};
pub use self::past::{PAGE_DEFAULT, PAGE_MOST, gather, messages};
use crate::backplane::{Backplane, BackplaneError, Departure, Draft};
use crate::hub::Hub;
use crate::hub::outbox::Outbox;
use crate::message::{ConnectionId, MessageId, RoomName, UserName, Via};
use crate::metrics;
use crate::protocol::{Command, Encoding, ErrorCode, Event, Limits, Ref, json, text};
use crate::server::config::Config;
use crate::server::limits::Paces;
use crate::websocket::code;

/// What all sessions of an instance share.
pub struct Instance {
    /// Its options.
    pub config: Config,
    /// Its rooms.
    pub hub: Arc<Hub>,
    /// What it shares with the other instances.
    pub backplane: Box<dyn Backplane>,
    /// How fast users send who have no session, or had one a moment ago.
    pub paces: Paces,
    /// Whether it is being torn down, and so takes nothing new.
    closing: AtomicBool,
}

impl Instance {
    /// An instance that takes what comes.
    pub fn new(config: Config, hub: Arc<Hub>, backplane: Box<dyn Backplane>) -> Self {
        Self {
            paces: Paces::new(config.send_rate, config.send_burst),
            config,
            hub,
            backplane,
            closing: AtomicBool::new(false),
        }
    }

    /// The first thing said on a user's connection.
    pub fn welcome(&self, user: &UserName) -> Event {
        Event::Welcome {
            user: user.clone(),
            instance: self.hub.instance().to_string(),
            limits: Limits {
                max_message: self.config.max_message,
                rooms: self.config.rooms_per_connection,
                page: PAGE_MOST,
            },
        }
    }

    /// From now on nothing new is taken.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether it is being torn down.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

/// One user's conversation.
pub struct Session {
    instance: Arc<Instance>,
    connection: ConnectionId,
    user: UserName,
    outbox: Arc<Outbox>,
    rooms: BTreeMap<RoomName, Membership>,
    /// In the text encoding: the one room.
    room: RoomName,
    in_flight: Arc<InFlight>,
    pace: Pace,
    /// The rooms that the token allows; `None` for all.
    allowed: Option<Vec<RoomName>>,
    departure: Departure,
}

impl Session {
    /// Begins a conversation, whose first word is the [`Instance::welcome`]; `room` is the one of the
    /// text encoding, `allowed` the rooms that may be entered (`None` for all).
    pub fn begin(
        instance: Arc<Instance>,
        connection: ConnectionId,
        user: UserName,
        room: RoomName,
        allowed: Option<Vec<RoomName>>,
        outbox: Arc<Outbox>,
    ) -> Self {
        let pace = Pace::new(instance.paces.bucket(&user, Instant::now()));
        Self {
            instance,
            connection,
            user,
            outbox,
            rooms: BTreeMap::new(),
            room,
            in_flight: Arc::default(),
            pace,
            allowed,
            departure: Departure::Dropped,
        }
    }

    /// In the text encoding, enters the one room; without it there is no conversation.
    pub fn enter(&mut self, since: Option<MessageId>, history: Option<usize>) {
        if !self.waits_for_turn() {
            return;
        }
        let room = self.room.clone();
        if let Err(error) = self.join(room, since, history) {
            self.cannot("cannot enter the room", &self.room, &error);
            self.outbox
                .close(code::TRY_AGAIN_LATER, "the room cannot be entered now");
        }
    }

    /// Takes one message that the client sent, when its turn has come.
    pub fn take(&mut self, frame: &str) {
        let parsed = match self.outbox.encoding() {
            Encoding::Text => text::parse(frame, &self.room),
            Encoding::Json => json::parse(frame),
        };
        // Without a token a send is refused and a typing notice is dropped, so they do not wait for one.
        let waits = !matches!(parsed, Ok(Command::Send { .. } | Command::Typing { .. }));
        if waits && !self.waits_for_turn() {
            return;
        }
        match parsed {
            Ok(command) => self.run(command),
            Err(rejection) => self.answer(&rejection.into()),
        }
    }

    /// Waits for a token, on the reading thread, so that the client is not read meanwhile. False if the
    /// outbox ended first, as it does when the client is gone and in a teardown.
    fn waits_for_turn(&mut self) -> bool {
        while let Err(wait) = self.pace.take(Instant::now()) {
            if !self.outbox.stays_open_for(wait) {
                return false;
            }
        }
        true
    }

    /// Waits until everything that the client sent is answered, as it will be in bounded time.
    pub fn settle(&self) {
        self.in_flight.settle();
    }

    /// Notes that the client said goodbye, so that nobody waits for it to come back.
    pub fn says_goodbye(&mut self) {
        self.departure = Departure::Clean;
    }

    fn run(&mut self, command: Command) {
        match command {
            Command::Join {
                room,
                since,
                history,
            } => {
                if let Err(error) = self.join(room.clone(), since, history) {
                    self.cannot(&format!("cannot join {room}"), &room, &error);
                }
            }
            Command::Leave { room } => {
                if self.is_in(&room) {
                    self.rooms.remove(&room);
                    self.answer(&Event::Parted { room });
                }
            }
            Command::Send {
                room,
                text,
                reference,
            } => self.send(room, text, reference),
            Command::History { room, page, limit } => {
                if self.is_in(&room) {
                    self.history(&room, page, limit.unwrap_or(PAGE_DEFAULT));
                }
            }
            Command::Members { room } => {
                if self.is_in(&room) {
                    match self.instance.backplane.members(&room) {
                        Ok(members) => self.answer(&Event::Members { room, members }),
                        Err(error) => self.cannot("cannot tell who is here", &room, &error),
                    }
                }
            }
            Command::Typing { room } => self.typing(&room),
            Command::Help => self.answer(&Event::Help),
        }
    }

    /// What a user asks for is paced by how fast they read.
    fn answer(&self, event: &Event) {
        if self.outbox.wait_for_space() {
            self.outbox.send(event);
        }
    }

    fn cannot(&self, what: &str, room: &RoomName, error: &BackplaneError) {
        self.answer(&refused(what, Some(room), None, error));
    }

    fn is_in(&self, room: &RoomName) -> bool {
        if self.rooms.contains_key(room) {
            return true;
        }
        self.answer(&Event::Error {
            code: ErrorCode::NotJoined,
            message: not_joined(room),
            reference: None,
            room: Some(room.clone()),
            retry: false,
        });
        false
    }

    fn send(&mut self, room: RoomName, text: String, reference: Option<Ref>) {
        match self.pace.send(Instant::now()) {
            Verdict::InTime => {}
            Verdict::TooFast(wait) => return self.too_fast(room, reference, wait),
            Verdict::TooFastForTooLong => {
                metrics::TOO_FAST.count();
                self.settle();
                return self.outbox.close(code::POLICY, "too fast for too long");
            }
        }
        let reject = |code, message: &str, reference: Option<Ref>, retry| {
            self.answer(&Event::Error {
                code,
                message: format!("not sent: {message}"),
                reference,
                room: Some(room.clone()),
                retry,
            });
        };
        if text.is_empty() {
            return reject(
                ErrorCode::Empty,
                "there is nothing to say",
                reference,
                false,
            );
        }
        if !self.rooms.contains_key(&room) {
            return reject(ErrorCode::NotJoined, &not_joined(&room), reference, false);
        }
        if self.instance.is_closing() {
            let message = "the server is closing, try again";
            return reject(ErrorCode::Closing, message, reference, true);
        }
        self.in_flight.enter();
        let draft = Draft {
            room: room.clone(),
            from: self.user.clone(),
            text,
            reference: reference.clone(),
            via: Some(Via {
                instance: self.instance.hub.instance(),
                connection: self.connection,
            }),
        };
        let outbox = Arc::clone(&self.outbox);
        let in_flight = Arc::clone(&self.in_flight);
        self.instance.backplane.publish(
            draft,
            Box::new(move |outcome| {
                outbox.send(&receipt(outcome, room, reference));
                in_flight.exit();
            }),
        );
    }

    /// Best effort, so one that comes too fast is dropped like any that is not needed.
    fn typing(&mut self, room: &RoomName) {
        if self.pace.take(Instant::now()).is_err() {
            thread::sleep(PAUSE);
        } else if self.rooms.contains_key(room) {
            self.instance.backplane.typing(room, &self.user);
        }
    }

    fn too_fast(&self, room: RoomName, reference: Option<Ref>, wait: Duration) {
        let rate = self.instance.config.send_rate;
        self.answer(&too_fast(rate, wait, room, reference));
        // Nothing is waited for here: not to be read for a while is the answer's other half.
        thread::sleep(PAUSE);
    }

    /// Enters a room: subscribe, then read, then merge with what was said meanwhile.
    fn join(
        &mut self,
        room: RoomName,
        since: Option<MessageId>,
        history: Option<usize>,
    ) -> Result<(), BackplaneError> {
        let most = self.instance.config.rooms_per_connection;
        let allowed = |room| {
            self.allowed
                .as_ref()
                .is_none_or(|rooms| rooms.contains(room))
        };
        let refusal = if !allowed(&room) {
            metrics::UNAUTHORIZED.count();
            let message = format!("the token does not allow the room {room}");
            Some((ErrorCode::Forbidden, message))
        } else if self.rooms.contains_key(&room) {
            Some((
                ErrorCode::AlreadyJoined,
                format!("in the room {room} already"),
            ))
        } else if self.rooms.len() >= most {
            let message = format!("a connection may be in {most} rooms at a time");
            Some((ErrorCode::TooManyRooms, message))
        } else {
            None
        };
        if let Some((code, message)) = refusal {
            self.answer(&Event::Error {
                code,
                message,
                reference: None,
                room: Some(room),
                retry: false,
            });
            return Ok(());
        }
        // What a user asks for is paced by how fast they read.
        self.outbox.wait_for_space();
        let (instance, outbox) = (&self.instance, &self.outbox);
        let mut membership =
            Membership::begin(instance, &room, self.connection, &self.user, outbox);
        membership.arrive()?;
        self.read_past(&room, since, history)?;
        info!("{:?} joined {room:?}", self.user);
        self.rooms.insert(room, membership);
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let paces = &self.instance.paces;
        paces.keep(&self.user, self.pace.bucket(), Instant::now());
        for (room, mut membership) in std::mem::take(&mut self.rooms) {
            membership.departure = self.departure;
            drop(membership);
            info!("{:?} left {room:?}", self.user);
        }
    }
}
