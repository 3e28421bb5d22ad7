//! `hubbub join`: a chat in one room at a time, at a terminal or in a pipe.
//!
//! Read here [`Chat`] and its loop, and how it handles the user's lines; then `events`, how it handles the events of
//! the client. `user_command` reads a line, `room_lines` shows a list of rooms, and `echoes` recognizes the user's own
//! lines when the server sends them back.

mod user_command;
mod echoes;
mod room_lines;
mod events;

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use clap::Args;
use crossbeam_channel::{at, never, select};

use self::echoes::Echoes;
use self::user_command::UserCommand;
use super::exit::Exit;
use super::screen::{BadLine, ColorChoice, Input, Screen};
use super::timed_client::client_ended;
use super::times::Calendar;
use super::{ConnectArgs, RoomName, UserName};
use crate::client::Client;
use crate::protocol::Ref;
use crate::protocol::text::Line;

/// After this time without an answer, the user is told that a line is not sent yet. If Redis answers,
/// the server answers sooner.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// The most unanswered lines of a pipe. At this number no further line is read, since a program writes
/// faster than a server takes messages.
const MAX_UNANSWERED: usize = 16;

/// The end of `hubbub join --help`.
pub(super) const ABOUT: &str = "\
On a terminal there is a prompt; /help lists its commands. Ctrl-D leaves; Ctrl-C clears the
line that is begun, or leaves.

In a pipe, each line of stdin is said as it is, also one that begins with a slash, and each message is
printed. After the end of the input, the command ends once every line is stored. The exit code is 0 if
all of them were.";

#[derive(Args)]
pub(super) struct JoinArgs {
    /// Your name
    name: UserName,
    #[command(flatten)]
    connect: ConnectArgs,
    /// The number of past messages to print first
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    history: usize,
    /// Whether to use colours; auto means on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

pub(super) fn run(args: JoinArgs) -> Result<(), Exit> {
    Chat::begin(args)?.run()
}

fn not_sent(lines: usize) -> String {
    match lines {
        1 => "a line was not sent".to_owned(),
        lines => format!("{lines} lines were not sent"),
    }
}

/// A chat in one room, perhaps about to enter another.
struct Chat {
    /// The first field, so that it is dropped first: the terminal is restored before the client's goodbye
    /// takes its time.
    screen: Screen,
    client: Client,
    name: UserName,
    room: RoomName,
    connectivity: Connectivity,
    /// The room that the user is about to enter. Until the server answers, no line is handled: the
    /// lines after `/join` are meant for the new room.
    entering: Option<RoomName>,
    /// Lines of the user that are not handled yet.
    typed: VecDeque<Result<String, BadLine>>,
    /// Whether the input has not ended.
    reading: bool,
    /// The sends without an answer.
    unanswered: HashSet<Ref>,
    /// The time at which the user is told that a line is not sent yet. Every answer puts it off.
    overdue: Option<Instant>,
    /// The lines sent that the server has not sent back yet.
    echoes: Echoes,
    /// Whether live messages are shown with their times, too.
    times: bool,
    calendar: Calendar,
    /// The number of other commands without an answer.
    awaited: usize,
    /// The number of lines that failed; with any, the exit code is 1. On a terminal the user sees each
    /// error instead.
    failed: usize,
}

/// Whether the user is in the room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connectivity {
    /// The user is not in the first room yet. A failure ends the command.
    Joining,
    Online,
    /// The connection is lost, and the user knows. The client reconnects.
    Away,
}

impl Chat {
    fn begin(args: JoinArgs) -> Result<Self, Exit> {
        let mut screen = Screen::open(args.color)
            .map_err(|error| Exit::Failed(format!("cannot use the terminal: {error}")))?;
        let client = args.connect.start(&args.name)?;
        let history = (args.history > 0).then_some(args.history);
        let room = args.connect.room;
        client.join(room.clone(), None, history);
        screen.set_prompt(&format!("{room}> "))?;
        Ok(Self {
            screen,
            client,
            name: args.name,
            room,
            connectivity: Connectivity::Joining,
            entering: None,
            typed: VecDeque::new(),
            reading: true,
            unanswered: HashSet::new(),
            overdue: None,
            echoes: Echoes::default(),
            times: false,
            calendar: Calendar::default(),
            awaited: 0,
            failed: 0,
        })
    }

    fn run(mut self) -> Result<(), Exit> {
        while self.has_work() {
            // Keys are read at all times, since one may be Ctrl-C. A pipe's lines are read one by one.
            let reads = self.screen.is_terminal() || self.wants_a_line();
            let input = if reads {
                self.screen.raw_input().clone()
            } else {
                never()
            };
            select! {
                recv(input) -> input => {
                    let Ok(input) = input else { return Err(Exit::Done) };
                    let mut next = self.screen.handle(input)?;
                    while let Some(input) = next {
                        self.handle_input(input)?;
                        self.handle_typed()?;
                        next = self.screen.next_input()?;
                    }
                }
                recv(self.overdue.map_or_else(never, at)) -> _ => {
                    self.overdue = None;
                    self.screen.aside("not sent yet; it is tried again until it is".to_owned())?;
                }
                recv(self.client.events()) -> event => match event {
                    Ok(event) => self.handle_client_event(event)?,
                    Err(_) => return Err(client_ended()),
                },
            }
            self.handle_typed()?;
        }
        match self.failed {
            0 => Ok(()),
            failed => Err(Exit::Failed(not_sent(failed))),
        }
    }

    fn wants_a_line(&self) -> bool {
        let unanswered = self.unanswered.len() + self.awaited;
        self.reading && self.typed.is_empty() && unanswered < MAX_UNANSWERED
    }

    /// After the end of the input, the chat goes on until all lines are sent and all commands answered.
    fn has_work(&self) -> bool {
        self.reading
            || self.connectivity == Connectivity::Joining
            || self.entering.is_some()
            || !self.typed.is_empty()
            || !self.unanswered.is_empty()
            || self.awaited > 0
    }

    fn handle_input(&mut self, input: Input) -> Result<(), Exit> {
        match input {
            Input::Line(line) if self.reading => self.typed.push_back(line),
            // After the end of the input a keyboard can only interrupt.
            Input::Line(_) => {}
            Input::End => self.end()?,
            Input::Quit(code) if self.unanswered.is_empty() => return Err(Exit::Code(code)),
            Input::Quit(_) => {
                return Err(Exit::Failed(not_sent(self.unanswered.len())));
            }
        }
        Ok(())
    }

    /// The input has ended.
    fn end(&mut self) -> Result<(), Exit> {
        self.reading = false;
        if self.connectivity == Connectivity::Joining && self.screen.is_terminal() {
            return Err(Exit::Code(0));
        }
        if self.has_work() {
            self.tell_if_away(
                "waiting for the server, to send what was typed; Ctrl-C leaves without",
            )?;
        }
        Ok(())
    }

    fn handle_typed(&mut self) -> Result<(), Exit> {
        while self.entering.is_none()
            && let Some(line) = self.typed.pop_front()
        {
            match line {
                Ok(line) => self.handle_line(&line)?,
                Err(why) => self.reject(format!("not sent: {why}"))?,
            }
        }
        Ok(())
    }

    fn handle_line(&mut self, line: &str) -> Result<(), Exit> {
        // A program's lines may begin with anything, such as a path.
        if !self.screen.is_typed_at() {
            return self.say(line.strip_suffix('\r').unwrap_or(line).to_owned());
        }
        match UserCommand::parse(line, &self.room) {
            Ok(UserCommand::Say(text)) => self.say(text),
            // The client would not repeat it after a reconnect.
            Ok(UserCommand::Other(_)) if self.connectivity == Connectivity::Away => {
                self.tell_if_away("the server is away; ask again when it is back")
            }
            Ok(UserCommand::Other(command)) => {
                self.awaited += 1;
                self.client.command(command);
                Ok(())
            }
            Ok(UserCommand::Join(room)) if room == self.room => {
                self.reject(format!("you are in {room} already"))
            }
            Ok(UserCommand::Join(room)) => {
                self.client.join(room.clone(), None, None);
                self.entering = Some(room);
                self.tell_if_away("it will be entered once the server is back")
            }
            Ok(UserCommand::Times) => {
                self.times = !self.times;
                let which = if self.times { "with" } else { "without" };
                self.screen
                    .aside(format!("messages are shown {which} their times"))?;
                Ok(())
            }
            Ok(UserCommand::Quit) => {
                self.typed.clear();
                self.end()
            }
            Ok(UserCommand::Help) => {
                let lines = user_command::HELP.map(|line| Line::Notice(line.to_owned()));
                Ok(self.screen.print(&lines)?)
            }
            Err(why) => self.reject(why),
        }
    }

    fn say(&mut self, text: String) -> Result<(), Exit> {
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

    fn tell_if_away(&mut self, notice: &str) -> Result<(), Exit> {
        if self.connectivity == Connectivity::Away {
            self.screen.aside(notice.to_owned())?;
        }
        Ok(())
    }

    /// A line cannot be sent. A person sees the error and types the line again; a script needs the exit
    /// code.
    fn reject(&mut self, why: String) -> Result<(), Exit> {
        if !self.screen.is_typed_at() {
            self.failed += 1;
        }
        Ok(self.screen.print(&[Line::Error(why)])?)
    }
}
