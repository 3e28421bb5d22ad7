//! The checker: what everyone saw, against what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use hubbub::message::{MessageId, RoomName};

use crate::crowd::{Record, Seen};

/// What was acknowledged, by room, in the order of the ids.
pub(crate) type Acknowledged = BTreeMap<RoomName, BTreeMap<MessageId, String>>;

/// Gathers what the speakers were told; an id that was given twice is wrong.
pub(crate) fn acknowledged(records: &[Record], wrong: &mut Vec<String>) -> Acknowledged {
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
    all
}

/// What is wrong with what one member saw. It must have seen everything that was acknowledged after
/// it entered, up to `until`, unless a gap was announced.
pub(crate) fn faults(
    record: &Record,
    said: &BTreeMap<MessageId, String>,
    until: Option<MessageId>,
) -> Vec<String> {
    let mut faults = Vec::new();
    let mut ids = BTreeSet::new();
    let mut gaps = Vec::new();
    let mut last: Option<MessageId> = None;
    for item in &record.seen {
        match item {
            Seen::Gap(after, before) => gaps.push((*after, *before)),
            Seen::Message(id, text) => {
                if !ids.insert(*id) {
                    faults.push(format!("{id} {text:?} was seen twice"));
                } else if last.is_some_and(|last| *id < last) {
                    faults.push(format!("{id} {text:?} was seen after a later one"));
                }
                match said.get(id) {
                    Some(said) if said == text => {}
                    Some(said) => {
                        faults.push(format!("{id} is {text:?}, acknowledged as {said:?}"));
                    }
                    None => faults.push(format!("{id} {text:?} was never acknowledged")),
                }
                last = Some(*id);
            }
        }
    }
    let (Some(entered), Some(until)) = (record.entered, until) else {
        return faults;
    };
    for (id, text) in said {
        let concerned = *id > entered && *id <= until && !ids.contains(id);
        let announced = gaps.iter().any(|(after, before)| {
            after.is_none_or(|after| after < *id) && before.is_none_or(|before| *id < before)
        });
        if concerned && !announced {
            faults.push(format!("{id} {text:?} was acknowledged and not seen"));
        }
    }
    faults
}

/// The negative control: whether a hole, a double, disorder and another text would be found in what
/// somebody really saw. Where a gap was announced, a hole may be excused; then it says nothing.
pub(crate) fn can_fail(record: &Record, said: &BTreeMap<MessageId, String>) -> bool {
    if record.seen.iter().any(|seen| matches!(seen, Seen::Gap(..))) {
        return true;
    }
    let until = record.last_seen();
    let middle = record.seen.len() / 2;
    let spoiled = |spoil: &dyn Fn(&mut Vec<Seen>)| {
        let mut record = record.clone();
        spoil(&mut record.seen);
        faults(&record, said, until).len() == 1
    };
    middle > 0
        && spoiled(&|seen| drop(seen.remove(middle)))
        && spoiled(&|seen| seen.insert(middle, seen[middle].clone()))
        && spoiled(&|seen| seen.swap(middle, middle - 1))
        && spoiled(&|seen| {
            if let Seen::Message(_, text) = &mut seen[middle] {
                text.push('!');
            }
        })
}
