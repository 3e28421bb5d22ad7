//! One instance: it takes connections, carries each user's conversation, and is torn down.
//!
//! Listed bottom-up, as in `lib.rs`: each file uses only those above it. Read it from the other end: here
//! it starts and ends; `accept.rs` gives each connection a thread; [`connection`] takes it from the first
//! byte to the last, by way of [`http`], [`admission`] and the upgrade; [`session`] is what a user says
//! and hears.

pub mod token;
pub mod config;
pub mod limits;
pub mod session;
pub mod page;
pub mod http;
pub mod admission;
pub mod api;
pub mod connection;
mod accept;

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use crossbeam_channel::Receiver;
use log::{info, warn};
use socket2::SockRef;

use self::accept::{accept, listen_on};
use self::config::{Config, ConfigError};
use self::connection::Connections;
use self::limits::Capacity;
use self::session::Instance;
use crate::backplane::{Backplane, ConnectError, Local, Redis};
use crate::hub::Hub;
use crate::message::InstanceId;
use crate::metrics;
use crate::threads;

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
        let listener = listen_on(listen, config.deadlines.write)
            .map_err(|error| StartError::Listen(listen, error))?;
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
        let acceptor = threads::spawn_vital("acceptor", {
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
