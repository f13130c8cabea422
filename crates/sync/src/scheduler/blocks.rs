//! Blocks: whom to ask, when to ask somebody else, and in which order to hand them on.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tipward_peer::{
    PeerId, Want,
    wire::{BlockEnd, BlockHash, BlockPart},
};

use super::{Fault, Frontier, Output, Scheduler};
use crate::{Block, BlockId, Chain, Event};

/// How many blocks the sink may have been given and not applied.
pub(crate) const MAX_UNAPPLIED: usize = 256;
/// The longest that a peer may bring nothing.
const MAX_PATIENCE: Duration = Duration::from_secs(64);
/// Of how many peers the first block of the window is asked at most.
const MAX_ASKERS: usize = 3;

impl Scheduler {
    /// Makes the window agree with the best chain, and finds out whether the sink has to go back.
    pub(super) fn realign(&mut self, chain: &dyn Chain) {
        let point = match self.sent {
            None => None,
            Some(sent) => match chain.fork_point(sent.hash) {
                Some(point) => Some(point),
                // Its headers have not come yet.
                None => return,
            },
        };
        self.rollback = point.filter(|_| point != self.sent);
        let base = point.map_or(0, |point| point.height + 1);
        self.window.realign(base, |height| chain.best_at(height));
    }

    /// Extends the window along the best chain.
    pub(super) fn fill(&mut self, chain: &dyn Chain) {
        if self.window.len() == 0 {
            self.realign(chain);
        }
        if self.sent.is_some_and(|sent| chain.fork_point(sent.hash).is_none()) {
            return;
        }
        let top = chain.tip().height.min(self.options.stop_at.unwrap_or(u64::MAX));
        while self.window.len() + self.unapplied.len() < self.options.window && self.window.end() <= top {
            let height = self.window.end();
            let Some(hash) = chain.best_at(height) else { return };
            self.window.push(hash, chain.local_block(BlockId { height, hash }));
        }
    }

    /// Hands the sink what is due.
    pub(super) fn deliver(&mut self, now: Instant) {
        while self.unapplied.len() < MAX_UNAPPLIED && self.unapplied_bytes <= self.options.byte_budget / 2 {
            let Some(block) = self.window.pop() else { break };
            // Not before a block of the new branch is there: a branch of which nobody has blocks must not undo anything.
            if let (Some(common), Some(old_tip)) = (self.rollback.take(), self.sent) {
                self.outputs.push_back(Output::Event(Event::Reorg { old_tip, common }));
                self.unapplied.push_back((common, 0));
                self.outputs.push_back(Output::Rollback(common));
            }
            self.sent = Some(block.id);
            self.unapplied.push_back((block.id, block.size));
            self.unapplied_bytes += block.size;
            self.outputs.push_back(Output::Apply(block));
        }
        if self.frontier.is_none_or(|frontier| frontier.height != self.window.base()) {
            self.frontier = Some(Frontier { height: self.window.base(), since: now });
        }
    }

    /// Asks the peers for what is wanted, each in its turn so that the next blocks come from many.
    pub(super) fn assign(&mut self, now: Instant) {
        let limit = self.options.max_in_flight;
        // A peer is asked when half of its requests are served, for several blocks at a time.
        let mut able: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.load() <= limit / 2 && peer.rests_until <= now)
            .map(|(&id, _)| id)
            .collect();
        if !able.is_empty() {
            let shift = self.turn as usize % able.len();
            able.rotate_left(shift);
        }
        let in_flight: usize = self.peers.values().map(|peer| peer.in_flight.len()).sum();
        let mut expected = self.buffered_bytes() + in_flight as u64 * self.average_size;
        let mut asks: BTreeMap<PeerId, Vec<BlockHash>> = BTreeMap::new();
        let mut asks_front = false;
        while self.window.has_wanted() && !able.is_empty() {
            able.retain(|&id| {
                let Some(peer) = self.peers.get_mut(&id) else { return false };
                let wanted = self.window.first_wanted(peer.serves());
                let is_due = |height| expected < self.options.byte_budget || height == self.window.base();
                let Some((height, hash)) = wanted.filter(|&(height, _)| is_due(height)) else { return false };
                if peer.in_flight.is_empty() {
                    peer.progress = now;
                }
                peer.in_flight.insert(hash);
                asks_front |= height == self.window.base();
                self.window.ask(hash, id);
                asks.entry(id).or_default().push(hash);
                expected += self.average_size;
                peer.load() < limit
            });
        }
        if asks_front {
            // Its time counts from here, however long it was the next one.
            self.frontier = Some(Frontier { height: self.window.base(), since: now });
        }
        self.turn += asks.len() as u64;
        for (id, blocks) in asks {
            self.outputs.push_back(Output::Ask(id, Want::Blocks(blocks)));
        }
    }

    /// Asks one more peer for the block that everything waits for, if it has been long in coming.
    pub(super) fn ask_a_second(&mut self, now: Instant) {
        if self.second_ask_at().is_none_or(|at| at > now) {
            return;
        }
        let Some((hash, asked)) = self.window.overdue_front() else { return };
        let base = self.window.base();
        let can_serve = |(id, peer): &(&PeerId, &super::PeerState)| {
            peer.rests_until <= now && !asked.contains(id) && peer.serves().contains(&base)
        };
        // The one with the least to do.
        let best = self.peers.iter().filter(can_serve).min_by_key(|(id, peer)| (peer.load(), **id));
        let Some((&id, _)) = best else { return };
        self.window.ask(hash, id);
        if let Some(peer) = self.peers.get_mut(&id) {
            if peer.in_flight.is_empty() {
                peer.progress = now;
            }
            peer.in_flight.insert(hash);
        }
        self.outputs.push_back(Output::Ask(id, Want::Blocks(vec![hash])));
    }

    /// When the first block of the window is to be asked of one more peer.
    pub(super) fn second_ask_at(&self) -> Option<Instant> {
        let (_, asked) = self.window.overdue_front()?;
        let frontier = self.frontier.filter(|_| asked.len() < MAX_ASKERS)?;
        Some(frontier.since + self.options.stall_timeout * asked.len() as u32)
    }

    /// Takes the requests back from peers that bring nothing.
    pub(super) fn check_stalls(&mut self, now: Instant) {
        let stalled: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.in_flight.is_empty() && peer.progress + peer.patience <= now)
            .map(|(&id, _)| id)
            .collect();
        for id in stalled {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            peer.late += peer.in_flight.len();
            for hash in std::mem::take(&mut peer.in_flight) {
                self.window.give_back(hash, id);
            }
            peer.stalls += 1;
            peer.rests_until = now + peer.patience;
            peer.patience = (peer.patience * 2).min(MAX_PATIENCE);
            tracing::debug!(%id, stalls = peer.stalls, "stalled");
            if peer.stalls >= self.options.max_strikes {
                self.drop_peer(id, Fault::Stalled);
            }
        }
    }

    pub(super) fn part(&mut self, now: Instant, id: PeerId, part: BlockPart) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.progress = now;
        if part.index == 0 {
            peer.parts.clear();
        }
        // The rest of a block that was not needed any more when it began.
        if self.window.missing(part.block).is_none() {
            peer.parts.clear();
            return;
        }
        let follows = peer
            .parts
            .last()
            .map_or(part.index == 0, |last| last.download == part.download && last.index + 1 == part.index);
        if follows {
            peer.parts.push(part);
        } else if part.index != 0 && !peer.parts.is_empty() {
            self.drop_peer(id, Fault::BrokenParts);
        }
    }

    pub(super) fn block_end(&mut self, now: Instant, id: PeerId, end: &BlockEnd) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.progress = now;
        peer.rests_until = now;
        peer.stalls = 0;
        peer.patience = self.options.stall_timeout;
        // Nodes answer in the order of the requests: after a later one, those that were taken back will not come.
        peer.late = if peer.in_flight.remove(&end.block) { 0 } else { peer.late.saturating_sub(1) };
        let parts = std::mem::take(&mut peer.parts);
        self.average_size = (self.average_size * 7 + end.size) / 8;
        let Some(height) = self.window.missing(end.block) else { return };
        if parts.len() != end.parts as usize {
            // Parts were dropped while the block was not in the window; it will be asked for again.
            return self.window.give_back(end.block, id);
        }
        self.window.complete(Block {
            id: BlockId { height, hash: end.block },
            parts,
            transactions: end.transactions,
            size: end.size,
            served_by: Some(id),
            is_streamed: false,
        });
    }

    /// A peer does not have these blocks.
    pub(super) fn missing(&mut self, id: PeerId, blocks: &[BlockHash]) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        for hash in blocks {
            if peer.in_flight.remove(hash) {
                self.window.give_back(*hash, id);
                if let Some(height) = self.window.missing(*hash) {
                    peer.reach = Some((*peer.serves().end()).min(height.saturating_sub(1)));
                }
            }
        }
    }
}
