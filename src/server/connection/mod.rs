//! One connection's life: route, handshake, read pump, write pump, goodbye.
//!
//! A connection has up to two threads. The reader performs the handshake ([`upgrade`]) and then takes
//! one message at a time; the writer writes what waits in the outbox ([`pumps`]), and is started when
//! something first has to wait. [`Connections`] holds every open one.

mod connections;
mod heartbeat;
mod pumps;
mod upgrade;

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use log::{debug, info};

use self::connections::Stage;
pub use self::connections::{Connections, NoConnection};
pub use self::pumps::{Conversation, Terms, converse};
use self::pumps::{WRITE_GLANCE, write_by};
use self::upgrade::{ChatRequest, chat_request};
use crate::hub::outbox::Outbox;
use crate::message::ConnectionId;
use crate::metrics;
use crate::protocol::Encoding;
use crate::server::api;
use crate::server::config::Deadlines;
use crate::server::http::{self, Answer, HeadError, Request, Route};
use crate::server::session::Session;
use crate::websocket::frame;

/// The reader's thread, from the first byte to the last.
fn serve(
    connections: &Arc<Connections>,
    socket: &Arc<TcpStream>,
    id: ConnectionId,
    peer: SocketAddr,
) {
    let config = &connections.instance.config;
    let deadlines = &config.deadlines;
    let head_due = Instant::now() + deadlines.head;
    let request = match http::read_request(socket, config.max_head, head_due) {
        Ok(request) => request,
        Err(error) => {
            debug!("{peer}: {error}");
            if matches!(error, HeadError::Late) {
                metrics::LATE_HEADS.count();
            }
            if let Some(answer) = error.answer() {
                metrics::REQUESTS_REFUSED.count();
                say(socket, &answer, deadlines);
            }
            return;
        }
    };
    let answer = match request.route() {
        Route::Chat { user } => match chat_request(&request, user, config) {
            Ok(chat) => {
                let rest = request.into_rest();
                return self::chat(connections, socket, id, peer, chat, rest);
            }
            Err(answer) => answer,
        },
        Route::Api { room, resource } => {
            // Whoever waits for a receipt gets it, also when a teardown begins meanwhile.
            connections.comes_to(id, Stage::Answering);
            api::answer(&connections.instance, socket, &request, room, resource)
        }
        route => match request.method.as_str() {
            "GET" => plain(connections, &route, &request),
            "HEAD" => plain(connections, &route, &request).without_body(),
            _ => wrong_method("GET, HEAD"),
        },
    };
    if answer.status >= 400 {
        metrics::REQUESTS_REFUSED.count();
    }
    debug!(
        "{peer}: {} {:?}: {}",
        request.method, request.path, answer.status
    );
    say(socket, &answer, deadlines);
}

/// What is answered when this machine can hold no more.
pub fn busy() -> Answer {
    Answer::new(503, "this server is full; try again later").with("Retry-After", "5")
}

/// What is answered to an address that has as many connections as one may have.
pub fn too_many_from_one_address() -> Answer {
    Answer::new(429, "this address has too many connections").with("Retry-After", "5")
}

fn wrong_method(allowed: &str) -> Answer {
    Answer::new(405, format!("only {allowed} is possible here")).with("Allow", allowed)
}

/// Answers, and lets the peer read it: closing with unread bytes would reset the connection and
/// take the answer along.
fn say(socket: &TcpStream, answer: &Answer, deadlines: &Deadlines) {
    let _ = socket.set_write_timeout(Some(WRITE_GLANCE));
    let due = Instant::now() + deadlines.write;
    if write_by(socket, &answer.bytes(), |_| due).is_err()
        || socket.shutdown(Shutdown::Write).is_err()
    {
        return;
    }
    let deadline = Instant::now() + deadlines.close;
    let _ = socket.set_read_timeout(Some(deadlines.close));
    let mut scrap = [0; 1024];
    while matches!((&mut &*socket).read(&mut scrap), Ok(1..)) && Instant::now() < deadline {}
}

fn plain(connections: &Connections, route: &Route, request: &Request) -> Answer {
    match route {
        Route::Page(asset) => Answer::of_asset(asset, request.header("if-none-match")),
        Route::Live => Answer::new(200, "alive"),
        Route::Ready => match connections.ready() {
            Ok(()) => Answer::new(200, "ready"),
            Err(why) => Answer::new(503, format!("not ready: {why}")).with("Retry-After", "1"),
        },
        Route::Metrics => {
            metrics::CONNECTIONS.set(connections.count());
            metrics::ROOMS.set(connections.instance.hub.count());
            metrics::IN_FLIGHT.set(connections.instance.backplane.in_flight());
            metrics::READY.set(usize::from(connections.ready().is_ok()));
            Answer::of_text(metrics::render())
        }
        Route::Chat { .. } | Route::Api { .. } | Route::Unknown => {
            Answer::new(404, "there is nothing here; chat is at /chat/{your name}")
        }
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
) {
    let instance = &connections.instance;
    // From the opening on it is a chat to the client, who is owed a goodbye.
    connections.comes_to(id, Stage::Answering);
    let terms = Terms {
        encoding: chat.encoding,
        outbox_bytes: instance.config.outbox_bytes,
        max_message: instance.config.max_message,
        heartbeat: instance.config.ping_interval,
        deadlines: instance.config.deadlines.clone(),
    };
    let user = chat.user.clone();
    // The head of the answer and the first word take one write.
    let mut opening = chat.head;
    let welcome = chat.encoding.encode(&instance.welcome(&user));
    if let Some(welcome) = frame::text(&welcome) {
        opening.extend_from_slice(&welcome);
    }
    let begin = |outbox: &Arc<Outbox>| {
        connections.comes_to(id, Stage::Chatting(Arc::clone(outbox)));
        info!("{user:?} connected from {peer} as connection {id}");
        let mut session = Session::begin(
            Arc::clone(instance),
            id,
            chat.user,
            chat.room,
            chat.allowed,
            Arc::clone(outbox),
        );
        if chat.encoding == Encoding::Text {
            session.enter(chat.since, chat.history);
        }
        session
    };
    let why = converse(socket, id, &terms, &opening, read_already, begin);
    info!("{user:?} disconnected, connection {id} from {peer}: {why}");
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Our end of a connection, and the peer's.
    pub(super) fn pair() -> (Arc<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let far = TcpStream::connect(listener.local_addr().expect("its address")).expect("one end");
        let near = Arc::new(listener.accept().expect("the other end").0);
        (near, far)
    }
}
