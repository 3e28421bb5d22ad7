//! The heartbeat of a connection: it reads the socket, pings the peer, and notices a peer that is silent, or
//! whose token has expired.
//!
//! It owns the socket's read time-out until the read pump ends. It pings at regular intervals, also while
//! the peer sends: proxies cut a connection on which the server sends nothing.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::hub::outbox::Outbox;
use crate::protocol::Event;
use crate::server::config::Deadlines;
use crate::server::grant::{Grant, GrantDue};
use crate::stream::Stream;
use crate::websocket::code;

/// The shortest read time-out. The kernel takes zero for no time-out at all.
const SHORTEST: Duration = Duration::from_millis(1);

/// Reads a socket. A read fails with [`ErrorKind::TimedOut`] only if the peer was silent for a whole
/// ping interval and the time for a pong, or if the outbox has ended and the peer did not end its side in
/// time.
pub(super) struct Heartbeat {
    stream: Arc<Stream>,
    outbox: Arc<Outbox>,
    grant: Arc<Grant>,
    interval: Duration,
    pong_within: Duration,
    answer_within: Duration,
    next_ping: Instant,
    last_read: Instant,
    /// The time at which the peer counts as silent. `None` until a ping is sent after the last read.
    silent_from: Option<Instant>,
    /// The time by which the peer has to end its side. `None` until a read finds that the outbox has
    /// ended.
    answer_due: Option<Instant>,
}

impl Heartbeat {
    /// Pings at each `interval`, through the `outbox`. The peer is silent after `interval` and the time for a pong
    /// without a byte (with TLS, one that is decrypted). Silence counts from the last read, not from the ping: our ping
    /// may still be queued in the kernel.
    pub(super) fn new(
        stream: Arc<Stream>,
        outbox: Arc<Outbox>,
        grant: Arc<Grant>,
        interval: Duration,
        deadlines: &Deadlines,
    ) -> Self {
        let now = Instant::now();
        Self {
            stream,
            outbox,
            grant,
            interval,
            pong_within: deadlines.pong,
            answer_within: deadlines.goodbye(),
            next_ping: now + interval,
            last_read: now,
            silent_from: None,
            answer_due: None,
        }
    }

    fn note_read(&mut self, now: Instant) {
        self.last_read = now;
        self.silent_from = None;
    }

    /// The time at which the peer counts as silent. `None` for a peer that was not pinged, since frames
    /// still wait for it.
    fn silent_at(&self) -> Option<Instant> {
        self.answer_due.or(self.silent_from)
    }

    /// Warns the client before its token expires, and then closes the connection. Returns the time of the next check.
    fn look_at_grant(&self, now: Instant) -> Option<Instant> {
        match self.grant.due(SystemTime::now()) {
            GrantDue::Nothing(wait) => now.checked_add(wait?),
            GrantDue::Warning(left) => {
                let expires_in_ms = left.as_millis() as u64;
                self.outbox.send(&Event::Expiring { expires_in_ms });
                Some(now + left)
            }
            GrantDue::End => {
                self.outbox.close(code::EXPIRED, "the token has expired");
                None
            }
        }
    }

    /// Pings if a ping is due and the outbox is open. Returns the time of the next check.
    fn beat(&mut self, now: Instant) -> Instant {
        let mut grant_due = None;
        if self.outbox.is_open() {
            grant_due = self.look_at_grant(now);
        }
        if !self.outbox.is_open() {
            return *self.answer_due.get_or_insert(now + self.answer_within);
        }
        if now >= self.next_ping {
            self.next_ping = now + self.interval;
            // A peer that only listens answers nothing. The write deadline and the kernel's show that it is gone.
            if self.outbox.ping() && !self.outbox.encoding().is_for_followers() {
                // The ping is late if the reader thread was waiting elsewhere.
                let pinged = now.max(self.last_read + self.interval);
                self.silent_from.get_or_insert(pinged + self.pong_within);
            }
        }
        let due = [self.silent_at(), grant_due].into_iter().flatten();
        due.fold(self.next_ping, Instant::min)
    }
}

impl Read for Heartbeat {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let now = Instant::now();
            let wait = self.beat(now).saturating_duration_since(now);
            // Checked before the read, since a peer may go on sending after the end.
            if self.answer_due.is_some_and(|due| now >= due) {
                return Err(ErrorKind::TimedOut.into());
            }
            let socket = self.stream.socket();
            socket.set_read_timeout(Some(wait.max(SHORTEST)))?;
            match self.stream.read(buffer) {
                Ok(count) => {
                    self.note_read(Instant::now());
                    return Ok(count);
                }
                Err(error) => match error.kind() {
                    // Checked only after a read: a pong may have been waiting in the kernel.
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
                        if self.silent_at().is_some_and(|at| Instant::now() >= at) {
                            return Err(ErrorKind::TimedOut.into());
                        }
                    }
                    _ => return Err(error),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{Shutdown, TcpStream};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use crate::hub::outbox::outbox;
    use crate::protocol::{Encoding, Priority};
    use crate::server::config::Config;
    use crate::server::connection::tests::pair;
    use crate::websocket::frame;

    /// A heartbeat, and the peer's end of its socket.
    fn heartbeat(interval: Duration, pong_within: Duration) -> (Heartbeat, TcpStream) {
        heartbeat_of(Encoding::Text, interval, pong_within)
    }

    fn heartbeat_of(
        encoding: Encoding,
        interval: Duration,
        pong_within: Duration,
    ) -> (Heartbeat, TcpStream) {
        let (near, far) = pair();
        far.set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a time-out");
        let (outbox, _) = outbox(encoding, 1000, Some(Arc::clone(&near)));
        let deadlines = Deadlines {
            pong: pong_within,
            ..Config::default().deadlines
        };
        let grant = Arc::new(Grant::all());
        let heartbeat = Heartbeat::new(near, outbox, grant, interval, &deadlines);
        (heartbeat, far)
    }

    #[test]
    fn a_peer_that_never_pauses_is_pinged_as_well() {
        let interval = Duration::from_millis(200);
        let (mut heartbeat, far) = heartbeat(interval, Duration::from_secs(30));
        let pinged = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !pinged.load(Ordering::SeqCst) {
                    (&far).write_all(b"x").expect("it is read");
                    thread::sleep(interval / 20);
                }
                far.shutdown(Shutdown::Write).expect("an end");
            });
            scope.spawn(|| {
                let mut ping = vec![0; frame::ping().len()];
                let read = (&far).read_exact(&mut ping);
                pinged.store(true, Ordering::SeqCst);
                read.expect("a ping");
                assert_eq!(ping, *frame::ping());
            });
            while heartbeat.read(&mut [0; 16]).expect("something") > 0 {}
        });
    }

    #[test]
    fn a_peer_that_sent_lately_is_not_silent_however_late_its_pong_is() {
        let second = Duration::from_secs(1);
        let (mut heartbeat, _far) = heartbeat(10 * second, 5 * second);
        let begun = heartbeat.last_read;
        assert_eq!(heartbeat.beat(begun + 9 * second), begun + 10 * second);
        heartbeat.note_read(begun + 9 * second);
        assert_eq!(heartbeat.beat(begun + 10 * second), begun + 20 * second);
        assert_eq!(heartbeat.silent_at(), Some(begun + 24 * second));
        heartbeat.note_read(begun + 17 * second);
        assert_eq!(heartbeat.silent_at(), None);
    }

    /// The reader thread may be waiting for the backplane, or for the user to read.
    #[test]
    fn while_the_reader_does_not_read_no_peer_is_silent() {
        let second = Duration::from_secs(1);
        let (mut heartbeat, _far) = heartbeat(10 * second, 5 * second);
        let begun = heartbeat.last_read;
        heartbeat.beat(begun + 60 * second);
        assert_eq!(heartbeat.silent_at(), Some(begun + 65 * second));
    }

    #[test]
    fn after_the_outbox_has_ended_the_peer_has_a_while_to_answer_whatever_it_sends() {
        let second = Duration::from_secs(1);
        let (mut heartbeat, mut far) = heartbeat(10 * second, 5 * second);
        let begun = heartbeat.last_read;
        heartbeat.outbox.close(code::RESTART, "");
        let due = begun + Config::default().deadlines.goodbye();
        assert_eq!(heartbeat.beat(begun), due);
        heartbeat.note_read(begun + second);
        assert_eq!(heartbeat.beat(begun + second), due);
        heartbeat.answer_due = Some(Instant::now());
        far.write_all(b"more").expect("it is taken");
        let late = heartbeat.read(&mut [0; 16]).expect_err("it is over");
        assert_eq!(late.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_peer_that_only_listens_owes_no_answer() {
        let second = Duration::from_secs(1);
        let (mut heartbeat, mut far) = heartbeat_of(Encoding::EventStream, 10 * second, 5 * second);
        let begun = heartbeat.last_read;
        assert_eq!(heartbeat.beat(begun + 10 * second), begun + 20 * second);
        assert_eq!(heartbeat.silent_at(), None);
        let mut comment = [0; 2];
        far.read_exact(&mut comment).expect("a comment");
        assert_eq!(&comment, b":\n");
    }

    #[test]
    fn a_peer_that_takes_nothing_is_not_pinged_but_left_to_the_writers_deadline() {
        let second = Duration::from_secs(1);
        let (mut heartbeat, _far) = heartbeat(10 * second, 5 * second);
        let more_than_the_kernel_takes = vec![b'x'; 64 << 20].into();
        heartbeat
            .outbox
            .push(more_than_the_kernel_takes, Priority::High);
        heartbeat.beat(heartbeat.last_read + 10 * second);
        assert_eq!(heartbeat.silent_at(), None);
    }

    #[test]
    fn a_peer_that_sends_nothing_after_a_ping_is_silent() {
        let (mut heartbeat, mut far) =
            heartbeat(Duration::from_millis(20), Duration::from_millis(50));
        let silent = heartbeat.read(&mut [0; 16]).expect_err("nothing is said");
        assert_eq!(silent.kind(), ErrorKind::TimedOut);
        let mut ping = vec![0; frame::ping().len()];
        far.read_exact(&mut ping).expect("a ping");
    }
}
