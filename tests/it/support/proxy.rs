//! A proxy between an instance and its Redis, which stalls, cuts and half-opens the link.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to what Redis sends. What it is sent always passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// It passes.
    Open,
    /// It waits, and passes later.
    Stalled,
    /// It passes up to the next reply to a send, and what is behind it waits.
    OneReply,
    /// It disappears, as behind a firewall that forgot the connection.
    Swallowed,
    /// It passes, a few bytes at a time.
    Trickling,
    /// It passes until Redis has told the hashes of two scripts that it loaded, and then disappears.
    SwallowedOnceLoaded,
}

/// What trickles at a time, about one reply, and the pause after it.
const DROP: usize = 32;
const PAUSE: Duration = Duration::from_millis(200);

/// How the reply to a send ends: it was stored, or its script is not known to Redis or to Valkey.
const REPLY_ENDS: [&[u8]; 3] = [b":0\r\n", b"EVAL.\r\n", b"script.\r\n"];

/// How Redis begins the hash of a script.
const HASH: &[u8] = b"$40\r\n";

struct Shared {
    /// The downstream state of every link.
    link: Mutex<Link>,
    changed: Condvar,
    open: Mutex<Vec<TcpStream>>,
    accepting: AtomicU8,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    pub(crate) fn before(redis_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            link: Mutex::new(Link::Open),
            changed: Condvar::new(),
            open: Mutex::default(),
            accepting: AtomicU8::new(1),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.accepting.load(Ordering::SeqCst) == 0 {
                    continue;
                }
                if let Ok(server) = TcpStream::connect(("127.0.0.1", redis_port)) {
                    join(&client, &server, &accepting);
                }
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn set(&self, link: Link) {
        *self.shared.link.lock().expect("no panic") = link;
        self.shared.changed.notify_all();
    }

    /// Ends every link, and refuses new ones until [`Proxy::mend`].
    pub(crate) fn cut(&self) {
        self.shared.accepting.store(0, Ordering::SeqCst);
        self.end_all();
    }

    pub(crate) fn mend(&self) {
        self.shared.accepting.store(1, Ordering::SeqCst);
    }

    fn end_all(&self) {
        for stream in self.shared.open.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Link::Open);
        self.end_all();
    }
}

fn join(client: &TcpStream, server: &TcpStream, shared: &Arc<Shared>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle");
    {
        let mut open = shared.open.lock().expect("no panic");
        open.push(clone(client));
        open.push(clone(server));
    }
    let (up_from, up_to) = (clone(client), clone(server));
    thread::spawn(move || {
        pump(up_from, up_to, |bytes, to| to.write_all(bytes));
    });
    let (down_from, down_to) = (clone(server), clone(client));
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let mut hashes = 0;
        pump(down_from, down_to, |mut bytes, to| {
            let link = {
                let mut link = shared.link.lock().expect("no panic");
                loop {
                    while *link == Link::Stalled {
                        link = shared.changed.wait(link).expect("no panic");
                    }
                    let end = reply_end(bytes).filter(|_| *link == Link::OneReply);
                    let Some(end) = end else { break };
                    *link = Link::Stalled;
                    to.write_all(&bytes[..end])?;
                    bytes = &bytes[end..];
                }
                if *link == Link::SwallowedOnceLoaded {
                    let found = bytes.windows(HASH.len()).filter(|at| *at == HASH);
                    hashes += found.count();
                    if hashes >= 2 {
                        *link = Link::Swallowed;
                        return to.write_all(bytes);
                    }
                }
                *link
            };
            match link {
                Link::Swallowed => Ok(()),
                Link::Trickling => bytes.chunks(DROP).try_for_each(|drop| {
                    thread::sleep(PAUSE);
                    to.write_all(drop)
                }),
                Link::Open | Link::Stalled | Link::OneReply | Link::SwallowedOnceLoaded => {
                    to.write_all(bytes)
                }
            }
        });
    });
}

/// Where the first reply to a send ends.
fn reply_end(bytes: &[u8]) -> Option<usize> {
    let ends = |end: usize| REPLY_ENDS.iter().any(|with| bytes[..end].ends_with(with));
    (1..=bytes.len()).find(|&end| ends(end))
}

fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    mut pass: impl FnMut(&[u8], &mut TcpStream) -> io::Result<()>,
) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if pass(&buffer[..count], &mut to).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
