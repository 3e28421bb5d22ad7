//! The subscription: what the subscriber's handle and its thread share.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::chain::Heard;
use super::placement::Share;
use crate::message::{MemberList, RoomName};

/// The time that Redis has to confirm a subscription. A refused one is never answered: the `redis` crate
/// takes the refusal for a late reply and skips it. Below
/// [`ANSWER_WITHIN`](crate::backplane::ANSWER_WITHIN).
pub(super) const CONFIRM_WITHIN: Duration = Duration::from_secs(2);

/// A task that the handle gives to the thread.
pub(super) enum Task {
    /// Hear this room; say so on the channel once it is heard.
    Hear(RoomName, Sender<()>),
    /// This room may have lost its last member.
    MayForget(RoomName),
    /// By the shared state, these users are present in the room.
    Present(RoomName, MemberList),
    /// From now on these rooms are on this node of the cluster.
    Share(Share),
    /// Hear these rooms, which were heard on another node.
    Adopt(Vec<Heard>),
    Stop,
}

/// The state of the subscription that other threads may read.
#[derive(Default)]
pub(super) struct Subscription {
    /// The rooms that are heard now. The thread takes a room out before it looks whether the hub still
    /// hosts it. A session enters the hub before it looks here. So one of the two always sees the other.
    pub(super) heard: Mutex<HashSet<RoomName>>,
    pub(super) alive: AtomicBool,
    /// The time since which some room's log cannot be read; `None` if all can.
    pub(super) behind_since: Mutex<Option<Instant>>,
    /// When the subscription was lost that has not been made again.
    pub(super) lost_at: Mutex<Option<Instant>>,
    /// The number of times that the subscription was made.
    pub(super) epoch: AtomicU64,
    /// The number of times that it was lost.
    pub(super) cuts: AtomicU64,
}
