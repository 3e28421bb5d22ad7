//! Hubbub: a chat server in one small binary. WebSocket outside, Redis Pub/Sub between instances,
//! threads and blocking I/O inside.
//!
//! The modules are listed bottom-up: each uses only those above it, and `tests/it/tidy.rs` holds
//! them to it. To follow one message through the house, read [`connection`] (`read_pump` in
//! `pumps.rs`), [`session`] (`send`), [`backplane`] (publisher, `publish.lua`, subscriber), [`hub`]
//! (`deliver`), [`outbox`], and [`connection`] again (`write_pump`).

// Tools.
mod backoff;
mod lock;
mod vital;
pub mod metrics;
// What is said.
pub mod message;
pub mod protocol;
// Who has still to be sent what.
pub mod frame;
pub mod outbox;
pub mod hub;
// What instances share.
pub mod backplane;
// One instance, one user, one socket.
pub mod token;
pub mod config;
pub mod limits;
pub mod session;
pub mod websocket;
pub mod page;
pub mod http;
pub mod admission;
pub mod api;
pub mod connection;
pub mod server;
// The other side.
pub mod client;
pub mod bench;
pub mod cli;
