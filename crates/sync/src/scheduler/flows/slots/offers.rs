//! What becomes of a block that comes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use tipward_peer::{PeerId, Want, wire::BlockHash};

use super::{
    Anchor, Arrived, Fault, FlowContext, FlowOutput, Open, SlotFlow, orphans::Orphan, peer::SlotPeer,
};
use crate::{Accepted, Chain, RefusedHeaders, scheduler::flows::backfill::Step};

/// How many rejected blocks are remembered.
const MAX_REJECTED: usize = 16_384;
/// Of how many blocks beside the best chain the heights are remembered.
const MAX_HEIGHTS: usize = 16_384;

/// Blocks that are not to be offered again, the last ones.
#[derive(Debug, Default)]
pub(super) struct Rejected {
    blocks: BTreeSet<BlockHash>,
    order: VecDeque<BlockHash>,
}

impl Rejected {
    pub(super) fn contains(&self, hash: BlockHash) -> bool {
        self.blocks.contains(&hash)
    }

    fn add(&mut self, hash: BlockHash) {
        if self.blocks.insert(hash) {
            self.order.push_back(hash);
        }
        if self.order.len() > MAX_REJECTED
            && let Some(oldest) = self.order.pop_front()
        {
            self.blocks.remove(&oldest);
        }
    }
}

/// The heights of the last blocks that were accepted, for those beside the best chain.
#[derive(Debug, Default)]
pub(super) struct Heights {
    heights: BTreeMap<BlockHash, u64>,
    order: VecDeque<BlockHash>,
}

impl Heights {
    /// The height of a block that was just accepted; `None` if its parent is a block beside the best chain from long ago.
    fn of_new(&mut self, hash: BlockHash, parent: BlockHash, chain: &dyn Chain) -> Option<u64> {
        let at = |hash| chain.fork_point(hash).filter(|point| point.hash == hash).map(|point| point.height);
        let height =
            at(hash).or_else(|| Some(at(parent).or_else(|| self.heights.get(&parent).copied())? + 1))?;
        self.heights.insert(hash, height);
        self.order.push_back(hash);
        if self.order.len() > MAX_HEIGHTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.heights.remove(&oldest);
        }
        Some(height)
    }
}

impl SlotFlow {
    pub(super) fn block(&mut self, now: Instant, block: Arrived, context: &mut FlowContext<'_>) {
        let id = block.served_by;
        let Some(peer) = self.peers.get_mut(&id) else { return }; // Dropped by us.
        self.average_size = (self.average_size * 7 + block.size) / 8;
        let head = context.chain.read_head(block.start()).filter(|head| head.header.hash == block.hash);
        // What can't be read is no answer: the time-out sees to it.
        let Some((head, slot)) = head.and_then(|head| head.index.map(|slot| (head, slot))) else { return };
        let hash = block.hash;
        peer.alive = now;
        let asked = peer.answered(hash, slot, now, self.options.stall_timeout);
        if asked == Asked::ForPast || self.past.is_wanted(hash, context.chain) {
            return self.past_block(&head, block, context);
        }
        if asked == Asked::ForSlots {
            peer.highest = peer.highest.max(slot);
            let is_known = context.chain.fork_point(hash).is_some() || self.rejected.contains(hash);
            self.came(id, slot, is_known);
        }
        let step = Step { header: head.header, slot, server: id, body: Some(block) };
        let Some(step) = self.is_on_the_way(step) else { return };
        let is_linked = context.chain.fork_point(step.header.parent).is_some();
        if is_linked || context.chain.fork_point(hash).is_some() || asked != Asked::Never {
            self.offer(step, context);
        } else if let Some(peer) = self.peers.get_mut(&id) {
            // Who has it has more than we.
            peer.has_news |= !self.rejected.contains(hash);
        }
        if self.rejected.contains(hash) && asked == Asked::ForSlots && self.peers.contains_key(&id) {
            // What follows in its answer builds on it.
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.give_up();
            }
            self.failed(now, id, Fault::BadRange);
        }
    }

    /// Offers a block to the chain, and then those that waited for it.
    pub(super) fn offer(&mut self, step: Step, context: &mut FlowContext<'_>) {
        let mut next = vec![step];
        while let Some(step) = next.pop() {
            let (hash, parent, server) = (step.header.hash, step.header.parent, step.server);
            if context.chain.fork_point(hash).is_some() {
                self.shows(server, hash, step.slot, false);
                continue;
            }
            if self.rejected.contains(hash) || self.rejected.contains(parent) {
                self.reject(hash);
                continue;
            }
            if context.chain.fork_point(parent).is_none() {
                self.keep(step, context);
                continue;
            }
            match context.chain.accept(std::slice::from_ref(&step.header)) {
                Ok(accepted) => {
                    if self.accepted(step, accepted, context.chain) {
                        next.extend(self.orphans.take_children(hash).into_iter().map(Step::from));
                    }
                }
                Err(RefusedHeaders::UnknownParent { .. }) => self.keep(step, context),
                Err(RefusedHeaders::Invalid(reason)) => {
                    self.reject(hash);
                    self.drop_peer(server, Fault::InvalidBlock { block: hash, reason });
                }
                Err(RefusedHeaders::Store(reason)) => {
                    self.has_failed = true;
                    return self.outputs.push_back(FlowOutput::Failed(reason));
                }
            }
        }
    }

    /// The chain has taken a block, or passed it over. True if it is in the tree.
    fn accepted(&mut self, step: Step, accepted: Accepted, chain: &dyn Chain) -> bool {
        let (hash, is_new) = (step.header.hash, accepted.added > 0);
        let is_taken = accepted.last == Some(hash);
        self.outputs.push_back(FlowOutput::Accepted(accepted));
        let tip = chain.tip();
        self.tip = (tip, chain.slot(tip.hash).unwrap_or(tip.height));
        if !is_taken {
            return false;
        }
        let height = self.heights.of_new(hash, step.header.parent, chain);
        if let (Some(body), Some(height), true) = (step.body, height, is_new) {
            self.outputs.push_back(FlowOutput::Body(body.into_block(height)));
        }
        self.shows(step.server, hash, step.slot, is_new);
        true
    }

    /// The peer has this block of the tree.
    fn shows(&mut self, id: PeerId, hash: BlockHash, slot: u64, is_new: bool) {
        self.anchor = Anchor::Fast;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if is_new {
            (peer.was_useful, peer.unlinked) = (true, 0);
        }
        if slot >= peer.shown_slot {
            (peer.shown, peer.shown_slot) = (Some(hash), slot);
            self.outputs.push_back(FlowOutput::Shows(id, hash));
        }
    }

    fn keep(&mut self, step: Step, context: &FlowContext<'_>) {
        let Step { header, slot, server, body } = step;
        // The other half is for the way that is walked.
        self.orphans.add(Orphan { header, slot, server, body }, context.byte_room / 2);
    }

    /// Rejects a block, and with it every orphan that builds on it.
    pub(super) fn reject(&mut self, hash: BlockHash) {
        let mut next = vec![hash];
        while let Some(hash) = next.pop() {
            self.rejected.add(hash);
            next.extend(self.orphans.take_children(hash).into_iter().map(|orphan| orphan.header.hash));
        }
    }

    /// The peer has said all that it says to its oldest question.
    pub(super) fn range_end(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.owed > 0 {
            peer.owed -= 1;
            return;
        }
        peer.alive = now;
        match peer.open.take() {
            Some(Open::Slots { .. }) => self.slots_end(now, id),
            // Whether it brought anything is seen from what is wanted next.
            Some(Open::Ancestors { .. } | Open::Past { .. }) | None => {}
            block @ Some(Open::Block(_)) => peer.open = block,
        }
    }

    /// The peer does not have the block that it was asked for.
    pub(super) fn missing(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && matches!(peer.open, Some(Open::Block(_)))
        {
            peer.open = None;
        }
    }

    /// The dialect can't ask this, or not now.
    pub(super) fn unsupported(&mut self, now: Instant, id: PeerId, want: &Want) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match want {
            Want::Ancestors { .. } => {
                peer.knows_ancestors = false;
                peer.open = None;
                // It can be asked by hash.
                self.untry(id);
            }
            Want::SlotRange { .. } => {
                peer.open = None;
                peer.ended = Some(u64::MAX);
                peer.rests_until = now + self.options.stall_timeout;
                peer.deaf_until = now + super::MAX_REST;
            }
            Want::Blocks(_) => peer.open = None,
            _ => {}
        }
    }
}

/// What a block was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Never,
    ForSlots,
    ForAncestors,
    ForPast,
}

impl SlotPeer {
    /// A block came from the peer.
    fn answered(&mut self, hash: BlockHash, slot: u64, now: Instant, patience: std::time::Duration) -> Asked {
        let asked = match &mut self.open {
            Some(Open::Slots { start, count, came }) if slot >= *start && *came < *count => {
                *came += 1;
                Asked::ForSlots
            }
            Some(Open::Ancestors { came }) => {
                *came += 1;
                Asked::ForAncestors
            }
            Some(Open::Past { came }) => {
                *came += 1;
                Asked::ForPast
            }
            Some(Open::Block(wanted)) if *wanted == hash => {
                self.open = None;
                Asked::ForAncestors
            }
            Some(Open::Slots { .. } | Open::Block(_)) | None => return Asked::Never,
        };
        self.owed = 0;
        self.brought = now;
        self.strikes = 0;
        self.patience = patience;
        asked
    }
}
