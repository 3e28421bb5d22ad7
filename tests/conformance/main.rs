//! An echo server on the product's own connection code, for `scripts/conformance.sh`, which lets a
//! WebSocket test suite loose on it. It takes what a chat does not: binary messages, which it
//! returns as binary, and messages of up to 16 MiB. It ends when its standard input does.

#![allow(clippy::print_stdout)] // where it listens is what the script waits for

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hubbub::hub::outbox::Outbox;
use hubbub::message::ConnectionId;
use hubbub::protocol::{Encoding, Priority};
use hubbub::server::config::Config;
use hubbub::server::connection::{Conversation, Terms, converse};
use hubbub::server::http::{Answer, read_request};
use hubbub::websocket::frame::{self, Frame};
use hubbub::websocket::server::accept;

/// The largest message of the suite's limit cases (group 9).
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Half of it has to be free before an echo is queued, and then there is room for one more.
const OUTBOX_BYTES: usize = 4 * MAX_MESSAGE;

/// Longer than any case takes: a ping of our own would be a frame that no case expects.
const HEARTBEAT: Duration = Duration::from_secs(300);

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on ws://{}", listener.local_addr()?);
    io::stdout().flush()?;
    thread::Builder::new()
        .name("acceptor".to_owned())
        .spawn(move || accept_all(&listener))?;
    // Whoever started it holds the other end, so that it never outlives a script that was killed.
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn accept_all(listener: &TcpListener) {
    for (id, socket) in (1..).zip(listener.incoming()) {
        let socket = Arc::new(socket.expect("a connection: there are few at a time"));
        thread::Builder::new()
            .name(format!("reader-{id}"))
            .spawn(move || serve(&socket, ConnectionId(id)))
            .expect("a thread: there are few at a time");
    }
}

/// One connection. The suite judges what it sees; nothing is said about it here.
fn serve(socket: &Arc<TcpStream>, id: ConnectionId) {
    let Config {
        max_head,
        deadlines,
        ..
    } = Config::default();
    let Ok(request) = read_request(socket, max_head, Instant::now() + deadlines.head) else {
        return;
    };
    let head = match accept(&request.headers, None) {
        Ok(head) => head,
        Err(why) => {
            let _ = Answer::new(400, why).write(socket);
            return;
        }
    };
    let terms = Terms {
        encoding: Encoding::Text,
        outbox_bytes: OUTBOX_BYTES,
        max_message: MAX_MESSAGE,
        heartbeat: HEARTBEAT,
        deadlines,
    };
    let begin = |outbox: &Arc<Outbox>| Echo(Arc::clone(outbox));
    converse(socket, id, &terms, &head, request.rest, begin);
}

/// Says again whatever it hears, at the pace at which it is listened to.
struct Echo(Arc<Outbox>);

impl Echo {
    fn say(&self, frame: Frame) {
        // The outbox may have ended meanwhile; then it takes nothing more, and nobody misses it.
        self.0.wait_for_space();
        self.0.push(frame, Priority::High);
    }
}

impl Conversation for Echo {
    fn text(&mut self, text: &str) {
        let frame = frame::text(&[text.to_owned()]).expect("one payload makes one frame");
        self.say(frame);
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.say(binary(bytes));
        Ok(())
    }

    fn goodbye(&mut self) {}

    fn settle(&mut self) {}
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
