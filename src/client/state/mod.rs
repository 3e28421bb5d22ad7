//! The client's state, which outlives its connections: the rooms that the user is in, the last message
//! seen in each, and the sends without an answer.
//!
//! Read this file first, then [`outgoing`]. The state knows no socket and no clock. Each input returns
//! the [`Actions`] that follow from it. Each message reaches the user once, and each send is repeated
//! until the server answers it.
//!
//! The web page resumes by the same rules in its own language: `src/server/page/chat.js` and `room.js`
//! for rooms, `outgoing.js` for sends. A change of the rules belongs in both.

mod outgoing;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use self::outgoing::Outgoing;
pub(super) use self::outgoing::{NOT_CONFIRMED, NOT_SENT, REF_IS_SAFE};
use crate::message::{Message, MessageId, RoomName};
use crate::protocol::{Command, ErrorCode, Event, Ref};

/// The actions that follow from one input. The caller does them in the order of the fields.
#[derive(Debug, Default)]
pub(super) struct Actions {
    /// Events for the user.
    pub(super) events: Vec<Event>,
    /// Commands for the server. Without a connection the caller drops them: [`ClientState::connected`]
    /// returns them again.
    pub(super) commands: Vec<Command>,
    /// If set, the caller calls [`ClientState::retry`] a little later.
    pub(super) retry: Option<Retry>,
}

/// A command that the server could not do, and that may go again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Retry {
    /// The server's sentence.
    pub(super) why: String,
    /// The shortest wait before the retry, as the server says.
    pub(super) after: Duration,
}

impl Retry {
    fn new(why: &str, after_ms: Option<u64>) -> Option<Self> {
        Some(Self {
            why: why.to_owned(),
            after: Duration::from_millis(after_ms.unwrap_or(0)),
        })
    }
}

/// A room, and the place from which it is resumed.
struct JoinedRoom {
    /// The last message seen.
    last: Option<MessageId>,
    /// The number of past messages to ask for when the room is joined for the first time.
    history: Option<usize>,
    state: RoomState,
    /// Whether the user wants to leave the room as soon as its sends are answered.
    leaving: bool,
    /// Whether the log was lost after `last`, so that the ids of new messages may be lower.
    log_lost: bool,
}

/// The state of a room on the present connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RoomState {
    Outside,
    /// The join is sent and not answered yet.
    Joining,
    Joined,
}

/// The client's state.
pub(super) struct ClientState {
    rooms: BTreeMap<RoomName, JoinedRoom>,
    outgoing: Outgoing,
    /// Whether there is a connection. Without one, every room is [`RoomState::Outside`].
    online: bool,
    /// The wait before the next attempt that the server asked for when it closed the connection.
    retry_after: Option<Duration>,
    /// The largest frame that the server accepts, in bytes; the server's welcome sets it.
    max_message: usize,
}

impl ClientState {
    pub(super) fn new() -> Self {
        Self {
            rooms: BTreeMap::new(),
            outgoing: Outgoing::default(),
            online: false,
            retry_after: None,
            max_message: usize::MAX,
        }
    }

    /// A new connection stands: every room has to be joined again.
    pub(super) fn connected(&mut self) -> Actions {
        self.online = true;
        self.join_rooms()
    }

    /// The connection is lost.
    pub(super) fn disconnected(&mut self) {
        self.online = false;
        for room in self.rooms.values_mut() {
            room.state = RoomState::Outside;
        }
        self.outgoing.disconnected();
    }

    /// The caller is about to write this command. It may arrive even if the write fails.
    pub(super) fn writing(&mut self, command: &Command, now: Instant) {
        if let Command::Send {
            reference: Some(reference),
            ..
        } = command
        {
            self.outgoing.writing(reference, now);
        }
    }

    /// Takes the wait that the server asked for when it closed the connection.
    pub(super) fn take_retry_after(&mut self) -> Option<Duration> {
        self.retry_after.take()
    }

    /// Joins a room, now and on every later connection.
    pub(super) fn join(
        &mut self,
        name: &RoomName,
        since: Option<MessageId>,
        history: Option<usize>,
    ) -> Actions {
        let mut room = JoinedRoom {
            last: since,
            history,
            state: RoomState::Outside,
            leaving: false,
            log_lost: false,
        };
        let mut actions = Actions::default();
        let join = self.online.then(|| room.join(name));
        // The server refuses a second join of one room, so the first membership ends before it.
        if let Some(left) = self.rooms.insert(name.clone(), room) {
            actions.commands.extend(left.leave(name));
        }
        actions.commands.extend(join);
        actions
    }

    /// Queues a text, and sends it if no other send of its room is in flight.
    pub(super) fn send(
        &mut self,
        room: &RoomName,
        text: String,
        reference: Ref,
        now: Instant,
    ) -> Actions {
        let mut actions = Actions::default();
        if self.rooms.contains_key(room) {
            self.outgoing.push(room.clone(), text, reference);
            self.send_next(room, now, &mut actions);
        } else {
            let why = format!("not in the room {room}; join it first");
            actions.events.push(Event::Error {
                code: ErrorCode::NotJoined,
                message: format!("{NOT_SENT}: {why}"),
                reference: Some(reference),
                room: Some(room.clone()),
                retry: false,
                retry_after_ms: None,
            });
        }
        actions
    }

    /// Leaves a room as soon as its sends are answered.
    pub(super) fn leave(&mut self, name: &RoomName) -> Actions {
        let mut actions = Actions::default();
        if let Some(room) = self.rooms.get_mut(name) {
            room.leaving = true;
        }
        self.leave_if_done(name, &mut actions);
        actions
    }

    /// Repeats the joins and sends that the server could not do.
    pub(super) fn retry(&mut self, now: Instant) -> Actions {
        let mut actions = self.join_rooms();
        let rooms: Vec<RoomName> = self.rooms.keys().cloned().collect();
        for room in &rooms {
            self.advance(room, now, &mut actions);
        }
        actions
    }

    /// Handles an event of the server. The user gets it unless it is old or will be retried.
    pub(super) fn handle(&mut self, mut event: Event, now: Instant) -> Actions {
        let mut actions = Actions::default();
        // A room whose next send may go.
        let mut ready = None;
        // Sends that failed with the event.
        let mut failed = Vec::new();
        match &mut event {
            Event::Room {
                room: name,
                messages,
                recovered,
                anew,
                last,
                ..
            } => {
                let Some(room) = self.rooms.get_mut(name) else {
                    return actions;
                };
                *anew &= !*recovered && room.last.is_some();
                if let Some(after) = room.joined(messages, *recovered, *anew, *last) {
                    actions.events.push(Event::Gap {
                        room: name.clone(),
                        after: Some(after),
                        before: messages.first().map(|message| message.id),
                    });
                }
                ready = Some(name.clone());
            }
            Event::Message { room, message, .. } => {
                let room = self.rooms.get_mut(room);
                if !room.is_some_and(|room| room.is_new(message.id)) {
                    return actions;
                }
            }
            Event::Gap {
                room, before: None, ..
            } => {
                if let Some(room) = self.rooms.get_mut(room) {
                    room.log_lost = true;
                }
            }
            Event::Sent {
                reference: Some(reference),
                room,
                ..
            } => {
                self.outgoing.remove(reference);
                ready = Some(room.clone());
            }
            Event::Error {
                reference: Some(reference),
                message,
                retry,
                retry_after_ms,
                ..
            } => {
                if *retry && self.outgoing.requeue(reference) {
                    actions.retry = Retry::new(message, *retry_after_ms);
                    return actions;
                }
                // The event names no room when the server rejected a whole frame; the queue knows it.
                ready = self.outgoing.remove(reference);
            }
            Event::Error {
                reference: None,
                room: Some(name),
                code,
                message,
                retry,
                retry_after_ms,
            } => {
                if let Some(room) = self.rooms.get_mut(name)
                    && room.state == RoomState::Joining
                {
                    room.state = RoomState::Outside;
                    if *retry {
                        actions.retry = Retry::new(message, *retry_after_ms);
                        return actions;
                    }
                    self.rooms.remove(name);
                    failed = self.outgoing.remove_room(name, *code, message);
                }
            }
            Event::Parted {
                room: name,
                reason: Some(why),
            } => {
                self.rooms.remove(name);
                failed = self.outgoing.remove_room(name, ErrorCode::Forbidden, why);
            }
            Event::Welcome { limits, .. } => self.max_message = limits.max_message,
            Event::Closing { retry_after_ms, .. } => {
                self.retry_after = Some(Duration::from_millis(*retry_after_ms));
            }
            _ => {}
        }
        actions.events.push(event);
        actions.events.extend(failed);
        if let Some(room) = ready {
            self.advance(&room, now, &mut actions);
        }
        actions
    }

    fn join_rooms(&mut self) -> Actions {
        let outside = self
            .rooms
            .iter_mut()
            .filter(|(_, room)| room.state == RoomState::Outside);
        Actions {
            commands: outside.map(|(name, room)| room.join(name)).collect(),
            ..Actions::default()
        }
    }

    /// Sends the next text of a room. Without one, leaves the room if the user wants to.
    fn advance(&mut self, room: &RoomName, now: Instant, actions: &mut Actions) {
        self.send_next(room, now, actions);
        self.leave_if_done(room, actions);
    }

    fn leave_if_done(&mut self, name: &RoomName, actions: &mut Actions) {
        let leaving = self.rooms.get(name).is_some_and(|room| room.leaving);
        if leaving
            && self.outgoing.none_in(name)
            && let Some(room) = self.rooms.remove(name)
        {
            actions.commands.extend(room.leave(name));
        }
    }

    /// Sends the first text of a room, if the room is joined.
    fn send_next(&mut self, room: &RoomName, now: Instant, actions: &mut Actions) {
        let joined = |room: &JoinedRoom| room.state == RoomState::Joined;
        if self.rooms.get(room).is_some_and(joined) {
            let next = self
                .outgoing
                .next(room, self.max_message, now, &mut actions.events);
            actions.commands.extend(next);
        }
    }
}

impl JoinedRoom {
    /// The command that joins the room, from the last message seen.
    fn join(&mut self, name: &RoomName) -> Command {
        self.state = RoomState::Joining;
        Command::Join {
            room: name.clone(),
            since: self.last,
            history: self.history,
        }
    }

    /// The command that leaves the room, unless this connection is not in it.
    fn leave(&self, name: &RoomName) -> Option<Command> {
        let is_in = self.state != RoomState::Outside;
        is_in.then(|| Command::Leave { room: name.clone() })
    }

    /// The server let us in. Keeps only the messages that the user has not seen. Returns the last
    /// message before a gap, if there is one. A log that began anew is no gap: its event tells the user.
    fn joined(
        &mut self,
        messages: &mut Vec<Message>,
        recovered: bool,
        anew: bool,
        last: Option<MessageId>,
    ) -> Option<MessageId> {
        let seen = self.last;
        self.state = RoomState::Joined;
        self.log_lost = false;
        // An empty log is resumed from the least id: every message to come lies after it.
        self.last = last.or(Some(MessageId::ZERO));
        // A log that ends before the last message seen has lost that message, and its ids start lower.
        let is_another_log = anew || (!recovered && last < seen);
        messages.retain(|message| is_another_log || seen.is_none_or(|seen| message.id > seen));
        seen.filter(|_| !recovered && !anew)
    }

    /// Whether the user has not seen this message yet. From now on it counts as seen.
    fn is_new(&mut self, id: MessageId) -> bool {
        let is_new = self.log_lost || self.last.is_none_or(|last| id > last);
        if is_new {
            self.log_lost = false;
            self.last = Some(id);
        }
        is_new
    }
}

#[cfg(test)]
mod tests;
