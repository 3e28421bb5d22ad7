//! The client's thread: keeps a connection, does the [`Actions`] of the [`ClientState`], and retries.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};

use super::connection::{Connection, OpenError, Received, connect};
use super::renewal::Renewal;
use super::state::{Actions, ClientState, Retry};
use super::{ClientEvent, ClientOptions, RECONNECT_CAP, RECONNECT_FIRST};
use crate::backoff::{Backoff, spread};
use crate::message::{MessageId, RoomName};
use crate::protocol::{Command, Event, Ref};
use crate::websocket::client::ClientFrame;

/// The time between two pings. Shorter than [`READ_TIMEOUT`](super::connection::READ_TIMEOUT).
const PING_EVERY: Duration = Duration::from_secs(15);

/// The wait before a retry of a command that the server could not do.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The longest wait for the server's answer to our close frame.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// A request of the handle to the thread.
pub(super) enum ClientRequest {
    Join {
        room: RoomName,
        since: Option<MessageId>,
        history: Option<usize>,
    },
    /// Leave a room once its sends are answered.
    Leave(RoomName),
    Send {
        room: RoomName,
        text: String,
        reference: Ref,
    },
    /// Send this command once, if there is a connection.
    Command(Command),
    /// Close the connection and end the thread.
    Close,
}

/// An operator put this user out, for this reason.
struct PutOut(String);

/// The client's thread.
pub(super) struct ClientThread {
    options: ClientOptions,
    /// The number of attempts to connect. The servers take turns.
    attempts: usize,
    requests: Receiver<ClientRequest>,
    events: Sender<ClientEvent>,
    state: ClientState,
    closing: bool,
}

impl ClientThread {
    pub(super) fn new(
        options: ClientOptions,
        requests: Receiver<ClientRequest>,
        events: Sender<ClientEvent>,
    ) -> Self {
        Self {
            options,
            attempts: 0,
            requests,
            events,
            state: ClientState::new(),
            closing: false,
        }
    }

    pub(super) fn run(mut self) {
        let mut backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_CAP);
        while !self.closing {
            let server = &self.options.servers[self.attempts % self.options.servers.len()];
            self.attempts += 1;
            let why = match connect(server, &self.options) {
                Ok(connection) => {
                    self.tell(ClientEvent::Connected);
                    let end = self.run_connection(&connection, &mut backoff);
                    connection.close();
                    self.state.disconnected();
                    match end {
                        Ok(why) => why,
                        Err(PutOut(why)) => return self.tell(ClientEvent::Refused(why)),
                    }
                }
                Err(OpenError::Temporary(why)) => why,
                Err(OpenError::Permanent(why)) => return self.tell(ClientEvent::Refused(why)),
            };
            if !self.closing {
                let retry_after = self.state.take_retry_after();
                let retry_in = retry_after.map_or_else(|| backoff.next(), spread);
                self.tell(ClientEvent::Disconnected { why, retry_in });
                self.pause(retry_in);
            }
        }
    }

    /// Passes an event to the user, and waits while the queue is full. During the wait the client reads
    /// nothing and answers no ping. A long wait makes the server end the connection, because its outbox
    /// is full, a write times out, or a ping stays unanswered. The client resumes afterwards.
    fn tell(&self, event: ClientEvent) {
        // If the handle is gone, a `Close` follows.
        let _ = self.events.send(event);
    }

    fn tell_all(&self, events: Vec<Event>) {
        for event in events {
            self.tell(ClientEvent::Server(event));
        }
    }

    /// Waits, and handles requests during the wait. Their commands are dropped: joins and sends are
    /// repeated on the next connection, and other commands are sent at most once.
    fn pause(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.closing {
            match self.requests.recv_deadline(until) {
                Ok(request) => {
                    let actions = self.handle(request);
                    self.tell_all(actions.events);
                }
                Err(_) => return,
            }
        }
    }

    fn handle(&mut self, request: ClientRequest) -> Actions {
        match request {
            ClientRequest::Join {
                room,
                since,
                history,
            } => self.state.join(&room, since, history),
            ClientRequest::Leave(room) => self.state.leave(&room),
            ClientRequest::Send {
                room,
                text,
                reference,
            } => self.state.send(&room, text, reference, Instant::now()),
            ClientRequest::Command(command) => Actions {
                commands: vec![command],
                ..Actions::default()
            },
            ClientRequest::Close => {
                self.closing = true;
                Actions::default()
            }
        }
    }

    /// Does the actions. If a retry is due later, returns the shortest wait before it.
    fn perform(&mut self, connection: &Connection, actions: Actions) -> Option<Duration> {
        self.tell_all(actions.events);
        for command in &actions.commands {
            let now = Instant::now();
            if connection.send(command) {
                self.state.writing(command, now);
            }
        }
        let Retry { why, after } = actions.retry?;
        self.tell(ClientEvent::Postponed(why));
        Some(after)
    }

    /// Serves one connection until it ends. Returns the reason of its end.
    fn run_connection(
        &mut self,
        connection: &Connection,
        backoff: &mut Backoff,
    ) -> Result<String, PutOut> {
        let actions = self.state.connected();
        self.perform(connection, actions);
        let source = self.options.token.clone();
        let mut renewal = Renewal::new(source.as_ref(), connection.token.clone());
        let mut next_ping = Instant::now() + PING_EVERY;
        let mut next_retry: Option<Instant> = None;
        loop {
            let now = Instant::now();
            if now >= next_ping {
                next_ping = now + PING_EVERY;
                connection.write(ClientFrame::Ping);
            }
            if next_retry.is_some_and(|at| now >= at) {
                next_retry = None;
                let actions = self.state.retry(now);
                self.perform(connection, actions);
            }
            if let Some(renew) = renewal.look(now) {
                connection.send(&renew);
            }
            let due = [next_retry, renewal.look_at()].into_iter().flatten();
            let wake = due.fold(next_ping, Instant::min);
            select! {
                recv(self.requests) -> request => {
                    // The handle sends `Close` before it drops its end, so no error is expected.
                    let actions = self.handle(request.unwrap_or(ClientRequest::Close));
                    self.perform(connection, actions);
                    if self.closing {
                        return Ok(say_goodbye(connection));
                    }
                }
                recv(connection.received) -> received => match received {
                    Ok(Received::Event(event)) if renewal.takes(&event, Instant::now()) => {}
                    Ok(Received::Event(event)) => {
                        backoff.reset();
                        let actions = self.state.handle(event, Instant::now());
                        if let Some(after) = self.perform(connection, actions) {
                            let now = Instant::now();
                            let due = next_retry.unwrap_or_else(|| now + spread(RETRY_AFTER));
                            next_retry = Some(due.max(now + after));
                        }
                    }
                    Ok(Received::Reply(frames)) => {
                        connection.write_all(&frames);
                    }
                    Ok(Received::Alive) => {}
                    Ok(Received::Ended(why)) => return Ok(why),
                    Ok(Received::PutOut(why)) => return Err(PutOut(why)),
                    Err(_) => return Ok("the connection ended".to_owned()),
                },
                default(wake.saturating_duration_since(now)) => {}
            }
        }
    }
}

/// Sends a close frame and waits for the server's. That answer shows that the server has taken
/// everything before it. Events that arrive meanwhile are dropped.
fn say_goodbye(connection: &Connection) -> String {
    connection.write(ClientFrame::Goodbye);
    let deadline = Instant::now() + GOODBYE_WITHIN;
    while let Ok(received) = connection.received.recv_deadline(deadline) {
        if matches!(received, Received::Ended(_) | Received::PutOut(_)) {
            break;
        }
    }
    "goodbye".to_owned()
}
