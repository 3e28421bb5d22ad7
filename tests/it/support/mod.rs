//! What tests are made of: processes and clients.

#[cfg(feature = "tls")]
pub(crate) mod authority;
pub(crate) mod checker;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod commands;
pub(crate) mod folder;
pub(crate) mod house;
pub(crate) mod hubbub;
pub(crate) mod lesson;
pub(crate) mod neighbours;
pub(crate) mod proxy;
pub(crate) mod puppet;
pub(crate) mod receiver;
pub(crate) mod redis;
pub(crate) mod scene;
pub(crate) mod sentinel;
pub(crate) mod steps;
pub(crate) mod terminal;
pub(crate) mod tmux;
#[cfg(feature = "tls")]
pub(crate) mod tunnel;

use std::time::{Duration, Instant};

/// How long a fact may take to come true on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Between two looks at a fact that nobody announces.
const GLANCE: Duration = Duration::from_millis(10);

/// Waits until `fact` is there.
pub(crate) fn until<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = fact() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(GLANCE);
    }
}
