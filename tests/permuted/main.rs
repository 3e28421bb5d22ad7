//! Threads, permuted: the protocols between threads run under many orders of their steps, and what must always be true
//! is looked at under each.
//!
//! This crate compiles files of `src` once more, as they are. Only the things that they wait with are others: `shuttle`
//! runs the threads of a test one at a time, and chooses at each lock, wait, queue and atomic which one goes on. For
//! that, the names `std`, `crossbeam_channel`, `redis` and `socket2` mean this crate itself, which has the rest of `std`
//! as it is. A thread that waits for ever is found at once, since a wait for a condition never times out ([`threads`]).
//!
//! Steps interleave, and are not reordered: the orders of memory (`Ordering::Acquire` and the like) are not tested.
//! Sockets and Redis are simple ones ([`socket`], [`pubsub`], [`master`]): real ones are the matter of `tests/it`.
//!
//!     cargo run --example permuted -- [schedules] [part of a test's name]
//!
//! A failure prints its seed, with which `PERMUTED_SEED` repeats it.

// What it prints is its result.
#![allow(clippy::print_stdout, clippy::print_stderr)]
// What stands for a crate has that crate's names and signatures, and its own documentation.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::needless_pass_by_value, clippy::len_without_is_empty)]
// The parts of a file of `src` that no test here needs.
#![allow(dead_code, clippy::large_enum_variant)]

extern crate self as crossbeam_channel;
extern crate self as redis;
extern crate self as socket2;
extern crate self as std;
extern crate std as real;

pub mod permuter;
pub mod threads;
pub mod channel;
pub mod clock;
pub mod socket;
#[path = "../../src/hub/mod.rs"]
pub mod hub;
pub mod server;
#[path = "../../src/backoff.rs"]
mod backoff;
pub mod redis_crate;
pub mod master;
pub mod pubsub;
pub mod backplane;
#[path = "../../src/backplane/redis/single_flight.rs"]
mod single_flight;
mod tests;

// The rest of `std`, as it is.
pub use real::{
    any, borrow, cell, collections, convert, env, error, fmt, hash, io, iter, mem, ops, panic,
    process, str, string,
};

pub use channel::{Receiver, RecvTimeoutError, SendError, Sender, bounded, unbounded};
pub use redis_crate::{
    Cmd, Connection, PushKind, RedisError, ServerError, ServerErrorKind, Value, cmd,
};
pub use socket::SockRef;

use hubbub::{lookalikes, message, metrics, protocol, websocket};

pub mod sync {
    //! Shuttle's locks and atomics. An `Arc` and a `OnceLock` make nobody wait.
    pub use real::sync::OnceLock;
    pub use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic};
}

pub mod thread {
    //! Shuttle's threads.
    pub use shuttle::thread::{Builder, JoinHandle, panicking, scope, sleep, spawn, yield_now};
}

pub mod time {
    //! A clock that stands still, unless it is moved.
    pub use crate::clock::Instant;
    pub use real::time::{Duration, SystemTime, UNIX_EPOCH};
}

pub mod net {
    //! A socket that the permuter moves.
    pub use crate::socket::TcpStream;
    pub use real::net::Shutdown;
}

pub mod fs {
    //! A file that the permuter breaks.
    pub use crate::backplane::local::File;
}

pub mod path {
    //! The way to it.
    pub use crate::backplane::local::PathBuf;
}

pub mod stream {
    //! A stream in the clear.
    pub use crate::socket::Stream;
}

fn main() -> process::ExitCode {
    let mut arguments = env::args().skip(1);
    let schedules = arguments.next().map(|number| number.parse());
    let Ok(schedules) = schedules.unwrap_or(Ok(1000)) else {
        eprintln!("permuted: the first argument is the number of schedules of each test");
        return process::ExitCode::from(2);
    };
    permuter::run(
        &tests::ALL,
        schedules,
        &arguments.next().unwrap_or_default(),
    )
}
