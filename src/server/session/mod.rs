//! The session of one user: it takes commands, and sends events to the user's outbox. It knows no
//! socket.
//!
//! A session runs on its connection's reader thread, and on no other. It may wait for the backplane and
//! for its own user, but never for another user. When it ends, also by a panic, its user leaves every
//! room ([`membership`]). The moderator alone may take it out of one before ([`memberships`]). A [`Follower`] is the
//! same for a connection that only listens.

mod in_flight;
mod membership;
mod memberships;
mod put_out;
mod joiner;
mod past;
mod follower;
mod rate_limiter;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::info;

pub use self::follower::Follower;
use self::in_flight::InFlight;
use self::joiner::Joiner;
pub use self::memberships::Memberships;
pub use self::put_out::{PUT_OUT, put_out, tell_parted};
use self::rate_limiter::{Decision, PAUSE, RateLimiter};
use crate::backplane::{BackplaneError, Departure, Draft};
use crate::hub::outbox::Outbox;
use crate::message::{ConnectionId, MessageId, RoomName, UserName, Via};
use crate::metrics;
use crate::protocol::{Command, Encoding, ErrorCode, Event, Limits, Ref, json, text};
use crate::server::answers::{NOT_LISTED, failed, receipt, too_fast};
use crate::server::grant::{Grant, READ_ONLY};
use crate::server::history::{PAGE_DEFAULT, PAGE_MOST};
use crate::server::state::State;
use crate::websocket::code;

/// The first event on a user's connection.
pub fn welcome(state: &State, user: &UserName, grant: &Grant) -> Event {
    Event::Welcome {
        user: user.clone(),
        instance: state.hub.instance().to_string(),
        limits: Limits {
            max_message: state.config.max_message,
            rooms: state.config.rooms_per_connection,
            page: PAGE_MOST,
        },
        readonly: grant.is_read_only(),
    }
}

/// The session of one user on one connection.
pub struct Session {
    state: Arc<State>,
    connection: ConnectionId,
    user: UserName,
    outbox: Arc<Outbox>,
    rooms: Arc<Memberships>,
    /// The room that the request named, or the lobby: the one room of a connection in the text encoding.
    first_room: RoomName,
    in_flight: Arc<InFlight>,
    limiter: RateLimiter,
    /// What the token allows.
    grant: Arc<Grant>,
    departure: Departure,
}

impl Session {
    /// Begins a session, after the [`welcome`]. `first_room` is the room that the request names, or the lobby.
    pub fn begin(
        state: Arc<State>,
        connection: ConnectionId,
        user: UserName,
        first_room: RoomName,
        grant: Arc<Grant>,
        outbox: Arc<Outbox>,
    ) -> Self {
        let now = Instant::now();
        let sends = state.buckets.bucket(&user, now);
        let limiter = RateLimiter::new(sends, state.command_buckets.bucket(&user, now));
        Self {
            state,
            connection,
            user,
            outbox,
            rooms: Arc::default(),
            first_room,
            in_flight: Arc::default(),
            limiter,
            grant,
            departure: Departure::Dropped,
        }
    }

    /// Its memberships, one for each room.
    pub fn memberships(&self) -> &Arc<Memberships> {
        &self.rooms
    }

    /// Joins the session's rooms, and reads their past.
    fn joiner(&self) -> Joiner<'_> {
        Joiner {
            state: &self.state,
            connection: self.connection,
            user: Some(&self.user),
            outbox: &self.outbox,
            rooms: &self.rooms,
            grant: &self.grant,
        }
    }

    /// Joins the room that the request names. In the text encoding there is no other: if it cannot be entered, the
    /// connection is closed.
    pub fn join_first_room(&mut self, since: Option<MessageId>, history: Option<usize>) {
        if !self.waits_for(RateLimiter::take_command) {
            return;
        }
        let is_only = self.outbox.encoding() == Encoding::Text;
        if let Err(error) = self.join(self.first_room.clone(), since, history) {
            self.fail("cannot enter the room", &self.first_room, &error);
            if is_only {
                self.outbox
                    .close(code::TRY_AGAIN_LATER, "the room cannot be entered now");
            }
        } else if is_only && self.rooms.len() == 0 {
            // It was closed since the request was checked, and there is no other.
            self.outbox.close(code::PUT_OUT, PUT_OUT);
        }
    }

    /// Handles one message of the client.
    pub fn handle(&mut self, message: &str) {
        let parsed = match self.outbox.encoding() {
            Encoding::Text => text::parse(message, &self.first_room),
            Encoding::Json | Encoding::EventStream | Encoding::JsonLines => json::parse(message),
        };
        let waits = match &parsed {
            // Without a token, these are refused, and a typing notice is dropped.
            Ok(
                Command::Send { .. }
                | Command::Join { .. }
                | Command::History { .. }
                | Command::Members { .. }
                | Command::Rooms { .. }
                | Command::Typing { .. },
            ) => false,
            // A leave costs others no more than its join, which had a token.
            Ok(Command::Leave { .. } | Command::Renew { .. } | Command::Help) | Err(_) => true,
        };
        if waits && !self.waits_for(RateLimiter::take) {
            return;
        }
        if self.ends_with_token() {
            return;
        }
        match parsed {
            Ok(command) => self.run(command),
            Err(rejection) => self.answer(&rejection.into()),
        }
    }

    /// See [`Joiner::ends_with_token`].
    fn ends_with_token(&self) -> bool {
        self.joiner().ends_with_token()
    }

    /// Waits for a token. It waits on the reader thread, so the client is not read meanwhile. Returns
    /// false if the outbox ended first: the client is gone, or the instance is being torn down.
    fn waits_for(&mut self, take: fn(&mut RateLimiter, Instant) -> Result<(), Duration>) -> bool {
        while let Err(wait) = take(&mut self.limiter, Instant::now()) {
            if !self.outbox.stays_open_for(wait) {
                return false;
            }
        }
        true
    }

    /// Waits until every send has its receipt. The wait is bounded, since each receipt is.
    pub fn settle(&self) {
        self.in_flight.wait_until_none();
    }

    /// Notes that the client said goodbye: its user leaves at once, without the grace of a broken
    /// connection.
    pub fn note_goodbye(&mut self) {
        self.departure = Departure::Clean;
    }

    fn run(&mut self, command: Command) {
        match command {
            Command::Join {
                room,
                since,
                history,
            } => {
                if !self.may_ask(&format!("cannot join {room}"), Some(&room)) {
                    return;
                }
                if let Err(error) = self.join(room.clone(), since, history) {
                    self.fail(&format!("cannot join {room}"), &room, &error);
                }
            }
            Command::Leave { room } => {
                if self.is_in(&room) {
                    self.rooms.remove(&room);
                    self.answer(&Event::Parted { room, reason: None });
                }
            }
            Command::Send {
                room,
                text,
                reference,
            } => self.send(room, text, reference),
            Command::History { room, page, limit } => {
                if self.may_ask("cannot read the history", Some(&room)) && self.is_in(&room) {
                    let limit = limit.unwrap_or(PAGE_DEFAULT);
                    self.joiner().history(&room, page, limit);
                }
            }
            Command::Members { room } => {
                if self.may_ask("cannot tell who is here", Some(&room)) && self.is_in(&room) {
                    match self.state.backplane.members(&room) {
                        Ok(members) => self.answer(&Event::Members {
                            alike: self.state.hub.alike(&room, None),
                            room,
                            members,
                        }),
                        Err(error) => self.fail("cannot tell who is here", &room, &error),
                    }
                }
            }
            Command::Rooms { prefix, limit } => self.list_rooms(&prefix, limit),
            Command::Typing { room } => self.typing(&room),
            Command::Renew { token } => self.renew(&token),
            Command::Help => self.answer(&Event::Help),
        }
    }

    /// See [`Joiner::answer`].
    fn answer(&self, event: &Event) {
        self.joiner().answer(event);
    }

    /// Answers that the backplane could not carry out a request.
    fn fail(&self, what: &str, room: &RoomName, error: &BackplaneError) {
        self.answer(&failed(what, Some(room), None, error));
    }

    /// Answers that a request is refused.
    fn refuse(
        &self,
        code: ErrorCode,
        message: String,
        room: Option<RoomName>,
        reference: Option<Ref>,
    ) {
        self.answer(&Event::Error {
            code,
            message,
            reference,
            room,
            retry: code == ErrorCode::Closing,
            retry_after_ms: None,
        });
    }

    /// Whether a command that costs others may be done now. If not, the answer says so. `what` begins it.
    fn may_ask(&mut self, what: &str, room: Option<&RoomName>) -> bool {
        let decision = self.limiter.command(Instant::now());
        let rate = self.state.config.command_rate();
        self.obeys(decision, |wait| {
            too_fast(what, rate, wait, room.cloned(), None)
        })
    }

    /// Does what the rate limiter has decided. Returns whether the request is allowed.
    fn obeys(&self, decision: Decision, refusal: impl FnOnce(Duration) -> Event) -> bool {
        match decision {
            Decision::Allow => true,
            Decision::Refuse(wait) => {
                self.answer(&refusal(wait));
                // The client is not read meanwhile; see `rate_limiter`.
                thread::sleep(PAUSE);
                false
            }
            Decision::Close => {
                metrics::TOO_FAST.count();
                self.settle();
                self.outbox.close(code::POLICY, "too fast for too long");
                false
            }
        }
    }

    /// Whether the user is in this room. If not, the answer says so.
    fn is_in(&self, room: &RoomName) -> bool {
        let is_in = self.rooms.contains(room);
        if !is_in {
            self.refuse(
                ErrorCode::NotJoined,
                not_joined(room),
                Some(room.clone()),
                None,
            );
        }
        is_in
    }

    /// Publishes a message. Its receipt goes into the outbox once the backplane has answered.
    fn send(&mut self, room: RoomName, text: String, reference: Option<Ref>) {
        let decision = self.limiter.send(Instant::now());
        let rate = self.state.config.send_rate;
        let refusal = |wait| {
            too_fast(
                "not sent",
                rate,
                wait,
                Some(room.clone()),
                reference.clone(),
            )
        };
        if !self.obeys(decision, refusal) {
            return;
        }
        if let Some((code, why)) = self.reason_not_to_send(&room, &text) {
            return self.refuse(code, format!("not sent: {why}"), Some(room), reference);
        }
        let bytes = text.len();
        self.in_flight.add(bytes);
        let hub = &self.state.hub;
        let via = Via {
            instance: hub.instance(),
            connection: self.connection,
        };
        let is_timed = hub.stopwatch.start(&room, via, &text);
        let timed_by = is_timed.then(|| Arc::clone(hub));
        let draft = Draft {
            room: room.clone(),
            from: self.user.clone(),
            text,
            reference: reference.clone(),
            via: Some(via),
        };
        let outbox = Arc::clone(&self.outbox);
        let in_flight = Arc::clone(&self.in_flight);
        self.state.backplane.publish(
            draft,
            Box::new(move |stored| {
                let arrives = stored.as_ref().is_ok_and(|stored| !stored.duplicate);
                if let Some(hub) = timed_by
                    && !arrives
                {
                    hub.stopwatch.give_up();
                }
                outbox.send(&receipt(stored, room, reference));
                in_flight.remove(bytes);
            }),
        );
    }

    fn reason_not_to_send(&self, room: &RoomName, text: &str) -> Option<(ErrorCode, String)> {
        if self.grant.is_read_only() {
            metrics::UNAUTHORIZED.count();
            return Some((ErrorCode::Forbidden, READ_ONLY.to_owned()));
        }
        if text.is_empty() {
            return Some((ErrorCode::Empty, "there is nothing to say".to_owned()));
        }
        if !self.rooms.contains(room) {
            return Some((ErrorCode::NotJoined, not_joined(room)));
        }
        if self.state.is_closing() {
            let why = "the server is closing, try again".to_owned();
            return Some((ErrorCode::Closing, why));
        }
        None
    }

    /// Answers with the rooms that the user may enter.
    fn list_rooms(&mut self, prefix: &str, limit: Option<usize>) {
        const WHAT: &str = "cannot list the rooms";
        if !self.may_ask(WHAT, None) {
            return;
        }
        if !self.state.config.room_list {
            return self.refuse(ErrorCode::Forbidden, NOT_LISTED.to_owned(), None, None);
        }
        let listed = self.state.list_rooms(&self.grant, prefix, limit);
        self.answer(&listed.unwrap_or_else(|error| failed(WHAT, None, None, &error)));
    }

    /// Tells the room that the user is typing. A notice that comes too fast is dropped: nobody needs it.
    fn typing(&mut self, room: &RoomName) {
        if self.limiter.take(Instant::now()).is_err() {
            thread::sleep(PAUSE);
        } else if self.grant.is_read_only() {
            metrics::UNAUTHORIZED.count();
            let room = Some(room.clone());
            self.refuse(ErrorCode::Forbidden, READ_ONLY.to_owned(), room, None);
        } else if self.rooms.contains(room) {
            self.state.backplane.typing(room, &self.user);
        }
    }

    /// Takes a fresh token in place of the one that the connection has.
    fn renew(&self, token: &str) {
        let refuse = |code, why: &str| {
            metrics::UNAUTHORIZED.count();
            self.refuse(code, why.to_owned(), None, None);
        };
        let Some(verifier) = &self.state.verifier else {
            return refuse(ErrorCode::BadRequest, "this server needs no token");
        };
        let claims = match verifier.verify(token) {
            Ok(claims) => claims,
            Err(why) => {
                info!("{:?} has no fresh token: {why}", self.user);
                return refuse(ErrorCode::Unauthorized, "this is no valid token");
            }
        };
        if claims.sub != self.user {
            return refuse(ErrorCode::Forbidden, "the token is not this user's");
        }
        let mut rooms = self.rooms.rooms().into_iter();
        if let Some(room) = rooms.find(|room| !claims.allows(room)) {
            let why = format!("the token does not allow the room {room}; leave it first");
            return refuse(ErrorCode::Forbidden, &why);
        }
        self.grant.replace(claims);
        let left = self.grant.left(SystemTime::now()).unwrap_or_default();
        let expires_in_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        self.answer(&Event::Renewed {
            expires_in_ms,
            readonly: self.grant.is_read_only(),
        });
    }

    /// Joins a room, unless it may not.
    fn join(
        &mut self,
        room: RoomName,
        since: Option<MessageId>,
        history: Option<usize>,
    ) -> Result<(), BackplaneError> {
        if let Some((code, why)) = self.reason_not_to_join(&room) {
            self.refuse(code, why, Some(room), None);
            return Ok(());
        }
        self.joiner().join(&room, since, history)?;
        info!("{:?} joined {room:?}", self.user);
        Ok(())
    }

    fn reason_not_to_join(&self, room: &RoomName) -> Option<(ErrorCode, String)> {
        if !self.grant.allows(room) {
            metrics::UNAUTHORIZED.count();
            let why = format!("the token does not allow the room {room}");
            return Some((ErrorCode::Forbidden, why));
        }
        if let Some(why) = self.state.why_closed(room) {
            return Some((ErrorCode::Forbidden, why));
        }
        if self.rooms.contains(room) {
            let why = format!("in the room {room} already");
            return Some((ErrorCode::AlreadyJoined, why));
        }
        let most = self.state.config.rooms_per_connection;
        if self.rooms.len() >= most {
            let why = format!("a connection may be in {most} rooms at a time");
            return Some((ErrorCode::TooManyRooms, why));
        }
        None
    }
}

fn not_joined(room: &RoomName) -> String {
    format!("not in the room {room}; join it first")
}

impl Drop for Session {
    fn drop(&mut self) {
        let (sends, commands) = self.limiter.buckets();
        let now = Instant::now();
        self.state.buckets.keep(&self.user, sends, now);
        self.state.command_buckets.keep(&self.user, commands, now);
        for (room, mut membership) in self.rooms.take_all() {
            membership.departure = self.departure;
            drop(membership);
            info!("{:?} left {room:?}", self.user);
        }
    }
}
