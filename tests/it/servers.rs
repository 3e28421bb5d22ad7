//! The clusters and sentinels that other tests stand on do what their methods say.

use crate::support::cluster::Cluster;
use crate::support::commands::ask;
use crate::support::redis::Redis;
use crate::support::sentinel::Sentinels;
use crate::support::until;

/// Keeps something where a room keeps its log.
fn write(server: &Redis, room: &str) {
    let _: String = server.run(&["SET", &log(room), "kept"]);
}

fn read(server: &Redis, room: &str) -> Option<String> {
    server.run(&["GET", &log(room)])
}

fn log(room: &str) -> String {
    format!("hubbub:{{{room}}}:log")
}

fn kept() -> Option<String> {
    Some("kept".to_owned())
}

#[test]
fn each_node_of_a_cluster_owns_the_rooms_that_are_said_to_be_on_it() {
    let cluster = Cluster::of(3);
    for number in 0..3 {
        let room = cluster.room_on(number);
        write(cluster.node(number), &room);
        assert_eq!(read(cluster.node(number), &room), kept());
    }
    let port = cluster.node(2).port();
    let url = cluster.url();
    assert!(url.starts_with("redis+cluster://127.0.0.1:"), "{url}");
    assert!(url.ends_with(&format!(",127.0.0.1:{port}")), "{url}");
}

#[test]
fn a_slot_moves_with_its_keys() {
    let cluster = Cluster::of(2);
    let room = cluster.room_on(0);
    let slot = cluster.slot_of(&room);
    write(cluster.node(0), &room);
    cluster.begin_move(slot, 1);
    cluster.move_keys(slot, 1);
    assert_eq!(cluster.owner_of(&room), 0, "the keys alone have moved");
    let asked = ask::<String>(cluster.node(0).port(), &["GET", &log(&room)]);
    let error = asked.expect_err("the key is at the other node");
    assert_eq!(error.code(), Some("ASK"), "{error}");
    cluster.end_move(slot, 1);
    assert_eq!(cluster.owner_of(&room), 1);
    assert_eq!(read(cluster.node(1), &room), kept());
    cluster.move_slot(slot, 0);
    assert_eq!(read(cluster.node(0), &room), kept());
}

#[test]
fn a_planned_failover_of_a_cluster_makes_the_replica_the_master() {
    let cluster = Cluster::with_replicas(2);
    let room = cluster.room_on(1);
    write(cluster.node(1), &room);
    let replica = cluster.replica_of(1);
    cluster.fail_over(replica);
    assert_eq!(cluster.owner_of(&room), replica);
    assert_eq!(cluster.replica_of(replica), 1);
    assert_eq!(read(cluster.node(replica), &room), kept());
}

#[test]
fn a_killed_master_of_a_cluster_comes_back_as_a_replica() {
    let mut cluster = Cluster::with_replicas(3);
    let room = cluster.room_on(0);
    let replica = cluster.replica_of(0);
    cluster.node_mut(0).kill();
    cluster.wait_until_master(replica);
    assert_eq!(cluster.owner_of(&room), replica);
    cluster.node_mut(0).start_again();
    cluster.wait_until_whole();
    assert_eq!(cluster.replica_of(replica), 0);
}

#[test]
fn a_master_joins_a_cluster_and_another_one_leaves_it() {
    let mut cluster = Cluster::of(2);
    let room = cluster.room_on(0);
    write(cluster.node(0), &room);
    let added = cluster.add_master();
    cluster.move_slot(cluster.slot_of(&room), added);
    assert_eq!(cluster.owner_of(&room), added);
    cluster.remove(0);
    // The numbers behind the removed one are smaller by one.
    assert_eq!(cluster.owner_of(&room), added - 1);
    assert_eq!(read(cluster.node(added - 1), &room), kept());
    cluster.remove(added - 1);
    assert_eq!(read(cluster.node(0), &room), kept());
}

#[test]
fn sentinels_promote_the_replica_of_a_killed_master() {
    let mut sentinels = Sentinels::start();
    write(sentinels.master(), "lobby");
    until("the replica has it", || {
        read(sentinels.other(), "lobby").map(drop)
    });
    let old = sentinels.master().port();
    sentinels.kill_master();
    sentinels.wait_until_named_other_than(old);
    assert_eq!(read(sentinels.master(), "lobby"), kept());
    sentinels.restart_killed();
    assert_eq!(sentinels.other().port(), old);
    sentinels.wait_until_whole();
    assert_eq!(read(sentinels.other(), "lobby"), kept());
}

#[test]
fn sentinels_fail_over_as_planned_while_one_of_them_is_frozen() {
    let mut sentinels = Sentinels::start();
    let (old, new) = (sentinels.master().port(), sentinels.other().port());
    sentinels.sentinel(0).freeze();
    sentinels.fail_over();
    assert_eq!(sentinels.master().port(), new);
    sentinels.sentinel(0).thaw();
    sentinels.sentinel_mut(1).kill();
    sentinels.sentinel_mut(1).start_again();
    sentinels.wait_until_whole();
    assert_eq!(sentinels.other().port(), old);
    assert!(sentinels.url().ends_with("/mymaster"));
}
