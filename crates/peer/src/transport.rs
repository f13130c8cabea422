//! Opens connections: over TCP, through a SOCKS5 proxy, or within this process.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use crate::{ConnectError, PeerAddress};

pub use memory::{Memory, MemoryListener};
pub use tcp::{Proxy, ProxyAuthentication, Tcp, TcpOptions};

mod memory;
mod tcp;

/// A connection's bytes, both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that was opened.
pub struct Dialed {
    /// Its bytes.
    pub stream: Box<dyn Stream>,
    /// Where it really leads, if that is known: it is not behind a proxy. Two names may lead to one node.
    pub remote: Option<SocketAddr>,
}

impl fmt::Debug for Dialed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialed").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// A way to reach peers.
#[async_trait]
pub trait Dialer: Send + Sync + fmt::Debug {
    /// Opens a connection. The caller limits how long that may take, by dropping the future.
    ///
    /// # Errors
    /// The peer was not reached.
    async fn dial(&self, address: &PeerAddress) -> io::Result<Dialed>;

    /// The addresses behind a DNS seed: those to dial in its place.
    ///
    /// # Errors
    /// The name does not resolve.
    async fn resolve(&self, seed: &str, port: u16) -> io::Result<Vec<PeerAddress>>;
}

/// Opens a connection within a time.
pub(crate) async fn connect(
    dialer: &dyn Dialer,
    address: &PeerAddress,
    limit: Duration,
) -> Result<Dialed, ConnectError> {
    timeout(limit, dialer.dial(address))
        .await
        .map_err(|_| ConnectError::TimedOut)?
        .map_err(|error| ConnectError::Io(Arc::new(error)))
}

#[cfg(test)]
mod tests;
