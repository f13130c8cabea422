//! What becomes of a block that comes.

use std::time::Instant;

use tipward_peer::{PeerId, Want, wire::BlockHash};

use super::{
    Anchor, Arrived, Fault, FlowContext, FlowOutput, SlotFlow,
    orphans::Orphan,
    peer::{Asked, What},
};
use crate::{Accepted, BlockHead, Chain, RefusedHeaders, scheduler::flows::backfill::Step};

/// How many rejected blocks are remembered.
pub(super) const MAX_REJECTED: usize = 16_384;

impl SlotFlow {
    pub(super) fn block(&mut self, now: Instant, block: Arrived, context: &mut FlowContext<'_>) {
        self.average_size = (self.average_size * 7 + block.size) / 8;
        let head = context.chain.read_head(block.start()).filter(|head| head.header.hash == block.hash);
        // What can't be read is no answer: the time-out sees to it.
        let Some(head) = head else { return };
        self.arrived(now, block.served_by, head, Some(block), context);
    }

    /// A block came; of one that has no room there is its head only.
    pub(super) fn arrived(
        &mut self,
        now: Instant,
        id: PeerId,
        head: BlockHead,
        body: Option<Arrived>,
        context: &mut FlowContext<'_>,
    ) {
        let (Some(peer), Some(slot)) = (self.peers.get_mut(&id), head.index) else { return }; // Or dropped by us.
        let hash = head.header.hash;
        peer.alive = now;
        let asked = peer.answered(hash, slot, now, self.options.stall_timeout);
        if asked == Asked::ForPast || self.past.is_wanted(hash, context.chain) {
            return self.past_block(&head, body, context);
        }
        let is_in_vain = self.rejected.contains(hash) || self.rejected.contains(head.header.parent);
        let is_linked = context.chain.find(head.header.parent).is_some();
        let is_known = context.chain.find(hash).is_some();
        if asked == Asked::ForSlots {
            peer.highest = peer.highest.max(slot);
            if is_linked || is_known {
                peer.strayed = peer.strayed.filter(|&(strayed, _)| strayed > slot);
                peer.linked = slot;
            } else {
                peer.strayed = peer.strayed.max(Some((slot, hash)));
                peer.strays = peer.strays.saturating_add(1);
            }
        }
        let step = Step { header: head.header, slot, server: id, body };
        let Some(step) = self.is_on_the_way(step) else { return };
        if is_linked || is_known || asked != Asked::Never {
            self.offer(step, context);
        } else if let Some(peer) = self.peers.get_mut(&id) {
            // Who has it has more than we.
            peer.has_news |= !is_in_vain;
        }
        if is_in_vain && asked == Asked::ForSlots {
            // What follows in its answer builds on it.
            self.is_strange(now, Some(id));
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.give_up();
                peer.has_told = true;
                peer.ended = peer.ended.max(Some(peer.claimed));
            }
            self.failed(now, id, Fault::BadRange);
        }
    }

    /// A block of the tree came from this peer, and the scheduler has it.
    pub(super) fn passes(&mut self, now: Instant, id: PeerId, hash: BlockHash, chain: &dyn Chain) {
        let (Some(peer), Some(slot)) = (self.peers.get_mut(&id), chain.slot(hash)) else { return };
        peer.passes(slot, now);
    }

    /// Offers a block to the chain, and then those that waited for it.
    pub(super) fn offer(&mut self, step: Step, context: &mut FlowContext<'_>) {
        let mut next = vec![step];
        while let Some(step) = next.pop() {
            let (hash, parent, server) = (step.header.hash, step.header.parent, step.server);
            if context.chain.find(hash).is_some() {
                self.shows(server, hash, step.slot, false);
                continue;
            }
            if self.rejected.contains(hash) || self.rejected.contains(parent) {
                self.reject(hash);
                continue;
            }
            if context.chain.find(parent).is_none() {
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
                // Who brings such a block need not follow it: it may have been asked for what others follow.
                Err(RefusedHeaders::TooDeep(_)) => self.reject(hash),
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
        if let (Some(body), Some(id), true) = (step.body, chain.find(hash), is_new) {
            self.outputs.push_back(FlowOutput::Body(body.into_block(id.height)));
        }
        self.shows(step.server, hash, step.slot, is_new);
        true
    }

    /// The peer has this block of the tree.
    fn shows(&mut self, id: PeerId, hash: BlockHash, slot: u64, is_new: bool) {
        self.anchor = Anchor::Fast;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if is_new {
            (peer.was_useful, peer.unlinked, peer.strays) = (true, 0, 0);
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
        peer.alive = now;
        let Some(question) = peer.ends() else { return };
        match question.what {
            What::Lead { .. } | What::Look { .. } => self.slots_end(now, id, &question),
            // Else what it brought is seen from what is wanted next.
            What::Ancestors(of) if question.came == 0 && !question.is_denied => {
                let walk = self.walk.as_mut();
                if let Some(walk) = walk.filter(|walk| walk.lowest().is_some_and(|(at, _)| at == of)) {
                    walk.denies(id);
                }
            }
            What::Ancestors(_) | What::Block(_) | What::Past => {}
        }
    }

    /// The dialect can't ask this, or not now.
    pub(super) fn unsupported(&mut self, now: Instant, id: PeerId, want: &Want) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match want {
            Want::Ancestors { .. } => {
                peer.knows_ancestors = false;
                peer.refuses();
                // It can be asked by hash.
                self.untry(id);
            }
            Want::SlotRange { .. } => {
                peer.refuses();
                (peer.ended, peer.has_told) = (Some(u64::MAX), true);
                peer.rests_until = now + self.options.stall_timeout;
                peer.deaf_until = now + super::MAX_REST;
            }
            Want::Blocks(blocks) => peer.denies(blocks),
            _ => {}
        }
    }
}
