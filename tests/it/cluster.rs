//! A cluster: rooms are heard on the node that has their slot, wherever it moves.

use crate::support::client::get;
use crate::support::cluster::Cluster;
use crate::support::hubbub::{Hubbub, misuses, refuses, run};
use crate::support::redis::Redis;
use crate::support::scene::Scene;
use crate::support::until;

fn rooms(cluster: &Cluster) -> Vec<String> {
    (0..3).map(|number| cluster.room_on(number)).collect()
}

fn scene(cluster: &Cluster, rooms: &[String]) -> Scene {
    Scene::on(&["--redis", &cluster.url()], rooms)
}

#[test]
fn each_room_stays_on_its_node() {
    let cluster = Cluster::of(3);
    let rooms = rooms(&cluster);
    let mut scene = scene(&cluster, &rooms);
    scene.talks(5, |_| {});
    for (number, room) in rooms.iter().enumerate() {
        let channels: Vec<String> = cluster.node(number).run(&["PUBSUB", "SHARDCHANNELS"]);
        assert_eq!(channels, [format!("hubbub:{{{room}}}")]);
    }
    assert_eq!(scene.ends(), 0);
}

#[test]
fn slots_that_move_while_their_rooms_talk_lose_nothing() {
    let cluster = Cluster::of(3);
    let rooms = rooms(&cluster);
    let mut scene = scene(&cluster, &rooms);
    scene.talks(24, |n| {
        let room = &rooms[n % 3];
        if n % 2 == 0 {
            let to = (cluster.owner_of(room) + 1) % 3;
            cluster.move_slot(cluster.slot_of(room), to);
        }
    });
    assert_eq!(scene.ends(), 0, "nothing was lost");
}

#[test]
fn while_a_slot_is_on_its_way_sends_wait_or_are_refused_and_nothing_is_lost() {
    let cluster = Cluster::of(3);
    let room = cluster.room_on(0);
    let slot = cluster.slot_of(&room);
    let mut scene = scene(&cluster, std::slice::from_ref(&room));
    scene.says("before");
    cluster.begin_move(slot, 1);
    let hubbub = Hubbub::with(&["--redis", &cluster.url()]);
    let said = |text: &str| {
        run(&[
            "say",
            "ci",
            text,
            "--room",
            &room,
            "--url",
            &hubbub.url(),
            "--timeout",
            "2",
        ])
    };
    // What has its log here yet and brings a ref of its own is not taken: TRYAGAIN.
    let refused = said("on its way");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    cluster.move_keys(slot, 1);
    let refused = said("still on its way");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    cluster.end_move(slot, 1);
    scene.says("after");
    assert_eq!(scene.ends(), 0);
}

#[test]
fn planned_failovers_lose_nothing() {
    let cluster = Cluster::with_replicas(3);
    let rooms = rooms(&cluster);
    let mut scene = scene(&cluster, &rooms);
    scene.talks(20, |n| {
        if n % 5 == 2 {
            let master = cluster.owner_of(&rooms[n % 3]);
            cluster.fail_over(cluster.replica_of(master));
        }
    });
    assert_eq!(scene.ends(), 0, "nothing was lost");
}

#[test]
fn a_killed_master_is_replaced_by_its_replica_and_other_rooms_go_on() {
    let mut cluster = Cluster::with_replicas(3);
    let rooms = rooms(&cluster);
    let mut scene = scene(&cluster, &rooms);
    scene.talks(5, |_| {});
    let replica = cluster.replica_of(0);
    cluster.node_mut(0).kill();
    for n in 0..10 {
        scene.says_in(1, &format!("meanwhile {n}"));
        scene.says_in(2, &format!("meanwhile {n}"));
    }
    let (status, state) = get(scene.here.address(), "/readyz");
    assert_eq!(status, 200, "{state}");
    scene.says_in(0, "from the replica");
    cluster.wait_until_master(replica);
    cluster.node_mut(0).start_again();
    cluster.wait_until_whole();
    scene.talks(5, |_| {});
    // And back again.
    cluster.fail_over(0);
    scene.talks(5, |_| {});
    scene.ends();
}

#[test]
fn a_master_without_a_replica_comes_back_and_its_rooms_with_it() {
    let mut cluster = Cluster::start(3, 0, &["--appendonly", "yes", "--appendfsync", "always"]);
    let rooms = rooms(&cluster);
    let mut scene = scene(&cluster, &rooms);
    scene.talks(5, |_| {});
    cluster.node_mut(1).kill();
    let state = until("it is told", || {
        let (status, state) = get(scene.here.address(), "/readyz");
        assert_eq!(status, 200);
        state.contains("but for the rooms").then_some(state)
    });
    let port = cluster.node(1).port().to_string();
    assert!(state.contains(&port), "{state}");
    scene.says_in(0, "meanwhile");
    cluster.node_mut(1).start_again();
    scene.talks(5, |_| {});
    assert_eq!(scene.ends(), 0, "it remembered everything");
}

#[test]
fn a_node_joins_and_another_one_leaves() {
    let mut cluster = Cluster::of(3);
    let rooms = rooms(&cluster);
    let mut scene = scene(&cluster, &rooms);
    scene.talks(3, |_| {});
    let added = cluster.add_master();
    for room in &rooms {
        cluster.move_slot(cluster.slot_of(room), added);
        scene.talks(2, |_| {});
    }
    cluster.remove(0);
    scene.talks(3, |_| {});
    assert_eq!(scene.ends(), 0, "nothing was lost");
}

#[test]
fn presence_follows_a_room_to_another_node() {
    let cluster = Cluster::of(2);
    let room = cluster.room_on(0);
    let brief = ["--redis", &cluster.url(), "--presence-ttl", "6"];
    let (mut here, there) = (Hubbub::with(&brief), Hubbub::with(&brief));
    let mut alice = there.join_room("alice", &room);
    let bob = here.join_room("bob", &room);
    assert_eq!(alice.hears(), "* bob joined");
    cluster.move_slot(cluster.slot_of(&room), 1);
    let carol = until("she comes in", || {
        let mut carol = crate::support::client::Client::text(
            there.address(),
            &format!("/chat/carol?room={room}"),
        );
        carol
            .hears()
            .starts_with("* online: alice, bob, carol")
            .then_some(carol)
    });
    assert_eq!(alice.hears(), "* carol joined");
    carol.leaves();
    assert_eq!(alice.hears(), "* carol left");
    here.kill();
    assert_eq!(
        alice.hears(),
        "* bob left",
        "as any user of a killed instance"
    );
    drop(bob);
}

#[test]
fn a_room_whose_slot_no_node_has_waits_and_keeps_no_other_waiting() {
    let cluster = Cluster::of(2);
    let (room, other) = (cluster.room_on(0), cluster.room_on(1));
    let slot = cluster.slot_of(&room);
    let mut scene = scene(&cluster, &[other, room]);
    scene.says("before");
    cluster.drop_slot(slot);
    until("it is told", || {
        let (status, state) = get(scene.here.address(), "/readyz");
        assert_eq!(status, 200);
        state
            .contains("no node of the cluster has them")
            .then_some(())
    });
    scene.says_in(0, "meanwhile");
    // A new room on the node that had it is heard at once.
    let mut names = (0..).map(|n| format!("new{n}"));
    let new = names.find(|name| cluster.owner_of(name) == 0);
    let new = new.expect("there is always another name");
    let mut alice = scene.here.join_room("alice", &new);
    let mut bob = scene.there.join_room("bob", &new);
    assert_eq!(alice.hears(), "* bob joined");
    alice.says("hello");
    assert_eq!(bob.hears(), "alice: hello");
    cluster.take_slot(slot, 1);
    // Its past is at the old node, so members are told of a gap.
    scene.says("after");
    assert!(scene.ends() > 0);
}

#[test]
fn users_stay_when_their_room_comes_back_to_a_node() {
    let cluster = Cluster::of(2);
    let room = cluster.room_on(0);
    let slot = cluster.slot_of(&room);
    let brief = ["--redis", &cluster.url(), "--presence-ttl", "6"];
    let (here, there) = (Hubbub::with(&brief), Hubbub::with(&brief));
    let mut alice = here.join_room("alice", &room);
    let mut bob = there.join_room("bob", &room);
    assert_eq!(alice.hears(), "* bob joined");
    let key = |name: &str| format!("hubbub:{{{room}}}:{name}");
    let terms =
        |node: usize| -> Vec<String> { cluster.node(node).run(&["HVALS", &key("members")]) };
    until("they are in a term of the first node", || {
        let instances: i64 = cluster.node(0).run(&["ZCARD", &key("instances")]);
        (instances >= 2).then_some(())
    });
    let before = terms(0);
    cluster.move_slot(slot, 1);
    let other = until("they are in a term of the other node", || {
        let now = terms(1);
        (now.iter().all(|term| !before.contains(term))).then_some(now)
    });
    cluster.move_slot(slot, 0);
    until("the other node's terms have expired", || {
        let instances: Vec<String> = cluster
            .node(0)
            .run(&["ZRANGE", &key("instances"), "0", "-1"]);
        (!instances.iter().any(|term| other.contains(term))).then_some(())
    });
    alice.says("still here");
    assert_eq!(bob.hears(), "alice: still here");
    bob.says("and I");
    assert_eq!(alice.hears(), "bob: and I");
}

#[test]
fn a_slot_that_stays_open_keeps_no_other_room_from_being_swept() {
    let cluster = Cluster::of(2);
    let room = cluster.room_on(0);
    let mut names = (0..).map(|n| format!("other{n}"));
    let open = names.find(|name| cluster.owner_of(name) == 0);
    let open = open.expect("there is always another name");
    let brief = ["--redis", &cluster.url(), "--presence-ttl", "6"];
    let (mut here, there) = (Hubbub::with(&brief), Hubbub::with(&brief));
    let mut alice = there.join_room("alice", &room);
    let _carol = there.join_room("carol", &open);
    let _bob = here.join_room("bob", &room);
    assert_eq!(alice.hears(), "* bob joined");
    let slot = cluster.slot_of(&open);
    cluster.begin_move(slot, 1);
    cluster.move_keys(slot, 1);
    here.kill();
    assert_eq!(alice.hears(), "* bob left");
}

#[test]
fn what_is_wrong_with_a_cluster_is_one_sentence() {
    let cluster = Cluster::of(1);
    let alone = Redis::start();
    let node = cluster.node(0).port();
    let refuses = |urls: &[String], word: &str| {
        let urls = urls.iter().flat_map(|url| ["--redis", url]);
        let arguments: Vec<_> = ["--listen", "127.0.0.1:0"]
            .into_iter()
            .chain(urls)
            .collect();
        refuses(&arguments, &[word]);
    };
    refuses(&[format!("redis://127.0.0.1:{node}")], "redis+cluster://");
    refuses(
        &[format!("redis+cluster://127.0.0.1:{}", alone.port())],
        "not a node of a cluster",
    );
    let both = ["--redis", &cluster.url(), "--redis", &alone.url()];
    misuses(&both, &["alone"]);
    let nobody = crate::support::redis::free_port();
    refuses(&[format!("redis+cluster://127.0.0.1:{nobody}")], "refused");
    let fresh = Redis::start_with(&["--cluster-enabled", "yes"]);
    refuses(
        &[format!("redis+cluster://127.0.0.1:{}", fresh.port())],
        "the cluster is down",
    );
}
