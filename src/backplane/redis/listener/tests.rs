//! The listener's books and deadlines, in situations that a real Redis rarely makes: no Redis is there, and each test
//! does one step of the thread's.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crossbeam_channel::unbounded;
use redis::{Client, IntoConnectionInfo, ProtocolVersion};

use super::*;
use crate::backplane::redis::address::{Form, RedisAddress};
use crate::backplane::redis::keys::Keys;
use crate::backplane::redis::news::{ClusterNews, NewsSender};
use crate::backplane::redis::source::Source;
use crate::backplane::redis::wire::Scripts;
use crate::hub::outbox::{Queue, outbox};
use crate::message::{ConnectionId, InstanceId, MemberList, MessageId, Revision};
use crate::protocol::Encoding;

/// Longer than any time-out here.
const LONG: Duration = Duration::from_secs(60);

const A_LITTLE: Duration = Duration::from_millis(1);

/// For a shard whose Redis refuses connections.
pub(in crate::backplane::redis) fn nowhere(pubsub: PubSub, news: NewsSender) -> Connecting {
    let address = RedisAddress::parse("redis://127.0.0.1:1").expect("an address");
    let Form::Server(server) = address.0 else {
        panic!("one server")
    };
    Connecting {
        source: Source::Server(Arc::new(server)),
        name: "nowhere".to_owned(),
        keys: Keys::new("hubbub", InstanceId::random()),
        scripts: Scripts::new(pubsub),
        servers: None,
        news,
        acknowledged: None,
    }
}

/// A connection to a peer that has answered its handshake, and the peer's end of it.
fn connection() -> (Connection, TcpStream) {
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = format!("redis://{}", door.local_addr().expect("an address"));
    let info = at.into_connection_info().expect("a URL");
    let login = info.redis_settings().clone();
    let login = login
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name();
    let client = Client::open(info.set_redis_settings(login)).expect("a client");
    let peer = thread::spawn(move || {
        let (mut peer, _) = door.accept().expect("a connection");
        assert!(is_told(&mut peer, "HELLO"));
        peer.write_all(b"%0\r\n").expect("an answer to HELLO");
        peer
    });
    let connection = client.get_connection().expect("a connection");
    (connection, peer.join().expect("the peer"))
}

/// Whether the peer is told this within a while.
fn is_told(peer: &mut TcpStream, words: &str) -> bool {
    let mut told = Vec::new();
    let set = peer.set_read_timeout(Some(Duration::from_secs(10)));
    set.expect("a time-out");
    let mut some = [0; 1024];
    while let Ok(length @ 1..) = peer.read(&mut some) {
        told.extend_from_slice(&some[..length]);
        if String::from_utf8_lossy(&told).contains(words) {
            return true;
        }
    }
    false
}

/// A listener whose steps the test takes. Its publisher finds no Redis.
struct TestListener {
    listener: Listener,
    tasks: Sender<Task>,
    news: Receiver<ClusterNews>,
}

impl TestListener {
    fn with(pubsub: PubSub) -> Self {
        let hub = Hub::start(InstanceId::random(), 0).expect("no threads");
        let (news, told) = unbounded();
        let to = nowhere(pubsub, NewsSender(Some(news)));
        // It tells no news of its own.
        let quiet = nowhere(pubsub, NewsSender(None));
        let publisher = Publisher::start(quiet, None).expect("its threads");
        let (tasks, asked) = unbounded();
        let (started, _) = crossbeam_channel::bounded(1);
        let mut listener = Listener::new(
            to,
            Share::All,
            &Arc::new(hub),
            &Arc::new(publisher),
            &Arc::default(),
            asked,
            started,
        );
        // A slow test is no silence.
        listener.probe = Probe::Heard(Instant::now() + LONG);
        Self {
            listener,
            tasks,
            news: told,
        }
    }

    fn new() -> Self {
        Self::with(PubSub::Plain)
    }

    fn channel(&self, name: &str) -> String {
        self.listener.to.keys.channel(&room(name))
    }

    /// Has a room, with a subscription that was asked for at this time and is not confirmed, or that is confirmed.
    fn hears(&mut self, name: &str, asked: Option<Instant>, chain: Chain) -> String {
        let channel = self.channel(name);
        let mut heard = Heard::anew(room(name), Vec::new());
        (heard.asked, heard.chain) = (asked, chain);
        self.listener.unconfirmed += usize::from(asked.is_some());
        self.listener.rooms.insert(channel.clone(), heard);
        channel
    }

    /// Puts a connection into a room.
    fn enters(&self, name: &str) -> Queue {
        let hub = &self.listener.hub;
        let (_, queue) = outbox(Encoding::Text, 1 << 20, None);
        let list = MemberList {
            users: [].into(),
            revision: Revision::ZERO,
        };
        hub.add_member(&room(name), ConnectionId(1), None, queue.outbox());
        hub.release(&room(name), ConnectionId(1), None, &list, None);
        queue
    }

    fn has(&self, name: &str) -> bool {
        self.listener.rooms.contains_key(&self.channel(name))
    }

    fn is_behind(&self, channel: &str) -> bool {
        self.listener.behind.contains(channel)
    }

    fn behind_since(&self) -> Option<Instant> {
        *lock(&self.listener.subscription.behind_since)
    }

    /// Takes in a push about a channel.
    fn push(&mut self, kind: &PushKind, channel: &str, payload: Value) -> bool {
        let channel = Value::BulkString(channel.into());
        self.listener.hear(kind, &[channel, payload], Pace::Calm)
    }

    fn confirms(&mut self, channel: &str) -> bool {
        self.push(&PushKind::Subscribe, channel, Value::Int(1))
    }
}

fn room(name: &str) -> RoomName {
    name.parse().expect("a name")
}

fn id(number: u64) -> MessageId {
    MessageId { millis: 1, number }
}

/// Everything up to this message was delivered.
fn current(number: u64) -> Chain {
    Chain::Current {
        last: Some(id(number)),
        read: None,
    }
}

fn long_ago() -> Instant {
    let then = Instant::now().checked_sub(LONG);
    then.expect("the machine runs for longer")
}

#[test]
fn a_confirmed_room_is_read_and_counted_once() {
    let mut one = TestListener::new();
    let (red, blue) = (one.channel("red"), one.channel("blue"));
    let gone = one.channel("gone");
    let now = Some(Instant::now());
    one.hears("red", now, Chain::Unknown);
    one.hears("blue", now, Chain::Unknown);
    assert!(!one.confirms(&red));
    assert!(!one.confirms(&red));
    assert_eq!(one.listener.unconfirmed, 1, "blue is missing");
    assert!(one.is_behind(&red) && !one.is_behind(&blue));
    assert!(!one.confirms(&gone));
    assert!(one.listener.forget(&blue).is_some());
    assert_eq!(one.listener.unconfirmed, 0);
    let (orders, control) = (
        one.listener.to.keys.orders(),
        one.listener.to.keys.control(),
    );
    // The last of all that is asked for at the beginning tells that no order is missed from here on.
    let is_alive = |one: &TestListener| one.listener.subscription.alive.load(Ordering::Acquire);
    assert!(!one.confirms(&orders) && !is_alive(&one));
    assert!(one.confirms(&control) && is_alive(&one));
}

#[test]
fn a_node_that_ends_a_subscription_gives_the_room_away_unless_it_is_asked_for_anew() {
    let mut one = TestListener::with(PubSub::Sharded);
    let red = one.hears("red", None, current(1));
    let blue = one.hears("blue", Some(Instant::now()), current(1));
    one.push(&PushKind::SUnsubscribe, &blue, Value::Int(0));
    assert!(one.has("blue") && one.news.is_empty());
    one.push(&PushKind::SUnsubscribe, &red, Value::Int(0));
    assert!(!one.has("red"));
    let Ok(ClusterNews::Unassigned { from, rooms }) = one.news.try_recv() else {
        panic!("the room goes on to another node")
    };
    assert_eq!((&from[..], rooms.len()), ("nowhere", 1));
    let Ok(ClusterNews::Stale(Some(node))) = one.news.try_recv() else {
        panic!("the node that ended it knows where the room is")
    };
    assert_eq!(node, "nowhere");
}

#[test]
fn a_loss_is_told_at_once_or_the_log_has_to_tell_it() {
    let mut one = TestListener::new();
    let (at_end, before) = (one.enters("at-end"), one.enters("before"));
    let loss = |number| Value::BulkString(format!("g\n1-2\n1-{number}\n1-9").into());
    let channel = one.hears("at-end", None, current(5));
    one.push(&PushKind::Message, &channel, loss(5));
    assert!(at_end.length() > 0, "its members are told");
    assert!(!one.is_behind(&channel));
    let channel = one.hears("before", None, current(3));
    lock(&one.listener.subscription.heard).insert(room("before"));
    one.push(&PushKind::Message, &channel, loss(5));
    assert_eq!(before.length(), 0);
    assert!(one.is_behind(&channel), "its log is read");
    let is_heard = lock(&one.listener.subscription.heard).contains(&room("before"));
    assert!(!is_heard, "who enters waits for that");
}

#[test]
fn all_that_wait_for_one_room_are_told() {
    let mut one = TestListener::new();
    let (first, first_told) = crossbeam_channel::bounded(1);
    let (second, second_told) = crossbeam_channel::bounded(1);
    one.listener.note(Task::Hear(room("red"), first));
    one.listener.note(Task::Hear(room("red"), second));
    let red = one.channel("red");
    let heard = one.listener.rooms.get_mut(&red).expect("it is there");
    heard.tell_waiting();
    assert_eq!(
        (first_told.try_recv(), second_told.try_recv()),
        (Ok(()), Ok(()))
    );
}

#[test]
fn a_room_without_members_is_left_after_a_while_and_only_then() {
    let mut one = TestListener::new();
    let (mut connection, mut peer) = connection();
    one.hears("red", None, current(1));
    one.hears("hosted", None, current(1));
    one.hears("adopted", None, current(1));
    let _member = one.enters("hosted");
    let adopted = Heard::anew(room("adopted"), Vec::new());
    one.listener.note(Task::Adopt(vec![adopted]));
    for name in ["red", "hosted"] {
        one.listener.note(Task::MayForget(room(name)));
    }
    let now = Instant::now();
    assert!(one.listener.forgetting.iter().all(|(at, _)| *at > now));
    assert!(one.listener.forget_due(&mut connection, now).is_ok());
    assert_eq!(one.listener.rooms.len(), 3, "a member may come right back");
    let later = now + LINGER;
    assert!(one.listener.forget_due(&mut connection, later).is_ok());
    assert!(!one.has("red") && one.has("hosted") && !one.has("adopted"));
    assert!(is_told(&mut peer, &one.channel("red")));
    assert!(one.listener.forgetting.is_empty());
}

#[test]
fn after_a_cut_only_rooms_that_somebody_needs_are_heard_again() {
    let mut one = TestListener::new();
    let _member = one.enters("hosted");
    for name in ["hosted", "left"] {
        one.hears(name, None, current(1));
    }
    one.listener.forget_unhosted();
    assert!(one.has("hosted") && !one.has("left"));
}

#[test]
fn a_room_that_redis_did_not_confirm_is_given_up_unless_it_was_heard_before() {
    let mut one = TestListener::new();
    one.hears("new", Some(Instant::now()), Chain::Unknown);
    one.hears("known", Some(Instant::now()), current(1));
    one.listener.lost(&Cut::Failed("it fell over".to_owned()));
    assert!(one.has("new") && one.has("known"));
    one.listener.lost(&Cut::NotConfirmed(room("new")));
    assert!(!one.has("new") && one.has("known"));
}

#[test]
fn a_missing_confirmation_is_found_in_time() {
    let mut one = TestListener::new();
    let (mut connection, _peer) = connection();
    let now = Instant::now();
    one.hears("red", Some(now), Chain::Unknown);
    one.listener.overdue_at = now;
    assert!(one.listener.look_after(&mut connection).is_ok());
    assert!(one.listener.overdue_at > now, "not in every round");
    let red = one.channel("red");
    one.hears("red", Some(long_ago()), Chain::Unknown);
    one.listener.overdue_at = Instant::now() + LONG;
    assert!(one.listener.look_after(&mut connection).is_ok());
    one.listener.overdue_at = now;
    let Err(Cut::NotConfirmed(room)) = one.listener.look_after(&mut connection) else {
        panic!("Redis refused the subscription")
    };
    assert_eq!(one.channel(room.as_str()), red);
}

#[test]
fn a_node_that_does_not_confirm_is_asked_again_and_for_a_new_map() {
    let mut one = TestListener::with(PubSub::Sharded);
    let (mut connection, mut peer) = connection();
    let red = one.hears("red", Some(long_ago()), Chain::Unknown);
    assert!(one.listener.look_after(&mut connection).is_ok());
    assert!(matches!(
        one.news.try_recv(),
        Ok(ClusterNews::Stale(Some(_)))
    ));
    assert!(is_told(&mut peer, &red));
    assert_eq!(one.listener.unconfirmed, 1);
}

#[test]
fn a_silent_subscription_and_a_closed_one_end() {
    let mut one = TestListener::new();
    let (mut quiet, _peer) = connection();
    one.listener.probe = Probe::Sent(long_ago());
    let cut = one.listener.look_after(&mut quiet);
    assert!(matches!(cut, Err(Cut::NoSignOfLife)));
    let (mut closed, peer) = connection();
    drop(peer);
    let mut backoff = Backoff::new(A_LITTLE, A_LITTLE);
    let cut = one.listener.listen(&mut closed, &mut backoff);
    assert!(matches!(cut, Cut::Failed(_)), "at once, without a probe");
    let error = |kind| RedisError::from(io::Error::from(kind));
    assert!(is_interruption(&error(io::ErrorKind::Interrupted)));
    assert!(!is_interruption(&error(io::ErrorKind::ConnectionReset)));
}

#[test]
fn the_pause_between_two_attempts_is_kept_and_ends_with_the_thread() {
    let mut one = TestListener::new();
    let (tell, _told) = crossbeam_channel::bounded(1);
    let hear = Task::Hear(room("red"), tell);
    assert!(one.tasks.send(hear).is_ok());
    let begun = Instant::now();
    assert!(!one.listener.pause(CLOSE_GLANCE));
    assert!(begun.elapsed() >= CLOSE_GLANCE);
    assert!(one.has("red"), "what is asked meanwhile is not forgotten");
    assert!(one.tasks.send(Task::Stop).is_ok());
    assert!(one.listener.pause(LONG));
}

#[test]
fn it_wakes_often_only_while_something_is_awaited() {
    let mut one = TestListener::new();
    let (connection, _peer) = connection();
    let glance = |one: &mut TestListener, due| {
        assert!(one.listener.set_glance(&connection, due).is_ok());
        one.listener.glance
    };
    assert_eq!(glance(&mut one, None), GLANCE);
    let red = one.hears("red", Some(Instant::now()), Chain::Unknown);
    assert_eq!(glance(&mut one, None), CLOSE_GLANCE);
    one.confirms(&red);
    assert_eq!(
        glance(&mut one, None),
        CLOSE_GLANCE,
        "its log has to be read"
    );
    one.listener.behind.clear();
    assert_eq!(glance(&mut one, None), GLANCE);
    assert_eq!(glance(&mut one, Some(Instant::now())), A_LITTLE);
}

#[test]
fn logs_are_read_when_it_is_time_and_again_after_a_pause() {
    let mut one = TestListener::new();
    let red = one.hears("red", None, current(1));
    one.listener.behind.insert(red.clone());
    one.listener.catch_up_at = Instant::now() + LONG;
    one.listener.catch_up_if_due();
    assert_eq!(one.behind_since(), None, "it is too early");
    one.listener.catch_up_at = Instant::now();
    let begun = Instant::now();
    one.listener.catch_up_if_due();
    assert!(one.behind_since().is_some(), "there is no Redis");
    assert!(one.is_behind(&red));
    assert!(one.listener.catch_up_at > begun);
}

#[test]
fn logs_are_read_together_but_never_wait_long_for_confirmations() {
    let mut one = TestListener::new();
    let red = one.hears("red", None, current(1));
    one.hears("late", Some(Instant::now()), Chain::Unknown);
    one.listener.behind.insert(red);
    one.listener.catch_up_if_due();
    assert_eq!(one.behind_since(), None, "more confirmations may come");
    one.listener.collecting_since = Some(long_ago());
    one.listener.catch_up_if_due();
    assert!(
        one.behind_since().is_some(),
        "one that never comes holds up no other room"
    );
    *lock(&one.listener.subscription.behind_since) = None;
    for number in one.listener.behind.len()..catch_up::ROOMS_AT_ONCE {
        let channel = one.hears(&format!("room-{number}"), None, current(1));
        one.listener.behind.insert(channel);
    }
    one.listener.catch_up_at = Instant::now();
    one.listener.catch_up_if_due();
    assert!(one.behind_since().is_some(), "that many are enough");
}

#[test]
fn a_log_that_could_not_be_read_is_looked_at_again_when_it_is_time() {
    let mut one = TestListener::new();
    let (red, blue) = (one.hears("red", None, current(1)), one.channel("blue"));
    one.listener.catch_up_at = Instant::now() + LONG;
    let later = Instant::now() + LONG;
    let all = [(red.clone(), Instant::now()), (blue.clone(), later)];
    one.listener.unreadable.extend(all);
    one.listener.catch_up_if_due();
    assert!(one.is_behind(&red) && !one.is_behind(&blue));
    assert!(one.listener.unreadable.keys().eq([&blue]));
}
