//! One instance: its start, its connections, and its teardown.
//!
//! The files are listed bottom-up, as in `lib.rs`: each uses only those above it. Read them in the order
//! of a message, from the socket to the backplane:
//!
//! 1. This file starts the server, and tears it down.
//! 2. `accept.rs` accepts connections, as many as [`capacity`] allows, and starts a thread for each.
//! 3. [`connection`] serves one connection. It reads the request ([`http`]), checks it ([`auth`],
//!    [`token`], [`grant`]), and then sends a response ([`page`], [`api`], [`admin`]), which may be a room that is
//!    followed, or upgrades to a chat. The read pump gives each message of a chat to the session.
//! 4. [`session`] turns a message into a command, checks its [`rate`], and publishes it to the backplane.
//!    It answers with events ([`answers`]) and pages of the log ([`history`]).
//!
//! Other services post to a room at [`hooks`], and the [`poster`] posts to them what is said there, to each by a
//! [`webhook`]. [`moderator`] carries out what operators order. [`room_list`] is the list of rooms. [`state`] is what
//! all connections share, [`config`] holds the options, and [`proxies`] finds the address of a client behind a proxy.

pub mod token;
pub mod grant;
pub mod proxies;
pub mod webhook;
pub mod config;
pub mod rate;
pub mod capacity;
pub mod room_list;
pub mod state;
pub mod answers;
pub mod history;
pub mod session;
pub mod page;
pub mod http;
pub mod auth;
mod responses;
pub mod hooks;
pub mod poster;
mod post_body;
pub mod api;
pub mod admin;
pub mod connection;
mod accept;
mod moderator;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fmt, io};

use crossbeam_channel::Receiver;
use log::{info, warn};
use socket2::SockRef;

use self::accept::{accept, listen_on};
use self::config::{Config, ConfigError};
use self::connection::Connections;
use self::moderator::{Moderator, read_bans};
use self::poster::{Posters, take_leases};
use self::state::State;
use crate::backplane::{
    Backplane, BackplaneError, ConnectError, Local, LocalError, Redis, conceal,
};
use crate::hub::Hub;
use crate::message::InstanceId;
use crate::metrics;
use crate::stream::TlsError;
use crate::threads;
use crate::threads::lock;

/// The pause between two checks of a teardown whether sends are still in flight.
const IN_FLIGHT_CHECK: Duration = Duration::from_millis(2);

/// The part of its time that a teardown keeps for the backplane.
const BACKPLANE_SHARE: Duration = Duration::from_secs(4);

/// The reason why a server does not start. The operator acts next.
#[derive(Debug)]
pub enum StartError {
    /// The options do not fit together.
    Config(ConfigError),
    /// The embedded backplane does not start.
    Local(LocalError),
    /// Redis cannot be reached, or cannot be used.
    Redis(ConnectError),
    /// The server cannot listen on the address.
    Listen(SocketAddr, io::Error),
    /// The bans cannot be read.
    Bans(BackplaneError),
    /// The certificate cannot be used.
    Tls(TlsError),
    /// The system gives no thread.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Local(error) => error.fmt(f),
            Self::Redis(error) => error.fmt(f),
            Self::Listen(address, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "cannot listen on {address}: something else does already")
            }
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Bans(error) => write!(f, "cannot read the operators' bans: {error}"),
            Self::Tls(error) => error.fmt(f),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A server that listens.
pub struct Server {
    state: Arc<State>,
    connections: Arc<Connections>,
    listener: Arc<TcpListener>,
    address: SocketAddr,
}

impl Server {
    /// Checks the options, binds the address and connects to the backplane. An error in any of them comes
    /// before the instance announces itself.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        config.check().map_err(StartError::Config)?;
        let identity = config.identity().map_err(StartError::Tls)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        metrics::STARTED.set(now.map_or(0, |now| now.as_secs() as usize));
        let listen = config.listen;
        let listener = listen_on(listen, config.deadlines.write)
            .map_err(|error| StartError::Listen(listen, error))?;
        let address = listener
            .local_addr()
            .map_err(|error| StartError::Listen(listen, error))?;
        let hub = Hub::start(InstanceId::random(), config.fanout_workers());
        let hub = Arc::new(hub.map_err(StartError::Thread)?);
        let retention = config.retention.clone();
        let backplane: Box<dyn Backplane> = match &config.redis[..] {
            [] => {
                let data = config.data.as_deref();
                let local = Local::start(Arc::clone(&hub), retention, data);
                Box::new(local.map_err(StartError::Local)?)
            }
            redis => Box::new(
                Redis::start(redis, &config.prefix, &hub, retention).map_err(StartError::Redis)?,
            ),
        };
        let mut state = State::new(config, hub, backplane);
        state.identity = identity;
        let state = Arc::new(state);
        // Before the first connection: nobody comes in whom an operator put out.
        read_bans(&state).map_err(StartError::Bans)?;
        let bans = Arc::clone(&state.bans);
        state.hub.conceal_with(Box::new(move |room, message| {
            let bans = lock(&bans);
            // Nearly always there are none.
            if !bans.is_empty() {
                conceal(&bans, room, message);
            }
        }));
        take_leases(&state);
        let connections = Arc::new(Connections::new(Arc::clone(&state)));
        let capacity = connections.capacity();
        info!(
            "capacity: {} connections, bounded by {}; {} threads kept for writers",
            capacity.connections, capacity.bound_by, capacity.reserve
        );
        metrics::MAX_CONNECTIONS.set(capacity.connections);
        if state.config.is_open_to_anyone() {
            warn!(
                "anyone who reaches this address can use any name; --token-secret asks for tokens"
            );
        }
        Ok(Self {
            connections,
            state,
            listener: Arc::new(listener),
            address,
        })
    }

    /// The address on which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same, as a URL.
    pub fn url(&self) -> String {
        self.url_at(self.address)
    }

    /// The address for a browser on this machine.
    pub fn url_here(&self) -> String {
        self.url_at(self.address_here())
    }

    fn url_at(&self, address: SocketAddr) -> String {
        let scheme = match self.state.identity {
            Some(_) => "https",
            None => "http",
        };
        format!("{scheme}://{address}")
    }

    fn address_here(&self) -> SocketAddr {
        let mut address = self.address;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
        address
    }

    /// Whether users need tokens.
    pub fn needs_tokens(&self) -> bool {
        self.state.verifier.is_some()
    }

    /// What reads the files again that options name; `None` if none does.
    pub fn files_reader(&self) -> Option<impl Fn() + Send + 'static> {
        let state = Arc::clone(&self.state);
        state
            .has_files()
            .then_some(move || state.read_files_again())
    }

    /// The name of the backplane, for the start line.
    pub fn runs_on(&self) -> String {
        let config = &self.state.config;
        match (&config.redis[..], &config.data) {
            ([], Some(folder)) => format!("its messages in {}", folder.display()),
            ([], None) => "its messages in memory, until it ends".to_owned(),
            (redis, _) => {
                let redis: Vec<_> = redis.iter().map(ToString::to_string).collect();
                format!("Redis at {}", redis.join(" and "))
            }
        }
    }

    /// Serves until a value comes from `stop`, and then tears everything down.
    pub fn run(self, stop: &Receiver<()>) -> io::Result<()> {
        let acceptor = threads::spawn_vital("acceptor", {
            let listener = Arc::clone(&self.listener);
            let connections = Arc::clone(&self.connections);
            let state = Arc::clone(&self.state);
            move || accept(&listener, &connections, &state)
        })?;
        let moderator = Moderator::start(&self.state, &self.connections)?;
        let posters = Posters::start(&self.state)?;
        // An error means that the sender is dropped, which ends the server as well.
        let _ = stop.recv();
        self.tear_down(acceptor, moderator, posters);
        Ok(())
    }

    /// Takes nothing new, waits for the receipts of sends in flight, closes every connection, and then
    /// closes the backplane.
    fn tear_down(&self, acceptor: JoinHandle<()>, moderator: Moderator, mut posters: Posters) {
        let begun = Instant::now();
        let drain = self.state.config.drain;
        let deadline = begun + drain.saturating_sub(BACKPLANE_SHARE).max(drain / 2);
        info!("closing: {} connections are open", self.connections.count());
        self.state.close();
        posters.stop();
        self.stop_accepting(acceptor);
        while self.state.backplane.in_flight() > 0 && begun.elapsed() < drain / 4 {
            thread::sleep(IN_FLIGHT_CHECK);
        }
        self.connections.close_all();
        let answered = Instant::now() + self.state.config.deadlines.goodbye();
        if !self.connections.wait_until_none(answered.min(deadline)) {
            warn!("{} connections are broken off", self.connections.count());
            self.connections.break_all();
            self.connections.wait_until_none(begun + drain);
        }
        posters.close(deadline);
        self.state.backplane.close();
        moderator.close();
        self.state.hub.close();
        info!("closed in {:.1} s", begun.elapsed().as_secs_f64());
    }

    fn stop_accepting(&self, acceptor: JoinHandle<()>) {
        // On Linux, shutting the listener down wakes `accept`. On other systems, a connection does.
        if SockRef::from(&*self.listener)
            .shutdown(Shutdown::Both)
            .is_err()
        {
            let _ = TcpStream::connect_timeout(&self.address_here(), Duration::from_secs(1));
        }
        let _ = acceptor.join();
    }
}
