//! The chain of a coin whose blocks have slots, as the scheduler wants it: tree, rules and, below a trusted block, the past.
//!
//! It is kept in memory: whoever restarts offers the headers that it has kept again, in their order, before the sync starts.

use std::{error::Error, fmt, sync::Arc};

use tipward_sync::{
    Accepted, Block, BlockHead, BlockId, Chain, Past, RefusedHeaders, RejectedBlocks, Update,
    peer::wire::{BlockHash, Header},
};

use super::{
    DensityMode, DensityOptions, DensityTree, PastSink, SlotBlock, SlotCheckpoint, SlotError, SlotRules,
};
use crate::{Candidate, OfferError, Offered, Rejection, Rule};

/// How many rejected blocks are remembered, the last ones: who offers them, or a child of theirs, is at fault.
const MAX_REJECTED: usize = 16_384;

/// All blocks of a coin with slots: checked, and the best branch known.
#[derive(Debug)]
pub struct SlotChain {
    tree: DensityTree,
    rules: Box<dyn SlotRules>,
    genesis: Block,
    genesis_slot: u64,
    rejected: RejectedBlocks,
    past: Option<Below>,
}

/// Where the past of a trusted block ends so far.
struct Below {
    lowest: SlotBlock,
    header: Header,
    sink: PastSink,
}

impl fmt::Debug for Below {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Below").field("lowest", &self.lowest).finish_non_exhaustive()
    }
}

impl SlotChain {
    /// A chain that starts at genesis.
    #[must_use]
    pub fn new(genesis: Block, slot: u64, options: DensityOptions, rules: Box<dyn SlotRules>) -> Self {
        let tree = DensityTree::new(genesis.id.hash, slot, options);
        Self {
            tree,
            rules,
            genesis,
            genesis_slot: slot,
            rejected: RejectedBlocks::new(MAX_REJECTED),
            past: None,
        }
    }

    /// A chain that starts at a trusted block, and gets the past below it to the end. A sink starts with that block for its
    /// cursor.
    ///
    /// # Errors
    /// The block's header breaks a rule, or it should be genesis, or its child, and is not.
    pub fn above(
        checkpoint: SlotCheckpoint,
        genesis: Block,
        slot: u64,
        options: DensityOptions,
        rules: Box<dyn SlotRules>,
    ) -> Result<Self, SlotError> {
        let SlotCheckpoint { height, header, past: sink } = checkpoint;
        let hash = header.hash;
        let mut chain = Self::new(genesis, slot, options, rules);
        let lowest = SlotBlock {
            id: BlockId { height, hash },
            slot: chain.rules.read(&header).map_err(SlotError::rule(hash))?,
        };
        if height == 0 && hash == chain.genesis.id.hash {
            return Ok(chain);
        }
        chain.end_of_past(lowest, header.parent)?;
        chain.tree = DensityTree::above(lowest.id, lowest.slot, options);
        chain.past = Some(Below { lowest, header, sink });
        Ok(chain)
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> &DensityTree {
        &self.tree
    }

    /// Follows the chain from now on, or falls behind again: see [`DensityTree::set_mode`]. The sync sets
    /// [`DensityMode::Online`] by itself when it has all that the peers have, if the rules allow that.
    pub fn set_mode(&mut self, mode: DensityMode) {
        let gone = self.tree.set_mode(mode);
        self.rules.forget(&gone);
    }

    fn give_up(&mut self, hash: BlockHash) -> Option<Rejection> {
        let rejection = self.tree.reject(hash)?;
        rejection.gone.iter().for_each(|hash| self.rejected.add(*hash));
        self.rules.forget(&rejection.gone);
        Some(rejection)
    }

    /// The slots of headers, each the child of the one before and the first of a block in the tree, up to the first whose time
    /// has not come; or which one is refused, and why.
    fn check(&mut self, headers: &[Header], parent: SlotBlock) -> Result<Vec<u64>, (usize, SlotError)> {
        let mut parent = parent;
        let mut slots = Vec::with_capacity(headers.len());
        for (at, header) in headers.iter().enumerate() {
            let failed = |error| (at, error);
            let slot = self.rules.read(header).map_err(SlotError::rule(header.hash)).map_err(failed)?;
            self.tree
                .admits(parent.id, parent.slot, header.hash, slot)
                .map_err(|error| failed(error.into()))?;
            if slot > self.rules.present() {
                break;
            }
            let checked = self.rules.check(header, slot, &parent);
            checked.map_err(SlotError::rule(header.hash)).map_err(failed)?;
            parent = SlotBlock { id: BlockId { height: parent.id.height + 1, hash: header.hash }, slot };
            slots.push(slot);
        }
        Ok(slots)
    }

    /// Puts checked headers into the tree. Returns how the best chain changed.
    fn put(&mut self, headers: &[Header], slots: Vec<u64>) -> Option<Update> {
        let mut changed: Option<Update> = None;
        for (header, slot) in headers.iter().zip(slots) {
            let block = Candidate { hash: header.hash, parent: header.parent, facts: slot };
            let Offered { update, pruned } = self.tree.offer(block).expect("its place was looked at");
            self.rules.forget(&pruned);
            changed = match (changed, update) {
                (Some(before), Some(update)) => {
                    let keep = before.keep.min(update.keep);
                    let append = (keep..).map_while(|height| self.tree.best_at(height)).collect();
                    Some(Update { keep, append })
                }
                (before, update) => before.or(update),
            };
        }
        changed
    }

    /// Whether a block may be where the past ends, or goes on below it: genesis is at height 0, and nowhere else.
    fn end_of_past(&self, block: SlotBlock, parent: BlockHash) -> Result<(), SlotError> {
        let SlotBlock { id: BlockId { height, hash }, slot } = block;
        let genesis = self.genesis.id.hash;
        if height == 0 || (height == 1) != (parent == genesis) {
            return Err(SlotError::OtherGenesis { hash, height, parent, genesis });
        }
        if slot <= self.genesis_slot {
            return Err(OfferError::Slot { hash, slot, parent: self.genesis_slot }.into());
        }
        Ok(())
    }

    /// Checks a block of the past: that the one above may build on it, and that it may have the place that it has.
    fn check_past(&mut self, header: &Header) -> Result<SlotBlock, SlotError> {
        let hash = header.hash;
        let slot = self.rules.read(header).map_err(SlotError::rule(hash))?;
        let Some(Below { lowest, header: above, .. }) =
            self.past.as_ref().filter(|past| past.header.parent == hash)
        else {
            return Err(SlotError::NotLinked { hash });
        };
        if lowest.slot <= slot {
            return Err(OfferError::Slot { hash: lowest.id.hash, slot: lowest.slot, parent: slot }.into());
        }
        let block = SlotBlock { id: BlockId { height: lowest.id.height - 1, hash }, slot };
        self.end_of_past(block, header.parent)?;
        let (above, upper) = (above.clone(), lowest.slot);
        self.rules.check(&above, upper, &block).map_err(SlotError::rule(above.hash))?;
        if block.id.height == 1 {
            let genesis = SlotBlock { id: self.genesis.id, slot: self.genesis_slot };
            self.rules.check(header, slot, &genesis).map_err(SlotError::rule(hash))?;
        }
        Ok(block)
    }
}

impl Chain for SlotChain {
    fn tip(&self) -> BlockId {
        self.tree.tip()
    }

    fn best_at(&self, height: u64) -> Option<BlockHash> {
        self.tree.best_at(height)
    }

    fn find(&self, hash: BlockHash) -> Option<BlockId> {
        self.tree.get(hash)
    }

    fn fork_point(&self, hash: BlockHash) -> Option<BlockId> {
        self.tree.fork_point(hash)
    }

    fn ancestor(&self, hash: BlockHash, height: u64) -> Option<BlockHash> {
        self.tree.ancestor(hash, height).map(|ancestor| ancestor.hash)
    }

    fn locator(&self, from: BlockHash) -> Vec<BlockHash> {
        self.tree.locator(from)
    }

    fn accept(&mut self, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        let invalid = |error: SlotError| match error {
            SlotError::Offer(OfferError::ImmutableFork { .. }) => RefusedHeaders::TooDeep(Arc::new(error)),
            _ => RefusedHeaders::Invalid(Arc::new(error)),
        };
        if let Some(pair) = headers.windows(2).find(|pair| pair[1].parent != pair[0].hash) {
            return Err(invalid(SlotError::NotLinked { hash: pair[1].hash }));
        }
        let known = headers.iter().take_while(|header| self.tree.get(header.hash).is_some()).count();
        let (known, new) = headers.split_at(known);
        let Some(first) = new.first() else {
            return Ok(Accepted { added: 0, last: known.last().map(|header| header.hash), update: None });
        };
        let is_rejected =
            |header: &Header| self.rejected.contains(header.hash) || self.rejected.contains(header.parent);
        if let Some(at) = new.iter().position(is_rejected) {
            new[at..].iter().for_each(|header| self.rejected.add(header.hash));
            return Err(invalid(SlotError::Rejected { hash: new[at].hash }));
        }
        let (Some(id), Some(slot)) = (self.tree.get(first.parent), self.tree.slot(first.parent)) else {
            return Err(RefusedHeaders::UnknownParent { parent: first.parent });
        };
        let slots = self.check(new, SlotBlock { id, slot }).map_err(|(at, error)| {
            let (checked, refused) = new.split_at(at);
            self.rules.forget(&checked.iter().map(|header| header.hash).collect::<Vec<_>>());
            refused.iter().for_each(|header| self.rejected.add(header.hash));
            invalid(error)
        })?;
        let last = new[..slots.len()].last().map_or(id.hash, |last| last.hash);
        Ok(Accepted { added: slots.len(), last: Some(last), update: self.put(new, slots) })
    }

    fn reject(
        &mut self,
        block: BlockHash,
        reason: &str,
    ) -> Result<Option<Update>, Arc<dyn Error + Send + Sync>> {
        match self.give_up(block) {
            Some(rejection) => Ok(rejection.update),
            None if self.rejected.contains(block) => Ok(None),
            None => Err(Arc::new(SlotError::Final { hash: block, reason: reason.to_owned() })),
        }
    }

    fn local_block(&self, id: BlockId) -> Option<Block> {
        (id == self.genesis.id).then(|| self.genesis.clone())
    }

    fn read_head(&self, start: &[u8]) -> Option<BlockHead> {
        self.rules.read_head(start)
    }

    fn irreversible(&self) -> u64 {
        self.tree.irreversible().height
    }

    fn slot(&self, hash: BlockHash) -> Option<u64> {
        self.tree.slot(hash)
    }

    fn wanted_past(&self) -> Option<Past> {
        let Below { lowest, header, .. } = self.past.as_ref()?;
        (lowest.id.height > 1).then_some(Past { of: lowest.id, parent: header.parent })
    }

    fn accept_past(&mut self, head: &BlockHead, block: Block) -> Result<(), RefusedHeaders> {
        let checked = self.check_past(&head.header);
        let lowest = checked.map_err(|error| RefusedHeaders::Invalid(Arc::new(error)))?;
        if let Some(past) = &mut self.past {
            (past.sink)(block).map_err(|error| RefusedHeaders::Store(Arc::from(error)))?;
            (past.lowest, past.header) = (lowest, head.header.clone());
        }
        Ok(())
    }

    fn caught_up(&mut self) {
        if self.tree.mode() == DensityMode::Bootstrapping && self.rules.may_be_online() {
            self.set_mode(DensityMode::Online);
        }
    }
}

#[cfg(test)]
mod tests;
