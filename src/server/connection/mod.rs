//! One connection, from its request to its end.
//!
//! A connection has up to two threads. The reader thread runs [`serve`]: it reads a request and either sends a response
//! and reads the next one, or upgrades the connection ([`upgrade`]) and runs the [`read_pump`], or lets it [`follow`] a
//! room; [`probes`] are the page, the probes and the metrics. The writer thread runs the write pump ([`pumps`]), while
//! frames have to wait. [`ThreadBudget`] counts both. [`Connections`] holds every open connection.

mod thread_budget;
mod addresses;
mod client_address;
mod connections;
mod heartbeat;
mod pumps;
mod upgrade;
mod follow;
mod probes;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use log::{debug, info};

use self::addresses::{AddressPlace, AddressRefusal};
use self::client_address::{client_of, read_proxy_header};
use self::connections::Phase;
pub use self::connections::{Connections, NotStarted};
use self::follow::{follow_request, follow_room, is_asked_to_follow};
pub use self::pumps::{Pumps, Upgrade};
use self::pumps::{WRITE_CHECK, write_by};
pub use self::thread_budget::ThreadBudget;
use self::upgrade::{ChatRequest, chat_request};
use crate::hub::framing;
use crate::message::ConnectionId;
use crate::metrics;
use crate::server::admin;
use crate::server::api;
use crate::server::config::Deadlines;
use crate::server::http::{self, HeadError, ProxyHeader, Request, Resource, Response, Route};
use crate::server::proxies::{ClientAddress, is_trusted};
use crate::server::session::{self, PUT_OUT, Session};
use crate::stream::Stream;
use crate::websocket::code;
use crate::websocket::{Ended, Incoming};

/// The most requests on one connection. A proxy or a client opens another one then.
const MOST_REQUESTS: usize = 100;

/// The time within which the next request's head has to come, unless the deadline for a head is shorter: a connection
/// that waits holds a thread.
const NEXT_REQUEST: Duration = Duration::from_secs(5);

/// A connection that is not upgraded.
struct Visit<'a> {
    connections: &'a Arc<Connections>,
    stream: &'a Arc<Stream>,
    id: ConnectionId,
    peer: SocketAddr,
    header: ProxyHeader,
    /// `None` behind a proxy that may name another client in each request.
    place: Option<AddressPlace>,
}

/// Serves one connection, on its reader thread. Without a `place`, the peer is a trusted proxy, and takes one for its
/// client.
fn serve(
    connections: &Arc<Connections>,
    stream: &Arc<Stream>,
    id: ConnectionId,
    peer: SocketAddr,
    place: Option<AddressPlace>,
) {
    let config = &connections.state.config;
    let deadlines = &config.deadlines;
    let mut head_due = Instant::now() + deadlines.head;
    let header = read_proxy_header(stream.socket(), peer, config, head_due);
    let place = match place.map_or_else(|| enter_early(connections, &header), |own| Ok(Some(own))) {
        Ok(place) => place,
        Err(refusal) => return refuse_address(stream, peer, &refusal, deadlines),
    };
    let header = match header {
        Ok(header) => header,
        Err(error) => return refuse_head(stream, peer, &error, deadlines),
    };
    let visit = Visit {
        connections,
        stream,
        id,
        peer,
        header,
        place,
    };
    let mut read = Vec::new();
    for nth in 1..=MOST_REQUESTS {
        let Some(rest) = serve_request(&visit, nth, read, head_due) else {
            return;
        };
        if !connections.awaits_request(id) {
            return;
        }
        read = rest;
        head_due = Instant::now() + NEXT_REQUEST.min(deadlines.head);
    }
}

fn refuse_address(
    stream: &Stream,
    peer: SocketAddr,
    refusal: &AddressRefusal,
    deadlines: &Deadlines,
) {
    debug!("{peer}: {refusal}");
    write_last_response(stream, &refusal.response(), deadlines);
}

fn refuse_head(stream: &Stream, peer: SocketAddr, error: &HeadError, deadlines: &Deadlines) {
    debug!("{peer}: {error}");
    if matches!(error, HeadError::Late) {
        metrics::LATE_HEADS.count();
    }
    if let Some(response) = error.response() {
        metrics::REQUESTS_REFUSED.count();
        write_last_response(stream, &response, deadlines);
    }
}

/// Reads the next request of a connection, and takes a place for its client. `read` has the bytes of the request that
/// were read before. If one of the two fails, the client gets the reason and the connection ends.
fn next_request(
    visit: &Visit<'_>,
    nth: usize,
    mut read: Vec<u8>,
    head_due: Instant,
) -> Option<(ClientAddress, Request, Option<AddressPlace>)> {
    let (stream, peer, connections) = (visit.stream, visit.peer, visit.connections);
    let config = &connections.state.config;
    let request = http::read_request(stream, &mut read, config.max_head, head_due);
    if request.is_err() && read.trim_ascii().is_empty() && nth > 1 {
        // The client has nothing more to ask. It could take a response for the one to a request that is on its way.
        let _ = stream.socket().write_all(&stream.farewell());
        return None;
    }
    let with_client = request
        .and_then(|request| Ok((client_of(peer, &visit.header, &request, config)?, request)));
    let (client, request) = match with_client {
        Ok(read) => read,
        Err(error) => {
            refuse_head(stream, peer, &error, &config.deadlines);
            return None;
        }
    };
    let place = match (&visit.place, nth) {
        (Some(_), 1) => Ok(None),
        // It has its place. But the request counts as a new connection does: keeping one gains no higher rate.
        (Some(_), _) => connections.arrive(client.address).map(|()| None),
        // The next request may be another client's.
        (None, _) => connections.enter(client.address).map(Some),
    };
    match place {
        Ok(place) => Some((client, request, place)),
        Err(refusal) => {
            refuse_address(stream, peer, &refusal, &config.deadlines);
            None
        }
    }
}

/// Serves the next request of a connection. `read` has the bytes of the request that were read before. Returns the
/// bytes that were read behind it, if the connection goes on.
fn serve_request(
    visit: &Visit<'_>,
    nth: usize,
    read: Vec<u8>,
    head_due: Instant,
) -> Option<Vec<u8>> {
    let (client, request, _place) = next_request(visit, nth, read, head_due)?;
    let (connections, stream, id) = (visit.connections, visit.stream, visit.id);
    let deadlines = &connections.state.config.deadlines;
    let response = match request.route() {
        Route::Chat { user } => {
            match chat_request(&request, client.address, user, &connections.state) {
                Ok(chat) => {
                    let rest = request.into_rest().unwrap_or_default();
                    self::chat(connections, stream, id, client, chat, rest);
                    return None;
                }
                Err(response) => response,
            }
        }
        Route::Api {
            room,
            resource: Some(Resource::Messages),
        } if is_asked_to_follow(&request) => {
            connections.set_phase(id, Phase::Responding);
            match follow_request(&connections.state, client.address, &request, room) {
                Ok(following) => {
                    // Frees the head: following may last for days.
                    drop(request);
                    follow_room(connections, stream, id, client, following);
                    return None;
                }
                Err(response) => response,
            }
        }
        Route::Api { room, resource } => {
            // A request that waits for a receipt gets it, also when a teardown begins meanwhile.
            connections.set_phase(id, Phase::Responding);
            api::respond(
                &connections.state,
                stream,
                client.address,
                &request,
                room,
                resource,
            )
        }
        Route::Admin(path) => {
            connections.set_phase(id, Phase::Responding);
            let (state, chats) = (&connections.state, || connections.chats());
            admin::respond(state, stream, &request, client, &path, chats)
        }
        route => match request.method.as_str() {
            "GET" | "HEAD" => probes::respond(connections, &route, &request),
            // RFC 9112 §3.2.4: an asterisk means the server.
            "OPTIONS" if request.path == "*" => wrong_method("GET, HEAD, POST, OPTIONS"),
            _ if route == Route::Unknown => probes::respond(connections, &route, &request),
            _ => wrong_method("GET, HEAD, OPTIONS"),
        },
    };
    let response = match request.method.as_str() {
        "OPTIONS" => response.to_options(),
        // The client would take a body for the next response.
        "HEAD" => response.without_body(),
        _ => response,
    };
    if response.status >= 400 {
        metrics::REQUESTS_REFUSED.count();
    }
    debug!(
        "{client}: {} {:?}: {}",
        request.method, request.path, response.status
    );
    let may_wait = nth < MOST_REQUESTS && connections.may_wait(visit.place.as_ref());
    let goes_on = may_wait && request.goes_on() && response.has_end();
    match request.into_rest().filter(|_| goes_on) {
        Some(rest) => write_response(stream, &response.going_on(), deadlines).then_some(rest),
        None => {
            write_last_response(stream, &response, deadlines);
            None
        }
    }
}

/// Takes a place for a client that the PROXY protocol names: before a handshake, and before it may ask for anything.
fn enter_early(
    connections: &Arc<Connections>,
    header: &Result<ProxyHeader, HeadError>,
) -> Result<Option<AddressPlace>, AddressRefusal> {
    let trusted = &connections.state.config.trusted_proxies;
    match header {
        Ok(ProxyHeader::Client(address)) if !is_trusted(*address, trusted) => {
            connections.enter(*address).map(Some)
        }
        // Another proxy may name its client in the request.
        Ok(ProxyHeader::Client(_) | ProxyHeader::Itself | ProxyHeader::Absent) | Err(_) => Ok(None),
    }
}

fn wrong_method(allowed: &str) -> Response {
    Response::new(405, format!("only {allowed} is possible here")).with("Allow", allowed)
}

/// Writes a response after which the connection goes on. False if the client does not take it.
fn write_response(stream: &Stream, response: &Response, deadlines: &Deadlines) -> bool {
    let _ = stream.socket().set_write_timeout(Some(WRITE_CHECK));
    let due = Instant::now() + deadlines.write;
    let bytes = response.bytes();
    write_by(stream.socket(), &stream.sealed(&bytes), |_| due).is_ok()
}

/// Writes the last response, and lets the client read it. If the socket were closed with unread bytes, the
/// kernel would send a reset, and the client could lose the response.
fn write_last_response(stream: &Stream, response: &Response, deadlines: &Deadlines) {
    let mut socket = stream.socket();
    let bytes = response.bytes();
    let bytes = [&*stream.sealed(&bytes), &stream.farewell()].concat();
    let _ = socket.set_write_timeout(Some(WRITE_CHECK));
    let due = Instant::now() + deadlines.write;
    if write_by(socket, &bytes, |_| due).is_err() || socket.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let deadline = Instant::now() + deadlines.close;
    let _ = socket.set_read_timeout(Some(deadlines.close));
    let mut discarded = [0; 1024];
    while matches!(socket.read(&mut discarded), Ok(1..)) && Instant::now() < deadline {}
}

/// Serves a chat, from the upgrade to the end.
fn chat(
    connections: &Arc<Connections>,
    stream: &Arc<Stream>,
    id: ConnectionId,
    client: ClientAddress,
    request: ChatRequest,
    read_already: Vec<u8>,
) {
    let state = &connections.state;
    let (user, encoding) = (request.user, request.encoding);
    // Once the client has the opening, it is owed a goodbye: a teardown does not break it off.
    connections.set_phase(id, Phase::Responding);
    // The response's head and the first event take one write.
    let mut opening = request.response_head;
    let welcome = encoding.encode(&session::welcome(state, &user, &request.grant));
    if let Some(welcome) = framing::payloads(encoding, &welcome) {
        opening.extend_from_slice(&welcome);
    }
    let threads = &connections.threads;
    let config = &state.config;
    let grant = Arc::new(request.grant);
    let mut pumps = Pumps::start(
        stream,
        id,
        encoding,
        &grant,
        config,
        threads,
        Upgrade {
            opening,
            read_already,
        },
    );
    let outbox = Arc::clone(pumps.outbox());
    info!("{user:?} connected from {client} as connection {id}");
    let mut session = Session::begin(
        Arc::clone(state),
        id,
        user.clone(),
        request.room,
        Arc::clone(&grant),
        Arc::clone(&outbox),
    );
    let rooms = session.memberships();
    connections.begin_chat(id, client.address, Some(&user), &outbox, rooms);
    if request.joins && outbox.is_open() {
        session.join_first_room(request.since, request.history);
    }
    let ended = read_pump(&mut pumps, &mut session);
    if outbox.is_open() && matches!(ended, Ended::Vanished | Ended::Wrong { .. }) {
        // The client may still read the receipts of the messages that it sent before.
        session.settle();
    }
    if grant.is_over(SystemTime::now()) || outbox.why() == Some(PUT_OUT) {
        // The user is not expected back.
        session.note_goodbye();
    }
    drop(session);
    let why = pumps.finish(&ended);
    info!("{user:?} disconnected, connection {id} from {client}: {why}");
}

/// The read pump: takes one message at a time off the socket, and hands it to the session. It runs on
/// the reader thread.
fn read_pump(pumps: &mut Pumps<'_>, session: &mut Session) -> Ended {
    loop {
        match pumps.read() {
            Ok(Incoming::Text(text)) => session.handle(&text),
            Ok(Incoming::Binary(_)) => {
                let why = "only text messages are taken here".to_owned();
                let code = code::UNSUPPORTED;
                return Ended::Wrong { code, why };
            }
            Ok(Incoming::Alive) => {}
            Ok(Incoming::Close(_)) => {
                // If the outbox has ended, the server closed the connection, and expects the client
                // back: that is no goodbye.
                if pumps.outbox().is_open() {
                    session.note_goodbye();
                    // The next read puts our own close frame into the outbox, behind the receipts.
                    session.settle();
                }
            }
            Err(ended) => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    /// Our end of a connection, and the peer's.
    pub(super) fn pair() -> (Arc<Stream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let far = TcpStream::connect(listener.local_addr().expect("its address")).expect("one end");
        let near = listener.accept().expect("the other end").0;
        (Arc::new(Stream::plain(near)), far)
    }
}
