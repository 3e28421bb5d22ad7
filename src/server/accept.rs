//! The listener and the accept loop: each connection gets a thread, or a 503.
//!
//! The acceptor waits for nobody. It counts connections against what the machine can hold, so that
//! starting a thread does not fail.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::warn;
use socket2::{Domain, Protocol, Socket, Type};

use super::connection::{Connections, NoConnection, busy, too_many_from_one_address};
use super::http::Answer;
use super::limits::Capacity;
use super::session::Instance;
use crate::metrics;

/// How many connections may wait to be accepted. The standard library asks for 128.
const BACKLOG: i32 = 4096;

/// The kernel would otherwise hoard megabytes for a user who does not read, and megabytes of one who
/// sends faster than is read.
const SEND_BUFFER: usize = 64 * 1024;
const RECEIVE_BUFFER: usize = 64 * 1024;

/// How much longer than a batch may take to be written the kernel tries. It catches a peer that is
/// gone without a word; one that acknowledges and never reads is the writer's to give up.
const USER_TIMEOUT_LATER: Duration = Duration::from_secs(10);

/// How long the acceptor pauses when the table of open files is full.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long one who was refused may take to read why, how many such there may be, and how often the
/// operator is told.
const REFUSAL_LASTS: Duration = Duration::from_secs(1);
const MOST_REFUSED: usize = 256;
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Listens on an address. Batches that are written to its connections may take `write_timeout`.
pub(super) fn listen_on(address: SocketAddr, write_timeout: Duration) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Connections of the last run that linger must not keep this one from starting.
    socket.set_reuse_address(true)?;
    // Those that are accepted inherit these.
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_tcp_user_timeout(Some(write_timeout + USER_TIMEOUT_LATER))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes connections until the instance is closing.
pub(super) fn accept(
    listener: &TcpListener,
    connections: &Arc<Connections>,
    instance: &Instance,
    capacity: Capacity,
) {
    let mut refused = Refused::default();
    loop {
        let accepted = listener.accept();
        if instance.is_closing() {
            return;
        }
        refused.let_go(Instant::now());
        let started = accepted.and_then(|(socket, peer)| {
            let socket = Arc::new(socket);
            if connections.count() >= capacity.connections {
                refused.refuse(socket, &busy());
                return Ok(());
            }
            match connections.start(&socket, peer) {
                Ok(()) => Ok(()),
                Err(NoConnection::Address) => {
                    refused.refuse(socket, &too_many_from_one_address());
                    Ok(())
                }
                Err(NoConnection::Thread(error)) => {
                    refused.refuse(socket, &busy());
                    Err(error)
                }
            }
        });
        if let Err(error) = started {
            // Nothing is wrong with a peer that is gone before it was accepted.
            if error.kind() != io::ErrorKind::ConnectionAborted {
                warn!("cannot take a connection: {error}");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Those who were told that there is no room. Closed at once, with their request unread, they would
/// get a reset that takes the answer along; and the acceptor waits for nobody.
#[derive(Default)]
struct Refused {
    sockets: VecDeque<(Instant, Arc<TcpStream>)>,
    told_operator: Option<Instant>,
}

impl Refused {
    fn refuse(&mut self, socket: Arc<TcpStream>, answer: &Answer) {
        metrics::REFUSED_FULL.count();
        let now = Instant::now();
        if self
            .told_operator
            .is_none_or(|told| now.duration_since(told) > TELL_EVERY)
        {
            self.told_operator = Some(now);
            warn!("full: connections are refused");
        }
        let _ = socket.set_nonblocking(true);
        let _ = answer.write(&socket);
        let _ = socket.shutdown(Shutdown::Write);
        self.sockets.push_back((now, socket));
    }

    /// Closes those who had the time to read it, and the oldest when there are many.
    fn let_go(&mut self, now: Instant) {
        while let Some((refused, socket)) = self.sockets.front() {
            if now.duration_since(*refused) < REFUSAL_LASTS && self.sockets.len() < MOST_REFUSED {
                return;
            }
            let mut scrap = [0; 4096];
            while matches!((&mut &**socket).read(&mut scrap), Ok(1..)) {}
            self.sockets.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[test]
    fn whoever_is_accepted_has_the_options_of_the_listener() {
        let write_timeout = Duration::from_secs(17);
        let listener = listen_on(([127, 0, 0, 1], 0).into(), write_timeout).expect("a listener");
        let address = listener.local_addr().expect("its address");
        let _peer = TcpStream::connect(address).expect("a connection");
        let (accepted, _) = listener.accept().expect("the other end");
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().expect("an option"));
        // Linux counts its own bookkeeping in, as much again: socket(7).
        let size = accepted.send_buffer_size().expect("an option");
        assert_eq!(size, 2 * SEND_BUFFER);
        let timeout = accepted.tcp_user_timeout().expect("an option");
        assert_eq!(timeout, Some(write_timeout + USER_TIMEOUT_LATER));
    }
}
