//! An echo server on the server's own pumps, for `scripts/conformance.sh`, which runs a WebSocket test
//! suite against it. Unlike a chat it takes binary messages, which it returns as binary, and messages
//! of up to 16 MiB. It ends when its standard input does.
//!
//! With a folder as its argument, which holds a certificate, its key and its authority, it speaks TLS, and a tunnel leads
//! to it: the suite does not know such certificates.

#![allow(clippy::print_stdout)] // where it listens is what the script waits for

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hubbub::hub::outbox::Outbox;
use hubbub::message::ConnectionId;
use hubbub::protocol::{Encoding, Priority};
use hubbub::server::config::Config;
use hubbub::server::connection::{Pumps, ThreadBudget, Upgrade};
use hubbub::server::grant::Grant;
use hubbub::server::http::{Response, read_request};
use hubbub::stream::{Identity, Stream};
use hubbub::websocket::Incoming;
use hubbub::websocket::frame::{self, Frame};
use hubbub::websocket::server::accept;

/// The largest message of the suite's limit cases (group 9).
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Half of it has to be free before an echo is queued, and then there is room for one more.
const OUTBOX_BYTES: usize = 4 * MAX_MESSAGE;

/// Longer than any case takes: a ping of our own would be a frame that no case expects.
const HEARTBEAT: Duration = Duration::from_secs(300);

#[cfg(feature = "tls")]
#[path = "../it/support/tunnel.rs"]
mod tunnel;

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, identity) = match std::env::args().nth(1) {
        Some(folder) if Path::new(&folder).is_dir() => encrypted(folder.as_ref(), &listener)?,
        // cargo's own arguments.
        Some(_) | None => (listener.local_addr()?, None),
    };
    println!("listening on ws://{address}");
    io::stdout().flush()?;
    thread::Builder::new()
        .name("acceptor".to_owned())
        .spawn(move || accept_all(&listener, identity.as_ref()))?;
    // The script holds the other end, so the server never outlives a script that was killed.
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

#[cfg(feature = "tls")]
fn encrypted(folder: &Path, listener: &TcpListener) -> io::Result<(SocketAddr, Option<Identity>)> {
    let [certificate, key, ca] =
        ["server.pem", "server.key", "ca.pem"].map(|name| folder.join(name));
    let identity = Identity::read(&certificate, &key).map_err(io::Error::other)?;
    let authorities = hubbub::stream::Authorities::read(Some(&ca)).map_err(io::Error::other)?;
    let address = tunnel::tunnel(listener.local_addr()?, authorities);
    Ok((address, Some(identity)))
}

#[cfg(not(feature = "tls"))]
fn encrypted(_: &Path, _: &TcpListener) -> io::Result<(SocketAddr, Option<Identity>)> {
    Err(io::Error::other("built without the feature tls"))
}

fn accept_all(listener: &TcpListener, identity: Option<&Identity>) {
    for (id, socket) in (1..).zip(listener.incoming()) {
        let socket = socket.expect("a connection: there are few at a time");
        let stream = Arc::new(match identity {
            Some(identity) => Stream::server(socket, identity).expect("a certificate"),
            None => Stream::plain(socket),
        });
        thread::Builder::new()
            .name(format!("reader-{id}"))
            .spawn(move || serve(&stream, ConnectionId(id)))
            .expect("a thread: there are few at a time");
    }
}

/// Serves one connection. The suite judges the frames that it gets; this server judges nothing.
fn serve(stream: &Arc<Stream>, id: ConnectionId) {
    let config = Config {
        max_message: MAX_MESSAGE,
        outbox_bytes: OUTBOX_BYTES,
        ping_interval: HEARTBEAT,
        ..Config::default()
    };
    let head_due = Instant::now() + config.deadlines.head;
    let Ok(request) = read_request(stream, &mut Vec::new(), config.max_head, head_due) else {
        return;
    };
    let head = match accept(&request.headers, None) {
        Ok(head) => head,
        Err(why) => {
            let refusal = Response::new(400, why).bytes();
            let _ = stream.socket().write_all(&stream.sealed(&refusal));
            return;
        }
    };
    let threads = Arc::new(ThreadBudget::new(1));
    let upgrade = Upgrade {
        opening: head,
        read_already: request.into_rest().unwrap_or_default(),
    };
    let grant = Arc::new(Grant::all());
    let mut pumps = Pumps::start(
        stream,
        id,
        Encoding::Text,
        &grant,
        &config,
        &threads,
        upgrade,
    );
    let outbox = Arc::clone(pumps.outbox());
    let ended = loop {
        match pumps.read() {
            Ok(Incoming::Text(text)) => {
                echo(
                    &outbox,
                    frame::text(&[text]).expect("one payload makes one frame"),
                );
            }
            Ok(Incoming::Binary(bytes)) => echo(&outbox, binary(&bytes)),
            Ok(Incoming::Alive | Incoming::Close(_)) => {}
            Err(ended) => break ended,
        }
    };
    pumps.finish(&ended);
}

/// Returns a frame to the client, which is read no further until the outbox has room.
fn echo(outbox: &Outbox, frame: Frame) {
    // The outbox may have ended meanwhile; then it takes nothing more, and nobody misses it.
    outbox.wait_for_space(|| false);
    outbox.push(frame, Priority::High);
}

/// A final binary frame (RFC 6455 §5.2). The product has no encoder for it, since a chat sends text.
fn binary(payload: &[u8]) -> Frame {
    let mut bytes = vec![0x82];
    match payload.len() {
        length @ ..126 => bytes.push(length as u8),
        length @ 126..65_536 => {
            bytes.push(126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes.into()
}
