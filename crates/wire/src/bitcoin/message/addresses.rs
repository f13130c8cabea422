//! Addresses of nodes: the 26 bytes of `version` and `addr`, and `addrv2` (BIP 155).

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use bytes::{BufMut, Bytes, BytesMut};
use nom::number::complete::{be_u16, le_u8, le_u32, le_u64};

use super::{
    Services,
    fields::{Parsed, Payload, array, bytes, compact_size, fail, field, list, put_bytes, put_list},
};
use crate::bitcoin::encode_compact_size;

/// The most addresses in one `addr` or `addrv2` message.
pub const MAX_ADDRESSES: usize = 1000;

/// The longest address of `addrv2` in bytes, of whatever net.
const MAX_ADDRESS: usize = 512;

/// An address inside `version` and `addr`: 26 bytes, IPv4 mapped into IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkAddress {
    /// What the node there is said to offer.
    pub services: Services,
    /// The address.
    pub ip: Ipv6Addr,
    /// The port.
    pub port: u16,
}

impl NetworkAddress {
    /// No address, as nodes send it for themselves.
    pub const UNSPECIFIED: Self = Self { services: Services::NONE, ip: Ipv6Addr::UNSPECIFIED, port: 0 };

    /// The address as sockets take it: IPv4 where it is mapped.
    #[must_use]
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip.to_canonical(), self.port)
    }
}

impl From<SocketAddr> for NetworkAddress {
    fn from(address: SocketAddr) -> Self {
        let ip = match address {
            SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped(),
            SocketAddr::V6(v6) => *v6.ip(),
        };
        Self { services: Services::NONE, ip, port: address.port() }
    }
}

pub(super) fn network_address(input: &[u8]) -> Parsed<'_, NetworkAddress> {
    let (input, services) = le_u64(input)?;
    let (input, ip) = array::<16>(input)?;
    let (input, port) = be_u16(input)?;
    Ok((input, NetworkAddress { services: Services(services), ip: ip.into(), port }))
}

pub(super) fn put_network_address(address: &NetworkAddress, output: &mut BytesMut) {
    output.put_u64_le(address.services.0);
    output.put_slice(&address.ip.octets());
    output.put_u16(address.port);
}

/// An entry of `addr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedAddress {
    /// When the node was last heard of, in seconds since 1970 (UTC), as the sender says.
    pub time: u32,
    /// The node.
    pub address: NetworkAddress,
}

impl Payload for Vec<TimedAddress> {
    const LIMIT: Option<u64> = Some(9 + 30 * MAX_ADDRESSES as u64);

    fn parse<'a>(input: &'a [u8], _payload: &Bytes) -> Parsed<'a, Self> {
        list("addresses", input, MAX_ADDRESSES, 30, |input| {
            let (input, time) = le_u32(input)?;
            let (input, address) = network_address(input)?;
            Ok((input, TimedAddress { time, address }))
        })
    }

    fn serialize(&self, output: &mut BytesMut) {
        put_list(self, output, |entry, output| {
            output.put_u32_le(entry.time);
            put_network_address(&entry.address, output);
        });
    }
}

/// An entry of `addrv2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressV2 {
    /// When the node was last heard of, in seconds since 1970 (UTC), as the sender says.
    pub time: u32,
    /// What the node is said to offer.
    pub services: Services,
    /// Where it is.
    pub host: HostAddress,
    /// The port; 0 on I2P.
    pub port: u16,
}

/// An address on one of the nets of BIP 155.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum HostAddress {
    /// IPv4, net 1.
    Ipv4(Ipv4Addr),
    /// IPv6, net 2.
    Ipv6(Ipv6Addr),
    /// The Ed25519 key of a Tor v3 onion service, net 4.
    TorV3([u8; 32]),
    /// The SHA-256 of an I2P destination, net 5.
    I2p([u8; 32]),
    /// An address of the CJDNS overlay, meant to be in fc00::/8, net 6.
    Cjdns(Ipv6Addr),
    /// A net that is not known here, to be passed over; kept as it came, at most 512 bytes.
    Unknown {
        /// The number of the net.
        net: u8,
        /// The address.
        bytes: Bytes,
    },
}

impl HostAddress {
    fn from_net<'a>(net: u8, address: Bytes) -> Result<Self, &'a str> {
        const WRONG: &str = "not the length of its net";
        let sixteen = || address[..].try_into().map(|octets: [u8; 16]| Ipv6Addr::from(octets));
        let key = || <[u8; 32]>::try_from(&address[..]);
        match net {
            1 => <[u8; 4]>::try_from(&address[..]).map(|octets| Self::Ipv4(octets.into())).map_err(|_| WRONG),
            2 => sixteen().map(Self::Ipv6).map_err(|_| WRONG),
            4 => key().map(Self::TorV3).map_err(|_| WRONG),
            5 => key().map(Self::I2p).map_err(|_| WRONG),
            6 => sixteen().map(Self::Cjdns).map_err(|_| WRONG),
            _ => Ok(Self::Unknown { net, bytes: address }),
        }
    }

    fn put(&self, output: &mut BytesMut) {
        let (net, bytes): (u8, &[u8]) = match self {
            Self::Ipv4(ip) => (1, &ip.octets()),
            Self::Ipv6(ip) => (2, &ip.octets()),
            Self::TorV3(key) => (4, key),
            Self::I2p(hash) => (5, hash),
            Self::Cjdns(ip) => (6, &ip.octets()),
            Self::Unknown { net, bytes } => (*net, bytes),
        };
        output.put_u8(net);
        put_bytes(bytes, output);
    }
}

impl fmt::Display for HostAddress {
    /// The text that resolvers of the net take: `.onion` and `.b32.i2p` names where they have them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(ip) => ip.fmt(f),
            Self::Ipv6(ip) | Self::Cjdns(ip) => ip.fmt(f),
            Self::TorV3(key) => {
                // Tor's rend-spec-v3, 6: key, two bytes of checksum, version.
                let checked = [&b".onion checksum"[..], key, &[3]].concat();
                let checksum = bitcoin_hashes::sha3_256::hash(&checked).to_byte_array();
                base32(&[&key[..], &checksum[..2], &[3]].concat(), f)?;
                f.write_str(".onion")
            }
            Self::I2p(hash) => {
                base32(hash, f)?;
                f.write_str(".b32.i2p")
            }
            Self::Unknown { net, .. } => write!(f, "an address of net {net}"),
        }
    }
}

/// Base 32 of RFC 4648 in lower case, without padding.
fn base32(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for five in bytes.chunks(5) {
        let mut word = [0; 8];
        word[3..3 + five.len()].copy_from_slice(five);
        let word = u64::from_be_bytes(word);
        for digit in 0..(five.len() * 8).div_ceil(5) {
            let value = (word >> (35 - 5 * digit)) & 31;
            write!(f, "{}", char::from(b"abcdefghijklmnopqrstuvwxyz234567"[value as usize]))?;
        }
    }
    Ok(())
}

impl Payload for Vec<AddressV2> {
    const LIMIT: Option<u64> = Some(9 + (4 + 9 + 1 + 3 + MAX_ADDRESS as u64 + 2) * MAX_ADDRESSES as u64);

    fn parse<'a>(input: &'a [u8], payload: &Bytes) -> Parsed<'a, Self> {
        list("addresses", input, MAX_ADDRESSES, 9, |input| {
            let (input, time) = le_u32(input)?;
            let (input, services) = compact_size(input)?;
            let (after_net, net) = le_u8(input)?;
            let (rest, address) = bytes(after_net, payload, MAX_ADDRESS)?;
            let host = match HostAddress::from_net(net, address) {
                Ok(host) => host,
                Err(problem) => return fail(after_net, "address", problem),
            };
            let (input, port) = field("port", rest, be_u16)?;
            Ok((input, AddressV2 { time, services: Services(services), host, port }))
        })
    }

    fn serialize(&self, output: &mut BytesMut) {
        put_list(self, output, |entry, output| {
            output.put_u32_le(entry.time);
            encode_compact_size(entry.services.0, output);
            entry.host.put(output);
            output.put_u16(entry.port);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_onion_and_i2p_services() {
        // The example of BIP 155's test vectors in Bitcoin Core.
        let key = hex_conservative::decode_to_array(
            "79bcc625184b05194975c28b66b66b0469f7f6556fb1ac3189a79b40dda32f1f",
        );
        assert_eq!(
            HostAddress::TorV3(key.unwrap()).to_string(),
            "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion"
        );
        let hash = hex_conservative::decode_to_array(
            "a2894dabaec08c0051a481a6dac88b64f98232ae42d4b6fd2fa81952dfe36a87",
        );
        assert_eq!(
            HostAddress::I2p(hash.unwrap()).to_string(),
            "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p"
        );
    }
}
