//! Blocks by their filters (BIP 157): a machine without I/O, beside the flow that keeps the headers.
//!
//! The blocks above the sink are taken in batches. Up to three peers are asked for the hashes of a batch's filters, and what they
//! say is compared block by block; one of them brings the filters. Each must have the hash that was said. Blocks whose filter has
//! one of the watched scripts are fetched, the others are skipped.
//!
//! The sink has one command at a time, besides a rollback or skip just before it: what it adds to the watched scripts while it
//! applies a block is looked for in everything above that block.
//!
//! Where peers differ over a filter, the block itself tells who lies, as far as [`FilterRules::refute`] can; where it can't,
//! the sink gets the block. A single peer is believed.

mod advance;
mod asks;
mod batch;
mod blocks;
mod peers;
mod replies;
mod rules;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use tipward_peer::{PeerId, Reply, wire::FilterHash};

use crate::{
    Block, BlockId, Chain, Fault, Output, PeerShare, SyncOptions, WatchSet, scheduler::UnknownCursor,
};
use batch::{Batch, State};
use peers::{Kind, Peer, Peers};
pub use rules::FilterRules;

/// How many peers are asked for the hashes of the same filters.
const WITNESSES: usize = 3;

/// How long the tip must have stayed for the filters of the last blocks to be asked for: nodes tell of a block before they have its
/// filter, and are silent when asked for it then.
const TIP_DELAY: Duration = Duration::from_millis(200);

/// What is told.
#[derive(Debug)]
pub(crate) enum FilterInput {
    Connected(PeerId),
    Disconnected(PeerId),
    Settled,
    Reply(PeerId, Reply),
    /// The sink has done so many more commands.
    Delivered(usize),
    Pause(bool),
    /// Look again at everything above this height.
    Rescan(u64),
    /// Headers have come, or something else that others have to know.
    News,
    Tick,
}

/// What others know.
pub(crate) struct View<'a> {
    pub(crate) chain: &'a dyn Chain,
    /// The heights of the best chain that a peer has shown to have, or is trusted to have.
    pub(crate) serves: &'a dyn Fn(PeerId) -> RangeInclusive<u64>,
    /// The headers are known as far as a peer has led.
    pub(crate) may_fetch: bool,
}

/// What users watch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FilterFigures {
    /// Filters that came and had the hash that was said.
    pub(crate) filters: u64,
    /// Blocks over whose filter peers differed, so that the block was needed.
    pub(crate) disputed: u64,
    /// Those where the block did not tell who is right.
    pub(crate) undecided: u64,
    /// Peers there are now that serve filters.
    pub(crate) peers: usize,
}

/// See the module. After every [`handle`](Self::handle), take [`poll`](Self::poll) until `None`.
#[derive(Debug)]
pub(crate) struct Filters {
    options: SyncOptions,
    rules: Arc<dyn FilterRules>,
    watch: WatchSet,
    peers: Peers,
    /// By the height of their first block; none of two.
    batches: BTreeMap<u64, Batch>,
    /// The blocks that are needed, by height, as far as they have come.
    blocks: BTreeMap<u64, Wanted>,
    /// The last block that the sink was given, or was told to skip or to go back to.
    front: Option<BlockId>,
    /// It is or was in the tree.
    is_placed: bool,
    /// Commands that the sink has not done.
    busy: usize,
    rescan: Option<u64>,
    is_paused: bool,
    is_settled: bool,
    /// It was said that nobody serves filters.
    is_alone: bool,
    /// The tip when the batches were last compared with the best chain, and since when.
    tip: Option<(BlockId, Instant)>,
    /// Something has changed that may let peers be asked.
    is_stale: bool,
    /// Bytes kept when it was last counted, and what has come since.
    buffered: u64,
    /// The running average of the filters' sizes, in bytes.
    average: u64,
    /// Where the search for the next peer begins, so that work spreads.
    turn: usize,
    /// When it was last looked for what is late.
    checked: Option<Instant>,
    figures: FilterFigures,
    outputs: VecDeque<Output>,
}

/// A block that is needed.
#[derive(Debug)]
struct Wanted {
    id: BlockId,
    /// In bytes; a guess until somebody has begun to send it.
    size: u64,
    block: Option<Block>,
    /// What it was found not to refute.
    cleared: BTreeSet<FilterHash>,
}

impl Wanted {
    fn new(id: BlockId) -> Self {
        Self { id, size: blocks::USUAL_SIZE, block: None, cleared: BTreeSet::new() }
    }
}

impl Filters {
    /// For a sink at `cursor`.
    pub(crate) fn new(
        options: SyncOptions,
        cursor: Option<BlockId>,
        rules: Arc<dyn FilterRules>,
        watch: WatchSet,
    ) -> Self {
        Self {
            options,
            rules,
            watch,
            peers: Peers::new(),
            batches: BTreeMap::new(),
            blocks: BTreeMap::new(),
            front: cursor,
            is_placed: cursor.is_none(),
            busy: 0,
            rescan: None,
            is_paused: false,
            is_settled: false,
            is_alone: false,
            tip: None,
            is_stale: true,
            buffered: 0,
            // A guess until filters have come: that of a full block of BTC.
            average: 20 << 10,
            turn: 0,
            checked: None,
            figures: FilterFigures::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes what happened at `now`.
    pub(crate) fn handle(&mut self, now: Instant, input: FilterInput, view: &View<'_>) {
        match input {
            FilterInput::Connected(id) => {
                self.peers.insert(id, Peer::new(now));
                self.is_stale = true;
            }
            FilterInput::Disconnected(id) => self.lost(now, id),
            FilterInput::Settled => self.is_settled = true,
            FilterInput::Reply(id, reply) => self.reply(now, id, reply, view),
            FilterInput::Delivered(count) => self.busy = self.busy.saturating_sub(count),
            FilterInput::Pause(is_paused) => self.is_paused = is_paused,
            FilterInput::Rescan(height) => self.rescan = self.rescan.into_iter().chain([height]).min(),
            FilterInput::News => self.is_stale = true,
            FilterInput::Tick => self.expire(now),
        }
        if !view.may_fetch {
            return;
        }
        self.realign(now, view.chain);
        self.advance(now, view.chain);
        // With the first peer alone, a lie would be believed that the next would contradict.
        let is_ready = self.is_settled || self.filter_peers().count() >= WITNESSES;
        while is_ready && !self.is_paused && std::mem::take(&mut self.is_stale) {
            self.ask(now, view);
            self.advance(now, view.chain);
        }
    }

    /// The next thing to do.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the time alone will have an effect.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let checked = self.checked;
        let peers = self.peers.values().filter_map(|peer| peer.deadline(self.options.stall_timeout, checked));
        let unsettled = self.batches.values().filter(|batch| !batch.is_settled);
        let waits = unsettled.map(|batch| batch.begun + self.options.header_timeout);
        let tip = self.tip.map(|(_, since)| since + TIP_DELAY);
        peers.chain(waits.chain(tip).filter(|at| Some(*at) > checked)).min()
    }

    /// Where the sink is, once it has done everything that it was told and need not go back.
    pub(crate) fn applied(&self, chain: &dyn Chain) -> Option<BlockId> {
        let is_best = |at: &BlockId| chain.best_at(at.height) == Some(at.hash);
        self.front.filter(is_best).filter(|_| self.busy == 0 && self.rescan.is_none())
    }

    /// Bytes of filters and blocks that are kept.
    pub(crate) fn buffered_bytes(&self) -> u64 {
        let filters: u64 = self.batches.values().map(Batch::buffered).sum();
        let blocks: u64 = self.blocks.values().flat_map(|it| &it.block).map(|block| block.size).sum();
        let arriving: u64 = self.peers.values().flat_map(|peer| &peer.arriving).map(|it| it.bytes).sum();
        filters + blocks + arriving
    }

    pub(crate) fn figures(&self) -> FilterFigures {
        FilterFigures { peers: self.filter_peers().count(), ..self.figures }
    }

    /// Blocks that are fetched or wait for their turn.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Adds what the peer does here to its share.
    pub(crate) fn add_share(&self, share: &mut PeerShare) {
        if let Some(peer) = self.peers.get(&share.peer) {
            share.blocks += peer.blocks;
            share.bytes += peer.bytes;
            share.in_flight += peer.open(Kind::Blocks);
        }
    }

    /// The sink is on a block that no peer's chain has, by what is known.
    pub(crate) fn is_without_place(&self, chain: &dyn Chain) -> Option<UnknownCursor> {
        let front = self.front.filter(|_| !self.is_placed)?;
        chain.fork_point(front.hash).is_none().then_some(UnknownCursor(front))
    }

    /// The highest block that the sink is to have.
    fn target(&self, chain: &dyn Chain) -> u64 {
        let top = chain.tip().height.saturating_sub(self.options.stay_behind);
        top.min(self.options.stop_at.unwrap_or(u64::MAX))
    }

    fn filter_peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.iter().filter(|(_, peer)| peer.serves_filters).map(|(id, _)| *id)
    }

    /// A peer is gone, and was not caught at a lie.
    fn lost(&mut self, now: Instant, id: PeerId) {
        if self.peers.remove(&id).is_some() {
            self.forget_word(now, id);
        }
    }

    /// A peer can't be asked for filters any more, and was not caught at a lie.
    fn forget_word(&mut self, now: Instant, id: PeerId) {
        self.is_stale = true;
        for batch in self.batches.values_mut().filter(|batch| batch.claims.contains_key(&id)) {
            // It can't be heard any more, and it may have been the one who is right.
            for slot in &mut batch.slots {
                if matches!(slot.state, State::Disputed(_)) {
                    slot.state = State::Undecided;
                    self.figures.undecided += 1;
                }
            }
            if !batch.is_complete() && batch.forget(id) {
                batch.reset(now);
            }
        }
    }

    /// A peer has lied, or is of no use. Nothing that it said counts.
    fn drop_peer(&mut self, now: Instant, id: PeerId, fault: Fault) {
        let was_there = self.peers.remove(&id).is_some();
        self.is_stale = true;
        // The word of one who is gone still stands where all its filters had come.
        for batch in self.batches.values_mut() {
            if batch.forget(id) {
                batch.reset(now);
            }
        }
        if was_there {
            self.outputs.push_back(Output::Drop(id, fault));
        }
    }

    /// Takes back what is late.
    fn expire(&mut self, now: Instant) {
        self.checked = Some(now);
        self.is_stale = true;
        let timeout = self.options.stall_timeout;
        let late: Vec<_> = self
            .peers
            .iter_mut()
            .filter_map(|(&id, peer)| peer.expire(timeout, now).map(|(strikes, kind)| (id, strikes, kind)))
            .collect();
        for (id, strikes, kind) in late {
            tracing::debug!(%id, strikes, ?kind, "stalled");
            if strikes >= self.options.max_strikes {
                let fault = if kind == Kind::Blocks { Fault::Stalled } else { Fault::NoFilters };
                self.drop_silent(now, id, fault);
            }
        }
    }

    /// A peer is of no use, and was not caught at a lie.
    fn drop_silent(&mut self, now: Instant, id: PeerId, fault: Fault) {
        self.lost(now, id);
        self.outputs.push_back(Output::Drop(id, fault));
    }
}

#[cfg(test)]
mod tests;
