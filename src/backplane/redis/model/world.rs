//! The whole model: Redis, the instances with a client each, and the steps that can be taken.

use super::client::{Broken, Entering, MemberView};
use super::instance::{Accidents, Answer, Instance, Push};
use super::redis::{ModelRedis, Whom};
use super::search::{Model, hash};
use crate::backplane::redis::chain::ENTRIES_AT_ONCE;

/// Something that can happen. The first number is an instance, the second one a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModelStep {
    /// A client of this instance says something. With a number too many, the acknowledgement gets lost.
    Say(usize),
    Trim,
    Forget,
    LoseEnd,
    FailOver(usize),
    BeginAnew,
    MoveRoom,
    Cut(usize, usize),
    Drop(usize, usize),
    Repeat(usize, usize),
    Leave(usize),
    /// The instance asks a new master for the first or second message that is in doubt.
    LookFor(usize, usize),
    /// The instance reads the cluster's map.
    LearnMap(usize),
    GiveAway(usize, usize),
    Adopt(usize),
    /// Somebody else enters.
    Want(usize),
    /// Nobody is in the room any more.
    Unsubscribe(usize, usize),
    Subscribe(usize, usize),
    /// The subscriber takes the next push.
    Hear(usize, usize),
    /// To catch up, the room's newest id is read, then its log, and then the hub is given what was missed.
    AskNewest(usize, usize),
    ReadPage(usize, usize),
    CatchUp(usize, usize),
    /// The same for a client that enters. A long past is read in pieces.
    Enter(usize),
    IsHeard(usize),
    AskNewestFor(usize),
    ReadPast(usize),
    ReadRest(usize),
    Release(usize),
}

impl ModelStep {
    /// Whether it is all the same to Redis and to other instances, and they to it.
    fn is_local(self) -> bool {
        match self {
            Self::Cut(..)
            | Self::Drop(..)
            | Self::Repeat(..)
            | Self::Leave(_)
            | Self::GiveAway(..)
            | Self::Adopt(_)
            | Self::Want(_)
            | Self::Unsubscribe(..)
            | Self::Hear(..)
            | Self::CatchUp(..)
            | Self::Enter(_)
            | Self::IsHeard(_)
            | Self::Release(_) => true,
            Self::Say(_)
            | Self::Trim
            | Self::Forget
            | Self::LoseEnd
            | Self::FailOver(_)
            | Self::BeginAnew
            | Self::MoveRoom
            | Self::LookFor(..)
            | Self::LearnMap(_)
            | Self::Subscribe(..)
            | Self::AskNewest(..)
            | Self::ReadPage(..)
            | Self::AskNewestFor(_)
            | Self::ReadPast(_)
            | Self::ReadRest(_) => false,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct World {
    redis: ModelRedis,
    /// The node that has the room.
    node: usize,
    instances: Vec<Instance>,
    left: Accidents,
    /// Whether instances ask for what was acknowledged.
    asks: bool,
}

impl World {
    /// A room in which one message was said, and so many instances, none of which hears it yet.
    pub(super) fn new(instances: usize, left: Accidents) -> Self {
        let mut redis = ModelRedis::default();
        redis.say();
        let nodes = if left.moves > 0 { 2 } else { 1 };
        Self {
            redis,
            node: 0,
            instances: vec![Instance::new(nodes, left); instances],
            left,
            asks: left.failovers > 0,
        }
    }

    fn steps_of_redis(&self) -> Vec<ModelStep> {
        let (left, mut steps) = (&self.left, Vec::new());
        let length = self.redis.length();
        let mut may = |condition: bool, step| {
            if condition {
                steps.push(step);
            }
        };
        for (at, one) in self.instances.iter().enumerate() {
            // Who it was makes a difference only if a failover may come.
            let counts = at == 0 || left.failovers > 0;
            let may_say = left.messages > 0 && one.in_doubt.is_empty();
            may(may_say && counts, ModelStep::Say(at));
        }
        let nobody = self.instances.len();
        may(
            left.messages > 0 && left.failovers > 0,
            ModelStep::Say(nobody),
        );
        may(left.trims > 0 && length > 0, ModelStep::Trim);
        may(left.forgets > 0 && length > 0, ModelStep::Forget);
        may(left.ends > 0 && length > 0, ModelStep::LoseEnd);
        may(left.failovers > 0 && length > 0, ModelStep::FailOver(1));
        may(left.failovers > 0 && length > 1, ModelStep::FailOver(2));
        may(left.begins > 0, ModelStep::BeginAnew);
        may(left.moves > 0, ModelStep::MoveRoom);
        steps
    }

    fn steps_of(&self, at: usize, instance: &Instance) -> Vec<ModelStep> {
        let mut steps = Vec::new();
        let mut may = |condition: bool, step| {
            if condition {
                steps.push(step);
            }
        };
        let (phase, left) = (&instance.client.phase, &instance.left);
        let owner = &instance.listeners[instance.owner];
        let is_owed = instance.client.is_owed(&self.redis);
        let asks_nothing = instance.in_doubt.is_empty();
        for (node, one) in instance.listeners.iter().enumerate() {
            let is_idle = one.is_idle();
            let next = one.pushes.first();
            let is_message = matches!(next, Some(Push::Message(_)));
            let later = one.pushes.iter().skip(1);
            // Otherwise nobody would ever know.
            let more_come = self.left.messages > 0
                || later
                    .clone()
                    .any(|push| matches!(push, Push::Message(_)) && Some(push) != next);
            let is_open = one.is_subscribed || next.is_some();
            may(
                left.cuts > 0 && is_open && is_idle,
                ModelStep::Cut(at, node),
            );
            may(
                left.drops > 0 && is_message && more_come,
                ModelStep::Drop(at, node),
            );
            may(left.repeats > 0 && is_message, ModelStep::Repeat(at, node));
            let is_left = *phase == Entering::Out && one.chain.is_some() && is_idle;
            may(is_left, ModelStep::Unsubscribe(at, node));
            let is_asked_for = node == instance.owner && *phase == Entering::Waiting;
            let may_subscribe = self.node == node && !is_open;
            may(
                may_subscribe && (one.chain.is_some() || is_asked_for),
                ModelStep::Subscribe(at, node),
            );
            may(is_idle && next.is_some(), ModelStep::Hear(at, node));
            // What a Redis that is gone had pushed is heard before another can be read.
            let is_over = one.pushes.contains(&Push::End);
            may(
                is_idle && one.is_behind && !is_over && asks_nothing,
                ModelStep::AskNewest(at, node),
            );
            may(
                matches!(one.answer, Answer::Newest(_)),
                ModelStep::ReadPage(at, node),
            );
            may(
                matches!(one.answer, Answer::Page(..)),
                ModelStep::CatchUp(at, node),
            );
            let is_elsewhere = node != instance.owner;
            may(
                is_elsewhere && is_idle && one.chain.is_some(),
                ModelStep::GiveAway(at, node),
            );
        }
        for index in 0..instance.in_doubt.len() {
            may(true, ModelStep::LookFor(at, index));
        }
        let first = instance.given_away.first();
        let may_adopt = first.is_some_and(|left| left.from != Some(instance.owner));
        let has_old_map = instance.owner != self.node || first.is_some() && !may_adopt;
        may(has_old_map, ModelStep::LearnMap(at));
        may(may_adopt && owner.is_idle(), ModelStep::Adopt(at));
        may(
            *phase == Entering::In && owner.chain.is_none(),
            ModelStep::Want(at),
        );
        may(
            left.leaves > 0 && *phase == Entering::In && !is_owed,
            ModelStep::Leave(at),
        );
        may(*phase == Entering::Out, ModelStep::Enter(at));
        may(
            *phase == Entering::Waiting && owner.is_heard,
            ModelStep::IsHeard(at),
        );
        may(
            *phase == Entering::Heard && asks_nothing,
            ModelStep::AskNewestFor(at),
        );
        may(matches!(phase, Entering::Asked(_)), ModelStep::ReadPast(at));
        may(
            matches!(phase, Entering::Rest(_, true)),
            ModelStep::ReadRest(at),
        );
        may(
            matches!(phase, Entering::Read(..) | Entering::Rest(_, false)),
            ModelStep::Release(at),
        );
        steps
    }

    /// Pushes to all that hear the room.
    fn push(&mut self, push: Push) {
        for instance in &mut self.instances {
            let one = &mut instance.listeners[self.node];
            if one.is_subscribed {
                one.pushes.push(push);
            }
        }
    }

    fn fail_over(&mut self, count: usize) {
        self.left.failovers -= 1;
        self.redis.lose_end(count);
        self.push(Push::End);
        for instance in &mut self.instances {
            if let Some(id) = instance.acknowledged {
                instance.doubt(id);
            }
            // What was asked together is asked again.
            for one in &mut instance.listeners {
                if let Answer::Newest(_) = one.answer {
                    one.answer = Answer::None;
                }
            }
            if let Entering::Asked(_) = instance.client.phase {
                instance.client.phase = Entering::Waiting;
            }
            if self.left.failovers == 0 {
                instance.acknowledged = None;
            }
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
        hash(&(&self.redis, self.node, &self.left, instances))
    }

    /// The steps from here: all that can happen now, or all that can happen to one instance, where everything else may
    /// as well happen later. Then what it does next changes nothing for others, and they change nothing for it: they
    /// only add pushes behind those that it has to hear first.
    fn steps(&self) -> Vec<ModelStep> {
        let mut steps = self.steps_of_redis();
        let may_change = self.left.moves > 0 || self.left.failovers > 0;
        for (at, instance) in self.instances.iter().enumerate() {
            let own = self.steps_of(at, instance);
            let waits = instance
                .listeners
                .iter()
                .any(|one| one.is_subscribed && one.is_idle() && one.pushes.is_empty());
            let is_apart = own.iter().all(|step| step.is_local());
            if is_apart && !own.is_empty() && !waits && !may_change {
                return own;
            }
            steps.extend(own);
        }
        steps
    }

    /// Takes a step, and lets the clients judge what they are told.
    fn take(&mut self, step: ModelStep) -> Result<(), Broken> {
        match step {
            ModelStep::Say(at) => {
                self.left.messages -= 1;
                let said = self.redis.say();
                self.push(Push::Message(said));
                if let Some(one) = self.instances.get_mut(at)
                    && self.left.failovers > 0
                {
                    one.acknowledged = Some(said.id);
                }
            }
            ModelStep::Trim => {
                self.left.trims -= 1;
                self.redis.trim();
            }
            ModelStep::Forget => {
                self.left.forgets -= 1;
                self.redis.forget();
            }
            ModelStep::BeginAnew => {
                self.left.begins -= 1;
                self.redis.begin_anew();
            }
            ModelStep::LoseEnd => {
                self.left.ends -= 1;
                self.redis.lose_end(1);
                // It was started anew, or is another server.
                self.push(Push::End);
            }
            ModelStep::FailOver(count) => self.fail_over(count),
            ModelStep::MoveRoom => {
                self.left.moves -= 1;
                self.push(Push::Moved);
                for instance in &mut self.instances {
                    instance.listeners[self.node].is_subscribed = false;
                }
                self.node = 1 - self.node;
            }
            ModelStep::Cut(at, node) => {
                let instance = &mut self.instances[at];
                instance.left.cuts -= 1;
                instance.listeners[node].cut();
            }
            ModelStep::Drop(at, node) => {
                let instance = &mut self.instances[at];
                instance.left.drops -= 1;
                instance.listeners[node].pushes.remove(0);
            }
            ModelStep::Repeat(at, node) => {
                let instance = &mut self.instances[at];
                instance.left.repeats -= 1;
                let pushes = &mut instance.listeners[node].pushes;
                pushes.push(pushes[0]);
            }
            ModelStep::Leave(at) => {
                let instance = &mut self.instances[at];
                instance.left.leaves -= 1;
                let client = &mut instance.client;
                (client.phase, client.held) = (Entering::Out, MemberView::default());
            }
            ModelStep::LookFor(at, index) => {
                let id = self.instances[at].in_doubt.remove(index);
                if let Some((loss, is_news)) = self.redis.look_for(id) {
                    if !is_news {
                        return Err(Broken::ToldForNothing);
                    }
                    let mut look = self.redis.look(self.redis.snapshot());
                    look.whom = Whom::Anybody;
                    self.push(Push::Loss(loss, look));
                }
            }
            ModelStep::LearnMap(at) => self.instances[at].learn_map(self.node),
            ModelStep::GiveAway(at, node) => self.instances[at].give_away(node),
            ModelStep::Adopt(at) => return self.instances[at].adopt(&self.redis),
            ModelStep::Want(at) => {
                let instance = &mut self.instances[at];
                instance.listeners[instance.owner].want();
            }
            ModelStep::Unsubscribe(at, node) => {
                let one = &mut self.instances[at].listeners[node];
                one.cut();
                one.forget();
            }
            ModelStep::Subscribe(at, node) => self.instances[at].listeners[node].subscribe(),
            ModelStep::Hear(at, node) => return self.instances[at].hear(&self.redis, node),
            ModelStep::AskNewest(at, node) => {
                let answer = Answer::Newest(self.redis.snapshot());
                self.instances[at].listeners[node].answer = answer;
            }
            ModelStep::ReadPage(at, node) => {
                let one = &mut self.instances[at].listeners[node];
                if let Answer::Newest(asked) = one.answer {
                    let mut page = self.redis.after(one.chain().read_to());
                    page.truncate(ENTRIES_AT_ONCE);
                    one.answer = Answer::Page(self.redis.look(asked), page);
                }
            }
            ModelStep::CatchUp(at, node) => {
                return self.instances[at].catch_up(&self.redis, node, self.asks);
            }
            ModelStep::Enter(at) => self.instances[at].client.phase = Entering::Waiting,
            ModelStep::IsHeard(at) => self.instances[at].client.phase = Entering::Heard,
            ModelStep::AskNewestFor(at) => {
                self.instances[at].client.phase = Entering::Asked(self.redis.snapshot());
            }
            ModelStep::ReadPast(at) => self.instances[at].read_past(&self.redis),
            ModelStep::ReadRest(at) => return self.instances[at].read_rest(&self.redis),
            ModelStep::Release(at) => return self.instances[at].release(&self.redis),
        }
        Ok(())
    }

    /// Every client has heard of all that was said.
    fn ends(&self) -> Result<(), Broken> {
        let mut instances = self.instances.iter();
        let is_current = instances.all(|instance| instance.client.is_current(&self.redis));
        is_current.then_some(()).ok_or(Broken::NotCurrent)
    }
}
