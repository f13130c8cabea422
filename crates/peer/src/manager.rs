//! The pool's task: dials, hands out handles, reconnects.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::{self, JoinHandle, JoinSet},
    time::{sleep_until, timeout},
};

use crate::{
    ConnectError, Dial, DisconnectReason, LinkOptions, Local, Peer, PeerAddress, PeerId, Penalty, Pool,
    PoolOptions, Protocol, Reply,
    driver::{Driver, Ended, Kill, end, ended, now},
    transport,
};

/// The most connections that any options allow.
const MAX_PEERS: usize = 10_000;
/// How long connections may take to end at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long resolving one DNS seed may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often DNS seeds are asked again while there is room for peers and no address is left to try.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(60);

/// How a manager behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ManagerOptions {
    /// Nodes to connect to. If there are none, the network's DNS seeds are asked.
    pub addresses: Vec<PeerAddress>,
    /// How long a dial may take, host name resolution included; 10 s.
    pub connect_timeout: Duration,
    /// How connections behave.
    pub link: LinkOptions,
    /// How the pool behaves.
    pub pool: PoolOptions,
    /// What peers are told about us.
    pub local: Local,
    /// Seeds everything that is random; `None` for a seed from the system.
    pub seed: Option<u64>,
}

impl Default for ManagerOptions {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            link: LinkOptions::default(),
            pool: PoolOptions::default(),
            local: Local::default(),
            seed: None,
        }
    }
}

/// What happens to the peers. Events of one peer come in order: connected, replies, disconnected.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PeerEvent {
    /// A peer is ready to be asked.
    Connected(Peer),
    /// A peer said something.
    Reply {
        /// Who.
        peer: PeerId,
        /// What.
        reply: Reply,
    },
    /// A connection ended. What was asked of the peer will not be answered; parts of an unfinished block are void.
    Disconnected {
        /// Who.
        peer: PeerId,
        /// Where it was.
        address: PeerAddress,
        /// Why.
        reason: DisconnectReason,
    },
    /// A dial came to nothing. It will be repeated.
    ConnectFailed {
        /// Where.
        address: PeerAddress,
        /// Why.
        reason: ConnectError,
    },
    /// A DNS seed could not be resolved.
    ResolveFailed {
        /// The seed.
        seed: String,
        /// Why.
        reason: String,
    },
    /// Every address was tried once, or there are as many connections as there may be. Comes once.
    Settled,
    /// No address is left that is connected, being dialled, or known to have worked without breaking the protocol.
    /// Dialling goes on; whether that is worth waiting for is the receiver's choice.
    Exhausted,
}

/// Keeps connections to the given addresses. Dropping it ends them without waiting.
#[derive(Debug)]
pub struct Manager {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Manager {
    /// Starts the pool's task; every event goes to `events`, which slows all connections down when it is full. Must be
    /// called within a tokio runtime.
    #[must_use]
    pub fn spawn(
        protocol: Arc<dyn Protocol>,
        options: ManagerOptions,
        events: mpsc::Sender<PeerEvent>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut random = options.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let pool = Pool::new(options.pool.clone(), random.u64(..));
        let task = PoolTask {
            protocol,
            options,
            events,
            random,
            pool,
            connections: JoinSet::new(),
            entries: HashMap::new(),
            kills: BTreeMap::new(),
            next_id: 0,
            was_settled: false,
            was_exhausted: false,
        };
        Self { stop, task: tokio::spawn(task.run(stopped)) }
    }

    /// Ends every connection and waits until they are closed. Ends are told as far as the receiver of the events has room.
    pub async fn shutdown(self) {
        self.stop.send(true).ok();
        self.task.await.ok();
    }
}

struct PoolTask {
    protocol: Arc<dyn Protocol>,
    options: ManagerOptions,
    events: mpsc::Sender<PeerEvent>,
    random: fastrand::Rng,
    pool: Pool,
    connections: JoinSet<Penalty>,
    /// Which address each task is for.
    entries: HashMap<task::Id, usize>,
    kills: BTreeMap<usize, Kill>,
    next_id: u64,
    was_settled: bool,
    was_exhausted: bool,
}

impl PoolTask {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => {}
            () = self.keep_connected() => {}
        }
        for kill in self.kills.values() {
            end(kill, DisconnectReason::Shutdown);
        }
        let all = async { while self.connections.join_next().await.is_some() {} };
        if timeout(SHUTDOWN_TIMEOUT, all).await.is_err() {
            self.connections.shutdown().await;
        }
    }

    /// Runs until the receiver of the events is gone.
    async fn keep_connected(&mut self) {
        let given = std::mem::take(&mut self.options.addresses);
        let by_dns = given.is_empty();
        let mut next_resolve = now();
        given.into_iter().for_each(|address| self.pool.add(address, now()));
        let (on_ready, mut ready) = mpsc::channel(self.options.pool.max_peers.clamp(1, MAX_PEERS));
        while !self.events.is_closed() {
            if by_dns && self.pool.wants_addresses() && now() >= next_resolve {
                self.resolve_seeds().await;
                next_resolve = now() + RESOLVE_INTERVAL;
            }
            while let Some(dial) = self.pool.poll(now()) {
                self.dial(dial, on_ready.clone());
            }
            self.tell_turns().await;
            let retry = (by_dns && self.pool.wants_addresses()).then_some(next_resolve);
            let deadline = self.pool.deadline().into_iter().chain(retry).min();
            tokio::select! {
                biased;
                // Before its end, which may follow at once.
                Some(entry) = ready.recv() => self.pool.connected(entry, now()),
                Some(joined) = self.connections.join_next_with_id() => {
                    let (id, penalty) = match joined {
                        Ok(ended) => ended,
                        // A bug in a session must cost its connection only.
                        Err(panic) => (panic.id(), Penalty::BackOff),
                    };
                    if let Some(entry) = self.entries.remove(&id) {
                        self.kills.remove(&entry);
                        self.pool.ended(entry, penalty, now());
                    }
                }
                () = sleep_until(deadline.unwrap_or_else(now).into()), if deadline.is_some() => {}
                () = self.events.closed() => {}
            }
        }
    }

    async fn tell_turns(&mut self) {
        let exhausted = self.pool.is_exhausted();
        if exhausted && !self.was_exhausted {
            self.events.send(PeerEvent::Exhausted).await.ok();
        }
        self.was_exhausted = exhausted;
        if !self.was_settled && self.pool.is_settled() {
            self.was_settled = true;
            self.events.send(PeerEvent::Settled).await.ok();
        }
    }

    async fn resolve_seeds(&mut self) {
        let port = self.protocol.default_port();
        let mut lookups = JoinSet::new();
        for seed in self.protocol.dns_seeds() {
            lookups.spawn(async move {
                let found = timeout(RESOLVE_TIMEOUT, transport::resolve(&seed, port)).await;
                (seed, found)
            });
        }
        while let Some(lookup) = lookups.join_next().await {
            let Ok((seed, found)) = lookup else { continue };
            let reason = match found {
                Ok(Ok(addresses)) => {
                    tracing::debug!(seed, found = addresses.len(), "resolved a DNS seed");
                    addresses.into_iter().for_each(|address| self.pool.add(address, now()));
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "timed out".to_owned(),
            };
            self.events.send(PeerEvent::ResolveFailed { seed, reason }).await.ok();
        }
    }

    fn dial(&mut self, dial: Dial, on_ready: mpsc::Sender<usize>) {
        self.next_id += 1;
        let kill: Kill = Arc::new(watch::channel(None).0);
        self.kills.insert(dial.entry, kill.clone());
        let connection = Connecting {
            id: PeerId(self.next_id),
            entry: dial.entry,
            address: dial.address,
            protocol: self.protocol.clone(),
            options: self.options.clone(),
            seed: self.random.u64(..),
            events: self.events.clone(),
            kill,
            on_ready,
        };
        let task = self.connections.spawn(connection.run());
        self.entries.insert(task.id(), dial.entry);
    }
}

/// One attempt at an address, and the connection that comes of it.
struct Connecting {
    id: PeerId,
    entry: usize,
    address: PeerAddress,
    protocol: Arc<dyn Protocol>,
    options: ManagerOptions,
    seed: u64,
    events: mpsc::Sender<PeerEvent>,
    kill: Kill,
    on_ready: mpsc::Sender<usize>,
}

impl Connecting {
    /// Runs to the end, tells of it, and says what it means for the address.
    async fn run(self) -> Penalty {
        let Self { id, entry, address, protocol, options, seed, events, kill, on_ready } = self;
        let mut killed = kill.subscribe();
        tracing::debug!(%id, %address, "connecting");
        let connecting = tokio::select! {
            biased;
            _ = ended(&mut killed) => return Penalty::None,
            connecting = transport::connect(&address, options.connect_timeout) => connecting,
        };
        let (event, penalty) = match connecting {
            Err(reason) => connect_failed(address, reason),
            Ok(stream) => {
                let link = protocol.connect(&options.local, &options.link, seed, now());
                let write_timeout = options.link.write_timeout;
                let driver = Driver {
                    id,
                    address: address.clone(),
                    link,
                    write_timeout,
                    events: events.clone(),
                    kill,
                    on_ready,
                    entry,
                };
                let Ended { reason, was_ready } = driver.run(stream).await;
                if was_ready {
                    tracing::info!(%id, %address, %reason, "disconnected");
                    let penalty = reason.penalty();
                    (PeerEvent::Disconnected { peer: id, address, reason }, penalty)
                } else {
                    connect_failed(address, ConnectError::Handshake(reason))
                }
            }
        };
        // The receiver may have stopped taking events, and then stops us.
        tokio::select! {
            biased;
            permit = events.reserve() => if let Ok(permit) = permit { permit.send(event) },
            () = is_shutdown(&mut killed) => {}
        }
        penalty
    }
}

/// Waits until the pool shuts down; a peer that was disconnected alone still has its end told.
async fn is_shutdown(killed: &mut watch::Receiver<Option<DisconnectReason>>) {
    let is_shutdown = |reason: &Option<DisconnectReason>| matches!(reason, Some(DisconnectReason::Shutdown));
    if killed.wait_for(is_shutdown).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn connect_failed(address: PeerAddress, reason: ConnectError) -> (PeerEvent, Penalty) {
    tracing::info!(%address, %reason, "cannot connect");
    let penalty = reason.penalty();
    (PeerEvent::ConnectFailed { address, reason }, penalty)
}
