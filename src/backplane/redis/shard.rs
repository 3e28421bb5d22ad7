//! A shard: one master, with a publisher, a subscriber and this instance's presence on it. It serves the rooms
//! that are its [`Share`]; one Redis is one shard that has them all.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use redis::{Cmd, Value};

use super::archive;
use super::index;
use super::pipeline::{PendingCommand, Pipeline};
use super::placement::Share;
use super::presence::{Presence, Rounds, Users};
use super::publisher::{self, Connecting, Publisher, Questions};
use super::receipts::OnAnswer;
use super::single_flight::SingleFlight;
use super::source::Source;
use super::subscriber::Subscriber;
use super::subscription::Task;
use super::wire::{self, PresenceStep};
use crate::backplane::backlog::Backlog;
use crate::backplane::{BackplaneError, Draft, Entrance, Excerpt, Receipt, Retention, ShardState};
use crate::message::{Entry, RoomName, UserName};
use crate::protocol::Cursor;

/// The most pages of logs that are read at a time. They may be large, and sends must not wait behind many
/// of them; further readers wait for their turn before they ask Redis.
const READS: usize = 8;

/// An old master that Sentinel replaced may still give ids away for this long. The watcher notices it earlier.
const LEAP: Duration = Duration::from_secs(2);

/// One master.
pub(super) struct Shard {
    to: Connecting,
    publisher: Arc<Publisher>,
    subscriber: Subscriber,
    presence: Arc<Presence>,
    single_flight: SingleFlight,
    /// Holds one item for each read that waits for Redis.
    reading: (Sender<()>, Receiver<()>),
    backlog: Backlog,
}

impl Shard {
    /// Starts the threads. Without a connection, they make it.
    pub(super) fn start(
        to: Connecting,
        pipeline: Option<Pipeline>,
        share: Share,
        users: &Users,
    ) -> io::Result<Self> {
        let publisher = Arc::new(Publisher::start(to.clone(), pipeline)?);
        let subscriber = Subscriber::start(&to, share.clone(), &users.hub, &publisher)?;
        let presence = Presence::new(&publisher, to.clone(), users, share);
        Ok(Self {
            to,
            publisher,
            subscriber,
            presence: Arc::new(presence),
            single_flight: SingleFlight::default(),
            reading: crossbeam_channel::bounded(READS),
            backlog: Backlog::default(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.to.name
    }

    /// This instance's part of presence here.
    pub(super) fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// The rounds that the keeper makes here.
    pub(super) fn rounds(&self) -> Rounds {
        Rounds::new(&self.presence, &self.subscriber)
    }

    /// At start: waits until the subscription stands. The error is a sentence.
    pub(super) fn wait_until_heard(&self, deadline: Instant) -> Result<(), String> {
        self.subscriber.wait_until_heard(deadline)
    }

    pub(super) fn publish(
        &self,
        draft: &Draft,
        retention: &Retention,
        in_flight: &Arc<AtomicUsize>,
        receipt: Receipt,
    ) {
        let Some(place) = self.backlog.admit(draft) else {
            return receipt(Err(BackplaneError::Overloaded));
        };
        let (keys, leap) = (&self.to.keys, self.leap());
        let command = self.to.scripts.publish(keys, draft, retention, leap);
        in_flight.fetch_add(1, Ordering::AcqRel);
        let in_flight = Arc::clone(in_flight);
        let acknowledged = self.to.acknowledged.clone();
        let acknowledged = acknowledged.map(|acknowledged| (acknowledged, draft.room.clone()));
        self.publisher.submit(
            &command,
            Box::new(move |answer| {
                drop(place);
                receipt(answer.and_then(|value| {
                    let stored = wire::publish_answer(&value)?;
                    if let Some((acknowledged, room)) = acknowledged {
                        acknowledged.note(&room, stored.id);
                    }
                    Ok(stored)
                }));
                in_flight.fetch_sub(1, Ordering::AcqRel);
            }),
        );
    }

    /// How far ids have to lie ahead of the clock. See `publish.lua`.
    fn leap(&self) -> Duration {
        match self.to.source {
            Source::Sentinel(_) if !self.publisher.link().is_older_than(LEAP) => LEAP,
            Source::Sentinel(_) | Source::Server(_) => Duration::ZERO,
        }
    }

    pub(super) fn hear(&self, room: &RoomName) -> Result<(), BackplaneError> {
        self.subscriber.hear(room)
    }

    pub(super) fn may_forget(&self, room: &RoomName) {
        self.subscriber.may_forget(room);
    }

    pub(super) fn read(
        &self,
        room: &RoomName,
        page: Cursor,
        limit: usize,
    ) -> Result<Excerpt, BackplaneError> {
        let command = wire::read_excerpt(&self.to.keys, room, page, limit);
        wire::excerpt(&self.read_in_turn(&command)?, page, limit)
    }

    /// The rooms here that remember something.
    pub(super) fn rooms(&self) -> Result<Vec<RoomName>, BackplaneError> {
        let (mut rooms, mut cursor) = (Vec::new(), 0);
        loop {
            let answer = self.publisher.call(&archive::scan(&self.to.keys, cursor))?;
            let (next, mut some) = archive::scanned(&self.to.keys, &answer)?;
            rooms.append(&mut some);
            if next == 0 {
                break;
            }
            cursor = next;
        }
        let share = self.presence.share();
        rooms.retain(|room| share.holds(room));
        Ok(rooms)
    }

    pub(super) fn restore(
        &self,
        room: &RoomName,
        entries: &[Entry],
        retention: &Retention,
    ) -> Result<(), BackplaneError> {
        let command = archive::restore(&self.to.keys, room, entries, retention);
        match archive::is_restored(&self.publisher.call(&command)?) {
            true => Ok(()),
            false => Err(BackplaneError::has_later(room)),
        }
    }

    /// Sends a command whose answer may be large, once it is its turn.
    fn read_in_turn(&self, command: &Cmd) -> Result<Value, BackplaneError> {
        let due = publisher::due();
        let (enter, leave) = &self.reading;
        if enter.send_deadline((), due).is_err() {
            return Err(BackplaneError::Unavailable);
        }
        let answer = self.publisher.call_by(due, command);
        let _ = leave.try_recv();
        answer
    }

    pub(super) fn enter(
        &self,
        room: &RoomName,
        user: Option<&UserName>,
        past: Option<(Cursor, usize)>,
    ) -> Result<Entrance, BackplaneError> {
        let mut questions = self.publisher.questions();
        if let Some(user) = user {
            self.presence.arrive(room, user, &mut questions);
        }
        for question in wire::tail(&self.to.keys, room) {
            questions.ask(&question);
        }
        if let Some((page, limit)) = past {
            questions.ask(&wire::read_excerpt(&self.to.keys, room, page, limit));
        }
        let members = self.single_flight.ask(room, || {
            let question = self.presence.question(room, PresenceStep::Roll);
            wire::member_list(&self.publisher.call(&question)?)
        });
        let answers: Result<Vec<_>, _> = questions.wait().into_iter().collect();
        let mut answers = answers?;
        let past = match (past, answers.pop_if(|_| past.is_some())) {
            (Some((page, limit)), Some(answer)) => wire::excerpt(&answer, page, limit)?,
            _ => Excerpt::default(),
        };
        // An arrival may stand before them.
        let tail = answers.split_off(answers.len().saturating_sub(2));
        Ok(Entrance {
            tail: wire::tail_answer(&tail)?,
            past,
            members: members?,
        })
    }

    /// Runs a command and waits for its answer.
    pub(super) fn call(&self, command: &Cmd) -> Result<Value, BackplaneError> {
        self.publisher.call(command)
    }

    pub(super) fn members(&self, room: &RoomName) -> Result<Arc<[UserName]>, BackplaneError> {
        // While Redis refuses writes, no instance can be renewed, so expired users are still listed.
        let step = match self.publisher.link().is_refused() {
            true => PresenceStep::Roll,
            false => PresenceStep::Members,
        };
        let question = self.presence.question(room, step);
        Ok(wire::member_list(&self.publisher.call(&question)?)?.users)
    }

    /// Asks for what [`index::facts`] reads of each room.
    pub(super) fn ask_about(&self, rooms: &[RoomName]) -> Questions<'_> {
        let mut questions = self.publisher.questions();
        let (keys, is_refused) = (&self.to.keys, self.publisher.link().is_refused());
        for room in rooms {
            // As in `members`.
            questions.ask(&match is_refused {
                true => index::count_all(keys, room),
                false => self.presence.question(room, PresenceStep::Count),
            });
            let others = index::questions(keys, room);
            others.iter().for_each(|other| questions.ask(other));
        }
        questions
    }

    /// Queues a command. `on_answer` must not wait.
    pub(super) fn submit(&self, command: &Cmd, on_answer: OnAnswer) {
        self.publisher.submit(command, on_answer);
    }

    pub(super) fn typing(&self, room: &RoomName, user: &UserName) {
        let typing = self.to.scripts.typing(&self.to.keys, room, user);
        self.publisher.fire_and_forget(&typing);
    }

    pub(super) fn state(&self) -> ShardState {
        let trouble = self
            .publisher
            .link()
            .writable()
            .and_then(|()| self.subscriber.ready());
        ShardState {
            name: self.to.name.clone(),
            trouble: trouble.err(),
            waiting: self.publisher.waiting(),
            losses: self.publisher.link().losses(),
            cuts: self.subscriber.cuts(),
        }
    }

    /// From now on these rooms are on this node of the cluster.
    pub(super) fn set_share(&self, share: Share) {
        if !self.presence.set_share(share.clone()) {
            return;
        }
        if let Share::Slots(slots) = &share {
            self.to.keys.lie_in(slots);
        }
        self.subscriber.ask(Task::Share(share));
    }

    /// Gives a task to the subscriber.
    pub(super) fn ask(&self, task: Task) {
        self.subscriber.ask(task);
    }

    /// Runs a command that came to another node first.
    pub(super) fn take_over(&self, command: PendingCommand) {
        self.publisher.submit_pending(command);
        self.presence.note_detour();
    }

    /// From now on a connection that is lost is not made again. A Redis that does not answer costs the teardown
    /// one time-out then, not one for each step.
    pub(super) fn connect_no_more(&self) {
        self.publisher.link().connect_no_more();
    }

    /// Lets the subscriber's thread end.
    pub(super) fn stop_hearing(&self) {
        self.subscriber.stop();
    }

    /// Waits until the subscriber's thread has ended.
    pub(super) fn join_subscriber(&self) {
        self.subscriber.join();
    }

    /// Lets the publisher's thread end, once it has answered all that waits.
    pub(super) fn stop_publishing(&self) {
        self.publisher.stop();
    }

    /// Waits until the publisher's thread has ended.
    pub(super) fn join_publisher(&self) {
        self.publisher.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::redis::placement::SlotSet;
    use crate::hub::Hub;
    use crate::message::InstanceId;

    #[test]
    fn a_new_share_moves_the_own_keys_of_a_node_and_at_the_end_its_threads_end() {
        let hub = Hub::start(InstanceId::random(), 0).expect("no threads");
        let users = Users::new(
            &Arc::new(hub),
            &Retention {
                history_length: 1,
                history_ttl: LEAP,
                history_bytes: 1,
                presence_ttl: LEAP,
                presence_grace: LEAP,
            },
        );
        let nobody = Connecting::to_nobody();
        let to = Connecting {
            keys: nobody.keys.on_node(&nobody.name),
            ..nobody
        };
        let slots = |slots: &[u16]| {
            let mut set = SlotSet::empty();
            slots.iter().for_each(|slot| set.insert(*slot));
            Share::Slots(Arc::new(set))
        };
        let shard = Shard::start(to, None, slots(&[]), &users).expect("threads");
        assert_eq!(shard.name(), "nobody");
        let mut proofs = Vec::new();
        for share in [slots(&[1000]), slots(&[1000]), slots(&[2000])] {
            shard.set_share(share);
            proofs.push(shard.to.keys.proof());
        }
        assert_eq!(proofs[0], proofs[1], "it is no new one");
        assert_ne!(proofs[1], proofs[2]);
        shard.connect_no_more();
        assert!(shard.publisher.link().is_closing());
        let holders = Arc::strong_count(&shard.publisher);
        shard.stop_hearing();
        shard.join_subscriber();
        assert_eq!(Arc::strong_count(&shard.publisher), holders - 1);
        shard.stop_publishing();
        shard.join_publisher();
    }
}
