//! The server: bind, accept, tear down.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use log::{info, warn};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::backplane::{Backplane, ConnectError, Local, Redis};
use crate::config::{Config, ConfigError};
use crate::connection::{Connections, NoConnection, busy, too_many_from_one_address};
use crate::http::Answer;
use crate::hub::Hub;
use crate::limits::Capacity;
use crate::message::InstanceId;
use crate::metrics;
use crate::session::Instance;
use crate::vital;

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

/// How often a teardown looks whether sends are still in flight.
const IN_FLIGHT_GLANCE: Duration = Duration::from_millis(2);

/// What a teardown keeps of its time for the backplane.
const BACKPLANE_SHARE: Duration = Duration::from_secs(4);

/// Why a server does not start. The operator acts next.
#[derive(Debug)]
pub enum StartError {
    /// Options that do not fit together.
    Config(ConfigError),
    /// Redis is not there, or not as it should be.
    Redis(ConnectError),
    /// The address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The system gives no thread.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Redis(error) => error.fmt(f),
            Self::Listen(address, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "cannot listen on {address}: something else does already")
            }
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A server that listens.
pub struct Server {
    instance: Arc<Instance>,
    connections: Arc<Connections>,
    listener: Arc<TcpListener>,
    address: SocketAddr,
    capacity: Capacity,
}

impl Server {
    /// Checks the options, binds the address and connects to the backplane, in this order, so that
    /// whatever is wrong shows before anything is announced.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        config.check().map_err(StartError::Config)?;
        let listen = config.listen;
        let user_timeout = config.deadlines.write + USER_TIMEOUT_LATER;
        let listener =
            listen_on(listen, user_timeout).map_err(|error| StartError::Listen(listen, error))?;
        let address = listener
            .local_addr()
            .map_err(|error| StartError::Listen(listen, error))?;
        let hub = Arc::new(Hub::new(InstanceId::random()));
        let retention = config.retention.clone();
        let backplane: Box<dyn Backplane> = match &config.redis {
            None => {
                Box::new(Local::start(Arc::clone(&hub), retention).map_err(StartError::Thread)?)
            }
            Some(redis) => Box::new(
                Redis::start(redis, &config.prefix, &hub, retention).map_err(StartError::Redis)?,
            ),
        };
        let capacity = Capacity::of_this_machine(config.max_connections);
        info!(
            "room for {} connections, bounded by {}",
            capacity.connections, capacity.bound_by
        );
        metrics::MAX_CONNECTIONS.set(capacity.connections);
        let instance = Arc::new(Instance::new(config, hub, backplane));
        Ok(Self {
            connections: Arc::new(Connections::new(Arc::clone(&instance))),
            instance,
            listener: Arc::new(listener),
            address,
            capacity,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it runs on, for people.
    pub fn runs_on(&self) -> String {
        match &self.instance.config.redis {
            None => "the embedded backplane".to_owned(),
            Some(redis) => format!("Redis at {redis}"),
        }
    }

    /// Serves until `stop` says something, then tears everything down.
    pub fn run(self, stop: &Receiver<()>) -> io::Result<()> {
        let acceptor = vital::spawn("acceptor", {
            let listener = Arc::clone(&self.listener);
            let connections = Arc::clone(&self.connections);
            let instance = Arc::clone(&self.instance);
            let capacity = self.capacity;
            move || accept(&listener, &connections, &instance, capacity)
        })?;
        // A sender that is dropped also ends it.
        let _ = stop.recv();
        self.tear_down(acceptor);
        Ok(())
    }

    /// Nothing new; sends in flight answered; everyone told and closed; then the backplane.
    fn tear_down(&self, acceptor: JoinHandle<()>) {
        let begun = Instant::now();
        let drain = self.instance.config.drain;
        let deadline = begun + drain.saturating_sub(BACKPLANE_SHARE).max(drain / 2);
        info!("closing: {} connections are open", self.connections.count());
        self.instance.close();
        self.stop_accepting(acceptor);
        while self.instance.backplane.in_flight() > 0 && begun.elapsed() < drain / 4 {
            thread::sleep(IN_FLIGHT_GLANCE);
        }
        self.connections.close_all();
        if !self.connections.wait_until_none(deadline) {
            warn!("{} connections are broken off", self.connections.count());
            self.connections.break_all();
            self.connections.wait_until_none(begun + drain);
        }
        self.instance.backplane.close();
        info!("closed in {:.1} s", begun.elapsed().as_secs_f64());
    }

    fn stop_accepting(&self, acceptor: JoinHandle<()>) {
        // Shutting a listener down wakes `accept` on Linux; a connection to ourselves does
        // elsewhere.
        if SockRef::from(&*self.listener)
            .shutdown(Shutdown::Both)
            .is_err()
        {
            let mut address = self.address;
            if address.ip().is_unspecified() {
                address.set_ip([127, 0, 0, 1].into());
            }
            let _ = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        }
        let _ = acceptor.join();
    }
}

fn listen_on(address: SocketAddr, user_timeout: Duration) -> io::Result<TcpListener> {
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
    socket.set_tcp_user_timeout(Some(user_timeout))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn accept(
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
    use super::*;

    #[test]
    fn whoever_is_accepted_has_the_options_of_the_listener() {
        let user_timeout = Duration::from_secs(17);
        let listener = listen_on(([127, 0, 0, 1], 0).into(), user_timeout).expect("a listener");
        let address = listener.local_addr().expect("its address");
        let _peer = TcpStream::connect(address).expect("a connection");
        let (accepted, _) = listener.accept().expect("the other end");
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().expect("an option"));
        // Linux counts its own bookkeeping in, as much again: socket(7).
        let size = accepted.send_buffer_size().expect("an option");
        assert_eq!(size, 2 * SEND_BUFFER);
        let timeout = accepted.tcp_user_timeout().expect("an option");
        assert_eq!(timeout, Some(user_timeout));
    }
}
