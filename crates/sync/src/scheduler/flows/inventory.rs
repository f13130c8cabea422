//! Blocks without headers first: lists of blocks from one peer, then these blocks (`getblocks`, `inv`, `getdata`).
//!
//! In sync mode one peer, drawn among those that claim more than is known, is asked for lists of what follows our tip. The
//! blocks on them are asked for in their order, of it and of all others that claim to be further, which may not have them: each
//! of whoever should bring it first. What others announce meanwhile is dropped, what was asked of them is not. A list that is as
//! long as lists get has more behind it. When nobody who can show it is ahead, everybody is asked once what it has, and from then
//! on peers announce. Every question starts a block below what is known, so that a peer which has the same shows it.
//!
//! A wanted block is never lost: silence, a lost connection and a "not found" pass the request on. A block whose parents
//! are missing waits in the pool of orphans, and its parents are asked for. Claimed heights are hints: who does not show
//! what it claims when it is asked loses its claim.

mod blocks;
mod line;
mod lists;
mod peer;
mod requests;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use tipward_peer::{
    PeerId, PeerInfo, Want,
    wire::{BlockHash, Header},
};

use super::super::{
    Fault,
    flow::{Arrived, FlowContext, FlowInput, FlowOutput},
};
use crate::{BlockId, OrphanOptions, OrphanPool, RejectedBlocks, SyncOptions};
use peer::{InventoryPeer, Next};
use requests::{Left, Requests};

/// What a block is taken to weigh before any has come, in bytes.
const FIRST_SIZE: u64 = 64 << 10;
/// This fraction of the byte budget may be taken by orphans.
const ORPHAN_SHARE: u8 = 2;
/// How many invalid blocks are remembered, the latest.
const MAX_REJECTED: usize = 10_000;
/// Time-outs of less would make the machine spin.
const MIN_WAIT: Duration = Duration::from_millis(10);

/// Finds and brings blocks by lists. See the module.
#[derive(Debug)]
pub(crate) struct InventoryFlow {
    options: Bounds,
    random: fastrand::Rng,
    peers: BTreeMap<PeerId, InventoryPeer>,
    mode: Mode,
    requests: Requests,
    pool: OrphanPool<Kept>,
    rejected: RejectedBlocks,
    /// The chain's tip when it was seen last.
    tip: BlockId,
    /// When the chain took a block last, or sync mode began.
    grown: Option<Instant>,
    /// The running average of block sizes, in bytes.
    average_size: u64,
    /// What the context of this input does not know of yet.
    taken: Taken,
    /// When it was last looked for what is late.
    checked: Option<Instant>,
    has_failed: bool,
    outputs: VecDeque<FlowOutput>,
}

/// See [`SyncOptions`].
#[derive(Debug)]
struct Bounds {
    /// How long a list is cut.
    batch: usize,
    max_in_flight: usize,
    list_timeout: Duration,
    poll_interval: Duration,
    stall_timeout: Duration,
    max_strikes: u32,
    /// No block above this height is asked for.
    stop_at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Lists come from this peer.
    Syncing(PeerId),
    /// Nobody is known to be ahead: everybody is asked now and then, and announces.
    Following,
}

/// A block that came, and waits for its parents.
#[derive(Debug)]
struct Kept {
    hash: BlockHash,
    header: Header,
    served_by: PeerId,
    /// `None` if there is no room for it: the scheduler gets it again when its place is known.
    body: Option<Arrived>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Blocks that the chain has taken.
    count: usize,
    /// Bytes of them.
    bytes: u64,
    /// Bytes of orphans when the input came.
    orphan_bytes: u64,
}

impl InventoryFlow {
    /// A flow for peers that cut a list at `batch` blocks, at least 2.
    pub(crate) fn new(options: &SyncOptions, batch: usize, seed: u64) -> Self {
        let orphans = OrphanOptions::default();
        let max_orphans = orphans.max_count.min(options.window);
        let max_orphan_bytes = orphans.max_bytes.min(options.byte_budget / u64::from(ORPHAN_SHARE));
        let batch = batch.max(2);
        Self {
            options: Bounds {
                batch,
                max_in_flight: options.max_in_flight.max(1),
                list_timeout: options.header_timeout.max(MIN_WAIT),
                poll_interval: options.header_interval.max(MIN_WAIT),
                stall_timeout: options.stall_timeout.max(MIN_WAIT),
                max_strikes: options.max_strikes,
                // That a block lies deep enough for the sink is shown by the blocks above it.
                stop_at: options.stop_at.map_or(u64::MAX, |stop| stop.saturating_add(options.stay_behind)),
            },
            random: fastrand::Rng::with_seed(seed),
            peers: BTreeMap::new(),
            mode: Mode::Following,
            requests: Requests::new(batch),
            pool: OrphanPool::new(OrphanOptions {
                max_count: max_orphans,
                max_bytes: max_orphan_bytes,
                ..orphans
            }),
            rejected: RejectedBlocks::new(MAX_REJECTED),
            tip: BlockId { height: 0, hash: BlockHash::ZERO },
            grown: None,
            average_size: FIRST_SIZE,
            taken: Taken::default(),
            checked: None,
            has_failed: false,
            outputs: VecDeque::new(),
        }
    }

    /// Takes what happened at `now`. Times must not go back.
    pub(crate) fn handle(&mut self, now: Instant, input: FlowInput, context: &mut FlowContext<'_>) {
        if self.has_failed {
            return;
        }
        self.tip = context.chain.tip();
        self.taken = Taken { orphan_bytes: self.pool.bytes(), ..Taken::default() };
        match input {
            // Comes with every block: nothing else is looked at.
            FlowInput::Progress(id) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.alive = now;
                }
                return;
            }
            FlowInput::Held(id) => self.hold(now, id, true),
            FlowInput::Released(id) => self.hold(now, id, false),
            FlowInput::RangeEnd(_) => return,
            FlowInput::Room | FlowInput::Rejected { .. } => {}
            FlowInput::Passes(id, head) => {
                self.came(now, id, head.header.hash, (Some(head), None), context.chain);
            }
            FlowInput::Known(hash) => self.requests.done(hash),
            FlowInput::Connected(id, info) => self.connected(now, id, &info),
            FlowInput::Disconnected(id) => self.forget(now, id, Left::ByItself),
            FlowInput::Announced(id, blocks) => self.announced(now, id, &blocks, context.chain),
            FlowInput::Headers { peer, headers, .. } => {
                let blocks: Vec<BlockHash> = headers.iter().map(|header| header.hash).collect();
                self.announced(now, peer, &blocks, context.chain);
            }
            FlowInput::Height(id, height) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.claimed = height;
                }
            }
            FlowInput::Block(block) => self.block(now, block, context.chain),
            FlowInput::NoRoom { peer, block, head } => {
                self.came(now, peer, block, (head, None), context.chain);
            }
            FlowInput::Missing(id, blocks) => self.missing(now, id, &blocks),
            FlowInput::Unsupported(id, Want::Blocks(blocks)) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.rest(now);
                }
                self.return_to_queue(now, id, &blocks);
            }
            FlowInput::Unsupported(id, Want::BlocksAfter { .. }) => {
                self.drop_peer(now, id, Fault::NoInventory);
            }
            FlowInput::Unsupported(..) => {}
            FlowInput::Tick => self.expire(now, context),
        }
        if !self.has_failed {
            self.advance(now, context);
        }
    }

    /// The next thing to do.
    pub(crate) fn poll(&mut self) -> Option<FlowOutput> {
        self.outputs.pop_front()
    }

    /// When the time alone will have an effect.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.has_failed {
            return None;
        }
        let of_peer = |(&id, peer): (&PeerId, &InventoryPeer)| {
            let fresh = peer.last_question.filter(|_| self.is_ahead(peer));
            let fresh = fresh.map(|last| last.asked + self.options.stall_timeout);
            let (rest, leads, guesses) = (peer.rests_until, peer.leads_from, peer.guesses_from);
            let poll = self.poll_due(id, peer);
            let pauses = [Some(rest), Some(leads), Some(guesses)];
            let due = [self.stalls_at(id, peer), self.answer_due(id, peer), poll, fresh];
            pauses.into_iter().chain(due)
        };
        // What was due at the last look was acted on, or has to wait for something else.
        self.peers
            .iter()
            .flat_map(of_peer)
            .flatten()
            .chain(self.requests.deadline())
            .chain(self.pool.next_expiry())
            .chain(self.turn_ends())
            .filter(|&at| Some(at) > self.checked)
            .min()
    }

    /// Whether known blocks may be fetched by their hash meanwhile: those of a branch that wins late, or of an earlier run.
    #[expect(clippy::unused_self, reason = "every flow is asked")]
    pub(crate) fn may_fetch(&self) -> bool {
        true
    }

    /// Whether all peers have told what they have, and it has come, but for what seems not to exist.
    pub(crate) fn is_caught_up(&self) -> bool {
        let is_behind = |peer: &InventoryPeer| {
            peer.poll_at.is_none() || peer.next != Next::Nothing || self.is_ahead(peer)
        };
        self.mode == Mode::Following
            && !self.peers.is_empty()
            && !self.peers.values().any(is_behind)
            && !self.requests.has_hopes()
    }

    /// Bytes of orphans.
    pub(crate) fn buffered_bytes(&self) -> u64 {
        self.pool.bytes()
    }

    fn connected(&mut self, now: Instant, id: PeerId, info: &PeerInfo) {
        self.forget(now, id, Left::ByItself);
        self.peers.insert(id, InventoryPeer::new(info, self.options.stall_timeout, now));
        self.requests.connect(id);
        self.requests.wake_all(now, |hash| self.pool.is_awaited(hash));
    }

    /// The peer is held, or let go. All its time starts anew then.
    fn hold(&mut self, now: Instant, id: PeerId, is_held: bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        (peer.alive, peer.is_held) = (now, is_held);
        self.requests.hold(now, id, is_held);
    }

    /// Acts on what is late.
    fn expire(&mut self, now: Instant, context: &FlowContext<'_>) {
        self.checked = Some(now);
        let stalled = |(&id, peer): (&PeerId, &InventoryPeer)| {
            self.stalls_at(id, peer).filter(|at| *at <= now).map(|_| id)
        };
        let stalled: Vec<PeerId> = self.peers.iter().filter_map(stalled).collect();
        stalled.into_iter().for_each(|id| self.stalled(now, id));
        let mut late = self.requests.late(now);
        while !late.is_empty() {
            for (id, hash) in late {
                self.return_to_queue(now, id, &[hash]);
            }
            late = self.requests.late(now);
        }
        self.expire_lists(now, context.chain);
        self.requests.wake(now, |hash| self.pool.is_awaited(hash));
        for orphan in self.pool.expire(now) {
            self.requests.done(orphan.hash);
        }
    }

    /// Asks for whatever it is time to ask for.
    fn advance(&mut self, now: Instant, context: &FlowContext<'_>) {
        self.tip = context.chain.tip();
        self.choose_sync_peer(now, context.chain);
        if context.may_ask {
            self.ask_lists(now, context.chain);
            if !self.is_stopped() {
                self.want_missing();
                self.ask_blocks(now, context);
            }
        }
    }

    /// Whether there is as much as is wanted.
    pub(super) fn is_stopped(&self) -> bool {
        self.tip.height >= self.options.stop_at
    }

    /// When this peer has been silent for too long with blocks that it was asked for.
    fn stalls_at(&self, id: PeerId, peer: &InventoryPeer) -> Option<Instant> {
        (!peer.is_held && self.requests.load(id) > 0).then(|| peer.alive + peer.patience)
    }

    /// The peer brings nothing: others are asked for what it was asked for.
    fn stalled(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if self.requests.only_hunches(id) {
            // It need not have them.
            peer.guessed_wrong(now);
            let asked = self.requests.withdraw(id);
            return self.pass_on(now, asked);
        }
        peer.strike(now);
        tracing::debug!(%id, strikes = peer.strikes, "stalled");
        if peer.strikes >= self.options.max_strikes {
            return self.drop_peer(now, id, Fault::Stalled);
        }
        let asked = self.requests.withdraw(id);
        self.pass_on(now, asked);
    }

    /// The peer does not have these blocks.
    fn missing(&mut self, now: Instant, id: PeerId, blocks: &[BlockHash]) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.alive = now;
        if blocks.iter().any(|hash| self.requests.is_hunch(*hash, id)) {
            peer.guessed_wrong(now);
        }
        let disowned = blocks.iter().filter(|hash| self.requests.disown(**hash, id)).count();
        // A pruned peer lists what it does not serve.
        if disowned > 0 && !peer.is_pruned() {
            peer.strike(now);
            if peer.strikes >= self.options.max_strikes {
                return self.drop_peer(now, id, Fault::Stalled);
            }
        }
        self.return_to_queue(now, id, blocks);
    }

    /// Passes on what was asked of this peer of these blocks.
    fn return_to_queue(&mut self, now: Instant, id: PeerId, blocks: &[BlockHash]) {
        let failed = blocks.iter().copied().filter(|&hash| self.requests.fail(hash, id)).collect();
        self.pass_on(now, failed);
    }

    pub(super) fn pass_on(&mut self, now: Instant, blocks: Vec<BlockHash>) {
        for hash in blocks {
            self.requests.pass_on(now, hash, self.pool.is_awaited(hash));
        }
    }

    fn drop_peer(&mut self, now: Instant, id: PeerId, fault: Fault) {
        if self.peers.contains_key(&id) {
            self.forget(now, id, Left::InDisgrace);
            self.outputs.push_back(FlowOutput::Drop(id, fault));
        }
    }

    /// What was asked of the peer is passed on; its orphans stay.
    fn forget(&mut self, now: Instant, id: PeerId, left: Left) {
        if self.peers.remove(&id).is_none() {
            return;
        }
        if self.mode == Mode::Syncing(id) {
            self.mode = Mode::Following;
        }
        let homeless = self.requests.disconnect(id, left, |hash| self.pool.is_awaited(hash));
        self.pass_on(now, homeless);
    }
}

#[cfg(test)]
mod tests;
