//! A node: a listener and the connections it has accepted.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tipward_wire::bitcoin::Transaction;
use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    sync::{broadcast::error::RecvError, mpsc, oneshot, watch},
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
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

/// What a node's task is told. It ends when there is nobody left to tell it anything.
#[derive(Debug)]
enum Order {
    /// Let everything go, and say so.
    Stop(oneshot::Sender<()>),
    /// Listen again.
    Start(TcpListener),
}

/// What all connections of a node have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: SimOptions,
    pub(crate) behaviour: watch::Sender<Behaviour>,
    is_dead: AtomicBool,
    pub(crate) mempool: Mempool,
    pub(crate) addresses: Mutex<Vec<SocketAddr>>,
    pub(crate) counters: Counters,
}

impl Shared {
    /// Whether connections end because the node dies.
    pub(crate) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Acquire)
    }
}

impl SimNode {
    /// Listens on `address` (port 0 takes a free one) and serves `chain`, which nodes can share, as a [`Behaviour`] or [`SimOptions`] say. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// The address can't be bound.
    pub async fn spawn(
        chain: impl Into<Arc<SimChain>>,
        options: impl Into<SimOptions>,
        address: impl ToSocketAddrs,
    ) -> io::Result<Self> {
        let options = options.into();
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (behaviour, _) = watch::channel(options.behaviour);
        let (chain, watched) = watch::channel(served(chain.into(), options.behaviour, options.seed));
        let (orders, ordered) = mpsc::channel(1);
        let addresses = Mutex::new(options.addresses.clone());
        let (mempool, counters) = (Mempool::new(), Counters::default());
        let is_dead = AtomicBool::new(false);
        let shared = Arc::new(Shared { options, behaviour, is_dead, mempool, addresses, counters });
        let task = tokio::spawn(listen(listener, watched, shared.clone(), ordered));
        Ok(Self { address, chain, shared, relays: Mutex::default(), orders, task })
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
    pub fn set_chain(&self, chain: impl Into<Arc<SimChain>>) {
        let behaviour = *self.shared.behaviour.borrow();
        let chain = served(chain.into(), behaviour, self.shared.options.seed);
        let old = self.chain.send_replace(chain.clone());
        let new = chain.blocks().iter().filter(|block| old.position(block.hash).is_none());
        self.shared.mempool.remove_mined(new);
    }

    /// Behaves otherwise from now on, on connections that are open too, in the middle of a block too. What was passed over in
    /// silence is not made up for; [`Behaviour::WrongChain`] waits for the next chain.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.shared.behaviour.send_replace(behaviour);
    }

    /// Dies as a process does that is killed: every connection is reset and nobody listens any more, when this returns. It
    /// keeps its chain and what it has counted.
    pub async fn stop(&self) {
        self.shared.is_dead.store(true, Ordering::Release);
        let (stopped, is_stopped) = oneshot::channel();
        self.orders.send(Order::Stop(stopped)).await.ok();
        is_stopped.await.ok();
    }

    /// Listens again at its address after [`stop`](Self::stop).
    ///
    /// # Errors
    /// The address can't be bound.
    pub async fn restart(&self) -> io::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.shared.is_dead.store(false, Ordering::Release);
        self.orders.send(Order::Start(listener)).await.map_err(io::Error::other)
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
        drop(self.orders);
        self.task.await.ok();
    }
}

/// The chain that a node serves when it is given `chain`.
fn served(chain: Arc<SimChain>, behaviour: Behaviour, seed: u64) -> Arc<SimChain> {
    if behaviour != Behaviour::WrongChain {
        return chain;
    }
    let blocks = u32::try_from(chain.height()).unwrap_or(u32::MAX);
    Arc::new(SimChain::foreign(chain.network(), ChainSpec::new(blocks, seed)))
}

async fn listen(
    listener: TcpListener,
    chain: watch::Receiver<Arc<SimChain>>,
    shared: Arc<Shared>,
    mut orders: mpsc::Receiver<Order>,
) {
    // Dropping the set ends its tasks, and with them the sockets.
    let mut connections = JoinSet::new();
    let (mut listener, mut number) = (Some(listener), 0);
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Stop(stopped)) => {
                    listener = None;
                    connections.shutdown().await;
                    stopped.send(()).ok();
                }
                Some(Order::Start(new)) => listener = Some(new),
                // Also when the node was dropped.
                None => break,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = accept(listener.as_ref()), if connections.len() < MAX_CONNECTIONS => match accepted {
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

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}
