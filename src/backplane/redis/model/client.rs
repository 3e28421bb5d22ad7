//! A client, and what it may be told. It knows the truth: which messages Redis took, and which it lost.

use std::fmt;

use super::redis::{Look, ModelRedis, Said, Snapshot};
use crate::backplane::{Excerpt, Resumed};
use crate::message::MessageId;
use crate::protocol::Event;

/// A promise that was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// A message came twice, or after a later one.
    Order,
    /// A message that was told to be lost came after all.
    CameAfterAll,
    /// A message is missing, and nothing told so.
    UntoldHole,
    /// A gap was told, or a client was not recovered, where nothing was lost.
    ToldForNothing,
    /// Nothing can happen any more, and somebody has not heard what was said last.
    NotCurrent,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Order => "a message came twice or out of order",
            Self::CameAfterAll => "a message came that was told to be lost",
            Self::UntoldHole => "a message is missing, and nothing told so",
            Self::ToldForNothing => "a gap was told where nothing was lost",
            Self::NotCurrent => "somebody is not current in the end",
        })
    }
}

/// Where a client is on its way into the room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Entering {
    Out,
    /// It is a member; nothing was read for it yet.
    Waiting,
    /// The room's newest id was read for it.
    Asked(Snapshot),
    /// The log was read for it as well.
    Read(Look, Vec<MessageId>, Resumed),
    In,
}

/// What the hub holds of a client: the last message that its member has, and what is held back for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct MemberView {
    pub(super) last: Option<MessageId>,
    pub(super) events: Vec<GivenEvent>,
    /// How each gap among them was found.
    pub(super) looks: Vec<(GivenEvent, Look)>,
}

/// An event that the hub gives a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum GivenEvent {
    Message(MessageId),
    Gap {
        after: Option<MessageId>,
        before: Option<MessageId>,
    },
}

impl GivenEvent {
    pub(super) fn of(event: &Event) -> Self {
        match event {
            Event::Message { message, .. } => Self::Message(message.id),
            Event::Gap { after, before, .. } => Self::Gap {
                after: *after,
                before: *before,
            },
            other => panic!("nobody says this in the model: {other:?}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ModelClient {
    pub(super) phase: Entering,
    pub(super) held: MemberView,
    /// From where it resumes, and how often Redis had lost its memory by then.
    pub(super) since: Option<MessageId>,
    losses_at_since: u8,
    /// The last message that it got.
    last: u64,
    /// It got all messages up to this one, or was told that some are missing.
    settled: u64,
    /// How often Redis had lost its memory when the client was last told where it stands.
    losses: u8,
}

impl ModelClient {
    pub(super) fn new() -> Self {
        Self {
            phase: Entering::Out,
            held: MemberView::default(),
            since: None,
            losses_at_since: 0,
            last: 0,
            settled: 0,
            losses: 0,
        }
    }

    /// The first frame: what was said since, and whether that is all.
    pub(super) fn enters(
        &mut self,
        redis: &ModelRedis,
        look: Look,
        past: &[MessageId],
        resumed: Resumed,
    ) -> Result<(), Broken> {
        let at = look.asked;
        let last = past.last().map_or(0, |id| id.millis);
        let end = at.said.max(last);
        let before = self.since.replace(resumed.last.unwrap_or(MessageId::ZERO));
        let losses = std::mem::replace(&mut self.losses_at_since, at.losses);
        let Some(since) = before else {
            (self.settled, self.losses) = (end, at.losses);
            return Ok(());
        };
        if since != MessageId::ZERO {
            self.settled = since.millis;
        }
        if resumed.recovered {
            for id in past {
                self.takes(redis, *id)?;
            }
            if redis.could_keep(self.settled + 1..=at.said) {
                return Err(Broken::UntoldHole);
            }
        } else {
            let is_whole =
                (self.settled + 1..=end).all(|one| past.iter().any(|id| id.millis == one));
            if is_whole && losses == look.losses {
                return Err(Broken::ToldForNothing);
            }
            for id in past {
                if id.millis <= self.last {
                    return Err(Broken::Order);
                }
                self.last = id.millis;
            }
        }
        self.settled = self.settled.max(end);
        self.losses = self.losses.max(at.losses);
        Ok(())
    }

    /// An event of the room. `look` is how a hole was last found here. Whether there is one, the instance has judged.
    /// It tells all its members, also one that entered since and has what is missing; but not what lies in
    /// the past that it was sent.
    pub(super) fn hears(
        &mut self,
        redis: &ModelRedis,
        told: GivenEvent,
        look: Look,
    ) -> Result<(), Broken> {
        match told {
            GivenEvent::Message(id) => {
                self.takes(redis, id)?;
                self.since = Some(id);
                self.losses_at_since = redis.losses_at(id.millis);
                Ok(())
            }
            GivenEvent::Gap { before, .. } => {
                let is_past = before.is_some_and(|before| before.millis <= self.settled);
                if is_past && self.losses == look.losses {
                    return Err(Broken::ToldForNothing);
                }
                let end = before.map_or(look.asked.said, |before| before.millis - 1);
                self.settled = self.settled.max(end);
                self.losses = self.losses.max(look.asked.losses);
                Ok(())
            }
        }
    }

    fn takes(&mut self, redis: &ModelRedis, id: MessageId) -> Result<(), Broken> {
        let number = id.millis;
        if number <= self.last {
            return Err(Broken::Order);
        }
        // One that Redis published before it lost its memory may come late.
        if number <= self.settled && self.losses == redis.losses_at(number) {
            return Err(Broken::CameAfterAll);
        }
        if redis.could_keep(self.settled + 1..=number - 1) {
            return Err(Broken::UntoldHole);
        }
        (self.last, self.settled) = (number, number.max(self.settled));
        self.losses = self.losses.max(redis.losses_at(number));
        Ok(())
    }

    /// Whether it has heard of all that was said.
    pub(super) fn is_current(&self, redis: &ModelRedis) -> bool {
        let is_told =
            self.settled == redis.said() || !redis.could_keep(self.settled + 1..=redis.said());
        self.phase == Entering::In && is_told
    }

    /// The log as it is read for this client.
    pub(super) fn past(&self, redis: &ModelRedis) -> Excerpt {
        let said = self.since.map_or(Vec::new(), |since| redis.after(since));
        let entries: Vec<_> = said.into_iter().map(Said::entry).collect();
        Excerpt {
            reach: entries.last().map(|entry| entry.message.id),
            entries,
            more: false,
        }
    }
}
