//! What must always be true, whatever the order.

mod lists;
mod connections;
mod rooms;
mod handover;
mod disk;
mod commands;

use crate::permuter::Test;

pub const ALL: [Test; 15] = [
    (
        "no answer is older than its question",
        100,
        lists::no_answer_is_older_than_its_question,
    ),
    (
        "frames keep their order, and the last one is last",
        100,
        connections::frames_keep_their_order_and_the_last_one_is_last,
    ),
    (
        "a writer that rests misses no frame",
        100,
        connections::a_writer_that_rests_misses_no_frame,
    ),
    (
        "a reader that waits for space is woken",
        100,
        connections::a_reader_that_waits_for_space_is_woken,
    ),
    (
        "a reader that waits for time is woken by the end",
        100,
        connections::a_reader_that_waits_for_time_is_woken_by_the_end,
    ),
    (
        "a connection that is broken or has no writer ends",
        100,
        connections::a_connection_that_is_broken_or_has_no_writer_ends,
    ),
    (
        "members of a room that grows miss nothing",
        100,
        rooms::members_of_a_room_that_grows_miss_nothing,
    ),
    (
        "who enters as the last one leaves is in the room",
        100,
        rooms::who_enters_as_the_last_one_leaves_is_in_the_room,
    ),
    (
        "who enters while a room is forgotten hears it",
        100,
        rooms::who_enters_while_a_room_is_forgotten_hears_it,
    ),
    (
        "a room that many enter and leave is heard and forgotten",
        50,
        rooms::a_room_that_many_enter_and_leave_is_heard_and_forgotten,
    ),
    (
        "a worker with too much to do makes only the deliverer wait",
        1,
        rooms::a_worker_with_too_much_to_do_makes_only_the_deliverer_wait,
    ),
    (
        "what is acknowledged is on disk and was told",
        60,
        disk::what_is_acknowledged_is_on_disk_and_was_told,
    ),
    (
        "each command is answered once and truly",
        100,
        commands::each_command_is_answered_once_and_truly,
    ),
    (
        "a room that moves is heard on",
        50,
        handover::a_room_that_moves_is_heard_on,
    ),
    (
        "a room that is left while it moves is forgotten",
        100,
        handover::a_room_that_is_left_while_it_moves_is_forgotten,
    ),
];
