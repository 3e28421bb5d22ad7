//! The integration tests: real servers on port 0, a real `redis-server` each, real sockets.
//!
//! Tests wait for facts, with a generous deadline; to show that something does not arrive, they
//! send a marker after it.

mod support;

mod admin;
mod api;
mod auth;
mod bad_input;
mod bench;
mod chat;
mod clock;
mod cluster;
mod contract;
mod data;
mod differential;
mod drain;
mod follow;
mod fuzz;
mod history;
mod hooks;
mod http;
mod keys;
mod lesson;
mod limits;
mod names;
mod outage;
mod outbox;
mod page;
mod pipes;
mod presence;
mod presence_script;
mod prompt;
mod property;
mod proxies;
mod publisher;
mod puppet;
mod recovery;
mod room_list;
mod rooms;
mod sentinel;
mod servers;
#[cfg(feature = "tls")]
mod secure;
mod several;
mod start;
mod teardown;
mod terminal;
mod threads;
mod tidy;
#[cfg(feature = "tls")]
mod tls;
mod webhooks;
mod wire;
