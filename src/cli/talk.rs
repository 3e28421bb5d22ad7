//! `hubbub join`, `say` and `tail`: the terminal's side of a chat.

use std::collections::{HashSet, VecDeque};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::string::FromUtf8Error;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use crossbeam_channel::{Receiver, never, select};

use super::{MessageId, RoomName, UserName, Where, complain};
use crate::client::{Client, Happening, Options};
use crate::message::Message;
use crate::protocol::{Command, ErrorCode, Event, Ref, text};

#[derive(Args)]
pub(super) struct Join {
    /// Your name
    name: UserName,
    #[command(flatten)]
    at: Where,
    /// How many past messages to print first
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    history: usize,
}

#[derive(Args)]
pub(super) struct Say {
    /// Your name
    name: UserName,
    /// What to say; without it, all of stdin
    text: Vec<String>,
    #[command(flatten)]
    at: Where,
    /// How long to try
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

#[derive(Args)]
pub(super) struct Tail {
    #[command(flatten)]
    at: Where,
    /// The name to be seen under
    #[arg(long = "as", value_name = "NAME", default_value = "tail")]
    name: UserName,
    /// End after so many messages
    #[arg(long, value_name = "COUNT")]
    count: Option<usize>,
    /// Begin after this message
    #[arg(long, value_name = "ID", conflicts_with = "history")]
    since: Option<MessageId>,
    /// How many past messages to print first
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    history: usize,
    /// End after this time, with an error if --count was not reached
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

/// What a step that may print comes to.
type Printed = Result<(), Stop>;

/// Why a command ends before it is done.
enum Stop {
    /// All that was asked for is printed, or nobody reads it any more.
    Enough,
    Failed(String),
}

fn outcome(ended: Printed) -> Result<(), String> {
    match ended {
        Ok(()) | Err(Stop::Enough) => Ok(()),
        Err(Stop::Failed(why)) => Err(why),
    }
}

fn print(event: &Event) -> Printed {
    let lines: String = text::render(event)
        .into_iter()
        .map(|line| line + "\n")
        .collect();
    let mut out = io::stdout().lock();
    out.write_all(lines.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|_| Stop::Enough)
}

fn start(at: &Where, name: &UserName) -> Result<Client, Stop> {
    let options = Options {
        servers: at.url.clone(),
        user: name.clone(),
        token: at.token.clone(),
    };
    Client::start_with(options)
        .map_err(|error| Stop::Failed(format!("cannot start a thread: {error}")))
}

pub(super) fn join(options: Join) -> Result<(), String> {
    outcome(Conversation::begin(options).and_then(Conversation::run))
}

/// A terminal's, or a pipe's, conversation in one room.
struct Conversation {
    client: Client,
    name: UserName,
    room: RoomName,
    lines: Receiver<Result<String, FromUtf8Error>>,
    entered: bool,
    /// What was sent and not answered yet.
    unanswered: HashSet<Ref>,
    /// What was sent and not heard back yet: the terminal shows it already.
    unheard: VecDeque<String>,
    /// How many answers to commands are due.
    awaited: usize,
    refused: usize,
}

impl Conversation {
    fn begin(options: Join) -> Result<Self, Stop> {
        let client = start(&options.at, &options.name)?;
        let history = (options.history > 0).then_some(options.history);
        client.join(options.at.room.clone(), None, history);
        let (tell, lines) = crossbeam_channel::bounded(1);
        thread::Builder::new()
            .name("stdin".into())
            .spawn(move || {
                for line in io::stdin().lock().split(b'\n') {
                    let Ok(line) = line else { return };
                    if tell.send(String::from_utf8(line)).is_err() {
                        return;
                    }
                }
            })
            .map_err(|error| Stop::Failed(format!("cannot read stdin: {error}")))?;
        Ok(Self {
            client,
            name: options.name,
            room: options.at.room,
            lines,
            entered: false,
            unanswered: HashSet::new(),
            unheard: VecDeque::new(),
            awaited: 0,
            refused: 0,
        })
    }

    fn run(mut self) -> Printed {
        let mut reading = true;
        while reading || !self.unanswered.is_empty() || self.awaited > 0 || !self.entered {
            let lines = if reading { self.lines.clone() } else { never() };
            select! {
                recv(lines) -> line => match line {
                    Ok(Ok(line)) => self.say(&line)?,
                    Ok(Err(_)) => self.reject("not sent: the line is not UTF-8")?,
                    Err(_) => reading = false,
                },
                recv(self.client.happenings()) -> happening => match happening {
                    Ok(happening) => self.take(happening)?,
                    Err(_) => return Err(Stop::Failed("the client ended".to_owned())),
                },
            }
        }
        if self.refused > 0 {
            return Err(Stop::Failed(format!(
                "{} lines were not sent",
                self.refused
            )));
        }
        Ok(())
    }

    fn say(&mut self, line: &str) -> Printed {
        match text::parse(line, &self.room) {
            Ok(Command::Send { text, room, .. }) => {
                if text.is_empty() {
                    return Ok(());
                }
                self.unheard.push_back(text.clone());
                self.unanswered.insert(self.client.send(room, text));
                Ok(())
            }
            Ok(Command::Help) => print(&Event::Help),
            Ok(command) => {
                self.awaited += 1;
                self.client.command(command);
                Ok(())
            }
            Err(rejection) => self.reject(&rejection.message),
        }
    }

    /// A person sees it and types it again; a script is told by the exit code.
    fn reject(&mut self, message: &str) -> Printed {
        if !io::stdin().is_terminal() {
            self.refused += 1;
        }
        print(&Event::Error {
            code: ErrorCode::BadRequest,
            message: message.to_owned(),
            reference: None,
            room: None,
            retry: false,
        })
    }

    fn take(&mut self, happening: Happening) -> Printed {
        let event = match happening {
            Happening::Connected => return Ok(()),
            Happening::Disconnected { why, .. } if !self.entered => return Err(Stop::Failed(why)),
            Happening::Disconnected { why, .. } => {
                complain(format_args!("* {why}; trying again"));
                // Whatever was asked for in passing is not asked again.
                self.awaited = 0;
                return Ok(());
            }
            Happening::Refused(why) => return Err(Stop::Failed(why)),
            Happening::Event(event) => event,
        };
        match event {
            Event::Room {
                room,
                members,
                messages,
                recovered,
                last,
            } => {
                if std::mem::replace(&mut self.entered, true) {
                    complain("* back again");
                }
                let messages = self.not_mine(messages);
                print(&Event::Room {
                    room,
                    members,
                    messages,
                    recovered,
                    last,
                })
            }
            Event::Message { ref message, .. } if self.is_mine(message) => Ok(()),
            Event::Sent {
                reference: Some(reference),
                ..
            } => {
                self.unanswered.remove(&reference);
                Ok(())
            }
            Event::Error {
                reference: Some(ref reference),
                ..
            } => {
                self.unanswered.remove(reference);
                self.refused += 1;
                print(&event)
            }
            Event::Error { message, .. } if !self.entered => Err(Stop::Failed(message)),
            Event::Members { .. } | Event::History { .. } | Event::Error { .. } => {
                self.awaited = self.awaited.saturating_sub(1);
                print(&event)
            }
            event => print(&event),
        }
    }

    fn not_mine(&mut self, messages: Vec<Message>) -> Vec<Message> {
        messages
            .into_iter()
            .filter(|message| !self.is_mine(message))
            .collect()
    }

    /// Whether this is what was typed here, coming back.
    fn is_mine(&mut self, message: &Message) -> bool {
        if message.from != self.name {
            return false;
        }
        let Some(index) = self.unheard.iter().position(|text| *text == message.text) else {
            return false;
        };
        self.unheard.remove(index);
        true
    }
}

/// The time that is left, and what to say when there is none.
struct Patience {
    deadline: Option<Instant>,
    last_trouble: Option<String>,
}

impl Patience {
    fn new(timeout: Option<u64>) -> Self {
        Self {
            // One too far to be told is none.
            deadline: timeout
                .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds))),
            last_trouble: None,
        }
    }

    /// The next thing that happens; `None` when the time is up.
    fn next(&mut self, client: &Client) -> Result<Option<Event>, Stop> {
        loop {
            let happening = match self.deadline {
                Some(deadline) => client.happenings().recv_deadline(deadline).ok(),
                None => client.happenings().recv().ok(),
            };
            match happening {
                None => return Ok(None),
                Some(Happening::Connected) => self.last_trouble = None,
                Some(Happening::Disconnected { why, .. }) => self.last_trouble = Some(why),
                Some(Happening::Refused(why)) => return Err(Stop::Failed(why)),
                Some(Happening::Event(event)) => return Ok(Some(event)),
            }
            if self.deadline.is_none()
                && let Some(why) = &self.last_trouble
            {
                complain(format_args!("* {why}; trying again"));
            }
        }
    }

    fn up(self, what: &str) -> Stop {
        Stop::Failed(match self.last_trouble {
            Some(why) => format!("{what}: {why}"),
            None => format!("{what}: the time is up"),
        })
    }
}

pub(super) fn say(options: &Say) -> Result<(), String> {
    outcome(try_say(options))
}

fn try_say(options: &Say) -> Printed {
    let mut text = options.text.join(" ");
    if options.text.is_empty() {
        io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Stop::Failed(format!("cannot read stdin: {error}")))?;
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
    }
    if text.is_empty() {
        return Err(Stop::Failed("there is nothing to say".to_owned()));
    }
    let client = start(&options.at, &options.name)?;
    let mut patience = Patience::new(Some(options.timeout));
    client.join(options.at.room.clone(), None, None);
    let mine = client.send(options.at.room.clone(), text);
    while let Some(event) = patience.next(&client)? {
        match event {
            Event::Sent { reference, .. } if reference.as_ref() == Some(&mine) => return Ok(()),
            Event::Error { message, .. } => return Err(Stop::Failed(message)),
            _ => {}
        }
    }
    Err(patience.up("not sent"))
}

pub(super) fn tail(options: &Tail) -> Result<(), String> {
    outcome(try_tail(options))
}

fn try_tail(options: &Tail) -> Printed {
    if options.count == Some(0) {
        return Ok(());
    }
    let client = start(&options.at, &options.name)?;
    let mut patience = Patience::new(options.timeout);
    let history = (options.history > 0).then_some(options.history);
    client.join(options.at.room.clone(), options.since, history);
    let mut seen = 0;
    let enough = |seen: usize| options.count.is_some_and(|count| seen >= count);
    let mut heard = |room: &RoomName, message: Message| -> Printed {
        if !enough(seen) {
            seen += 1;
            print(&Event::Message {
                room: room.clone(),
                message,
                via: None,
            })?;
        }
        if enough(seen) {
            Err(Stop::Enough)
        } else {
            Ok(())
        }
    };
    while let Some(event) = patience.next(&client)? {
        match event {
            Event::Room { room, messages, .. } => {
                complain(format_args!("* listening to {room}"));
                for message in messages {
                    heard(&room, message)?;
                }
            }
            Event::Message { room, message, .. } => heard(&room, message)?,
            gap @ Event::Gap { .. } => print(&gap)?,
            Event::Error { message, .. } => return Err(Stop::Failed(message)),
            _ => {}
        }
    }
    match options.count {
        Some(_) => Err(patience.up("--count was not reached")),
        None => Ok(()),
    }
}
