//! Blocks by index: different ranges from different peers, accepted in order.
//!
//! The frontier is the chain's tip, and nothing else: what is missing is worked out from the tip, from the blocks that wait
//! for their turn and from the open questions, every time anew. So a block that did not come is missing again by itself,
//! whatever the reason. A block is accepted when its parent is in the tree, and waits or is forgotten before. A peer whose
//! block does not link although its turn has come is on another branch: single blocks of it are looked at further down until
//! one links, and from there the chain hears its branch, as far as it goes. Claimed heights are hints: who does not bring the
//! first block that it was asked for above the tip loses its claim.

mod asks;
mod blocks;
mod branches;
mod kept;
mod peer;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use tipward_peer::{
    PeerId, Want,
    wire::{BlockHash, Header},
};

use super::super::{
    Fault,
    flow::{FlowContext, FlowInput, FlowOutput},
};
use crate::{BlockId, Chain, SyncOptions};
use kept::Kept;
use peer::{Branch, Late, MAX_PATIENCE, Purpose, RangePeer, Request, Trust};

/// What a block is taken to weigh before any has come, in bytes.
const FIRST_SIZE: u64 = 64 << 10;

/// Finds and brings blocks by index.
#[derive(Debug)]
pub(crate) struct RangeFlow {
    options: Bounds,
    rng: fastrand::Rng,
    peers: BTreeMap<PeerId, RangePeer>,
    kept: Kept,
    /// Heights above the tip that peers passed over.
    skips: BTreeMap<u64, Skip>,
    /// Since when somebody is asked for the block after the tip: its height, and the time.
    frontier: Option<(u64, Instant)>,
    /// The chain's tip when it was seen last.
    tip: BlockId,
    /// The running average of block sizes, in bytes.
    average_size: u64,
    /// When it was last looked for what is late.
    checked: Option<Instant>,
    has_failed: bool,
    outputs: VecDeque<FlowOutput>,
}

#[derive(Debug)]
struct Bounds {
    /// How many blocks are asked for at once.
    batch: u32,
    window: usize,
    stall_timeout: Duration,
    poll_interval: Duration,
    max_strikes: u32,
    stop_at: u64,
}

/// A height that was asked for and passed over.
#[derive(Debug)]
struct Skip {
    /// By these peers.
    by: Vec<PeerId>,
    /// How often everybody did.
    rounds: u32,
    /// Not to be asked for before.
    again: Instant,
}

impl RangeFlow {
    /// A flow that asks for at most `batch` blocks at once. [`SyncOptions::max_in_flight`] does not apply: a range is one
    /// question.
    pub(crate) fn new(options: &SyncOptions, batch: u32, seed: u64) -> Self {
        Self {
            options: Bounds {
                batch: batch.max(1),
                window: options.window,
                stall_timeout: options.stall_timeout,
                poll_interval: options.header_interval,
                max_strikes: options.max_strikes,
                // What is held back for now has to be there to be counted.
                stop_at: options.stop_at.map_or(u64::MAX, |stop| stop.saturating_add(options.stay_behind)),
            },
            rng: fastrand::Rng::with_seed(seed),
            peers: BTreeMap::new(),
            kept: Kept::default(),
            skips: BTreeMap::new(),
            frontier: None,
            tip: BlockId { height: 0, hash: BlockHash::ZERO },
            average_size: FIRST_SIZE,
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
        match input {
            FlowInput::Connected(id, info) => {
                let peer = RangePeer::new(&info, self.options.batch, self.options.stall_timeout, now);
                self.peers.insert(id, peer);
            }
            FlowInput::Disconnected(id) => self.forget(id),
            FlowInput::Block(block) => self.block(now, block, context),
            FlowInput::NoRoom { peer, head: Some(head), .. } | FlowInput::Passes(peer, head) => {
                self.head(now, peer, head, context);
            }
            FlowInput::NoRoom { peer, block, head: None } => self.missing(peer, &[block], context.chain),
            FlowInput::Height(id, height) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.claims(height);
                }
            }
            FlowInput::Announced(id, blocks) => self.announced(id, blocks.last().copied(), context.chain),
            FlowInput::Headers { peer, headers, .. } => {
                let last = headers.last().map(|header: &Header| header.hash);
                self.announced(peer, last, context.chain);
            }
            FlowInput::RangeEnd(id) => self.range_end(now, id),
            FlowInput::Unsupported(id, Want::Range { .. }) => self.unsupported(now, id),
            FlowInput::Progress(id) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.alive = now;
                }
                return; // Puts off what is late, and nothing else.
            }
            FlowInput::Held(id) | FlowInput::Released(id) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.is_held = matches!(input, FlowInput::Held(_));
                    peer.restart(now);
                }
            }
            FlowInput::Missing(id, blocks) => self.missing(id, &blocks, context.chain),
            // What is there is worked out anew in any case.
            FlowInput::Room | FlowInput::Rejected { .. } => {}
            FlowInput::Known(_) => return,
            FlowInput::Tick => {
                self.checked = Some(now);
                self.check_late(now);
            }
            FlowInput::Unsupported(..) => {}
        }
        if !self.has_failed {
            self.follow_branches(context.chain);
            self.ask(now, context);
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
        let of_peer = |peer: &RangePeer| {
            let late = peer.late_at().map(|(at, _)| at);
            // Whoever has nothing to do may be asked when it has rested, or to see if there is more.
            let idle = peer.is_idle().then_some(peer.poll_at.max(peer.rests_until));
            [late, idle, Some(peer.rests_until)]
        };
        let peers = self.peers.values().flat_map(of_peer).flatten();
        let skips = self.skips.values().map(|skip| skip.again);
        // What was due at the last look was acted on, or has to wait for something else.
        peers.chain(skips).chain(self.second_ask_at()).filter(|&at| Some(at) > self.checked).min()
    }

    /// Whether known blocks may be fetched by their hash meanwhile.
    #[expect(clippy::unused_self, reason = "every flow is asked")]
    pub(crate) fn may_fetch(&self) -> bool {
        true
    }

    /// Whether the tree has everything that the peers are believed to have, and at least one of them was heard.
    pub(crate) fn is_caught_up(&self) -> bool {
        let mut heard = self.peers.values().filter(|peer| peer.trust == Trust::Believed).peekable();
        let stop = self.options.stop_at;
        let has_more = |peer: &RangePeer| match peer.branch {
            Branch::Fresh | Branch::Search(_) => true,
            Branch::Best => peer.reach().min(stop) > self.tip.height,
            Branch::Climb { .. } => peer.reach().min(stop) > peer.shown_height(),
        };
        heard.peek().is_some() && !heard.any(has_more)
    }

    /// Blocks that wait for their turn, in bytes.
    pub(crate) fn buffered_bytes(&self) -> u64 {
        self.kept.bytes()
    }

    /// A peer tells of a block.
    fn announced(&mut self, id: PeerId, last: Option<BlockHash>, chain: &dyn Chain) {
        if let (Some(peer), Some(hash)) = (self.peers.get_mut(&id), last) {
            peer.announced = Some(hash).filter(|hash| chain.fork_point(*hash).is_none());
            if peer.announced.is_none() {
                // Others may have brought it, and be gone.
                self.outputs.push_back(FlowOutput::Shows(id, hash));
            }
        }
    }

    /// The peer does not have these blocks. What it was asked for by its hash is not meant.
    fn missing(&mut self, id: PeerId, blocks: &[BlockHash], chain: &dyn Chain) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        for &hash in blocks {
            peer.denies(chain.find(hash).map(|block| block.height));
        }
    }

    /// The peer has said all that it says to its oldest question.
    fn range_end(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.alive = now;
        let Some(request) = peer.ends(now) else { return };
        peer.strikes = 0;
        let is_claimed = peer.claimed >= request.start && peer.shown_height() < request.start;
        if request.is_denied {
            self.denied(now, id, &request);
        } else if !request.is_untouched() {
            if request.next < request.end && peer.reach() >= request.end - 1 {
                // It sends no more at once; the rest is missing again.
                peer.most = u32::try_from(request.next - request.start).unwrap_or(u32::MAX);
                peer.quota = peer.quota.min(peer.most);
            }
        } else if is_claimed {
            self.unshown(now, id);
        } else if request.purpose == Purpose::Poll {
            self.polled(now, id);
        } else {
            self.denied(now, id, &request);
        }
    }

    /// The peer has not brought what it was asked for, and does not say that it could: others are asked.
    fn denied(&mut self, now: Instant, id: PeerId, request: &Request) {
        if request.next == request.end {
            return;
        }
        match request.purpose {
            Purpose::Share => request.missing().for_each(|height| self.skipped(now, id, height)),
            Purpose::Poll => self.polled(now, id),
            Purpose::Climb | Purpose::Probe => self.rest(now, id),
        }
    }

    /// The dialect can't ask for ranges, or not now.
    fn unsupported(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.give_up();
        peer.trust = Trust::Doubted;
        peer.rests_until = now + MAX_PATIENCE;
        peer.poll_at = peer.rests_until;
        self.outputs.push_back(FlowOutput::ShowsNothing(id));
    }

    /// Takes the questions back that are not answered in time.
    fn check_late(&mut self, now: Instant) {
        let late = |(&id, peer): (&PeerId, &RangePeer)| {
            let (_, late) = peer.late_at().filter(|(at, _)| *at <= now)?;
            Some((id, late, peer.open().next()?.clone()))
        };
        let late: Vec<_> = self.peers.iter().filter_map(late).collect();
        for (id, late, oldest) in late {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            match (oldest.purpose, late) {
                // Silence is an answer there.
                (Purpose::Poll, Late::Silent) => {
                    peer.give_up_oldest(now);
                    if oldest.is_untouched() {
                        self.polled(now, id);
                    }
                }
                (_, Late::Endless) => {
                    peer.give_up();
                    self.rest(now, id);
                }
                (_, Late::Silent) => {
                    peer.give_up();
                    self.silent(now, id);
                }
            }
        }
    }

    /// The peer was asked whether it has more, and has not.
    fn polled(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.trust == Trust::Doubted && peer.claimed > self.tip.height.max(peer.shown_height()) {
            return self.silent(now, id); // It says so still.
        }
        peer.poll_at = now + self.options.poll_interval;
        if peer.branch == Branch::Fresh {
            peer.branch = Branch::Best;
        }
        if peer.shown.is_none() {
            self.outputs.push_back(FlowOutput::ShowsNothing(id));
        }
    }

    /// Nobody waits for the peer before it has brought something, and it is left alone for a while.
    fn rest(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.rests_until = now + peer.patience;
        peer.poll_at = peer.rests_until;
        peer.patience = (peer.patience * 2).min(MAX_PATIENCE);
        peer.quota = (peer.quota / 2).max(1);
        peer.trust = Trust::Doubted;
    }

    /// Nothing comes from the peer. Once may be bad luck.
    fn silent(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.strikes += 1;
        let (claimed, shown) = (peer.claimed, peer.shown_height());
        if peer.strikes >= self.options.max_strikes && claimed <= shown {
            self.drop_peer(id, Fault::Stalled);
        } else if peer.strikes > 1 && claimed > shown {
            self.unshown(now, id);
        } else {
            self.rest(now, id);
        }
    }

    /// The peer has none of what it claims above what it has shown.
    fn unshown(&mut self, now: Instant, id: PeerId) {
        self.rest(now, id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.doubt(now);
        let fault = Fault::HeightNotShown { claimed: peer.claimed, shown: peer.shown_height() };
        self.outputs.push_back(FlowOutput::Disbelieve(id));
        if peer.strikes >= self.options.max_strikes {
            self.drop_peer(id, fault);
        } else {
            self.outputs.push_back(FlowOutput::Penalise(id, fault));
        }
    }

    fn drop_peer(&mut self, id: PeerId, fault: Fault) {
        if self.peers.contains_key(&id) {
            self.forget(id);
            self.outputs.push_back(FlowOutput::Drop(id, fault));
        }
    }

    fn forget(&mut self, id: PeerId) {
        let Some(peer) = self.peers.remove(&id) else { return };
        // What it brought of our chain is as good as before; nobody is left to ask about another branch.
        if !peer.is_on_our_chain() {
            self.kept.forget(id);
        }
    }
}

#[cfg(test)]
mod tests;
