//! Opens connections: over TCP, through a SOCKS5 proxy, or within this process.

use std::{fmt, io, sync::Arc, time::Duration};

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

/// A way to reach peers.
#[async_trait]
pub trait Dialer: Send + Sync + fmt::Debug {
    /// Opens a connection. The caller limits how long that may take, by dropping the future.
    ///
    /// # Errors
    /// The peer was not reached.
    async fn dial(&self, address: &PeerAddress) -> io::Result<Box<dyn Stream>>;

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
) -> Result<Box<dyn Stream>, ConnectError> {
    timeout(limit, dialer.dial(address))
        .await
        .map_err(|_| ConnectError::TimedOut)?
        .map_err(|error| ConnectError::Io(Arc::new(error)))
}

#[cfg(test)]
mod tests;
