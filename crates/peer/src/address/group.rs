//! Kinds of hosts, and the networks they belong to.
//!
//! Groups follow Bitcoin Core's `NetGroupManager` without an AS map: IPv4 by /16, IPv6 by /32, IPv6 that embeds IPv4
//! (6to4 RFC 3056, Teredo RFC 4380, NAT64 RFC 6052) by that; onion and I2P addresses, which cost nothing to make, in 16 groups
//! each. What is not routable is a group for each host, since diversity means nothing there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kinds of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostKind {
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 address.
    Ipv6(Ipv6Addr),
    /// A Tor v3 address: 56 characters of base32, then `.onion`.
    Onion,
    /// An I2P address: 52 characters of base32, then `.b32.i2p`.
    I2p,
    /// A host name.
    Name,
}

/// A network that one operator is likely to own all of. Connections to many groups are hard to take over.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkGroup {
    /// The first 16 bits of a routable IPv4 address.
    Ipv4([u8; 2]),
    /// The first 32 bits of a routable IPv6 address.
    Ipv6([u8; 4]),
    /// The first 4 bits of an onion address.
    Onion(u8),
    /// The first 4 bits of an I2P address.
    I2p(u8),
    /// An address that is not routable.
    Local(IpAddr),
    /// A host name.
    Name(String),
}

impl HostKind {
    pub(super) fn of(host: &str) -> Self {
        let is_base32 = |text: &str, length| {
            text.len() == length && text.bytes().all(|c| matches!(c, b'a'..=b'z' | b'A'..=b'Z' | b'2'..=b'7'))
        };
        match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(IpAddr::V4(ip)) => Self::Ipv4(ip),
            Ok(IpAddr::V6(ip)) => Self::Ipv6(ip),
            Err(_) if host.strip_suffix(".onion").is_some_and(|key| is_base32(key, 56)) => Self::Onion,
            Err(_) if host.strip_suffix(".b32.i2p").is_some_and(|key| is_base32(key, 52)) => Self::I2p,
            Err(_) => Self::Name,
        }
    }
}

impl NetworkGroup {
    pub(super) fn of(host: &str) -> Self {
        let first_bits = host.bytes().next().map_or(0, |c| match c {
            b'2'..=b'7' => c - b'2' + 26,
            _ => c.to_ascii_lowercase().saturating_sub(b'a') & 31,
        }) >> 1;
        match HostKind::of(host) {
            HostKind::Ipv4(ip) if !is_routable_v4(ip) => Self::Local(ip.into()),
            HostKind::Ipv4(ip) => Self::of_v4(ip),
            HostKind::Ipv6(ip) if !is_routable_v6(ip) => Self::Local(ip.into()),
            HostKind::Ipv6(ip) => embedded(ip).map_or_else(
                || {
                    let [a, b, c, d, ..] = ip.octets();
                    Self::Ipv6([a, b, c, d])
                },
                Self::of_v4,
            ),
            HostKind::Onion => Self::Onion(first_bits),
            HostKind::I2p => Self::I2p(first_bits),
            HostKind::Name => Self::Name(host.to_owned()),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        let [a, b, ..] = ip.octets();
        Self::Ipv4([a, b])
    }
}

pub(super) fn is_routable(host: &str) -> bool {
    match HostKind::of(host) {
        HostKind::Ipv4(ip) => is_routable_v4(ip),
        HostKind::Ipv6(ip) => is_routable_v6(ip),
        HostKind::Onion | HostKind::I2p => true,
        HostKind::Name => is_public_name(host),
    }
}

/// Special-purpose blocks: RFC 6890 and what it lists.
fn is_routable_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_shared = a == 100 && (64..128).contains(&b); // RFC 6598
    let is_benchmark = a == 198 && matches!(b, 18 | 19); // RFC 2544
    let is_protocol = (a, b, c) == (192, 0, 0); // RFC 6890
    !(a == 0
        || a >= 224
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || is_shared
        || is_benchmark
        || is_protocol)
}

fn is_routable_v6(ip: Ipv6Addr) -> bool {
    if let Some(ip) = embedded(ip) {
        return is_routable_v4(ip);
    }
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, _, _] => false, // unspecified, loopback, IPv4-compatible
        [0x0100, 0, 0, 0, ..] => false,    // discard, RFC 6666
        [0x2001, 0x0db8, ..] => false,     // documentation, RFC 3849
        [0x2001, second, ..] if matches!(second >> 4, 0x1 | 0x2) => false, // ORCHID, RFC 4843 and 7343
        [first, ..] => (first & 0xe000) == 0x2000, // global unicast, RFC 4291
    }
}

/// The IPv4 address that an IPv6 address is a way to.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        [0x2002, high, low, ..] => Some(from(high, low)),
        [0x2001, 0, _, _, _, _, high, low] => Some(from(!high, !low)),
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => Some(from(high, low)),
        _ => None,
    }
}

/// Whether DNS may know the name. One whose last label starts with a digit may be read as an IPv4 address by the system.
fn is_public_name(host: &str) -> bool {
    const LOCAL: [&str; 8] = ["onion", "i2p", "local", "localhost", "internal", "invalid", "test", "arpa"];
    host.rsplit_once('.').is_some_and(|(rest, last)| {
        !rest.is_empty()
            && !LOCAL.iter().any(|local| last.eq_ignore_ascii_case(local))
            && last.starts_with(|c: char| !c.is_ascii_digit())
    })
}
