//! Rooms that come and go: those that somebody wants to hear, and in a cluster those whose slot moved.

use std::time::Instant;

use super::{LINGER, Listener};
use crate::backplane::redis::chain::{GoesOn, Heard};
use crate::backplane::redis::placement::Share;
use crate::hub::{Delivery, Pace};
use crate::message::MessageId;
use crate::threads::lock;

impl Listener {
    /// Hears a room from now on.
    pub(super) fn take(&mut self, heard: Heard) {
        let channel = self.to.keys.channel(&heard.room);
        if self.unreadable.remove(&channel).is_some() {
            self.behind.insert(channel.clone());
        }
        if self.rooms.contains_key(&channel) {
            self.merge(channel, heard);
        } else {
            self.wanted.push(channel.clone());
            self.rooms.insert(channel, heard);
        }
    }

    /// Takes what is known of a room besides: its chain at the node where it was before, and more sessions that wait.
    fn merge(&mut self, channel: String, heard: Heard) {
        let Some(known) = self.rooms.get_mut(&channel) else {
            return;
        };
        let now = Instant::now();
        let goes_on = known.go_on_from(&heard);
        known.waiting.retain(|(until, _)| *until > now);
        known.waiting.extend(heard.waiting);
        let mut is_heard = lock(&self.subscription.heard).contains(&known.room);
        match goes_on {
            GoesOn::AsItWas => {}
            GoesOn::Behind => {
                lock(&self.subscription.heard).remove(&known.room);
                if std::mem::take(&mut is_heard) {
                    self.behind.insert(channel);
                }
            }
            GoesOn::WithGap(after) => {
                // All have messages from behind the gap.
                let until = Some(MessageId::GREATEST);
                let gap = Delivery::Gap {
                    after,
                    until,
                    before: None,
                };
                self.hub.deliver(&known.room, gap, Pace::Busy);
            }
        }
        if is_heard {
            known.tell_waiting();
        }
    }

    /// From now on these rooms are on this node. All others are given away.
    pub(super) fn take_share(&mut self, share: Share) {
        self.share = share;
        let rooms = self.rooms.iter();
        let gone = rooms.filter(|(_, heard)| !self.share.holds(&heard.room));
        let gone: Vec<_> = gone.map(|(channel, _)| channel.clone()).collect();
        self.give_away(&gone);
    }

    /// Hears rooms that were heard on another node.
    pub(super) fn adopt(&mut self, rooms: Vec<Heard>) {
        let (ours, others): (Vec<_>, Vec<_>) = rooms
            .into_iter()
            .partition(|heard| self.share.holds(&heard.room));
        // The map has changed since.
        self.to.news.unassigned(&self.to.name, others);
        for heard in ours {
            // Nobody else looks whether it still has a member.
            let look = (Instant::now() + LINGER, heard.room.clone());
            self.forgetting.push(look);
            self.take(heard);
        }
    }

    /// Gives rooms to the listeners of other nodes. Each reads the log from where it was left here.
    pub(super) fn give_away(&mut self, channels: &[String]) {
        let mut unassigned = Vec::new();
        for channel in channels {
            if let Some(mut heard) = self.forget(channel) {
                heard.asked = None;
                heard.chain.cut();
                unassigned.push(heard);
            }
        }
        self.to.news.unassigned(&self.to.name, unassigned);
    }

    /// Takes a room out.
    pub(super) fn forget(&mut self, channel: &str) -> Option<Heard> {
        let heard = self.rooms.remove(channel)?;
        lock(&self.subscription.heard).remove(&heard.room);
        self.behind.remove(channel);
        self.unreadable.remove(channel);
        self.unconfirmed -= usize::from(heard.asked.is_some());
        Some(heard)
    }
}
