//! The token of one connection, and how it is renewed: its file is read again once the server says that it expires
//! soon.

use std::time::{Duration, Instant};

use super::ClientToken;
use crate::protocol::{Command, ErrorCode, Event};

/// The pause between two looks for a fresh token.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The renewal of one connection's token.
pub(super) struct Renewal<'a> {
    source: Option<&'a ClientToken>,
    /// The token that the server has.
    used: Option<String>,
    look_at: Option<Instant>,
    /// Whether the server still has to answer.
    is_asked: bool,
}

impl<'a> Renewal<'a> {
    pub(super) fn new(source: Option<&'a ClientToken>, used: Option<String>) -> Self {
        Self {
            source,
            used,
            look_at: None,
            is_asked: false,
        }
    }

    /// Takes an event that concerns nothing else. False for any other, which is the user's.
    pub(super) fn takes(&mut self, event: &Event, now: Instant) -> bool {
        match event {
            Event::Expiring { .. } if matches!(self.source, Some(ClientToken::File(_))) => {
                self.look_at = Some(now);
                true
            }
            Event::Renewed { .. } => {
                (self.look_at, self.is_asked) = (None, false);
                true
            }
            Event::Error {
                code: ErrorCode::Unauthorized | ErrorCode::Forbidden,
                room: None,
                reference: None,
                ..
            } => std::mem::take(&mut self.is_asked),
            _ => false,
        }
    }

    /// When a fresh token is looked for next.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Looks for a fresh token, if it is time. Returns the command that hands it to the server.
    pub(super) fn look(&mut self, now: Instant) -> Option<Command> {
        if self.look_at.is_none_or(|at| now < at) {
            return None;
        }
        self.look_at = Some(now + LOOK_EVERY);
        let token = self.source?.read().ok()?;
        if self.used.as_ref() == Some(&token) {
            return None;
        }
        self.used = Some(token.clone());
        self.is_asked = true;
        Some(Command::Renew { token })
    }
}
