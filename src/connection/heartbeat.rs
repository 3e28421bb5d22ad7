//! The heartbeat of a connection: its reading side, which pings the peer and notices its silence.
//!
//! It owns the socket's read time-out. Pings go out regularly, whatever is read meanwhile: proxies
//! cut a connection on which nothing comes from the server.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::outbox::Outbox;

/// The shortest read time-out; none at all would mean to wait for ever.
const SHORTEST: Duration = Duration::from_millis(1);

/// Reads a socket. A read fails with [`ErrorKind::TimedOut`] only when a ping was not followed by
/// anything in time.
pub(super) struct Heartbeat {
    socket: Arc<TcpStream>,
    outbox: Arc<Outbox>,
    interval: Duration,
    pong_within: Duration,
    next_ping: Instant,
    /// By when something must be heard, once it was pinged.
    hear_by: Option<Instant>,
}

impl Heartbeat {
    /// Pings each `interval`, by way of the `outbox`; after a ping something must be heard within
    /// `pong_within`.
    pub(super) fn new(
        socket: Arc<TcpStream>,
        outbox: Arc<Outbox>,
        interval: Duration,
        pong_within: Duration,
    ) -> Self {
        Self {
            socket,
            outbox,
            interval,
            pong_within,
            next_ping: Instant::now() + interval,
            hear_by: None,
        }
    }

    /// Pings if it is time. When it is next time to look.
    fn beat(&mut self, now: Instant) -> Instant {
        if now >= self.next_ping {
            self.next_ping = now + self.interval;
            if self.outbox.ping() {
                self.hear_by.get_or_insert(now + self.pong_within);
            }
        }
        self.hear_by
            .map_or(self.next_ping, |by| by.min(self.next_ping))
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
                    self.hear_by = None;
                    return Ok(count);
                }
                Err(error) => match error.kind() {
                    // Only after a read, since a pong may be waiting to be read.
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        if self.hear_by.is_some_and(|by| Instant::now() >= by) {
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
    use std::net::{Shutdown, TcpListener};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use crate::frame;
    use crate::outbox::outbox;
    use crate::protocol::Rendering;

    /// A heartbeat, and the peer's end of its socket.
    fn heartbeat(interval: Duration, pong_within: Duration) -> (Heartbeat, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let far = TcpStream::connect(listener.local_addr().expect("its address")).expect("one end");
        let near = Arc::new(listener.accept().expect("the other end").0);
        far.set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a time-out");
        let (outbox, _) = outbox(Rendering::Text, 1000, Some(Arc::clone(&near)));
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
    fn who_says_nothing_after_a_ping_is_silent() {
        let (mut heartbeat, mut far) =
            heartbeat(Duration::from_millis(20), Duration::from_millis(50));
        let silent = heartbeat.read(&mut [0; 16]).expect_err("nothing is said");
        assert_eq!(silent.kind(), ErrorKind::TimedOut);
        let mut ping = vec![0; frame::ping().len()];
        far.read_exact(&mut ping).expect("a ping");
    }
}
