//! Who a request counts for when limits are counted.

use std::net::{IpAddr, Ipv6Addr};

use afterimage_runner::Owner;
use axum::extract::Request;

use crate::connections::Peer;

/// Bits of an IPv6 address that belong to its network; its owner chooses the rest freely.
const IPV6_NETWORK: u128 = !0 << 64;
/// Begins the numbers of keys among those of owners.
const KEYS: u128 = 1 << 63;

/// A key, or an address where there are no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::api) enum Client {
    /// By its place in the list of keys.
    Key(usize),
    /// The peer of the connection, an IPv6 address by its network. Behind a proxy that is the proxy.
    Address(IpAddr),
    /// Everybody else.
    Unknown,
}

impl Client {
    /// Its key, where there are keys. Jobs belong to keys: an address is not enough to tell clients apart
    /// for good.
    pub(in crate::api) fn key(self) -> Option<usize> {
        match self {
            Self::Key(key) => Some(key),
            Self::Address(_) | Self::Unknown => None,
        }
    }

    /// For what clients share. Addresses of networks end in zeros, and those of IPv4 have zeros where keys have a one.
    pub(in crate::api) fn owner(self) -> Owner {
        match self {
            Self::Key(key) => Owner::new(KEYS | key as u128),
            Self::Address(address) => Owner::new(as_ipv6(address).to_bits()),
            Self::Unknown => Owner::default(),
        }
    }

    /// The client of a request without a key.
    pub(super) fn of_connection(request: &Request) -> Self {
        match request.extensions().get::<Peer>() {
            // An IPv4 client that comes in through an IPv6 socket is the same client as without it.
            Some(Peer(address)) => Self::Address(network(address.ip().to_canonical())),
            None => Self::Unknown,
        }
    }
}

fn as_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & IPV6_NETWORK)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::body::Body;

    use super::*;

    fn client(address: &str) -> Client {
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(Peer(SocketAddr::new(address.parse().unwrap(), 1)));
        Client::of_connection(&request)
    }

    #[test]
    fn every_client_is_an_owner_of_its_own() {
        let clients = [
            Client::Unknown,
            Client::Key(0),
            Client::Key(1),
            client("127.0.0.1"),
            client("0.0.0.1"),
            client("128.0.0.0"),
            client("2001:db8::1"),
            client("::1"),
            client("::8000:0:0:1"),
        ];
        let owners: std::collections::HashSet<_> = clients.iter().map(|client| client.owner()).collect();
        // `::` is the network of the last two, and nobody's address.
        assert_eq!(owners.len(), clients.len() - 2);
        assert_eq!(client("2001:db8::1").owner(), client("2001:db8::2").owner());
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:2"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_eq!(Client::of_connection(&Request::new(Body::empty())), Client::Unknown);
    }
}
