//! The lesson: a chat server between WebSocket and Redis, to be read in ten minutes.
//!
//! Hubbub grew from this shape. A user connects to `/chat/{user}` and speaks plain lines. Each user
//! has two threads, one that reads and one that writes; each instance has one that listens to Redis:
//!
//!     alice -> serve -> say -> PUBLISH -> Redis
//!                                           |
//!     bob   <- write <- outbox <- subscriber    (in every instance)
//!
//!     cargo run --release --example lesson -- redis://127.0.0.1:6379 127.0.0.1:8080
//!
//! Read it from top to bottom. It works, and it cuts corners, each of which is numbered where it is
//! cut. A demonstration shows none of them, and production shows them all. The README ("From the
//! lesson to the house") names for each the file of Hubbub that turns it, and the test that shows it.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, atomic::AtomicBool, atomic::Ordering::SeqCst};
use std::{env, thread, time::Duration};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use log::{LevelFilter, info, warn};
use redis::Commands;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Message, Utf8Bytes, WebSocket, http, protocol::Role};

/// Every line is published here, and every instance listens here. Redis sends the lines of one
/// channel to all its subscribers in one order, so all users see lines in that order.
const CHANNEL: &str = "lesson";

/// The state that all threads share. It lives as long as the process.
struct Chat {
    redis: redis::Client,
    /// The connection that publishes. After an error there is none, and the next line opens one.
    publisher: Mutex<Option<redis::Connection>>,
    /// The users of this instance, by name. `write` writes what is sent to a user's channel.
    users: Mutex<HashMap<String, Sender<Utf8Bytes>>>,
    closing: AtomicBool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    simplelog::WriteLogger::init(LevelFilter::Info, Default::default(), io::stderr())?;
    let mut arguments = env::args().skip(1);
    let url = arguments.next().ok_or("usage: lesson REDIS [ADDRESS]")?;
    let redis = redis::Client::open(url)?;
    let chat: &Chat = Box::leak(Box::new(Chat {
        publisher: Mutex::new(Some(redis.get_connection()?)),
        redis,
        users: Mutex::default(),
        closing: AtomicBool::new(false),
    }));
    let (ready, subscribed) = bounded(1);
    thread::spawn(move || subscriber(chat, &ready));
    subscribed.recv()?; // The first user misses nothing.

    let listener = TcpListener::bind(arguments.next().as_deref().unwrap_or("127.0.0.1:8080"))?;
    let address = listener.local_addr()?;
    ctrlc::set_handler(move || {
        chat.closing.store(true, SeqCst);
        let _ = TcpStream::connect(address); // Wakes `accept`.
    })?;
    writeln!(io::stdout(), "listening on http://{address} for /chat/NAME")?;
    let ended = accept(chat, &listener);
    tear_down(chat, &ended);
    Ok(())
}

/// Gives each connection a thread, until Ctrl-C. Returns a channel that ends with the last of them.
fn accept(chat: &'static Chat, listener: &TcpListener) -> Receiver<()> {
    let (running, ended) = bounded(0);
    for stream in listener.incoming() {
        if chat.closing.load(SeqCst) {
            break;
        }
        // Corner 1: when no more files may be open, this fails over and over, and keeps a core busy.
        let Ok(stream) = stream else { continue };
        // Corner 2: nobody counts the connections. Each takes two threads; when the system gives no
        // more, `spawn` panics, and the server ends for everyone.
        let running = Sender::clone(&running);
        thread::spawn(move || {
            let end = serve(chat, stream);
            info!("a connection ended: {end:?}");
            drop(running);
        });
    }
    ended
}

/// A user's first thread: the handshake, and then the half that reads.
#[expect(clippy::result_large_err, reason = "the refusal is tungstenite's")]
fn serve(chat: &Chat, stream: TcpStream) -> Result<(), Box<dyn std::error::Error>> {
    let mut user = String::new();
    // Corner 3: no deadline. A client that sends half a request keeps this thread for ever.
    let handshake = tungstenite::accept_hdr(stream, |request: &Request, response: Response| {
        // Corner 4: anyone can take any name. A name is not even decoded: Zoë's is `Zo%C3%AB`.
        let Some(name) = request.uri().path().strip_prefix("/chat/") else {
            let refusal = http::Response::builder().status(404).body(None);
            return Err(refusal.expect("404 is a status"));
        };
        user.push_str(name);
        Ok(response)
    });
    let mut reader = handshake.map_err(|error| error.to_string())?;

    // Corner 5: no bound. When the user stops reading, lines pile up here until memory is full.
    let (outbox, lines) = unbounded();
    // Corner 6: two WebSockets share one socket. `read` writes, too: it answers pings. Its answer
    // can land in the middle of a line that `write` has begun, and the client reads garbage.
    let writer = WebSocket::from_raw_socket(reader.get_ref().try_clone()?, Role::Server, None);
    // Corner 7: the map has one place for a name. A second connection of the same user takes the
    // place, which closes the first. When the first ends, it removes the second, which closes it.
    lock(&chat.users).insert(user.clone(), outbox);
    thread::spawn(move || write(writer, &lines));
    // Corner 8: presence is announced and not stored. A newcomer does not learn who is here, and the
    // users of an instance that is killed never leave.
    say(chat, &format!("* {user} joined"));
    // Corner 9: nobody pings. When a client disappears without a goodbye, `read` goes on waiting,
    // about 15 minutes from the next line that we write to it, and for ever if there is none.
    while let Ok(message) = reader.read() {
        // Corner 10: no limit. A user may say 64 MiB at a time, at any rate, and everyone gets it.
        if let Message::Text(text) = message {
            // Corner 11: the text goes out as it came in. If it is "hi\nbob: I quit", the others see
            // a line of bob's that bob never said.
            say(chat, &format!("{user}: {text}"));
        }
    }
    lock(&chat.users).remove(&user);
    let _ = reader.get_ref().shutdown(Shutdown::Both); // Ends `write`, even if it waits.
    say(chat, &format!("* {user} left"));
    Ok(())
}

/// A user's second thread, the half that writes: all lines, and a close frame after the last.
fn write(mut writer: WebSocket<TcpStream>, lines: &Receiver<Utf8Bytes>) {
    for line in lines {
        if writer.send(Message::Text(line)).is_err() {
            return; // The socket is broken, so `read` fails as well.
        }
    }
    let _ = writer.close(None);
}

/// Says a line to everyone, on all instances: this one hears it from Redis like the others.
fn say(chat: &Chat, line: &str) {
    // Corner 12: when Redis does not take a line, only the log learns of it. Its sender never gets
    // an answer; and a line has no id, so that one that is sent again may be heard twice.
    if let Err(error) = publish(chat, line) {
        warn!("a line is lost: {error}");
    }
}

fn publish(chat: &Chat, line: &str) -> redis::RedisResult<()> {
    // Corner 13: one line at a time, and no time-out. While Redis hangs, everyone here waits.
    let mut publisher = lock(&chat.publisher);
    let open = publisher.take();
    let mut redis = open.map_or_else(|| chat.redis.get_connection(), Ok)?;
    redis.publish::<_, _, ()>(CHANNEL, line)?;
    *publisher = Some(redis);
    Ok(())
}

/// The thread that listens to Redis. When the connection breaks, it opens another.
fn subscriber(chat: &Chat, ready: &Sender<()>) {
    loop {
        if let Err(error) = hear(chat, ready) {
            warn!("the subscription is lost: {error}");
        }
        // Corner 14: Redis keeps no line for a subscriber that is away. The users of this instance
        // never see what is said in this second, and nothing shows them that it is missing.
        thread::sleep(Duration::from_secs(1));
    }
}

fn hear(chat: &Chat, ready: &Sender<()>) -> redis::RedisResult<()> {
    let mut connection = chat.redis.get_connection()?;
    let mut pubsub = connection.as_pubsub();
    pubsub.subscribe(CHANNEL)?;
    let _ = ready.try_send(());
    loop {
        // Corner 15: this waits for ever. A connection that died unnoticed looks like a quiet chat.
        let line = Utf8Bytes::from(pubsub.get_message()?.get_payload::<String>()?);
        // Corner 16: nobody stores the line. A user who is away for a second misses it for good.
        for outbox in lock(&chat.users).values() {
            let _ = outbox.send(line.clone());
        }
    }
}

/// Ends each channel, so that `write` says goodbye. The client answers, so that `serve` ends, too.
fn tear_down(chat: &Chat, ended: &Receiver<()>) {
    // Corner 17: everyone is sent away at the same moment, and not told when to come back. So all
    // come back at the same moment, to the instance that is left.
    lock(&chat.users).clear();
    let _ = ended.recv_timeout(Duration::from_secs(9)); // The whole takes 10 seconds at most.
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics with a lock")
}
