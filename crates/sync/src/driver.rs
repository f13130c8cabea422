//! Runs a [`Scheduler`] with real peers, a chain and a sink.
//!
//! One task holds the scheduler and the chain; the sink has a task of its own, so a slow sink never keeps peers from
//! being heard. Commands to the sink are bounded by what the scheduler lets it have unapplied.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tipward_peer::{
    Local, Manager, ManagerOptions, Peer, PeerAddress, PeerEvent, PeerId, Protocol, StartError,
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
    time::sleep_until,
};

use crate::{
    BlockId, BlockSink, Chain, Event, Events, Input, Output, Progress, Scheduler, SinkError, SyncOptions,
    delivery::{Applied, SinkCommand, deliver},
    scheduler::MAX_UNAPPLIED,
};

/// How many events of all peers together may wait.
const PEER_EVENTS: usize = 64;
/// How many events a lagging user can catch up on.
const USER_EVENTS: usize = 1024;

/// Why a sync ended without being asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// No peer is left, and none can be hoped for.
    #[error("{first}{}", and_others(*.others))]
    NoPeers {
        /// What one address came to.
        first: String,
        /// How many other addresses failed as well.
        others: usize,
    },
    /// The sink failed.
    #[error("the sink failed: {0}")]
    Sink(SinkError),
    /// The peers could not be started.
    #[error(transparent)]
    Peers(#[from] StartError),
    /// Headers could not be stored, or the sink is on a block that no peer knows.
    #[error("{0}")]
    Chain(Arc<dyn Error + Send + Sync>),
}

fn and_others(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" (and {others} others failed)") }
}

/// What a sync is made of.
pub struct SyncParts {
    /// The network to connect to.
    pub protocol: Arc<dyn Protocol>,
    /// How to connect.
    pub peers: ManagerOptions,
    /// Bounds and time-outs.
    pub options: SyncOptions,
    /// End with [`SyncError::NoPeers`] when no address has ever worked, or all broke the protocol, instead of trying on.
    pub give_up_without_peers: bool,
    /// The block tree.
    pub chain: Box<dyn Chain>,
    /// Where blocks go; not used with headers only.
    pub sink: Box<dyn BlockSink>,
}

/// A sync that is running. Dropping it stops the sync without waiting.
#[derive(Debug)]
pub struct Running {
    events: broadcast::WeakSender<Event>,
    /// The events from the start, for who asks first.
    first: Mutex<Option<broadcast::Receiver<Event>>>,
    progress: watch::Receiver<Progress>,
    stop: Option<oneshot::Sender<()>>,
    /// `None` once its end was told.
    task: Option<JoinHandle<Result<(), SyncError>>>,
}

impl Running {
    /// The events: all from the start for the first caller, for others those from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(first) = first {
            return Events(first);
        }
        let sender = self.events.upgrade();
        // After the end: a stream that ends at once.
        Events(sender.map_or_else(|| broadcast::channel(1).1, |sender| sender.subscribe()))
    }

    /// Where the sync is.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits for the end that [`SyncOptions::stop_at`] or an error brings. An error is returned once.
    ///
    /// # Errors
    /// What ended the sync.
    pub async fn wait(&mut self) -> Result<(), SyncError> {
        let Some(task) = &mut self.task else { return Ok(()) };
        let result = match task.await {
            Ok(result) => result,
            Err(panic) => Err(SyncError::Chain(Arc::new(panic))),
        };
        self.task = None;
        result
    }

    /// Stops: no new requests, the sink finishes what it was given and flushes, connections close.
    ///
    /// # Errors
    /// What ended the sync before, or the sink's error on the way out.
    pub async fn shutdown(mut self) -> Result<(), SyncError> {
        drop(self.stop.take());
        self.wait().await
    }
}

/// Starts a sync. Must be called within a tokio runtime.
///
/// # Errors
/// The sink can't tell its cursor.
pub async fn run(mut parts: SyncParts) -> Result<Running, SyncError> {
    let headers_only = parts.options.headers_only;
    let cursor = if headers_only { None } else { parts.sink.cursor().await.map_err(SyncError::Sink)? };
    let tip = parts.chain.tip();
    let (events, first) = broadcast::channel(USER_EVENTS);
    let first = Mutex::new(Some(first));
    let weak = events.downgrade();
    let start = Progress {
        header_tip: Some(tip),
        applied: cursor,
        resumed_from: if headers_only { Some(tip).filter(|tip| tip.height > 0) } else { cursor },
        ..Progress::default()
    };
    let (progress, watched) = watch::channel(start);
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(drive(parts, cursor, events, progress, stopped));
    Ok(Running { events: weak, first, progress: watched, stop: Some(stop), task: Some(task) })
}

async fn drive(
    parts: SyncParts,
    cursor: Option<BlockId>,
    events: broadcast::Sender<Event>,
    progress: watch::Sender<Progress>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), SyncError> {
    let local = parts.peers.local.clone();
    local.set_height(parts.chain.tip().height);
    let (peer_events, inbox) = mpsc::channel(PEER_EVENTS);
    // A rollback may precede every block.
    let (commands, sink_inbox) = mpsc::channel(2 * MAX_UNAPPLIED);
    let (acks, mut applied) = mpsc::channel(2 * MAX_UNAPPLIED);
    let sink = tokio::spawn(deliver(parts.sink, sink_inbox, acks));
    let manager = Manager::spawn(parts.protocol, parts.peers, peer_events).await?;
    let mut driver = Driver {
        scheduler: Scheduler::new(parts.options, cursor, 0),
        chain: parts.chain,
        peers: BTreeMap::new(),
        failures: BTreeMap::new(),
        give_up: parts.give_up_without_peers,
        commands,
        events,
        progress,
        local,
    };
    let result = driver.run(inbox, &mut applied, stopped).await;
    manager.shutdown().await;
    // Without commands to come the sink finishes what it was given, flushes and ends.
    driver.commands = mpsc::channel(1).0;
    while let Some(block) = applied.recv().await {
        driver.applied(block.as_ref());
    }
    let sink = match sink.await {
        Ok(result) => result.map_err(SyncError::Sink),
        Err(panic) => Err(SyncError::Sink(panic.into())),
    };
    // A failing sink is noticed by its closed channel first; its own error says why.
    sink.and(result)
}

struct Driver {
    scheduler: Scheduler,
    chain: Box<dyn Chain>,
    peers: BTreeMap<PeerId, Peer>,
    /// The last failure of each address.
    failures: BTreeMap<PeerAddress, String>,
    give_up: bool,
    commands: mpsc::Sender<SinkCommand>,
    events: broadcast::Sender<Event>,
    progress: watch::Sender<Progress>,
    local: Local,
}

/// Whether the loop goes on.
enum Flow {
    Continue,
    Stop,
}

impl Driver {
    async fn run(
        &mut self,
        mut inbox: mpsc::Receiver<PeerEvent>,
        applied: &mut mpsc::Receiver<Option<Applied>>,
        mut stopped: oneshot::Receiver<()>,
    ) -> Result<(), SyncError> {
        let mut input = Input::Tick;
        loop {
            self.scheduler.handle(Instant::now(), input, &mut *self.chain);
            if let Flow::Stop = self.act()? {
                return Ok(());
            }
            let deadline = self.scheduler.deadline();
            input = tokio::select! {
                biased;
                // Asked for, or the handle was dropped.
                _ = &mut stopped => return Ok(()),
                // The sink first: what it has applied makes room.
                ack = applied.recv() => match ack {
                    Some(block) => self.applied(block.as_ref()),
                    None => return Ok(()), // The sink has failed; its task tells why.
                },
                event = inbox.recv() => match event {
                    Some(event) => self.peer_event(event)?,
                    None => return Ok(()),
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now).into()), if deadline.is_some() => Input::Tick,
            };
        }
    }

    fn act(&mut self) -> Result<Flow, SyncError> {
        while let Some(output) = self.scheduler.poll() {
            match output {
                Output::Ask(peer, want) => {
                    if self.peers.get(&peer).is_some_and(|handle| handle.ask(want).is_err()) {
                        // Its task does not keep up with a few requests, or has ended: its end is on the way.
                        tracing::debug!(%peer, "cannot be asked");
                    }
                }
                Output::Drop(peer, fault) => {
                    if let Some(handle) = self.peers.get(&peer).cloned() {
                        tracing::warn!(%peer, address = %handle.address(), reason = %fault, "dropping a peer");
                        self.lost(peer, handle.address().clone(), &fault);
                        handle.disconnect(fault.into());
                    }
                }
                Output::Rollback(to) => self.command(SinkCommand::Rollback(to)),
                Output::Apply(block) => self.command(SinkCommand::Apply(block)),
                Output::ApplyPart(..)
                | Output::Abort(_)
                | Output::Hold(_)
                | Output::Resume(_)
                | Output::Penalise(..) => {}
                Output::Headers(count) => {
                    self.progress.send_modify(|progress| progress.headers += count as u64);
                }
                Output::Event(event) => self.tell(event),
                Output::Stopped => return Ok(Flow::Stop),
                Output::Failed(reason) => return Err(SyncError::Chain(reason)),
            }
        }
        Ok(Flow::Continue)
    }

    /// The scheduler bounds what is on its way to the sink, so there is room unless the sink has ended.
    fn command(&self, command: SinkCommand) {
        self.commands.try_send(command).ok();
    }

    fn tell(&self, event: Event) {
        match &event {
            Event::Headers { tip } => {
                self.local.set_height(tip.height);
                self.progress.send_modify(|progress| {
                    progress.header_tip = Some(*tip);
                    progress.synced = false;
                });
            }
            Event::Reorg { .. } => self.progress.send_modify(|progress| progress.reorgs += 1),
            Event::Synced { .. } => self.progress.send_modify(|progress| progress.synced = true),
            _ => {}
        }
        // Nobody may be listening.
        self.events.send(event).ok();
    }

    fn applied(&self, block: Option<&Applied>) -> Input {
        let Some(&Applied { block, transactions, size, is_received }) = block else {
            return Input::Delivered(1);
        };
        self.progress.send_modify(|progress| {
            progress.applied = Some(block);
            if is_received {
                progress.blocks += 1;
                progress.transactions += transactions;
                progress.bytes += size;
            }
        });
        self.tell(Event::Applied { block, transactions, size });
        Input::Delivered(1)
    }

    fn peer_event(&mut self, event: PeerEvent) -> Result<Input, SyncError> {
        Ok(match event {
            PeerEvent::Connected(handle) => {
                let (peer, info) = (handle.id(), handle.info().clone());
                let (address, user_agent) = (handle.address().clone(), info.user_agent.clone());
                tracing::info!(%peer, %address, user_agent, height = info.claimed_height, "connected");
                self.failures.remove(&address);
                self.peers.insert(peer, handle);
                self.progress.send_modify(|progress| {
                    progress.peers_seen += 1;
                    progress.claimed_height = progress.claimed_height.max(info.claimed_height);
                });
                self.count_peers();
                self.tell(Event::PeerConnected { peer, address, user_agent });
                Input::Connected(peer, info)
            }
            PeerEvent::Reply { peer, reply } => Input::Reply(peer, reply),
            PeerEvent::Disconnected { peer, address, reason } => {
                self.lost(peer, address, &reason);
                Input::Disconnected(peer)
            }
            PeerEvent::ConnectFailed { address, reason } => {
                self.failures.insert(address.clone(), format!("cannot connect to {address}: {reason}"));
                self.tell(Event::ConnectFailed { address, reason: reason.to_string() });
                Input::Tick
            }
            PeerEvent::ResolveFailed { seed, reason } => {
                let address = PeerAddress { host: seed.clone(), port: 0 };
                tracing::info!(seed, reason, "cannot resolve a DNS seed");
                self.failures.insert(address, format!("cannot resolve {seed}: {reason}"));
                Input::Tick
            }
            PeerEvent::Settled => Input::Settled,
            PeerEvent::Exhausted if self.give_up => return Err(self.no_peers()),
            _ => Input::Tick,
        })
    }

    /// Tells that a peer is gone, once: when we drop it, or when its connection ends.
    fn lost(&mut self, peer: PeerId, address: PeerAddress, reason: &dyn std::fmt::Display) {
        if self.peers.remove(&peer).is_some() {
            self.failures.insert(address.clone(), format!("{address} was dropped: {reason}"));
            self.count_peers();
            self.tell(Event::PeerDisconnected { peer, address, reason: reason.to_string() });
        }
    }

    fn no_peers(&self) -> SyncError {
        let first = self.failures.values().next().cloned();
        SyncError::NoPeers {
            first: first
                .unwrap_or_else(|| "no address to connect to, and no DNS seeds to ask for one".to_owned()),
            others: self.failures.len().saturating_sub(1),
        }
    }

    fn count_peers(&self) {
        let peers = self.peers.len();
        self.progress.send_modify(|progress| progress.peers = peers);
    }
}
