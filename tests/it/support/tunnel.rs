//! A tunnel: takes connections in the clear and carries their bytes to a server that speaks TLS, as a proxy does
//! that does it the other way round. So all that speaks in the clear can be held against TLS, too.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;

use hubbub::stream::{Authorities, Stream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Starts a tunnel to this server, which has a certificate for its address. The result is where it listens. It ends with
/// the process.
pub(crate) fn tunnel(server: SocketAddr, authorities: Authorities) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for near in listener.incoming() {
            let near = near.expect("a connection");
            let authorities = authorities.clone();
            thread::spawn(move || {
                // A connection that fails is the matter of those at its ends.
                let _ = carry(&near, server, &authorities);
                let _ = near.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

fn carry(mut near: &TcpStream, server: SocketAddr, authorities: &Authorities) -> io::Result<()> {
    let far = TcpStream::connect(server)?;
    far.set_nodelay(true)?;
    near.set_nodelay(true)?;
    let far = Stream::client(far, authorities, &server.ip().to_string())?;
    let mut socket = far.socket();
    // The handshake begins at once, as it does for a browser.
    socket.write_all(&far.sealed(b""))?;
    let mut buffer = vec![0; 64 * 1024];
    let (mut near_speaks, mut far_speaks) = (true, true);
    while near_speaks || far_speaks {
        let mut ready = [
            PollFd::new(near.as_fd(), PollFlags::POLLIN),
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
        ];
        // A side that has ended is always ready.
        let asked = &mut ready[usize::from(!near_speaks)..1 + usize::from(far_speaks)];
        poll(asked, PollTimeout::NONE)?;
        let [from_near, from_far] = ready.map(|fd| fd.any() == Some(true));
        // The socket does not announce what is there to be decrypted.
        socket.set_nonblocking(true)?;
        while from_far && far_speaks {
            match far.read(&mut buffer) {
                Ok(0) => {
                    near.shutdown(Shutdown::Write)?;
                    far_speaks = false;
                }
                Ok(count) => near.write_all(&buffer[..count])?,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => break,
                    _ => return Err(error),
                },
            }
        }
        socket.set_nonblocking(false)?;
        if from_near {
            let count = near.read(&mut buffer)?;
            socket.write_all(&far.sealed(&buffer[..count]))?;
            if count == 0 {
                socket.write_all(&far.farewell())?;
                socket.shutdown(Shutdown::Write)?;
                near_speaks = false;
            }
        }
    }
    Ok(())
}
