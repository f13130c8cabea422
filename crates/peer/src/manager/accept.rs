//! Connections that others open.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

use super::StartError;
use crate::{PeerAddress, Stream};

/// How long to wait after the system refused to accept, such as for too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens on every address.
pub(super) async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
    let mut listeners = Vec::new();
    for &address in addresses {
        let listener =
            TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Accepts until the receiver is gone. Dropping the set ends the tasks.
pub(super) fn accept(
    listeners: Vec<TcpListener>,
    accepted: &mpsc::Sender<(Box<dyn Stream>, PeerAddress)>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let accepted = accepted.clone();
        tasks.spawn(async move {
            while !accepted.is_closed() {
                match listener.accept().await {
                    Ok((stream, from)) => {
                        stream.set_nodelay(true).ok();
                        let from = PeerAddress::from(from);
                        if accepted.send((Box::new(stream), from)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
    }
    tasks
}
