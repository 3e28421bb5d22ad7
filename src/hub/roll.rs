//! The roll of one room: the users that are present, as its members were told, and the joins and leaves
//! that are still to be told.
//!
//! Changes in quick succession are told together, and only the last one of each user: a crowd that comes
//! at once costs one push for each member, and a user who joins and leaves within the interval is not
//! announced at all. Each change says to whom it is news, by the revision of the list that a member was
//! shown. Time is an argument; nothing here waits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::lookalikes::Lookalikes;
use crate::message::{MemberList, PresenceChange, Revision, UserName};
use crate::protocol::ANNOUNCED_MEMBERS;

/// A room announces joins and leaves at most once in this time.
pub(super) const NOTICE_INTERVAL: Duration = Duration::from_millis(100);

/// A join or leave to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) user: UserName,
    pub(super) joined: bool,
    /// Another user here whose name looks like the name of the user that joined.
    pub(super) looks_like: Option<UserName>,
    /// The members that need it: those whose list has a revision in this range.
    pub(super) listed: Range<Revision>,
}

/// The last change of a user within the interval.
#[cfg_attr(test, derive(Clone))]
struct Pending {
    change: PresenceChange,
    /// The revision of the user's first change within the interval.
    first: Revision,
    /// Its place in the order of arrival.
    place: usize,
}

#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Roll {
    /// The users that are present, each with the beginning of the history ([`Revision::began`]) in which
    /// they were last announced. `None` until a first member has a list.
    present: Option<BTreeMap<UserName, u64>>,
    /// The names of `present`.
    lookalikes: Lookalikes,
    /// The last change that `present` shows.
    revision: Revision,
    /// Up to here every change was heard, or made up for by a list. Behind it one is missing.
    whole: Revision,
    /// Each user's last change until there is a first list, which may be older.
    early: BTreeMap<UserName, PresenceChange>,
    /// Users that differed from the shared state at the last reconciliation. They are announced if they
    /// still differ at the next.
    differed: BTreeSet<UserName>,
    pending: HashMap<UserName, Pending>,
    arrived: usize,
    /// Until then, a change that arrives has to wait.
    quiet_until: Option<Instant>,
}

impl Roll {
    /// A member is shown `list`.
    pub(super) fn show(&mut self, list: &MemberList) {
        let is_first = self.present.is_none();
        // In a crowded room no notice is announced, so a newer list replaces `present` even before its
        // notices have arrived.
        let is_crowd = list.users.len() > ANNOUNCED_MEMBERS && list.revision > self.revision;
        if is_first || is_crowd {
            let began = list.revision.began;
            let users = list.users.iter();
            let present = users.map(|user| (user.clone(), began)).collect();
            let before = self.present.replace(present).unwrap_or_default();
            self.replace_names(before.keys(), &list.users);
            self.revision = list.revision;
            self.whole = self.whole.max(list.revision);
            for change in std::mem::take(&mut self.early).into_values() {
                if change.revision > list.revision {
                    self.revision = self.revision.max(change.revision);
                    self.apply(&change);
                }
            }
        }
    }

    /// Takes in a change. Returns it if it may be told at once; otherwise it waits until [`Roll::due`].
    pub(super) fn hear(&mut self, change: PresenceChange, now: Instant) -> Option<News> {
        // Its notice was on its way.
        self.differed.remove(&change.user);
        let began = change.revision.began;
        if began > self.whole.began {
            self.whole = Revision { began, number: 0 };
        }
        if change.revision == self.whole.next() {
            self.whole = change.revision;
        }
        if self.pending.is_empty() && self.quiet_until.is_none_or(|until| until <= now) {
            let first = change.revision;
            return self.take_in(change, first);
        }
        self.arrived += 1;
        let waiting = self.pending.get(&change.user);
        let pending = Pending {
            first: waiting.map_or(change.revision, |waiting| waiting.first),
            place: self.arrived,
            change,
        };
        self.pending.insert(pending.change.user.clone(), pending);
        None
    }

    /// The time at which the pending changes have to be told. `None` if there are none.
    pub(super) fn due(&self) -> Option<Instant> {
        self.quiet_until.filter(|_| !self.pending.is_empty())
    }

    /// Begins an interval: members were told just now.
    pub(super) fn told(&mut self, now: Instant) {
        self.quiet_until = Some(now + NOTICE_INTERVAL);
    }

    /// Takes out all pending changes, due or not, in the order of their arrival.
    pub(super) fn take_pending(&mut self) -> Vec<News> {
        let pending = std::mem::take(&mut self.pending);
        let mut pending: Vec<_> = pending.into_values().collect();
        pending.sort_unstable_by_key(|pending| pending.place);
        let news = pending
            .into_iter()
            .filter_map(|pending| self.take_in(pending.change, pending.first));
        news.collect()
    }

    /// Compares the room with the shared state, and announces the users that differ for the second time.
    /// At the first time, their notice may just be on its way.
    pub(super) fn reconcile(&mut self, list: &MemberList) -> Vec<News> {
        let mut news = self.take_pending();
        let Some(present) = &self.present else {
            return news;
        };
        let is_listed = |user: &UserName| list.users.binary_search(user).is_ok();
        let gone = present.keys().filter(|user| !is_listed(user));
        let missed = list.users.iter().filter(|user| !present.contains_key(user));
        let differing: BTreeSet<UserName> = gone.chain(missed).cloned().collect();
        let before = std::mem::take(&mut self.differed);
        let (again, first) = differing
            .into_iter()
            .partition::<BTreeSet<_>, _>(|user| before.contains(user));
        self.differed = first;
        self.whole = self.whole.max(list.revision);
        // Also for a member that was shown the same revision.
        let revision = list.revision.next();
        for user in again {
            let joined = is_listed(&user);
            let change = PresenceChange {
                user,
                joined,
                revision,
            };
            self.apply(&change);
            news.extend(self.news(change, Revision::ZERO));
        }
        news
    }

    /// Whether the room has too many users to announce joins, leaves and typing.
    pub(super) fn is_crowded(&self) -> bool {
        let present = self.present.as_ref();
        present.is_some_and(|present| present.len() > ANNOUNCED_MEMBERS)
    }

    /// Another user here whose name looks like this one. A user that is not here has one as well: the
    /// author of a message that came by HTTP.
    pub(super) fn looks_like(&self, name: &UserName) -> Option<UserName> {
        let present = self.present.as_ref();
        let is_here = present.is_some_and(|present| present.contains_key(name));
        if is_here && !self.lookalikes.any() {
            // As nearly always.
            return None;
        }
        self.lookalikes.of(name).cloned()
    }

    /// The groups of users here whose names look alike.
    pub(super) fn alike(&self) -> Vec<Vec<UserName>> {
        self.lookalikes.groups()
    }

    /// Shows `list` to a member. Returns the groups of names that look alike in it or here: a list may be ahead of
    /// the notices, and the member is not told by them what it was shown already.
    pub(super) fn show_alike(&mut self, list: &MemberList) -> Vec<Vec<UserName>> {
        self.show(list);
        let present = self.present.get_or_insert_default();
        let is_ahead = list.revision > self.revision;
        let users = list.users.iter().filter(|_| is_ahead);
        let ahead: Vec<_> = users.filter(|user| !present.contains_key(user)).collect();
        ahead.iter().for_each(|name| self.lookalikes.add(name));
        let groups = self.alike();
        ahead.iter().for_each(|name| self.lookalikes.remove(name));
        groups
    }

    /// Applies a change if it is newer than `present`. `first` is the revision of the first change that
    /// it stands for.
    fn take_in(&mut self, change: PresenceChange, first: Revision) -> Option<News> {
        let listed_from = if self.present.is_none() {
            self.early.insert(change.user.clone(), change.clone());
            Revision::ZERO
        } else if change.revision <= self.revision {
            // The list of the room is newer, but other members may have an older one.
            Revision::ZERO
        } else {
            self.revision = change.revision;
            match self.apply(&change) {
                None => Revision::ZERO,
                // The room knows it. It is news to members that were shown a user between two changes
                // that cancel out; to those whose list shows a change that the room missed, since a
                // notice was lost; and to those that entered since Redis lost its data.
                Some(known_since) => first.min(self.whole.next()).min(known_since),
            }
        };
        self.news(change, listed_from)
    }

    /// Brings `lookalikes` from one list of names to another. Both are in order, so a crowd costs one walk.
    fn replace_names<'a>(
        &mut self,
        before: impl Iterator<Item = &'a UserName>,
        after: &[UserName],
    ) {
        let mut before = before.peekable();
        for name in after {
            while let Some(gone) = before.next_if(|one| *one < name) {
                self.lookalikes.remove(gone);
            }
            if before.next_if_eq(&name).is_none() {
                self.lookalikes.add(name);
            }
        }
        before.for_each(|gone| self.lookalikes.remove(gone));
    }

    /// Applies a change. If `present` shows it already, returns the beginning of a later history, in which
    /// the shared state has to be told again, or else the change's own revision.
    fn apply(&mut self, change: &PresenceChange) -> Option<Revision> {
        let present = self.present.get_or_insert_default();
        let began = change.revision.began;
        if !change.joined {
            self.lookalikes.remove(&change.user);
            let before = present.remove(&change.user);
            return before.is_none().then_some(change.revision);
        }
        self.lookalikes.add(&change.user);
        let before = present.insert(change.user.clone(), began)?;
        match before < began {
            true => Some(Revision { began, number: 0 }),
            false => Some(change.revision),
        }
    }

    /// Tells one state from another, for a model. A pause that is over at `now` is as none.
    #[cfg(test)]
    pub(super) fn hash_at(&self, now: Instant, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let change = |change: &PresenceChange| (change.joined, change.revision);
        let early: Vec<_> = self
            .early
            .iter()
            .map(|(user, one)| (user, change(one)))
            .collect();
        let pending = self.pending.values();
        let mut pending: Vec<_> = pending
            .map(|one| (one.place, one.first, &one.change.user, change(&one.change)))
            .collect();
        pending.sort_unstable();
        for (order, one) in pending.iter_mut().enumerate() {
            one.0 = order;
        }
        (&self.present, self.revision, self.whole, early).hash(hasher);
        (
            &self.differed,
            pending,
            self.quiet_until.filter(|until| *until > now),
        )
            .hash(hasher);
    }

    fn news(&self, change: PresenceChange, listed_from: Revision) -> Option<News> {
        let listed = listed_from..change.revision;
        (!self.is_crowded() && !listed.is_empty()).then(|| News {
            looks_like: change
                .joined
                .then(|| self.looks_like(&change.user))
                .flatten(),
            user: change.user,
            joined: change.joined,
            listed,
        })
    }
}
