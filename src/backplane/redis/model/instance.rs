//! An instance: what it hears of the room on each node of a cluster, and its client. Outside of a cluster there is one
//! node.

use super::client::{Broken, Entering, GivenEvent, ModelClient};
use super::redis::{Look, ModelRedis, Said, Snapshot, Whom};
use super::under_test::{Given, Outcome, give, go_on};
use crate::backplane::redis::chain::{Chain, GoesOn};
use crate::backplane::redis::wire::Loss;
use crate::backplane::resume;
use crate::message::MessageId;

/// The messages that will still be said, and the accidents that may still happen: those of the log and of Redis, and
/// those of each instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
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
    /// The same with up to two messages; and the instances ask for what was acknowledged.
    pub(super) failovers: u8,
    /// Redis forgets everything.
    pub(super) begins: u8,
    /// The room moves to the other node of a cluster.
    pub(super) moves: u8,
}

/// A push of Redis that the subscriber has not taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Push {
    Confirmed,
    Message(Said),
    /// And what was known when it was found.
    Loss(Loss, Look),
    /// The room is on another node.
    Moved,
    /// The connection ends.
    End,
}

/// What Redis has answered to a subscriber that catches up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    None,
    Newest(Snapshot),
    Page(Look, Vec<Said>),
}

/// What one `Listener` knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ModelListener {
    /// `None`: it does not have the room.
    pub(super) chain: Option<Chain>,
    has_delivered: bool,
    pub(super) is_subscribed: bool,
    pub(super) pushes: Vec<Push>,
    pub(super) is_behind: bool,
    /// Whether the room is heard, so that clients may read it.
    pub(super) is_heard: bool,
    /// What Redis has answered, while the log is being read.
    pub(super) answer: Answer,
    /// How often Redis had lost its memory by the time at which the chain stands.
    losses: u8,
    /// Whether it was subscribed all the time since it was last current, so that it need not fear for what it cannot
    /// know.
    is_unbroken: bool,
}

impl ModelListener {
    const NEW: Self = Self {
        chain: None,
        has_delivered: false,
        is_subscribed: false,
        pushes: Vec::new(),
        is_behind: false,
        is_heard: false,
        answer: Answer::None,
        losses: 0,
        is_unbroken: false,
    };

    pub(super) fn chain(&self) -> Chain {
        self.chain.unwrap_or(Chain::Unknown)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.answer == Answer::None
    }

    pub(super) fn want(&mut self) {
        self.chain.get_or_insert(Chain::Unknown);
    }

    pub(super) fn subscribe(&mut self) {
        self.want();
        self.is_subscribed = true;
        self.pushes = vec![Push::Confirmed];
    }

    pub(super) fn forget(&mut self) {
        (self.chain, self.has_delivered) = (None, false);
    }

    /// `Listener::lost`.
    pub(super) fn cut(&mut self) {
        self.is_subscribed = false;
        self.pushes.clear();
        if let Some(chain) = &mut self.chain {
            chain.cut();
        }
        (self.is_behind, self.is_heard, self.is_unbroken) = (false, false, false);
    }
}

/// A room that one node has given away.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct GivenAway {
    /// Its owner by an older map. `None`: the map was read since.
    pub(super) from: Option<usize>,
    chain: Chain,
    has_delivered: bool,
    losses: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Instance {
    /// One for each node.
    pub(super) listeners: Vec<ModelListener>,
    /// The node that has the room, by its map.
    pub(super) owner: usize,
    /// What was given away, and is not adopted yet.
    pub(super) given_away: Vec<GivenAway>,
    /// How a hole was last found.
    look: Look,
    /// The last message for which it got an acknowledgement.
    pub(super) acknowledged: Option<MessageId>,
    /// What it will ask a new master for.
    pub(super) in_doubt: Vec<MessageId>,
    pub(super) client: ModelClient,
    /// The accidents that may still happen to it.
    pub(super) left: Accidents,
}

impl Instance {
    pub(super) fn new(nodes: usize, left: Accidents) -> Self {
        Self {
            listeners: vec![ModelListener::NEW; nodes],
            owner: 0,
            given_away: Vec::new(),
            look: Look::default(),
            acknowledged: None,
            in_doubt: Vec::new(),
            client: ModelClient::new(),
            left,
        }
    }

    pub(super) fn doubt(&mut self, id: MessageId) {
        if let Err(place) = self.in_doubt.binary_search(&id) {
            self.in_doubt.insert(place, id);
        }
    }

    /// Whether another node may have delivered what comes before, or may still have to.
    fn is_moving(&self) -> bool {
        self.listeners.len() > 1
    }

    /// `Listener::hear`.
    pub(super) fn hear(&mut self, redis: &ModelRedis, node: usize) -> Result<(), Broken> {
        let one = &mut self.listeners[node];
        let push = one.pushes.remove(0);
        let Some(chain) = one.chain else {
            return Ok(());
        };
        let (given, losses) = match push {
            Push::Confirmed => {
                one.is_behind = true;
                return Ok(());
            }
            Push::End => {
                one.cut();
                return Ok(());
            }
            Push::Moved => {
                self.give_away(node);
                return Ok(());
            }
            Push::Message(said) => (Given::Message(said), redis.losses_at(said.id.millis)),
            Push::Loss(loss, look) => {
                self.look = look;
                (Given::Loss(loss), look.losses)
            }
        };
        let outcome = give(chain, &self.client, given);
        if outcome.chain.last() != chain.last() {
            one.losses = losses;
        }
        if !outcome.is_current {
            (one.is_behind, one.is_heard) = (true, false);
        }
        self.tell(redis, node, &outcome)
    }

    /// `Listener::catch_up`. With `asks`, the others are told of what is lost.
    pub(super) fn catch_up(
        &mut self,
        redis: &ModelRedis,
        node: usize,
        asks: bool,
    ) -> Result<(), Broken> {
        let one = &mut self.listeners[node];
        let answer = std::mem::replace(&mut one.answer, Answer::None);
        let Answer::Page(look, page) = answer else {
            return Ok(());
        };
        let chain = one.chain();
        let ids: Vec<_> = page.iter().map(|said| said.id.millis).collect();
        let outcome = give(chain, &self.client, Given::Page(page, look.asked.tail));
        if outcome.has_gap {
            let knew = chain.last().map_or(0, |last| last.millis);
            let end = look.asked.said.max(ids.last().copied().unwrap_or(0));
            // What the log still has is not lost.
            let is_there = |number| ids.contains(&number) || redis.has(number);
            let is_whole = (knew + 1..=end).all(is_there);
            let nothing_to_fear = one.is_unbroken && !ids.is_empty();
            if is_whole && (one.losses == look.losses || nothing_to_fear) {
                return Err(Broken::ToldForNothing);
            }
            self.look = look;
            if one.losses < look.losses {
                self.look.whom = Whom::Anybody;
            }
        }
        one.losses = look.asked.losses;
        if outcome.is_current {
            (one.is_behind, one.is_heard, one.is_unbroken) = (false, true, true);
        }
        if let (true, true, Some(last)) = (asks, outcome.has_gap, chain.last()) {
            self.doubt(last);
        }
        self.tell(redis, node, &outcome)
    }

    /// `Listener::give_away`.
    pub(super) fn give_away(&mut self, node: usize) {
        let one = &mut self.listeners[node];
        one.cut();
        if let Some(chain) = one.chain.take() {
            self.given_away.push(GivenAway {
                from: Some(node),
                chain,
                has_delivered: std::mem::take(&mut one.has_delivered),
                losses: one.losses,
            });
        }
    }

    /// `Topology::look`.
    pub(super) fn learn_map(&mut self, owner: usize) {
        self.owner = owner;
        self.given_away.iter_mut().for_each(|left| left.from = None);
    }

    /// `Listener::adopt`, and `merge`.
    pub(super) fn adopt(&mut self, redis: &ModelRedis) -> Result<(), Broken> {
        let left = self.given_away.remove(0);
        let one = &mut self.listeners[self.owner];
        let Some(chain) = one.chain else {
            (one.chain, one.losses) = (Some(left.chain), left.losses);
            one.has_delivered = left.has_delivered;
            return Ok(());
        };
        let mut known = (chain, one.has_delivered);
        let goes_on = go_on(&mut known, (left.chain, left.has_delivered));
        (one.chain, one.has_delivered) = (Some(known.0), known.1);
        match goes_on {
            GoesOn::AsItWas => Ok(()),
            GoesOn::Behind => {
                one.is_behind |= std::mem::take(&mut one.is_heard);
                (one.losses, one.is_unbroken) = (left.losses, false);
                Ok(())
            }
            GoesOn::WithGap(after) => {
                let outcome = give(known.0, &self.client, Given::GapAfter(after));
                self.look = redis.look(redis.snapshot());
                self.look.whom = Whom::Anybody;
                // It is told behind what was missed.
                self.look.asked.said = 0;
                self.tell(redis, self.owner, &outcome)
            }
        }
    }

    /// `Joiner::send_past`, once the past was read.
    pub(super) fn read_past(&mut self, redis: &ModelRedis) {
        if let Entering::Asked(asked) = self.client.phase {
            let past = ModelClient::past(redis, self.client.since);
            let resumed = resume(self.client.since, &past, asked.tail);
            let ids = past.entries.iter().map(|entry| entry.message.id).collect();
            let look = redis.look(asked);
            self.client.phase = Entering::Read(look, ids, resumed, past.more);
        }
    }

    /// The first frame, and the end of the past if that is all; or that end after the rest.
    pub(super) fn release(&mut self, redis: &ModelRedis) -> Result<(), Broken> {
        let node = self.owner;
        let last = match self.client.phase.clone() {
            Entering::Read(look, past, resumed, more) => {
                let client = &mut self.client;
                client.enters(redis, look, &past, resumed, more)?;
                if more {
                    let place = resumed.reads_on(look.asked.tail);
                    client.phase = Entering::Rest(place, true);
                    return Ok(());
                }
                resumed.last
            }
            Entering::Rest(place, _) => place.last,
            Entering::Out
            | Entering::Waiting
            | Entering::Heard
            | Entering::Asked(_)
            | Entering::In => return Ok(()),
        };
        let chain = self.listeners[node].chain();
        let outcome = give(chain, &self.client, Given::Past(last));
        self.client.phase = Entering::In;
        self.tell(redis, node, &outcome)
    }

    /// One piece of `Joiner::send_rest`.
    pub(super) fn read_rest(&mut self, redis: &ModelRedis) -> Result<(), Broken> {
        let Entering::Rest(mut place, _) = self.client.phase else {
            return Ok(());
        };
        let piece = ModelClient::past(redis, place.last);
        let gap = |after, before| GivenEvent::Gap { after, before };
        for entry in piece.entries {
            let (after, id) = (place.last, entry.message.id);
            if !place.follow(&entry) {
                self.client.reads_on(redis, gap(after, Some(id)))?;
            }
            self.client.reads_on(redis, GivenEvent::Message(id))?;
        }
        if !piece.more && !place.is_at_end() {
            self.client.reads_on(redis, gap(place.last, None))?;
        }
        self.client.phase = Entering::Rest(place, piece.more);
        Ok(())
    }

    /// Takes the outcome over, and tells the client.
    fn tell(&mut self, redis: &ModelRedis, node: usize, outcome: &Outcome) -> Result<(), Broken> {
        let is_moving = self.is_moving();
        let one = &mut self.listeners[node];
        if one.chain.is_some() {
            one.chain = Some(outcome.chain);
            one.has_delivered |= outcome.has_delivered;
        }
        let held = &mut self.client.held;
        let looks = std::mem::take(&mut held.looks);
        let known = |told: &GivenEvent| {
            let look = looks.iter().find(|(held, _)| held == told);
            look.map_or(self.look, |(_, look)| *look)
        };
        (held.last, held.is_in_gap) = (outcome.last, outcome.is_in_gap);
        held.events.clone_from(&outcome.held);
        // What was held back before keeps how it was found.
        let gaps = held.events.iter().map(|(event, _)| event);
        let gaps = gaps.filter(|event| matches!(event, GivenEvent::Gap { .. }));
        held.looks = gaps.map(|gap| (*gap, known(gap))).collect();
        for told in &outcome.told {
            self.client.hears(redis, *told, known(told), is_moving)?;
        }
        Ok(())
    }
}
