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

use crate::{Branch, Candidate, HeaderFacts, HeaderNode, OfferError, Offered, Rejection, Rule};

pub(crate) mod links;
mod prune;
mod reject;

use links::{Linked, Links, skip_depth};

/// A list with no room grows by its eighth and so much: doubling would cost twice the memory of what is there.
const GROWTH: usize = 1024;

/// Headers that link up to one header, the root.
#[derive(Debug)]
pub struct BlockTree {
    /// The root's height.
    base: u64,
    entries: Vec<Entry>,
    /// The positions of all entries, by hash. A map with hashes of its own as keys would be three times as large.
    index: HashTable<u32>,
    hasher: RandomState,
    /// The best chain by height above the root.
    best: Vec<u32>,
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

    /// Adds a header whose parent is in the tree. Returns how the best chain changed, if it did; `None` also if the header is
    /// known or its parent is not.
    pub fn insert(&mut self, header: &Header, facts: HeaderFacts) -> Option<Update> {
        self.add(header, facts).then(|| self.choose(header.hash)).flatten()
    }

    /// Adds a header without a look at which branch is best. False if it is known, or its parent is not.
    pub(crate) fn add(&mut self, header: &Header, facts: HeaderFacts) -> bool {
        self.put(header.hash, header.parent, facts)
    }

    fn put(&mut self, hash: BlockHash, parent: BlockHash, facts: HeaderFacts) -> bool {
        let Some(parent) = self.find(parent) else { return false };
        // 2^32 headers are 340 GB: memory ends before.
        let Ok(at) = u32::try_from(self.entries.len()) else { return false };
        if self.find(hash).is_some() {
            return false;
        }
        let HeaderFacts { work, time, bits } = facts;
        let before = self.entry(parent);
        let (work, depth) = (before.work + work, before.depth + 1);
        let skip = self.back_to(parent, skip_depth(depth));
        make_room(&mut self.entries);
        self.entries.push(Entry { hash, work, parent, skip, depth, time, bits });
        self.put_into_index(at);
        true
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

    /// Takes back what was added since there were `len` headers. None of it must have been made best.
    pub(crate) fn take_back(&mut self, len: usize) {
        for entry in &self.entries[len..] {
            let hash = self.hasher.hash_one(entry.hash);
            let found = self.index.find_entry(hash, |&at| self.entries[at as usize].hash == entry.hash);
            found.expect("every entry is in the index").remove();
        }
        self.entries.truncate(len);
    }

    fn find(&self, hash: BlockHash) -> Option<u32> {
        self.index.find(self.hasher.hash_one(hash), |&at| self.entry(at).hash == hash).copied()
    }

    fn put_into_index(&mut self, at: u32) {
        let (entries, hasher) = (&self.entries, &self.hasher);
        let hash = |at: &u32| hasher.hash_one(entries[*at as usize].hash);
        self.index.insert_unique(hash(&at), at, hash);
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

    fn back(&self) -> Box<dyn Iterator<Item = HeaderNode> + '_> {
        let parent = |&at: &u32| (at > 0).then(|| self.tree.entry(at).parent);
        Box::new(successors(Some(self.at), parent).map(|at| self.tree.node_at(at)))
    }
}

fn make_room<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 8 + GROWTH);
    }
}

#[cfg(test)]
mod tests;
