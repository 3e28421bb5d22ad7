//! The list of rooms of `hubbub join`: a line for each, with the time since its last message.

use crate::protocol::ListedRoom;
use crate::protocol::text::{Line, NO_ROOMS, and_others, grouped};

/// The number of rooms that are shown: about a screen.
const SHOWN_ROOMS: usize = 20;

/// The units of a time, with the milliseconds of one, longest first.
const UNITS: [(&str, u64); 4] = [
    ("day", 86_400_000),
    ("hour", 3_600_000),
    ("minute", 60_000),
    ("second", 1000),
];

/// The lines for a list of rooms at this time, in milliseconds since the Unix epoch.
pub(super) fn room_lines(rooms: &[ListedRoom], more: bool, now: u64) -> Vec<Line> {
    let others = match rooms {
        [] if !more => Some(NO_ROOMS.to_owned()),
        _ => and_others(rooms.len().saturating_sub(SHOWN_ROOMS), more),
    };
    let shown = rooms.iter().take(SHOWN_ROOMS);
    let shown = shown.map(|one| room_line(one, now));
    shown.chain(others).map(Line::Notice).collect()
}

fn room_line(ListedRoom { room, members, at }: &ListedRoom, now: u64) -> String {
    let here = match members {
        0 => "nobody is here".to_owned(),
        1 => "1 user".to_owned(),
        members => format!("{} users", grouped(*members)),
    };
    // The server's clock may be ahead.
    match at.map(|at| now.saturating_sub(at)) {
        None => format!("{room}: {here}"),
        Some(age) => format!("{room}: {here}, the last message {}", ago(age)),
    }
}

fn ago(age: u64) -> String {
    let unit = UNITS.into_iter().find(|(_, unit)| age >= *unit);
    match unit.map(|(name, unit)| (name, age / unit)) {
        None => "just now".to_owned(),
        Some((name, 1)) => format!("1 {name} ago"),
        Some((name, count)) => format!("{} {name}s ago", grouped(count as usize)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_room_has_a_line_that_says_how_long_it_was_silent() {
        let room = |name: &str, members, at| ListedRoom {
            room: name.parse().expect("a name"),
            members,
            at,
        };
        let now = 1_000_000_000;
        let rooms = [
            room("ahead", 1200, Some(now + 5000)),
            room("ops", 3, Some(now - 1999)),
            room("a b", 0, Some(now - 2 * 3_600_000)),
            room("new", 1, None),
        ];
        let shown = |rooms: &[ListedRoom], more| {
            let lines = room_lines(rooms, more, now);
            let lines: Vec<_> = lines.iter().map(Line::to_string).collect();
            lines
        };
        assert_eq!(
            shown(&rooms, true),
            [
                "* ahead: 1,200 users, the last message just now",
                "* ops: 3 users, the last message 1 second ago",
                "* a b: nobody is here, the last message 2 hours ago",
                "* new: 1 user",
                "* and others"
            ]
        );
        let many = vec![room("x", 1, None); 25];
        assert_eq!(shown(&many, false)[20..], ["* and 5 others"]);
        assert_eq!(shown(&many, true)[20..], ["* and more than 5 others"]);
        assert_eq!(shown(&[], false), ["* there are no such rooms"]);
    }
}
