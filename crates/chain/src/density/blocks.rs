//! The blocks of a tree from which branches are taken out again, at the cost of what is taken out.

use std::{collections::hash_map::RandomState, hash::BuildHasher};

use hashbrown::HashTable;
use tipward_sync::peer::wire::BlockHash;

use crate::tree::{
    links::{Linked, Links, skip_depth},
    make_room,
};

/// All blocks, and which chain of them is best.
#[derive(Debug)]
pub(super) struct Blocks {
    nodes: Vec<Node>,
    /// Places of blocks that were taken out.
    free: Vec<u32>,
    /// The places of all blocks, by hash.
    index: HashTable<u32>,
    hasher: RandomState,
    /// The best chain by depth.
    pub(super) best: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) hash: BlockHash,
    pub(super) slot: u64,
    links: Links,
    /// How many blocks build on it.
    pub(super) children: u32,
}

impl Blocks {
    pub(super) fn new(root: BlockHash, slot: u64) -> Self {
        let links = Links { parent: 0, skip: 0, depth: 0 };
        let mut blocks = Self {
            nodes: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            best: vec![0],
        };
        blocks.place(Node { hash: root, slot, links, children: 0 });
        blocks
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn find(&self, hash: BlockHash) -> Option<u32> {
        self.index.find(self.hasher.hash_one(hash), |&at| self.node(at).hash == hash).copied()
    }

    pub(super) fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    pub(super) fn depth(&self, at: u32) -> u32 {
        self.node(at).links.depth
    }

    pub(super) fn tip(&self) -> u32 {
        *self.best.last().expect("the root is always on the best chain")
    }

    /// Makes a block the tip that builds on it.
    pub(super) fn extend_best(&mut self, at: u32) {
        make_room(&mut self.best);
        self.best.push(at);
    }

    /// Adds a block that is not there on top of one that is.
    pub(super) fn add(&mut self, hash: BlockHash, slot: u64, parent: u32) -> u32 {
        let depth = self.depth(parent) + 1;
        let links = Links { parent, skip: self.back_to(parent, skip_depth(depth)), depth };
        self.nodes[parent as usize].children += 1;
        self.place(Node { hash, slot, links, children: 0 })
    }

    fn place(&mut self, node: Node) -> u32 {
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                make_room(&mut self.nodes);
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("2^32 blocks are more than memory has room for")
            }
        };
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        let hash = |at: &u32| hasher.hash_one(nodes[*at as usize].hash);
        self.index.insert_unique(hash(&at), at, hash);
        at
    }

    /// Takes out the end of a branch: from its last block down to `last`, or to where the best chain or another branch has a
    /// part in it. What goes is added to `gone` with its depth. Nothing that stays refers to it, for nothing descends from it.
    pub(super) fn remove(&mut self, tip: u32, last: Option<u32>, gone: &mut Vec<(u32, BlockHash)>) {
        let mut at = tip;
        while !self.is_best(at) && self.node(at).children == 0 {
            let Node { hash, links, .. } = *self.node(at);
            let found = self.index.find_entry(self.hasher.hash_one(hash), |other| *other == at);
            found.expect("every block is in the index").remove();
            self.free.push(at);
            self.nodes[links.parent as usize].children -= 1;
            gone.push((links.depth, hash));
            if last == Some(at) {
                return;
            }
            at = links.parent;
        }
    }
}

impl Linked for Blocks {
    fn links(&self, at: u32) -> Links {
        self.node(at).links
    }

    fn hash(&self, at: u32) -> BlockHash {
        self.node(at).hash
    }

    fn best(&self) -> &[u32] {
        &self.best
    }
}
