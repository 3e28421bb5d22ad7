//! Finds out for whom a connection comes: for its peer, or for a client that a trusted proxy names.

use std::net::{SocketAddr, TcpStream};
use std::sync::Once;
use std::time::Instant;

use log::warn;

use crate::server::config::Config;
use crate::server::http::{self, HeadError, ProxyHeader, Request};
use crate::server::proxies::{ClientAddress, Disagreement, client_behind, is_trusted};

/// Reads the PROXY header, if the peer is a trusted proxy and sends one.
pub(super) fn read_proxy_header(
    socket: &TcpStream,
    peer: SocketAddr,
    config: &Config,
    due: Instant,
) -> Result<ProxyHeader, HeadError> {
    match is_trusted(peer.ip().to_canonical(), &config.trusted_proxies) {
        true => http::read_proxy_header(socket, due),
        false => Ok(ProxyHeader::Absent),
    }
}

/// Finds the address of the client: the peer's, unless a trusted proxy names another.
pub(super) fn client_of(
    peer: SocketAddr,
    header: &ProxyHeader,
    request: &Request,
    config: &Config,
) -> Result<ClientAddress, HeadError> {
    warn_of_proxy(peer, request, config);
    let hop = match header {
        ProxyHeader::Absent => peer.ip().to_canonical(),
        ProxyHeader::Client(address) => *address,
        // The fields may be the client's own, whom this proxy does not know.
        ProxyHeader::Itself => {
            return Ok(ClientAddress::new(peer.ip().to_canonical(), peer));
        }
    };
    let address = client_behind(
        hop,
        &config.trusted_proxies,
        request.header_values("x-forwarded-for"),
        request.header_values("forwarded"),
    );
    match address {
        Ok(address) => Ok(ClientAddress::new(address, peer)),
        Err(Disagreement) => Err(HeadError::TwoClients),
    }
}

/// Warns, once, of a proxy that the operator may have forgotten to declare.
fn warn_of_proxy(peer: SocketAddr, request: &Request, config: &Config) {
    static WARNED: Once = Once::new();
    let names_client = ["x-forwarded-for", "forwarded"]
        .iter()
        .any(|name| request.header(name).is_some());
    if names_client && !is_trusted(peer.ip().to_canonical(), &config.trusted_proxies) {
        WARNED.call_once(|| {
            warn!("{peer} says for whom it comes, but is no --trusted-proxy: it is taken for one client");
        });
    }
}
