//! A node: a listener and the connections it has accepted.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, ToSocketAddrs},
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
};

use crate::{Behaviour, SimChain, serve::serve};

/// The most connections a node serves at a time; more wait.
const MAX_CONNECTIONS: usize = 256;

/// A node that listens until it is shut down or dropped.
#[derive(Debug)]
pub struct SimNode {
    address: SocketAddr,
    chain: watch::Sender<Arc<SimChain>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl SimNode {
    /// Listens on `address` (port 0 takes a free one) and serves `chain`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The address can't be bound.
    pub async fn spawn(
        chain: SimChain,
        behaviour: Behaviour,
        address: impl ToSocketAddrs,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (chain, watched) = watch::channel(Arc::new(chain));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(listen(listener, watched, behaviour, stopped));
        Ok(Self { address, chain, stop, task })
    }

    /// Where the node listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The chain that the node serves.
    #[must_use]
    pub fn chain(&self) -> Arc<SimChain> {
        self.chain.borrow().clone()
    }

    /// Serves another chain from now on and announces its tip to everyone connected.
    pub fn set_chain(&self, chain: SimChain) {
        self.chain.send_replace(Arc::new(chain));
    }

    /// Closes every connection and the listener.
    pub async fn shutdown(self) {
        self.stop.send(()).ok();
        self.task.await.ok();
    }
}

async fn listen(
    listener: TcpListener,
    chain: watch::Receiver<Arc<SimChain>>,
    behaviour: Behaviour,
    mut stopped: oneshot::Receiver<()>,
) {
    // Dropping the set ends its tasks, and with them the sockets.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // Also when the node was dropped.
            _ = &mut stopped => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, from)) => {
                    tracing::debug!(%from, "accepted");
                    let chain = chain.clone();
                    connections.spawn(async move {
                        if let Err(error) = serve(stream, chain, behaviour).await {
                            tracing::debug!(%from, %error, "connection ended");
                        }
                    });
                }
                // Such as too many open files: others may go on.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
        }
    }
    connections.shutdown().await;
}
