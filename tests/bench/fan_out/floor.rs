//! The floor: a loop that writes the same bytes to as many sockets, with nothing else.
//!
//! No queues, no writer threads, no log, no ids, no limits, and one member that does not read stops
//! them all. What a chat server costs above it is the price of those.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use hubbub::websocket::frame;

type Room = Arc<Mutex<Vec<Arc<TcpStream>>>>;
type Rooms = Arc<Mutex<HashMap<String, Room>>>;

/// The answer to the key that the meter always sends (RFC 6455 §1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const STACK: usize = 64 * 1024;

/// Serves until its standard input ends: with whoever started it, however that ends.
pub(crate) fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    println!("listening on http://{address}");
    let rooms = Rooms::default();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let rooms = Arc::clone(&rooms);
            let connection = thread::Builder::new().stack_size(STACK);
            // A connection that breaks off is over, and nothing else.
            connection
                .spawn(move || drop(converse(&Arc::new(socket), &rooms)))
                .expect("a thread");
        }
    });
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
}

fn converse(socket: &Arc<TcpStream>, rooms: &Rooms) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Vec::new();
    let head = loop {
        read(socket, &mut buffer)?;
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break buffer.drain(..at + 4).collect::<Vec<_>>();
        }
    };
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (user, room) = path.split_once("?room=").unwrap_or((path, ""));
    let user = user.rsplit('/').next().unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    (&**socket).write_all(answer.as_bytes())?;
    let room = {
        let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(rooms.entry(room.to_owned()).or_default())
    };
    lock(&room).push(Arc::clone(socket));
    let outcome = pass_on(socket, user, buffer, &room);
    lock(&room).retain(|member| !Arc::ptr_eq(member, socket));
    outcome
}

fn lock(room: &Room) -> std::sync::MutexGuard<'_, Vec<Arc<TcpStream>>> {
    room.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(mut socket: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 16 * 1024];
    match socket.read(&mut chunk)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => {
            buffer.extend_from_slice(&chunk[..count]);
            Ok(())
        }
    }
}

/// The loop.
fn pass_on(
    socket: &Arc<TcpStream>,
    user: &str,
    mut buffer: Vec<u8>,
    room: &Room,
) -> io::Result<()> {
    loop {
        let mut at = 0;
        while let Some((text, length)) = unmasked(&buffer[at..])? {
            let frame = frame::text(&[format!("{user}: {text}")]).expect("one frame");
            for member in &*lock(room) {
                if !Arc::ptr_eq(member, socket) {
                    // A member that is gone is taken out by its own thread.
                    let _ = (&**member).write_all(&frame);
                }
            }
            at += length;
        }
        buffer.drain(..at);
        read(socket, &mut buffer)?;
    }
}

/// The text of the first frame, if all of it is there, and the frame's length. Anything but text ends
/// the connection.
fn unmasked(bytes: &[u8]) -> io::Result<Option<(String, usize)>> {
    let &[first, second, ref rest @ ..] = bytes else {
        return Ok(None);
    };
    let (length, rest) = match second & 0x7f {
        126 => match *rest {
            [high, low, ref rest @ ..] => (usize::from(u16::from_be_bytes([high, low])), rest),
            _ => return Ok(None),
        },
        short => (usize::from(short), rest),
    };
    if first != 0x81 {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let Some((mask, rest)) = rest.split_at_checked(4) else {
        return Ok(None);
    };
    let Some(payload) = rest.get(..length) else {
        return Ok(None);
    };
    let text = payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b);
    let text = String::from_utf8(text.collect()).map_err(io::Error::other)?;
    let before = bytes.len() - rest.len();
    Ok(Some((text, before + length)))
}
