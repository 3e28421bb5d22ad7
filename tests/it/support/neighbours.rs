//! Bad neighbours: members and strangers who must not hurt anybody else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::hubbub::Hubbub;

const HALF_HANDSHAKES: usize = 200;

/// Runs it while in the lobby one never reads, one trickles and so never answers a ping, one floods,
/// and at the door 200 hold half a handshake.
pub(crate) fn among_bad_neighbours<T>(hubbub: &Hubbub, run: impl FnOnce() -> T) -> T {
    let _half = half_handshakes(hubbub.address());
    let _never_reads = hubbub.join("never-reads");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = hubbub.join("trickles").into_socket();
            let mut byte = [0];
            while !done.load(Ordering::SeqCst) && matches!(stream.read(&mut byte), Ok(1)) {
                thread::sleep(Duration::from_millis(5)); // the pace is the point
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let mut flood = hubbub.join("floods");
                let mut goes_on = true;
                while goes_on && !done.load(Ordering::SeqCst) {
                    goes_on = flood.tries_to_say("flood");
                }
            }
        });
        let _done = DoneWhenDropped(&done);
        run()
    })
}

fn half_handshakes(address: SocketAddr) -> Vec<TcpStream> {
    (0..HALF_HANDSHAKES)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("a connection");
            stream.write_all(b"GET /chat/half HT").expect("a part");
            stream
        })
        .collect()
}

/// Ends the bad ones also when what runs among them fails.
struct DoneWhenDropped<'a>(&'a AtomicBool);

impl Drop for DoneWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
