//! Headers first, then blocks from all peers at once: a machine without I/O.
//!
//! Headers come from one peer until it has no more, then every peer is asked what it has on top. Blocks are asked of all
//! peers that have them, in a window ahead of what the sink has applied, and delivered in chain order. A peer that brings
//! nothing for a while loses its requests to others; the block that everything waits for is asked of a second peer before
//! that. A peer that lies is dropped.

mod blocks;
pub(crate) mod flow;
mod flows;
mod headers;
mod peers;
mod window;

use std::{
    collections::{BTreeMap, VecDeque},
    error::Error,
    sync::Arc,
    time::Instant,
};

use tipward_peer::{
    DisconnectReason, PeerId, PeerInfo, Penalty, Reply, Want,
    wire::{BlockHash, BlockPart},
};

use crate::{Block, BlockId, Chain, Event, SyncOptions};
pub(crate) use blocks::MAX_UNAPPLIED;
use peers::PeerState;
use window::{Frontier, Window};

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
    /// The sink has done so many more of the outputs that are for it, in their order: [`Output::Apply`],
    /// [`Output::ApplyPart`], [`Output::Abort`] and [`Output::Rollback`].
    Delivered(usize),
    /// Ask for no more blocks until [`Input::Resume`]. What is under way still comes and is delivered.
    Pause,
    /// Go on after [`Input::Pause`].
    Resume,
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
    /// Count something against a peer that stays.
    Penalise(PeerId, Fault),
    /// Read nothing from a peer until [`Output::Resume`]: what it sends has no room now. A little more may come.
    Hold(PeerId),
    /// Read from a peer again.
    Resume(PeerId),
    /// Undo every block above this one. For the sink, like the next three.
    Rollback(BlockId),
    /// Give the sink its next block; if [`Block::is_streamed`], its parts went before.
    Apply(Block),
    /// Give the sink a part of its next block, which is too large to be held.
    ApplyPart(BlockId, BlockPart),
    /// The parts of this block that the sink was given are void.
    Abort(BlockId),
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
    /// A block breaks the chain's rules.
    #[error("invalid block {block}: {reason}")]
    InvalidBlock {
        /// The block.
        block: BlockHash,
        /// The rule.
        reason: Arc<dyn Error + Send + Sync>,
    },
    /// The peer claims a height that it can't show.
    #[error("claims height {claimed} and has shown {shown}")]
    HeightNotShown {
        /// What it claims.
        claimed: u64,
        /// The height of what it has shown.
        shown: u64,
    },
    /// Requests for lists of blocks are not answered.
    #[error("did not answer requests for lists of blocks")]
    NoInventory,
    /// A list of blocks that can't be one.
    #[error("a list of blocks that can't be: {0}")]
    BadInventory(&'static str),
    /// Requests for ranges of blocks are not answered, or not with what was asked for.
    #[error("did not bring the range of blocks asked for")]
    BadRange,
    /// The parts of a block do not follow each other.
    #[error("parts of a block out of order")]
    BrokenParts,
}

impl From<Fault> for DisconnectReason {
    fn from(fault: Fault) -> Self {
        let penalty = match fault {
            Fault::NoHeaders
            | Fault::Stalled
            | Fault::HeightNotShown { .. }
            | Fault::NoInventory
            | Fault::BadRange => Penalty::BackOff,
            Fault::InvalidHeaders(_)
            | Fault::UnlinkedHeaders
            | Fault::RepeatedHeaders
            | Fault::InvalidBlock { .. }
            | Fault::BadInventory(_)
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
            Input::Delivered(count) => {
                for _ in 0..count {
                    if let Some((_, size)) = self.unapplied.pop_front() {
                        self.unapplied_bytes -= size;
                    }
                }
            }
            Input::Tick | Input::Pause | Input::Resume => {}
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
