//! The block tree: headers of all branches, and which branch is best.
//!
//! The rule is most work; of branches with equal work the one seen first stays (Bitcoin Core,
//! `CBlockIndexWorkComparator`). The tree starts at genesis or above, and knows no chain's rules.
//!
//! Headers are in one list in the order of arrival, parents before children.

use std::{collections::hash_map::RandomState, hash::BuildHasher, iter::successors};

use hashbrown::HashTable;
use tipward_sync::{
    BlockId, Update,
    peer::wire::{BlockHash, Header, bitcoin::Work},
};

use crate::{
    Branch, Candidate, HeaderFacts, HeaderNode, OfferError, Offered, Rejection, Rule,
    branch::{MEDIAN_SPAN, median},
};

mod grow;
pub(crate) mod links;
mod prune;
mod reject;

use links::{Linked, Links};

/// A list with no room grows by its sixteenth and so much: doubling would cost twice the memory of what is there.
const GROWTH: usize = 1024;

/// Headers that link up to one header, the root.
#[derive(Debug)]
pub struct BlockTree {
    /// The root's height.
    base: u64,
    entries: Vec<Entry>,
    /// The positions of all entries, by hash. A map with hashes of its own as keys would be three times as large.
    index: HashTable<Slot>,
    hasher: RandomState,
    /// The best chain by height above the root.
    best: Vec<u32>,
}

/// A place in the index. With the key beside it, the index grows without a look at the entries, which are far apart.
#[derive(Debug, Clone, Copy)]
struct Slot {
    key: u32,
    at: u32,
}

impl Slot {
    /// The table takes the place from the low bits, and a mark from the high ones.
    fn spread(self) -> u64 {
        u64::from(self.key) << 32 | u64::from(self.key)
    }
}

#[derive(Debug)]
struct Entry {
    hash: BlockHash,
    /// Work of the chain up to here.
    work: Work,
    parent: u32,
    /// An ancestor farther back, at [`skip_depth`].
    skip: u32,
    /// The height above the root.
    depth: u32,
    time: u32,
    bits: u32,
}

impl BlockTree {
    /// A tree of genesis alone.
    #[must_use]
    pub fn new(genesis: &Header, facts: HeaderFacts) -> Self {
        Self::above(0, Work::ZERO, genesis, facts)
    }

    /// A tree that starts at a header in the middle of a chain, which has this work up to its parent.
    #[must_use]
    pub fn above(height: u64, before: Work, root: &Header, facts: HeaderFacts) -> Self {
        let HeaderFacts { work, time, bits } = facts;
        let entry = Entry { hash: root.hash, work: before + work, parent: 0, skip: 0, depth: 0, time, bits };
        let mut tree = Self {
            base: height,
            entries: vec![entry],
            index: HashTable::new(),
            hasher: RandomState::new(),
            best: vec![0],
        };
        tree.put_into_index(0);
        tree
    }

    /// How many headers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never: the root is always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// How many headers are not on the best chain.
    #[must_use]
    pub fn side_headers(&self) -> usize {
        self.entries.len() - self.best.len()
    }

    /// Where a header is, if it is in the tree.
    #[must_use]
    pub fn get(&self, hash: BlockHash) -> Option<BlockId> {
        self.find(hash).map(|at| self.id(at))
    }

    /// A header's number in the order of arrival, of those that are there.
    pub(crate) fn position(&self, hash: BlockHash) -> Option<usize> {
        self.find(hash).map(|at| at as usize)
    }

    /// What is known of a header.
    #[must_use]
    pub fn node(&self, hash: BlockHash) -> Option<HeaderNode> {
        self.find(hash).map(|at| self.node_at(at))
    }

    /// The work of the chain that ends with this header.
    #[must_use]
    pub fn work(&self, hash: BlockHash) -> Option<Work> {
        self.find(hash).map(|at| self.entry(at).work)
    }

    /// Whether the header at this position, in the order of arrival, is on the best chain.
    pub(crate) fn is_best_position(&self, position: usize) -> bool {
        position < self.entries.len() && self.is_best(position as u32)
    }

    /// The first header of all.
    #[must_use]
    pub fn root(&self) -> BlockId {
        self.id(0)
    }

    /// The last block of the best chain.
    #[must_use]
    pub fn tip(&self) -> BlockId {
        self.id(self.tip_index())
    }

    /// The last headers of all branches, the best chain's included, in the order of arrival. Looks at every header.
    #[must_use]
    pub fn tips(&self) -> Vec<BlockId> {
        let mut is_parent = vec![false; self.entries.len()];
        self.entries[1..].iter().for_each(|entry| is_parent[entry.parent as usize] = true);
        (0..).zip(is_parent).filter(|(_, is_parent)| !is_parent).map(|(at, _)| self.id(at)).collect()
    }

    /// The hash at a height of the best chain.
    #[must_use]
    pub fn best_at(&self, height: u64) -> Option<BlockHash> {
        let depth = usize::try_from(height.checked_sub(self.base)?).ok()?;
        self.best.get(depth).map(|&at| self.entry(at).hash)
    }

    /// The block at that height that `hash` is or descends from; `None` if it is above it or below the root.
    #[must_use]
    pub fn ancestor(&self, hash: BlockHash, height: u64) -> Option<BlockId> {
        Some(self.id(self.ancestor_at(self.find(hash)?, height)?))
    }

    /// The last block that both are or descend from.
    #[must_use]
    pub fn common_ancestor(&self, one: BlockHash, other: BlockHash) -> Option<BlockId> {
        let (one, other) = (self.find(one)?, self.find(other)?);
        Some(self.id(self.common(one, other)))
    }

    /// The highest block of the best chain that `hash` is or descends from.
    #[must_use]
    pub fn fork_point(&self, hash: BlockHash) -> Option<BlockId> {
        Some(self.id(self.on_best_chain(self.find(hash)?)))
    }

    /// The median time of a header and the ten before it, in seconds since 1970. `None` if it is not in the tree, or the
    /// tree starts too late for it.
    #[must_use]
    pub fn median_time(&self, hash: BlockHash) -> Option<u32> {
        let branch = self.branch(hash)?;
        branch.median_time(branch.tip().id.height)
    }

    /// A block locator: ten headers back from `from`, then at doubling distances, then the root. At most 42 hashes; only
    /// the root if `from` is unknown.
    #[must_use]
    pub fn locator(&self, from: BlockHash) -> Vec<BlockHash> {
        self.locator_from(self.find(from).unwrap_or(0))
    }

    /// The chain that ends with this header, as rules look at it.
    #[must_use]
    pub fn branch(&self, hash: BlockHash) -> Option<TreeBranch<'_>> {
        Some(TreeBranch { tree: self, at: self.find(hash)? })
    }

    /// Makes the branch that ends with this header the best one, if it has more work. Returns how the best chain changed.
    pub(crate) fn choose(&mut self, hash: BlockHash) -> Option<Update> {
        let at = self.find(hash).filter(|&at| self.entry(at).work > self.entry(self.tip_index()).work)?;
        Some(self.switch_to(at))
    }

    /// Makes a branch the best one.
    fn switch_to(&mut self, at: u32) -> Update {
        let common = self.on_best_chain(at);
        let keep = self.entry(common).depth as usize + 1;
        let branch = self.path(common, at);
        self.best.truncate(keep);
        for &at in &branch {
            make_room(&mut self.best);
            self.best.push(at);
        }
        let append = branch.iter().map(|&at| self.entry(at).hash).collect();
        Update { keep: self.base + keep as u64, append }
    }

    fn find(&self, hash: BlockHash) -> Option<u32> {
        let slot = self.slot(hash, 0);
        let is_it = |other: &Slot| other.key == slot.key && self.entry(other.at).hash == hash;
        self.index.find(slot.spread(), is_it).map(|slot| slot.at)
    }

    fn put_into_index(&mut self, at: u32) {
        let slot = self.slot(self.entry(at).hash, at);
        self.index.insert_unique(slot.spread(), slot, |slot| slot.spread());
    }

    /// Part of a hash is enough, and what decides is a secret: nobody can make hashes that collide.
    fn slot(&self, hash: BlockHash, at: u32) -> Slot {
        let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
        let part = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        Slot { key: self.hasher.hash_one(part) as u32, at }
    }

    fn ancestor_at(&self, at: u32, height: u64) -> Option<u32> {
        let depth = u32::try_from(height.checked_sub(self.base)?).ok()?;
        (depth <= self.entry(at).depth).then(|| self.back_to(at, depth))
    }

    fn tip_index(&self) -> u32 {
        *self.best.last().expect("the root is always on the best chain")
    }

    fn entry(&self, at: u32) -> &Entry {
        &self.entries[at as usize]
    }

    fn id(&self, at: u32) -> BlockId {
        let entry = self.entry(at);
        BlockId { height: self.base + u64::from(entry.depth), hash: entry.hash }
    }

    fn node_at(&self, at: u32) -> HeaderNode {
        let &Entry { work, time, bits, .. } = self.entry(at);
        HeaderNode { id: self.id(at), work, time, bits }
    }
}

impl Linked for BlockTree {
    fn links(&self, at: u32) -> Links {
        let &Entry { parent, skip, depth, .. } = self.entry(at);
        Links { parent, skip, depth }
    }

    fn hash(&self, at: u32) -> BlockHash {
        self.entry(at).hash
    }

    fn best(&self) -> &[u32] {
        &self.best
    }
}

impl Rule for BlockTree {
    type Facts = HeaderFacts;

    fn offer(&mut self, block: Candidate<HeaderFacts>) -> Result<Offered, OfferError> {
        let Candidate { hash, parent, facts } = block;
        if self.find(parent).is_none() {
            return Err(OfferError::ParentNotFound { hash, parent });
        }
        let update = self.put(hash, parent, facts).then(|| self.choose(hash)).flatten();
        Ok(Offered { update, pruned: Vec::new() })
    }

    fn reject(&mut self, hash: BlockHash) -> Option<Rejection> {
        self.reject(hash)
    }

    fn tip(&self) -> BlockId {
        self.tip()
    }

    fn irreversible(&self) -> BlockId {
        self.root()
    }

    fn best_at(&self, height: u64) -> Option<BlockHash> {
        self.best_at(height)
    }

    fn get(&self, hash: BlockHash) -> Option<BlockId> {
        self.get(hash)
    }

    fn ancestor(&self, hash: BlockHash, height: u64) -> Option<BlockId> {
        self.ancestor(hash, height)
    }

    fn common_ancestor(&self, one: BlockHash, other: BlockHash) -> Option<BlockId> {
        self.common_ancestor(one, other)
    }

    fn fork_point(&self, hash: BlockHash) -> Option<BlockId> {
        self.fork_point(hash)
    }

    fn locator(&self, from: BlockHash) -> Vec<BlockHash> {
        self.locator(from)
    }

    fn tips(&self) -> Vec<BlockId> {
        self.tips()
    }
}

/// The chain that ends with one header of a tree. See [`BlockTree::branch`].
#[derive(Debug, Clone, Copy)]
pub struct TreeBranch<'a> {
    tree: &'a BlockTree,
    at: u32,
}

impl Branch for TreeBranch<'_> {
    fn tip(&self) -> HeaderNode {
        self.tree.node_at(self.at)
    }

    fn at(&self, height: u64) -> Option<HeaderNode> {
        self.tree.ancestor_at(self.at, height).map(|at| self.tree.node_at(at))
    }

    fn knows(&self, block: BlockHash) -> bool {
        self.tree.find(block).is_some()
    }

    fn median_time(&self, height: u64) -> Option<u32> {
        // By the links from one to the next: a search for each takes longer.
        let mut at = self.tree.ancestor_at(self.at, height)?;
        let mut times = [0; MEDIAN_SPAN as usize];
        let count = MEDIAN_SPAN.min(height + 1) as usize;
        // The last one first, so that there is little to be sorted.
        for (n, time) in times[..count].iter_mut().rev().enumerate() {
            let entry = self.tree.entry(at);
            *time = entry.time;
            if n + 1 < count && at == 0 {
                return None;
            }
            at = entry.parent;
        }
        Some(median(&mut times[..count]))
    }

    fn back(&self) -> Box<dyn Iterator<Item = HeaderNode> + '_> {
        let parent = |&at: &u32| (at > 0).then(|| self.tree.entry(at).parent);
        Box::new(successors(Some(self.at), parent).map(|at| self.tree.node_at(at)))
    }
}

pub(crate) fn make_room<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 16 + GROWTH);
    }
}

#[cfg(test)]
mod tests;
