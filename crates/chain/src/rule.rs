//! Fork choice: which of the branches of a tree is best.
//!
//! A rule keeps a tree of blocks and orders them. However it decides, its answer to a new block is the same: the order so far
//! is cut, and other blocks follow; so whoever follows the order need not know the rule. Most work is
//! [`BlockTree`](crate::BlockTree), density [`DensityTree`](crate::density::DensityTree); another is one more
//! implementation of [`Rule`].

use std::fmt;

use tipward_sync::{BlockId, Update, peer::wire::BlockHash};

/// A rule, with the tree of the blocks between which it chooses.
pub trait Rule: fmt::Debug + Send {
    /// What the rule weighs of a block: its work, or its slot.
    type Facts;

    /// Takes a block of which everything else was checked. One that is known changes nothing.
    ///
    /// # Errors
    /// The block has no place in the tree, which is as it was then.
    fn offer(&mut self, block: Candidate<Self::Facts>) -> Result<Offered, OfferError>;

    /// Removes a block that has turned out to be invalid, and all that builds on it, and chooses the best of what remains.
    /// `None` if the block is not in the tree or is irreversible.
    ///
    /// The block is forgotten: who offers it again has it taken again.
    fn reject(&mut self, hash: BlockHash) -> Option<Rejection>;

    /// The last block of the best chain.
    fn tip(&self) -> BlockId;

    /// The last block that no offer and no rejection undoes; the tree's first, if the rule makes nothing final.
    fn irreversible(&self) -> BlockId;

    /// The block at a height of the best chain; `None` above the tip and below where the tree begins.
    fn best_at(&self, height: u64) -> Option<BlockHash>;

    /// Where a block is, on the best chain or not; `None` if it is not in the tree.
    fn get(&self, hash: BlockHash) -> Option<BlockId>;

    /// The block at that height that `hash` is or descends from; `None` if it is above it or below where the tree begins.
    fn ancestor(&self, hash: BlockHash, height: u64) -> Option<BlockId>;

    /// The last block that both are or descend from; `None` if one of them is not in the tree.
    fn common_ancestor(&self, one: BlockHash, other: BlockHash) -> Option<BlockId>;

    /// The highest block of the best chain that `hash` is or descends from.
    fn fork_point(&self, hash: BlockHash) -> Option<BlockId> {
        self.common_ancestor(hash, self.tip().hash)
    }

    /// A block locator: ten blocks back from `from`, then at doubling distances, then the tree's first. At most 42 hashes of
    /// a chain of 2^32 blocks; only the first if `from` is unknown.
    fn locator(&self, from: BlockHash) -> Vec<BlockHash>;

    /// The last blocks of all branches, the best chain's included, in an order that follows from that of arrival.
    fn tips(&self) -> Vec<BlockId>;
}

/// A block as a rule looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<F> {
    /// The block's id.
    pub hash: BlockHash,
    /// The block that it builds on.
    pub parent: BlockHash,
    /// What the rule weighs.
    pub facts: F,
}

/// What came of a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offered {
    /// How the best chain changed, if it did.
    pub update: Option<Update>,
    /// Blocks that are forgotten because they can't be best any more, or to stay within bounds; ascending.
    pub pruned: Vec<BlockHash>,
}

/// What became of a tree when a block was rejected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejection {
    /// How the best chain changed, if the block was on it. It may only get shorter: then nothing is appended.
    pub update: Option<Update>,
    /// The block and all that built on it, parents before children.
    pub gone: Vec<BlockHash>,
}

/// Why a block is not taken. The tree is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// It may be offered again after its parent.
    #[error("parent {parent} of block {hash} is not known")]
    ParentNotFound {
        /// The block.
        hash: BlockHash,
        /// What it builds on.
        parent: BlockHash,
    },
    /// It builds on a block below the last irreversible one.
    #[error("block {hash} forks off below the irreversible block {irreversible}")]
    ImmutableFork {
        /// The block.
        hash: BlockHash,
        /// The last irreversible block.
        irreversible: BlockId,
    },
    /// Slots must increase along a chain.
    #[error("block {hash} is in slot {slot}, its parent in {parent}")]
    Slot {
        /// The block.
        hash: BlockHash,
        /// Its slot.
        slot: u64,
        /// Its parent's.
        parent: u64,
    },
}

#[cfg(test)]
mod tests;
