//! The block tree: headers of all branches, and which branch is best.
//!
//! The rule is most work; of branches with equal work the one seen first stays (Bitcoin Core,
//! `CBlockIndexWorkComparator`). The tree starts at genesis or above, and knows no chain's rules.
//!
//! Headers are in one list in the order of arrival, parents before children, and refer to each other by position. Each
//! has a second link far back (Bitcoin Core, `CBlockIndex::BuildSkip`), so that an ancestor is found in O(log n).

use std::{collections::hash_map::RandomState, hash::BuildHasher, iter::successors};

use hashbrown::HashTable;
use tipward_sync::{
    BlockId, Update,
    peer::wire::{BlockHash, Header, bitcoin::Work},
};

use crate::{Branch, HeaderFacts, HeaderNode};

mod prune;
mod reject;

pub use reject::Rejection;

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
        let depth = self.entry(one).depth.min(self.entry(other).depth);
        let (mut one, mut other) = (self.back_to(one, depth), self.back_to(other, depth));
        while one != other {
            let (a, b) = (self.entry(one), self.entry(other));
            // At equal depths both links lead to equal depths.
            (one, other) = if a.skip == b.skip { (a.parent, b.parent) } else { (a.skip, b.skip) };
        }
        Some(self.id(one))
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
        let mut hashes = Vec::new();
        let mut at = self.find(from).unwrap_or(0);
        let mut step = 1;
        loop {
            let entry = self.entry(at);
            hashes.push(entry.hash);
            if entry.depth == 0 {
                return hashes;
            }
            if hashes.len() >= 10 {
                step *= 2;
            }
            at = self.back_to(at, entry.depth.saturating_sub(step));
        }
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
        let Some(parent) = self.find(header.parent) else { return false };
        // 2^32 headers are 340 GB: memory ends before.
        let Ok(at) = u32::try_from(self.entries.len()) else { return false };
        if self.find(header.hash).is_some() {
            return false;
        }
        let HeaderFacts { work, time, bits } = facts;
        let before = self.entry(parent);
        let (work, depth) = (before.work + work, before.depth + 1);
        let skip = self.back_to(parent, skip_depth(depth));
        make_room(&mut self.entries);
        self.entries.push(Entry { hash: header.hash, work, parent, skip, depth, time, bits });
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
        let mut branch: Vec<u32> =
            successors(Some(at), |&at| Some(self.entry(at).parent)).take_while(|&at| at != common).collect();
        branch.reverse();
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

    fn on_best_chain(&self, mut at: u32) -> u32 {
        while !self.is_best(at) {
            let entry = self.entry(at);
            at = if self.is_best(entry.skip) { entry.parent } else { entry.skip };
        }
        at
    }

    fn is_best(&self, at: u32) -> bool {
        self.best.get(self.entry(at).depth as usize) == Some(&at)
    }

    fn ancestor_at(&self, at: u32, height: u64) -> Option<u32> {
        let depth = u32::try_from(height.checked_sub(self.base)?).ok()?;
        (depth <= self.entry(at).depth).then(|| self.back_to(at, depth))
    }

    /// The ancestor at a depth, which is not below `at`'s (Bitcoin Core, `CBlockIndex::GetAncestor`).
    fn back_to(&self, mut at: u32, depth: u32) -> u32 {
        loop {
            let entry = self.entry(at);
            if entry.depth <= depth {
                return at;
            }
            if self.is_best(at) {
                return self.best[depth as usize];
            }
            // The parent's far link is better than one that leads too far back or hardly as far.
            let (skip, before) = (skip_depth(entry.depth), skip_depth(entry.depth - 1));
            let is_good = skip == depth || (skip > depth && !(before + 2 < skip && before >= depth));
            at = if is_good { entry.skip } else { entry.parent };
        }
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

/// Where the far link of a header at this depth leads: chosen such that a walk over any distance takes O(log n) steps
/// (Bitcoin Core, `GetSkipHeight`).
fn skip_depth(depth: u32) -> u32 {
    let without_lowest_bit = |number: u32| number & number.wrapping_sub(1);
    match depth {
        0 | 1 => 0,
        odd if odd & 1 == 1 => without_lowest_bit(without_lowest_bit(odd - 1)) + 1,
        even => without_lowest_bit(even),
    }
}

fn make_room<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 8 + GROWTH);
    }
}

#[cfg(test)]
mod tests;
