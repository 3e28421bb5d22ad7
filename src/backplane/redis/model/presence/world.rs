//! The whole model: Redis, the instances, the connections, and the steps that can be taken.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::client::{
    BrokenPresence, MemberListView, ModelConnection, USERS, VisitPhase, name_of, user_of,
};
use super::instance::{Asks, BEGIN, GRACE, LOBBY, ModelCommand, ModelInstance, PresencePush, TTL};
use super::script::{ModelPresence, Operation, ScriptAnswer};
use crate::backplane::Departure;
use crate::backplane::redis::model::search::{Model, hash};
use crate::hub::outbox::{Queue, outbox};
use crate::message::ConnectionId;
use crate::protocol::Encoding;

/// The bytes that an outbox holds, which is more than anybody is told.
const BUDGET: usize = 1 << 20;

/// `MOST_SWEPT` of the script. It is never met here.
const MOST_SWEPT: usize = 250;

/// After this time without accidents everything has to be settled: a lease runs out, the room is swept, and is
/// compared twice.
const SETTLED_WITHIN: u64 = 26;

/// Redis's clock when the model begins, in seconds.
const CLOCK: u64 = 1_000_000;

/// What may still happen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct PresenceAccidents {
    /// Seconds in which everything may happen in any order.
    pub(super) seconds: u8,
    /// Several seconds pass in which nothing else happens.
    pub(super) waits: u8,
    /// An instance is killed, or ends.
    pub(super) crashes: u8,
    pub(super) ends: u8,
    /// An instance is cut off.
    pub(super) cuts: u8,
    /// Redis is away.
    pub(super) outages: u8,
    /// What a cut instance has written may arrive later, also after it is back.
    pub(super) late: bool,
    /// A subscription is cut.
    pub(super) deaf: u8,
    /// Redis refuses a command of the keeper, or a departure.
    pub(super) refusals: u8,
    /// Pub/Sub loses a notice.
    pub(super) drops: u8,
    /// Redis forgets everything.
    pub(super) forgets: u8,
}

/// Something that can happen. The number is a connection or an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PresenceEvent {
    Enter(usize),
    Release(usize),
    Leave(usize),
    BreakOff(usize),
    /// Redis runs the next command of an instance, which gets the answer.
    Run(usize),
    /// Redis runs the next command that was written on a lost connection.
    RunLate(usize),
    Hear(usize),
    TakeList(usize),
    EndInterval(usize),
    Tick(usize),
    Second,
    Wait(u64),
    Crash(usize),
    End(usize),
    Cut(usize),
    CutSubscription(usize),
    Reconnect(usize),
    /// Redis is away, and comes back with all that it had.
    Outage,
    Return,
    Refuse(usize),
    Drop(usize),
    Forget,
    /// Nothing happens any more but what has to.
    Settle,
}

#[derive(Clone)]
pub(super) struct PresenceWorld {
    second: u64,
    /// How often counting began anew, in microseconds: Redis's clock never stands still.
    micros: u64,
    redis: ModelPresence,
    /// Shared by the states that do not differ in them.
    instances: Vec<Rc<ModelInstance>>,
    connections: Vec<ModelConnection>,
    /// The outboxes of the connections. They are empty between two steps.
    queues: Rc<Vec<Queue>>,
    left: PresenceAccidents,
    is_out: bool,
    is_settled: bool,
    /// All states that were passed while everything settled.
    settled: Rc<RefCell<HashSet<u64>>>,
}

impl PresenceWorld {
    /// So many instances, and connections of which those that may enter once more than `out` are in.
    pub(super) fn new(
        instances: usize,
        connections: Vec<ModelConnection>,
        prelude: u64,
        left: PresenceAccidents,
    ) -> Self {
        let queues = connections
            .iter()
            .map(|_| outbox(Encoding::Text, BUDGET, None).1);
        let mut world = Self {
            second: 0,
            micros: 0,
            redis: ModelPresence::default(),
            instances: (0..instances)
                .map(|at| Rc::new(ModelInstance::new(at)))
                .collect(),
            queues: Rc::new(queues.collect()),
            connections,
            left,
            is_out: false,
            is_settled: false,
            settled: Rc::default(),
        };
        for client in 0..world.connections.len() {
            if world.connections[client].phase == VisitPhase::In {
                world.enter(client);
            }
        }
        let settled = world.settle(prelude, false);
        settled.expect("nothing has happened yet");
        world
    }

    /// An instance, to be changed.
    fn instance(&mut self, at: usize) -> &mut ModelInstance {
        Rc::make_mut(&mut self.instances[at]).changes()
    }

    fn now(&self) -> Instant {
        *BEGIN + Duration::from_secs(self.second)
    }

    fn time(&self) -> u64 {
        (CLOCK + self.second) * 1_000_000 + self.micros
    }

    fn enter(&mut self, client: usize) {
        let connection = &mut self.connections[client];
        connection.phase = VisitPhase::Asked;
        let instance = Rc::make_mut(&mut self.instances[connection.instance]).changes();
        let name = name_of(connection.user);
        let outbox = self.queues[client].outbox();
        instance
            .hub_mut()
            .add_member(&LOBBY, id_of(client), Some(name), outbox);
        // `Presence::arrive`.
        if instance.roster.arrive(&LOBBY, name).is_some() {
            let (ttl, users) = (TTL.as_millis() as u64, vec![connection.user]);
            instance.ask(Operation::Arrive { ttl, users }, Asks::User);
        }
        instance.ask(Operation::Roll, Asks::List(client));
    }

    /// The end of `Joiner::send_past`.
    fn release(&mut self, client: usize) -> Result<(), BrokenPresence> {
        let connection = &mut self.connections[client];
        let phase = std::mem::replace(&mut connection.phase, VisitPhase::In);
        if let VisitPhase::Read(mut list) = phase {
            // `with_user`.
            if !list.users.contains(&connection.user) {
                list.users.push(connection.user);
            }
            let list = list.list();
            let instance = Rc::make_mut(&mut self.instances[connection.instance]);
            let hub = instance.changes().hub_mut();
            hub.alike(&LOBBY, Some(&list));
            hub.release(&LOBBY, id_of(client), None, &list, None);
        }
        self.tell()
    }

    /// `Membership::drop`.
    fn leave(&mut self, client: usize, departure: Departure, phase: VisitPhase) {
        let now = self.now();
        let connection = &mut self.connections[client];
        connection.ends(phase);
        let user = connection.user;
        let instance = Rc::make_mut(&mut self.instances[connection.instance]).changes();
        instance.hub_mut().remove_member(&LOBBY, id_of(client));
        let change = instance
            .roster
            .depart(&LOBBY, name_of(user), departure, now);
        if change.is_some() {
            instance.gone(user, now);
        }
    }

    /// Redis takes the next command of an instance.
    fn run(&mut self, at: usize) -> Result<(), BrokenPresence> {
        let now = self.now();
        let Some(command) = self.instance(at).queue.pop_front() else {
            return Ok(());
        };
        let answer = self.execute(&command)?;
        match (command.asks, answer) {
            (Asks::List(client), ScriptAnswer::List(revision, users)) => {
                self.connections[client].reads(MemberListView { users, revision });
            }
            (_, answer) => self.instance(at).hears_answer(&command, answer, now),
        }
        Ok(())
    }

    /// Redis runs a command, and publishes to those that listen.
    fn execute(&mut self, command: &ModelCommand) -> Result<ScriptAnswer, BrokenPresence> {
        self.micros += u64::from(self.redis.revision.is_none());
        let time = self.time();
        let before = self.redis.clone();
        let (answer, announced) = self
            .redis
            .run(command.at, &command.operation, time, MOST_SWEPT);
        self.show(&before);
        for (joined, revision, user) in announced {
            if joined == before.users.iter().any(|(one, _)| *one == user) {
                return Err(BrokenPresence::Repeated(user));
            }
            if !joined && self.is_surely_here(user) {
                return Err(BrokenPresence::LeftWhileHere(user));
            }
            let living = self.instances.iter_mut().filter(|one| one.is_alive);
            for one in living {
                let one = Rc::make_mut(one).changes();
                if one.is_subscribed {
                    one.pushes.push_back(PresencePush {
                        joined,
                        user,
                        revision,
                    });
                } else {
                    one.missed.insert(user);
                }
            }
        }
        Ok(answer)
    }

    /// Whether a user may not be announced to leave.
    fn is_surely_here(&self, user: &'static str) -> bool {
        let end = |broken: u64| broken + GRACE.as_secs();
        let mut broken = self.connections.iter().filter(|one| one.user == user);
        self.instances.iter().any(|one| one.has_surely(user))
            || broken.any(|one| match one.phase {
                VisitPhase::Broken(at) => {
                    self.instances[one.instance].is_sure && self.second < end(at)
                }
                VisitPhase::Out | VisitPhase::Asked | VisitPhase::Read(_) | VisitPhase::In => false,
            })
    }

    /// Lets the connections see who came and went.
    fn show(&mut self, before: &ModelPresence) {
        let has = |redis: &ModelPresence, user| redis.users.iter().any(|(one, _)| *one == user);
        for user in USERS {
            let (was, is) = (has(before, user), has(&self.redis, user));
            let sees = self.connections.iter_mut().filter(|one| one.has_list());
            if was != is {
                sees.for_each(|one| one.sees(user, is));
            }
        }
    }

    /// Gives the connections what the hubs have for them.
    fn tell(&mut self) -> Result<(), BrokenPresence> {
        let queues = Rc::clone(&self.queues);
        for (queue, connection) in queues.iter().zip(&mut self.connections) {
            if queue.length() == 0 {
                continue;
            }
            let missed = &self.instances[connection.instance].missed;
            let mut bytes = Vec::new();
            queue.collect_by(*BEGIN, &mut bytes);
            for line in lines(&bytes) {
                let words: Vec<_> = line.split(' ').collect();
                match words[..] {
                    ["*", user, "joined"] => connection.hears(user_of(user), true, missed)?,
                    ["*", user, "left"] => connection.hears(user_of(user), false, missed)?,
                    _ => panic!("nobody says this in the model: {line:?}"),
                }
            }
        }
        Ok(())
    }

    /// An instance is gone, with its connections.
    fn crash(&mut self, at: usize) {
        let is_late = self.left.late;
        let instance = self.instance(at);
        let written = std::mem::take(&mut instance.queue);
        if is_late {
            instance.late.extend(written);
        }
        instance.is_alive = false;
        instance.pushes.clear();
        instance.lists.clear();
        let connections = self.connections.iter_mut();
        for connection in connections.filter(|one| one.instance == at) {
            connection.ends(VisitPhase::Out);
        }
    }

    /// An instance loses its connections to Redis. Who is entering does not come in.
    fn cut(&mut self, at: usize) -> Result<(), BrokenPresence> {
        let now = self.now();
        let is_late = self.left.late;
        self.instance(at).loses_publisher(now, is_late);
        self.instance(at).loses_subscription(now);
        self.tell()?;
        for client in 0..self.connections.len() {
            let connection = &self.connections[client];
            if connection.instance == at && connection.phase == VisitPhase::Asked {
                self.leave(client, Departure::Clean, VisitPhase::Out);
            }
        }
        Ok(())
    }

    /// Lets so many seconds pass, in one order.
    fn settle(&mut self, seconds: u64, reconnect: bool) -> Result<(), BrokenPresence> {
        let end = self.second + seconds;
        while self.second < end {
            if reconnect && !self.settled.borrow_mut().insert(self.state()) {
                // It ended well already from here.
                return Ok(());
            }
            for at in 0..self.instances.len() {
                let one = &self.instances[at];
                if reconnect && one.is_alive && !(one.is_connected && one.is_subscribed) {
                    self.instance(at).reconnects();
                }
            }
            self.calm(reconnect)?;
            for at in 0..self.instances.len() {
                if self.instances[at].is_alive && !self.instances[at].has_ticked {
                    let now = self.now();
                    self.instance(at).tick(now);
                    self.calm(reconnect)?;
                }
            }
            self.passes_second();
        }
        match reconnect {
            true => self.agree(),
            false => Ok(()),
        }
    }

    fn passes_second(&mut self) {
        self.second += 1;
        for one in &mut self.instances {
            let one = Rc::make_mut(one).changes();
            (one.has_ticked, one.intervals) = (false, 0);
        }
    }

    /// Does what waits, until nothing does.
    fn calm(&mut self, also_late: bool) -> Result<(), BrokenPresence> {
        let now = self.now();
        loop {
            let mut is_calm = true;
            for at in 0..self.instances.len() {
                while also_late && !self.instances[at].late.is_empty() {
                    self.run_late(at)?;
                }
                while self.instances[at].is_connected && !self.instances[at].queue.is_empty() {
                    is_calm = false;
                    self.run(at)?;
                }
            }
            for one in &mut self.instances {
                if one.is_calm() {
                    continue;
                }
                let one = Rc::make_mut(one).changes();
                while !one.pushes.is_empty() {
                    is_calm = false;
                    one.hears(now);
                }
                while !one.lists.is_empty() {
                    is_calm = false;
                    one.takes_list(now);
                }
                if one.is_alive && one.hub().has_pending(&LOBBY) {
                    is_calm = false;
                    one.ends_interval(now);
                }
            }
            self.tell()?;
            for client in 0..self.connections.len() {
                if let VisitPhase::Read(_) = self.connections[client].phase {
                    is_calm = false;
                    self.release(client)?;
                }
            }
            if is_calm {
                return Ok(());
            }
        }
    }

    /// Tells states from each other, but for what may still happen in them.
    fn state(&self) -> u64 {
        let now = self.now();
        let connections = self.connections.iter();
        let connections: Vec<_> = connections.map(|one| (&one.phase, &one.told)).collect();
        let instances: Vec<_> = self.instances.iter().map(|one| one.hash_at(now)).collect();
        hash(&(
            self.second,
            self.micros,
            &self.redis,
            connections,
            instances,
        ))
    }

    fn budgets(&self) -> Vec<(u8, u8, u8)> {
        let connections = self.connections.iter();
        let budgets = connections.map(|one| (one.enters, one.leaves, one.breaks));
        budgets.collect()
    }

    fn run_late(&mut self, at: usize) -> Result<(), BrokenPresence> {
        if let Some(command) = self.instance(at).late.pop_front() {
            self.execute(&command)?;
        }
        Ok(())
    }

    /// The users with a connection to an instance that lives.
    fn here(&self) -> Vec<&'static str> {
        let mut here: Vec<_> = USERS.to_vec();
        here.retain(|user| {
            let mut connections = self.connections.iter();
            connections.any(|one| one.user == *user && one.is_member())
        });
        here
    }
}

impl Model for PresenceWorld {
    type Step = PresenceEvent;
    type Broken = BrokenPresence;

    fn fingerprint(&self) -> u64 {
        hash(&(self.state(), &self.left, self.budgets(), self.is_settled))
    }

    fn steps(&self) -> Vec<PresenceEvent> {
        let (left, mut steps) = (&self.left, Vec::new());
        let mut may = |condition: bool, step| {
            if condition {
                steps.push(step);
            }
        };
        if self.is_settled {
            return steps;
        }
        let busy = self.instances.iter().filter(|one| one.is_alive);
        // The keeper's commands are run at once, one by one, so that accidents may come in between.
        let busy = busy.filter(|one| one.is_connected);
        let mut busy = busy.filter(|one| one.queue.iter().any(|next| next.asks == Asks::Keeper));
        let only = busy.next().map(|one| one.number);
        may(left.outages > 0, PresenceEvent::Outage);
        for (at, one) in self.instances.iter().enumerate() {
            may(!one.late.is_empty(), PresenceEvent::RunLate(at));
            let is_on = one.is_alive && one.is_connected;
            may(left.crashes > 0 && one.is_alive, PresenceEvent::Crash(at));
            may(left.ends > 0 && is_on, PresenceEvent::End(at));
            may(left.cuts > 0 && is_on, PresenceEvent::Cut(at));
            let is_subscribed = one.is_alive && one.is_subscribed;
            may(
                left.deaf > 0 && is_subscribed,
                PresenceEvent::CutSubscription(at),
            );
            let may_refuse = left.refusals > 0 && one.may_be_refused();
            may(is_on && may_refuse, PresenceEvent::Refuse(at));
            let may_run = only.is_none_or(|only| only == at);
            may(
                is_on && !one.queue.is_empty() && may_run,
                PresenceEvent::Run(at),
            );
        }
        if only.is_some() {
            return steps;
        }
        may(left.forgets > 0, PresenceEvent::Forget);
        may(self.is_out, PresenceEvent::Return);
        for (client, connection) in self.connections.iter().enumerate() {
            let instance = &self.instances[connection.instance];
            let is_on = instance.is_alive && instance.is_connected && instance.is_subscribed;
            let is_out = matches!(connection.phase, VisitPhase::Out | VisitPhase::Broken(_));
            let is_in = connection.phase == VisitPhase::In;
            may(
                connection.enters > 0 && is_out && is_on,
                PresenceEvent::Enter(client),
            );
            may(
                matches!(connection.phase, VisitPhase::Read(_)),
                PresenceEvent::Release(client),
            );
            may(connection.leaves > 0 && is_in, PresenceEvent::Leave(client));
            may(
                connection.breaks > 0 && is_in,
                PresenceEvent::BreakOff(client),
            );
        }
        let mut is_over = true;
        for (at, one) in self
            .instances
            .iter()
            .enumerate()
            .filter(|(_, one)| one.is_alive)
        {
            let is_off = !one.is_connected || !one.is_subscribed;
            may(is_off && !self.is_out, PresenceEvent::Reconnect(at));
            may(!one.has_ticked, PresenceEvent::Tick(at));
            may(!one.pushes.is_empty(), PresenceEvent::Hear(at));
            may(
                left.drops > 0 && !one.pushes.is_empty(),
                PresenceEvent::Drop(at),
            );
            may(!one.lists.is_empty(), PresenceEvent::TakeList(at));
            may(
                one.hub().has_pending(&LOBBY),
                PresenceEvent::EndInterval(at),
            );
            is_over &= one.has_ticked && one.lists.is_empty();
            is_over &= one.queue.is_empty() || !one.is_connected;
        }
        may(is_over && left.seconds > 0, PresenceEvent::Second);
        // Until just before a lease runs out, or is swept.
        for seconds in TTL.as_secs()..=TTL.as_secs() + 1 {
            may(is_over && left.waits > 0, PresenceEvent::Wait(seconds));
        }
        may(is_over && left.seconds == 0, PresenceEvent::Settle);
        steps
    }

    fn take(&mut self, step: PresenceEvent) -> Result<(), BrokenPresence> {
        let now = self.now();
        match step {
            PresenceEvent::Enter(client) => {
                self.connections[client].enters -= 1;
                self.enter(client);
            }
            PresenceEvent::Release(client) => return self.release(client),
            PresenceEvent::Leave(client) => {
                self.connections[client].leaves -= 1;
                self.leave(client, Departure::Clean, VisitPhase::Out);
            }
            PresenceEvent::BreakOff(client) => {
                self.connections[client].breaks -= 1;
                self.leave(client, Departure::Dropped, VisitPhase::Broken(self.second));
            }
            PresenceEvent::Run(at) => return self.run(at),
            PresenceEvent::RunLate(at) => return self.run_late(at),
            PresenceEvent::Hear(at) => {
                self.instance(at).hears(now);
                return self.tell();
            }
            PresenceEvent::TakeList(at) => {
                self.instance(at).takes_list(now);
                return self.tell();
            }
            PresenceEvent::EndInterval(at) => {
                self.instance(at).ends_interval(now);
                return self.tell();
            }
            PresenceEvent::Tick(at) => self.instance(at).tick(now),
            PresenceEvent::Second => {
                self.left.seconds -= 1;
                self.passes_second();
            }
            PresenceEvent::Wait(seconds) => {
                self.left.waits -= 1;
                return self.settle(seconds, false);
            }
            PresenceEvent::Crash(at) => {
                self.left.crashes -= 1;
                self.crash(at);
            }
            PresenceEvent::End(at) => {
                self.left.ends -= 1;
                // `Presence::retire`, after what was queued before.
                while !self.instances[at].queue.is_empty() {
                    self.run(at)?;
                }
                self.instance(at)
                    .ask(Operation::Retire { grace: 1000 }, Asks::User);
                self.crash_after(at)?;
            }
            PresenceEvent::Cut(at) => {
                self.left.cuts -= 1;
                return self.cut(at);
            }
            PresenceEvent::CutSubscription(at) => {
                self.left.deaf -= 1;
                self.instance(at).loses_subscription(now);
                return self.tell();
            }
            PresenceEvent::Reconnect(at) => self.instance(at).reconnects(),
            PresenceEvent::Outage => {
                self.left.outages -= 1;
                self.is_out = true;
                for at in 0..self.instances.len() {
                    let is_sure = self.instances[at].is_sure;
                    self.cut(at)?;
                    // Nobody can take its users for gone meanwhile.
                    self.instance(at).is_sure = is_sure;
                }
            }
            PresenceEvent::Return => {
                self.is_out = false;
                for at in 0..self.instances.len() {
                    self.instance(at).reconnects();
                    self.instance(at).has_ticked = false;
                }
            }
            PresenceEvent::Refuse(at) => {
                self.left.refusals -= 1;
                self.instance(at).is_refused(now);
            }
            PresenceEvent::Drop(at) => {
                self.left.drops -= 1;
                let dropped = self.instance(at).pushes.pop_front();
                self.instance(at)
                    .missed
                    .extend(dropped.map(|push| push.user));
            }
            PresenceEvent::Forget => {
                self.left.forgets -= 1;
                let before = std::mem::take(&mut self.redis);
                self.show(&before);
                for one in &mut self.instances {
                    Rc::make_mut(one).changes().is_sure = false;
                }
            }
            PresenceEvent::Settle => {
                let settled = self.settle(SETTLED_WITHIN, true);
                self.is_settled = true;
                return settled;
            }
        }
        Ok(())
    }

    fn ends(&self) -> Result<(), BrokenPresence> {
        // `Settle` has judged.
        Ok(())
    }
}

impl PresenceWorld {
    /// Judges the end.
    fn agree(&self) -> Result<(), BrokenPresence> {
        let here = self.here();
        let mut living = self.instances.iter().filter(|one| one.is_alive).peekable();
        if living.peek().is_none() {
            return Ok(());
        }
        for operation in [Operation::Members, Operation::Roll, Operation::Count] {
            let at = super::script::InstanceTerm {
                instance: 10,
                term: 0,
            };
            let (answer, _) = self
                .redis
                .clone()
                .run(at, &operation, self.time(), MOST_SWEPT);
            let is_right = match answer {
                ScriptAnswer::List(_, mut users) => {
                    users.sort_unstable();
                    users == here
                }
                ScriptAnswer::Count(count) => count == here.len(),
                ScriptAnswer::Nothing | ScriptAnswer::Known(_) | ScriptAnswer::Swept { .. } => {
                    false
                }
            };
            if !is_right {
                return Err(BrokenPresence::WrongList);
            }
        }
        for (client, connection) in self.connections.iter().enumerate() {
            if connection.phase == VisitPhase::In && !connection.knows(&here) {
                return Err(BrokenPresence::WronglyTold(client));
            }
        }
        let is_alive = |number: usize| self.instances[number].is_alive;
        let mut known = self.redis.instances.keys();
        if !here.is_empty() && !known.all(|at| is_alive(usize::from(at.instance) - 10)) {
            return Err(BrokenPresence::LeftBehind);
        }
        Ok(())
    }

    fn crash_after(&mut self, at: usize) -> Result<(), BrokenPresence> {
        self.run(at)?;
        self.crash(at);
        Ok(())
    }
}

/// The number of a connection, for the hub.
fn id_of(client: usize) -> ConnectionId {
    ConnectionId(client as u64)
}

/// The payloads of short text frames (RFC 6455 §5.2).
fn lines(mut bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    while let [_, length, rest @ ..] = bytes {
        let (line, rest) = rest.split_at(usize::from(*length));
        lines.push(String::from_utf8_lossy(line).into_owned());
        bytes = rest;
    }
    lines
}
