//! The code under test: the chain, and a hub with one member. It is given one thing at a time, and knows nothing else.
//! So the same question has the same answer, and is asked once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use super::client::{Entering, GivenEvent, HeldEvent, ModelClient};
use super::redis::Said;
use crate::backplane::redis::chain::{Chain, GoesOn, Heard, fill, follow, tell_loss};
use crate::backplane::redis::wire::{LogItem, Loss};
use crate::hub::outbox::{Queue, outbox};
use crate::hub::{Delivery, Hub, Pace};
use crate::message::{ConnectionId, InstanceId, MemberList, MessageId, Revision, RoomName};
use crate::protocol::{Encoding, Event};

const CONNECTION: ConnectionId = ConnectionId(1);

static LOBBY: LazyLock<RoomName> = LazyLock::new(RoomName::lobby);

/// The bytes that an outbox holds, which is more than any client is told.
const BUDGET: usize = 1 << 20;

/// A gap that changes nothing of what a member has.
const A_GAP: HeldEvent = (
    GivenEvent::Gap {
        after: None,
        before: None,
    },
    Some(MessageId::GREATEST),
);

/// What the hub knows of a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Seat {
    Out,
    /// Its past is being read; these events are held back.
    Reading(Vec<HeldEvent>),
    /// The last message that it has, and whether a gap was told behind it.
    In(Option<MessageId>, bool),
}

impl Seat {
    fn of(client: &ModelClient) -> Self {
        match client.phase {
            Entering::Out => Self::Out,
            Entering::Waiting
            | Entering::Heard
            | Entering::Asked(_)
            | Entering::Read(..)
            | Entering::Rest(..) => Self::Reading(client.held.events.clone()),
            Entering::In => Self::In(client.held.last, client.held.is_in_gap),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Given {
    /// A push, by [`follow`].
    Message(Said),
    /// A part of the log, and the room's newest id, by [`fill`].
    Page(Vec<Said>, Option<MessageId>),
    /// What lost.lua tells, by [`tell_loss`].
    Loss(Loss),
    /// What is missing after a move, by [`Hub::deliver`].
    GapAfter(Option<MessageId>),
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
    pub(super) has_delivered: bool,
    /// The last message that the member has, and what is held back for it.
    pub(super) last: Option<MessageId>,
    pub(super) is_in_gap: bool,
    pub(super) held: Vec<HeldEvent>,
    /// What the client is told.
    pub(super) told: Vec<GivenEvent>,
}

thread_local! {
    static KNOWN: RefCell<HashMap<(Chain, Seat, Given), Rc<Outcome>>> = RefCell::default();
}

/// A listener takes the chain of another over, by [`Heard::go_on_from`].
pub(super) fn go_on(known: &mut (Chain, bool), left: (Chain, bool)) -> GoesOn {
    let heard = |(chain, has_delivered)| Heard {
        chain,
        has_delivered,
        ..Heard::anew(LOBBY.clone(), Vec::new())
    };
    let mut heard_here = heard(*known);
    let goes_on = heard_here.go_on_from(&heard(left));
    *known = (heard_here.chain, heard_here.has_delivered);
    goes_on
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
    let room = RoomUnderTest::with(seat);
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
        Given::Loss(loss) => is_current = tell_loss(&room.hub, &mut heard, loss, Pace::Calm),
        Given::GapAfter(after) => {
            let (after, before) = (*after, None);
            let gap = GivenEvent::Gap { after, before };
            room.deliver((gap, Some(MessageId::GREATEST)));
        }
        Given::Past(last) => room.release(*last),
    }
    let state = room.hub.member_state(&LOBBY, CONNECTION);
    let member = state.unwrap_or_default();
    let held = member.held.iter();
    let held = held.map(|(event, until)| (GivenEvent::of(event), *until));
    Outcome {
        chain: heard.chain,
        is_current,
        has_gap,
        has_delivered: heard.has_delivered,
        last: member.last,
        is_in_gap: member.is_in_gap,
        held: held.collect(),
        told: room.told(),
    }
}

/// A hub whose only member is in this state.
struct RoomUnderTest {
    hub: Hub,
    queue: Queue,
}

impl RoomUnderTest {
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
                held.iter().for_each(|event| room.deliver(*event));
            }
            Seat::In(last, is_in_gap) => {
                room.admit();
                room.release(*last);
                if *is_in_gap {
                    room.deliver(A_GAP);
                    room.told();
                }
            }
        }
        room
    }

    fn admit(&self) {
        let outbox = Arc::clone(self.queue.outbox());
        self.hub.add_member(&LOBBY, CONNECTION, None, &outbox);
    }

    fn deliver(&self, (event, until): HeldEvent) {
        let delivery = match event {
            GivenEvent::Message(id) => Delivery::Messages(vec![Said { id, prev: None }.entry()]),
            GivenEvent::Gap { after, before } => Delivery::Gap {
                after,
                until,
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
