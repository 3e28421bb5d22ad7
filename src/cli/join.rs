//! `hubbub join`: a conversation, at a terminal or in a pipe, in one room at a time.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use clap::Args;
use crossbeam_channel::{at, never, select};

use super::echoes::Echoes;
use super::screen::{Asked, BadLine, Screen, When};
use super::talk::{Printed, Stop, client_ended, outcome, start};
use super::typed_line::{self, LineRequest};
use super::{ExitCode, RoomName, UserName, Where};
use crate::client::{Client, ClientEvent};
use crate::message::Message;
use crate::protocol::text::{self, Line};
use crate::protocol::{Event, Ref};

/// After so long without an answer, whoever typed a line is told that it is not sent yet. The server
/// answers sooner, if Redis does.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// While so much of what a pipe brought is not answered, no further line is read from it: a program
/// writes faster than a server takes messages.
const MOST_UNANSWERED: usize = 16;

/// The end of `hubbub join --help`.
pub(super) const ABOUT: &str = "\
On a terminal there is a prompt; /help tells what can be typed at it. Ctrl-D leaves, Ctrl-C too.

In a pipe the lines of stdin are said and what is heard is printed. The end of the input is the end,
once every line is stored, and the exit code is 0 if all of them were.";

#[derive(Args)]
pub(super) struct Options {
    /// Your name
    name: UserName,
    #[command(flatten)]
    at: Where,
    /// How many past messages to print first
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    history: usize,
    /// Whether to use colours; auto means on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    color: When,
}

pub(super) fn run(options: Options) -> Result<ExitCode, String> {
    outcome(Conversation::begin(options).and_then(Conversation::run))
}

fn not_sent(lines: usize) -> String {
    match lines {
        1 => "a line was not sent".to_owned(),
        lines => format!("{lines} lines were not sent"),
    }
}

/// A conversation in one room, and perhaps on the way to another.
struct Conversation {
    /// First, so that the terminal is given back before the client's goodbye takes its time.
    screen: Screen,
    client: Client,
    name: UserName,
    room: RoomName,
    /// The room that is being entered. Until it is, no line is taken: what is typed behind `/join`
    /// is meant for the new room.
    entering: Option<RoomName>,
    /// Lines that were typed and not taken yet.
    typed: VecDeque<Result<String, BadLine>>,
    reading: bool,
    entered: bool,
    /// Whether the connection is lost, and that was told.
    away: bool,
    /// The sends that are not answered yet.
    unanswered: HashSet<Ref>,
    /// When that is told, for as long as the server answers none of it.
    overdue: Option<Instant>,
    /// The sends that did not come back as messages yet.
    echoes: Echoes,
    /// The number of answers to commands that are due.
    awaited: usize,
    refused: usize,
}

impl Conversation {
    fn begin(options: Options) -> Result<Self, Stop> {
        let mut screen = Screen::open(options.color)
            .map_err(|error| Stop::Failed(format!("cannot use the terminal: {error}")))?;
        let client = start(&options.at, &options.name)?;
        let history = (options.history > 0).then_some(options.history);
        let room = options.at.room;
        client.join(room.clone(), None, history);
        screen.set_prompt(&format!("{room}> "))?;
        Ok(Self {
            screen,
            client,
            name: options.name,
            room,
            entering: None,
            typed: VecDeque::new(),
            reading: true,
            entered: false,
            away: false,
            unanswered: HashSet::new(),
            overdue: None,
            echoes: Echoes::default(),
            awaited: 0,
            refused: 0,
        })
    }

    fn run(mut self) -> Printed {
        while self.goes_on() {
            // A pipe's lines are taken one by one; keys at all times, since they may interrupt.
            let reads = self.screen.is_terminal() || self.wants_a_line();
            let input = if reads {
                self.screen.input().clone()
            } else {
                never()
            };
            select! {
                recv(input) -> input => {
                    let Ok(input) = input else { return Err(Stop::Enough) };
                    let mut asked = self.screen.digest(input)?;
                    while let Some(ask) = asked {
                        self.take_request(ask)?;
                        self.take_typed()?;
                        asked = self.screen.more()?;
                    }
                }
                recv(self.overdue.map_or_else(never, at)) -> _ => {
                    self.overdue = None;
                    self.screen.aside("not sent yet; it is tried again until it is".to_owned())?;
                }
                recv(self.client.events()) -> happening => match happening {
                    Ok(happening) => self.take(happening)?,
                    Err(_) => return Err(client_ended()),
                },
            }
            self.take_typed()?;
        }
        match self.refused {
            0 => Ok(()),
            refused => Err(Stop::Failed(not_sent(refused))),
        }
    }

    fn wants_a_line(&self) -> bool {
        let unanswered = self.unanswered.len() + self.awaited;
        self.reading && self.typed.is_empty() && unanswered < MOST_UNANSWERED
    }

    /// Whether something is left to do. After the end of the input, typed lines are still sent and commands
    /// are still answered.
    fn goes_on(&self) -> bool {
        self.reading
            || !self.entered
            || self.entering.is_some()
            || !self.typed.is_empty()
            || !self.unanswered.is_empty()
            || self.awaited > 0
    }

    fn take_request(&mut self, asked: Asked) -> Printed {
        match asked {
            Asked::Line(line) if self.reading => self.typed.push_back(line),
            // After the end of the input a keyboard can only interrupt.
            Asked::Line(_) => {}
            Asked::End => self.end()?,
            Asked::Leave(code) if self.unanswered.is_empty() => return Err(Stop::Leave(code)),
            Asked::Leave(_) => {
                return Err(Stop::Failed(not_sent(self.unanswered.len())));
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Printed {
        self.reading = false;
        if !self.entered && self.screen.is_terminal() {
            return Err(Stop::Leave(0));
        }
        if self.away && self.goes_on() {
            let wait = "waiting for the server, to send what was typed; Ctrl-C leaves without";
            self.screen.aside(wait.to_owned())?;
        }
        Ok(())
    }

    fn take_typed(&mut self) -> Printed {
        while self.entering.is_none()
            && let Some(line) = self.typed.pop_front()
        {
            match line {
                Ok(line) => self.run_line(&line)?,
                Err(why) => self.reject(format!("not sent: {why}"))?,
            }
        }
        Ok(())
    }

    fn run_line(&mut self, line: &str) -> Printed {
        match LineRequest::parse(line, &self.room) {
            Ok(LineRequest::Say(text)) => self.say(text),
            // It would not be asked again after a reconnect.
            Ok(LineRequest::Ask(_)) if self.away => {
                self.tell_if_away("the server is away; ask again when it is back")
            }
            Ok(LineRequest::Ask(command)) => {
                self.awaited += 1;
                self.client.command(command);
                Ok(())
            }
            Ok(LineRequest::Join(room)) if room == self.room => {
                self.reject(format!("you are in {room} already"))
            }
            Ok(LineRequest::Join(room)) => {
                self.client.join(room.clone(), None, None);
                self.entering = Some(room);
                self.tell_if_away("it will be entered once the server is back")
            }
            Ok(LineRequest::Quit) => {
                self.typed.clear();
                self.end()
            }
            Ok(LineRequest::Help) => {
                let lines = typed_line::HELP.map(|line| Line::Notice(line.to_owned()));
                Ok(self.screen.print(&lines)?)
            }
            Err(why) => self.reject(why),
        }
    }

    fn say(&mut self, text: String) -> Printed {
        if text.is_empty() {
            return Ok(());
        }
        let reference = self.client.send(self.room.clone(), text.clone());
        self.echoes.expect(reference.clone(), text);
        self.unanswered.insert(reference);
        self.overdue = self
            .overdue
            .or_else(|| Some(Instant::now() + ANSWERED_WITHIN));
        self.tell_if_away("not sent yet; it will be once the server is back")
    }

    fn tell_if_away(&mut self, what: &str) -> Printed {
        if self.away {
            self.screen.aside(what.to_owned())?;
        }
        Ok(())
    }

    /// A person sees it and types it again; a script is told by the exit code.
    fn reject(&mut self, why: String) -> Printed {
        if !self.screen.is_typed_at() {
            self.refused += 1;
        }
        Ok(self.screen.print(&[Line::Error(why)])?)
    }

    fn take(&mut self, happening: ClientEvent) -> Printed {
        match happening {
            ClientEvent::Connected | ClientEvent::Postponed(_) => Ok(()),
            ClientEvent::Disconnected { why, .. } if !self.entered => Err(Stop::Failed(why)),
            ClientEvent::Disconnected { why, .. } => self.lose(&why),
            ClientEvent::Refused(why) => Err(Stop::Failed(why)),
            ClientEvent::Server(event) => match event.room() {
                Some(room) if *room != self.room => self.hear_from_elsewhere(event),
                Some(_) | None => self.hear(event),
            },
        }
    }

    fn lose(&mut self, why: &str) -> Printed {
        // Commands are not repeated; the user sees that the server is away.
        self.awaited = 0;
        self.overdue = None;
        // Every attempt that fails is not worth a line; the prompt shows how it is.
        if !std::mem::replace(&mut self.away, true) {
            self.screen.aside(format!("{why}; trying again"))?;
            self.screen.set_prompt(&format!("{} (away)> ", self.room))?;
        }
        Ok(())
    }

    fn hear(&mut self, event: Event) -> Printed {
        match event {
            Event::Room {
                room,
                members,
                messages,
                recovered,
                anew,
                last,
            } => {
                if std::mem::take(&mut self.away) {
                    self.screen.aside("back again".to_owned())?;
                    self.screen.set_prompt(&format!("{room}> "))?;
                }
                self.entered = true;
                let messages = self.without_echoes(messages);
                self.print(&Event::Room {
                    room,
                    members,
                    messages,
                    recovered,
                    anew,
                    last,
                })
            }
            Event::Message { ref message, .. } if self.is_echo(message) => Ok(()),
            Event::Sent {
                reference: Some(reference),
                id,
                ..
            } => {
                self.answered(&reference);
                self.echoes.stored(&reference, id);
                Ok(())
            }
            Event::Error {
                reference: Some(ref reference),
                ..
            } => {
                self.answered(reference);
                self.echoes.refused(reference);
                if !self.screen.is_terminal() {
                    self.refused += 1;
                }
                self.print(&event)
            }
            // The room is closed to us, perhaps since the connection was lost.
            Event::Error { message, .. } if !self.entered || self.away => {
                Err(Stop::Failed(message))
            }
            Event::Members { .. } | Event::History { .. } | Event::Error { .. } => {
                self.awaited = self.awaited.saturating_sub(1);
                self.print(&event)
            }
            event => self.print(&event),
        }
    }

    fn answered(&mut self, reference: &Ref) {
        self.unanswered.remove(reference);
        let more = !self.unanswered.is_empty();
        self.overdue = more.then(|| Instant::now() + ANSWERED_WITHIN);
    }

    /// From the room that is being entered, or from the one that was left a moment ago.
    fn hear_from_elsewhere(&mut self, event: Event) -> Printed {
        let is_entering = event.room() == self.entering.as_ref();
        match event {
            Event::Room { ref room, .. } if is_entering => {
                self.enter(room.clone())?;
                self.hear(event)
            }
            Event::Error {
                reference: None,
                message,
                ..
            } if is_entering => self.stay(message),
            // The answer to a line that was said before leaving.
            Event::Sent { .. } | Event::Error { .. } => self.hear(event),
            _ => Ok(()),
        }
    }

    fn enter(&mut self, room: RoomName) -> Printed {
        self.entering = None;
        self.echoes.clear();
        let left = std::mem::replace(&mut self.room, room);
        self.client.leave(left);
        self.screen.set_prompt(&format!("{}> ", self.room))?;
        let notice = format!("this is {}", self.room);
        Ok(self.screen.print(&[Line::Notice(notice)])?)
    }

    /// The other room is closed to us. What was typed for it must not be said in this one.
    fn stay(&mut self, why: String) -> Printed {
        self.entering = None;
        if !self.screen.is_terminal() {
            return Err(Stop::Failed(why));
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

    fn print(&mut self, event: &Event) -> Printed {
        Ok(self.screen.print(&text::lines(event))?)
    }

    fn without_echoes(&mut self, messages: Vec<Message>) -> Vec<Message> {
        messages
            .into_iter()
            .filter(|message| !self.is_echo(message))
            .collect()
    }

    /// Whether this is what was typed here, coming back.
    fn is_echo(&mut self, message: &Message) -> bool {
        self.echoes.take(message, message.from == self.name)
    }
}
