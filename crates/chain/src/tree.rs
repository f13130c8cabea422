//! The block tree: headers of all branches, and which branch is best.
//!
//! The rule is most work; of branches with equal work the one seen first stays (Bitcoin Core,
//! `CBlockIndexWorkComparator`).

use std::collections::HashMap;

use tipward_sync::{
    BlockId, Update,
    peer::wire::{BlockHash, Header, bitcoin::Work},
};

/// Headers that link up to one genesis block.
#[derive(Debug)]
pub struct BlockTree {
    entries: Vec<Entry>,
    index: HashMap<BlockHash, u32>,
    /// The best chain by height.
    best: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    hash: BlockHash,
    parent: u32,
    height: u32,
    /// Work of the chain up to here.
    work: Work,
}

impl BlockTree {
    /// A tree of genesis alone.
    #[must_use]
    pub fn new(genesis: &Header, work: Work) -> Self {
        let entry = Entry { hash: genesis.hash, parent: 0, height: 0, work };
        Self { entries: vec![entry], index: [(genesis.hash, 0)].into(), best: vec![0] }
    }

    /// How many headers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never: genesis is always there.
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
        self.index.get(&hash).map(|&at| self.id(at))
    }

    /// The work of the chain that ends with this header.
    #[must_use]
    pub fn work(&self, hash: BlockHash) -> Option<Work> {
        self.index.get(&hash).map(|&at| self.entry(at).work)
    }

    /// The last block of the best chain.
    #[must_use]
    pub fn tip(&self) -> BlockId {
        self.id(self.tip_index())
    }

    /// The hash at a height of the best chain.
    #[must_use]
    pub fn best_at(&self, height: u64) -> Option<BlockHash> {
        let at = *self.best.get(usize::try_from(height).ok()?)?;
        Some(self.entry(at).hash)
    }

    /// The highest block of the best chain that `hash` is or descends from.
    #[must_use]
    pub fn fork_point(&self, hash: BlockHash) -> Option<BlockId> {
        Some(self.id(self.on_best_chain(*self.index.get(&hash)?)))
    }

    /// A block locator: ten headers back from `from`, then at doubling distances, then genesis. At most 42 hashes; only
    /// genesis if `from` is unknown.
    #[must_use]
    pub fn locator(&self, from: BlockHash) -> Vec<BlockHash> {
        let mut hashes = Vec::new();
        let mut at = self.index.get(&from).copied().unwrap_or(0);
        let mut step = 1;
        loop {
            hashes.push(self.entry(at).hash);
            let height = self.entry(at).height;
            if height == 0 {
                return hashes;
            }
            if hashes.len() >= 10 {
                step *= 2;
            }
            at = self.ancestor(at, height.saturating_sub(step));
        }
    }

    /// Adds a header whose parent is in the tree, with its own work. Returns how the best chain changed, if it did;
    /// `None` also if the header is known or its parent is not.
    pub fn insert(&mut self, header: &Header, work: Work) -> Option<Update> {
        let parent = *self.index.get(&header.parent)?;
        if self.index.contains_key(&header.hash) {
            return None;
        }
        // 2^32 headers are 340 GB: memory ends before.
        let at = u32::try_from(self.entries.len()).ok()?;
        let height = self.entry(parent).height + 1;
        let work = self.entry(parent).work + work;
        self.entries.push(Entry { hash: header.hash, parent, height, work });
        self.index.insert(header.hash, at);
        (work > self.entry(self.tip_index()).work).then(|| self.switch_to(at))
    }

    /// Makes the chain up to `at` the best one.
    fn switch_to(&mut self, at: u32) -> Update {
        let common = self.on_best_chain(at);
        let keep = self.entry(common).height as usize + 1;
        let mut branch = Vec::new();
        let mut next = at;
        while next != common {
            branch.push(next);
            next = self.entry(next).parent;
        }
        branch.reverse();
        self.best.truncate(keep);
        self.best.extend(&branch);
        Update { keep: keep as u64, append: branch.iter().map(|&at| self.entry(at).hash).collect() }
    }

    fn on_best_chain(&self, mut at: u32) -> u32 {
        while self.best.get(self.entry(at).height as usize) != Some(&at) {
            at = self.entry(at).parent;
        }
        at
    }

    fn ancestor(&self, mut at: u32, height: u32) -> u32 {
        while self.entry(at).height > height {
            if self.best.get(self.entry(at).height as usize) == Some(&at) {
                return self.best[height as usize];
            }
            at = self.entry(at).parent;
        }
        at
    }

    fn tip_index(&self) -> u32 {
        *self.best.last().expect("genesis is always on the best chain")
    }

    fn entry(&self, at: u32) -> &Entry {
        &self.entries[at as usize]
    }

    fn id(&self, at: u32) -> BlockId {
        let entry = self.entry(at);
        BlockId { height: u64::from(entry.height), hash: entry.hash }
    }
}

#[cfg(test)]
mod tests;
