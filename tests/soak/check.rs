//! The checker: what everyone saw, was told and left behind, against what was acknowledged. Each
//! check takes what was noted and returns what is wrong with it; `self_test.rs` plants a fault for
//! each.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::process::ExitStatus;
use std::time::Duration;

use hubbub::message::{MessageId, RoomName, UserName};

use crate::crowd::{Record, Seen};
use crate::processes::Load;
use crate::support::within;

/// What an instance may have at the end that it did not have at the beginning.
const SPARE_THREADS: usize = 2;
const SPARE_DESCRIPTORS: usize = 4;
const SPARE_RESIDENT_KIB: usize = 50 * 1024;

/// What was acknowledged, by room, in the order of the ids.
pub(crate) type Acknowledged = BTreeMap<RoomName, BTreeMap<MessageId, String>>;

/// The users in each room.
pub(crate) type Present = BTreeMap<RoomName, BTreeSet<UserName>>;

/// Gathers what the speakers were told, and what is wrong with it: an id that was given twice, and lines
/// that are not stored in the order in which they were said.
pub(crate) fn acknowledged(records: &[Record]) -> (Acknowledged, Vec<String>) {
    let mut wrong = Vec::new();
    let mut all = Acknowledged::new();
    for record in records {
        let room = all.entry(record.room.clone()).or_default();
        for (id, text) in &record.acknowledged {
            if let Some(other) = room.insert(*id, text.clone()) {
                wrong.push(format!("{id} is the id of {text:?} and of {other:?}"));
            }
        }
        for pair in record.acknowledged.windows(2) {
            if pair[0].0 >= pair[1].0 {
                let (first, second) = (&pair[0], &pair[1]);
                wrong.push(format!("said as {first:?}, {second:?}, stored otherwise"));
            }
        }
    }
    (all, wrong)
}

/// A failover is told to a member by each message that is missing around it, by each instance that knows of one, and
/// whenever it comes back; and not over and over.
const GAPS_OF_A_LOSS: usize = 20;

/// Some stretches of time, in milliseconds since 1970, as in ids.
pub(crate) type Times = Vec<RangeInclusive<u64>>;

/// What Redis may have forgotten although it had acknowledged it, by failovers.
#[derive(Default)]
pub(crate) struct Losses {
    /// When they happened.
    times: Times,
}

impl Losses {
    pub(crate) fn during(times: &Times) -> Self {
        let times = times.clone();
        Self { times }
    }

    fn may_have_lost(&self, id: MessageId) -> bool {
        self.times.iter().any(|times| times.contains(&id.millis))
    }

    /// Whether this may have been forgotten, and the member was told so.
    fn excuse(&self, id: MessageId, record: &Record) -> bool {
        let mut times = self.times.iter().filter(|times| times.contains(&id.millis));
        times.any(|times| gaps(record).any(|gap| overlap(&gap, times)))
    }

    fn explain(&self, gap: &RangeInclusive<u64>) -> bool {
        self.times.iter().any(|times| overlap(gap, times))
    }
}

fn overlap(one: &RangeInclusive<u64>, other: &RangeInclusive<u64>) -> bool {
    one.start() <= other.end() && other.start() <= one.end()
}

/// When that was said which a member was told to be missing. A gap that has no end yet ends with the next message
/// that the member saw.
fn gaps(record: &Record) -> impl Iterator<Item = RangeInclusive<u64>> {
    let seen = record.seen.iter().enumerate();
    seen.filter_map(|(at, item)| match item {
        Seen::Gap(after, before) => Some((at, after, before)),
        Seen::Message(..) => None,
    })
    .map(|(at, after, before)| {
        let next = record.seen[at..].iter().find_map(Seen::id);
        let from = after.map_or(0, |id| id.millis);
        from..=before.or(next).map_or(u64::MAX, |id| id.millis)
    })
}

/// How often a member was told that something is missing.
pub(crate) fn count_gaps(record: &Record) -> usize {
    gaps(record).count()
}

/// What was acknowledged after a member entered, up to `until`, and not seen by it.
pub(crate) fn unseen<'a>(
    record: &Record,
    said: &'a BTreeMap<MessageId, String>,
    until: Option<MessageId>,
) -> Vec<(MessageId, &'a str)> {
    let (Some(entered), Some(until)) = (record.entered, until) else {
        return Vec::new();
    };
    let ids: BTreeSet<_> = record.seen.iter().filter_map(Seen::id).collect();
    let said = said
        .iter()
        .filter(|(id, _)| **id > entered && **id <= until);
    let unseen = said.filter(|(id, _)| !ids.contains(id));
    unseen.map(|(id, text)| (*id, text.as_str())).collect()
}

/// What is wrong with what one member saw. It must have seen everything that was acknowledged after
/// it entered, up to `until`, but for `losses`. A gap is wrong where there are none: the soak's Redis keeps
/// all that it acknowledged, and nobody is away for so long that a log has dropped what they missed.
pub(crate) fn faults(
    record: &Record,
    said: &BTreeMap<MessageId, String>,
    until: Option<MessageId>,
    losses: &Losses,
) -> Vec<String> {
    let mut faults = Vec::new();
    let mut ids = BTreeSet::new();
    let mut last: Option<MessageId> = None;
    for (id, text) in record.seen.iter().filter_map(Seen::message) {
        if !ids.insert(id) {
            faults.push(format!("{id} {text:?} was seen twice"));
        } else if last.is_some_and(|last| id < last) {
            faults.push(format!("{id} {text:?} was seen after a later one"));
        }
        match said.get(&id) {
            Some(said) if said == text => {}
            Some(said) => {
                faults.push(format!("{id} is {text:?}, acknowledged as {said:?}"));
            }
            // A master told it to its members and was gone before it told the speaker, who said it again.
            None if losses.may_have_lost(id) && said.values().any(|said| said == text) => {}
            None => faults.push(format!("{id} {text:?} was never acknowledged")),
        }
        last = Some(id);
    }
    let gaps = gaps(record).filter(|gap| !losses.explain(gap));
    faults.extend(gaps.map(|gap| {
        let (from, to) = (gap.start(), gap.end());
        format!("a gap from {from} to {to} ms was announced, and nothing was lost")
    }));
    let most = losses.times.len() * GAPS_OF_A_LOSS;
    let told = count_gaps(record);
    if most > 0 && told > most {
        faults.push(format!(
            "{told} gaps were announced, where {most} are too many"
        ));
    }
    let unseen = unseen(record, said, until).into_iter();
    let unseen = unseen.filter(|(id, _)| !losses.excuse(*id, record));
    faults.extend(unseen.map(|(id, text)| format!("{id} {text:?} was acknowledged and not seen")));
    faults
}

/// What anybody was refused for good. Whatever happens here passes, so each refusal should have asked
/// for a retry.
pub(crate) fn refusals(records: &[Record]) -> Vec<String> {
    let refused = |record: &Record| {
        let name = record.name.clone();
        let whys = record.refusals.clone().into_iter();
        whys.map(move |why| format!("{name} was refused for good: {why}"))
    };
    records.iter().flat_map(refused).collect()
}

/// Who was announced as gone and never left. Only where no fault takes a client or an instance away.
pub(crate) fn missed(records: &[Record]) -> Vec<String> {
    let there: BTreeSet<_> = records.iter().map(|record| &record.name).collect();
    let told = |record: &Record| {
        let missed = record.missed.iter().filter(|user| there.contains(user));
        let told = missed.map(|user| format!("{} was told that {user} left", record.name));
        told.collect::<Vec<_>>()
    };
    records.iter().flat_map(told).collect()
}

/// Waits until nobody is left who did not do `what`; then tells who did not.
pub(crate) fn late<T: std::fmt::Display>(
    limit: Duration,
    what: &str,
    mut others: impl FnMut() -> Vec<T>,
) -> Vec<String> {
    if within(limit, || others().is_empty().then_some(())).is_some() {
        return Vec::new();
    }
    let late = |who: T| format!("{who} did not {what} in {limit:?}");
    others().into_iter().map(late).collect()
}

/// What is wrong with who is said to be where: by each instance, and to each member in its room.
pub(crate) fn presence(
    expected: &Present,
    told: &[Present],
    shown: &[(UserName, RoomName, BTreeSet<UserName>)],
) -> Vec<String> {
    let nobody = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut compare = |teller: String, room: &RoomName, said: &BTreeSet<UserName>| {
        let there = expected.get(room).unwrap_or(&nobody);
        let missing: Vec<_> = there.difference(said).collect();
        let extra: Vec<_> = said.difference(there).collect();
        if !missing.is_empty() || !extra.is_empty() {
            wrong.push(format!(
                "{teller} shows {room} without {missing:?} and with {extra:?} too many"
            ));
        }
    };
    for (number, told) in told.iter().enumerate() {
        for room in expected.keys() {
            compare(
                format!("instance {number}"),
                room,
                told.get(room).unwrap_or(&nobody),
            );
        }
    }
    for (name, room, members) in shown {
        compare(format!("what {name} was told"), room, members);
    }
    wrong
}

/// What an instance keeps of what it took for its users.
pub(crate) fn left_over(before: &Load, after: &Load) -> Vec<String> {
    let most_resident = before.resident_kib * 3 + SPARE_RESIDENT_KIB;
    [
        ("threads", after.threads, before.threads + SPARE_THREADS),
        (
            "descriptors",
            after.descriptors,
            before.descriptors + SPARE_DESCRIPTORS,
        ),
        ("KiB resident", after.resident_kib, most_resident),
    ]
    .into_iter()
    .filter(|(_, is, most)| is > most)
    .map(|(what, is, most)| format!("{is} {what} are left over, where at most {most} should be"))
    .collect()
}

/// What is wrong with how an instance ended that was told to, if it did.
pub(crate) fn drained(ended: Option<ExitStatus>) -> Result<(), String> {
    match ended {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("an instance drained with {status}")),
        None => Err("an instance did not drain in time".to_owned()),
    }
}

/// What is wrong with an instance that was told nothing, if it ended.
pub(crate) fn runs(ended: Option<ExitStatus>) -> Result<(), String> {
    match ended {
        Some(status) => Err(format!("an instance ended by itself with {status}")),
        None => Ok(()),
    }
}

/// The lines of an instance's log that tell of a panic.
pub(crate) fn panics(log: &str) -> Vec<String> {
    let told = log.lines().filter(|line| line.contains("panicked"));
    told.map(str::to_owned).collect()
}

/// What is wrong with an instance that is `ready` while Redis takes no writes, for `what` it is.
pub(crate) fn unready(number: usize, ready: bool, what: &str) -> Result<(), String> {
    if ready {
        return Err(format!(
            "instance {number} says that it is ready while Redis is {what}"
        ));
    }
    Ok(())
}
