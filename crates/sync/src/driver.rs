//! Runs a [`Scheduler`] with real peers, a chain and a sink.
//!
//! One task holds the scheduler and the chain; the sink has a task of its own, so a slow sink never keeps peers from
//! being heard. What peers and sink say is taken many at a time: small blocks come by the ten thousand a second.

use std::{
    error::Error,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tipward_peer::{
    Local, Manager, ManagerHandle, ManagerOptions, PeerAddress, PeerEvent, PeerId, Protocol, Reply,
    StartError,
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
    time::sleep_until,
};
use tracing::Instrument;

use crate::{
    BlockSink, Chain, Control, Event, Fault, FilterRules, Input, Order, Output, Scheduler, SinkError,
    Strategy, SyncOptions, WatchSet,
    delivery::{Delivered, SinkCommand, deliver, now},
    metrics,
    progress::Tally,
};
use board::Board;
use peers::Peers;
pub use running::Running;

mod board;
mod peers;
mod running;

/// How many events of all peers together may wait. Each may be a part of a block, so this times [`MAX_PART_SIZE`], 64 MiB, may
/// be on its way to the scheduler without being counted in its budget; beside it, each connection holds one part at most that
/// found no room.
const PEER_EVENTS: usize = 64;
/// The largest part of a block, in bytes.
const MAX_PART_SIZE: usize = 1 << 20;
/// How many events a lagging user can catch up on.
const USER_EVENTS: usize = 1024;
/// How many calls of [`Control::rescan`] may wait.
const RESCANS: usize = 16;
/// How many messages of the sink may wait; each tells of many commands.
const ACKS: usize = 64;
/// When time-outs are due and so many events have come since, they are acted on although more are waiting: what was waiting
/// then has been read.
const MAX_LATE: usize = 4 * PEER_EVENTS;
/// How long until a peer is asked again that could take no more questions.
const ASK_INTERVAL: Duration = Duration::from_millis(10);

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
    /// The sink failed, or panicked.
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
    /// How to connect. Blocks come in parts of 1 MiB at most, so that little memory is needed beside
    /// [`SyncOptions::byte_budget`]: a larger [`part_size`](tipward_peer::LinkOptions::part_size) is cut to that.
    pub peers: ManagerOptions,
    /// Bounds and time-outs.
    pub options: SyncOptions,
    /// End with [`SyncError::NoPeers`] when no address has ever worked, or all broke the protocol, instead of trying on.
    pub give_up_without_peers: bool,
    /// The block tree.
    pub chain: Box<dyn Chain>,
    /// Where blocks go; not used with headers only.
    pub sink: Box<dyn BlockSink>,
    /// If only those blocks are wanted that have one of these scripts: which, and what filters are. The sink must be able to
    /// [skip](BlockSink::skip). A block that it refuses ends the sync.
    pub filters: Option<(Arc<dyn FilterRules>, WatchSet)>,
}

/// Starts a sync. Must be called within a tokio runtime.
///
/// # Errors
/// The sink can't tell its cursor, or the peers can't be started.
pub async fn run(mut parts: SyncParts) -> Result<Running, SyncError> {
    let headers_only = parts.options.headers_only;
    let cursor = if headers_only { None } else { parts.sink.cursor().await.map_err(SyncError::Sink)? };
    let tip = parts.chain.tip();
    let link = &mut parts.peers.link;
    link.part_size = link.part_size.min(MAX_PART_SIZE);
    let local = parts.peers.local.clone();
    let seed = parts.peers.seed.unwrap_or_else(|| fastrand::u64(..));
    local.set_height(tip.height);
    let span = tracing::info_span!("sync", network = parts.protocol.name());
    let (peer_events, inbox) = mpsc::channel(PEER_EVENTS);
    let manager = Manager::spawn(parts.protocol, parts.peers, peer_events).await?;

    let (events, first) = broadcast::channel(USER_EVENTS);
    let mut tally = Tally::new(&parts.options, cursor, tip);
    let (progress, watched) = watch::channel(tally.at(now()).clone());
    let (stop, stopped) = oneshot::channel();
    let (paused, pause) = watch::channel(false);
    let filters = parts.filters.filter(|_| !headers_only);
    let (rescan, rescans) = mpsc::channel(RESCANS);
    let rescan = filters.is_some().then_some(rescan);
    let control = Control { paused, manager: manager.handle(), progress: watched, rescan };
    let weak = events.downgrade();

    // Holds no more than the scheduler lets be with the sink.
    let (commands, sink_inbox) = mpsc::unbounded_channel();
    let (done, acks) = mpsc::channel(ACKS);
    let may_reject = parts.options.order == Order::Chain
        && parts.options.strategy == Strategy::HeadersFirst
        && filters.is_none();
    let sink = deliver(parts.sink, sink_inbox, done, events.clone(), may_reject).instrument(span.clone());
    let driver = Driver {
        scheduler: match filters {
            Some((rules, watch)) => Scheduler::with_filters(parts.options, cursor, seed, rules, watch),
            None => Scheduler::new(parts.options, cursor, seed),
        },
        chain: parts.chain,
        peers: Peers::default(),
        manager: manager.handle(),
        give_up: parts.give_up_without_peers,
        commands,
        events,
        board: Board::new(tally, progress),
        local,
        now: now(),
    };
    let inlets = Inlets { peers: inbox, acks, pause, rescans, stopped };
    let task = tokio::spawn(drive(driver, manager, tokio::spawn(sink), inlets).instrument(span));
    Ok(Running { control, events: weak, first: Mutex::new(Some(first)), stop: Some(stop), task: Some(task) })
}

async fn drive(
    mut driver: Driver,
    manager: Manager,
    sink: JoinHandle<Result<(), SinkError>>,
    mut inlets: Inlets,
) -> Result<(), SyncError> {
    let result = driver.run(&mut inlets).await;
    let Driver { commands, mut board, scheduler, peers, mut chain, .. } = driver;
    // Without commands to come the sink finishes what it was given, flushes and ends.
    drop(commands);
    manager.shutdown().await;
    while let Some(delivered) = inlets.acks.recv().await {
        board.tally.delivered(&delivered);
    }
    board.publish(now(), &scheduler, &peers);
    let sink = match sink.await {
        Ok(result) => result.map_err(SyncError::Sink),
        Err(panic) => Err(SyncError::Sink(panic.into())),
    };
    let flushed = chain.flush().map_err(SyncError::Chain);
    // A failing sink is noticed by its closed channel first; its own error says why.
    sink.and(result).and(flushed)
}

/// Where the driver hears from.
struct Inlets {
    peers: mpsc::Receiver<PeerEvent>,
    acks: mpsc::Receiver<Delivered>,
    pause: watch::Receiver<bool>,
    rescans: mpsc::Receiver<u64>,
    stopped: oneshot::Receiver<()>,
}

struct Driver {
    scheduler: Scheduler,
    chain: Box<dyn Chain>,
    peers: Peers,
    manager: ManagerHandle,
    give_up: bool,
    commands: mpsc::UnboundedSender<SinkCommand>,
    events: broadcast::Sender<Event>,
    board: Board,
    local: Local,
    /// Read once for all that is handled at a time.
    now: Instant,
}

/// Whether the loop goes on.
enum Flow {
    Continue,
    Stop,
}

impl Driver {
    async fn run(&mut self, inlets: &mut Inlets) -> Result<(), SyncError> {
        let Inlets { peers, acks, pause, rescans, stopped } = inlets;
        let (mut events, mut delivered) = (Vec::with_capacity(PEER_EVENTS), Vec::with_capacity(ACKS));
        // How many events have come since time-outs were due.
        let mut late = 0;
        self.handle(Input::Tick);
        loop {
            if let Flow::Stop = self.act()? {
                return Ok(());
            }
            let is_all_asked = self.peers.send();
            self.board.look(self.now, &self.scheduler, &self.peers);
            let deadline = self.scheduler.deadline();
            let again = (!is_all_asked).then(|| self.now + ASK_INTERVAL);
            let wake = deadline.into_iter().chain(self.board.due()).chain(again).min();
            tokio::select! {
                biased;
                // Asked for, or the handle was dropped.
                _ = &mut *stopped => return Ok(()),
                // The sink first: what it has applied makes room. It can do no more than it was given.
                count = acks.recv_many(&mut delivered, ACKS) => if count == 0 {
                    return Ok(()); // The sink has failed; its task tells why.
                },
                // Seldom. Without anyone who could change it there are only those to listen to.
                Ok(()) = pause.changed() => {}
                Some(height) = rescans.recv() => self.rescan(height),
                count = peers.recv_many(&mut events, PEER_EVENTS) => if count == 0 {
                    return Ok(());
                },
                () = sleep_until(wake.unwrap_or(self.now).into()), if wake.is_some() => {}
            }
            self.now = now();
            self.pause(*pause.borrow_and_update());
            late = if deadline.is_some_and(|at| at <= self.now) { late + events.len() } else { 0 };
            self.applied(&mut delivered);
            for event in events.drain(..) {
                if let Some(input) = self.peer_event(event)? {
                    self.handle(input);
                }
            }
            // Whoever is late may have spoken: what came before now is read first, as far as that has an end.
            let is_due = self.scheduler.deadline().is_some_and(|at| at <= self.now);
            if is_due && (peers.is_empty() && acks.is_empty() || late > MAX_LATE) {
                late = 0;
                self.handle(Input::Tick);
            }
        }
    }

    fn handle(&mut self, input: Input) {
        self.scheduler.handle(self.now, input, &mut *self.chain);
    }

    fn act(&mut self) -> Result<Flow, SyncError> {
        while let Some(output) = self.scheduler.poll() {
            match output {
                Output::Ask(peer, want) => self.peers.ask(peer, want),
                Output::Drop(peer, fault) => self.drop_peer(peer, fault),
                Output::Penalise(peer, fault) => {
                    tracing::debug!(%peer, reason = %fault, "a peer misbehaves");
                    metrics::penalised(&fault);
                    self.peers.penalise(&self.manager, peer, &fault);
                }
                Output::Hold(peer) => self.peers.hold(peer),
                Output::Resume(peer) => self.peers.resume(peer),
                Output::Rollback(to) => self.command(SinkCommand::Rollback(to)),
                Output::Apply(block) => self.command(SinkCommand::Apply(block)),
                Output::ApplyPart(block, part) => self.command(SinkCommand::ApplyPart(block, part)),
                Output::Skip(to) => self.command(SinkCommand::Skip(to)),
                Output::Abort(block) => self.command(SinkCommand::Abort(block)),
                Output::Headers(count) => self.board.tally.progress().headers += count as u64,
                Output::Event(event) => self.tell(event),
                Output::Stopped => return Ok(Flow::Stop),
                Output::Failed(reason) => return Err(SyncError::Chain(reason)),
            }
        }
        Ok(Flow::Continue)
    }

    /// Fails when the sink has ended, which its acknowledgements tell.
    fn command(&self, command: SinkCommand) {
        self.commands.send(command).ok();
    }

    fn drop_peer(&mut self, peer: PeerId, fault: Fault) {
        let Some(handle) = self.peers.get(peer).cloned() else { return };
        tracing::warn!(%peer, address = %handle.address(), reason = %fault, "dropping a peer");
        metrics::dropped(&fault);
        self.lost(peer, handle.address().clone(), &fault);
        handle.disconnect(fault.into());
    }

    fn tell(&mut self, event: Event) {
        let progress = self.board.tally.progress();
        match &event {
            Event::Headers { tip } => {
                self.local.set_height(tip.height);
                (progress.header_tip, progress.synced) = (Some(*tip), false);
            }
            Event::Reorg { old_tip, new_tip, common, depth, .. } => {
                tracing::info!(%old_tip, %new_tip, %common, depth, "another branch is best");
                progress.reorgs += 1;
            }
            Event::Synced { tip } => {
                tracing::info!(%tip, "synced");
                progress.synced = true;
            }
            _ => {}
        }
        // Who hears of it finds it in the progress.
        self.board.publish(self.now, &self.scheduler, &self.peers);
        // Nobody may be listening.
        self.events.send(event).ok();
    }

    /// What the sink has done.
    fn applied(&mut self, delivered: &mut Vec<Delivered>) {
        let mut count = 0;
        for delivered in delivered.drain(..) {
            self.board.delivered(&delivered);
            count += delivered.commands;
            if let Some((block, reason)) = delivered.rejected {
                self.handle(Input::Delivered(std::mem::take(&mut count)));
                self.handle(Input::Rejected { block, reason });
            }
        }
        if count > 0 {
            self.handle(Input::Delivered(count));
        }
    }

    fn rescan(&mut self, height: u64) {
        self.board.tally.progress().synced = false;
        self.now = now();
        self.handle(Input::Rescan(height));
    }

    fn pause(&mut self, pause: bool) {
        let paused = &mut self.board.tally.progress().paused;
        if *paused != pause {
            *paused = pause;
            tracing::info!("{}", if pause { "paused" } else { "resumed" });
            self.handle(if pause { Input::Pause } else { Input::Resume });
            self.board.publish(self.now, &self.scheduler, &self.peers);
        }
    }

    fn peer_event(&mut self, event: PeerEvent) -> Result<Option<Input>, SyncError> {
        Ok(match event {
            PeerEvent::Reply { peer, reply } => {
                match &reply {
                    Reply::Part(part) => self.board.received(part.bytes.len()),
                    Reply::Filter { bytes, .. } => self.board.filtered(bytes.len()),
                    _ => {}
                }
                Some(Input::Reply(peer, reply))
            }
            PeerEvent::Connected(handle) => {
                let (peer, info) = (handle.id(), handle.info().clone());
                let (address, user_agent) = (handle.address().clone(), info.user_agent.clone());
                tracing::info!(%peer, %address, user_agent, height = info.claimed_height, "connected");
                self.peers.connected(handle);
                let progress = self.board.tally.progress();
                progress.peers_seen += 1;
                progress.claimed_height = progress.claimed_height.max(info.claimed_height);
                self.tell(Event::PeerConnected { peer, address, user_agent });
                Some(Input::Connected(peer, info))
            }
            PeerEvent::Disconnected { peer, address, reason } => {
                tracing::info!(%peer, %address, %reason, "disconnected");
                self.lost(peer, address, &reason);
                Some(Input::Disconnected(peer))
            }
            PeerEvent::ConnectFailed { address, reason } => {
                self.peers.failed(address.clone(), format!("cannot connect to {address}: {reason}"));
                self.tell(Event::ConnectFailed { address, reason: reason.to_string() });
                None
            }
            PeerEvent::ResolveFailed { seed, reason } => {
                tracing::info!(seed, reason, "cannot resolve a DNS seed");
                let failure = format!("cannot resolve {seed}: {reason}");
                self.peers.failed(PeerAddress { host: seed, port: 0 }, failure);
                None
            }
            PeerEvent::Settled => Some(Input::Settled),
            PeerEvent::Exhausted if self.give_up => return Err(self.peers.no_peers()),
            _ => None,
        })
    }

    /// Tells that a peer is gone, once: when we drop it, or when its connection ends.
    fn lost(&mut self, peer: PeerId, address: PeerAddress, reason: &dyn std::fmt::Display) {
        if self.peers.lost(peer, reason) {
            self.tell(Event::PeerDisconnected { peer, address, reason: reason.to_string() });
        }
    }
}
