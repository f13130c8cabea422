//! Fork choice by density, for chains whose blocks have slots (Cryptarchia; Badertscher et al., "Ouroboros Genesis", 2018).
//!
//! Of two branches the longer one wins while the best chain would lose at most `k` blocks. Beyond that, a program that is
//! not at the tip yet takes the branch that has more blocks in the first `s` slots after the two part (`maxvalid-bg`): a
//! branch made in secret is sparse there, however long it has grown since. One that is at the tip ignores such a branch
//! (`maxvalid-mc`), and its `k`-th block from the tip is irreversible.

use std::collections::BTreeMap;

use tipward_sync::{BlockId, Update, peer::wire::BlockHash};

/// The parameters of the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DensityOptions {
    /// How many blocks the longer branch may undo: `k`.
    pub security: u64,
    /// In how many slots after the fork blocks are counted: `s`.
    pub window: u64,
    /// Whether the slot at the end of the window counts.
    pub bound: SlotBound,
    /// How many branches beside the best chain are kept.
    pub max_forks: usize,
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

/// A block as this rule looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotBlock {
    /// The block's id.
    pub hash: BlockHash,
    /// The block that it builds on.
    pub parent: BlockHash,
    /// Its slot.
    pub slot: u64,
}

/// What came of a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offered {
    /// How the best chain changed, if it did.
    pub update: Option<Update>,
    /// Blocks that are forgotten because they don't descend from the last irreversible block, ascending.
    pub pruned: Vec<BlockHash>,
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
    /// It would be one branch more than are kept.
    #[error("block {hash} begins a branch, and there are {max} already")]
    TooManyForks {
        /// The block.
        hash: BlockHash,
        /// [`DensityOptions::max_forks`].
        max: usize,
    },
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
#[derive(Debug)]
pub struct DensityTree {
    options: DensityOptions,
    mode: DensityMode,
    nodes: BTreeMap<BlockHash, Node>,
    /// By height.
    best: Vec<BlockHash>,
    /// The other branches, in the order in which they came to be.
    forks: Vec<Fork>,
    /// The height of the last irreversible block.
    irreversible: usize,
}

/// A branch beside the best chain.
#[derive(Debug, Clone, Copy)]
struct Fork {
    tip: BlockHash,
    /// The height of the last block that it shares with the best chain.
    common: usize,
    /// How many blocks it has above that.
    length: usize,
    /// How many of them are in the window.
    dense: usize,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    parent: BlockHash,
    slot: u64,
    height: usize,
}

impl DensityTree {
    /// A tree of genesis alone, of a program that is not at the tip yet.
    #[must_use]
    pub fn new(genesis: BlockHash, slot: u64, options: DensityOptions) -> Self {
        let node = Node { parent: BlockHash::ZERO, slot, height: 0 };
        Self {
            options,
            mode: DensityMode::Bootstrapping,
            nodes: BTreeMap::from([(genesis, node)]),
            best: vec![genesis],
            forks: Vec::new(),
            irreversible: 0,
        }
    }

    /// The last block of the best chain.
    #[must_use]
    pub fn tip(&self) -> BlockId {
        self.best_id(self.best.len() - 1)
    }

    /// The last block that no reorg undoes.
    #[must_use]
    pub fn irreversible(&self) -> BlockId {
        self.best_id(self.irreversible)
    }

    /// Whether the program is near the tip, as it was told.
    #[must_use]
    pub fn mode(&self) -> DensityMode {
        self.mode
    }

    /// The last blocks of the other branches, in the order in which they came to be.
    pub fn forks(&self) -> impl Iterator<Item = BlockHash> {
        self.forks.iter().map(|fork| fork.tip)
    }

    /// The block at a height of the best chain.
    #[must_use]
    pub fn best_at(&self, height: u64) -> Option<BlockHash> {
        self.best.get(usize::try_from(height).ok()?).copied()
    }

    /// Where a block is, if it is in the tree.
    #[must_use]
    pub fn get(&self, hash: BlockHash) -> Option<BlockId> {
        self.nodes.get(&hash).map(|node| BlockId { height: node.height as u64, hash })
    }

    /// The slot of a block.
    #[must_use]
    pub fn slot(&self, hash: BlockHash) -> Option<u64> {
        self.nodes.get(&hash).map(|node| node.slot)
    }

    /// Follows the chain from now on, or falls behind again. What is irreversible stays so. Returns what is forgotten.
    pub fn set_mode(&mut self, mode: DensityMode) -> Vec<BlockHash> {
        self.mode = mode;
        self.settle()
    }

    /// Takes a block that is valid by itself. One that is known changes nothing. Slots and links are checked; whatever else a
    /// ledger demands is to be checked before.
    ///
    /// # Errors
    /// See [`OfferError`].
    pub fn offer(&mut self, block: SlotBlock) -> Result<Offered, OfferError> {
        let SlotBlock { hash, parent, slot } = block;
        if self.nodes.contains_key(&hash) {
            return Ok(Offered::default());
        }
        let Some(&before) = self.nodes.get(&parent) else {
            return Err(OfferError::ParentNotFound { hash, parent });
        };
        if before.height < self.irreversible {
            return Err(OfferError::ImmutableFork { hash, irreversible: self.irreversible() });
        }
        if slot <= before.slot {
            return Err(OfferError::Slot { hash, slot, parent: before.slot });
        }
        let extends = parent == self.tip().hash;
        let grown = self.forks.iter().position(|fork| fork.tip == parent);
        if !extends && grown.is_none() && self.forks.len() >= self.options.max_forks {
            return Err(OfferError::TooManyForks { hash, max: self.options.max_forks });
        }
        self.nodes.insert(hash, Node { parent, slot, height: before.height + 1 });
        let update = if extends {
            self.best.push(hash);
            Some(Update { keep: self.best.len() as u64 - 1, append: vec![hash] })
        } else {
            let fork = match grown.map(|at| self.forks.remove(at)) {
                Some(fork) => Fork {
                    tip: hash,
                    length: fork.length + 1,
                    dense: fork.dense + usize::from(self.is_dense(hash, fork.common)),
                    ..fork
                },
                None => self.fork(hash),
            };
            self.forks.push(fork);
            self.choose()
        };
        Ok(Offered { update, pruned: self.settle() })
    }

    /// Two chains from their last common block on; `None` if one of them is not in the tree.
    #[must_use]
    pub fn common_prefix(&self, one: BlockHash, other: BlockHash) -> Option<CommonPrefix> {
        let (mut low, mut high) = (*self.nodes.get(&one)?, *self.nodes.get(&other)?);
        let (mut ones, mut others) = (vec![one], vec![other]);
        let step = |node: &mut Node, path: &mut Vec<BlockHash>| {
            path.push(node.parent);
            *node = *self.nodes.get(&node.parent)?;
            Some(())
        };
        while ones.last() != others.last() {
            if low.height >= high.height {
                step(&mut low, &mut ones)?;
            } else {
                step(&mut high, &mut others)?;
            }
        }
        ones.reverse();
        others.reverse();
        Some(CommonPrefix { one: ones, other: others })
    }

    /// Compares the best chain with all branches, one after the other, each with the best so far.
    fn choose(&mut self) -> Option<Update> {
        let mut keep = None;
        for at in 0..self.forks.len() {
            let Some(fork) = self.forks.get(at).copied().filter(|fork| self.is_better(fork)) else {
                continue;
            };
            let (old_tip, branch) = (self.tip().hash, self.branch(fork.tip));
            let kept = fork.common + 1;
            self.best.truncate(kept);
            self.best.extend(&branch);
            // What was best is a branch now, and all branches may part elsewhere.
            self.forks = (self.forks.iter().enumerate())
                .map(|(other, fork)| self.fork(if other == at { old_tip } else { fork.tip }))
                .collect();
            keep = Some(keep.map_or(kept, |before: usize| before.min(kept)));
        }
        let keep = keep?;
        Some(Update { keep: keep as u64, append: self.best[keep..].to_vec() })
    }

    /// What there is to know of a branch.
    fn fork(&self, tip: BlockHash) -> Fork {
        let branch = self.branch(tip);
        let height = self.nodes.get(&tip).map_or(0, |node| node.height);
        let common = height - branch.len();
        let dense = branch.partition_point(|&hash| self.is_dense(hash, common));
        Fork { tip, common, length: branch.len(), dense }
    }

    /// The blocks of a branch that are not on the best chain, ascending.
    fn branch(&self, tip: BlockHash) -> Vec<BlockHash> {
        let mut branch = Vec::new();
        let mut hash = tip;
        while let Some(node) = self.nodes.get(&hash).filter(|node| self.best.get(node.height) != Some(&hash))
        {
            branch.push(hash);
            hash = node.parent;
        }
        branch.reverse();
        branch
    }

    /// Whether a branch is better than the best chain.
    fn is_better(&self, fork: &Fork) -> bool {
        let best = &self.best[fork.common + 1..];
        if best.len() as u64 <= self.options.security {
            return fork.length > best.len();
        }
        // Slots increase along a chain.
        let dense = || best.partition_point(|&hash| self.is_dense(hash, fork.common));
        self.mode == DensityMode::Bootstrapping && fork.dense > dense()
    }

    /// Whether a block is in the window after the block of the best chain at height `common`.
    fn is_dense(&self, hash: BlockHash, common: usize) -> bool {
        let slot = |hash: &BlockHash| self.nodes.get(hash).map_or(u64::MAX, |node| node.slot);
        let end = slot(&self.best[common]).saturating_add(self.options.window);
        match self.options.bound {
            SlotBound::Exclusive => slot(&hash) < end,
            SlotBound::Inclusive => slot(&hash) <= end,
        }
    }

    /// Moves the last irreversible block up, and forgets what does not descend from it.
    fn settle(&mut self) -> Vec<BlockHash> {
        let depth = usize::try_from(self.options.security).unwrap_or(usize::MAX);
        let settled = (self.best.len() - 1).saturating_sub(depth);
        if self.mode == DensityMode::Bootstrapping || settled <= self.irreversible {
            return Vec::new();
        }
        self.irreversible = settled;
        let (lost, kept): (Vec<Fork>, Vec<Fork>) = self.forks.iter().partition(|fork| fork.common < settled);
        self.forks = kept;
        let mut pruned = Vec::new();
        for fork in lost {
            // A part of it may belong to another branch that goes with it, and be gone already.
            for hash in self.branch(fork.tip) {
                pruned.extend(self.nodes.remove(&hash).map(|node| (node.height, hash)));
            }
        }
        pruned.sort_unstable();
        pruned.into_iter().map(|(_, hash)| hash).collect()
    }

    fn best_id(&self, height: usize) -> BlockId {
        BlockId { height: height as u64, hash: self.best[height] }
    }
}

#[cfg(test)]
mod tests;
