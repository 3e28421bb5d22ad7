//! The whole model: Redis, the instances with a client each, and the steps that can be taken.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use super::client::{Broken, Entering, GivenEvent, MemberView, ModelClient};
use super::redis::{Look, ModelRedis, Said, Snapshot};
use super::search::{Model, hash};
use crate::backplane::redis::chain::{Chain, ENTRIES_AT_ONCE, Heard, fill, follow};
use crate::backplane::redis::wire::LogItem;
use crate::backplane::resume;
use crate::hub::outbox::{Queue, outbox};
use crate::hub::{Delivery, Hub, Pace};
use crate::message::{ConnectionId, InstanceId, MemberList, MessageId, Revision, RoomName};
use crate::protocol::{Encoding, Event};

const CONNECTION: ConnectionId = ConnectionId(1);

static LOBBY: LazyLock<RoomName> = LazyLock::new(RoomName::lobby);

/// The bytes that an outbox holds, which is more than any client is told.
const BUDGET: usize = 1 << 20;

/// The messages that will still be said, and the accidents that may still happen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Accidents {
    pub(super) messages: u8,
    /// A subscription is cut.
    pub(super) cuts: u8,
    /// Pub/Sub loses a message.
    pub(super) drops: u8,
    /// Pub/Sub delivers a message once more, later.
    pub(super) repeats: u8,
    /// A client leaves, and comes back with the last message that it has.
    pub(super) leaves: u8,
    /// The log forgets its oldest message.
    pub(super) trims: u8,
    /// The log forgets all messages.
    pub(super) forgets: u8,
    /// Redis is what it was before the last message.
    pub(super) ends: u8,
    /// Redis forgets everything.
    pub(super) begins: u8,
}

/// Something that can happen. The number is an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModelStep {
    Say,
    Trim,
    Forget,
    LoseEnd,
    BeginAnew,
    Cut(usize),
    Drop(usize),
    Repeat(usize),
    Leave(usize),
    /// Nobody is in the room any more.
    Unsubscribe(usize),
    Subscribe(usize),
    /// The subscriber takes the next push.
    Hear(usize),
    /// To catch up, the room's newest id is read, then its log, and then the hub is given what was missed.
    AskNewest(usize),
    ReadPage(usize),
    CatchUp(usize),
    /// The same for a client that enters.
    Enter(usize),
    AskNewestFor(usize),
    ReadPast(usize),
    Release(usize),
}

/// A push of Redis that the subscriber has not taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Push {
    Confirmed,
    Message(Said),
    /// The connection ends.
    End,
}

/// What Redis has answered to a subscriber that catches up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Answer {
    None,
    Newest(Snapshot),
    Page(Look, Vec<Said>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Instance {
    chain: Chain,
    is_subscribed: bool,
    pushes: Vec<Push>,
    is_behind: bool,
    /// Whether the room is heard, so that clients may read it.
    is_heard: bool,
    /// What Redis has answered, while the log is being read.
    answer: Answer,
    /// How a hole was last found.
    look: Look,
    /// How often Redis had lost its memory by the time at which the chain stands.
    losses: u8,
    /// Whether it was subscribed all the time since it was last current, so that it need not fear for what it cannot
    /// know.
    is_unbroken: bool,
    client: ModelClient,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    redis: ModelRedis,
    instances: Vec<Instance>,
    left: Accidents,
}

impl World {
    /// A room in which one message was said, and so many instances, none of which hears it yet.
    pub(super) fn new(instances: usize, left: Accidents) -> Self {
        let mut redis = ModelRedis::default();
        redis.say();
        let instance = Instance {
            chain: Chain::Unknown,
            is_subscribed: false,
            pushes: Vec::new(),
            is_behind: false,
            is_heard: false,
            answer: Answer::None,
            look: Look::default(),
            losses: 0,
            is_unbroken: false,
            client: ModelClient::new(),
        };
        Self {
            redis,
            instances: vec![instance; instances],
            left,
        }
    }
}

impl Model for World {
    type Step = ModelStep;
    type Broken = Broken;

    /// The instances are alike, so their order does not count.
    fn fingerprint(&self) -> u64 {
        let mut instances: Vec<_> = self.instances.iter().map(hash).collect();
        instances.sort_unstable();
        hash(&(&self.redis, &self.left, instances))
    }

    fn steps(&self) -> Vec<ModelStep> {
        let (left, mut steps) = (&self.left, Vec::new());
        let mut may = |condition: bool, step| {
            if condition {
                steps.push(step);
            }
        };
        let has_log = !self.redis.is_empty();
        may(left.messages > 0, ModelStep::Say);
        may(left.trims > 0 && has_log, ModelStep::Trim);
        may(left.forgets > 0 && has_log, ModelStep::Forget);
        may(left.ends > 0 && has_log, ModelStep::LoseEnd);
        may(left.begins > 0, ModelStep::BeginAnew);
        for (at, one) in self.instances.iter().enumerate() {
            let phase = &one.client.phase;
            let is_idle = one.answer == Answer::None;
            let next = one.pushes.first();
            let is_message = matches!(next, Some(Push::Message(_)));
            // Otherwise nobody would ever know.
            let more_come = left.messages > 0 || one.pushes.iter().max() > next;
            let is_known = one.chain != Chain::Unknown;
            let is_wanted = is_known || *phase != Entering::Out;
            may(
                left.cuts > 0 && one.is_subscribed && is_idle,
                ModelStep::Cut(at),
            );
            may(
                left.drops > 0 && is_message && more_come,
                ModelStep::Drop(at),
            );
            may(left.repeats > 0 && is_message, ModelStep::Repeat(at));
            may(
                left.leaves > 0 && *phase == Entering::In,
                ModelStep::Leave(at),
            );
            let is_left = *phase == Entering::Out && is_known && is_idle;
            may(is_left, ModelStep::Unsubscribe(at));
            may(!one.is_subscribed && is_wanted, ModelStep::Subscribe(at));
            may(is_idle && next.is_some(), ModelStep::Hear(at));
            // What a Redis that is gone had pushed is heard before another can be read.
            let is_over = one.pushes.contains(&Push::End);
            may(
                is_idle && one.is_behind && !is_over,
                ModelStep::AskNewest(at),
            );
            may(
                matches!(one.answer, Answer::Newest(_)),
                ModelStep::ReadPage(at),
            );
            may(
                matches!(one.answer, Answer::Page(..)),
                ModelStep::CatchUp(at),
            );
            may(*phase == Entering::Out, ModelStep::Enter(at));
            may(
                *phase == Entering::Waiting && one.is_heard,
                ModelStep::AskNewestFor(at),
            );
            may(matches!(phase, Entering::Asked(_)), ModelStep::ReadPast(at));
            may(matches!(phase, Entering::Read(..)), ModelStep::Release(at));
        }
        steps
    }

    /// Takes a step, and lets the clients judge what they are told.
    fn take(&mut self, step: ModelStep) -> Result<(), Broken> {
        let Self {
            redis,
            instances,
            left,
        } = self;
        match step {
            ModelStep::Say => {
                left.messages -= 1;
                let said = redis.say();
                let heard = instances.iter_mut().filter(|one| one.is_subscribed);
                heard.for_each(|one| one.pushes.push(Push::Message(said)));
            }
            ModelStep::Trim => {
                left.trims -= 1;
                redis.trim();
            }
            ModelStep::Forget => {
                left.forgets -= 1;
                redis.forget();
            }
            ModelStep::BeginAnew => {
                left.begins -= 1;
                redis.begin_anew();
            }
            ModelStep::LoseEnd => {
                left.ends -= 1;
                redis.lose_end();
                // It was started anew, or is another server.
                let heard = instances.iter_mut().filter(|one| one.is_subscribed);
                heard.for_each(|one| one.pushes.push(Push::End));
            }
            ModelStep::Cut(at) => {
                left.cuts -= 1;
                instances[at].cut();
            }
            ModelStep::Drop(at) => {
                left.drops -= 1;
                instances[at].pushes.remove(0);
            }
            ModelStep::Repeat(at) => {
                left.repeats -= 1;
                let one = &mut instances[at];
                one.pushes.push(one.pushes[0]);
            }
            ModelStep::Leave(at) => {
                left.leaves -= 1;
                let client = &mut instances[at].client;
                (client.phase, client.held) = (Entering::Out, MemberView::default());
            }
            ModelStep::Unsubscribe(at) => {
                let one = &mut instances[at];
                one.cut();
                one.chain = Chain::Unknown;
            }
            ModelStep::Subscribe(at) => {
                let one = &mut instances[at];
                one.is_subscribed = true;
                one.pushes = vec![Push::Confirmed];
            }
            ModelStep::Hear(at) => return instances[at].hear(redis),
            ModelStep::AskNewest(at) => instances[at].answer = Answer::Newest(redis.snapshot()),
            ModelStep::ReadPage(at) => {
                let one = &mut instances[at];
                if let Answer::Newest(asked) = one.answer {
                    let mut page = redis.after(one.chain.read_to());
                    page.truncate(ENTRIES_AT_ONCE);
                    one.answer = Answer::Page(redis.look(asked), page);
                }
            }
            ModelStep::CatchUp(at) => return instances[at].catch_up(redis),
            ModelStep::Enter(at) => instances[at].client.phase = Entering::Waiting,
            ModelStep::AskNewestFor(at) => {
                instances[at].client.phase = Entering::Asked(redis.snapshot());
            }
            ModelStep::ReadPast(at) => {
                let client = &mut instances[at].client;
                if let Entering::Asked(asked) = client.phase {
                    let past = client.past(redis);
                    let resumed = resume(client.since, &past, asked.tail);
                    let ids = past.entries.iter().map(|entry| entry.message.id).collect();
                    client.phase = Entering::Read(redis.look(asked), ids, resumed);
                }
            }
            ModelStep::Release(at) => return instances[at].release(redis),
        }
        Ok(())
    }

    fn ends(&self) -> Result<(), Broken> {
        let mut instances = self.instances.iter();
        match instances.all(|instance| instance.client.is_current(&self.redis)) {
            true => Ok(()),
            false => Err(Broken::NotCurrent),
        }
    }
}

impl Instance {
    /// `Listener::lost`.
    fn cut(&mut self) {
        self.is_subscribed = false;
        self.pushes.clear();
        self.chain.cut();
        (self.is_behind, self.is_heard, self.is_unbroken) = (false, false, false);
    }

    /// `Listener::hear`.
    fn hear(&mut self, redis: &ModelRedis) -> Result<(), Broken> {
        match self.pushes.remove(0) {
            Push::Confirmed => self.is_behind = true,
            Push::End => self.cut(),
            Push::Message(said) => {
                let room = Room::with(&self.client);
                let mut heard = self.heard();
                let is_next = follow(&room.hub, &mut heard, said.entry(), Pace::Calm);
                if heard.chain.last() != self.chain.last() {
                    self.losses = redis.losses_at(said.id.millis);
                }
                self.chain = heard.chain;
                if !is_next {
                    (self.is_behind, self.is_heard) = (true, false);
                }
                return self.tell(redis, &room);
            }
        }
        Ok(())
    }

    /// `Listener::catch_up`.
    fn catch_up(&mut self, redis: &ModelRedis) -> Result<(), Broken> {
        let answer = std::mem::replace(&mut self.answer, Answer::None);
        let Answer::Page(look, page) = answer else {
            return Ok(());
        };
        let room = Room::with(&self.client);
        let mut heard = self.heard();
        let ids: Vec<_> = page.iter().map(|said| said.id.millis).collect();
        let page = page.into_iter().map(|said| LogItem::Entry(said.entry()));
        let filled = fill(&room.hub, &mut heard, page.collect(), look.asked.tail);
        if filled.has_gap {
            let knew = self.chain.last().map_or(0, |last| last.millis);
            let end = look.asked.said.max(ids.last().copied().unwrap_or(0));
            // What the log still has is not lost.
            let is_there = |number| ids.contains(&number) || redis.has(number);
            let is_whole = (knew + 1..=end).all(is_there);
            let nothing_to_fear = self.is_unbroken && !ids.is_empty();
            if is_whole && (self.losses == look.losses || nothing_to_fear) {
                return Err(Broken::ToldForNothing);
            }
            self.look = look;
        }
        self.losses = look.asked.losses;
        self.chain = heard.chain;
        if filled.is_current {
            (self.is_behind, self.is_heard, self.is_unbroken) = (false, true, true);
        }
        self.tell(redis, &room)
    }

    /// The end of `Joiner::send_past`.
    fn release(&mut self, redis: &ModelRedis) -> Result<(), Broken> {
        let phase = std::mem::replace(&mut self.client.phase, Entering::In);
        let Entering::Read(look, past, resumed) = phase else {
            return Ok(());
        };
        self.client.enters(redis, look, &past, resumed)?;
        let room = Room::with_reading(&self.client);
        room.release(resumed.last);
        self.tell(redis, &room)
    }

    fn heard(&self) -> Heard {
        let mut heard = Heard::anew(LOBBY.clone(), Vec::new());
        heard.chain = self.chain;
        heard
    }

    /// Gives the client what the hub has for it.
    fn tell(&mut self, redis: &ModelRedis, room: &Room) -> Result<(), Broken> {
        let state = room.hub.member_state(&LOBBY, CONNECTION);
        let looks = self.client.held.looks.clone();
        self.client.held = state.map_or(MemberView::default(), MemberView::of);
        // What was held back before keeps how it was found.
        for told in &self.client.held.events {
            if let GivenEvent::Gap { .. } = told {
                let known = looks.iter().find(|(held, _)| held == told);
                let look = known.copied().unwrap_or((*told, self.look));
                self.client.held.looks.push(look);
            }
        }
        for told in room.told() {
            let look = looks.iter().find(|(held, _)| *held == told);
            let look = look.map_or(self.look, |(_, look)| *look);
            self.client.hears(redis, told, look)?;
        }
        Ok(())
    }
}

/// A hub whose only member is in the state of this client's.
struct Room {
    hub: Hub,
    queue: Queue,
}

impl Room {
    fn with(client: &ModelClient) -> Self {
        match client.phase {
            Entering::Out => Self::new(),
            Entering::Waiting | Entering::Asked(_) | Entering::Read(..) => {
                Self::with_reading(client)
            }
            Entering::In => {
                let room = Self::new();
                room.admit();
                room.release(client.held.last);
                room
            }
        }
    }

    fn with_reading(client: &ModelClient) -> Self {
        let room = Self::new();
        room.admit();
        for told in &client.held.events {
            let delivery = match *told {
                GivenEvent::Message(id) => {
                    Delivery::Messages(vec![Said { id, prev: None }.entry()])
                }
                GivenEvent::Gap { after, before } => Delivery::Gap { after, before },
            };
            room.hub.deliver(&LOBBY, delivery, Pace::Calm);
        }
        room
    }

    fn new() -> Self {
        let (_, queue) = outbox(Encoding::JsonLines, BUDGET, None);
        Self {
            hub: Hub::start(InstanceId::random(), 0).expect("no threads"),
            queue,
        }
    }

    fn admit(&self) {
        let outbox = Arc::clone(self.queue.outbox());
        self.hub.add_member(&LOBBY, CONNECTION, None, &outbox);
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
