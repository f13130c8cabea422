//! Opens connections.

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use crate::{ConnectError, PeerAddress};

/// Connects over TCP; a host name is resolved first and every address of it tried.
pub(crate) async fn connect(address: &PeerAddress, limit: Duration) -> Result<TcpStream, ConnectError> {
    let stream = timeout(limit, TcpStream::connect((address.host.as_str(), address.port)))
        .await
        .map_err(|_| ConnectError::TimedOut)?
        .map_err(|error| ConnectError::Io(Arc::new(error)))?;
    // Requests are small and each one is waited for.
    stream.set_nodelay(true).map_err(|error| ConnectError::Io(Arc::new(error)))?;
    Ok(stream)
}

/// Resolves one seed to the addresses behind it.
pub(crate) async fn resolve(seed: &str, port: u16) -> Result<Vec<PeerAddress>, std::io::Error> {
    Ok(tokio::net::lookup_host((seed, port)).await?.map(PeerAddress::from).collect())
}
