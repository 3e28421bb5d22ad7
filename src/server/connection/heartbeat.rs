//! The heartbeat of a connection: its reading side, which pings the peer and notices its silence.
//!
//! It owns the socket's read time-out until the conversation ends. Pings go out regularly, whatever is
//! read meanwhile: proxies cut a connection on which nothing comes from the server.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hub::outbox::Outbox;

/// The shortest read time-out; none at all would mean to wait for ever.
const SHORTEST: Duration = Duration::from_millis(1);

/// Reads a socket. A read fails with [`ErrorKind::TimedOut`] only when nothing was heard for longer
/// than a ping takes to come, and its answer after that.
pub(super) struct Heartbeat {
    socket: Arc<TcpStream>,
    outbox: Arc<Outbox>,
    interval: Duration,
    pong_within: Duration,
    next_ping: Instant,
    heard: Instant,
    /// Once it was pinged since: by when it must be heard.
    hear_by: Option<Instant>,
}

impl Heartbeat {
    /// Pings each `interval`, by way of the `outbox`. In that time and `pong_within` something must be
    /// heard: not from the ping on, since that may lie in the kernel behind what a slow peer still
    /// reads.
    pub(super) fn new(
        socket: Arc<TcpStream>,
        outbox: Arc<Outbox>,
        interval: Duration,
        pong_within: Duration,
    ) -> Self {
        let now = Instant::now();
        Self {
            socket,
            outbox,
            interval,
            pong_within,
            next_ping: now + interval,
            heard: now,
            hear_by: None,
        }
    }

    fn hears(&mut self, now: Instant) {
        self.heard = now;
        self.hear_by = None;
    }

    /// By when it must be heard. Whoever has something waiting is not pinged, and so owes nothing; and
    /// of whoever was said goodbye to, the writer awaits an answer.
    fn silent_at(&self) -> Option<Instant> {
        self.hear_by.filter(|_| self.outbox.is_open())
    }

    /// Pings if it is time. When it is next time to look.
    fn beat(&mut self, now: Instant) -> Instant {
        if now >= self.next_ping {
            self.next_ping = now + self.interval;
            if self.outbox.ping() {
                // Later than due if nobody listened meanwhile.
                let due = now.max(self.heard + self.interval);
                self.hear_by.get_or_insert(due + self.pong_within);
            }
        }
        self.silent_at()
            .map_or(self.next_ping, |at| at.min(self.next_ping))
    }
}

impl Read for Heartbeat {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let now = Instant::now();
            let wait = self.beat(now).saturating_duration_since(now);
            self.socket.set_read_timeout(Some(wait.max(SHORTEST)))?;
            match (&*self.socket).read(buffer) {
                Ok(count) => {
                    self.hears(Instant::now());
                    return Ok(count);
                }
                Err(error) => match error.kind() {
                    // Only after a read, since a pong may be waiting to be read.
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        if self.silent_at().is_some_and(|at| Instant::now() >= at) {
                            return Err(ErrorKind::TimedOut.into());
                        }
                    }
                    ErrorKind::Interrupted => {}
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
    use std::net::Shutdown;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use crate::hub::outbox::outbox;
    use crate::protocol::{Encoding, Priority};
    use crate::server::connection::tests::pair;
    use crate::websocket::code;
    use crate::websocket::frame;

    /// A heartbeat, and the peer's end of its socket.
    fn heartbeat(interval: Duration, pong_within: Duration) -> (Heartbeat, TcpStream) {
        let (near, far) = pair();
        far.set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a time-out");
        let (outbox, _) = outbox(Encoding::Text, 1000, Some(Arc::clone(&near)));
        (Heartbeat::new(near, outbox, interval, pong_within), far)
    }

    #[test]
    fn who_never_pauses_is_pinged_as_well() {
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
    fn who_was_heard_lately_is_not_silent_however_late_its_pong_is() {
        let second = Duration::from_secs(1);
        let (mut heartbeat, _far) = heartbeat(10 * second, 5 * second);
        let begun = heartbeat.heard;
        assert_eq!(heartbeat.beat(begun + 9 * second), begun + 10 * second);
        heartbeat.hears(begun + 9 * second);
        assert_eq!(heartbeat.beat(begun + 10 * second), begun + 20 * second);
        assert_eq!(heartbeat.silent_at(), Some(begun + 24 * second));
        heartbeat.hears(begun + 17 * second);
        assert_eq!(heartbeat.silent_at(), None);
    }

    /// As while a user's request waits for the backplane, or for the user to read.
    #[test]
    fn while_nobody_listens_nobody_is_silent() {
        let second = Duration::from_secs(1);
        let (mut heartbeat, _far) = heartbeat(10 * second, 5 * second);
        let begun = heartbeat.heard;
        heartbeat.beat(begun + 60 * second);
        assert_eq!(heartbeat.silent_at(), Some(begun + 65 * second));
    }

    #[test]
    fn whoever_was_said_goodbye_to_is_the_writers_to_wait_for() {
        let second = Duration::from_secs(1);
        let (mut heartbeat, _far) = heartbeat(10 * second, 5 * second);
        heartbeat.beat(heartbeat.heard + 10 * second);
        assert!(heartbeat.silent_at().is_some());
        heartbeat.outbox.close(code::RESTART, "");
        assert_eq!(heartbeat.silent_at(), None);
    }

    #[test]
    fn who_takes_nothing_is_not_pinged_but_left_to_the_writers_deadline() {
        let second = Duration::from_secs(1);
        let (mut heartbeat, _far) = heartbeat(10 * second, 5 * second);
        let more_than_the_kernel_takes = vec![b'x'; 64 << 20].into();
        heartbeat
            .outbox
            .push(more_than_the_kernel_takes, Priority::High);
        heartbeat.beat(heartbeat.heard + 10 * second);
        assert_eq!(heartbeat.silent_at(), None);
    }

    #[test]
    fn who_says_nothing_after_a_ping_is_silent() {
        let (mut heartbeat, mut far) =
            heartbeat(Duration::from_millis(20), Duration::from_millis(50));
        let silent = heartbeat.read(&mut [0; 16]).expect_err("nothing is said");
        assert_eq!(silent.kind(), ErrorKind::TimedOut);
        let mut ping = vec![0; frame::ping().len()];
        far.read_exact(&mut ping).expect("a ping");
    }
}
