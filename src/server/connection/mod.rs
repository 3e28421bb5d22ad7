//! One connection, from its request to its end.
//!
//! A connection has up to two threads. The reader thread runs [`serve`]: it reads the request and either
//! sends a response, or upgrades the connection ([`upgrade`]) and runs the [`read_pump`]. The writer
//! thread runs the write pump ([`pumps`]), while frames have to wait. [`ThreadBudget`] counts both.
//! [`Connections`] holds every open connection.

mod thread_budget;
mod addresses;
mod client_address;
mod connections;
mod heartbeat;
mod pumps;
mod upgrade;

use std::io::Read;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use log::{debug, info};

use self::addresses::{AddressPlace, AddressRefusal};
use self::client_address::{client_of, read_proxy_header};
use self::connections::{ChatHandle, Phase};
pub use self::connections::{Connections, NotStarted};
pub use self::pumps::{Pumps, Upgrade};
use self::pumps::{WRITE_CHECK, write_by};
pub use self::thread_budget::ThreadBudget;
use self::upgrade::{ChatRequest, chat_request};
use crate::backplane::ShardState;
use crate::message::ConnectionId;
use crate::metrics;
use crate::protocol::Encoding;
use crate::server::admin;
use crate::server::api;
use crate::server::config::Deadlines;
use crate::server::hooks;
use crate::server::http::{self, HeadError, ProxyHeader, Request, Response, Route};
use crate::server::proxies::{ClientAddress, is_trusted};
use crate::server::session::{self, PUT_OUT, Session, put_out};
use crate::stream::Stream;
use crate::websocket::code;
use crate::websocket::frame;
use crate::websocket::{Ended, Incoming};

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
    let head_due = Instant::now() + deadlines.head;
    let header = read_proxy_header(stream.socket(), peer, config, head_due);
    let refuse = |refusal: AddressRefusal| {
        debug!("{peer}: {refusal}");
        write_response(stream, &refusal.response(), deadlines);
    };
    let place = match place.map_or_else(|| enter_early(connections, &header), |own| Ok(Some(own))) {
        Ok(place) => place,
        Err(refusal) => return refuse(refusal),
    };
    let read = header.and_then(|header| {
        let request = http::read_request(stream, config.max_head, head_due)?;
        Ok((client_of(peer, &header, &request, config)?, request))
    });
    let (client, request) = match read {
        Ok(read) => read,
        Err(error) => {
            debug!("{peer}: {error}");
            if matches!(error, HeadError::Late) {
                metrics::LATE_HEADS.count();
            }
            if let Some(response) = error.response() {
                metrics::REQUESTS_REFUSED.count();
                write_response(stream, &response, deadlines);
            }
            return;
        }
    };
    let _place = match place.map_or_else(|| connections.enter(client.address), Ok) {
        Ok(place) => place,
        Err(refusal) => return refuse(refusal),
    };
    let response = match request.route() {
        Route::Chat { user } => match chat_request(&request, user, &connections.state) {
            Ok(chat) => {
                let rest = request.into_rest();
                return self::chat(connections, stream, id, client, chat, rest);
            }
            Err(response) => response,
        },
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
            "GET" => respond(connections, &route, &request),
            "HEAD" => respond(connections, &route, &request).without_body(),
            _ => wrong_method("GET, HEAD"),
        },
    };
    if response.status >= 400 {
        metrics::REQUESTS_REFUSED.count();
    }
    debug!(
        "{client}: {} {:?}: {}",
        request.method, request.path, response.status
    );
    write_response(stream, &response, deadlines);
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

/// Writes a response, and lets the client read it. If the socket were closed with unread bytes, the
/// kernel would send a reset, and the client could lose the response.
fn write_response(stream: &Stream, response: &Response, deadlines: &Deadlines) {
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

/// The response for the page, for probes, and for metrics.
fn respond(connections: &Connections, route: &Route, request: &Request) -> Response {
    match route {
        Route::Page(asset) => Response::of_asset(asset, request.header("if-none-match")),
        Route::Live => Response::new(200, "alive"),
        Route::Ready => match connections.ready(&connections.state.backplane.shards()) {
            Ok(state) => Response::new(200, state),
            Err(why) => Response::new(503, format!("not ready: {why}")).with("Retry-After", "1"),
        },
        Route::Metrics => {
            metrics::CONNECTIONS.set(connections.count());
            metrics::ROOMS.set(connections.state.hub.count());
            metrics::IN_FLIGHT.set(connections.state.backplane.in_flight());
            let shards = connections.state.backplane.shards();
            metrics::READY.set(usize::from(connections.ready(&shards).is_ok()));
            let webhooks = hooks::render_lags(&connections.state);
            Response::of_text(metrics::render() + &render_shards(&shards) + &webhooks)
        }
        Route::Chat { .. } | Route::Api { .. } | Route::Admin(_) | Route::Unknown => {
            Response::new(404, "there is nothing here; chat is at /chat/{your name}")
        }
    }
}

/// The metrics of each server of the backplane.
fn render_shards(shards: &[ShardState]) -> String {
    type Metric = (&'static str, &'static str, fn(&ShardState) -> u64);
    const METRICS: [Metric; 4] = [
        (
            "hubbub_shard_ready",
            "Whether messages can be stored and heard on this server: 1 or 0.",
            |shard| u64::from(shard.trouble.is_none()),
        ),
        (
            "hubbub_shard_waiting",
            "Commands that wait to be sent to this server.",
            |shard| shard.waiting as u64,
        ),
        (
            "hubbub_shard_losses_total",
            "Times the command connection to this server was lost.",
            |shard| shard.losses,
        ),
        (
            "hubbub_shard_cuts_total",
            "Times the subscription at this server was lost.",
            |shard| shard.cuts,
        ),
    ];
    let mut text = String::new();
    for (name, help, value) in METRICS {
        let values = shards.iter().map(|shard| (&shard.name[..], value(shard)));
        metrics::render_labelled(&mut text, name, help, "shard", values);
    }
    text
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
    if let Some(welcome) = frame::text(&welcome) {
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
    let chat = ChatHandle {
        user: user.clone(),
        address: client.address,
        since: SystemTime::now(),
        outbox: Arc::clone(&outbox),
        memberships: Arc::clone(session.memberships()),
    };
    connections.set_phase(id, Phase::Chatting(chat));
    // The ban may have come between the check of the request and here.
    if let Some(why) = state.why_banned(&user) {
        put_out(&outbox, why);
    }
    if encoding == Encoding::Text && outbox.is_open() {
        session.join_text_room(request.since, request.history);
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
