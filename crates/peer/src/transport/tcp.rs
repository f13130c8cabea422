//! TCP, directly or through a SOCKS5 proxy (RFC 1928, RFC 1929), with Tor's stream isolation by credentials.
//!
//! What goes through a proxy is never looked up here, or its operator's resolver would learn whom we talk to; and the names
//! of networks that DNS does not know (RFC 7686) are never asked of it.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use tokio::net::{TcpStream, lookup_host};
use tokio_socks::{Error as SocksError, tcp::Socks5Stream};

use super::{Dialed, Dialer};
use crate::PeerAddress;

/// How many addresses are taken of one DNS seed.
const MAX_RESOLVED: usize = 256;

/// How to connect over TCP.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TcpOptions {
    /// The proxy for every connection. With it no name is looked up here, those of DNS seeds included.
    pub proxy: Option<Proxy>,
    /// The proxy for onion addresses, in place of `proxy`. Without either they are not dialled.
    pub onion_proxy: Option<Proxy>,
    /// Whether small messages are sent at once; on, for requests are small and each one is waited for.
    pub nodelay: bool,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self { proxy: None, onion_proxy: None, nodelay: true }
    }
}

/// A SOCKS5 proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proxy {
    /// Where it is. A host name is looked up here.
    pub address: PeerAddress,
    /// What it is told about us.
    pub authentication: ProxyAuthentication,
}

impl Proxy {
    /// A proxy that wants no credentials.
    #[must_use]
    pub fn new(address: PeerAddress) -> Self {
        Self { address, authentication: ProxyAuthentication::None }
    }
}

/// How we present ourselves to a proxy.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyAuthentication {
    /// Not at all.
    None,
    /// With credentials.
    Password {
        /// The user, 1 to 255 bytes.
        user: String,
        /// The password, 1 to 255 bytes.
        password: String,
    },
    /// With credentials of its own for each connection, made up here. Tor gives each such connection a circuit of its own, so
    /// that what exits see of one says nothing of another.
    Isolate,
}

impl fmt::Debug for ProxyAuthentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Password { user, .. } => {
                f.debug_struct("Password").field("user", user).finish_non_exhaustive()
            }
            Self::Isolate => f.write_str("Isolate"),
        }
    }
}

/// Dials over TCP. Clones share the count of connections that isolation goes by.
#[derive(Debug, Clone)]
pub struct Tcp {
    options: TcpOptions,
    /// The user name that isolation gives to this process.
    user: String,
    dialled: Arc<AtomicU64>,
}

impl Default for Tcp {
    fn default() -> Self {
        Self::new(TcpOptions::default())
    }
}

/// What went wrong at or behind the proxy.
#[derive(Debug, thiserror::Error)]
enum ProxyError {
    #[error("the proxy {proxy} is not reached: {source}")]
    Unreachable { proxy: PeerAddress, source: io::Error },
    #[error("the proxy {proxy} does not connect: {source}")]
    Refused { proxy: PeerAddress, source: SocksError },
}

impl Tcp {
    /// A dialer with options.
    #[must_use]
    pub fn new(options: TcpOptions) -> Self {
        Self::with_seed(options, fastrand::u64(..))
    }

    /// The same, where the credentials of isolated connections follow from a seed.
    #[must_use]
    pub fn with_seed(options: TcpOptions, seed: u64) -> Self {
        Self { options, user: format!("{seed:016x}"), dialled: Arc::default() }
    }

    /// The proxy that an address is dialled through, if any.
    fn proxy(&self, host: &str) -> io::Result<Option<&Proxy>> {
        let Some(network) = hidden_network(host) else { return Ok(self.options.proxy.as_ref()) };
        let own = self.options.onion_proxy.as_ref().filter(|_| network == "onion");
        match own.or(self.options.proxy.as_ref()) {
            Some(proxy) => Ok(Some(proxy)),
            None => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{network} addresses are reached through a proxy only"),
            )),
        }
    }

    async fn dial_through(&self, proxy: &Proxy, address: &PeerAddress) -> Result<TcpStream, ProxyError> {
        let target = (address.host.as_str(), address.port);
        let at = &proxy.address;
        let socket = TcpStream::connect((at.host.as_str(), at.port))
            .await
            .map_err(|source| ProxyError::Unreachable { proxy: at.clone(), source })?;
        let connected = match &proxy.authentication {
            ProxyAuthentication::None => Socks5Stream::connect_with_socket(socket, target).await,
            ProxyAuthentication::Password { user, password } => {
                Socks5Stream::connect_with_password_and_socket(socket, target, user, password).await
            }
            ProxyAuthentication::Isolate => {
                let password = self.dialled.fetch_add(1, Ordering::Relaxed).to_string();
                Socks5Stream::connect_with_password_and_socket(socket, target, &self.user, &password).await
            }
        };
        let refused = |source| ProxyError::Refused { proxy: at.clone(), source };
        connected.map(Socks5Stream::into_inner).map_err(refused)
    }
}

#[async_trait]
impl Dialer for Tcp {
    /// Without a proxy a host name is resolved first and every address of it tried.
    async fn dial(&self, address: &PeerAddress) -> io::Result<Dialed> {
        let (stream, remote) = match self.proxy(&address.host)? {
            Some(proxy) => (self.dial_through(proxy, address).await?, None),
            None => {
                let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
                let remote = stream.peer_addr()?;
                (stream, Some(remote))
            }
        };
        stream.set_nodelay(self.options.nodelay)?;
        Ok(Dialed { stream: Box::new(stream), remote })
    }

    /// With a proxy the seed itself is the only address: the proxy resolves it when it is dialled.
    async fn resolve(&self, seed: &str, port: u16) -> io::Result<Vec<PeerAddress>> {
        if self.proxy(seed)?.is_some() {
            return Ok(vec![PeerAddress { host: seed.to_owned(), port }]);
        }
        Ok(lookup_host((seed, port)).await?.take(MAX_RESOLVED).map(PeerAddress::from).collect())
    }
}

/// The network of a host name that DNS knows nothing of.
fn hidden_network(host: &str) -> Option<&'static str> {
    let (_, last) = host.trim_end_matches('.').rsplit_once('.')?;
    ["onion", "i2p"].into_iter().find(|network| last.eq_ignore_ascii_case(network))
}

impl From<ProxyError> for io::Error {
    fn from(error: ProxyError) -> Self {
        let kind = match &error {
            ProxyError::Unreachable { source, .. } => source.kind(),
            ProxyError::Refused { source, .. } => match source {
                SocksError::Io(error) => error.kind(),
                SocksError::ConnectionRefused => io::ErrorKind::ConnectionRefused,
                SocksError::HostUnreachable => io::ErrorKind::HostUnreachable,
                SocksError::NetworkUnreachable => io::ErrorKind::NetworkUnreachable,
                SocksError::PasswordAuthFailure(_) | SocksError::ConnectionNotAllowedByRuleset => {
                    io::ErrorKind::PermissionDenied
                }
                SocksError::InvalidTargetAddress(_) | SocksError::InvalidAuthValues(_) => {
                    io::ErrorKind::InvalidInput
                }
                _ => io::ErrorKind::Other,
            },
        };
        Self::new(kind, error)
    }
}
