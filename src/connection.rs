//! One connection's life: route, handshake, read pump, write pump, goodbye.
//!
//! A connection has two threads. The reader performs the handshake and then takes one message at a
//! time; the writer alone writes to the socket. [`Connections`] holds every open one, keyed by
//! connection and never by user: one that ends takes only itself along.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use log::{debug, error, info};

use crate::frame;
use crate::http::{self, Answer, HEAD_WITHIN, Request, Route};
use crate::lock::lock;
use crate::message::{ConnectionId, MessageId, RoomName, UserName};
use crate::outbox::{Batch, Outbox, Queue, code, outbox};
use crate::protocol::{Event, Rendering, Weight};
use crate::session::{Instance, Session};
use crate::websocket::{self, Ended, Incoming, ReadHalf};

/// The reader parses JSON, whose nesting is bounded; the writer copies bytes.
const READER_STACK: usize = 256 * 1024;
const WRITER_STACK: usize = 64 * 1024;

/// How long one batch may take to be written, however it trickles.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// How often a writer that is stuck looks at its deadline; the socket's write time-out.
const WRITE_GLANCE: Duration = Duration::from_secs(1);

/// How long the last frame may take once its owner was given up.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(2);

/// How long a peer may take to answer a close frame.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// How much longer than a ping's interval a peer may be silent.
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// A writer's buffer is given back when it is larger and nothing is waiting.
const KEEP_BUFFER: usize = 4 * 1024;

/// Every open connection.
pub struct Connections {
    instance: Arc<Instance>,
    open: Mutex<HashMap<ConnectionId, Open>>,
    closed_one: Condvar,
    next: AtomicU64,
    /// The thread that ended last. It is joined by the next one to end, or by the teardown, so
    /// that at most one ended thread keeps its stack.
    ended: Mutex<Option<JoinHandle<()>>>,
}

struct Open {
    socket: Arc<TcpStream>,
    /// From the handshake on.
    outbox: Option<Arc<Outbox>>,
    thread: Option<JoinHandle<()>>,
}

impl Connections {
    /// None yet.
    pub fn new(instance: Arc<Instance>) -> Self {
        Self {
            instance,
            open: Mutex::default(),
            closed_one: Condvar::new(),
            next: AtomicU64::new(1),
            ended: Mutex::new(None),
        }
    }

    /// Gives a new connection its thread.
    pub fn start(self: &Arc<Self>, socket: &Arc<TcpStream>, peer: SocketAddr) -> io::Result<()> {
        let id = ConnectionId(self.next.fetch_add(1, Ordering::Relaxed));
        // Held until the entry is complete: a short-lived thread waits here to take it out.
        let mut open = lock(&self.open);
        let connections = Arc::clone(self);
        let its_socket = Arc::clone(socket);
        let thread = thread::Builder::new()
            .name(format!("reader-{id}"))
            .stack_size(READER_STACK)
            .spawn(move || {
                // A panic ends this connection alone; it has been reported where it happened.
                let run = || serve(&connections, &its_socket, id, peer);
                if catch_unwind(AssertUnwindSafe(run)).is_err() {
                    error!("connection {id} from {peer} ended by a panic");
                    let _ = its_socket.shutdown(Shutdown::Both);
                }
                connections.end(id);
            })?;
        open.insert(
            id,
            Open {
                socket: Arc::clone(socket),
                outbox: None,
                thread: Some(thread),
            },
        );
        Ok(())
    }

    fn upgraded(&self, id: ConnectionId, outbox: &Arc<Outbox>) {
        if let Some(open) = lock(&self.open).get_mut(&id) {
            open.outbox = Some(Arc::clone(outbox));
        }
    }

    /// The last thing that a connection's thread does.
    fn end(&self, id: ConnectionId) {
        let mine = lock(&self.open).remove(&id).and_then(|open| open.thread);
        let before = std::mem::replace(&mut *lock(&self.ended), mine);
        if let Some(thread) = before {
            // It is past its own last statement but one.
            let _ = thread.join();
        }
        self.closed_one.notify_all();
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        lock(&self.open).len()
    }

    /// Says `closing` and then closes, to everyone; a connection that is still in its handshake is
    /// broken off.
    pub fn close_all(&self, reason: &str, retry_after: Duration) {
        let outboxes: Vec<_> = {
            let open = lock(&self.open);
            open.values()
                .filter_map(|open| {
                    if open.outbox.is_none() {
                        let _ = open.socket.shutdown(Shutdown::Both);
                    }
                    open.outbox.clone()
                })
                .collect()
        };
        for outbox in outboxes {
            outbox.send(&Event::Closing {
                reason: reason.to_owned(),
                retry_after_ms: retry_after.as_millis() as u64,
            });
            outbox.close(code::RESTART, reason);
        }
    }

    /// Breaks off whatever is still open.
    pub fn break_all(&self) {
        for open in lock(&self.open).values() {
            let _ = open.socket.shutdown(Shutdown::Both);
        }
    }

    /// Waits until none is open, or the deadline. True if none is.
    pub fn wait_until_none(&self, deadline: Instant) -> bool {
        let mut open = lock(&self.open);
        while !open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            open = self
                .closed_one
                .wait_timeout(open, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        drop(open);
        if let Some(thread) = lock(&self.ended).take() {
            let _ = thread.join();
        }
        true
    }
}

/// What a chat request asks for, validated.
struct ChatRequest {
    user: UserName,
    room: RoomName,
    since: Option<MessageId>,
    history: Option<usize>,
    rendering: Rendering,
    /// The head of the answer.
    head: Vec<u8>,
}

/// The reader's thread, from the first byte to the last.
fn serve(
    connections: &Arc<Connections>,
    socket: &Arc<TcpStream>,
    id: ConnectionId,
    peer: SocketAddr,
) {
    let request = match http::read_request(socket, Instant::now() + HEAD_WITHIN) {
        Ok(request) => request,
        Err(error) => {
            debug!("{peer}: {error}");
            if let Some(answer) = error.answer() {
                say(socket, &answer);
            }
            return;
        }
    };
    let answer = match request.route() {
        Route::Chat { user } => match chat_request(&request, user) {
            Ok(chat) => match self::chat(connections, socket, id, peer, chat, request.rest) {
                Ok(()) => return,
                Err(error) => {
                    error!("no thread to write with: {error}");
                    busy()
                }
            },
            Err(answer) => answer,
        },
        route => match request.method.as_str() {
            "GET" => plain(&connections.instance, &route),
            "HEAD" => plain(&connections.instance, &route).without_body(),
            _ => wrong_method("GET, HEAD"),
        },
    };
    debug!(
        "{peer}: {} {:?}: {}",
        request.method, request.path, answer.status
    );
    say(socket, &answer);
}

/// What is answered when this machine can hold no more.
pub fn busy() -> Answer {
    Answer::new(503, "this server is full; try again later").with("Retry-After", "5")
}

fn wrong_method(allowed: &str) -> Answer {
    Answer::new(405, format!("only {allowed} is possible here")).with("Allow", allowed)
}

/// Answers, and lets the peer read it: closing with unread bytes would reset the connection and
/// take the answer along.
fn say(socket: &TcpStream, answer: &Answer) {
    let _ = socket.set_write_timeout(Some(LAST_WORD_WITHIN));
    if answer.write(socket).is_err() || socket.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let deadline = Instant::now() + CLOSE_WITHIN;
    let _ = socket.set_read_timeout(Some(CLOSE_WITHIN));
    let mut scrap = [0; 1024];
    while matches!((&mut &*socket).read(&mut scrap), Ok(1..)) && Instant::now() < deadline {}
}

fn plain(instance: &Instance, route: &Route) -> Answer {
    match route {
        Route::Home => Answer::new(
            200,
            "Hubbub, a chat server. Join with a WebSocket client at /chat/{your name}?room={room}, \
             or with: hubbub join {your name}",
        ),
        Route::Live => Answer::new(200, "alive"),
        Route::Ready => {
            let ready = if instance.is_closing() {
                Err("closing".to_owned())
            } else {
                instance.backplane.ready()
            };
            match ready {
                Ok(()) => Answer::new(200, "ready"),
                Err(why) => Answer::new(503, format!("not ready: {why}")).with("Retry-After", "1"),
            }
        }
        Route::Chat { .. } | Route::Unknown => {
            Answer::new(404, "there is nothing here; chat is at /chat/{your name}")
        }
    }
}

/// Checks everything that can be checked before the upgrade.
fn chat_request(request: &Request, user: Option<String>) -> Result<ChatRequest, Answer> {
    let bad = |sentence: String| Answer::new(400, sentence);
    if request.method != "GET" {
        return Err(wrong_method("GET"));
    }
    let user = user
        .ok_or_else(|| bad("a user name in UTF-8 belongs behind /chat/".to_owned()))?
        .parse()
        .map_err(|why| bad(format!("bad user name: {why}")))?;
    let room = match request.parameter("room") {
        None => RoomName::lobby(),
        Some(room) => room
            .parse()
            .map_err(|why| bad(format!("bad room name: {why}")))?,
    };
    let since = request
        .parameter("since")
        .map(|since| {
            since
                .parse()
                .map_err(|why| bad(format!("bad since: {why}")))
        })
        .transpose()?;
    let history = request
        .parameter("history")
        .map(|lines| {
            lines
                .parse()
                .map_err(|_| bad("bad history: it is a number of messages".to_owned()))
        })
        .transpose()?;
    let upgrade = request
        .header("upgrade")
        .is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket"));
    if !upgrade {
        return Err(
            Answer::new(426, "chat needs a WebSocket client here").with("Upgrade", "websocket")
        );
    }
    if request.header("sec-websocket-version") != Some("13") {
        return Err(
            Answer::new(426, "only version 13 of WebSocket is spoken here")
                .with("Upgrade", "websocket")
                .with("Sec-WebSocket-Version", "13"),
        );
    }
    let (rendering, subprotocol) = rendering(request)?;
    let head = websocket::accept(&request.headers, subprotocol)
        .map_err(|why| bad(format!("bad WebSocket request: {why}")))?;
    Ok(ChatRequest {
        user,
        room,
        since,
        history,
        rendering,
        head,
    })
}

/// The first subprotocol offered that is spoken here; lines of text if none was offered.
fn rendering(request: &Request) -> Result<(Rendering, Option<&'static str>), Answer> {
    let mut offered = request
        .header_values("sec-websocket-protocol")
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .peekable();
    if offered.peek().is_none() {
        return Ok((Rendering::Text, None));
    }
    let spoken = [Rendering::Json, Rendering::Text];
    let chosen = offered.find_map(|name| spoken.into_iter().find(|one| one.subprotocol() == name));
    match chosen {
        Some(rendering) => Ok((rendering, Some(rendering.subprotocol()))),
        None => Err(Answer::new(
            400,
            "the subprotocols spoken here are hubbub.text and hubbub.v1",
        )),
    }
}

/// A chat, from the upgrade on.
fn chat(
    connections: &Arc<Connections>,
    socket: &Arc<TcpStream>,
    id: ConnectionId,
    peer: SocketAddr,
    chat: ChatRequest,
    read_already: Vec<u8>,
) -> io::Result<()> {
    let instance = &connections.instance;
    let terms = Terms {
        rendering: chat.rendering,
        outbox_bytes: instance.config.outbox_bytes,
        max_message: instance.config.max_message,
        heartbeat: instance.config.ping_interval,
    };
    let user = chat.user.clone();
    let begin = |outbox: &Arc<Outbox>| {
        connections.upgraded(id, outbox);
        if instance.is_closing() {
            // The teardown may have looked before we were registered.
            outbox.close(code::RESTART, "the server is closing");
        }
        info!("{user:?} connected from {peer} as connection {id}");
        let mut session = Session::begin(
            Arc::clone(instance),
            id,
            chat.user,
            chat.room,
            Arc::clone(outbox),
        );
        if chat.rendering == Rendering::Text {
            session.enter(chat.since, chat.history);
        }
        session
    };
    let why = converse(socket, id, &terms, &chat.head, read_already, begin)?;
    info!("{user:?} disconnected, connection {id} from {peer}: {why}");
    Ok(())
}

/// What is said on a connection, once it is upgraded. It runs on the reader's thread.
pub trait Conversation {
    /// The client sent a text message.
    fn text(&mut self, text: &str);

    /// The client sent a binary message. An error closes the connection with 1003 and this sentence.
    fn binary(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// The client said goodbye: nobody has to wait for it to come back.
    fn goodbye(&mut self);

    /// Waits until everything that the client sent is answered. Bounded in time.
    fn settle(&mut self);
}

impl Conversation for Session {
    fn text(&mut self, text: &str) {
        self.take(text);
    }

    fn binary(&mut self, _bytes: &[u8]) -> Result<(), String> {
        Err("only text messages are taken here".to_owned())
    }

    fn goodbye(&mut self) {
        self.says_goodbye();
    }

    fn settle(&mut self) {
        Session::settle(self);
    }
}

/// What a connection keeps to.
#[derive(Debug, Clone)]
pub struct Terms {
    /// What the client speaks.
    pub rendering: Rendering,
    /// How many bytes may wait for it.
    pub outbox_bytes: usize,
    /// The largest message, in bytes.
    pub max_message: usize,
    /// How often it is pinged.
    pub heartbeat: Duration,
}

/// Answers the upgrade with `head`, and carries a conversation until it ends: two pumps and the
/// conversation between them. An error means that there is no thread to write with, and that
/// nothing was said yet; otherwise, why it ended.
pub fn converse<C: Conversation>(
    socket: &Arc<TcpStream>,
    id: ConnectionId,
    terms: &Terms,
    head: &[u8],
    read_already: Vec<u8>,
    begin: impl FnOnce(&Arc<Outbox>) -> C,
) -> io::Result<String> {
    let heartbeat = terms.heartbeat;
    socket.set_read_timeout(Some(heartbeat + PONG_WITHIN))?;
    let (outbox, queue) = outbox(terms.rendering, terms.outbox_bytes);
    let (reading, reader_ended) = crossbeam_channel::bounded::<()>(0);
    let writer = thread::Builder::new()
        .name(format!("writer-{id}"))
        .stack_size(WRITER_STACK)
        .spawn({
            let socket = Arc::clone(socket);
            move || write_pump(&socket, &queue, heartbeat, &reader_ended)
        })?;
    let _ends = EndsWithReader(Arc::clone(&outbox));
    outbox.push(head.into(), Weight::Essential);
    let replies = Arc::clone(&outbox);
    let mut half = ReadHalf::server(
        Arc::clone(socket),
        read_already,
        terms.max_message,
        Box::new(move |bytes| {
            for frame in frame::split_controls(bytes) {
                if frame::is_close(&frame) {
                    replies.close_with(frame);
                } else {
                    replies.push(frame, Weight::Essential);
                }
            }
        }),
    );
    let mut conversation = begin(&outbox);
    let ended = read_pump(&mut half, &mut conversation, &outbox);
    drop(conversation);
    goodbye(socket, &outbox, &ended);
    drop(reading);
    // A panic there has been reported; the socket is closed either way.
    let _ = writer.join();
    Ok(outbox.why().unwrap_or("unknown").to_owned())
}

/// However the reader ends, also by a panic, the writer is told.
struct EndsWithReader(Arc<Outbox>);

impl Drop for EndsWithReader {
    fn drop(&mut self) {
        self.0.abandon("the connection failed");
    }
}

/// Takes one message at a time until there are no more. Called by the reader's thread alone; it
/// never writes.
fn read_pump(half: &mut ReadHalf, conversation: &mut impl Conversation, outbox: &Outbox) -> Ended {
    loop {
        match half.read() {
            // What comes after our own last frame can no longer be answered.
            Ok(Incoming::Text(_) | Incoming::Binary(_)) if !outbox.is_open() => {}
            Ok(Incoming::Text(text)) => conversation.text(&text),
            Ok(Incoming::Binary(bytes)) => {
                if let Err(why) = conversation.binary(&bytes) {
                    let code = code::UNSUPPORTED;
                    return Ended::Wrong { code, why };
                }
            }
            Ok(Incoming::Alive) => {}
            Ok(Incoming::Close(_)) => {
                // Whom we sent away ourselves is expected back.
                if outbox.is_open() {
                    conversation.goodbye();
                    // Our own close frame, which the next reading brings, is the last.
                    conversation.settle();
                }
            }
            Err(ended) => {
                if ended == Ended::Vanished {
                    conversation.settle();
                }
                return ended;
            }
        }
    }
}

/// Ends the outbox, and reads to the end so that no reset takes the last frame along. The writer
/// bounds the wait.
fn goodbye(socket: &TcpStream, outbox: &Outbox, ended: &Ended) {
    match ended {
        Ended::Closed => {
            outbox.abandon("the closing handshake is complete");
            return;
        }
        // It may have closed only its own side, and still read the answers.
        Ended::Vanished => outbox.close(code::NORMAL, "the client broke off"),
        Ended::Silent => outbox.abandon("the client was silent for too long"),
        Ended::Broken(why) => outbox.abandon(why),
        Ended::Wrong { code, why } => outbox.close(*code, why),
    }
    let mut scrap = [0; 4096];
    while matches!((&mut &*socket).read(&mut scrap), Ok(1..)) {}
}

/// Writes whatever the outbox holds until its last frame. Called by the writer's thread alone,
/// which is the only one that ever writes to this socket. Afterwards it gives the peer a moment to
/// answer, and then frees the reader.
fn write_pump(socket: &TcpStream, queue: &Queue, heartbeat: Duration, reader_ended: &Receiver<()>) {
    if write_all(socket, queue, heartbeat) && socket.shutdown(Shutdown::Write).is_ok() {
        let _ = reader_ended.recv_timeout(CLOSE_WITHIN);
    }
    let _ = socket.shutdown(Shutdown::Both);
}

/// True once the last frame is written.
fn write_all(socket: &TcpStream, queue: &Queue, heartbeat: Duration) -> bool {
    if socket.set_write_timeout(Some(WRITE_GLANCE)).is_err() {
        return false;
    }
    let mut bytes = Vec::new();
    let mut next_ping = Instant::now() + heartbeat;
    loop {
        bytes.clear();
        let batch = queue.collect(&mut bytes, next_ping);
        if Instant::now() >= next_ping {
            next_ping = Instant::now() + heartbeat;
            if batch != Batch::Last {
                bytes.extend_from_slice(&frame::ping());
            }
        }
        if let Err(why) = write_batch(socket, &bytes, queue.outbox()) {
            queue.outbox().abandon(&why);
            return false;
        }
        if batch == Batch::Last {
            return true;
        }
        if bytes.capacity() > KEEP_BUFFER {
            bytes = Vec::new();
        }
    }
}

/// Writes one batch within its deadline, which trickling does not move.
fn write_batch(socket: &TcpStream, mut bytes: &[u8], outbox: &Outbox) -> Result<(), String> {
    let mut deadline = None;
    while !bytes.is_empty() {
        match (&mut &*socket).write(bytes) {
            Ok(0) => return Err("the client takes nothing any more".to_owned()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted
                | io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut => {}
                _ => return Err(error.to_string()),
            },
        }
        if bytes.is_empty() {
            break;
        }
        let now = Instant::now();
        let first = *deadline.get_or_insert(now + WRITE_WITHIN);
        let at = if outbox.is_open() {
            first
        } else {
            first.min(now + LAST_WORD_WITHIN)
        };
        deadline = Some(at);
        if now >= at {
            return Err("too slow: what was sent was not taken in time".to_owned());
        }
    }
    Ok(())
}
