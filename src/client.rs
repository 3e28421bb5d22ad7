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

impl Client {
    /// Starts a client, which connects at once.
    pub fn start(server: ServerUrl, user: UserName) -> io::Result<Self> {
        let (asks, asked) = crossbeam_channel::unbounded();
        let (tell, happenings) = crossbeam_channel::unbounded();
        let worker = Worker {
            server,
            user,
            asked,
            tell,
            rooms: BTreeMap::new(),
            unanswered: VecDeque::new(),
            leaving: false,
            come_back_in: None,
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
    /// Whether the server confirmed it on this connection.
    joined: bool,
    /// Whether the log began anew, so that its ids may be lower than `last`.
    anew: bool,
}

struct Unanswered {
    room: RoomName,
    text: String,
    reference: Ref,
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

/// Why a connection could not be made.
enum NoLink {
    ForGood(String),
    ForNow(String),
}

/// The thread's own state.
struct Worker {
    server: ServerUrl,
    user: UserName,
    asked: Receiver<Ask>,
    tell: Sender<Happening>,
    rooms: BTreeMap<RoomName, Room>,
    /// In the order in which they were asked for.
    unanswered: VecDeque<Unanswered>,
    leaving: bool,
    /// When the server, before it closed, asked us to come back.
    come_back_in: Option<Duration>,
}

impl Worker {
    fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        while !self.leaving {
            let why = match connect(&self.server, &self.user) {
                Ok(link) => {
                    self.tell(Happening::Connected);
                    for room in self.rooms.values_mut() {
                        room.joined = false;
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
                let known = Room {
                    last: since,
                    history,
                    joined: false,
                    anew: false,
                };
                let command = join(&room, &known);
                self.rooms.insert(room, known);
                Some(command)
            }
            Ask::Send {
                room,
                text,
                reference,
            } => {
                let joined = self.rooms.get(&room).is_some_and(|room| room.joined);
                let unanswered = Unanswered {
                    room,
                    text,
                    reference,
                };
                let command = joined.then(|| unanswered.command());
                self.unanswered.push_back(unanswered);
                command
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
        for (name, room) in &self.rooms {
            link.request(&join(name, room))?;
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
    fn ask_again(&self, link: &Link) -> io::Result<()> {
        for (name, room) in &self.rooms {
            if !room.joined {
                link.request(&join(name, room))?;
            }
        }
        self.send_unanswered(link, None)
    }

    fn send_unanswered(&self, link: &Link, only: Option<&RoomName>) -> io::Result<()> {
        for unanswered in &self.unanswered {
            let joined = self.rooms.get(&unanswered.room).is_some_and(|r| r.joined);
            if joined && only.is_none_or(|room| *room == unanswered.room) {
                link.request(&unanswered.command())?;
            }
        }
        Ok(())
    }

    /// Takes in an event and passes on what the user has not seen. True if something has to be
    /// asked again later.
    fn take(&mut self, link: &Link, event: Event) -> io::Result<bool> {
        match event {
            Event::Room {
                room: name,
                members,
                mut messages,
                recovered,
                last,
            } => {
                let Some(room) = self.rooms.get_mut(&name) else {
                    return Ok(false);
                };
                room.joined = true;
                let lost = room.last.filter(|_| !recovered);
                match room.last {
                    Some(seen) if recovered => messages.retain(|message| message.id > seen),
                    _ => {}
                }
                room.anew = false;
                room.last = messages.last().map(|m| m.id).or(last).or(room.last);
                let before = messages.first().map(|m| m.id);
                if let Some(after) = lost {
                    self.tell(Happening::Event(Event::Gap {
                        room: name.clone(),
                        after: Some(after),
                        before,
                    }));
                }
                self.tell(Happening::Event(Event::Room {
                    room: name.clone(),
                    members,
                    messages,
                    recovered,
                    last,
                }));
                self.send_unanswered(link, Some(&name))?;
                return Ok(false);
            }
            Event::Message {
                ref room,
                ref message,
                ..
            } => {
                let Some(room) = self.rooms.get_mut(room) else {
                    return Ok(false);
                };
                if !room.anew && room.last.is_some_and(|last| message.id <= last) {
                    return Ok(false);
                }
                room.anew = false;
                room.last = Some(message.id);
            }
            Event::Gap {
                ref room,
                before: None,
                ..
            } => {
                if let Some(room) = self.rooms.get_mut(room) {
                    room.anew = true;
                }
            }
            Event::Sent {
                reference: Some(ref reference),
                ..
            } => self.answered(reference),
            Event::Error {
                code,
                ref reference,
                ref room,
                retry: true,
                ..
            } => {
                let again = match (reference, room) {
                    (Some(reference), _) => self
                        .unanswered
                        .iter()
                        .any(|unanswered| unanswered.reference == *reference),
                    // A join that failed.
                    (None, Some(room)) => {
                        code == ErrorCode::Unavailable
                            && self.rooms.get(room).is_some_and(|room| !room.joined)
                    }
                    (None, None) => false,
                };
                if again {
                    return Ok(true);
                }
            }
            Event::Error {
                reference: Some(ref reference),
                ..
            } => self.answered(reference),
            Event::Closing { retry_after_ms, .. } => {
                self.come_back_in = Some(Duration::from_millis(retry_after_ms));
            }
            _ => {}
        }
        self.tell(Happening::Event(event));
        Ok(false)
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

fn join(name: &RoomName, room: &Room) -> Command {
    Command::Join {
        room: name.clone(),
        since: room.last,
        history: room.history,
    }
}

/// Between half and the whole of `wait`, so that a crowd does not come back at once.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

fn connect(server: &ServerUrl, user: &UserName) -> Result<Link, NoLink> {
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
        utf8_percent_encode(user.as_str(), NON_ALPHANUMERIC)
    );
    let half = ReadHalf::client(
        Arc::clone(&socket),
        &url,
        Rendering::Json.subprotocol(),
        MAX_EVENT,
        Box::new(move |frames| {
            let _ = replies.send(FromServer::Reply(frames.to_vec()));
        }),
    )
    .map_err(|error| match error {
        UpgradeError::Refused { status: 503, why } => NoLink::ForNow(why),
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
            Ok(Incoming::Binary | Incoming::Alive) => FromServer::Alive,
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
