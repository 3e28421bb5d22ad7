//! What every backplane must keep, tried on all: in memory, and on Redis in each of its forms.

use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hubbub::backplane::{
    Backplane, BackplaneError, Ban, Banned, Departure, Draft, Stored, continues,
};
use hubbub::hub::outbox::outbox;
use hubbub::hub::{Hub, Order};
use hubbub::message::{ConnectionId, Entry, Message, MessageId, RoomName, UserName};
use hubbub::protocol::{Cursor, Encoding, Event, Ref};

use crate::support::cluster::Cluster;
use crate::support::folder::Folder;
use crate::support::house::{self, Reader};
use crate::support::redis::Redis;
use crate::support::sentinel::Sentinels;
use crate::support::{DEADLINE, until};

/// All that must be kept.
const CHECKS: [fn(&House); 12] = [
    what_is_acknowledged_is_delivered_under_its_id_and_in_order,
    entries_name_their_predecessors,
    pages_meet_in_both_directions,
    a_rooms_newest_id_is_known,
    a_repeated_ref_stores_nothing_new,
    only_hosted_rooms_are_delivered_and_a_room_can_come_back,
    presence_is_told_once_whatever_the_number_of_connections,
    a_long_log_is_trimmed_to_about_its_length,
    the_past_of_another_backplane_can_be_put_before_what_is_said_next,
    orders_reach_the_hub_and_bans_are_kept,
    rooms_are_listed_while_somebody_is_there_or_something_is_remembered,
    a_webhook_goes_on_behind_what_was_posted,
];

/// How many messages a room's log keeps.
const KEPT: usize = 100;

/// A hub with a backplane.
struct House {
    hub: Arc<Hub>,
    backplane: Box<dyn Backplane>,
}

/// Runs all checks on these servers, each with a prefix of its own.
fn all_on(urls: &[String]) {
    for (index, check) in CHECKS.iter().enumerate() {
        let (hub, backplane) = house::shared_by(urls, &format!("check{index}"), KEPT);
        run(hub, backplane, *check);
    }
}

fn run(hub: Arc<Hub>, backplane: Box<dyn Backplane>, check: fn(&House)) {
    let house = House { hub, backplane };
    check(&house);
    house.backplane.close();
}

#[test]
fn memory_keeps_it() {
    for check in CHECKS {
        let (hub, backplane) = house::local(KEPT);
        run(hub, backplane, check);
    }
}

#[test]
fn a_folder_keeps_it() {
    for check in CHECKS {
        let folder = Folder::new();
        let (hub, backplane) = house::durable(KEPT, folder.path());
        run(hub, backplane, check);
    }
}

#[test]
fn one_redis_keeps_it() {
    all_on(&[Redis::start().url()]);
}

#[test]
fn three_servers_keep_it() {
    let servers: [Redis; 3] = std::array::from_fn(|_| Redis::start());
    all_on(&servers.each_ref().map(Redis::url));
}

#[test]
fn the_master_of_sentinels_keeps_it() {
    all_on(&[Sentinels::start().url()]);
}

#[test]
fn a_cluster_keeps_it() {
    all_on(&[Cluster::of(3).url()]);
}

fn user(name: &str) -> UserName {
    name.parse().expect("a name")
}

fn room(name: &str) -> RoomName {
    name.parse().expect("a name")
}

impl House {
    /// A member of the room from now on.
    fn listen(&self, room: &RoomName, connection: u64) -> Reader {
        let (outbox, queue) = outbox(Encoding::Json, 1 << 20, None);
        let connection = ConnectionId(connection);
        self.hub
            .add_member(room, connection, Some(&user("listener")), &outbox);
        self.backplane.subscribe(room).expect("a subscription");
        self.hub
            .release(room, connection, None, &house::nobody(), None);
        Reader::of(queue)
    }

    fn say(
        &self,
        room: &RoomName,
        text: &str,
        reference: Option<&str>,
    ) -> Result<Stored, BackplaneError> {
        let told = self.send(room, text, reference);
        told.recv_timeout(DEADLINE).expect("a receipt")
    }

    /// Says it, and does not wait.
    fn send(
        &self,
        room: &RoomName,
        text: &str,
        reference: Option<&str>,
    ) -> mpsc::Receiver<Result<Stored, BackplaneError>> {
        let (tell, told) = mpsc::channel();
        let draft = Draft {
            room: room.clone(),
            from: user("alice"),
            text: text.to_owned(),
            reference: reference.map(|r| Ref::try_from(r.to_owned()).expect("a ref")),
            via: None,
        };
        self.backplane.publish(
            draft,
            Box::new(move |outcome| {
                let _ = tell.send(outcome);
            }),
        );
        told
    }

    fn ids(&self, room: &RoomName, page: Cursor, limit: usize) -> (Vec<MessageId>, bool) {
        let excerpt = self.backplane.read(room, page, limit).expect("an excerpt");
        let ids = excerpt.entries.iter().map(|entry| entry.message.id);
        (ids.collect(), excerpt.more)
    }
}

fn hears_message(reader: &mut Reader) -> (MessageId, String) {
    match reader.hears() {
        Event::Message { message, .. } => (message.id, message.text),
        other => panic!("{other:?}"),
    }
}

fn what_is_acknowledged_is_delivered_under_its_id_and_in_order(house: &House) {
    let lobby = room("lobby");
    let mut listener = house.listen(&lobby, 1);
    let stored: Vec<_> = (0..50)
        .map(|n| {
            house
                .say(&lobby, &n.to_string(), None)
                .expect("it is stored")
        })
        .collect();
    for (n, stored) in stored.iter().enumerate() {
        assert_eq!(hears_message(&mut listener), (stored.id, n.to_string()));
        assert!(!stored.duplicate);
    }
    assert!(stored.windows(2).all(|pair| pair[0].id < pair[1].id));
}

fn entries_name_their_predecessors(house: &House) {
    let lobby = room("lobby");
    let first = house.say(&lobby, "first", None).expect("it is stored").id;
    for n in 0..10 {
        house
            .say(&lobby, &n.to_string(), None)
            .expect("it is stored");
    }
    let all = house
        .backplane
        .read(&lobby, Cursor::Newest, 100)
        .expect("all");
    assert_eq!(all.entries[0].prev, None);
    assert!(continues(first, &all.entries[1..], None));
}

fn pages_meet_in_both_directions(house: &House) {
    let lobby = room("lobby");
    assert_eq!(house.ids(&lobby, Cursor::Newest, 5), (vec![], false));
    let ids: Vec<_> = (0..10)
        .map(|n| {
            house
                .say(&lobby, &n.to_string(), None)
                .expect("it is stored")
                .id
        })
        .collect();
    assert_eq!(
        house.ids(&lobby, Cursor::Newest, 4),
        (ids[6..].to_vec(), true)
    );
    assert_eq!(
        house.ids(&lobby, Cursor::Before(ids[6]), 4),
        (ids[2..6].to_vec(), true)
    );
    assert_eq!(
        house.ids(&lobby, Cursor::Before(ids[2]), 4),
        (ids[..2].to_vec(), false)
    );
    assert_eq!(
        house.ids(&lobby, Cursor::After(ids[0]), 4),
        (ids[1..5].to_vec(), true)
    );
    assert_eq!(
        house.ids(&lobby, Cursor::After(ids[5]), 4),
        (ids[6..].to_vec(), false)
    );
    assert_eq!(house.ids(&lobby, Cursor::After(ids[9]), 4), (vec![], false));
    let (least, most) = (
        MessageId::ZERO,
        MessageId {
            millis: u64::MAX,
            number: u64::MAX,
        },
    );
    assert_eq!(house.ids(&lobby, Cursor::Before(least), 4), (vec![], false));
    assert_eq!(house.ids(&lobby, Cursor::After(most), 4), (vec![], false));
    assert_eq!(
        house.ids(&lobby, Cursor::After(least), 4),
        (ids[..4].to_vec(), true)
    );
    assert_eq!(
        house.ids(&lobby, Cursor::Before(most), 4),
        (ids[6..].to_vec(), true)
    );
}

fn a_rooms_newest_id_is_known(house: &House) {
    let lobby = room("lobby");
    let tail = || {
        let entrance = house.backplane.enter(&lobby, Some(&user("alice")), None);
        entrance.expect("an answer").tail
    };
    assert_eq!(tail(), None);
    for n in 0..3 {
        let stored = house.say(&lobby, &n.to_string(), None);
        assert_eq!(tail(), Some(stored.expect("it is stored").id));
    }
}

fn a_repeated_ref_stores_nothing_new(house: &House) {
    let (lobby, other) = (room("lobby"), room("other"));
    let mut listener = house.listen(&lobby, 1);
    let first = house.say(&lobby, "once", Some("r")).expect("it is stored");
    let again = house.say(&lobby, "once", Some("r")).expect("it is known");
    assert_eq!(
        again,
        Stored {
            id: first.id,
            duplicate: true
        }
    );
    let another = house.say(&lobby, "twice", Some("r"));
    assert_eq!(another, Err(BackplaneError::RefReused));
    let elsewhere = house.say(&other, "twice", Some("r")).expect("it is stored");
    assert!(!elsewhere.duplicate, "a ref is of one room");
    let marker = house.say(&lobby, "marker", None).expect("it is stored");
    assert_eq!(hears_message(&mut listener).0, first.id);
    assert_eq!(hears_message(&mut listener).0, marker.id);
    // Two at once, which may be in one batch: the first that is stored is the message.
    let at_once = ["this", "that"].map(|text| house.send(&lobby, text, Some("s")));
    let [this, that] = at_once.map(|told| told.recv_timeout(DEADLINE).expect("a receipt"));
    assert!(this.is_ok_and(|this| !this.duplicate));
    assert_eq!(that, Err(BackplaneError::RefReused));
    // Once the log has forgotten it, nobody can tell.
    for n in 0..2 * KEPT + 10 {
        house.say(&lobby, &n.to_string(), None).expect("stored");
    }
    let forgotten = house.say(&lobby, "twice", Some("r"));
    assert_eq!(forgotten, Ok(again));
}

fn only_hosted_rooms_are_delivered_and_a_room_can_come_back(house: &House) {
    let (lobby, other) = (room("lobby"), room("other"));
    let mut listener = house.listen(&lobby, 1);
    house.say(&other, "unheard", None).expect("it is stored");
    house.say(&lobby, "heard", None).expect("it is stored");
    assert_eq!(hears_message(&mut listener).1, "heard");
    house.hub.remove_member(&lobby, ConnectionId(1));
    house.backplane.unsubscribe(&lobby);
    house.say(&lobby, "between", None).expect("it is stored");
    let mut back = house.listen(&lobby, 2);
    house.say(&lobby, "after", None).expect("it is stored");
    // "between" was said to nobody; whether it still reaches a member who joins without an id
    // depends on what was forgotten by then.
    until("the one after it is heard", || {
        (hears_message(&mut back).1 == "after").then_some(())
    });
}

fn presence_is_told_once_whatever_the_number_of_connections(house: &House) {
    let lobby = room("lobby");
    let alice = user("alice");
    let mut listener = house.listen(&lobby, 1);
    for _ in 0..3 {
        let entrance = house.backplane.enter(&lobby, Some(&alice), None);
        let members = entrance.expect("she is in").members;
        assert_eq!(*members.users, *std::slice::from_ref(&alice));
    }
    let members = house.backplane.members(&lobby).expect("members");
    assert_eq!(*members, *std::slice::from_ref(&alice));
    for _ in 0..2 {
        house.backplane.depart(&lobby, &alice, Departure::Clean);
    }
    house.say(&lobby, "marker", None).expect("it is stored");
    assert!(matches!(listener.hears(), Event::Joined { user, .. } if user == alice));
    assert_eq!(hears_message(&mut listener).1, "marker");
    house.backplane.depart(&lobby, &alice, Departure::Dropped);
    assert!(matches!(listener.hears(), Event::Left { user, .. } if user == alice));
    assert!(house.backplane.members(&lobby).expect("members").is_empty());
}

fn a_long_log_is_trimmed_to_about_its_length(house: &House) {
    let lobby = room("lobby");
    for n in 0..400 {
        house
            .say(&lobby, &n.to_string(), None)
            .expect("it is stored");
    }
    let (ids, more) = house.ids(&lobby, Cursor::Newest, 1000);
    // Redis trims whole nodes of a hundred.
    assert!((KEPT..=KEPT + 100).contains(&ids.len()), "{}", ids.len());
    assert!(!more);
}

fn the_past_of_another_backplane_can_be_put_before_what_is_said_next(house: &House) {
    let backplane = &house.backplane;
    let (past, other) = (room("a past"), room("another"));
    let entry = |prev: Option<u64>, number| {
        let id = |number| MessageId {
            millis: 1_000_000_000_000,
            number,
        };
        Entry {
            message: Message {
                id: id(number),
                from: user("alice"),
                text: format!("{number}\n\"é\""),
                at: id(number).millis,
            },
            prev: prev.map(id),
            via: None,
        }
    };
    // Two are missing between the first and the second.
    let entries = [entry(Some(0), 1), entry(Some(3), 4), entry(Some(4), 5)];
    let restored = backplane.restore(&past, &entries[..2]);
    assert_eq!(restored, Ok(()));
    assert_eq!(backplane.restore(&past, &entries[2..]), Ok(()));
    let read = |room| {
        let page = backplane.read(room, Cursor::After(MessageId::ZERO), 9);
        page.expect("a page").entries
    };
    assert_eq!(read(&past), entries);
    for late in [&entries[2..], &entries[..1]] {
        let refused = backplane.restore(&past, late);
        assert!(matches!(refused, Err(BackplaneError::Refused(_))));
    }
    assert_eq!(read(&past), entries);
    let (empty, ahead) = (room("empty"), room("ahead of the clock"));
    let at = |id| {
        let mut entry = entry(None, 0);
        entry.message.id = id;
        entry
    };
    let [later, sooner] = [1, 0].map(|index| entries[index].clone());
    let ends = [MessageId::ZERO, MessageId::GREATEST].map(at);
    for wrong in [&[later, sooner][..], &ends[..1], &ends[1..], &[]] {
        let restored = backplane.restore(&empty, wrong);
        assert_eq!(restored.is_ok(), wrong.is_empty(), "{restored:?}");
        assert_eq!(read(&empty), []);
    }
    let last = MessageId {
        millis: 4_000_000_000_000,
        number: u64::MAX,
    };
    assert_eq!(backplane.restore(&ahead, &[at(last)]), Ok(()));
    let said = house.say(&ahead, "now", None).expect("it is stored");
    assert!(said.id > last);
    let said = house.say(&past, "now", None).expect("it is stored");
    assert!(said.id > entries[2].message.id);
    assert_eq!(read(&past)[3].prev, Some(entries[2].message.id));
    house.say(&other, "here", None).expect("it is stored");
    let mut rooms = backplane.rooms().expect("rooms");
    rooms.retain(|room| [&past, &other].contains(&room));
    assert_eq!(rooms, [past, other]);
}

fn rooms_are_listed_while_somebody_is_there_or_something_is_remembered(house: &House) {
    let backplane = &house.backplane;
    assert_eq!(backplane.listed(), Ok(vec![]));
    let (old, new, odd) = (room("an old one"), room("new"), room("}x{ :%\u{e9}"));
    let (silent, nowhere) = (room("silent"), room("nowhere"));
    let at = |room| house.say(room, "hello", None).expect("it is stored").id;
    let first = at(&old);
    let last = until("the clock goes on", || {
        let id = at(&new);
        (id.millis > first.millis).then_some(id)
    });
    for room in [&odd, &silent] {
        for user in [user("alice"), user("bob")] {
            backplane
                .enter(room, Some(&user), None)
                .expect("an entrance");
        }
    }
    let is_listed = |expected: &[&RoomName]| {
        until("these are listed", || {
            let listed = backplane.listed().expect("a list");
            listed.iter().eq(expected.iter().copied()).then_some(())
        });
    };
    is_listed(&[&new, &old, &silent, &odd]);
    let all = [&nowhere, &odd, &new, &silent, &old].map(RoomName::clone);
    let described = || {
        let mut described = backplane.describe(&all).expect("what they are");
        described.sort_by(|one, next| one.room.cmp(&next.room));
        let told = described
            .iter()
            .map(|one| (one.room.clone(), one.members, one.at));
        told.collect::<Vec<_>>()
    };
    let said = [
        (old.clone(), 0, Some(first.millis)),
        (new.clone(), 0, Some(last.millis)),
    ];
    let with = |more: &[(&RoomName, usize)]| {
        let more = more
            .iter()
            .map(|&(room, members)| (room.clone(), members, None));
        [said.to_vec(), more.collect()].concat()
    };
    assert_eq!(described(), with(&[(&silent, 2), (&odd, 2)]));
    let leaves = |room, name: &str| backplane.depart(room, &user(name), Departure::Clean);
    leaves(&odd, "alice");
    assert_eq!(described(), with(&[(&silent, 2), (&odd, 1)]));
    leaves(&odd, "bob");
    leaves(&silent, "bob");
    assert_eq!(described(), with(&[(&silent, 1)]));
    is_listed(&[&new, &old, &silent]);
}

fn orders_reach_the_hub_and_bans_are_kept(house: &House) {
    let backplane = &house.backplane;
    let hears = |order: &Order| {
        until("the order is heard", || {
            let heard = house.hub.orders().recv_timeout(DEADLINE);
            (heard.expect("an order") == *order).then_some(())
        });
    };
    let (alice, odd) = (user("alice"), user("}x{ :%\u{e9}"));
    for user in [&alice, &odd] {
        let order = Order::Disconnect(user.clone());
        assert_eq!(backplane.order(&order), Ok(()));
        hears(&order);
    }
    assert_eq!(backplane.bans(), Ok([].into()));
    let until = |hours: u32| {
        let end = SystemTime::now() + hours * Duration::from_secs(3600);
        let end = end.duration_since(UNIX_EPOCH).expect("after 1970");
        end.as_millis() as u64
    };
    let ban = |hours, reason: &str| Ban {
        until: until(hours),
        reason: reason.to_owned(),
    };
    let (alice, odd) = (Banned::User(alice), Banned::Room(room("}x{ :%\u{e9}")));
    let (short, long) = (ban(1, ""), ban(100, "a b\u{e9} \""));
    for (banned, ban) in [(&alice, &short), (&odd, &long), (&alice, &long)] {
        assert_eq!(backplane.set_ban(banned, Some(ban)), Ok(()));
        hears(&Order::ReadBans);
    }
    let both = [(alice.clone(), long.clone()), (odd.clone(), long.clone())];
    assert_eq!(backplane.bans(), Ok(both.into()));
    assert_eq!(backplane.set_ban(&alice, None), Ok(()));
    hears(&Order::ReadBans);
    assert_eq!(backplane.set_ban(&alice, None), Ok(()), "again");
    assert_eq!(backplane.bans(), Ok([(odd, long)].into()));
}

fn a_webhook_goes_on_behind_what_was_posted(house: &House) {
    let lobby = room("}x{ :%\u{e9}");
    let lease = |webhook, posted| {
        let lasts = Duration::from_secs(60);
        let lease = house.backplane.lease(&lobby, webhook, posted, lasts);
        lease.expect("an answer").expect("nobody else has it")
    };
    assert_eq!(lease("early", None), MessageId::ZERO);
    let [first, second] = ["first", "second"].map(|text| {
        let stored = house.say(&lobby, text, None);
        stored.expect("it is stored").id
    });
    assert_eq!(lease("late", None), second);
    assert_eq!(lease("early", Some(first)), first);
    assert_eq!(lease("early", None), first);
    assert_eq!(lease("early", Some(second)), second);
    assert_eq!(lease("early", Some(first)), second, "it never goes back");
}
