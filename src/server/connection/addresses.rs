//! What one client's address may take: connections at a time, and new ones a second.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::metrics;
use crate::server::config::{Config, limit};
use crate::server::http::Response;
use crate::server::proxies::counted_as;
use crate::server::rate::Buckets;
use crate::threads::lock;

/// Nobody knows when a connection of the address will end.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The connections of each address. Addresses that are exempt from a limit are left out.
pub(super) struct Addresses {
    open: Mutex<HashMap<IpAddr, usize>>,
    arrivals: Buckets<IpAddr>,
}

/// One connection in the count of its address. It ends when it is dropped.
pub(super) struct AddressPlace {
    addresses: Arc<Addresses>,
    address: IpAddr,
    /// The most connections of the address.
    most: usize,
}

/// Why an address gets no further connection. The client may come again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressRefusal {
    /// It has as many as it may have.
    TooMany,
    /// It opens them too fast; the next one is allowed after this time.
    TooFast(Duration),
}

impl fmt::Display for AddressRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooMany => "this address has too many connections",
            Self::TooFast(_) => "this address opens connections too fast",
        })
    }
}

impl AddressRefusal {
    /// The response to the client.
    pub fn response(&self) -> Response {
        let wait = match self {
            Self::TooMany => RETRY_AFTER,
            Self::TooFast(wait) => *wait,
        };
        Response::new(429, self.to_string()).retry_after(wait)
    }
}

impl Addresses {
    /// No address has a connection yet.
    pub(super) fn new(config: &Config) -> Self {
        let rate = limit::CONNECT_RATE.default as u32;
        let rate = config.connect_rate.unwrap_or(rate);
        Self {
            open: Mutex::default(),
            arrivals: Buckets::new(rate, rate.saturating_mul(limit::CONNECT_BURST_SECONDS)),
        }
    }

    /// Takes a place for a new connection of this client.
    pub(super) fn enter(
        self: &Arc<Self>,
        client: IpAddr,
        config: &Config,
        now: Instant,
    ) -> Result<AddressPlace, AddressRefusal> {
        self.arrive(client, config, now)?;
        let place = self.try_enter(client, config);
        if place.is_err() {
            metrics::REFUSED_ADDRESS.count();
        }
        place
    }

    /// Takes a token for a new connection of this client, or for one more request on a connection.
    pub(super) fn arrive(
        &self,
        client: IpAddr,
        config: &Config,
        now: Instant,
    ) -> Result<(), AddressRefusal> {
        if config.is_exempt(client) && config.connect_rate.is_none() {
            return Ok(());
        }
        let taken = self.arrivals.take(&counted_as(client), now);
        taken.map_err(|wait| {
            metrics::REFUSED_ADDRESS.count();
            AddressRefusal::TooFast(wait)
        })
    }

    fn try_enter(
        self: &Arc<Self>,
        client: IpAddr,
        config: &Config,
    ) -> Result<AddressPlace, AddressRefusal> {
        let address = counted_as(client);
        let is_exempt = config.is_exempt(client);
        let most = match config.max_per_address {
            Some(0) => usize::MAX,
            Some(most) => most,
            None if is_exempt => usize::MAX,
            None => limit::MAX_PER_ADDRESS.default as usize,
        };
        let mut open = lock(&self.open);
        let count = open.entry(address).or_default();
        if *count >= most {
            return Err(AddressRefusal::TooMany);
        }
        *count += 1;
        Ok(AddressPlace {
            addresses: Arc::clone(self),
            address,
            most,
        })
    }
}

impl AddressPlace {
    /// Whether the address has half of its places left.
    pub(super) fn leaves_room(&self) -> bool {
        let open = lock(&self.addresses.open);
        open.get(&self.address)
            .is_none_or(|count| *count <= self.most / 2)
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut open = lock(&self.addresses.open);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_its_share_and_loopback_and_proxies_have_no_limit_unless_one_is_set() {
        let config = Config {
            trusted_proxies: vec!["10.0.0.0/8".parse().expect("a network")],
            ..Config::default()
        };
        let now = Instant::now();
        let rate = limit::CONNECT_RATE.default;
        // Enough for the count, and too few for the rate.
        let later = |nth: u64| now + Duration::from_secs(1) * (nth / rate) as u32;
        let most = limit::MAX_PER_ADDRESS.default;
        let holds = |config: &Config, client: &str, tried: u64| {
            let addresses = Arc::new(Addresses::new(config));
            let enter = |nth| addresses.enter(ip(client), config, later(nth)).ok();
            (0..tried).map_while(enter).collect::<Vec<_>>().len() as u64
        };
        assert_eq!(holds(&config, "192.0.2.1", 2 * most), most);
        for exempt in ["127.0.0.1", "127.1.2.3", "::1", "10.1.2.3"] {
            assert_eq!(holds(&config, exempt, 2 * most), 2 * most, "{exempt}");
        }
        assert_eq!(holds(&config, "192.168.1.2", 2 * most), most);
        // Perhaps a proxy that nobody has declared.
        let none = Config::default();
        for exempt in ["192.168.1.2", "::ffff:172.17.0.2", "fd00::2"] {
            assert_eq!(holds(&none, exempt, 2 * most), 2 * most, "{exempt}");
        }
        assert_eq!(holds(&none, "2001:db8::1", 2 * most), most);
        let set = |max_per_address| Config {
            max_per_address: Some(max_per_address),
            ..config.clone()
        };
        assert_eq!(holds(&set(3), "127.0.0.1", 9), 3);
        assert_eq!(holds(&set(0), "192.0.2.1", 2 * most), 2 * most);
    }

    #[test]
    fn clients_of_one_ipv6_network_are_counted_together_and_a_place_is_given_back() {
        let config = Config {
            max_per_address: Some(1),
            ..Config::default()
        };
        let addresses = Arc::new(Addresses::new(&config));
        let enter = |client| addresses.enter(ip(client), &config, Instant::now());
        let first = enter("2001:db8::1").expect("a place");
        assert!(!first.leaves_room());
        let refused = enter("2001:db8::ffff:0:0:2").err();
        assert_eq!(refused, Some(AddressRefusal::TooMany));
        let _elsewhere = enter("2001:db8:0:1::1").expect("a place");
        drop(first);
        let _second = enter("2001:db8::2").expect("a place");
    }

    #[test]
    fn new_connections_of_an_address_are_bounded_in_their_rate() {
        let config = Config {
            connect_rate: Some(1),
            ..Config::default()
        };
        let addresses = Arc::new(Addresses::new(&config));
        let now = Instant::now();
        let enter = |client| addresses.enter(ip(client), &config, now).map(drop);
        for _ in 0..limit::CONNECT_BURST_SECONDS {
            assert_eq!(enter("127.0.0.1"), Ok(()));
        }
        let wait = Duration::from_secs(1);
        assert_eq!(enter("127.0.0.1"), Err(AddressRefusal::TooFast(wait)));
        assert_eq!(enter("127.0.0.2"), Ok(()));
    }
}
