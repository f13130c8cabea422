//! A node: a listener and the connections it has accepted.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tipward_wire::bitcoin::Transaction;
use tokio::{
    net::{TcpListener, ToSocketAddrs},
    sync::{broadcast::error::RecvError, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::sleep_until,
};

use crate::{
    Behaviour, ChainSpec, SimChain, SimOptions, SimStats,
    mempool::{Mempool, Origin},
    serve::serve,
    stats::Counters,
};

/// The most connections a node serves at a time; more wait.
const MAX_CONNECTIONS: usize = 256;

/// A node that listens until it is shut down or dropped.
#[derive(Debug)]
pub struct SimNode {
    address: SocketAddr,
    chain: watch::Sender<Arc<SimChain>>,
    shared: Arc<Shared>,
    /// One task for each node that this one relays to.
    relays: Mutex<JoinSet<()>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// What all connections of a node have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: SimOptions,
    pub(crate) mempool: Mempool,
    pub(crate) addresses: Mutex<Vec<SocketAddr>>,
    pub(crate) counters: Counters,
}

impl SimNode {
    /// Listens on `address` (port 0 takes a free one) and serves `chain`, as a [`Behaviour`] or [`SimOptions`] say. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// The address can't be bound.
    pub async fn spawn(
        chain: SimChain,
        options: impl Into<SimOptions>,
        address: impl ToSocketAddrs,
    ) -> io::Result<Self> {
        let options = options.into();
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (chain, watched) = watch::channel(Arc::new(served(chain, &options)));
        let (stop, stopped) = oneshot::channel();
        let addresses = Mutex::new(options.addresses.clone());
        let (mempool, counters) = (Mempool::new(), Counters::default());
        let shared = Arc::new(Shared { options, mempool, addresses, counters });
        let task = tokio::spawn(listen(listener, watched, shared.clone(), stopped));
        Ok(Self { address, chain, shared, relays: Mutex::default(), stop, task })
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

    /// Serves another chain from now on and announces its tip to everyone connected. Transactions that are in its new blocks,
    /// or conflict with them, leave the mempool.
    pub fn set_chain(&self, chain: SimChain) {
        let chain = Arc::new(served(chain, &self.shared.options));
        let old = self.chain.send_replace(chain.clone());
        let new = chain.blocks().iter().filter(|block| old.position(block.hash).is_none());
        self.shared.mempool.remove_mined(new);
    }

    /// Answers `getaddr` with these addresses from now on, the first 1000 of them.
    pub fn set_addresses(&self, addresses: Vec<SocketAddr>) {
        *self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// Takes a transaction into the mempool, as if another node had sent it, and announces it to everyone connected; false if
    /// it is there or the mempool is full. Whether it is valid is not checked.
    pub fn add_transaction(&self, transaction: Transaction) -> bool {
        self.shared.mempool.accept(transaction, Origin::Elsewhere)
    }

    /// The transactions in the mempool, the first to arrive first.
    #[must_use]
    pub fn mempool(&self) -> Vec<Transaction> {
        self.shared.mempool.all()
    }

    /// Whatever this node takes into its mempool from now on also reaches the other's, as long as both are there, after
    /// [`SimOptions::relay_delay`]; not the other way round. Must be called within a tokio runtime.
    pub fn relay_to(&self, other: &Self) {
        let mut accepted = self.shared.mempool.subscribe();
        let (other, delay) = (Arc::downgrade(&other.shared), self.shared.options.relay_delay);
        let relay = async move {
            loop {
                match accepted.recv().await {
                    Ok(next) => {
                        sleep_until(next.at + delay).await;
                        let Some(other) = other.upgrade() else { return };
                        other.mempool.accept(next.transaction, Origin::Elsewhere);
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        };
        self.relays.lock().unwrap_or_else(PoisonError::into_inner).spawn(relay);
    }

    /// What the node has done so far.
    #[must_use]
    pub fn stats(&self) -> SimStats {
        self.shared.counters.snapshot()
    }

    /// Closes every connection and the listener.
    pub async fn shutdown(self) {
        self.stop.send(()).ok();
        self.task.await.ok();
    }
}

/// The chain that a node with these options serves when it is given `chain`.
fn served(chain: SimChain, options: &SimOptions) -> SimChain {
    if options.behaviour != Behaviour::WrongChain {
        return chain;
    }
    let blocks = u32::try_from(chain.height()).unwrap_or(u32::MAX);
    SimChain::foreign(chain.network(), ChainSpec::new(blocks, options.seed))
}

async fn listen(
    listener: TcpListener,
    chain: watch::Receiver<Arc<SimChain>>,
    shared: Arc<Shared>,
    mut stopped: oneshot::Receiver<()>,
) {
    // Dropping the set ends its tasks, and with them the sockets.
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            biased;
            // Also when the node was dropped.
            _ = &mut stopped => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, from)) => {
                    tracing::debug!(%from, "accepted");
                    let (chain, shared) = (chain.clone(), shared.clone());
                    number += 1;
                    connections.spawn(async move {
                        if let Err(error) = serve(stream, chain, shared, number).await {
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
