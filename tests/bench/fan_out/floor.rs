//! The floor: writes the same bytes to as many sockets, with nothing else.
//!
//! The sockets are split into shares, and one thread at a time writes to a share. It is the thread that
//! read the message for the first share, and one thread of its own for each further share.
//!
//! There is no log, no ids, no limits, and one member that does not read stops its whole share. What a
//! chat server costs above it is the price of those.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crossbeam_channel::{Sender, unbounded};
use hubbub::websocket::frame;

/// The members of a room, by share.
type Room = Arc<[Mutex<Vec<Arc<TcpStream>>>]>;

/// A frame for a room.
#[derive(Clone)]
struct Said {
    room: Room,
    by: Arc<TcpStream>,
    frame: Arc<[u8]>,
}

impl Said {
    /// Writes it to all members in a share, but the sender.
    fn write(&self, share: usize) {
        for member in &*lock(&self.room[share]) {
            if !Arc::ptr_eq(member, &self.by) {
                // A member that is gone is taken out by its own thread.
                let _ = (&**member).write_all(&self.frame);
            }
        }
    }
}

/// What all connections share.
struct Floor {
    rooms: Mutex<HashMap<String, Room>>,
    /// Held while writing to the first share.
    first: Mutex<()>,
    /// To the threads of the further shares.
    further: Vec<Sender<Said>>,
}

impl Floor {
    fn start(shares: usize) -> Self {
        let further = (1..shares).map(|share| {
            let (sender, frames) = unbounded::<Said>();
            thread::spawn(move || frames.iter().for_each(|said| said.write(share)));
            sender
        });
        Self {
            rooms: Mutex::default(),
            first: Mutex::default(),
            further: further.collect(),
        }
    }

    fn room(&self, name: &str) -> Room {
        let members = || (0..=self.further.len()).map(|_| Mutex::default());
        let mut rooms = lock(&self.rooms);
        let room = rooms.entry(name.to_owned());
        Arc::clone(room.or_insert_with(|| members().collect()))
    }
}

/// The answer to the key that the meter always sends (RFC 6455 §1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const STACK: usize = 64 * 1024;

/// Serves until its standard input ends: with whoever started it, however that ends.
pub(crate) fn serve(threads: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    println!("listening on http://{address}");
    let floor = Arc::new(Floor::start(threads));
    thread::spawn(move || {
        for (number, socket) in listener.incoming().flatten().enumerate() {
            let floor = Arc::clone(&floor);
            let share = number % threads;
            let connection = thread::Builder::new().stack_size(STACK);
            // A connection that breaks off is over, and nothing else.
            connection
                .spawn(move || drop(converse(&Arc::new(socket), share, &floor)))
                .expect("a thread");
        }
    });
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
}

fn converse(socket: &Arc<TcpStream>, share: usize, floor: &Floor) -> io::Result<()> {
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
    let room = floor.room(room);
    lock(&room[share]).push(Arc::clone(socket));
    let outcome = pass_on(socket, user, buffer, &room, floor);
    lock(&room[share]).retain(|member| !Arc::ptr_eq(member, socket));
    outcome
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    floor: &Floor,
) -> io::Result<()> {
    loop {
        let mut at = 0;
        while let Some((text, length)) = unmasked(&buffer[at..])? {
            let frame = frame::text(&[format!("{user}: {text}")]).expect("one frame");
            let said = Said {
                room: Arc::clone(room),
                by: Arc::clone(socket),
                frame,
            };
            for share in &floor.further {
                // Its thread ends with the process.
                let _ = share.send(said.clone());
            }
            let turn = lock(&floor.first);
            said.write(0);
            drop(turn);
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
