//! The PROXY protocol, versions 1 and 2: a proxy's line about its client, before all that the client sends.
//! See <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>.
//!
//! Exactly the header's bytes are taken off the socket: TLS or HTTP follows at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::head::HeadError;

/// The first bytes of each version. No HTTP request and no TLS handshake begins so.
const VERSION_1: &[u8; 6] = b"PROXY ";
const VERSION_2: &[u8; 6] = b"\r\n\r\n\0\r";

/// The rest of the signature of version 2 (§2.2).
const SIGNATURE_REST: &[u8; 6] = b"\nQUIT\n";

/// The longest line of version 1, in bytes, with its end (§2.1).
const LONGEST_LINE: usize = 107;

/// The most bytes behind the fixed 16 of version 2.
const LONGEST_REST: usize = 520;

/// What the first bytes of a connection say about its client.
#[derive(Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// There is no PROXY header.
    Absent,
    /// The proxy speaks for itself, as a health check does, or does not know its client.
    Itself,
    /// The proxy speaks for a client with this address.
    Client(IpAddr),
}

/// Reads the PROXY header of a proxy that is trusted, if it sends one, until `deadline` at the latest.
pub fn read_proxy_header(socket: &TcpStream, deadline: Instant) -> Result<ProxyHeader, HeadError> {
    let mut first = [0; VERSION_1.len()];
    receive(socket, &mut first, RecvFlags::PEEK, deadline)?;
    match &first {
        VERSION_1 => read_version_1(socket, deadline),
        VERSION_2 => read_version_2(socket, deadline),
        // Also if there were fewer bytes: then the request ends early, and its reader says so.
        _ => Ok(ProxyHeader::Absent),
    }
}

fn read_version_1(socket: &TcpStream, deadline: Instant) -> Result<ProxyHeader, HeadError> {
    let mut line = Vec::with_capacity(LONGEST_LINE);
    while !line.ends_with(b"\r\n") {
        if line.len() >= LONGEST_LINE {
            return Err(HeadError::BadProxyHeader);
        }
        // A byte at a time, to take none of what follows.
        let mut byte = [0];
        read(socket, &mut byte, deadline)?;
        line.extend(byte);
    }
    parse_line(&line).ok_or(HeadError::BadProxyHeader)
}

/// Parses a line of version 1, with its end. `None` if it is malformed.
fn parse_line(line: &[u8]) -> Option<ProxyHeader> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let words: Vec<_> = line.split(' ').collect();
    let client = match words[..] {
        // A receiver ignores all that follows.
        ["PROXY", "UNKNOWN", ..] => return Some(ProxyHeader::Itself),
        ["PROXY", "TCP4", from, to, ..] => {
            to.parse::<Ipv4Addr>().ok()?;
            IpAddr::V4(from.parse().ok()?)
        }
        ["PROXY", "TCP6", from, to, ..] => {
            to.parse::<Ipv6Addr>().ok()?;
            IpAddr::V6(from.parse().ok()?)
        }
        _ => return None,
    };
    let [_, _, _, _, from_port, to_port] = words[..] else {
        return None;
    };
    from_port.parse::<u16>().ok()?;
    to_port.parse::<u16>().ok()?;
    Some(ProxyHeader::Client(client.to_canonical()))
}

fn read_version_2(socket: &TcpStream, deadline: Instant) -> Result<ProxyHeader, HeadError> {
    let mut fixed = [0; 16];
    read(socket, &mut fixed, deadline)?;
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if &fixed[6..12] != SIGNATURE_REST || length > LONGEST_REST {
        return Err(HeadError::BadProxyHeader);
    }
    let mut rest = vec![0; length];
    read(socket, &mut rest, deadline)?;
    parse_addresses(fixed[12], fixed[13], &rest).ok_or(HeadError::BadProxyHeader)
}

/// Parses the addresses of version 2. `None` if they are malformed.
fn parse_addresses(command: u8, family: u8, rest: &[u8]) -> Option<ProxyHeader> {
    let client = match (command, family) {
        (0x21, 0x11) => IpAddr::from(*rest.get(..12)?.first_chunk::<4>()?),
        (0x21, 0x21) => IpAddr::from(*rest.get(..36)?.first_chunk::<16>()?),
        // LOCAL; or a client without an address, or with one of a Unix socket.
        (0x20, _) | (0x21, 0x00 | 0x31 | 0x32) => return Some(ProxyHeader::Itself),
        _ => return None,
    };
    Some(ProxyHeader::Client(client.to_canonical()))
}

/// Fills the buffer, and takes its bytes off the socket.
fn read(socket: &TcpStream, buffer: &mut [u8], deadline: Instant) -> Result<(), HeadError> {
    let count = receive(socket, buffer, RecvFlags::empty(), deadline)?;
    if count == buffer.len() {
        Ok(())
    } else if Instant::now() < deadline {
        Err(HeadError::Gone)
    } else {
        Err(HeadError::Late)
    }
}

/// Waits until the buffer is full. Returns less if the peer ends, or the deadline comes, before it is.
fn receive(
    socket: &TcpStream,
    buffer: &mut [u8],
    flags: RecvFlags,
    deadline: Instant,
) -> Result<usize, HeadError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(HeadError::Late);
        }
        socket
            .set_read_timeout(Some(left))
            .map_err(|_| HeadError::Gone)?;
        // The kernel counts this time-out from the beginning of the call, also while bytes trickle in.
        match recv(socket, &mut *buffer, flags | RecvFlags::WAITALL) {
            Ok((count, _)) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(HeadError::Late),
            Err(_) => return Err(HeadError::Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_version_1_names_the_client() {
        let parsed = |line: &str| parse_line(format!("{line}\r\n").as_bytes());
        let client = |address: &str| Some(ProxyHeader::Client(address.parse().expect("one")));
        let line = "PROXY TCP4 192.0.2.1 10.0.0.7 56324 443";
        assert_eq!(parsed(line), client("192.0.2.1"));
        let line = "PROXY TCP6 2001:db8::1 fd00::7 56324 443";
        assert_eq!(parsed(line), client("2001:db8::1"));
        let line = "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:10.0.0.7 56324 443";
        assert_eq!(parsed(line), client("192.0.2.1"));
        for line in ["PROXY UNKNOWN", "PROXY UNKNOWN ffff:f...f:ffff 65535 65535"] {
            assert_eq!(parsed(line), Some(ProxyHeader::Itself));
        }
        for malformed in [
            "PROXY",
            "PROXY ",
            "PROXY TCP4",
            "PROXY TCP4 192.0.2.1 10.0.0.7 56324",
            "PROXY TCP4 192.0.2.1 10.0.0.7 56324 443 1",
            "PROXY TCP4 192.0.2.1 10.0.0.7 56324 65536",
            "PROXY TCP4 192.0.2.1 10.0.0.7 -1 443",
            "PROXY TCP4  192.0.2.1 10.0.0.7 56324 443",
            "PROXY TCP4 192.0.2.1 proxy 56324 443",
            "PROXY TCP4 2001:db8::1 fd00::7 56324 443",
            "PROXY TCP6 192.0.2.1 10.0.0.7 56324 443",
            "PROXY UDP4 192.0.2.1 10.0.0.7 56324 443",
            "PROXY / HTTP/1.1",
            "proxy TCP4 192.0.2.1 10.0.0.7 56324 443",
        ] {
            assert_eq!(parsed(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn the_addresses_of_version_2_name_the_client() {
        let client = |address: &str| Some(ProxyHeader::Client(address.parse().expect("one")));
        let four = [192, 0, 2, 1, 10, 0, 0, 7, 1, 2, 1, 187];
        assert_eq!(parse_addresses(0x21, 0x11, &four), client("192.0.2.1"));
        let with_more = [&four[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
        assert_eq!(parse_addresses(0x21, 0x11, &with_more), client("192.0.2.1"));
        let mut six = [0; 36];
        six[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        assert_eq!(parse_addresses(0x21, 0x21, &six), client("2001:db8::"));
        for (command, family) in [(0x20, 0x11), (0x20, 0), (0x21, 0), (0x21, 0x31)] {
            let itself = Some(ProxyHeader::Itself);
            assert_eq!(parse_addresses(command, family, &[]), itself);
        }
        for (command, family, rest) in [
            (0x21, 0x11, &four[..11]),
            (0x21, 0x21, &four),
            (0x21, 0x12, &four),
            (0x22, 0x11, &four),
            (0x11, 0x11, &four),
        ] {
            assert_eq!(parse_addresses(command, family, rest), None);
        }
    }
}
