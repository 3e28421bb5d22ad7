//! The code under test: the chain, and a hub with one member. It is given one thing at a time, and knows nothing else.
//! So the same question has the same answer, and is asked once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use super::client::{Entering, GivenEvent, ModelClient};
use super::redis::Said;
use crate::backplane::redis::chain::{Chain, Heard, fill, follow};
use crate::backplane::redis::wire::LogItem;
use crate::hub::outbox::{Queue, outbox};
use crate::hub::{Delivery, Hub, Pace};
use crate::message::{ConnectionId, InstanceId, MemberList, MessageId, Revision, RoomName};
use crate::protocol::{Encoding, Event};

const CONNECTION: ConnectionId = ConnectionId(1);

static LOBBY: LazyLock<RoomName> = LazyLock::new(RoomName::lobby);

/// The bytes that an outbox holds, which is more than any client is told.
const BUDGET: usize = 1 << 20;

/// What the hub knows of a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Seat {
    Out,
    /// Its past is being read; these events are held back.
    Reading(Vec<GivenEvent>),
    /// The last message that it has.
    In(Option<MessageId>),
}

impl Seat {
    fn of(client: &ModelClient) -> Self {
        match client.phase {
            Entering::Out => Self::Out,
            Entering::Waiting | Entering::Asked(_) | Entering::Read(..) => {
                Self::Reading(client.held.events.clone())
            }
            Entering::In => Self::In(client.held.last),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Given {
    /// A push, by [`follow`].
    Message(Said),
    /// A part of the log, and the room's newest id, by [`fill`].
    Page(Vec<Said>, Option<MessageId>),
    /// The end of the past that the client was sent, by [`Hub::release`].
    Past(Option<MessageId>),
}

/// What it makes of that.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) chain: Chain,
    /// Whether what follows will be heard.
    pub(super) is_current: bool,
    pub(super) has_gap: bool,
    /// The last message that the member has, and what is held back for it.
    pub(super) last: Option<MessageId>,
    pub(super) held: Vec<GivenEvent>,
    /// What the client is told.
    pub(super) told: Vec<GivenEvent>,
}

thread_local! {
    static KNOWN: RefCell<HashMap<(Chain, Seat, Given), Rc<Outcome>>> = RefCell::default();
}

/// Gives it to an instance whose chain stands here, and which has this client.
pub(super) fn give(chain: Chain, client: &ModelClient, given: Given) -> Rc<Outcome> {
    let question = (chain, Seat::of(client), given);
    KNOWN.with_borrow_mut(|known| {
        if let Some(outcome) = known.get(&question) {
            return Rc::clone(outcome);
        }
        let outcome = Rc::new(run(&question));
        known.insert(question, Rc::clone(&outcome));
        outcome
    })
}

fn run((chain, seat, given): &(Chain, Seat, Given)) -> Outcome {
    let room = Room::with(seat);
    let mut heard = Heard::anew(LOBBY.clone(), Vec::new());
    heard.chain = *chain;
    let (mut is_current, mut has_gap) = (true, false);
    match given {
        Given::Message(said) => {
            is_current = follow(&room.hub, &mut heard, said.entry(), Pace::Calm);
        }
        Given::Page(page, tail) => {
            let page = page.iter().map(|said| LogItem::Entry(said.entry()));
            let filled = fill(&room.hub, &mut heard, page.collect(), *tail);
            (is_current, has_gap) = (filled.is_current, filled.has_gap);
        }
        Given::Past(last) => room.release(*last),
    }
    let member = room.hub.member_state(&LOBBY, CONNECTION);
    let member = member.unwrap_or_default();
    Outcome {
        chain: heard.chain,
        is_current,
        has_gap,
        last: member.last,
        held: member
            .held
            .iter()
            .map(|(event, _)| GivenEvent::of(event))
            .collect(),
        told: room.told(),
    }
}

/// A hub whose only member is in this state.
struct Room {
    hub: Hub,
    queue: Queue,
}

impl Room {
    fn with(seat: &Seat) -> Self {
        let (_, queue) = outbox(Encoding::JsonLines, BUDGET, None);
        let room = Self {
            hub: Hub::start(InstanceId::random(), 0).expect("no threads"),
            queue,
        };
        match seat {
            Seat::Out => {}
            Seat::Reading(held) => {
                room.admit();
                held.iter().for_each(|event| room.hold(*event));
            }
            Seat::In(last) => {
                room.admit();
                room.release(*last);
            }
        }
        room
    }

    fn admit(&self) {
        let outbox = Arc::clone(self.queue.outbox());
        self.hub.add_member(&LOBBY, CONNECTION, None, &outbox);
    }

    fn hold(&self, event: GivenEvent) {
        let delivery = match event {
            GivenEvent::Message(id) => Delivery::Messages(vec![Said { id, prev: None }.entry()]),
            GivenEvent::Gap { after, before } => Delivery::Gap {
                after,
                until: before,
                before,
            },
        };
        self.hub.deliver(&LOBBY, delivery, Pace::Calm);
    }

    fn release(&self, last: Option<MessageId>) {
        let list = MemberList {
            users: [].into(),
            revision: Revision::ZERO,
        };
        self.hub.release(&LOBBY, CONNECTION, last, &list, None);
    }

    fn told(&self) -> Vec<GivenEvent> {
        if self.queue.length() == 0 {
            return Vec::new();
        }
        let mut bytes = Vec::new();
        self.queue.collect_by(Instant::now(), &mut bytes);
        let records = serde_json::Deserializer::from_slice(&bytes).into_iter::<Event>();
        let told = records.map(|event| GivenEvent::of(&event.expect("an event")));
        told.collect()
    }
}
