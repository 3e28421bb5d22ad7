//! Random commands to a backplane, for `differential.rs`.

use hubbub::backplane::{Ban, Departure};
use hubbub::message::MessageId;
use proptest::prelude::*;
use proptest::sample::select;

/// Names, to which each case adds its number: no case sees another one's rooms and bans.
pub(crate) const ROOMS: [&str; 3] = ["lobby", "}x{ :%\u{e9}", "past"];
pub(crate) const USERS: [&str; 3] = ["alice", "bob", "}x{ :%\u{e9}"];
const TEXTS: [&str; 4] = ["", "one", "prev", "two\n\"\u{e9}\"\0"];
const REFS: [&str; 2] = ["r", "r \u{e9}:{"];

/// The milliseconds of messages that are restored: some are long past, others ahead of the clock.
const RESTORED: [u64; 3] = [1_000_000_000_000, 1_000_000_000_001, 4_000_000_000_000];

/// The end of a ban that is over.
pub(crate) const OVER: u64 = 1000;

pub(crate) type Name = &'static str;

/// A place in a room's log.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    Zero,
    /// The message of this number, or of what remains of it by their count.
    Nth(usize),
    Greatest,
}

/// A page of a room's log.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Page {
    Newest,
    Before(Place),
    UpTo(Place),
    After(Place),
    From(Place),
}

/// A ban keeps it out, or from all.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    User(Name),
    Room(Name),
    Message(Name, Place),
    Past(Name, Place),
}

/// A draft: room, author, text and ref.
pub(crate) type Said = (Name, Name, Name, Option<Name>);

/// A command.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// These are said at once.
    Say(Vec<Said>),
    Enter(Name, Option<Name>, Option<(Page, usize)>),
    Depart(Name, Name, Departure),
    Type(Name, Name),
    /// A member of the hub begins to listen.
    Listen(Name),
    /// The first that listens there tells what it heard, and leaves.
    StopListening(Name),
    Read(Name, Page, usize),
    Members(Name),
    Describe,
    List,
    Export,
    Restore(Name, Vec<MessageId>),
    /// The webhook, what it posted, and whether the lease is given up.
    Lease(Name, Name, Option<Place>, bool),
    SetBan(Target, Option<Ban>),
    Bans,
    Disconnect(Name),
    /// All listeners tell what they heard, and the folder is reopened.
    Reopen,
}

fn page() -> impl Strategy<Value = Page> {
    let place = place();
    (0..5_usize, place).prop_map(|(kind, place)| match kind {
        0 => Page::Newest,
        1 => Page::Before(place),
        2 => Page::UpTo(place),
        3 => Page::After(place),
        _ => Page::From(place),
    })
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        8 => (0..30_usize).prop_map(Place::Nth),
        1 => Just(Place::Zero),
        1 => Just(Place::Greatest),
    ]
}

fn ids() -> impl Strategy<Value = Vec<MessageId>> {
    let number = prop_oneof![3 => 0..4_u64, 1 => Just(u64::MAX)];
    let id = prop_oneof![
        20 => (select(&RESTORED), number).prop_map(|(millis, number)| MessageId { millis, number }),
        1 => Just(MessageId::ZERO),
    ];
    let in_order = |(mut ids, in_order): (Vec<_>, bool)| {
        if in_order {
            ids.sort_unstable();
            ids.dedup();
        }
        ids
    };
    (prop::collection::vec(id, 0..4), prop::bool::weighted(0.8)).prop_map(in_order)
}

fn ban() -> impl Strategy<Value = (Target, Option<Ban>)> {
    let target = prop_oneof![
        select(&USERS).prop_map(Target::User),
        select(&ROOMS).prop_map(Target::Room),
        (select(&ROOMS), place()).prop_map(|(room, place)| Target::Message(room, place)),
        (select(&ROOMS), place()).prop_map(|(room, place)| Target::Past(room, place)),
    ];
    let ban =
        (select(&[OVER, 4_000_000_000_000]), select(&TEXTS)).prop_map(|(until, reason)| Ban {
            until,
            reason: reason.to_owned(),
        });
    (target, prop::option::weighted(0.7, ban))
}

/// Commands, each with the number of the instance that gets it.
pub(crate) fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let (room, user) = (|| select(&ROOMS), || select(&USERS));
    let reference = prop::option::weighted(0.4, select(&REFS));
    let said = (room(), user(), select(&TEXTS), reference);
    let departure = select(&[Departure::Clean, Departure::Dropped]);
    let limit = || select(&[0_usize, 1, 2, 5, 100]);
    let past = prop::option::of((page(), limit()));
    let posted = prop::option::of(place());
    let step = prop_oneof![
        16 => prop::collection::vec(said, 1..4).prop_map(Step::Say),
        8 => (room(), prop::option::weighted(0.9, user()), past).prop_map(|(r, u, p)| Step::Enter(r, u, p)),
        8 => (room(), user(), departure).prop_map(|(room, user, how)| Step::Depart(room, user, how)),
        3 => (room(), user()).prop_map(|(room, user)| Step::Type(room, user)),
        3 => room().prop_map(Step::Listen),
        2 => room().prop_map(Step::StopListening),
        10 => (room(), page(), limit()).prop_map(|(room, page, limit)| Step::Read(room, page, limit)),
        3 => room().prop_map(Step::Members),
        3 => Just(Step::Describe),
        1 => Just(Step::List),
        1 => Just(Step::Export),
        4 => (room(), ids()).prop_map(|(room, ids)| Step::Restore(room, ids)),
        4 => (room(), select(&["early", "late"]), posted, any::<bool>())
            .prop_map(|(room, webhook, posted, ends)| Step::Lease(room, webhook, posted, ends)),
        4 => ban().prop_map(|(target, ban)| Step::SetBan(target, ban)),
        2 => Just(Step::Bans),
        1 => user().prop_map(Step::Disconnect),
        2 => Just(Step::Reopen),
    ];
    prop::collection::vec((0..2_usize, step), 1..80)
}
