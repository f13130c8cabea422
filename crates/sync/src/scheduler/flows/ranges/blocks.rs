//! What becomes of a block that comes.

use std::{collections::BTreeMap, time::Instant};

use tipward_peer::PeerId;

use super::{
    MAX_PATIENCE, RangeFlow, Skip,
    kept::KeptBlock,
    peer::{Answer, Purpose, RangePeer, back_off},
};
use crate::{
    BlockHead, BlockId, Chain, RefusedHeaders,
    scheduler::{
        Fault,
        flow::{Arrived, FlowContext, FlowOutput},
    },
};

impl RangeFlow {
    pub(super) fn block(&mut self, now: Instant, block: Arrived, context: &mut FlowContext<'_>) {
        self.average_size = (self.average_size * 7 + block.size) / 8;
        let head = context.chain.read_head(block.start()).filter(|head| head.header.hash == block.hash);
        // What can't be read is no answer: the time-out sees to it.
        let Some(head) = head else { return };
        let Some(height) = head.index else { return };
        let server = block.served_by;
        self.arrived(now, KeptBlock { header: head.header, height, server, body: Some(block) }, context);
    }

    /// A block without its body. Its header holds its place.
    pub(super) fn head(
        &mut self,
        now: Instant,
        server: PeerId,
        head: BlockHead,
        context: &mut FlowContext<'_>,
    ) {
        let Some(height) = head.index else { return };
        self.arrived(now, KeptBlock { header: head.header, height, server, body: None }, context);
    }

    fn arrived(&mut self, now: Instant, block: KeptBlock, context: &mut FlowContext<'_>) {
        let (id, height, hash) = (block.server, block.height, block.header.hash);
        let Some(peer) = self.peers.get_mut(&id) else { return }; // Dropped by us.
        peer.alive = now;
        let answer = peer.answered(height, now);
        let was_asked_for = answer.is_some();
        let is_probe = answer.as_ref().is_some_and(|answer| answer.purpose == Some(Purpose::Probe));
        if let Some(Answer { purpose, skipped, has_more }) = answer {
            peer.strikes = 0;
            // A rest that was over long ago does not end now.
            peer.rests_until = peer.rests_until.min(now);
            if purpose.is_some() {
                peer.patience = self.options.stall_timeout;
            }
            peer.poll_at = if has_more { now } else { now + self.options.poll_interval };
            skipped.into_iter().flatten().for_each(|height| self.skipped(now, id, height));
        }
        if context.chain.fork_point(hash).is_some() {
            if is_probe {
                self.probe_known(id, BlockId { height, hash });
            } else {
                self.shows(id, BlockId { height, hash }, context.chain);
            }
        } else if context.chain.fork_point(block.header.parent).is_some() {
            self.accept(now, block, is_probe.then_some(id), context);
        } else if was_asked_for {
            if self.peers.get(&id).is_some_and(RangePeer::is_on_our_chain) {
                self.kept.keep(block, self.options.window.min(context.room), context.byte_room);
            }
            if height <= self.tip.height + 1 {
                self.strayed(id, height, is_probe);
            }
        }
    }

    /// Offers a block whose parent is in the tree to the chain, and then those that waited for it.
    fn accept(
        &mut self,
        now: Instant,
        block: KeptBlock,
        prober: Option<PeerId>,
        context: &mut FlowContext<'_>,
    ) {
        let mut next = vec![block];
        let mut shown: BTreeMap<PeerId, BlockId> = BTreeMap::new();
        while let Some(block) = next.pop() {
            let KeptBlock { ref header, height, server, .. } = block;
            let hash = header.hash;
            match context.chain.accept(std::slice::from_ref(header)) {
                Ok(accepted) => {
                    let is_taken = accepted.last == Some(hash);
                    let is_new = accepted.added > 0;
                    self.outputs.push_back(FlowOutput::Accepted(accepted));
                    if !is_taken {
                        self.not_taken(now, server);
                        continue;
                    }
                    if is_new && let Some(peer) = self.peers.get_mut(&server) {
                        peer.probes = 0;
                    }
                    if let Some(body) = block.body.filter(|_| is_new) {
                        self.outputs.push_back(FlowOutput::Body(body.into_block(height)));
                    }
                    shown.insert(server, BlockId { height, hash });
                    // The same from somebody else.
                    for kept in self.kept.take(height, height, |kept| kept.header.hash == hash) {
                        shown.insert(kept.server, BlockId { height, hash });
                    }
                    next.extend(self.kept.take_children(height + 1, hash));
                }
                Err(reason) => self.refused(block, reason, context),
            }
            if self.has_failed {
                return;
            }
        }
        let old = std::mem::replace(&mut self.tip, context.chain.tip());
        self.skips.retain(|&height, _| height > self.tip.height);
        for (id, block) in shown {
            if prober == Some(id) {
                self.probe_linked(id, block);
            } else {
                self.shows(id, block, context.chain);
            }
        }
        self.look_for_strays(old);
    }

    /// The chain refuses a block whose turn had come.
    fn refused(&mut self, block: KeptBlock, reason: RefusedHeaders, context: &FlowContext<'_>) {
        match reason {
            // It is not lost: it waits for its parent like others.
            RefusedHeaders::UnknownParent { .. } => {
                self.kept.keep(block, self.options.window.min(context.room), context.byte_room);
            }
            RefusedHeaders::Invalid(reason) | RefusedHeaders::TooDeep(reason) => {
                let fault = Fault::InvalidBlock { block: block.header.hash, reason };
                self.drop_peer(block.server, fault);
            }
            RefusedHeaders::Store(reason) => {
                self.has_failed = true;
                self.outputs.push_back(FlowOutput::Failed(reason));
            }
        }
    }

    /// The chain has no room for a block, or no wish for it. Nobody's fault; not to be asked for at once again.
    fn not_taken(&mut self, now: Instant, server: PeerId) {
        if let Some(peer) = self.peers.get_mut(&server) {
            peer.rests_until = now + MAX_PATIENCE;
            peer.poll_at = peer.rests_until;
        }
    }

    /// The peer has this block of the tree.
    fn shows(&mut self, id: PeerId, block: BlockId, chain: &dyn Chain) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let is_current = |old: BlockId| chain.best_at(old.height) == Some(old.hash);
        if peer.shown.is_some_and(|old| old.height >= block.height && is_current(old)) {
            return;
        }
        if block.height > peer.shown_height() {
            peer.has_shown(block.height);
        }
        peer.shown = Some(block);
        self.outputs.push_back(FlowOutput::Shows(id, block.hash));
    }

    /// A peer has passed over this height, which it was asked for: somebody else is asked.
    pub(super) fn skipped(&mut self, now: Instant, id: PeerId, height: u64) {
        if height > self.tip.height {
            let skip = self.skips.entry(height).or_insert(Skip { by: Vec::new(), rounds: 0, again: now });
            if !skip.by.contains(&id) {
                skip.by.push(id);
            }
        }
    }

    /// Where nobody is left who has not passed a height over, all are asked again after a while.
    pub(super) fn renew_skips(&mut self, now: Instant) {
        let mut unshown = Vec::new();
        for (&height, skip) in &mut self.skips {
            skip.by.retain(|id| self.peers.contains_key(id));
            let is_left = |(id, peer): (&PeerId, &RangePeer)| peer.serves(height) && !skip.by.contains(id);
            if !skip.by.is_empty() && !self.peers.iter().any(is_left) {
                skip.again = now + back_off(self.options.stall_timeout, skip.rounds);
                skip.rounds += 1;
                let by = std::mem::take(&mut skip.by);
                if height == self.tip.height + 1 {
                    unshown = by; // They have it, they say: not to be waited for.
                }
            }
        }
        unshown.into_iter().for_each(|id| self.rest(now, id));
    }
}
