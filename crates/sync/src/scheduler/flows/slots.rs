//! Blocks by slot, and back-fill of what does not link.
//!
//! Peers that are on our best chain, as far as known, bring what follows its tip: one of them at a time, and the next one
//! goes on where it fails. Of every other peer it is looked where its tip is. What does not link waits, and is back-filled,
//! the highest first, when its peer has sent what it sends. A peer whose tip is known is not asked again before it tells of
//! another, or for a while, which gets longer while nothing new comes; so nothing goes on for ever. Claimed slots are hints.
//!
//! A tree that starts at a trusted block gets the past below it when everything else is there.

mod asks;
mod offers;
pub(super) mod orphans;
mod past;
mod peer;
mod walks;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use tipward_peer::{PeerId, wire::BlockHash};

use super::{
    super::{
        Fault,
        flow::{Arrived, FlowContext, FlowInput, FlowOutput},
    },
    backfill::BackFill,
};
use crate::{BlockId, Chain, RejectedBlocks, SyncOptions};
use offers::MAX_REJECTED;
use orphans::Orphans;
use past::PastWalk;
use peer::{Late, MAX_REST, SlotPeer, Standing};

/// How long peers are given to show a chain with the trusted block, from when the first one was seen not to have it.
const TRUST_TIME: Duration = Duration::from_secs(64);

/// Finds and brings blocks by slot.
#[derive(Debug)]
pub(crate) struct SlotFlow {
    options: Bounds,
    rng: fastrand::Rng,
    peers: BTreeMap<PeerId, SlotPeer>,
    /// Who was asked last for what follows our tip.
    leader: Option<PeerId>,
    orphans: Orphans,
    /// From one of the orphans down to the tree.
    walk: Option<BackFill>,
    rejected: RejectedBlocks,
    /// The chain's tip, and its slot.
    tip: (BlockId, u64),
    anchor: Anchor,
    past: PastWalk,
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
    max_back_fill: usize,
    window: usize,
    stall_timeout: Duration,
    poll_interval: Duration,
    max_strikes: u32,
    stop_at: u64,
}

/// Whether a tree that starts at a trusted block is on the peers' chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anchor {
    /// Not looked yet.
    Unknown,
    /// Nobody has shown this block yet; `since` somebody has shown another chain.
    Loose { at: BlockHash, since: Option<Instant> },
    /// It is, or the tree starts at genesis.
    Fast,
}

/// The peers' chains do not have the block that the tree starts at.
#[derive(Debug, thiserror::Error)]
#[error("no peer has a chain with the trusted block {0}")]
struct UnlinkedCheckpoint(BlockHash);

impl SlotFlow {
    /// A flow that asks for at most `batch` blocks at once, and walks at most `max_back_fill` blocks back from one.
    pub(crate) fn new(options: &SyncOptions, batch: u32, max_back_fill: usize, seed: u64) -> Self {
        Self {
            options: Bounds {
                batch: batch.max(1),
                max_back_fill,
                window: options.window,
                stall_timeout: options.stall_timeout,
                poll_interval: options.header_interval,
                max_strikes: options.max_strikes,
                // What is held back for now has to be there to be counted.
                stop_at: options.stop_at.map_or(u64::MAX, |stop| stop.saturating_add(options.stay_behind)),
            },
            rng: fastrand::Rng::with_seed(seed),
            peers: BTreeMap::new(),
            leader: None,
            orphans: Orphans::default(),
            walk: None,
            rejected: RejectedBlocks::new(MAX_REJECTED),
            tip: (BlockId { height: 0, hash: BlockHash::ZERO }, 0),
            anchor: Anchor::Unknown,
            past: PastWalk::default(),
            average_size: 64 << 10,
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
        self.look_at(context.chain);
        match input {
            FlowInput::Connected(id, info) => {
                self.peers.insert(id, SlotPeer::new(&info, self.options.stall_timeout, now));
                // It can be asked for known blocks at once.
                self.outputs.push_back(FlowOutput::ShowsNothing(id));
            }
            FlowInput::Disconnected(id) => self.forget(id),
            FlowInput::Block(block) => self.block(now, block, context),
            FlowInput::Height(id, slot) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.claims(slot);
                }
            }
            FlowInput::Announced(id, blocks) => self.announced(id, blocks.last().copied(), context.chain),
            FlowInput::Headers { peer, headers, .. } => {
                self.announced(peer, headers.last().map(|header| header.hash), context.chain);
            }
            FlowInput::Missing(id, blocks) => self.denied(id, &blocks),
            FlowInput::NoRoom { peer, head: Some(head), .. } => self.arrived(now, peer, head, None, context),
            FlowInput::NoRoom { peer, block, head: None } => self.denied(peer, &[block]),
            FlowInput::Passes(id, head) => self.passes(now, id, head.header.hash, context.chain),
            FlowInput::RangeEnd(id) => self.range_end(now, id),
            FlowInput::Unsupported(id, want) => self.unsupported(now, id, &want),
            FlowInput::Progress(id) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.alive = now;
                }
            }
            FlowInput::Held(id) => self.hold(now, id, true),
            FlowInput::Released(id) => self.hold(now, id, false),
            // What is there is worked out anew in any case.
            FlowInput::Room | FlowInput::Known(_) | FlowInput::Rejected { .. } => {}
            FlowInput::Tick => {
                self.checked = Some(now);
                self.check_late(now);
            }
        }
        self.go_on(now, context);
    }

    /// The peer does not bring these blocks.
    fn denied(&mut self, id: PeerId, blocks: &[BlockHash]) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.denies(blocks);
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
        let of_peer = |peer: &SlotPeer| {
            let deaf = peer.has_news.then_some(peer.deaf_until);
            let late = peer.late_at().map(|(at, _)| at);
            [late, peer.hands_over_at(), Some(peer.rests_until), Some(peer.poll_at), deaf]
        };
        let peers = self.peers.values().flat_map(of_peer).flatten();
        let anchor = match self.anchor {
            Anchor::Loose { since: Some(since), .. } => Some(since + TRUST_TIME),
            Anchor::Loose { .. } | Anchor::Unknown | Anchor::Fast => None,
        };
        let walk = self.walk.as_ref().and_then(BackFill::deadline);
        let others = [anchor, walk, self.past.deadline()].into_iter().flatten();
        // What was due at the last look was acted on, or has to wait for something else.
        peers.chain(others).filter(|&at| Some(at) > self.checked).min()
    }

    /// Whether known blocks may be fetched by their hash meanwhile.
    #[expect(clippy::unused_self, reason = "every flow is asked")]
    pub(crate) fn may_fetch(&self) -> bool {
        true
    }

    /// Whether no peer is believed to have anything that the tree has not, and at least one was heard. The past of a trusted
    /// block may still be missing.
    pub(crate) fn is_caught_up(&self) -> bool {
        let is_heard = |peer: &SlotPeer| peer.standing == Standing::Heard;
        let has_more = |peer: &SlotPeer| {
            // Whoever rests has failed, and whoever trickles never ends.
            let is_resting = self.checked.is_some_and(|checked| peer.rests_until > checked);
            let is_late = peer.standing == Standing::Fresh && peer.is_slow(self.checked);
            let may_tell = !peer.has_told && peer.strikes == 0;
            !is_resting && !is_late && (may_tell || peer.is_ahead(self.tip.1))
        };
        let is_idle =
            self.walk.is_none() && self.orphans.len() == 0 && !matches!(self.anchor, Anchor::Loose { .. });
        let peers = || self.peers.values();
        peers().any(is_heard) && (self.is_stopped() || is_idle && !peers().any(has_more))
    }

    /// Blocks that wait for their parents, in bytes.
    pub(crate) fn buffered_bytes(&self) -> u64 {
        self.orphans.bytes() + self.walk.as_ref().map_or(0, BackFill::bytes)
    }

    /// Does whatever can be done now.
    fn go_on(&mut self, now: Instant, context: &mut FlowContext<'_>) {
        self.back_fill(now, context);
        if !self.has_failed {
            self.ask(now, context);
            self.check_anchor();
            self.ask_past(now, context);
        }
    }

    fn look_at(&mut self, chain: &dyn Chain) {
        let tip = chain.tip();
        self.tip = (tip, chain.slot(tip.hash).unwrap_or(tip.height));
        if self.anchor == Anchor::Unknown {
            let at = chain.wanted_past().map(|past| past.of.hash).filter(|&of| of == tip.hash);
            self.anchor = at.map_or(Anchor::Fast, |at| Anchor::Loose { at, since: None });
        }
    }

    /// Fails when the peers had their time and none of them has the trusted block.
    fn check_anchor(&mut self) {
        let Anchor::Loose { at, since: Some(since) } = self.anchor else { return };
        let is_idle = self.walk.is_none();
        let is_time = self.checked.is_some_and(|checked| since + TRUST_TIME <= checked);
        if is_idle && is_time && self.peers.values().any(|peer| peer.standing == Standing::Strange) {
            self.fail(UnlinkedCheckpoint(at));
        }
    }

    fn fail(&mut self, reason: impl std::error::Error + Send + Sync + 'static) {
        self.has_failed = true;
        self.outputs.push_back(FlowOutput::Failed(std::sync::Arc::new(reason)));
    }

    /// A peer tells of a block.
    fn announced(&mut self, id: PeerId, last: Option<BlockHash>, chain: &dyn Chain) {
        if let (Some(peer), Some(hash)) = (self.peers.get_mut(&id), last) {
            let is_known = chain.fork_point(hash).is_some() || self.rejected.contains(hash);
            peer.has_news |= !is_known;
            peer.has_announced |= !is_known;
            if chain.fork_point(hash).is_some() {
                // Others may have brought it, and be gone.
                self.outputs.push_back(FlowOutput::Shows(id, hash));
            }
        }
    }

    fn hold(&mut self, now: Instant, id: PeerId, is_held: bool) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.hold(is_held, now);
        }
    }

    /// Takes the questions back that are not answered in time.
    fn check_late(&mut self, now: Instant) {
        let late = |(&id, peer): (&PeerId, &SlotPeer)| {
            let (_, late) = peer.late_at().filter(|(at, _)| *at <= now)?;
            Some((id, late))
        };
        for (id, late) in self.peers.iter().filter_map(late).collect::<Vec<_>>() {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            peer.give_up();
            match late {
                Late::Silent => self.failed(now, id, Fault::Stalled),
                Late::Endless => peer.rest(now),
            }
        }
        for peer in self.peers.values_mut().filter(|peer| peer.poll_at <= now) {
            peer.has_news = true;
            peer.poll_at = now + self.options.poll_interval;
        }
    }

    /// A peer has not done what it was asked.
    fn failed(&mut self, now: Instant, id: PeerId, fault: Fault) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.strikes += 1;
        peer.rest(now);
        if peer.strikes >= self.options.max_strikes {
            self.drop_peer(id, fault);
        }
    }

    fn drop_peer(&mut self, id: PeerId, fault: Fault) {
        if self.peers.contains_key(&id) {
            self.forget(id);
            self.outputs.push_back(FlowOutput::Drop(id, fault));
        }
    }

    /// What it brought stays; what it was asked for is asked of others.
    fn forget(&mut self, id: PeerId) {
        self.peers.remove(&id);
    }
}

#[cfg(test)]
mod tests;
