//! Where a peer is: a host name, an IP, onion or I2P address, and a port.
//!
//! Addresses are compared by their text, so every way into this type normalises: the same node is never two addresses.

mod group;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

pub use group::{HostKind, NetworkGroup};

/// The longest host name, in bytes (RFC 1035).
const MAX_HOST: usize = 253;

/// A host and a port, not resolved yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// A host name, or an IPv4 or IPv6 address without brackets.
    pub host: String,
    /// The port, not 0.
    pub port: u16,
}

/// Text that names no host and port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not HOST:PORT: {problem}")]
pub struct ParseAddressError {
    text: String,
    problem: &'static str,
}

impl PeerAddress {
    /// Reads `host`, `host:port`, `1.2.3.4:port`, `[::1]:port` or `::1`, and [normalises](Self::normalized) it; without a
    /// port it is `default_port`.
    ///
    /// # Errors
    /// The host is empty or longer than 253 bytes, the port is no number from 1 to 65535, or brackets do not hold an IPv6
    /// address.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, ParseAddressError> {
        let fail = |problem| ParseAddressError { text: text.to_owned(), problem };
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(|| fail("a bracket is not closed"))?;
            host.parse::<Ipv6Addr>().map_err(|_| fail("brackets hold IPv6 addresses only"))?;
            match rest {
                "" => (host, None),
                _ => (host, Some(rest.strip_prefix(':').ok_or_else(|| fail("a port follows a colon"))?)),
            }
        } else if text.parse::<Ipv6Addr>().is_ok() {
            (text, None)
        } else {
            text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let is_foreign = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '[' | ']');
        if host.trim_end_matches('.').is_empty() || host.contains(is_foreign) {
            return Err(fail("the host is missing or has characters no host has"));
        }
        if host.len() > MAX_HOST {
            return Err(fail("the host is longer than 253 bytes"));
        }
        if host.contains(':') && host.parse::<Ipv6Addr>().is_err() {
            return Err(fail("an IPv6 address with a port needs brackets"));
        }
        let port = port.map_or(Ok(default_port), |port| {
            port.parse()
                .ok()
                .filter(|&port| port != 0)
                .ok_or_else(|| fail("the port is a number from 1 to 65535"))
        })?;
        Ok(Self { host: host.to_owned(), port }.normalized())
    }

    /// The same address as everyone else writes it: names in lower case and without the root's dot, IPv6 as in RFC 5952 and
    /// without brackets, IPv4 in IPv6 (`::ffff:1.2.3.4`) as IPv4.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        let bare = self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host);
        self.host = bare.parse::<IpAddr>().map_or_else(
            |_| bare.trim_end_matches('.').to_ascii_lowercase(),
            |ip| ip.to_canonical().to_string(),
        );
        self
    }

    /// Whether [`parse`](Self::parse) gives this address back from its text.
    pub(crate) fn is_well_formed(&self) -> bool {
        self.port != 0
            && self.host.len() <= MAX_HOST
            && Self::parse(&self.to_string(), 1).is_ok_and(|read| read == *self)
    }

    /// The address as an IP address, if it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok().map(|ip: IpAddr| ip.to_canonical())
    }

    /// What kind of host it is.
    #[must_use]
    pub fn kind(&self) -> HostKind {
        HostKind::of(&self.host)
    }

    /// The network it belongs to, as far as one operator is likely to own all of it.
    #[must_use]
    pub fn network_group(&self) -> NetworkGroup {
        NetworkGroup::of(&self.host)
    }

    /// Whether it can be reached from anywhere: no private, local, documentation or multicast address, no name that only
    /// this network knows.
    #[must_use]
    pub fn is_routable(&self) -> bool {
        group::is_routable(&self.host)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_canonical().to_string(), port: address.port() }
    }
}
