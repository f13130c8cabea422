//! Headers first, then blocks from all peers at once: a machine without I/O.
//!
//! Headers come from one peer until it has no more, then every peer is asked what it has on top. Blocks are asked of all
//! peers that have them, in a window ahead of what the sink has applied, and delivered in chain order. A peer that brings
//! nothing for a while loses its requests to others; the block that everything waits for is asked of a second peer before
//! that. A peer that lies is dropped.

mod blocks;
mod headers;
mod peers;
mod window;

use std::{
    collections::{BTreeMap, VecDeque},
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use tipward_peer::{DisconnectReason, PeerId, PeerInfo, Penalty, Reply, Want};

use crate::{Block, BlockId, Chain, Event};
pub(crate) use blocks::MAX_UNAPPLIED;
use peers::PeerState;
use window::{Frontier, Window};

/// Bounds and time-outs of a sync.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SyncOptions {
    /// How many blocks may be asked for or wait ahead of what the sink has applied; 1024.
    pub window: usize,
    /// How many blocks may be in flight from one peer; 16.
    pub max_in_flight: usize,
    /// How many bytes of blocks may be held in memory or be in flight, by estimate; 256 MiB. The next block for the sink
    /// is asked for all the same.
    pub byte_budget: u64,
    /// How long a peer with requests may bring nothing, at first; 2 s. Doubles up to 64 s.
    pub stall_timeout: Duration,
    /// How long a peer may take to answer for headers; 10 s.
    pub header_timeout: Duration,
    /// How often a peer is asked for headers although it announced none; 60 s.
    pub header_interval: Duration,
    /// After so many stalls or unanswered requests in a row a peer is dropped; 3.
    pub max_strikes: u32,
    /// Stop when the block at this height is applied; nothing above it is asked for.
    pub stop_at: Option<u64>,
    /// Stop when everything that the connected peers have is applied.
    pub stop_when_synced: bool,
    /// Ask for no blocks.
    pub headers_only: bool,
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self {
            window: 1024,
            max_in_flight: 16,
            byte_budget: 256 << 20,
            stall_timeout: Duration::from_secs(2),
            header_timeout: Duration::from_secs(10),
            header_interval: Duration::from_secs(60),
            max_strikes: 3,
            stop_at: None,
            stop_when_synced: false,
            headers_only: false,
        }
    }
}

/// After so many inputs without a tick time-outs are checked all the same; more than can be waiting to be read.
const MAX_UNCHECKED: u32 = 1024;

/// What the scheduler is told.
#[derive(Debug)]
pub enum Input {
    /// A peer can be asked.
    Connected(PeerId, PeerInfo),
    /// A peer is gone.
    Disconnected(PeerId),
    /// A peer said something.
    Reply(PeerId, Reply),
    /// No more peers are to be expected at once.
    Settled,
    /// The sink has applied the block that was given to it first and not acknowledged yet.
    Applied,
    /// Nothing but the time has changed: everything that has come before `now` was told. Time-outs are acted on here, so that
    /// nobody is blamed for what was merely not read yet.
    Tick,
}

/// What the scheduler wants done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Ask a peer.
    Ask(PeerId, Want),
    /// Disconnect a peer. [`Input::Disconnected`] need not follow.
    Drop(PeerId, Fault),
    /// Undo every block above this one.
    Rollback(BlockId),
    /// Give the sink its next block.
    Apply(Block),
    /// Tell the user.
    Event(Event),
    /// So many headers were new.
    Headers(usize),
    /// What [`SyncOptions::stop_at`] or [`SyncOptions::stop_when_synced`] waits for has come about.
    Stopped,
    /// Headers could not be stored, or the sink is on a block that no peer knows: the sync can't go on.
    Failed(Arc<dyn Error + Send + Sync>),
}

/// Why the scheduler drops a peer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A header breaks the chain's rules.
    #[error("invalid headers: {0}")]
    InvalidHeaders(Arc<dyn Error + Send + Sync>),
    /// Headers link to nothing known, again and again.
    #[error("headers that do not link to the chain")]
    UnlinkedHeaders,
    /// The peer sends the same headers again and claims to have more.
    #[error("the same headers over and over")]
    RepeatedHeaders,
    /// Requests for headers are not answered.
    #[error("did not answer requests for headers")]
    NoHeaders,
    /// Requests for blocks are not answered.
    #[error("stalled: did not bring the blocks asked for")]
    Stalled,
    /// The parts of a block do not follow each other.
    #[error("parts of a block out of order")]
    BrokenParts,
}

impl From<Fault> for DisconnectReason {
    fn from(fault: Fault) -> Self {
        let penalty = match fault {
            Fault::NoHeaders | Fault::Stalled => Penalty::BackOff,
            Fault::InvalidHeaders(_)
            | Fault::UnlinkedHeaders
            | Fault::RepeatedHeaders
            | Fault::BrokenParts => Penalty::Ban,
        };
        Self::Refused { penalty, source: Arc::new(fault) }
    }
}

/// The sink's cursor is a block that no peer's chain has.
#[derive(Debug, thiserror::Error)]
#[error("the sink has applied block {0}, which is on no chain that the peers have")]
pub(crate) struct UnknownCursor(BlockId);

/// The scheduler. After every [`handle`](Self::handle), take [`poll`](Self::poll) until `None` and come back with
/// [`Input::Tick`] at [`deadline`](Self::deadline).
#[derive(Debug)]
pub struct Scheduler {
    options: SyncOptions,
    peers: BTreeMap<PeerId, PeerState>,
    phase: Phase,
    settled: bool,
    /// The tip of the best header chain when it changed last.
    header_tip: Option<BlockId>,
    /// The last block given to the sink.
    sent: Option<BlockId>,
    /// Where the sink must go back to before it gets the next block.
    rollback: Option<BlockId>,
    window: Window,
    frontier: Option<Frontier>,
    /// Blocks given to the sink and not acknowledged: their sizes.
    unapplied: VecDeque<(BlockId, u64)>,
    unapplied_bytes: u64,
    /// The running average of block sizes, in bytes.
    average_size: u64,
    /// Where the search for the next peer to ask begins, so that work spreads.
    turn: u64,
    synced_at: Option<BlockId>,
    is_over: bool,
    /// Inputs since the last look for what is late.
    unchecked: u32,
    /// When it was last looked for what is late.
    checked: Option<Instant>,
    outputs: VecDeque<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Headers come from this peer until it has no more.
    Headers(Option<PeerId>),
    /// Everyone is asked what it has.
    Blocks,
}

impl Scheduler {
    /// A scheduler for a sink at `cursor`.
    #[must_use]
    pub fn new(options: SyncOptions, cursor: Option<BlockId>) -> Self {
        Self {
            options,
            peers: BTreeMap::new(),
            phase: Phase::Headers(None),
            settled: false,
            header_tip: None,
            sent: cursor,
            rollback: None,
            window: Window::default(),
            frontier: None,
            unapplied: VecDeque::new(),
            unapplied_bytes: 0,
            // A guess until blocks have come; a full block of BTC.
            average_size: 1 << 20,
            turn: 0,
            synced_at: None,
            is_over: false,
            unchecked: 0,
            checked: None,
            outputs: VecDeque::new(),
        }
    }

    /// Takes what happened at `now`. Times must not go back.
    pub fn handle(&mut self, now: Instant, input: Input, chain: &mut dyn Chain) {
        if self.is_over {
            return;
        }
        let is_tick = matches!(input, Input::Tick);
        self.header_tip.get_or_insert_with(|| chain.tip());
        match input {
            Input::Connected(peer, info) => {
                self.peers.insert(peer, PeerState::new(&info, self.options.stall_timeout, now));
            }
            Input::Disconnected(peer) => self.forget(peer),
            Input::Settled => self.settled = true,
            Input::Reply(peer, reply) => self.reply(now, peer, reply, chain),
            Input::Applied => {
                if let Some((_, size)) = self.unapplied.pop_front() {
                    self.unapplied_bytes -= size;
                }
            }
            Input::Tick => {}
        }
        // After a tick everything that has come is known. Before, what seems to be late may only be waiting to be read.
        self.unchecked += 1;
        let is_late_known = is_tick || self.unchecked > MAX_UNCHECKED;
        if is_late_known {
            self.unchecked = 0;
            self.checked = Some(now);
            self.check_headers(now);
            self.check_stalls(now);
        }
        self.ask_headers(now, chain);
        if !self.options.headers_only && self.phase == Phase::Blocks {
            self.fill(chain);
            self.deliver(now);
            self.assign(now);
            if is_late_known {
                self.ask_a_second(now);
            }
        }
        self.conclude(chain);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the time alone will have an effect.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let peers = self.peers.values().filter_map(PeerState::deadline);
        let rests = self.peers.values().map(|peer| peer.rests_until).filter(|_| self.window.has_wanted());
        // What was due at the last look was acted on, or has to wait for something else.
        peers.chain(rests).chain(self.second_ask_at()).filter(|&at| Some(at) > self.checked).min()
    }

    /// Blocks in memory or on their way to it, in bytes, as far as known.
    #[must_use]
    pub fn buffered_bytes(&self) -> u64 {
        let partial: u64 = self.peers.values().map(PeerState::partial).sum();
        self.window.buffered() + self.unapplied_bytes + partial
    }

    fn reply(&mut self, now: Instant, peer: PeerId, reply: Reply, chain: &mut dyn Chain) {
        if !self.peers.contains_key(&peer) {
            return; // Dropped by us; what was still under way is void.
        }
        match reply {
            Reply::Headers { headers, more } => self.headers(now, peer, &headers, more, chain),
            Reply::Announced(blocks) => self.announced(now, peer, &blocks, chain),
            Reply::Part(part) => self.part(now, peer, part),
            Reply::BlockEnd(end) => self.block_end(now, peer, &end),
            Reply::Progress { .. } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.progress = now;
                }
            }
            Reply::Missing(blocks) | Reply::Unsupported(Want::Blocks(blocks)) => self.missing(peer, &blocks),
            Reply::Unsupported(Want::HeadersAfter(_)) => self.drop_peer(peer, Fault::NoHeaders),
            // Added to the waist for strategies that this one does not use.
            _ => {}
        }
    }

    fn drop_peer(&mut self, peer: PeerId, fault: Fault) {
        self.forget(peer);
        self.outputs.push_back(Output::Drop(peer, fault));
    }

    fn forget(&mut self, peer: PeerId) {
        let Some(state) = self.peers.remove(&peer) else { return };
        for hash in state.in_flight {
            self.window.give_back(hash, peer);
        }
        if self.phase == Phase::Headers(Some(peer)) {
            self.phase = Phase::Headers(None);
        }
    }

    /// Tells when the tip is reached, or the place to stop.
    fn conclude(&mut self, chain: &dyn Chain) {
        let tip = chain.tip();
        let applied = if self.options.headers_only {
            Some(tip)
        } else {
            self.sent.filter(|_| self.unapplied.is_empty() && self.rollback.is_none())
        };
        if let (Some(stop), Some(applied)) = (self.options.stop_at, applied)
            && applied.height >= stop
        {
            self.is_over = true;
            self.outputs.push_back(Output::Stopped);
            return;
        }
        let everyone_answered = self.phase == Phase::Blocks
            && self.settled
            && !self.peers.is_empty()
            && self.peers.values().all(|peer| !peer.awaits_headers());
        if !everyone_answered {
            return;
        }
        if let Some(sent) = self.sent.filter(|sent| chain.fork_point(sent.hash).is_none()) {
            self.is_over = true;
            self.outputs.push_back(Output::Failed(Arc::new(UnknownCursor(sent))));
        } else if applied == Some(tip) && self.synced_at != Some(tip) {
            self.synced_at = Some(tip);
            self.outputs.push_back(Output::Event(Event::Synced { tip }));
            if self.options.stop_when_synced {
                self.is_over = true;
                self.outputs.push_back(Output::Stopped);
            }
        }
    }
}

#[cfg(test)]
mod tests;
