//! The crowd: witnesses, who note all they see, and speakers, who also say numbered lines and wait
//! for each acknowledgement. Both are the library's own client, so whatever they note is what a
//! user would see through all faults.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};
use hubbub::client::{Client, ClientEvent, ServerUrl};
use hubbub::message::{Message, MessageId, RoomName, UserName};
use hubbub::protocol::{Event, Ref};

use crate::support::{Dice, lock};

pub(crate) const ROOMS: usize = 20;
const WITNESSES: usize = 100;

/// More than rooms, so that in some rooms two speak at a time, through different instances.
const SPEAKERS: usize = 30;

/// Each speaker's pace, while nothing holds up the acknowledgements.
const SAYS_EVERY: Duration = Duration::from_millis(200);

/// How many past messages some ask for when they enter.
const PAST: usize = 100;

/// How many leave at a time.
const LEAVE_AT_ONCE: usize = 8;

/// What one member saw, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Message(MessageId, String),
    Gap(Option<MessageId>, Option<MessageId>),
}

impl Seen {
    pub(crate) fn message(&self) -> Option<(MessageId, &str)> {
        match self {
            Self::Message(id, text) => Some((*id, text)),
            Self::Gap(..) => None,
        }
    }

    pub(crate) fn id(&self) -> Option<MessageId> {
        self.message().map(|(id, _)| id)
    }
}

/// All that one member noted.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) name: UserName,
    pub(crate) room: RoomName,
    /// The newest message when it first was in the room: what is said later is for it to see.
    pub(crate) entered: Option<MessageId>,
    pub(crate) seen: Vec<Seen>,
    /// Who is here, as a user's screen would show it.
    pub(crate) members: BTreeSet<UserName>,
    pub(crate) connections: usize,
    /// Who was announced as gone, as often as it was.
    pub(crate) missed: Vec<UserName>,
    /// What it was refused for good.
    pub(crate) refusals: Vec<String>,
    /// For speakers: what was acknowledged, in the order in which it was said.
    pub(crate) acknowledged: Vec<(MessageId, String)>,
    pub(crate) longest: Duration,
    /// How many acknowledgements said that the message was stored before, under the same ref.
    pub(crate) duplicates: usize,
    /// Whether it has no more to say.
    pub(crate) silent: bool,
}

impl Record {
    pub(crate) fn new(name: UserName, room: RoomName) -> Self {
        Self {
            name,
            room,
            entered: None,
            seen: Vec::new(),
            members: BTreeSet::new(),
            connections: 0,
            missed: Vec::new(),
            refusals: Vec::new(),
            acknowledged: Vec::new(),
            longest: Duration::ZERO,
            duplicates: 0,
            silent: true,
        }
    }

    pub(crate) fn note(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Server(Event::Message { message, .. }) => self.see(message),
            ClientEvent::Server(Event::Gap { after, before, .. }) => {
                self.seen.push(Seen::Gap(after, before));
            }
            ClientEvent::Server(Event::Room {
                messages,
                members,
                last,
                recovered,
                ..
            }) => {
                if self.entered.is_some() && !recovered {
                    // What is missing may lie anywhere between.
                    self.seen.push(Seen::Gap(self.last_seen(), last));
                }
                self.entered.get_or_insert(last.unwrap_or(MessageId::ZERO));
                messages.into_iter().for_each(|message| self.see(message));
                self.members = members.iter().cloned().collect();
            }
            ClientEvent::Server(Event::Joined { user, .. }) => {
                self.members.insert(user);
            }
            ClientEvent::Server(Event::Left { user, .. }) => {
                self.members.remove(&user);
                self.missed.push(user);
            }
            ClientEvent::Server(Event::Error { message, retry, .. }) if !retry => {
                self.refusals.push(message);
            }
            ClientEvent::Refused(why) => self.refusals.push(why),
            ClientEvent::Connected => self.connections += 1,
            ClientEvent::Disconnected { .. }
            | ClientEvent::Postponed(_)
            | ClientEvent::Server(_) => {}
        }
    }

    fn see(&mut self, message: Message) {
        self.seen.push(Seen::Message(message.id, message.text));
    }

    pub(crate) fn last_seen(&self) -> Option<MessageId> {
        self.seen.iter().rev().find_map(Seen::id)
    }
}

/// What a speaker is about to say.
struct Talk {
    number: usize,
    next: Instant,
    unanswered: Option<(Ref, String, Instant)>,
    /// Told when the time for the last words has come.
    ending: Arc<AtomicBool>,
    ended: bool,
}

impl Talk {
    /// Says the next line if it is time, and the one before was answered.
    fn go_on(&mut self, client: &Client, record: &Mutex<Record>) {
        if self.unanswered.is_some() || self.ended || Instant::now() < self.next {
            return;
        }
        let (name, room) = {
            let record = lock(record);
            (record.name.clone(), record.room.clone())
        };
        self.ended = self.ending.load(Ordering::SeqCst);
        let text = if self.ended {
            format!("{name} says goodbye")
        } else {
            format!("{name} {}", self.number)
        };
        self.number += 1;
        let now = Instant::now();
        self.next = now + SAYS_EVERY;
        let reference = client.send(room, text.clone());
        self.unanswered = Some((reference, text, now));
    }

    /// Whether it was the answer to what was said.
    fn hear(&mut self, event: &ClientEvent, record: &Mutex<Record>) {
        let Some((mine, _, _)) = &self.unanswered else {
            return;
        };
        match event {
            ClientEvent::Server(Event::Sent {
                reference: Some(reference),
                id,
                duplicate,
                ..
            }) if reference == mine => {
                let (_, text, since) = self.unanswered.take().expect("it was looked at");
                let mut record = lock(record);
                record.acknowledged.push((*id, text));
                record.longest = record.longest.max(since.elapsed());
                record.duplicates += usize::from(*duplicate);
                record.silent = self.ended;
            }
            ClientEvent::Server(Event::Error {
                reference: Some(reference),
                ..
            }) if reference == mine => self.unanswered = None,
            _ => {}
        }
    }
}

/// One client and the thread that listens to it.
struct Member {
    record: Arc<Mutex<Record>>,
    speaks: bool,
    leave: Sender<()>,
    thread: JoinHandle<()>,
}

impl Member {
    fn enter(
        server: ServerUrl,
        name: UserName,
        room: RoomName,
        history: Option<usize>,
        mut talk: Option<Talk>,
    ) -> Self {
        let speaks = talk.is_some();
        let record = Arc::new(Mutex::new(Record {
            silent: !speaks,
            ..Record::new(name.clone(), room.clone())
        }));
        let client = Client::start(server, name).expect("a thread for a client");
        client.join(room, None, history);
        let (leave, leaving) = crossbeam_channel::bounded(1);
        let notes = Arc::clone(&record);
        let thread = thread::spawn(move || listen(&client, &notes, &leaving, talk.as_mut()));
        Self {
            record,
            speaks,
            leave,
            thread,
        }
    }
}

fn listen(
    client: &Client,
    record: &Mutex<Record>,
    leaving: &Receiver<()>,
    mut talk: Option<&mut Talk>,
) {
    loop {
        let event = select! {
            recv(client.events()) -> event => event.ok(),
            recv(leaving) -> _ => break,
            default(SAYS_EVERY / 4) => None,
        };
        if let Some(event) = event {
            if let Some(talk) = &mut talk {
                talk.hear(&event, record);
            }
            let refused = matches!(event, ClientEvent::Refused(_));
            lock(record).note(event);
            if refused {
                // Nothing follows, and an ended channel would be read for ever.
                return;
            }
        }
        if let Some(talk) = &mut talk {
            talk.go_on(client, record);
        }
    }
}

/// Everyone who is there, and what is left of those who were.
pub(crate) struct Crowd {
    members: Vec<Member>,
    gone: Vec<Record>,
    /// Where one can enter: each instance, directly and through a proxy.
    entrances: Vec<ServerUrl>,
    count: usize,
    ending: Arc<AtomicBool>,
}

pub(crate) fn room(number: usize) -> RoomName {
    let name = format!("room-{}", number % ROOMS);
    name.parse().expect("it is a room's name")
}

impl Crowd {
    pub(crate) fn gather(entrances: Vec<ServerUrl>) -> Self {
        let mut crowd = Self {
            members: Vec::new(),
            gone: Vec::new(),
            entrances,
            count: 0,
            ending: Arc::default(),
        };
        for number in 0..WITNESSES {
            // Another entrance for each member of a room.
            let entrance = number + number / ROOMS;
            crowd.enter(&format!("witness-{number}"), room(number), entrance, None);
        }
        for number in 0..SPEAKERS {
            let talk = Talk {
                number: 0,
                next: Instant::now(),
                unanswered: None,
                ending: Arc::clone(&crowd.ending),
                ended: false,
            };
            let entrance = number + number / ROOMS;
            let name = format!("speaker-{number}");
            crowd.enter(&name, room(number), entrance, Some(talk));
        }
        crowd
    }

    fn enter(&mut self, name: &str, room: RoomName, entrance: usize, talk: Option<Talk>) {
        let server = self.entrances[entrance % self.entrances.len()].clone();
        let name = name.parse().expect("it is a user's name");
        // Every other one asks for the past, which is read in another way than what is missed.
        let history = (self.count % 2 == 1).then_some(PAST);
        let member = Member::enter(server, name, room, history, talk);
        self.members.push(member);
        self.count += 1;
    }

    /// Some witnesses leave, and as many enter their rooms elsewhere: every other of them is the
    /// same user, who must not be taken for gone.
    pub(crate) fn some_change(&mut self, dice: &mut Dice) {
        let mut leavers = Vec::new();
        for _ in 0..LEAVE_AT_ONCE {
            let witnesses: Vec<_> = (0..self.members.len())
                .filter(|&index| !self.members[index].speaks)
                .collect();
            let index = witnesses[dice.below(witnesses.len())];
            leavers.push(self.members.swap_remove(index));
        }
        for (index, leaver) in leavers.iter().enumerate() {
            let (mut name, room) = {
                let record = lock(&leaver.record);
                (record.name.to_string(), record.room.clone())
            };
            if index % 2 == 0 {
                name = format!("newcomer-{}", self.count);
            }
            let _ = leaver.leave.try_send(());
            let entrance = dice.below(self.entrances.len());
            self.enter(&name, room, entrance, None);
        }
        self.gone.extend(leavers.into_iter().map(say_goodbye));
    }

    pub(crate) fn end_talks(&self) {
        self.ending.store(true, Ordering::SeqCst);
    }

    /// Whether a fact holds for everyone who is there; if not, for whom.
    pub(crate) fn who_not(&self, mut fact: impl FnMut(&Record) -> bool) -> Vec<UserName> {
        let records = self.members.iter().map(|member| lock(&member.record));
        let others = records.filter(|record| !fact(record));
        others.map(|record| record.name.clone()).collect()
    }

    /// What each member who is there was told of its room's members.
    pub(crate) fn shown(&self) -> Vec<(UserName, RoomName, BTreeSet<UserName>)> {
        let records = self.members.iter().map(|member| lock(&member.record));
        let shown = records.map(|r| (r.name.clone(), r.room.clone(), r.members.clone()));
        shown.collect()
    }

    pub(crate) fn size(&self) -> usize {
        self.members.len()
    }

    /// A copy of what those who are there noted.
    pub(crate) fn records(&self) -> Vec<Record> {
        let records = self.members.iter().map(|m| lock(&m.record).clone());
        records.collect()
    }

    /// Of those who left.
    pub(crate) fn gone(&self) -> &[Record] {
        &self.gone
    }

    pub(crate) fn everyone_leaves(&mut self) {
        for member in &self.members {
            let _ = member.leave.try_send(());
        }
        self.gone.extend(self.members.drain(..).map(say_goodbye));
    }
}

fn say_goodbye(member: Member) -> Record {
    let _ = member.leave.try_send(());
    let _ = member.thread.join();
    let record = lock(&member.record);
    record.clone()
}
