//! How a [`Chat`] handles the events of the client.

use std::time::{Instant, SystemTime};

use super::room_lines::room_lines;
use super::{ANSWERED_WITHIN, Chat, Connectivity, Exit};
use crate::client::ClientEvent;
use crate::date::unix_millis;
use crate::message::{Message, RoomName};
use crate::protocol::text::{self, Line};
use crate::protocol::{Event, Ref};

impl Chat {
    pub(super) fn handle_client_event(&mut self, event: ClientEvent) -> Result<(), Exit> {
        match event {
            ClientEvent::Connected | ClientEvent::Postponed(_) => Ok(()),
            ClientEvent::Disconnected { why, .. } if self.connectivity == Connectivity::Joining => {
                Err(Exit::Failed(why))
            }
            ClientEvent::Disconnected { why, .. } => self.disconnected(&why),
            ClientEvent::Refused(why) => Err(Exit::Failed(why)),
            ClientEvent::Server(event) => match event.room() {
                Some(room) if *room != self.room => self.handle_other_room(event),
                Some(_) | None => self.handle_event(event),
            },
        }
    }

    fn disconnected(&mut self, why: &str) -> Result<(), Exit> {
        // The client does not repeat these commands, and the notice below tells the user.
        self.awaited = 0;
        self.overdue = None;
        // Only the first failure prints a line; afterwards the prompt shows the state.
        if self.connectivity != Connectivity::Away {
            self.connectivity = Connectivity::Away;
            self.screen.aside(format!("{why}; trying again"))?;
            self.screen.set_prompt(&format!("{} (away)> ", self.room))?;
        }
        Ok(())
    }

    fn handle_event(&mut self, mut event: Event) -> Result<(), Exit> {
        match &mut event {
            Event::Room { room, messages, .. } => {
                if self.connectivity == Connectivity::Away {
                    self.screen.aside("back again".to_owned())?;
                    self.screen.set_prompt(&format!("{room}> "))?;
                }
                self.connectivity = Connectivity::Online;
                messages.retain(|message| !self.is_echo(message));
            }
            Event::Message { message, .. } if self.is_echo(message) => return Ok(()),
            Event::Sent {
                reference: Some(reference),
                id,
                ..
            } => {
                self.answered(reference);
                self.echoes.stored(reference, *id);
                return Ok(());
            }
            Event::Error {
                reference: Some(reference),
                ..
            } => {
                self.answered(reference);
                self.echoes.refused(reference);
                if !self.screen.is_terminal() {
                    self.failed += 1;
                }
            }
            // The server does not let us into the room, perhaps since the connection was lost.
            Event::Error { message, .. } if self.connectivity != Connectivity::Online => {
                return Err(Exit::Failed(std::mem::take(message)));
            }
            // There is no other room to talk in.
            Event::Parted { reason, .. } if reason.is_some() => {
                return Err(Exit::Failed(reason.take().unwrap_or_default()));
            }
            Event::Members { .. } | Event::History { .. } | Event::Error { .. } => {
                self.awaited = self.awaited.saturating_sub(1);
            }
            Event::Rooms { rooms, more } => {
                self.awaited = self.awaited.saturating_sub(1);
                let now = unix_millis(SystemTime::now());
                return Ok(self.screen.print(&room_lines(rooms, *more, now))?);
            }
            _ => {}
        }
        self.print(&event)
    }

    /// Prints an event. On a terminal, past messages have their times.
    fn print(&mut self, event: &Event) -> Result<(), Exit> {
        let is_past = matches!(event, Event::Room { .. } | Event::History { .. });
        let with_times = self.times || (is_past && self.screen.is_terminal());
        let mut lines = Vec::new();
        for mut line in text::lines(event) {
            if let Line::Said { at, .. } = &mut line {
                *at = at.filter(|_| with_times);
                let day = at.and_then(|at| self.calendar.turn_to(at));
                lines.extend(day.map(Line::Notice));
            }
            lines.push(line);
        }
        Ok(self.screen.print(&lines)?)
    }

    fn answered(&mut self, reference: &Ref) {
        self.unanswered.remove(reference);
        let more = !self.unanswered.is_empty();
        self.overdue = more.then(|| Instant::now() + ANSWERED_WITHIN);
    }

    /// Handles an event of the room that the user is about to enter, or of the one just left.
    fn handle_other_room(&mut self, event: Event) -> Result<(), Exit> {
        let is_entering = event.room() == self.entering.as_ref();
        match event {
            Event::Room { ref room, .. } if is_entering => {
                self.enter(room.clone())?;
                self.handle_event(event)
            }
            Event::Error {
                reference: None,
                message,
                ..
            } if is_entering => self.stay(message),
            // The lines sent before the change of rooms are answered here.
            Event::Sent { .. } | Event::Error { .. } => self.handle_event(event),
            _ => Ok(()),
        }
    }

    fn enter(&mut self, room: RoomName) -> Result<(), Exit> {
        self.entering = None;
        self.echoes.clear();
        let left = std::mem::replace(&mut self.room, room);
        self.client.leave(left);
        self.screen.set_prompt(&format!("{}> ", self.room))?;
        let notice = format!("this is {}", self.room);
        Ok(self.screen.print(&[Line::Notice(notice)])?)
    }

    /// The server does not let us into the other room. The lines typed for it must not reach this one.
    fn stay(&mut self, why: String) -> Result<(), Exit> {
        self.entering = None;
        if !self.screen.is_terminal() {
            return Err(Exit::Failed(why));
        }
        let mut lines = vec![Line::Error(why)];
        if !self.typed.is_empty() {
            let lost = self.typed.len();
            lines.push(Line::Error(format!(
                "{lost} lines typed since were not sent"
            )));
            self.typed.clear();
        }
        Ok(self.screen.print(&lines)?)
    }

    /// Whether this message is a line of this screen that the server sends back.
    fn is_echo(&mut self, message: &Message) -> bool {
        self.echoes.take(message, message.from == self.name)
    }
}
