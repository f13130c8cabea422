//! Where a peer is: a host name or an IP address, and a port.

use std::{fmt, net::Ipv6Addr};

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
    /// Reads `host`, `host:port`, `1.2.3.4:port`, `[::1]:port` or `::1`; without a port it is `default_port`.
    ///
    /// # Errors
    /// The host is empty, the port is no number from 1 to 65535, or brackets do not hold an IPv6 address.
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
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(fail("the host is missing or has characters no host has"));
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
        Ok(Self { host: host.to_owned(), port })
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

impl From<std::net::SocketAddr> for PeerAddress {
    fn from(address: std::net::SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_round_trips() {
        for (text, host, port) in [
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("node.example", "node.example", 8333),
            ("node.example:18444", "node.example", 18444),
            ("[::1]:8334", "::1", 8334),
            ("[2001:db8::7]", "2001:db8::7", 8333),
            ("::1", "::1", 8333),
        ] {
            let address = PeerAddress::parse(text, 8333).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
            assert_eq!(PeerAddress::parse(&address.to_string(), 1), Ok(address));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            ":8333",
            "host:",
            "host:0",
            "host:70000",
            "host:x",
            "[::1",
            "[host]:1",
            "[::1]8333",
            "a b:1",
            "1:2:3",
        ] {
            assert!(PeerAddress::parse(text, 8333).is_err(), "{text}");
        }
    }
}
