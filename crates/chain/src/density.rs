//! Fork choice by density, for chains whose blocks have slots (Cryptarchia; Badertscher et al., "Ouroboros Genesis", 2018).
//!
//! Of two branches the longer one wins while the best chain would lose at most `k` blocks. Beyond that, a program that is
//! not at the tip yet takes the branch that has more blocks in the first `s` slots after the two part (`maxvalid-bg`): a
//! branch made in secret is sparse there, however long it has grown since. One that is at the tip ignores such a branch
//! (`maxvalid-mc`), and its `k`-th block from the tip is irreversible.

use tipward_sync::{BlockId, Update, peer::wire::BlockHash};

use crate::{Candidate, OfferError, Offered, Rejection, Rule, tree::links::Linked};
use blocks::Blocks;

mod blocks;
mod chain;
mod rules;

pub use chain::SlotChain;
pub use rules::{LedgerError, PastSink, SlotBlock, SlotCheckpoint, SlotError, SlotRules};

/// The parameters of the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DensityOptions {
    /// How many blocks the longer branch may undo: `k`.
    pub security: u64,
    /// In how many slots after the fork blocks are counted: `s`.
    pub window: u64,
    /// Whether the slot at the end of the window counts.
    pub bound: SlotBound,
    /// How many branches beside the best chain are kept, one at least. Of more, the ones go first that have not grown for the
    /// longest time: who sends junk has to go on with it. Every new branch and every reorg looks at all of them; 100 are plenty.
    pub max_forks: usize,
    /// How many blocks beside the best chain are kept; likewise, but for the branch that has grown last. Each takes about 75
    /// bytes.
    pub max_side_blocks: usize,
}

/// Where the window ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotBound {
    /// Before the slot of the common ancestor plus the window.
    Exclusive,
    /// With that slot.
    Inclusive,
}

/// Whether the program is near the tip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DensityMode {
    /// It may have been given a chain made in secret: density decides between branches that parted long ago.
    Bootstrapping,
    /// It has followed the chain: what is more than `security` blocks deep does not change.
    Online,
}

/// Two chains down to the last block that both have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommonPrefix {
    /// From the common ancestor, which is the first, to the end of the one chain.
    pub one: Vec<BlockHash>,
    /// The same of the other.
    pub other: Vec<BlockHash>,
}

/// Blocks of all branches, and which of them is best.
///
/// A block costs O(log n) for each branch, and what it makes best or forgotten; never the length of the chain.
#[derive(Debug)]
pub struct DensityTree {
    options: DensityOptions,
    mode: DensityMode,
    /// The height of the first block.
    base: u64,
    blocks: Blocks,
    /// The other branches, those that have grown last at the end.
    forks: Vec<Fork>,
    /// The depth of the last irreversible block.
    irreversible: u32,
}

/// A branch beside the best chain.
#[derive(Debug, Clone, Copy)]
struct Fork {
    tip: u32,
    /// The depth of the last block that it shares with the best chain.
    common: u32,
    /// How many of its blocks above that are in the window.
    dense: u32,
}

impl DensityTree {
    /// A tree of genesis alone, of a program that is not at the tip yet.
    #[must_use]
    pub fn new(genesis: BlockHash, slot: u64, options: DensityOptions) -> Self {
        Self::above(BlockId { height: 0, hash: genesis }, slot, options)
    }

    /// A tree that starts at a trusted block. Nothing forks off below it.
    #[must_use]
    pub fn above(root: BlockId, slot: u64, options: DensityOptions) -> Self {
        Self {
            options,
            mode: DensityMode::Bootstrapping,
            base: root.height,
            blocks: Blocks::new(root.hash, slot),
            forks: Vec::new(),
            irreversible: 0,
        }
    }

    /// Whether the program is near the tip, as it was told.
    #[must_use]
    pub fn mode(&self) -> DensityMode {
        self.mode
    }

    /// How many blocks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Never: the first block is always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The last blocks of the other branches, those that have grown last at the end.
    pub fn forks(&self) -> impl Iterator<Item = BlockHash> {
        self.forks.iter().map(|fork| self.blocks.hash(fork.tip))
    }

    /// The slot of a block.
    #[must_use]
    pub fn slot(&self, hash: BlockHash) -> Option<u64> {
        self.blocks.find(hash).map(|at| self.blocks.node(at).slot)
    }

    /// Follows the chain from now on, or falls behind again. What is irreversible stays so. Returns what is forgotten.
    pub fn set_mode(&mut self, mode: DensityMode) -> Vec<BlockHash> {
        self.mode = mode;
        self.settle()
    }

    /// Two chains from their last common block on; `None` if one of them is not in the tree.
    #[must_use]
    pub fn common_prefix(&self, one: BlockHash, other: BlockHash) -> Option<CommonPrefix> {
        let (one, other) = (self.blocks.find(one)?, self.blocks.find(other)?);
        let common = self.blocks.common(one, other);
        let path = |to| [common].into_iter().chain(self.blocks.path(common, to));
        let hashes = |to| path(to).map(|at| self.blocks.hash(at)).collect();
        Some(CommonPrefix { one: hashes(one), other: hashes(other) })
    }

    /// Whether a block that is not there has a place on top of another one, that is or would be in the tree.
    fn admits(&self, parent: BlockId, before: u64, hash: BlockHash, slot: u64) -> Result<(), OfferError> {
        let irreversible = self.irreversible();
        if parent.height < irreversible.height {
            return Err(OfferError::ImmutableFork { hash, irreversible });
        }
        if slot <= before {
            return Err(OfferError::Slot { hash, slot, parent: before });
        }
        Ok(())
    }

    /// Compares the best chain with all branches, one after the other, each with the best so far.
    fn choose(&mut self) -> Option<Update> {
        let mut keep = self.blocks.best.len();
        let mut undone = Vec::new();
        for at in 0..self.forks.len() {
            let Some(fork) = self.forks.get(at).copied().filter(|fork| self.is_better(fork)) else {
                continue;
            };
            let old_tip = self.blocks.tip();
            let kept = fork.common as usize + 1;
            let branch = self.blocks.path(self.blocks.best[kept - 1], fork.tip);
            if kept < keep {
                undone.splice(..0, self.blocks.best[kept..keep].iter().copied());
                keep = kept;
            }
            self.blocks.best.truncate(kept);
            self.blocks.best.extend(&branch);
            // What was best is a branch now, and all branches may part elsewhere.
            self.forks[at].tip = old_tip;
            for at in 0..self.forks.len() {
                self.forks[at] = self.fork(self.forks[at].tip);
            }
        }
        // When a block was rejected, a branch may have won that goes on from the one before it.
        let blocks = &self.blocks;
        self.forks.retain(|fork| !blocks.is_best(fork.tip) && blocks.node(fork.tip).children == 0);
        // One branch may have won, and then one that is closer to what was best before.
        keep += self.blocks.best[keep..].iter().zip(&undone).take_while(|(new, old)| new == old).count();
        (keep < self.blocks.best.len()).then(|| self.update(keep))
    }

    fn update(&self, keep: usize) -> Update {
        let append = self.blocks.best[keep..].iter().map(|&at| self.blocks.hash(at)).collect();
        Update { keep: self.base + keep as u64, append }
    }

    /// What there is to know of a branch.
    fn fork(&self, tip: u32) -> Fork {
        let common = self.blocks.depth(self.blocks.on_best_chain(tip));
        // The last block in the window: slots increase along a chain.
        let mut last = tip;
        while self.blocks.depth(last) > common && !self.is_dense(last, common) {
            let links = self.blocks.links(last);
            last = if self.is_dense(links.skip, common) { links.parent } else { links.skip };
        }
        Fork { tip, common, dense: self.blocks.depth(last).saturating_sub(common) }
    }

    /// Whether a branch is better than the best chain.
    fn is_better(&self, fork: &Fork) -> bool {
        let best = &self.blocks.best[fork.common as usize + 1..];
        if best.len() as u64 <= self.options.security {
            return (self.blocks.depth(fork.tip) - fork.common) as usize > best.len();
        }
        let dense = || best.partition_point(|&at| self.is_dense(at, fork.common));
        self.mode == DensityMode::Bootstrapping && fork.dense as usize > dense()
    }

    /// Whether a block is in the window after the block of the best chain at depth `common`, or before it.
    fn is_dense(&self, at: u32, common: u32) -> bool {
        let slot = |at| self.blocks.node(at).slot;
        let end = slot(self.blocks.best[common as usize]).saturating_add(self.options.window);
        match self.options.bound {
            SlotBound::Exclusive => slot(at) < end,
            SlotBound::Inclusive => slot(at) <= end,
        }
    }

    /// Moves the last irreversible block up, and forgets what does not descend from it, and what is too much.
    fn settle(&mut self) -> Vec<BlockHash> {
        let mut gone = Vec::new();
        let depth = u32::try_from(self.options.security).unwrap_or(u32::MAX);
        let settled = self.blocks.depth(self.blocks.tip()).saturating_sub(depth);
        if self.mode == DensityMode::Online && settled > self.irreversible {
            self.irreversible = settled;
            let lost = self.forks.extract_if(.., |fork| fork.common < settled);
            lost.for_each(|fork| self.blocks.remove(fork.tip, None, &mut gone));
        }
        let is_too_much = |forks: &[Fork], blocks: &Blocks| {
            let side = blocks.len() - blocks.best.len();
            forks.len() > 1 && (forks.len() > self.options.max_forks || side > self.options.max_side_blocks)
        };
        while is_too_much(&self.forks, &self.blocks) {
            let fork = self.forks.remove(0);
            self.blocks.remove(fork.tip, None, &mut gone);
        }
        ascending(gone)
    }

    fn id(&self, at: u32) -> BlockId {
        BlockId { height: self.base + u64::from(self.blocks.depth(at)), hash: self.blocks.hash(at) }
    }
}

/// Parents before children.
fn ascending(mut blocks: Vec<(u32, BlockHash)>) -> Vec<BlockHash> {
    blocks.sort_unstable();
    blocks.into_iter().map(|(_, hash)| hash).collect()
}

impl Rule for DensityTree {
    /// The slot. Slots and links are checked; whatever else a ledger demands is to be checked before.
    type Facts = u64;

    fn offer(&mut self, block: Candidate<u64>) -> Result<Offered, OfferError> {
        let Candidate { hash, parent: parent_hash, facts: slot } = block;
        if self.blocks.find(hash).is_some() {
            return Ok(Offered::default());
        }
        let Some(parent) = self.blocks.find(parent_hash) else {
            return Err(OfferError::ParentNotFound { hash, parent: parent_hash });
        };
        self.admits(self.id(parent), self.blocks.node(parent).slot, hash, slot)?;
        let at = self.blocks.add(hash, slot, parent);
        let update = if parent == self.blocks.tip() {
            self.blocks.extend_best(at);
            Some(self.update(self.blocks.best.len() - 1))
        } else {
            let grown = self.forks.iter().position(|fork| fork.tip == parent);
            let fork = match grown.map(|at| self.forks.remove(at)) {
                Some(Fork { common, dense, .. }) => {
                    Fork { tip: at, common, dense: dense + u32::from(self.is_dense(at, common)) }
                }
                None => self.fork(at),
            };
            self.forks.push(fork);
            self.choose()
        };
        Ok(Offered { update, pruned: self.settle() })
    }

    /// What is left of the best chain is compared with the branches, one after the other.
    fn reject(&mut self, hash: BlockHash) -> Option<Rejection> {
        let rejected = self.blocks.find(hash)?;
        let depth = self.blocks.depth(rejected);
        let is_best = self.blocks.is_best(rejected);
        if depth <= self.irreversible {
            return None;
        }
        let (blocks, tip) = (&self.blocks, self.blocks.tip());
        let falls = |tip: u32| blocks.depth(tip) >= depth && blocks.back_to(tip, depth) == rejected;
        let mut tips: Vec<u32> = is_best.then_some(tip).into_iter().collect();
        let place = self.forks.iter().position(|fork| falls(fork.tip));
        tips.extend(self.forks.extract_if(.., |fork| falls(fork.tip)).map(|fork| fork.tip));
        let parent = self.blocks.links(rejected).parent;
        if is_best {
            self.blocks.best.truncate(depth as usize);
        }
        let mut gone = Vec::new();
        tips.into_iter().for_each(|tip| self.blocks.remove(tip, Some(rejected), &mut gone));
        if let Some(place) = place.filter(|_| self.blocks.node(parent).children == 0)
            && !self.blocks.is_best(parent)
        {
            self.forks.insert(place, self.fork(parent));
        }
        let update = is_best.then(|| self.choose().unwrap_or_else(|| self.update(depth as usize)));
        Some(Rejection { update, gone: ascending(gone) })
    }

    fn tip(&self) -> BlockId {
        self.id(self.blocks.tip())
    }

    fn irreversible(&self) -> BlockId {
        self.id(self.blocks.best[self.irreversible as usize])
    }

    fn best_at(&self, height: u64) -> Option<BlockHash> {
        let depth = usize::try_from(height.checked_sub(self.base)?).ok()?;
        self.blocks.best.get(depth).map(|&at| self.blocks.hash(at))
    }

    fn get(&self, hash: BlockHash) -> Option<BlockId> {
        self.blocks.find(hash).map(|at| self.id(at))
    }

    fn ancestor(&self, hash: BlockHash, height: u64) -> Option<BlockId> {
        let at = self.blocks.find(hash)?;
        let depth = u32::try_from(height.checked_sub(self.base)?).ok()?;
        (depth <= self.blocks.depth(at)).then(|| self.id(self.blocks.back_to(at, depth)))
    }

    fn common_ancestor(&self, one: BlockHash, other: BlockHash) -> Option<BlockId> {
        Some(self.id(self.blocks.common(self.blocks.find(one)?, self.blocks.find(other)?)))
    }

    fn fork_point(&self, hash: BlockHash) -> Option<BlockId> {
        Some(self.id(self.blocks.on_best_chain(self.blocks.find(hash)?)))
    }

    fn locator(&self, from: BlockHash) -> Vec<BlockHash> {
        self.blocks.locator_from(self.blocks.find(from).unwrap_or(self.blocks.best[0]))
    }

    fn tips(&self) -> Vec<BlockId> {
        let forks = self.forks.iter().map(|fork| fork.tip);
        [self.blocks.tip()].into_iter().chain(forks).map(|at| self.id(at)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
