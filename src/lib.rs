//! Hubbub: a chat server in one small binary. WebSocket outside, Redis Pub/Sub between instances,
//! threads and blocking I/O inside.
//!
//! The modules are listed bottom-up: each uses only those above it, here and behind each door, and
//! `tests/it/tidy.rs` holds them to it. Each door's first comment says what is inside and in which order
//! to read it. The README walks one message through the house; `src/lesson.rs` is the same shape in 200
//! lines, and `src/manual.rs` writes the manual pages.
//!
//! # Terms
//!
//! | term | means |
//! |---|---|
//! | instance | one server process; several share a Redis |
//! | room | the users that hear each other, and the log of what they said |
//! | log | a room's messages, in one order, up to a length and an age |
//! | message id | a message's place in its room's log; ids grow |
//! | ref | the sender's own name for a message, which makes a retry safe |
//! | chain | each message names the one before it, so a hole is found by the next message |
//! | gap | a hole that cannot be filled, told to the room's members |
//! | hub | the rooms that this instance hosts, and their members |
//! | member | one connection in one room |
//! | follower | a member that only listens, over HTTP; no user is present for it |
//! | record | an event, or the end, in the form that a follower gets |
//! | outbox | what one connection still has to be sent, bounded in bytes |
//! | slow consumer | a connection whose outbox is full; it is closed with 1013 |
//! | worker | a thread that writes the events of rooms to their members |
//! | stopwatch | times one message after another, from its send to the end of its fan-out, for the metrics |
//! | backplane | what instances share: logs, refs, and presence |
//! | batch | commands, or messages, that are written together |
//! | shard | one Redis server and the rooms that are on it; the only one has all |
//! | publisher | the thread that sends commands to Redis, and its queue |
//! | receipt | the answer to a send: it is stored, or why not |
//! | subscriber | the thread that hears Redis and delivers to the hub |
//! | presence | which users are in which rooms, over all instances |
//! | revision | the place of a join or leave among all changes of a room's presence |
//! | roster | the users that are connected to this instance, by room |
//! | roll | the users that are present in one room, as its members were told |
//! | keeper | the thread that renews this instance and sweeps the users of instances that nobody renews |
//! | index | the names of all rooms, which the instances on one Redis keep there for the list of rooms |
//! | term | the part of an instance's life in which all of its arrivals and departures reached Redis |
//! | session | one user's conversation: commands in, events out |
//! | grant | what a connection may do, and until when: the claims of its token |
//! | ban | a user, or everybody in one room, is kept out for a time |
//! | order | an operator's instruction to all instances |
//! | webhook | a room, and the address to which its messages are posted |
//! | poster | the thread that posts them, of the instance that has the lease |
//! | hook | the address at which another service posts to a room |
//! | lease | one instance's right to post to a webhook, for a while |
//! | drain | the end of an instance: everybody is told, nothing acknowledged is lost |
//!
//! # Threads
//!
//! | thread | owner | may wait for |
//! |---|---|---|
//! | `main` | [`server`] | the signal, and then the drain |
//! | `acceptor` | [`server`] | the next connection, or a pause after an error |
//! | `ctrl-c`, of the `ctrlc` crate | [`cli`] | a signal |
//! | `reader-N` | [`server::connection`] | its own socket, outbox, writer and rate; the backplane |
//! | `writer-N`, while something waits | [`server::connection`] | its own outbox, socket and reader |
//! | `publisher`, one for each shard | [`backplane`] | its queue, Redis, and the receipts of the batches before |
//! | `receipts`, the same, for large batches | [`backplane`] | the publisher |
//! | `subscriber`, the same | [`backplane`] | Redis, the publisher while it catches up, and a worker with too much to do |
//! | `topology`, with a cluster | [`backplane`] | news of the shards, and the cluster's nodes |
//! | `sentinel`, with Sentinels | [`backplane`] | the clock, and the Sentinels |
//! | `moderator` | [`server`] | an order of an operator, and the backplane while it reads the bans |
//! | `webhook-ROOM`, one for each `--webhook` | [`server`] | the clock, the backplane, and the receiver |
//! | `fanout-N`, one for each core | [`hub`] | its queue, or a pause after a long fan-out |
//! | `keeper` | [`backplane`] | the clock, and the publisher while it compares |
//! | `backplane`, without Redis | [`backplane`] | its queue, and a worker with too much to do |
//! | `disk`, with `--data` | [`backplane`] | a batch, and the disk |
//! | `hangup`, of `hubbub serve` | [`cli`] | SIGHUP |
//! | `client`, `client-reader` | [`client`] | the server, and the user that takes what it tells |
//! | `stdin`, `keys`, `signals`, of `hubbub join` | [`cli`] | the terminal or the pipe |
//! | `output`, of `hubbub tail` | [`cli`] | the end of the pipe that it writes to |
//!
//! # Locks
//!
//! No lock is held across I/O that can block, but for a line in the log, and but for the start of a writer's
//! thread, for which others that push to the same outbox have to wait anyway. Nearly all are taken alone.
//! These may be held together, in this order: the roster and the owners of a cluster's slots; a worker's members of
//! a room; a member's outbox (its lane); its writer's handle; the thread of a connection that ended last; the
//! outbox's flag that its reader waits; what TLS knows of a connection. Commands and jobs are queued under the
//! roster's lock, so that they keep its order; to queue never blocks. A debug build checks this order at each lock
//! (`threads.rs`), so every test run holds it. The turn to ask for the list of rooms is no lock but a channel: it is kept
//! while the backplane answers, and a request waits for it no longer than for an answer.

// Tools.
mod backoff;
mod date;
mod threads;
pub mod process;
pub mod metrics;
pub mod stream;
// What is said, and the frames it is said in.
pub mod message;
pub mod lookalikes;
pub mod protocol;
pub mod websocket;
// The rooms of one instance, and what instances share.
pub mod hub;
pub mod backplane;
// One instance; its clients; and the command line of both.
pub mod server;
pub mod client;
pub mod cli;
