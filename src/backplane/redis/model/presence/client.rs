//! A connection, what it was told of the others, and whether that was true.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::LazyLock;

use crate::message::{MemberList, UserName};

/// The users of the model. No two look alike.
pub(super) const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];

static NAMES: LazyLock<[UserName; 4]> =
    LazyLock::new(|| USERS.map(|name| name.parse().expect("a name")));

pub(super) fn name_of(user: &str) -> &'static UserName {
    let found = NAMES.iter().find(|name| name.as_str() == user);
    found.expect("one of the users")
}

pub(super) fn user_of(name: &str) -> &'static str {
    let found = USERS.iter().find(|user| **user == name);
    found.expect("one of the users")
}

/// A promise that was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BrokenPresence {
    /// A user joined twice, or left twice.
    Repeated(&'static str),
    /// A user was told to come or go more often than they did by the shared state.
    ForNothing(&'static str),
    /// A user was announced to have left who is connected to an instance that can be reached.
    LeftWhileHere(&'static str),
    /// In the end the shared state does not show who is here.
    WrongList,
    /// In the end somebody was told otherwise.
    WronglyTold(usize),
    /// In the end the shared state knows an instance that is gone.
    LeftBehind,
}

impl fmt::Display for BrokenPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repeated(user) => write!(f, "{user} joined twice or left twice"),
            Self::ForNothing(user) => write!(f, "{user} was told to come or go for nothing"),
            Self::LeftWhileHere(user) => write!(f, "{user} was announced to leave, and is here"),
            Self::WrongList => write!(f, "in the end a list does not show who is here"),
            Self::WronglyTold(client) => write!(f, "in the end client {client} was told otherwise"),
            Self::LeftBehind => write!(f, "in the end an instance is known that is gone"),
        }
    }
}

/// Where a connection is on its way into the room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum VisitPhase {
    Out,
    /// The list of members is asked for.
    Asked,
    /// It was read.
    Read(MemberListView),
    In,
    /// It broke off, in this second.
    Broken(u64),
}

/// A list of members, as the hub is given it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct MemberListView {
    pub(super) users: Vec<&'static str>,
    pub(super) revision: (u64, u64),
}

impl MemberListView {
    pub(super) fn list(&self) -> MemberList {
        let mut users: Vec<_> = self
            .users
            .iter()
            .map(|user| name_of(user).clone())
            .collect();
        users.sort_unstable();
        MemberList {
            users: users.into(),
            revision: crate::message::Revision {
                began: self.revision.0,
                number: self.revision.1,
            },
        }
    }
}

/// What a connection was told of one other user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Told {
    is_here: bool,
    /// How often the user came, and went, by the shared state, since the list was read, and the connection was not told.
    came: u8,
    went: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ModelConnection {
    pub(super) user: &'static str,
    pub(super) instance: usize,
    pub(super) phase: VisitPhase,
    /// How often it may still enter, leave, and break off.
    pub(super) enters: u8,
    pub(super) leaves: u8,
    pub(super) breaks: u8,
    pub(super) told: BTreeMap<&'static str, Told>,
}

impl ModelConnection {
    pub(super) fn new(user: &'static str, instance: usize) -> Self {
        Self {
            user,
            instance,
            phase: VisitPhase::Out,
            enters: 1,
            leaves: 0,
            breaks: 0,
            told: BTreeMap::new(),
        }
    }

    /// The list of members is read for it.
    pub(super) fn reads(&mut self, list: MemberListView) {
        self.told.clear();
        for user in &list.users {
            self.told.entry(user).or_default().is_here = true;
        }
        self.phase = VisitPhase::Read(list);
    }

    /// A user came, or went, by the shared state.
    pub(super) fn sees(&mut self, user: &'static str, came: bool) {
        let told = self.told.entry(user).or_default();
        let count = if came { &mut told.came } else { &mut told.went };
        *count += 1;
    }

    /// It is told that a user joined or left. If its instance missed a notice of this user, that may be said twice.
    pub(super) fn hears(
        &mut self,
        user: &'static str,
        joined: bool,
        missed: &BTreeSet<&'static str>,
    ) -> Result<(), BrokenPresence> {
        let told = self.told.entry(user).or_default();
        if missed.contains(user) {
            told.is_here = joined;
            return Ok(());
        }
        if std::mem::replace(&mut told.is_here, joined) == joined {
            return Err(BrokenPresence::Repeated(user));
        }
        let count = if joined {
            &mut told.came
        } else {
            &mut told.went
        };
        *count = count
            .checked_sub(1)
            .ok_or(BrokenPresence::ForNothing(user))?;
        Ok(())
    }

    /// It is out.
    pub(super) fn ends(&mut self, phase: VisitPhase) {
        self.phase = phase;
        self.told.clear();
    }

    pub(super) fn is_member(&self) -> bool {
        match self.phase {
            VisitPhase::Asked | VisitPhase::Read(_) | VisitPhase::In => true,
            VisitPhase::Out | VisitPhase::Broken(_) => false,
        }
    }

    /// Whether a list of members was read for it.
    pub(super) fn has_list(&self) -> bool {
        match self.phase {
            VisitPhase::Read(_) | VisitPhase::In => true,
            VisitPhase::Out | VisitPhase::Asked | VisitPhase::Broken(_) => false,
        }
    }

    /// Whether it takes exactly these users to be here.
    pub(super) fn knows(&self, here: &[&'static str]) -> bool {
        let others = USERS.iter().filter(|user| **user != self.user);
        let takes = |user: &str| self.told.get(user).is_some_and(|told| told.is_here);
        others
            .into_iter()
            .all(|user| takes(user) == here.contains(user))
    }
}
