//! All connections of the meter: made, read in rounds, and written to.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use hubbub::stream::{Authorities, Stream};
use hubbub::websocket::client::{ClientFrame, masked};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::options::Options;
use crate::report::Memory;
use crate::wire::first_frame;

/// How many handshakes may be under way: fewer than any server's backlog of connections.
const HANDSHAKES: usize = 64;

/// How long the answer to a handshake may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The key and its answer from RFC 6455 §1.3. A fresh key would only guard against caches.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The joining is over when nothing came for so long, or after so long at most.
const SETTLED: Duration = Duration::from_millis(300);
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// The size of the read buffer. A frame is at most half as long.
const READ_BYTES: usize = 256 * 1024;

/// The pause before a poll, for each socket but a few. A poll costs some 50 ns a socket; without the
/// pause the meter would do little but poll while a message is on its way to a thousand members. A
/// measured latency may be too long by the pause.
const PAUSE_PER_SOCKET: Duration = Duration::from_nanos(500);
const FEW: usize = 64;

/// The code that stands for a close frame without one (RFC 6455 §7.1.5).
const NO_STATUS: [u8; 2] = 1005_u16.to_be_bytes();

/// One connection.
pub(crate) struct Connection {
    stream: Stream,
    /// The beginning of a frame that has not arrived as a whole.
    begun: Vec<u8>,
    /// Frames that are not sealed yet.
    pub(crate) out: Vec<u8>,
    /// Bytes that the socket did not take yet.
    sealed: Vec<u8>,
    /// Whether it is no longer read.
    pub(crate) has_ended: bool,
}

/// All connections, by their numbers.
pub(crate) struct Crowd {
    pub(crate) connections: Vec<Connection>,
    /// What any of them reads into.
    pub(crate) buffer: Vec<u8>,
    /// How many were made in a second, with their handshakes.
    pub(crate) connects_per_s: f64,
    /// The server's, with and without them.
    pub(crate) memory: Option<Memory>,
}

impl Crowd {
    /// Connects everybody. The senders come first, and so see nothing of the rush.
    pub(crate) fn connect(options: &Options) -> Result<Self, String> {
        let server = &options.url.server;
        let unreachable = |error| format!("cannot reach {server}: {error}");
        // The first of the server's addresses that takes a connection.
        let to = TcpStream::connect(server.authority()).and_then(|socket| socket.peer_addr());
        let to = to.map_err(unreachable)?;
        let authorities = server.authorities(options.ca.as_deref());
        let authorities = authorities.map_err(|error| error.to_string())?;
        let run: u32 = rand::random();
        let mut connections = Vec::new();
        let mut buffer = vec![0; READ_BYTES];
        let begin = Instant::now();
        let all: Vec<_> = (0..options.connections()).collect();
        for batch in all.chunks(HANDSHAKES) {
            for &number in batch {
                // Without a ramp this divides by zero, and everything is due at once.
                let due = Duration::try_from_secs_f64(number as f64 / options.ramp);
                thread::sleep(due.unwrap_or_default().saturating_sub(begin.elapsed()));
                let room = format!("bench-{run:x}-{}", options.room(number));
                let path = match options.outside {
                    // A user of Hubbub enters the room that the request names.
                    true => options.url.path.replace("?room={room}", ""),
                    false => options.url.path.replace("{room}", &room),
                };
                let path = path.replace("{user}", &format!("bench-{number}"));
                let connection = Connection::ask(to, authorities.as_ref(), &path, options);
                let connection = connection.map_err(unreachable)?;
                connections.push(connection);
            }
            // The last answer comes first: the others have mostly come by then, and the meter is woken
            // once and not for each.
            for connection in connections[batch[0]..].iter_mut().rev() {
                let answer = connection.take_answer(&mut buffer);
                answer.map_err(|why| format!("{server} answers: {why}"))?;
            }
        }
        let connects_per_s = (all.len() as f64 / begin.elapsed().as_secs_f64()).round();
        Ok(Self {
            connections,
            buffer,
            connects_per_s,
            memory: None,
        })
    }

    /// Reads and drops what comes with the joining, until nothing more comes.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        let end = Instant::now() + SETTLES_WITHIN;
        let mut quiet = Instant::now() + SETTLED;
        while Instant::now() < quiet.min(end) {
            for number in self.ready(quiet.min(end))? {
                quiet = Instant::now() + SETTLED;
                self.connections[number].read(&mut self.buffer, |_| Ok(()))?;
            }
        }
        Ok(())
    }

    /// Waits for connections that can be read, or take what they did not take yet; at most until then.
    pub(crate) fn ready(&self, until: Instant) -> Result<Vec<usize>, String> {
        let left = || until.saturating_duration_since(Instant::now());
        let many = self.connections.len().saturating_sub(FEW);
        thread::sleep((PAUSE_PER_SOCKET * many as u32).min(left()));
        let open = self.connections.iter().enumerate();
        let open = open.filter(|(_, connection)| !connection.has_ended);
        let (numbers, mut fds): (Vec<_>, Vec<_>) = open
            .map(|(number, connection)| {
                let mut events = PollFlags::POLLIN;
                events.set(PollFlags::POLLOUT, connection.waits());
                (
                    number,
                    PollFd::new(connection.stream.socket().as_fd(), events),
                )
            })
            .unzip();
        ppoll(&mut fds, Some(TimeSpec::from_duration(left())), None)
            .map_err(|errno| format!("cannot measure here: {errno}"))?;
        let ready = numbers.into_iter().zip(&fds);
        let ready = ready.filter(|(_, fd)| fd.any() == Some(true));
        Ok(ready.map(|(number, _)| number).collect())
    }
}

impl Drop for Crowd {
    /// Every connection says goodbye, so that the server does not wait for its user to come back.
    fn drop(&mut self) {
        for connection in &mut self.connections {
            connection.out.extend(masked(ClientFrame::Goodbye));
            connection.flush();
        }
    }
}

impl Connection {
    /// Connects and asks for the upgrade. The answer has yet to be read.
    fn ask(
        to: SocketAddr,
        authorities: Option<&Authorities>,
        path: &str,
        options: &Options,
    ) -> io::Result<Self> {
        let host = options.url.server.authority();
        let subprotocol = match options.outside {
            // With it, a user of Hubbub enters no room unasked.
            true => "Sec-WebSocket-Protocol: hubbub.v1\r\n",
            false => "",
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{subprotocol}\r\n"
        );
        let socket = TcpStream::connect(to)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        let stream = options.url.server.stream(socket, authorities)?;
        let mut socket = stream.socket();
        socket.write_all(&stream.sealed(request.as_bytes()))?;
        Ok(Self {
            stream,
            begun: Vec::new(),
            out: Vec::new(),
            sealed: Vec::new(),
            has_ended: false,
        })
    }

    /// Waits for the answer to the handshake. An error is what came instead of an agreement.
    fn take_answer(&mut self, buffer: &mut [u8]) -> Result<(), String> {
        let mut count = 0;
        let end = loop {
            match self.stream.read(&mut buffer[count..]) {
                Ok(0) => return Err("nothing, and closes".to_owned()),
                Ok(more) => count += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("nothing ({error})")),
            }
            let mut windows = buffer[..count].windows(4);
            if let Some(at) = windows.position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = String::from_utf8_lossy(&buffer[..count]);
        if !text.starts_with("HTTP/1.1 101") || !text.contains(ACCEPT) {
            // The status, and the first line of the body, which says why.
            let mut lines = text.trim_start_matches("HTTP/1.1 ").lines();
            let status = lines.next().unwrap_or_default();
            let why = lines.skip_while(|line| !line.is_empty()).nth(1);
            return Err(format!("{status}, {}", why.unwrap_or_default()));
        }
        self.begun.extend_from_slice(&buffer[end..count]);
        let nonblocking = self.stream.socket().set_nonblocking(true);
        nonblocking.map_err(|error| error.to_string())
    }

    /// Reads once, and hands out each text that is whole. An error is the end of the connection.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        mut hears: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let begun = self.begun.len();
        buffer[..begun].copy_from_slice(&self.begun);
        let mut end = begun;
        // What is decrypted already is not announced by the socket.
        while end == begun || (self.stream.is_encrypted() && end < buffer.len()) {
            match self.stream.read(&mut buffer[end..]) {
                Ok(0) if end == begun => return Err("the server closed the connection".to_owned()),
                // What came before tells more. The next read is at the end again.
                Ok(0) => break,
                Ok(count) => end += count,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => break,
                    _ => return Err(error.to_string()),
                },
            }
        }
        let mut rest = &buffer[..end];
        while let Some((opcode, payload, behind)) = first_frame(rest)? {
            match opcode {
                OpCode::Data(Data::Text | Data::Continue) => hears(payload)?,
                OpCode::Control(Control::Ping) => {
                    self.out.extend(masked(ClientFrame::Pong(payload)));
                }
                OpCode::Control(Control::Close) => {
                    let (code, reason) = payload.split_first_chunk().unwrap_or((&NO_STATUS, &[]));
                    let code = u16::from_be_bytes(*code);
                    let reason = String::from_utf8_lossy(reason);
                    return Err(format!("the server closed the connection: {code} {reason}"));
                }
                OpCode::Data(_) | OpCode::Control(_) => {}
            }
            rest = behind;
        }
        if rest.len() >= buffer.len() / 2 {
            return Err("the server sent a frame that is too long for this meter".to_owned());
        }
        self.begun.clear();
        self.begun.extend_from_slice(rest);
        self.flush();
        Ok(())
    }

    /// Whether the socket did not take all that was written to it.
    pub(crate) fn waits(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Writes what the socket did not take yet, as far as it takes it.
    pub(crate) fn flush(&mut self) {
        if !self.out.is_empty() {
            self.sealed
                .extend_from_slice(&self.stream.sealed(&self.out));
            self.out.clear();
        }
        while !self.sealed.is_empty() {
            match self.stream.socket().write(&self.sealed) {
                Ok(count) => drop(self.sealed.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The next read says why.
                Err(_) => self.sealed.clear(),
            }
        }
    }
}
