//! The listener and the accept loop: each connection gets a thread, or a 503.
//!
//! The acceptor waits for no client.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};
use socket2::{Domain, Protocol, Socket, Type};

use super::connection::{Connections, NotStarted};
use super::http::Response;
use super::state::State;
use crate::metrics;
use crate::stream::Stream;

/// The number of connections that may wait to be accepted. The standard library asks for 128.
const BACKLOG: i32 = 4096;

/// By default the kernel would buffer megabytes for a user who does not read, and megabytes from a user
/// who sends faster than the server reads.
const SEND_BUFFER: usize = 64 * 1024;
const RECEIVE_BUFFER: usize = 64 * 1024;

/// The kernel gives a peer up if it acknowledges nothing for the write time-out and this time more. A
/// peer that acknowledges and never reads is given up by the writer instead.
const USER_TIMEOUT_LATER: Duration = Duration::from_secs(10);

/// The pause of the acceptor when no connection can be accepted, such as without a free file.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A refused client has this long to read the response, and this many sockets may linger for it.
const LINGER: Duration = Duration::from_secs(1);
const MOST_LINGERING: usize = 256;

/// The shortest time between two warnings that the server is full.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Listens on an address. `write_timeout` is the time that one batch for a client may take.
pub(super) fn listen_on(address: SocketAddr, write_timeout: Duration) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Otherwise connections of the last run, which the kernel keeps for a while, would prevent a start.
    socket.set_reuse_address(true)?;
    // Accepted connections inherit these options.
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_tcp_user_timeout(Some(write_timeout + USER_TIMEOUT_LATER))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts connections until the instance is closing.
pub(super) fn accept(listener: &TcpListener, connections: &Arc<Connections>, state: &State) {
    let mut refused = LingeringSockets::default();
    loop {
        let accepted = listener.accept();
        if state.is_closing() {
            return;
        }
        refused.close_due(Instant::now());
        let started = accepted.and_then(|(socket, peer)| {
            let stream = match &state.identity {
                Some(identity) => Stream::server(socket, identity)?,
                None => Stream::plain(socket),
            };
            let stream = Arc::new(stream);
            match connections.start(&stream, peer) {
                Ok(()) => Ok(()),
                Err(NotStarted::Full) => {
                    refused.refuse_full(stream);
                    Ok(())
                }
                Err(NotStarted::Address(refusal)) => {
                    debug!("{peer}: {refusal}");
                    refused.refuse(stream, &refusal.response());
                    Ok(())
                }
                Err(NotStarted::NoThread(error)) => {
                    refused.refuse_full(stream);
                    Err(error)
                }
            }
        });
        if let Err(error) = started {
            // A client that is gone before it was accepted is no fault.
            if error.kind() != io::ErrorKind::ConnectionAborted {
                warn!("cannot take a connection: {error}");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// The response of a server that can hold no more connections.
fn full() -> Response {
    Response::new(503, "this server is full; try again later").with("Retry-After", "5")
}

/// The sockets of refused clients, which linger until the client can have read its response. If a socket
/// were closed with the request unread, the kernel would send a reset, and the client could lose the
/// response. The acceptor cannot wait for each of them, so it keeps them here.
#[derive(Default)]
struct LingeringSockets {
    sockets: VecDeque<(Instant, Arc<Stream>)>,
    warned: Option<Instant>,
}

impl LingeringSockets {
    fn refuse_full(&mut self, stream: Arc<Stream>) {
        metrics::REFUSED_FULL.count();
        let now = Instant::now();
        if self
            .warned
            .is_none_or(|warned| now.duration_since(warned) > WARN_EVERY)
        {
            self.warned = Some(now);
            warn!("full: connections are refused");
        }
        self.refuse(stream, &full());
    }

    fn refuse(&mut self, stream: Arc<Stream>, response: &Response) {
        let socket = stream.socket();
        let _ = socket.set_nonblocking(true);
        // The handshake would take longer than the acceptor has.
        if !stream.is_encrypted() {
            let _ = response.write(socket);
        }
        let _ = socket.shutdown(Shutdown::Write);
        self.sockets.push_back((Instant::now(), stream));
    }

    /// Closes the sockets that have lingered long enough, and the oldest ones when there are too many.
    fn close_due(&mut self, now: Instant) {
        while let Some((refused, stream)) = self.sockets.front() {
            if now.duration_since(*refused) < LINGER && self.sockets.len() < MOST_LINGERING {
                return;
            }
            let mut discarded = [0; 4096];
            while matches!(stream.socket().read(&mut discarded), Ok(1..)) {}
            self.sockets.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use socket2::SockRef;

    use super::*;

    #[test]
    fn an_accepted_connection_has_the_options_of_the_listener() {
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
