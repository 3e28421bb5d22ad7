//! A client, and what it may be told. It knows the truth: which messages Redis took, and which it lost.

use std::fmt;
use std::ops::RangeInclusive;

use super::redis::{Look, ModelRedis, Numbers, Said, Snapshot, Whom};
use crate::backplane::{Excerpt, PastPlace, Resumed};
use crate::message::MessageId;
use crate::protocol::Event;

/// The messages of a past that are read at once.
const PIECE: usize = 2;

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
    /// The room is heard.
    Heard,
    /// The room's newest id was read for it.
    Asked(Snapshot),
    /// The log was read for it as well; and whether there is more than this.
    Read(Look, Vec<MessageId>, Resumed, bool),
    /// It was sent the first frame, and reads on; and whether there is more to read.
    Rest(PastPlace, bool),
    In,
}

/// What the hub holds of a client: the last message that its member has, and what is held back for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct MemberView {
    pub(super) last: Option<MessageId>,
    pub(super) is_in_gap: bool,
    pub(super) events: Vec<HeldEvent>,
    /// How each gap among them was found.
    pub(super) looks: Vec<(GivenEvent, Look)>,
}

/// An event that is held back, and the id that the room goes on from if it is a gap.
pub(super) type HeldEvent = (GivenEvent, Option<MessageId>);

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
    /// It got all messages up to this one, or was told that some are missing, but for `holes`.
    settled: u64,
    /// The messages that it did not get and was not told of either.
    holes: Numbers,
    /// How often Redis had lost its memory when the client was last told where it stands.
    losses: u8,
    /// The last that it was told is a gap.
    is_in_gap: bool,
    /// It has got a message since that Redis had lost by then.
    is_ahead: bool,
    /// It was told that messages are missing before the next one, whichever that is.
    is_open: bool,
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
            holes: Numbers::default(),
            losses: 0,
            is_in_gap: false,
            is_ahead: false,
            is_open: false,
        }
    }

    /// The first frame: what was said since, and whether that is all.
    pub(super) fn enters(
        &mut self,
        redis: &ModelRedis,
        look: Look,
        past: &[MessageId],
        resumed: Resumed,
        has_more: bool,
    ) -> Result<(), Broken> {
        self.is_in_gap = false;
        let at = look.asked;
        let last = past.last().map_or(0, |id| id.millis);
        let end = if has_more { last } else { at.said.max(last) };
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
                self.takes(redis, *id, false)?;
            }
            self.misses(redis, self.settled + 1..=end, false)?;
            self.losses = self.losses.max(at.losses);
            return Ok(());
        }
        let is_whole = (self.settled + 1..=end).all(|one| past.iter().any(|id| id.millis == one));
        if is_whole && losses == look.losses {
            return Err(Broken::ToldForNothing);
        }
        for id in past {
            if id.millis <= self.last {
                return Err(Broken::Order);
            }
            self.last = id.millis;
        }
        self.is_told(end, at.losses);
        Ok(())
    }

    /// An event of the room. `look` is how a hole was last found here. What is missing may be told late while the
    /// room moves.
    pub(super) fn hears(
        &mut self,
        redis: &ModelRedis,
        told: GivenEvent,
        look: Look,
        is_moving: bool,
    ) -> Result<(), Broken> {
        match told {
            GivenEvent::Message(id) => {
                self.takes(redis, id, is_moving)?;
                self.since = Some(id);
                self.losses_at_since = redis.losses_at(id.millis);
                Ok(())
            }
            GivenEvent::Gap { before, .. } => {
                let end = before.map_or(look.asked.said, |before| before.millis - 1);
                let is_whole = self.settled >= end && self.holes.is_empty();
                let may_know = match look.whom {
                    Whom::Concerned => self.losses >= look.losses && !self.is_ahead,
                    Whom::Anybody => false,
                };
                if self.is_in_gap || (is_whole && may_know) {
                    return Err(Broken::ToldForNothing);
                }
                self.is_told(end, look.asked.losses);
                self.is_in_gap = true;
                Ok(())
            }
        }
    }

    /// A part of its past behind the first frame, or what was missing there.
    pub(super) fn reads_on(&mut self, redis: &ModelRedis, told: GivenEvent) -> Result<(), Broken> {
        match told {
            GivenEvent::Message(_) => self.hears(redis, told, Look::default(), false),
            GivenEvent::Gap { .. } => {
                if self.settled >= redis.said() && self.losses == redis.losses() {
                    return Err(Broken::ToldForNothing);
                }
                self.is_open = true;
                Ok(())
            }
        }
    }

    /// It is told that some up to this one are missing.
    fn is_told(&mut self, end: u64, losses: u8) {
        self.settled = self.settled.max(end);
        self.losses = self.losses.max(losses);
        (self.holes, self.is_ahead, self.is_open) = (Numbers::default(), false, false);
    }

    fn takes(
        &mut self,
        redis: &ModelRedis,
        id: MessageId,
        may_be_late: bool,
    ) -> Result<(), Broken> {
        let (number, losses) = (id.millis, redis.losses_at(id.millis));
        if number <= self.last {
            return Err(Broken::Order);
        }
        // One that Redis published before it lost its memory may come late.
        if number <= self.settled && self.losses == losses {
            return Err(Broken::CameAfterAll);
        }
        if !std::mem::take(&mut self.is_open) {
            self.misses(redis, self.settled + 1..=number - 1, may_be_late)?;
        }
        (self.last, self.settled) = (number, number.max(self.settled));
        self.is_in_gap = false;
        self.is_ahead |= losses < self.losses;
        self.losses = self.losses.max(losses);
        Ok(())
    }

    /// These are missing, and nothing told so.
    fn misses(
        &mut self,
        redis: &ModelRedis,
        numbers: RangeInclusive<u64>,
        may_be_late: bool,
    ) -> Result<(), Broken> {
        if !may_be_late && !redis.lost(Numbers::of(numbers.clone())) {
            return Err(Broken::UntoldHole);
        }
        self.holes.add(numbers);
        Ok(())
    }

    /// Whether something is missing that only a listener can tell that still has to give the room away.
    pub(super) fn is_owed(&self, redis: &ModelRedis) -> bool {
        !redis.lost(self.holes)
    }

    /// Whether it has heard of all that was said, and of all that was lost.
    pub(super) fn is_current(&self, redis: &ModelRedis) -> bool {
        let mut missing = self.holes;
        if !self.is_open {
            missing.add(self.settled + 1..=redis.said());
        }
        self.phase == Entering::In && redis.lost(missing) && !redis.found_loss(missing)
    }

    /// The log as it is read for this client, after this id.
    pub(super) fn past(redis: &ModelRedis, since: Option<MessageId>) -> Excerpt {
        let mut said = since.map_or(Vec::new(), |since| redis.after(since));
        let more = said.len() > PIECE;
        said.truncate(PIECE);
        let entries: Vec<_> = said.into_iter().map(Said::entry).collect();
        Excerpt {
            reach: entries.last().map(|entry| entry.message.id),
            entries,
            more,
        }
    }
}
