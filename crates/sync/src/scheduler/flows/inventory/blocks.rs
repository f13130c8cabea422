//! Blocks: asked for as there is room, offered to the chain in order, kept while their parents are missing.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    error::Error,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use tipward_peer::{PeerId, Want, wire::BlockHash};

use super::{
    Fault, InventoryFlow, Kept,
    line::{Line, MAX_HUNCHES},
    peer::{InventoryPeer, Next},
    requests::{Chosen, Reason},
};
use crate::{
    BlockHead, Chain, Orphan, RefusedHeaders,
    scheduler::flow::{Arrived, FlowContext, FlowOutput},
};

/// A block does not start with what its hash promises.
#[derive(Debug, thiserror::Error)]
#[error("what it starts with is not what its hash stands for, or fails the checks that need no other block")]
struct UnreadableHead;

impl InventoryFlow {
    /// Asks for wanted blocks in their order, each of the peer that should bring it first.
    pub(super) fn ask_blocks(&mut self, now: Instant, context: &FlowContext<'_>) {
        // Several at a time.
        let has_turn = |(id, peer): (&PeerId, &InventoryPeer)| {
            let can = peer.can_be_asked(now) && self.requests.load(*id) <= peer.quota / 2;
            can.then_some(*id)
        };
        let able: BTreeSet<PeerId> = self.peers.iter().filter_map(has_turn).collect();
        let most = self.room(context);
        if able.is_empty() || most == 0 {
            return;
        }
        let (chain, rejected, peers, height) =
            (&*context.chain, &self.rejected, &self.peers, self.tip.height);
        let is_moot = |hash| chain.fork_point(hash).is_some() || rejected.contains(hash);
        let usual = peers.values().filter_map(|peer| peer.pace).min_by(f64::total_cmp).unwrap_or(1.0);
        let whom = |lines: &BTreeMap<PeerId, Line>, sources: &[PeerId], tried: &[PeerId]| {
            let can = |id: &PeerId| peers.get(id).is_some_and(|peer| peer.can_be_asked(now));
            let may_guess = !sources.iter().any(|source| can(source) && !tried.contains(source));
            let choice = able.iter().filter(|id| !tried.contains(id)).filter_map(|&id| {
                let (peer, line) = (peers.get(&id)?, lines.get(&id)?);
                let is_hunch = !sources.contains(&id);
                let is_likely = peer.claimed > height && peer.serves_above(height);
                let may_have =
                    (peer.is_proven || line.open_hunches < MAX_HUNCHES) && peer.guesses_from <= now;
                if line.asked.len() >= peer.quota || is_hunch && !(may_have && (is_likely || may_guess)) {
                    return None;
                }
                let takes = peer.pace.unwrap_or(usual) * (line.asked.len() + 1) as f64;
                Some((is_hunch && !is_likely, takes, Chosen { peer: id, is_hunch }))
            });
            let is_better =
                |a: &(bool, f64, Chosen), b: &(bool, f64, Chosen)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
            choice.min_by(is_better).map(|(.., chosen)| chosen)
        };
        let asks = self.requests.take(now, most, &able, is_moot, whom);
        for (id, blocks) in asks {
            let was_idle = self.requests.load(id) == blocks.len();
            if let Some(peer) = self.peers.get_mut(&id).filter(|_| was_idle) {
                peer.alive = now;
            }
            self.outputs.push_back(FlowOutput::Ask(id, Want::Blocks(blocks)));
        }
    }

    /// How many more blocks may be asked for.
    fn room(&self, context: &FlowContext<'_>) -> usize {
        let asked = self.requests.asked();
        let free = context.room.saturating_sub(self.taken.count);
        let free_bytes = context
            .byte_room
            .saturating_sub(self.taken.bytes)
            .saturating_sub(self.pool.bytes().saturating_sub(self.taken.orphan_bytes));
        let count = free.saturating_sub(asked + self.pool.len());
        // What comes before its parents has to have a place in the pool.
        let free_bytes = free_bytes.min(self.pool.free_bytes());
        let count = count.min(self.blocks_in(free_bytes).saturating_sub(asked));
        // One always may, or what has room would wait for ever for what is missing.
        if asked == 0 && free > 0 { count.max(1) } else { count }
    }

    fn blocks_in(&self, bytes: u64) -> usize {
        usize::try_from(bytes / self.average_size.max(1)).unwrap_or(usize::MAX)
    }

    /// A whole block came.
    pub(super) fn block(&mut self, now: Instant, block: Arrived, chain: &mut dyn Chain) {
        self.average_size = (self.average_size * 7 + block.size) / 8;
        let head = chain.read_head(block.start());
        self.came(now, block.served_by, block.hash, (head, Some(block)), chain);
    }

    /// A block came, with what it says at its start, and its body unless there is no room for that.
    pub(super) fn came(
        &mut self,
        now: Instant,
        id: PeerId,
        hash: BlockHash,
        (head, body): (Option<BlockHead>, Option<Arrived>),
        chain: &mut dyn Chain,
    ) {
        let (took, passed_over) = self.requests.landed(now, id, hash);
        self.pass_on(now, passed_over);
        let head = head.filter(|head| head.header.hash == hash);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.alive = now;
            // Also if another brought it meanwhile, but not with a block that is none.
            if head.is_some() {
                peer.brought(self.options.stall_timeout, self.options.max_in_flight, took);
            }
        }
        if chain.fork_point(hash).is_some() {
            self.requests.done(hash);
            self.shows(id, hash, chain);
            // Its branch may have won meanwhile. Its bytes are those that the hash stands for only if its start says so.
            if head.is_some() {
                self.pass(body, chain);
            }
            return;
        }
        if self.rejected.contains(hash) || self.pool.contains(hash) {
            return; // A second copy, or one that nobody wants any more.
        }
        if !self.requests.contains(hash) {
            // Nobody asked for it, and who sends it says that it has it.
            return self.announced(now, id, &[hash], chain);
        }
        let Some(head) = head else { return self.unreadable(now, id, hash) };
        if head.parents.iter().any(|parent| self.rejected.contains(*parent)) {
            return self.reject(hash);
        }
        let mut missing = head.parents.clone();
        missing.retain(|parent| chain.fork_point(*parent).is_none());
        if missing.is_empty() {
            self.accept(now, Kept { hash, header: head.header, served_by: id, body }, chain);
        } else {
            self.orphan(now, Kept { hash, header: head.header, served_by: id, body }, missing);
        }
    }

    /// Not what was asked for, whoever made it so: the true block is asked of another.
    fn unreadable(&mut self, now: Instant, id: PeerId, block: BlockHash) {
        let fault = Fault::InvalidBlock { block, reason: Arc::new(UnreadableHead) };
        if let Some(peer) = self.peers.get_mut(&id) {
            self.outputs.push_back(FlowOutput::Penalise(id, fault));
            peer.strikes += 1;
            if peer.strikes >= self.options.max_strikes {
                let reason: Arc<dyn Error + Send + Sync> = Arc::new(UnreadableHead);
                return self.drop_peer(now, id, Fault::InvalidBlock { block, reason });
            }
        }
        self.return_to_queue(now, id, &[block]);
    }

    /// Offers a block to the chain, all parents of which are in the tree, and then what waited for it.
    fn accept(&mut self, now: Instant, first: Kept, chain: &mut dyn Chain) {
        let mut ready = VecDeque::from([first]);
        while let Some(Kept { hash, header, served_by: id, body }) = ready.pop_front() {
            match chain.accept(std::slice::from_ref(&header)) {
                Ok(accepted) => {
                    self.requests.done(hash);
                    self.grown = Some(now);
                    self.taken.count += 1;
                    self.taken.bytes += body.as_ref().map_or(0, |body| body.size);
                    self.outputs.push_back(FlowOutput::Accepted(accepted));
                    self.shows(id, hash, chain);
                    self.pass(body, chain);
                    ready.extend(self.pool.take_ready(hash).into_iter().map(|orphan| orphan.payload));
                }
                // The chain knows its parents and does not take it all the same, for now.
                Err(RefusedHeaders::UnknownParent { .. }) => {
                    self.want(hash, id, Reason::Listed);
                    self.requests.put_off(now, hash);
                }
                Err(RefusedHeaders::Invalid(reason) | RefusedHeaders::TooDeep(reason)) => {
                    self.reject(hash);
                    self.drop_peer(now, id, Fault::InvalidBlock { block: hash, reason });
                }
                Err(RefusedHeaders::Store(reason)) => {
                    self.has_failed = true;
                    self.outputs.push_back(FlowOutput::Failed(reason));
                    return;
                }
            }
        }
    }

    /// Passes a block on, if it is on the best chain. The scheduler asks again for one whose branch wins later.
    fn pass(&mut self, body: Option<Arrived>, chain: &dyn Chain) {
        let Some(block) = body else { return };
        if let Some(point) = chain.fork_point(block.hash).filter(|point| point.hash == block.hash) {
            self.outputs.push_back(FlowOutput::Body(block.into_block(point.height)));
        }
    }

    /// A block breaks a rule, or an ancestor of it does.
    fn reject(&mut self, hash: BlockHash) {
        self.rejected.add(hash);
        self.requests.done(hash);
        for orphan in self.pool.remove_subtree(hash) {
            self.requests.done(orphan.hash);
            self.rejected.add(orphan.hash);
        }
    }

    /// Keeps a block until its parents are there, and asks for them. The second of a chain of orphans shows that more than one
    /// block is missing: the peer is asked for the list that leads there, which brings them in order, and only if nothing comes
    /// of that it is gone back further.
    fn orphan(&mut self, now: Instant, mut payload: Kept, missing: Vec<BlockHash>) {
        let (id, hash) = (payload.served_by, payload.hash);
        let is_awaited = self.pool.is_awaited(hash);
        // The scheduler gets it again. Another orphan's place would have to be found again.
        let room = self.pool.free_bytes();
        payload.body.take_if(|body| body.size > room);
        let bytes = payload.body.as_ref().map_or(0, |body| body.size);
        if payload.body.is_none() {
            // Not a part of what is dropped.
            payload.header.raw = Bytes::copy_from_slice(&payload.header.raw);
        }
        let orphan = Orphan { hash, parents: missing.clone(), peer: id, bytes, payload };
        match self.pool.insert(now, orphan) {
            Ok(evicted) => {
                self.requests.keep(hash);
                for orphan in evicted {
                    // Wanted still, but not at once, or the pool would turn over and over.
                    self.want(orphan.hash, orphan.peer, Reason::Listed);
                    self.requests.put_off(now, orphan.hash);
                }
            }
            Err(_) => self.requests.put_off(now, hash),
        }
        if is_awaited && let Some(peer) = self.peers.get_mut(&id) {
            if peer.question.is_none_or(|question| question.stop == BlockHash::ZERO)
                && matches!(peer.next, Next::Nothing | Next::FromTip)
            {
                peer.next = Next::To(hash);
            }
            return;
        }
        let mut ancestors = self.pool.missing_ancestors(hash);
        ancestors.extend(missing.into_iter().filter(|parent| !self.pool.contains(*parent)));
        for parent in ancestors {
            self.want(parent, id, Reason::Awaited);
        }
    }

    /// This peer has said that it has a block, which is wanted; or it is guessed that others have it, if it is gone.
    fn want(&mut self, hash: BlockHash, id: PeerId, reason: Reason) {
        let peers = &self.peers;
        if peers.contains_key(&id) {
            self.requests.announce(hash, id, reason);
        } else if let Some(&other) = peers.keys().next() {
            self.requests.guess(hash, other);
        }
    }

    /// Orphans wait, and nothing is on its way that they wait for.
    pub(super) fn want_missing(&mut self) {
        if self.pool.is_empty() || !self.requests.is_idle() {
            return;
        }
        let missing: Vec<(BlockHash, PeerId)> = self
            .pool
            .missing()
            .filter(|hash| !self.requests.contains(*hash))
            .filter_map(|hash| self.pool.children(hash).next().map(|child| (hash, child.peer)))
            .take(self.options.batch)
            .collect();
        for (hash, id) in missing {
            self.want(hash, id, Reason::Awaited);
        }
    }
}
