//! The client's memory, which outlives each connection: the rooms it is in, the last message it saw of each,
//! and the sends that are unanswered.
//!
//! It knows no socket, and time is an argument. For each thing that happens it returns a [`Step`]: what to
//! tell the user and what to ask of the server. So the user sees each message once, and each send is repeated
//! until it is answered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::unanswered::Unanswered;
use crate::message::{MessageId, RoomName};
use crate::protocol::{Command, ErrorCode, Event, Ref};

/// The step that follows from something that happened.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Events for the user.
    pub(super) tell: Vec<Event>,
    /// Commands for the server, to be sent after that.
    pub(super) say: Vec<Command>,
    /// Why [`Memory::ask_again`] is due a little later, if it is.
    pub(super) ask_again: Option<String>,
}

/// A room, and what is needed to resume it.
struct Room {
    /// The last message seen.
    last: Option<MessageId>,
    /// The number of past messages to ask for when the room is first entered.
    history: Option<usize>,
    state: RoomState,
    /// Whether it is left as soon as nothing that was said there is unanswered.
    parting: bool,
    /// Whether the log was lost since `last`, so that its ids may be lower.
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

/// The decision about one event.
enum Verdict {
    /// Nothing: the user has seen it.
    Drop,
    /// The user is told.
    Tell,
    /// The user is told, and then these.
    TellAll(Vec<Event>),
    /// The user is told, and the room's next send has its turn.
    TellAndGoOn(RoomName),
    /// The same is asked again a little later; the server said why.
    AskAgain(String),
}

/// The rooms and the unanswered sends.
pub(super) struct Memory {
    rooms: BTreeMap<RoomName, Room>,
    unanswered: Unanswered,
    /// Whether there is a connection. Without one every room is outside, and nothing is said.
    online: bool,
    /// The time after which the server asked us to come back, before it closed.
    come_back_in: Option<Duration>,
    /// The largest frame that the server takes, once it said so.
    max_message: usize,
}

impl Memory {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            rooms: BTreeMap::new(),
            unanswered: Unanswered::default(),
            online: false,
            come_back_in: None,
            max_message: usize::MAX,
        }
    }

    /// A new connection: every room has to be entered again.
    pub(super) fn connected(&mut self) -> Step {
        self.online = true;
        self.enter_rooms()
    }

    /// The connection is lost.
    pub(super) fn disconnected(&mut self) {
        self.online = false;
        for room in self.rooms.values_mut() {
            room.state = RoomState::Outside;
        }
        self.unanswered.disconnected();
    }

    /// The connection is about to be given this. Whether or not that succeeds, it may arrive.
    pub(super) fn gives(&mut self, command: &Command, now: Instant) {
        if let Command::Send {
            reference: Some(reference),
            ..
        } = command
        {
            self.unanswered.gives(reference, now);
        }
    }

    /// When the server that closed asked us to come back; asked for once.
    pub(super) fn come_back_in(&mut self) -> Option<Duration> {
        self.come_back_in.take()
    }

    /// Enters a room, now and on every connection that follows.
    pub(super) fn join(
        &mut self,
        name: &RoomName,
        since: Option<MessageId>,
        history: Option<usize>,
    ) -> Step {
        let mut room = Room {
            last: since,
            history,
            state: RoomState::Outside,
            parting: false,
            anew: false,
        };
        let mut step = Step::default();
        let join = self.online.then(|| room.join(name));
        // A room that was still to be left is left first: nobody is in a room twice.
        if let Some(left) = self.rooms.insert(name.clone(), room) {
            step.say.extend(left.leave(name));
        }
        step.say.extend(join);
        step
    }

    /// Says something, as soon as nothing else of its room is on its way.
    pub(super) fn send(
        &mut self,
        room: &RoomName,
        text: String,
        reference: Ref,
        now: Instant,
    ) -> Step {
        let mut step = Step::default();
        if self.rooms.contains_key(room) {
            self.unanswered.push(room.clone(), text, reference);
            self.send_next(room, now, &mut step);
        } else {
            let why = format!("not in the room {room}; join it first");
            step.tell
                .push(not_sent(room, reference, ErrorCode::NotJoined, &why));
        }
        step
    }

    /// Leaves a room, as soon as nothing that was said there is unanswered.
    pub(super) fn part(&mut self, name: &RoomName) -> Step {
        let mut step = Step::default();
        if let Some(room) = self.rooms.get_mut(name) {
            room.parting = true;
        }
        self.part_if_done(name, &mut step);
        step
    }

    /// Joins what could not be joined, and sends what was not answered.
    pub(super) fn ask_again(&mut self, now: Instant) -> Step {
        let mut step = self.enter_rooms();
        let rooms: Vec<RoomName> = self.rooms.keys().cloned().collect();
        for room in &rooms {
            self.go_on(room, now, &mut step);
        }
        step
    }

    /// Takes in what the server told.
    pub(super) fn take(&mut self, event: Event, now: Instant) -> Step {
        let mut step = Step::default();
        let Some(event) = self.enter(event, &mut step) else {
            return step;
        };
        match self.digest(&event) {
            Verdict::Drop => {}
            Verdict::AskAgain(why) => step.ask_again = Some(why),
            Verdict::Tell => step.tell.push(event),
            Verdict::TellAll(more) => {
                step.tell.push(event);
                step.tell.extend(more);
            }
            Verdict::TellAndGoOn(room) => {
                step.tell.push(event);
                self.go_on(&room, now, &mut step);
            }
        }
        step
    }

    fn digest(&mut self, event: &Event) -> Verdict {
        match event {
            Event::Room { room, .. } => Verdict::TellAndGoOn(room.clone()),
            Event::Message { room, message, .. } => match self.rooms.get_mut(room) {
                Some(room) if room.anew || room.last.is_none_or(|last| message.id > last) => {
                    room.anew = false;
                    room.last = Some(message.id);
                    Verdict::Tell
                }
                Some(_) | None => Verdict::Drop,
            },
            Event::Gap { room, before, .. } => {
                if let (Some(room), None) = (self.rooms.get_mut(room), before) {
                    room.anew = true;
                }
                Verdict::Tell
            }
            Event::Sent {
                reference: Some(reference),
                room,
                ..
            } => {
                self.unanswered.remove(reference);
                Verdict::TellAndGoOn(room.clone())
            }
            Event::Error {
                reference: Some(reference),
                message,
                retry,
                ..
            } => {
                if *retry && self.unanswered.again(reference) {
                    return Verdict::AskAgain(message.clone());
                }
                // The event may name no room, as when a whole frame was rejected.
                let room = self.unanswered.remove(reference);
                room.map_or(Verdict::Tell, Verdict::TellAndGoOn)
            }
            Event::Error {
                reference: None,
                room: Some(name),
                code,
                message,
                retry,
            } => self.cannot(name, *code, message, *retry),
            Event::Welcome { limits, .. } => {
                self.max_message = limits.max_message;
                Verdict::Tell
            }
            Event::Closing { retry_after_ms, .. } => {
                self.come_back_in = Some(Duration::from_millis(*retry_after_ms));
                Verdict::Tell
            }
            _ => Verdict::Tell,
        }
    }

    /// The server could not do what was asked of this room.
    fn cannot(&mut self, name: &RoomName, code: ErrorCode, why: &str, retry: bool) -> Verdict {
        match self.rooms.get_mut(name) {
            Some(room) if room.state == RoomState::Joining => {
                room.state = RoomState::Outside;
                if retry {
                    return Verdict::AskAgain(why.to_owned());
                }
                // It will not be entered, and so nothing can be said there.
                self.rooms.remove(name);
                let lost = self.unanswered.forget(name).into_iter();
                Verdict::TellAll(
                    lost.map(|reference| not_sent(name, reference, code, why))
                        .collect(),
                )
            }
            Some(_) | None => Verdict::Tell,
        }
    }

    fn enter_rooms(&mut self) -> Step {
        let outside = self
            .rooms
            .iter_mut()
            .filter(|(_, room)| room.state == RoomState::Outside);
        Step {
            say: outside.map(|(name, room)| room.join(name)).collect(),
            ..Step::default()
        }
    }

    /// When a room was entered: notes where it stands, tells of a gap, and leaves only what the
    /// user has not seen. A log that began anew is no gap: the event itself tells of it, to those who
    /// saw the one before. Other events pass. `None` for a room that nobody asked for.
    fn enter(&mut self, event: Event, step: &mut Step) -> Option<Event> {
        let Event::Room {
            room: name,
            members,
            mut messages,
            recovered,
            anew,
            last,
        } = event
        else {
            return Some(event);
        };
        let room = self.rooms.get_mut(&name)?;
        let seen = room.last;
        room.state = RoomState::Joined;
        room.anew = false;
        // In an empty room, whatever is said while we are away comes after the least id.
        room.last = last.or(Some(MessageId::ZERO));
        let anew = anew && !recovered && seen.is_some();
        // A log whose end is before what was seen lost it, and goes on from there.
        let is_another = anew || (!recovered && last < seen);
        messages.retain(|message| is_another || seen.is_none_or(|seen| message.id > seen));
        if let (Some(after), false, false) = (seen, recovered, anew) {
            step.tell.push(Event::Gap {
                room: name.clone(),
                after: Some(after),
                before: messages.first().map(|message| message.id),
            });
        }
        Some(Event::Room {
            room: name,
            members,
            messages,
            recovered,
            anew,
            last,
        })
    }

    /// A room's next send has its turn; after the last, the room may be left.
    fn go_on(&mut self, room: &RoomName, now: Instant, step: &mut Step) {
        self.send_next(room, now, step);
        self.part_if_done(room, step);
    }

    fn part_if_done(&mut self, name: &RoomName, step: &mut Step) {
        let parting = self.rooms.get(name).is_some_and(|room| room.parting);
        if parting
            && self.unanswered.none_in(name)
            && let Some(room) = self.rooms.remove(name)
        {
            step.say.extend(room.leave(name));
        }
    }

    /// Sends the first of a room that is joined.
    fn send_next(&mut self, room: &RoomName, now: Instant, step: &mut Step) {
        let joined = |room: &Room| room.state == RoomState::Joined;
        if self.rooms.get(room).is_some_and(joined) {
            let next = self
                .unanswered
                .next(room, self.max_message, now, &mut step.tell);
            step.say.extend(next);
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

    /// Asks to be out of the room, unless this connection is not in it.
    fn leave(&self, name: &RoomName) -> Option<Command> {
        let is_in = self.state != RoomState::Outside;
        is_in.then(|| Command::Leave { room: name.clone() })
    }
}

/// Tells that a send is given up.
fn not_sent(room: &RoomName, reference: Ref, code: ErrorCode, why: &str) -> Event {
    Event::Error {
        code,
        message: format!("not sent: {why}"),
        reference: Some(reference),
        room: Some(room.clone()),
        retry: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    /// A memory on a connection, in the lobby, where something was seen.
    fn in_the_lobby(now: Instant) -> Memory {
        let mut memory = Memory::new();
        memory.join(&RoomName::lobby(), None, None);
        memory.connected();
        memory.take(entered(Some(id(1)), true, false), now);
        memory
    }

    fn id(millis: u64) -> MessageId {
        MessageId { millis, number: 0 }
    }

    fn entered(last: Option<MessageId>, recovered: bool, anew: bool) -> Event {
        Event::Room {
            room: RoomName::lobby(),
            members: [].into(),
            messages: last.map(|last| message(last.millis)).into_iter().collect(),
            recovered,
            anew,
            last,
        }
    }

    fn message(millis: u64) -> Message {
        Message {
            id: id(millis),
            from: "bob".parse().expect("a name"),
            text: "hello".to_owned(),
            at: 0,
        }
    }

    /// The connection is lost, and the next one enters the lobby so.
    fn comes_back(memory: &mut Memory, entered: Event, now: Instant) -> Step {
        memory.disconnected();
        memory.connected();
        memory.take(entered, now)
    }

    fn refused(reference: &Ref, code: ErrorCode, retry: bool) -> Event {
        Event::Error {
            code,
            message: "not sent: no".to_owned(),
            reference: Some(reference.clone()),
            // A rejection of a whole frame names no room.
            room: None,
            retry,
        }
    }

    fn stored(reference: &Ref) -> Event {
        Event::Sent {
            reference: Some(reference.clone()),
            room: RoomName::lobby(),
            id: id(2),
            duplicate: false,
        }
    }

    /// Says a text in the lobby.
    fn say(memory: &mut Memory, text: &str, now: Instant) -> (Ref, Step) {
        let reference = Ref::random();
        let step = memory.send(&RoomName::lobby(), text.to_owned(), reference.clone(), now);
        (reference, step)
    }

    /// The texts that a step sends.
    fn texts(step: &Step) -> Vec<&str> {
        let sends = step.say.iter().filter_map(|command| match command {
            Command::Send { text, .. } => Some(text.as_str()),
            _ => None,
        });
        sends.collect()
    }

    /// A connection takes all that a step says.
    fn give(memory: &mut Memory, step: &Step, now: Instant) {
        for command in &step.say {
            memory.gives(command, now);
        }
    }

    #[test]
    fn a_line_typed_in_an_outage_longer_than_a_ref_lasts_is_sent_afterwards() {
        let now = Instant::now();
        let mut memory = in_the_lobby(now);
        memory.disconnected();
        let (first, step) = say(&mut memory, "one", now);
        give(&mut memory, &step, now);
        assert_eq!(texts(&step), [""; 0], "there is no connection");
        let (second, _) = say(&mut memory, "two", now);
        let later = now + Ref::LASTS + Duration::from_secs(60);
        memory.connected();
        let step = memory.take(entered(Some(id(1)), true, false), later);
        give(&mut memory, &step, later);
        assert_eq!(texts(&step), ["one"], "{:?}", step.tell);
        let step = memory.take(stored(&first), later);
        assert_eq!(texts(&step), ["two"]);
        memory.take(stored(&second), later);
        assert!(memory.unanswered.none_in(&RoomName::lobby()));
    }

    #[test]
    fn an_answer_that_names_no_room_lets_the_next_line_go() {
        let now = Instant::now();
        let mut memory = in_the_lobby(now);
        let (first, step) = say(&mut memory, "one", now);
        assert_eq!(texts(&step), ["one"]);
        say(&mut memory, "two", now);
        let step = memory.take(refused(&first, ErrorCode::BadRequest, false), now);
        assert_eq!(texts(&step), ["two"]);
    }

    #[test]
    fn a_line_on_its_way_is_not_sent_again_beside_another_rooms() {
        let now = Instant::now();
        let mut memory = in_the_lobby(now);
        let (first, step) = say(&mut memory, "one", now);
        assert_eq!(texts(&step), ["one"]);
        // Something else is to be asked again.
        assert_eq!(texts(&memory.ask_again(now)), [""; 0]);
        let step = memory.take(refused(&first, ErrorCode::TooFast, true), now);
        assert!(step.ask_again.is_some());
        assert_eq!(texts(&memory.ask_again(now)), ["one"]);
        // Nor because the room is entered again while the line waits for its answer.
        memory.join(&RoomName::lobby(), None, None);
        let step = memory.take(entered(Some(id(1)), true, false), now);
        assert_eq!(texts(&step), [""; 0]);
    }

    #[test]
    fn lines_for_a_room_that_is_closed_to_us_are_each_told_of() {
        let now = Instant::now();
        let mut memory = in_the_lobby(now);
        memory.disconnected();
        let (first, _) = say(&mut memory, "one", now);
        memory.connected();
        let closed = Event::Error {
            code: ErrorCode::Forbidden,
            message: "the token does not allow the room lobby".to_owned(),
            reference: None,
            room: Some(RoomName::lobby()),
            retry: false,
        };
        let step = memory.take(closed, now);
        assert_eq!(failed(&step), [first]);
        let (second, step) = say(&mut memory, "two", now);
        assert_eq!(failed(&step), [second]);
    }

    /// The refs of the sends that a step tells are lost.
    fn failed(step: &Step) -> Vec<Ref> {
        let told = step.tell.iter().filter_map(|event| match event {
            Event::Error { reference, .. } => reference.clone(),
            _ => None,
        });
        told.collect()
    }
    #[test]
    fn a_log_that_began_anew_is_told_of_as_such_and_not_as_a_gap() {
        let now = Instant::now();
        let mut memory = in_the_lobby(now);
        // As after a clock that was set back: its ids are lower than what was seen.
        memory.take(heard(9), now);
        let step = comes_back(&mut memory, entered(Some(id(3)), false, true), now);
        let [Event::Room { anew, messages, .. }] = &step.tell[..] else {
            panic!("{:?}", step.tell);
        };
        assert!(anew);
        assert_eq!(*messages, [message(3)]);
        assert_eq!(memory.take(heard(3), now).tell, [], "once");
        assert_eq!(memory.take(heard(4), now).tell, [heard(4)]);
    }

    #[test]
    fn an_empty_log_that_began_anew_is_resumed_from_its_beginning() {
        let now = Instant::now();
        let mut memory = in_the_lobby(now);
        comes_back(&mut memory, entered(None, false, true), now);
        memory.disconnected();
        let step = memory.connected();
        let [Command::Join { since, .. }] = &step.say[..] else {
            panic!("{:?}", step.say);
        };
        assert_eq!(*since, Some(MessageId::ZERO));
        // The same with a shared log that was lost, which is a gap.
        let mut memory = in_the_lobby(now);
        let step = comes_back(&mut memory, entered(None, false, false), now);
        let [Event::Gap { .. }, Event::Room { anew: false, .. }] = &step.tell[..] else {
            panic!("{:?}", step.tell);
        };
        memory.disconnected();
        let step = memory.connected();
        let [Command::Join { since, .. }] = &step.say[..] else {
            panic!("{:?}", step.say);
        };
        assert_eq!(*since, Some(MessageId::ZERO));
    }

    #[test]
    fn whoever_saw_nothing_before_is_not_told_that_the_log_began_anew() {
        let now = Instant::now();
        let mut memory = Memory::new();
        memory.join(&RoomName::lobby(), None, None);
        memory.connected();
        let step = memory.take(entered(None, false, true), now);
        let [Event::Room { anew: false, .. }] = &step.tell[..] else {
            panic!("{:?}", step.tell);
        };
    }

    fn heard(millis: u64) -> Event {
        Event::Message {
            room: RoomName::lobby(),
            message: message(millis),
            via: None,
        }
    }
}
