//! The proxies that may name their clients, and the address of a client behind them.
//!
//! Only what a trusted proxy wrote counts. A list in a header field begins with what the client wrote, and each
//! proxy adds at its end. So the walk begins at the end, and stops at the first address that is no trusted proxy's.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A range of addresses: those that begin with the same bits. A single address is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// The number of bits that count, at least one.
    length: u32,
}

/// An address as a number, and its length in bits.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

impl Network {
    /// Whether the address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((ours, width), (theirs, other)) = (bits(self.address), bits(address));
        width == other && (ours ^ theirs) >> (width - self.length) == 0
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it should look like 10.0.0.7, 10.0.0.0/8 or fd00::/8".to_owned();
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = bits(address).1;
        let length = length.map_or(Ok(width), str::parse).map_err(|_| wrong())?;
        if length > width || address.to_canonical() != address {
            return Err(wrong());
        }
        if length == 0 {
            return Err(
                "it would trust everybody, and so anybody could give any address".to_owned(),
            );
        }
        Ok(Self { address, length })
    }
}

/// The address of a client, and the other end of its connection. Its `Display` is for the log.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress {
    /// The client's address.
    pub address: IpAddr,
    peer: SocketAddr,
}

impl ClientAddress {
    /// The client with this address, whose connection is the peer's.
    pub fn new(address: IpAddr, peer: SocketAddr) -> Self {
        Self { address, peer }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer.ip().to_canonical() == self.address {
            true => write!(f, "{}", self.peer),
            false => write!(f, "{} through {}", self.address, self.peer),
        }
    }
}

/// Two header fields name different clients, so one of them may be the client's own invention. The operator has to
/// let the proxy delete or set both.
#[derive(Debug, PartialEq, Eq)]
pub struct Disagreement;

/// The address under which a client is counted: one of IPv6 under its network of 64 bits, since a client may have all
/// the addresses of one (RFC 6177 §2).
pub fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// Whether the address is of a private network (RFC 1918, RFC 4193), or of the link.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    }
}

/// Whether the address is a trusted proxy's.
pub fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// The address of the client for whom `hop` sent a request with these values of `X-Forwarded-For` and `Forwarded`
/// (RFC 7239). It is `hop` itself unless that is a trusted proxy.
pub fn client_behind<'a>(
    hop: IpAddr,
    trusted: &[Network],
    x_forwarded_for: impl Iterator<Item = &'a str>,
    forwarded: impl Iterator<Item = &'a str>,
) -> Result<IpAddr, Disagreement> {
    let x_forwarded_for = last_first(x_forwarded_for);
    let forwarded = last_first(forwarded);
    let simple = walk(hop, trusted, x_forwarded_for.iter().map(|one| node(one)));
    let standard = walk(hop, trusted, forwarded.iter().map(|one| node_for(one)));
    match (x_forwarded_for.is_empty(), forwarded.is_empty()) {
        (false, false) if simple != standard => Err(Disagreement),
        (true, _) => Ok(standard),
        (false, _) => Ok(simple),
    }
}

/// Walks away from `hop` while the address is a trusted proxy's. A node without an address ends the walk.
fn walk(
    hop: IpAddr,
    trusted: &[Network],
    mut nodes: impl Iterator<Item = Option<IpAddr>>,
) -> IpAddr {
    let mut client = hop;
    while is_trusted(client, trusted)
        && let Some(Some(next)) = nodes.next()
    {
        client = next;
    }
    client
}

/// The elements of a field's lists, the last one first. Quotes are paired from the end, since the beginning may be
/// the client's.
fn last_first<'a>(values: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let values: Vec<_> = values.collect();
    let mut elements = Vec::new();
    for value in values.into_iter().rev() {
        let mut quoted = false;
        elements.extend(value.rsplit(|c| {
            quoted ^= c == '"';
            c == ',' && !quoted
        }));
    }
    elements
}

/// The address in an element of `Forwarded`, in its `for` parameter (RFC 7239 §6).
fn node_for(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    let value = value.trim();
    let quoted = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    node(quoted.unwrap_or(value))
}

/// An address, perhaps with a port; one of IPv6 may be in brackets. `None` for anything else, such as `unknown`.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']');
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => address.ip(),
        Err(_) => match in_brackets() {
            Some(inside) => IpAddr::V6(inside.parse::<Ipv6Addr>().ok()?),
            None => text.parse().ok()?,
        },
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn networks(texts: &[&str]) -> Vec<Network> {
        let networks = texts.iter().map(|text| text.parse());
        networks.collect::<Result<_, _>>().expect("networks")
    }

    #[test]
    fn a_network_holds_the_addresses_that_begin_as_it_does() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.7", "10.0.0.7", "10.0.0.6"),
            ("128.0.0.0/1", "255.1.2.3", "127.0.0.1"),
            ("192.168.1.0/31", "192.168.1.1", "192.168.1.2"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("8000::/1", "fdff::1", "10.0.0.7"),
            ("::1", "::1", "::2"),
        ] {
            let [network] = networks(&[network])[..] else {
                unreachable!()
            };
            assert!(network.contains(ip(inside)), "{network:?}");
            assert!(!network.contains(ip(outside)), "{network:?}");
        }
        for wrong in [
            "",
            "proxy",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "0.0.0.0/0",
            "::/0",
            "::/129",
            "10.0/8",
            "::ffff:10.0.0.1",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxy_is_the_client() {
        let trusted = networks(&["10.0.0.0/8", "fd00::/8"]);
        let found = |hop: &str, field: &[&str]| {
            client_behind(ip(hop), &trusted, field.iter().copied(), [].into_iter())
        };
        for (field, client) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["192.0.2.1:4711"], "192.0.2.1"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6,192.0.2.1,10.0.0.8 , fd00::9"], "192.0.2.1"),
            (&["6.6.6.6", "192.0.2.1", "10.0.0.8"], "192.0.2.1"),
            // The last good one counts.
            (&["192.0.2.1, x, 10.0.0.8"], "10.0.0.8"),
            (&["192.0.2.1,, 10.0.0.8"], "10.0.0.8"),
            (&["unknown"], "10.0.0.7"),
            (&[""], "10.0.0.7"),
            (&[], "10.0.0.7"),
            (&["10.0.0.8"], "10.0.0.8"),
        ] {
            assert_eq!(found("10.0.0.7", field), Ok(ip(client)), "{field:?}");
            assert_eq!(found("203.0.113.9", field), Ok(ip("203.0.113.9")));
        }
    }

    #[test]
    fn the_standard_field_is_read_as_well() {
        let trusted = networks(&["10.0.0.0/8"]);
        let hop = ip("10.0.0.7");
        let found = |field: &'static str| {
            client_behind(hop, &trusted, [].into_iter(), [field].into_iter()).expect("one field")
        };
        for (field, client) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("For=192.0.2.1;proto=https;by=10.0.0.7", "192.0.2.1"),
            (r#"proto=https; FOR="192.0.2.1:80""#, "192.0.2.1"),
            (r#"for="[2001:db8::1]:4711""#, "2001:db8::1"),
            (r#"for=6.6.6.6, for="192.0.2.1", for=10.0.0.8"#, "192.0.2.1"),
            // A quote that the client leaves open swallows nothing.
            (r#"for="6.6.6.6, for=192.0.2.1"#, "192.0.2.1"),
            (r#"host="a,b";for=192.0.2.1"#, "192.0.2.1"),
            ("for=192.0.2.1, for=unknown", "10.0.0.7"),
            ("for=192.0.2.1, for=_hidden, for=10.0.0.8", "10.0.0.8"),
            ("for=192.0.2.1, by=10.0.0.8", "10.0.0.7"),
            ("for=[2001:db8::1", "10.0.0.7"),
        ] {
            assert_eq!(found(field), ip(client), "{field}");
        }
    }

    #[test]
    fn two_fields_have_to_agree() {
        let trusted = networks(&["10.0.0.0/8"]);
        let found = |hop: &str, simple: &'static str, standard: &'static str| {
            client_behind(
                ip(hop),
                &trusted,
                [simple].into_iter(),
                [standard].into_iter(),
            )
        };
        let client = Ok(ip("192.0.2.1"));
        assert_eq!(found("10.0.0.7", "192.0.2.1", "for=192.0.2.1"), client);
        for (simple, standard) in [
            ("192.0.2.1", "for=6.6.6.6"),
            ("6.6.6.6", "for=192.0.2.1"),
            ("192.0.2.1", "for=unknown"),
            ("", "for=192.0.2.1"),
        ] {
            assert_eq!(found("10.0.0.7", simple, standard), Err(Disagreement));
            assert_eq!(found("192.0.2.1", simple, standard), client);
        }
    }
}
