//! Addresses of `addr` and `addrv2` as the pool takes them.

use tipward_wire::bitcoin::{AddressV2, HostAddress, TimedAddress};

use crate::{KnownAddress, PeerAddress};

/// Those with a port. What can be dialled is for the address book to say.
pub(super) fn from_addr(entries: &[TimedAddress]) -> Vec<KnownAddress> {
    entries
        .iter()
        .filter(|entry| entry.address.port != 0)
        .map(|entry| KnownAddress {
            address: entry.address.socket_address().into(),
            services: entry.address.services.0,
            last_seen: entry.time.into(),
        })
        .collect()
}

/// Those on nets with names that a dialer knows: no CJDNS, which is dialled by who has a route to it, and no unknown nets.
pub(super) fn from_addr_v2(entries: &[AddressV2]) -> Vec<KnownAddress> {
    entries
        .iter()
        .filter(|entry| entry.port != 0)
        .filter(|entry| {
            matches!(entry.host, HostAddress::Ipv4(_) | HostAddress::Ipv6(_) | HostAddress::TorV3(_))
        })
        .map(|entry| KnownAddress {
            address: PeerAddress { host: entry.host.to_string(), port: entry.port },
            services: entry.services.0,
            last_seen: entry.time.into(),
        })
        .collect()
}
