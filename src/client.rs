//! A blocking client that reconnects and resumes. `join`, `say` and `tail` are made of it.
//!
//! It owns one thread. To whoever uses it, the connection seems never to break: every message of a
//! joined room arrives once and in order, however often the client has to reconnect and to which
//! instance, and what was sent is sent again under the same ref until it is answered. Where the
//! server cannot make up for what was missed, a [`Event::Gap`] says so.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use crossbeam_channel::{Receiver, Sender, select};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::backoff::Backoff;
use crate::backplane::REFS_LAST;
use crate::message::{MessageId, RoomName, UserName};
use crate::protocol::{Command, ErrorCode, Event, Ref, Rendering, json};
use crate::websocket::{ClientFrame, Ended, Incoming, ReadHalf, UpgradeError, masked};

/// How long a connection may take to be made, and a write or the handshake's answer to happen.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How often the client asks whether the server is there, and how long it believes so without a
/// sign.
const PING_EVERY: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(40);

/// The ceilings of the first and of the longest wait between two attempts.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_CAP: Duration = Duration::from_secs(5);

/// How long to wait before what the server could not do is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// For so long a send may be repeated under its ref: a little less than the server remembers it.
const REF_IS_SAFE: Duration = REFS_LAST.saturating_sub(Duration::from_secs(20));

/// How long a goodbye may take to be answered.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// The largest event taken from a server: a page of history is larger than a message.
const MAX_EVENT: usize = 64 << 20;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Host and port.
    authority: String,
}

impl ServerUrl {
    /// Reads `http://host:port` or `ws://host:port`, or the host and port alone.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("ws", url));
        match scheme {
            "ws" | "http" => {}
            "wss" | "https" => {
                return Err("TLS is not spoken here; connect to the plain address".to_owned());
            }
            _ => return Err("it should look like http://127.0.0.1:8080".to_owned()),
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
            return Err("it should look like http://127.0.0.1:8080".to_owned());
        }
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        Ok(Self { authority })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

/// What the client has to tell.
#[derive(Debug)]
pub enum Happening {
    /// The connection is made; rooms are being joined.
    Connected,
    /// The connection is lost, or could not be made; it is tried again.
    Disconnected {
        /// What happened.
        why: String,
        /// When the next attempt is.
        retry_in: Duration,
    },
    /// The server told something.
    Event(Event),
    /// The server refuses for good. Nothing follows.
    Refused(String),
}

enum Ask {
    Join {
        room: RoomName,
        since: Option<MessageId>,
        history: Option<usize>,
    },
    Send {
        room: RoomName,
        text: String,
        reference: Ref,
    },
    Other(Command),
    Leave,
}

/// The handle of a client.
pub struct Client {
    asks: Sender<Ask>,
    happenings: Receiver<Happening>,
    thread: Option<JoinHandle<()>>,
}

/// Who connects, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// At least one. Of several, the next is tried when one is away.
    pub servers: Vec<ServerUrl>,
    /// The user.
    pub user: UserName,
    /// For a server that wants one.
    pub token: Option<String>,
}

impl Client {
    /// Starts a client of one server, which connects at once.
    pub fn start(server: ServerUrl, user: UserName) -> io::Result<Self> {
        Self::start_with(Options {
            servers: vec![server],
            user,
            token: None,
        })
    }

    /// Starts a client, which connects at once.
    pub fn start_with(options: Options) -> io::Result<Self> {
        let (asks, asked) = crossbeam_channel::unbounded();
        let (tell, happenings) = crossbeam_channel::unbounded();
        let worker = Worker {
            options,
            attempts: 0,
            asked,
            tell,
            rooms: BTreeMap::new(),
            unanswered: VecDeque::new(),
            leaving: false,
            come_back_in: None,
            max_message: usize::MAX,
        };
        let thread = thread::Builder::new()
            .name("client".into())
            .spawn(move || worker.run())?;
        Ok(Self {
            asks,
            happenings,
            thread: Some(thread),
        })
    }

    /// What happens, in order.
    pub fn happenings(&self) -> &Receiver<Happening> {
        &self.happenings
    }

    /// Enters a room, now and after every reconnect.
    pub fn join(&self, room: RoomName, since: Option<MessageId>, history: Option<usize>) {
        self.ask(Ask::Join {
            room,
            since,
            history,
        });
    }

    /// Says something in a joined room. [`Event::Sent`] or a final [`Event::Error`] with the ref
    /// that is returned tells how it went.
    pub fn send(&self, room: RoomName, text: String) -> Ref {
        let reference = Ref::random();
        self.ask(Ask::Send {
            room,
            text,
            reference: reference.clone(),
        });
        reference
    }

    /// Asks for something that is not worth repeating after a reconnect.
    pub fn command(&self, command: Command) {
        self.ask(Ask::Other(command));
    }

    fn ask(&self, ask: Ask) {
        // A client that was refused no longer listens; its last happening says so.
        let _ = self.asks.send(ask);
    }
}

impl Drop for Client {
    /// Says goodbye and waits for the thread.
    fn drop(&mut self) {
        self.ask(Ask::Leave);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the client remembers of a room, so as to resume it.
struct Room {
    /// The last message seen.
    last: Option<MessageId>,
    /// For the first time: how much of the past to ask for.
    history: Option<usize>,
    state: RoomState,
    /// Whether the log began anew, so that its ids may be lower than `last`.
    anew: bool,
}

/// A room on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RoomState {
    Outside,
    /// The server was asked.
    Joining,
    Joined,
}

/// What was sent and not answered yet. Of one room only the first is on its way, so that a retry
/// changes no order.
struct Unanswered {
    room: RoomName,
    text: String,
    reference: Ref,
    /// When it was sent first.
    sent: Option<Instant>,
}

/// What comes from the reading thread.
enum FromServer {
    Event(Event),
    /// Frames that answer the server's: pongs, and the close reply.
    Reply(Vec<u8>),
    Alive,
    Ended(String),
}

/// One connection.
struct Link {
    socket: Arc<TcpStream>,
    incoming: Receiver<FromServer>,
    reader: JoinHandle<()>,
}

impl Link {
    fn write(&self, frame: ClientFrame<'_>) -> io::Result<()> {
        (&*self.socket).write_all(&masked(frame))
    }

    fn request(&self, command: &Command) -> io::Result<()> {
        match json::request(command) {
            Some(frame) => self.write(ClientFrame::Text(&frame)),
            None => Ok(()),
        }
    }

    fn close(self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        let _ = self.reader.join();
    }
}

/// What to do about an event.
enum Step {
    /// Nothing: the user has seen it.
    Drop,
    /// The user is told.
    Tell,
    /// The user is told, and the room's next send has its turn.
    TellAndSend(RoomName),
    /// The same is asked again a little later.
    AskAgain,
}

/// Why a connection could not be made.
enum NoLink {
    ForGood(String),
    ForNow(String),
}

/// The thread's own state.
struct Worker {
    options: Options,
    /// How many connections were tried; the servers take turns.
    attempts: usize,
    asked: Receiver<Ask>,
    tell: Sender<Happening>,
    rooms: BTreeMap<RoomName, Room>,
    /// In the order in which they were asked for.
    unanswered: VecDeque<Unanswered>,
    leaving: bool,
    /// When the server, before it closed, asked us to come back.
    come_back_in: Option<Duration>,
    /// The largest frame that the server takes, once it said so.
    max_message: usize,
}

impl Worker {
    fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        while !self.leaving {
            let server = &self.options.servers[self.attempts % self.options.servers.len()];
            self.attempts += 1;
            let why = match connect(server, &self.options) {
                Ok(link) => {
                    self.tell(Happening::Connected);
                    for room in self.rooms.values_mut() {
                        room.state = RoomState::Outside;
                    }
                    let why = match self.converse(&link, &mut backoff) {
                        Ok(why) => why,
                        Err(error) => error.to_string(),
                    };
                    link.close();
                    why
                }
                Err(NoLink::ForNow(why)) => why,
                Err(NoLink::ForGood(why)) => return self.tell(Happening::Refused(why)),
            };
            if !self.leaving {
                let asked_for = self.come_back_in.take();
                let retry_in = asked_for.map_or_else(|| backoff.next(), spread);
                self.tell(Happening::Disconnected { why, retry_in });
                self.pause(retry_in);
            }
        }
    }

    fn tell(&self, happening: Happening) {
        // Whoever listened may be gone; then `leaving` follows.
        let _ = self.tell.send(happening);
    }

    /// Waits, and takes note of what is asked meanwhile.
    fn pause(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.leaving {
            match self.asked.recv_deadline(until) {
                Ok(ask) => drop(self.note(ask)),
                Err(_) => return,
            }
        }
    }

    /// Takes note of what is asked; what has to be said to a connected server is returned.
    fn note(&mut self, ask: Ask) -> Option<Command> {
        match ask {
            Ask::Join {
                room,
                since,
                history,
            } => {
                let mut known = Room {
                    last: since,
                    history,
                    state: RoomState::Outside,
                    anew: false,
                };
                let command = known.join(&room);
                self.rooms.insert(room, known);
                Some(command)
            }
            Ask::Send {
                room,
                text,
                reference,
            } => {
                self.unanswered.push_back(Unanswered {
                    room: room.clone(),
                    text,
                    reference,
                    sent: None,
                });
                // Behind others it waits for its turn.
                let alone = self.unanswered.iter().filter(|u| u.room == room).count() == 1;
                alone.then(|| self.next_send(&room)).flatten()
            }
            Ask::Other(command) => Some(command),
            Ask::Leave => {
                self.leaving = true;
                None
            }
        }
    }

    /// One connection's life. `Ok` says why it ended.
    fn converse(&mut self, link: &Link, backoff: &mut Backoff) -> io::Result<String> {
        for (name, room) in &mut self.rooms {
            link.request(&room.join(name))?;
        }
        let mut next_ping = Instant::now() + PING_EVERY;
        let mut heard = Instant::now();
        let mut ask_again: Option<Instant> = None;
        loop {
            let now = Instant::now();
            if now.duration_since(heard) > SILENCE {
                return Ok("the server is silent".to_owned());
            }
            if now >= next_ping {
                next_ping = now + PING_EVERY;
                link.write(ClientFrame::Ping)?;
            }
            if ask_again.is_some_and(|at| now >= at) {
                ask_again = None;
                self.ask_again(link)?;
            }
            let wake = ask_again.map_or(next_ping, |at| at.min(next_ping));
            select! {
                recv(self.asked) -> ask => {
                    // The handle is never dropped without asking to leave.
                    let ask = ask.unwrap_or(Ask::Leave);
                    if let Some(command) = self.note(ask) {
                        link.request(&command)?;
                    }
                    if self.leaving {
                        return self.say_goodbye(link);
                    }
                }
                recv(link.incoming) -> incoming => {
                    heard = Instant::now();
                    match incoming {
                        Ok(FromServer::Event(event)) => {
                            backoff.reset();
                            if self.take(link, event)? && ask_again.is_none() {
                                ask_again = Some(Instant::now() + spread(ASK_AGAIN));
                            }
                        }
                        Ok(FromServer::Reply(frames)) => (&*link.socket).write_all(&frames)?,
                        Ok(FromServer::Alive) => {}
                        Ok(FromServer::Ended(why)) => return Ok(why),
                        Err(_) => return Ok("the connection ended".to_owned()),
                    }
                }
                default(wake.saturating_duration_since(now)) => {}
            }
        }
    }

    /// The server's answer to our close frame tells that it took everything before.
    fn say_goodbye(&self, link: &Link) -> io::Result<String> {
        link.write(ClientFrame::Goodbye)?;
        let deadline = Instant::now() + GOODBYE_WITHIN;
        while let Ok(incoming) = link.incoming.recv_deadline(deadline) {
            match incoming {
                FromServer::Ended(_) => break,
                FromServer::Event(event) => self.tell(Happening::Event(event)),
                FromServer::Reply(_) | FromServer::Alive => {}
            }
        }
        Ok("goodbye".to_owned())
    }

    /// Joins what could not be joined, and sends what was not answered.
    fn ask_again(&mut self, link: &Link) -> io::Result<()> {
        for (name, room) in &mut self.rooms {
            if room.state == RoomState::Outside {
                link.request(&room.join(name))?;
            }
        }
        let rooms: Vec<RoomName> = self.rooms.keys().cloned().collect();
        for room in &rooms {
            self.send_next(link, room)?;
        }
        Ok(())
    }

    fn send_next(&mut self, link: &Link, room: &RoomName) -> io::Result<()> {
        match self.next_send(room) {
            Some(command) => link.request(&command),
            None => Ok(()),
        }
    }

    /// The first unanswered send of a room that is joined. Whether one that is too old for its ref
    /// was stored can no longer be found out: then the user is told, instead of saying it twice.
    fn next_send(&mut self, room: &RoomName) -> Option<Command> {
        if self.rooms.get(room)?.state != RoomState::Joined {
            return None;
        }
        let now = Instant::now();
        loop {
            let first = self.unanswered.iter_mut().find(|u| u.room == *room)?;
            let command = first.command();
            let length = json::request(&command).map_or(0, |frame| frame.len());
            let sent = *first.sent.get_or_insert(now);
            let (code, message) = if length > self.max_message {
                let most = self.max_message;
                let message = format!("not sent: too long, {length} bytes of at most {most}");
                (ErrorCode::BadRequest, message)
            } else if now.duration_since(sent) < REF_IS_SAFE {
                return Some(command);
            } else {
                let message = "not confirmed: it may have been sent or not".to_owned();
                (ErrorCode::Unavailable, message)
            };
            let reference = first.reference.clone();
            self.tell(Happening::Event(Event::Error {
                code,
                message,
                reference: Some(reference.clone()),
                room: Some(room.clone()),
                retry: false,
            }));
            self.answered(&reference);
        }
    }

    /// Takes in an event and passes on what the user has not seen. True if something has to be
    /// asked again later.
    fn take(&mut self, link: &Link, event: Event) -> io::Result<bool> {
        let Some(event) = self.enter(event) else {
            return Ok(false);
        };
        match self.digest(&event) {
            Step::Drop => return Ok(false),
            Step::AskAgain => return Ok(true),
            Step::Tell => self.tell(Happening::Event(event)),
            Step::TellAndSend(room) => {
                self.tell(Happening::Event(event));
                self.send_next(link, &room)?;
            }
        }
        Ok(false)
    }

    /// When a room was entered: notes where it stands, tells of a gap, and leaves only what the
    /// user has not seen. Other events pass. `None` for a room that nobody asked for.
    fn enter(&mut self, event: Event) -> Option<Event> {
        let Event::Room {
            room: name,
            members,
            mut messages,
            recovered,
            last,
        } = event
        else {
            return Some(event);
        };
        let room = self.rooms.get_mut(&name)?;
        let seen = room.last;
        room.state = RoomState::Joined;
        // A log whose end is before what was seen lost it, and goes on from there.
        room.anew = !recovered && last < seen;
        // In an empty room, whatever is said while we are away comes after the least id.
        room.last = last.or(seen).or(Some(MessageId::ZERO));
        messages.retain(|message| seen.is_none_or(|seen| message.id > seen));
        if let (Some(after), false) = (seen, recovered) {
            self.tell(Happening::Event(Event::Gap {
                room: name.clone(),
                after: Some(after),
                before: messages.first().map(|message| message.id),
            }));
        }
        Some(Event::Room {
            room: name,
            members,
            messages,
            recovered,
            last,
        })
    }

    fn digest(&mut self, event: &Event) -> Step {
        match event {
            Event::Room { room, .. } => Step::TellAndSend(room.clone()),
            Event::Message { room, message, .. } => match self.rooms.get_mut(room) {
                Some(room) if room.anew || room.last.is_none_or(|last| message.id > last) => {
                    room.anew = false;
                    room.last = Some(message.id);
                    Step::Tell
                }
                Some(_) | None => Step::Drop,
            },
            Event::Gap { room, before, .. } => {
                if let (Some(room), None) = (self.rooms.get_mut(room), before) {
                    room.anew = true;
                }
                Step::Tell
            }
            Event::Sent {
                reference: Some(reference),
                room,
                ..
            } => {
                self.answered(reference);
                Step::TellAndSend(room.clone())
            }
            Event::Error {
                reference: Some(reference),
                room,
                retry,
                ..
            } => {
                if *retry && self.unanswered.iter().any(|u| u.reference == *reference) {
                    return Step::AskAgain;
                }
                self.answered(reference);
                room.clone().map_or(Step::Tell, Step::TellAndSend)
            }
            Event::Error {
                reference: None,
                room: Some(name),
                retry,
                ..
            } => match self.rooms.get_mut(name) {
                Some(room) if room.state == RoomState::Joining => {
                    room.state = RoomState::Outside;
                    if *retry {
                        return Step::AskAgain;
                    }
                    // It will not be entered, and so nothing can be said there.
                    self.rooms.remove(name);
                    self.unanswered
                        .retain(|unanswered| unanswered.room != *name);
                    Step::Tell
                }
                Some(_) | None => Step::Tell,
            },
            Event::Welcome { limits, .. } => {
                self.max_message = limits.max_message;
                Step::Tell
            }
            Event::Closing { retry_after_ms, .. } => {
                self.come_back_in = Some(Duration::from_millis(*retry_after_ms));
                Step::Tell
            }
            _ => Step::Tell,
        }
    }

    fn answered(&mut self, reference: &Ref) {
        self.unanswered
            .retain(|unanswered| unanswered.reference != *reference);
    }
}

impl Unanswered {
    fn command(&self) -> Command {
        Command::Send {
            room: self.room.clone(),
            text: self.text.clone(),
            reference: Some(self.reference.clone()),
        }
    }
}

impl Room {
    /// Asks for the room, from where it stands.
    fn join(&mut self, name: &RoomName) -> Command {
        self.state = RoomState::Joining;
        Command::Join {
            room: name.clone(),
            since: self.last,
            history: self.history,
        }
    }
}

/// Between half and the whole of `wait`, so that a crowd does not come back at once.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

fn connect(server: &ServerUrl, options: &Options) -> Result<Link, NoLink> {
    let for_now = |error: io::Error| NoLink::ForNow(format!("cannot reach {server}: {error}"));
    let addresses = server.authority.to_socket_addrs().map_err(for_now)?;
    let mut outcome = Err(io::Error::other("the name has no address"));
    for address in addresses {
        outcome = TcpStream::connect_timeout(&address, CONNECT_WITHIN);
        if outcome.is_ok() {
            break;
        }
    }
    let socket = Arc::new(outcome.map_err(for_now)?);
    let prepare = || {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(CONNECT_WITHIN))?;
        socket.set_read_timeout(Some(CONNECT_WITHIN))
    };
    prepare().map_err(for_now)?;
    let (tell, incoming) = crossbeam_channel::unbounded();
    let replies = tell.clone();
    let url = format!(
        "ws://{}/chat/{}",
        server.authority,
        utf8_percent_encode(options.user.as_str(), NON_ALPHANUMERIC)
    );
    let half = ReadHalf::client(
        Arc::clone(&socket),
        &url,
        Rendering::Json.subprotocol(),
        options.token.as_deref(),
        MAX_EVENT,
        Box::new(move |frames| {
            let _ = replies.send(FromServer::Reply(frames.to_vec()));
        }),
    )
    .map_err(|error| match error {
        UpgradeError::Refused {
            status: 429 | 503,
            why,
        } => NoLink::ForNow(why),
        UpgradeError::Refused { status, why } => {
            NoLink::ForGood(format!("{server} refuses ({status}): {why}"))
        }
        UpgradeError::NotWebSocket => {
            NoLink::ForGood(format!("{server} is not a WebSocket server"))
        }
        UpgradeError::Broken(why) => NoLink::ForNow(format!("{server}: {why}")),
    })?;
    socket.set_read_timeout(Some(SILENCE)).map_err(for_now)?;
    let reader = thread::Builder::new()
        .name("client-reader".into())
        .spawn(move || read(half, &tell))
        .map_err(for_now)?;
    Ok(Link {
        socket,
        incoming,
        reader,
    })
}

/// The reading thread: from the socket to the channel, until the end.
fn read(mut half: ReadHalf, tell: &Sender<FromServer>) {
    let mut closed_with = None;
    loop {
        let item = match half.read() {
            Ok(Incoming::Text(text)) => match json::parse_event(&text) {
                Ok(event) => FromServer::Event(event),
                // A newer server may say what we do not know.
                Err(_) => FromServer::Alive,
            },
            Ok(Incoming::Binary(_) | Incoming::Alive) => FromServer::Alive,
            Ok(Incoming::Close(code)) => {
                closed_with = code;
                FromServer::Alive
            }
            Err(ended) => FromServer::Ended(match (ended, closed_with) {
                (_, Some(code)) => format!("the server closed the connection ({code})"),
                (Ended::Closed | Ended::Vanished, None) => {
                    "the server closed the connection".into()
                }
                (Ended::Silent, None) => "the server is silent".into(),
                (Ended::Wrong { why, .. } | Ended::Broken(why), None) => why,
            }),
        };
        let ended = matches!(item, FromServer::Ended(_));
        if tell.send(item).is_err() || ended {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_address_is_read_with_and_without_its_scheme() {
        for (url, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("ws://chat.example:9000/", "http://chat.example:9000"),
            ("localhost:8080", "http://localhost:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://chat.example", "http://chat.example:80"),
        ] {
            let parsed = ServerUrl::parse(url).map(|url| url.to_string());
            assert_eq!(parsed.as_deref(), Ok(shown), "{url}");
        }
        for bad in [
            "wss://x",
            "ftp://x",
            "http://",
            "http://x/chat",
            "http://a@b",
        ] {
            assert!(ServerUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
