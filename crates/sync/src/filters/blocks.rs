//! Blocks that are needed: those that match, and those that tell whose filter is right.

use std::{collections::BTreeSet, time::Instant};

use tipward_peer::{
    PeerId,
    wire::{BlockEnd, BlockHash, BlockPart, FilterHash},
};

use super::{
    Filters, Kind, State, Wanted,
    peers::{Arriving, What},
};
use crate::{Block, BlockId, Fault, scheduler::unpin};

/// How large a block is thought to be before its size is known, in bytes.
pub(super) const USUAL_SIZE: u64 = 2 << 20;

impl Filters {
    /// Finds out which blocks are needed.
    pub(super) fn want_blocks(&mut self) {
        let mut needed = BTreeSet::new();
        for batch in self.batches.values() {
            for (height, slot) in (batch.start..).zip(&batch.slots) {
                if matches!(
                    slot.state,
                    State::Disputed(_) | State::Undecided | State::There { matches: true, .. }
                ) {
                    needed.insert(BlockId { height, hash: slot.block });
                }
            }
        }
        self.blocks.retain(|_, wanted| needed.contains(&wanted.id));
        for id in needed {
            self.blocks.entry(id.height).or_insert_with(|| Wanted::new(id));
        }
    }

    /// The blocks that are under way, but the first if it is slow to come.
    pub(super) fn asked_blocks(&self, now: Instant) -> impl Iterator<Item = BlockHash> {
        let front = self.blocks.keys().next().copied();
        self.peers.values().flat_map(|peer| &peer.tasks).filter_map(move |task| match task.what {
            What::Block { height, hash } => {
                let is_slow = task.slow_at(self.options.stall_timeout) <= now;
                (!is_slow || Some(height) != front).then_some(hash)
            }
            What::Hashes { .. } | What::Filters(_) => None,
        })
    }

    pub(super) fn part(&mut self, now: Instant, id: PeerId, part: BlockPart) {
        let front = self.blocks.keys().next().copied();
        let room = self.options.byte_budget.saturating_sub(self.buffered);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.sends_block(now);
        if part.index == 0 {
            peer.arriving = None;
            let asked = peer.tasks.iter().find_map(|task| match task.what {
                What::Block { height, hash } if hash == part.block => Some(height),
                _ => None,
            });
            let Some(height) = asked else { return };
            if Some(height) != front && part.block_size > room {
                // It is asked for again in its turn.
                peer.tasks.retain(|task| task.what != What::Block { height, hash: part.block });
                self.is_stale = true;
                if let Some(wanted) = self.blocks.get_mut(&height) {
                    wanted.size = part.block_size;
                }
                return;
            }
            let (hash, download) = (part.block, part.download);
            peer.arriving = Some(Arriving { height, hash, download, parts: Vec::new(), bytes: 0 });
            self.buffered += part.block_size;
        }
        if let Some(arriving) = peer.arriving.as_mut().filter(|it| it.download == part.download) {
            arriving.bytes += part.bytes.len() as u64;
            arriving.parts.push(part);
        }
    }

    pub(super) fn block_end(&mut self, now: Instant, id: PeerId, end: &BlockEnd) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(mut arriving) = peer.arriving.take_if(|it| it.download == end.download) else { return };
        if arriving.parts.len() as u64 != u64::from(end.parts) {
            return self.drop_peer(now, id, Fault::BrokenParts);
        }
        peer.tasks.retain(|task| !matches!(task.what, What::Block { hash, .. } if hash == end.block));
        peer.brought(Kind::Blocks, true, now);
        (peer.blocks, peer.bytes) = (peer.blocks + 1, peer.bytes + end.size);
        self.is_stale = true;
        unpin(&mut arriving.parts);
        let Arriving { height, hash, parts, .. } = arriving;
        if let Some(wanted) = self.blocks.get_mut(&height).filter(|wanted| wanted.id.hash == hash) {
            wanted.block.get_or_insert(Block {
                id: wanted.id,
                parts,
                transactions: end.transactions,
                size: end.size,
                served_by: Some(id),
                is_streamed: false,
            });
        }
    }

    /// A peer does not bring these blocks.
    pub(super) fn no_block(&mut self, now: Instant, id: PeerId, blocks: &[BlockHash]) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.arriving.take_if(|it| blocks.contains(&it.hash));
        peer.tasks.retain(|task| !matches!(&task.what, What::Block { hash, .. } if blocks.contains(hash)));
        peer.rest(Kind::Blocks, self.options.stall_timeout, now);
        self.is_stale = true;
    }

    /// Lets the blocks tell whose filter is right, where block and filters have come.
    pub(super) fn judge_disputes(&mut self, now: Instant) {
        let disputed: Vec<(u64, u64)> = self
            .batches
            .values()
            .flat_map(|batch| {
                let is_disputed =
                    |(_, slot): &(u64, &super::batch::Slot)| matches!(slot.state, State::Disputed(_));
                (batch.start..).zip(&batch.slots).filter(is_disputed).map(|(height, _)| (batch.start, height))
            })
            .collect();
        for (start, height) in disputed {
            self.judge(now, start, height);
        }
    }

    fn judge(&mut self, now: Instant, start: u64, height: u64) {
        let Some(slot) = self.batches.get_mut(&start).and_then(|batch| batch.slot(height)) else { return };
        // What was found out about another block may have ended this dispute.
        let State::Disputed(filters) = &slot.state else { return };
        let Some(wanted) = self.blocks.get_mut(&height) else { return };
        let Wanted { block: Some(block), cleared, .. } = wanted else { return };
        let mut refuted: Vec<(FilterHash, String)> = Vec::new();
        for (hash, filter) in filters {
            // Costly, and what was found once stays so.
            let Some(filter) = filter.as_ref().filter(|_| !cleared.contains(hash)) else { continue };
            match self.rules.refute(filter, block) {
                Some(reason) => refuted.push((*hash, reason)),
                None => _ = cleared.insert(*hash),
            }
        }
        let is_whole = filters.values().all(Option::is_some);
        if refuted.is_empty() {
            if is_whole {
                tracing::warn!(height, block = %slot.block, "peers differ over a filter, and the block does not tell who is right");
                slot.state = State::Undecided;
                self.figures.undecided += 1;
            }
            return;
        }
        let id = block.id;
        for (hash, reason) in refuted {
            self.malformed(now, start, id, hash, &reason);
        }
    }
}
