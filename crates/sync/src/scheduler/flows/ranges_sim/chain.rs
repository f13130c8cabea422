//! Blocks whose bytes say what they are, and a chain of them.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bytes::Bytes;
use tipward_peer::wire::{BlockHash, Header};

use crate::{Accepted, Block, BlockHead, BlockId, Chain, Past, RefusedHeaders, Update, scheduler::Fault};

/// How many bytes a block has.
pub(in super::super) const BLOCK_SIZE: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct SimBlock {
    pub(in super::super) hash: BlockHash,
    pub(in super::super) parent: BlockHash,
    /// Its height, or its slot.
    pub(in super::super) index: u64,
    pub(in super::super) bytes: Bytes,
}

impl SimBlock {
    /// A block of its own for every `salt`.
    pub(in super::super) fn new(parent: BlockHash, index: u64, salt: u64, is_valid: bool) -> Self {
        let mut bytes = Vec::with_capacity(BLOCK_SIZE);
        bytes.extend_from_slice(parent.as_bytes());
        bytes.extend_from_slice(&index.to_le_bytes());
        bytes.extend_from_slice(&salt.to_le_bytes());
        bytes.push(u8::from(is_valid));
        bytes.resize(BLOCK_SIZE, 0);
        Self { hash: hash_of(&bytes), parent, index, bytes: bytes.into() }
    }
}

fn hash_of(bytes: &[u8]) -> BlockHash {
    let mut hash = [0; 32];
    for (n, chunk) in hash.chunks_mut(8).enumerate() {
        let mut hasher = DefaultHasher::new();
        (n, bytes).hash(&mut hasher);
        chunk.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    BlockHash::from_bytes(hash)
}

pub(in super::super) fn genesis() -> SimBlock {
    SimBlock::new(BlockHash::ZERO, 0, 0, true)
}

/// A chain that is `of` up to height `fork`, and then another, up to `length`.
pub(in super::super) fn branch(of: &[SimBlock], fork: u64, salt: u64, length: u64) -> Vec<SimBlock> {
    slots(of, fork as usize, salt, fork + 1..=length)
}

/// A chain that is `of` up to its block number `fork`, and then has blocks in these slots.
pub(in super::super) fn slots(
    of: &[SimBlock],
    fork: usize,
    salt: u64,
    indexes: impl IntoIterator<Item = u64>,
) -> Vec<SimBlock> {
    let mut chain = of[..=fork].to_vec();
    for index in indexes {
        let parent = chain.last().unwrap().hash;
        chain.push(SimBlock::new(parent, index, salt, true));
    }
    chain
}

#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Node {
    pub(in super::super) parent: BlockHash,
    pub(in super::super) height: u64,
    pub(in super::super) slot: u64,
}

/// A tree in which the longest branch is best and the first of equals stays.
#[derive(Debug)]
pub(in super::super) struct SimChain {
    nodes: HashMap<BlockHash, Node>,
    pub(in super::super) best: Vec<BlockHash>,
    pub(in super::super) by_slot: bool,
    /// How deep a reorg may go.
    pub(in super::super) finality: Option<u64>,
    /// The store fails at this height.
    pub(in super::super) fails_at: Option<u64>,
    /// The first time that it is offered a block of this height it does not find the parent.
    pub(in super::super) stumbles_at: Option<u64>,
    /// Blocks offered although the tree had them.
    pub(in super::super) repeated: usize,
    /// Blocks above are not wanted.
    pub(in super::super) max_height: Option<u64>,
    pub(in super::super) reorgs: usize,
    /// How many blocks were refused as invalid.
    pub(in super::super) refused: usize,
    pub(in super::super) wants_past: bool,
    /// What came of the past, downwards.
    pub(in super::super) past: Vec<BlockHash>,
    /// The lowest block, and its parent.
    lowest: (BlockHash, BlockHash),
    base: u64,
}

impl SimChain {
    pub(in super::super) fn new() -> Self {
        Self::from_block(&genesis(), 0)
    }

    /// A tree that starts at a trusted block.
    pub(in super::super) fn from_block(block: &SimBlock, height: u64) -> Self {
        let root = Node { parent: block.parent, height, slot: block.index };
        Self {
            nodes: [(block.hash, root)].into(),
            best: vec![block.hash],
            by_slot: false,
            finality: None,
            fails_at: None,
            stumbles_at: None,
            repeated: 0,
            max_height: None,
            reorgs: 0,
            refused: 0,
            wants_past: false,
            past: Vec::new(),
            lowest: (block.hash, block.parent),
            base: height,
        }
    }

    pub(in super::super) fn holding(blocks: &[SimBlock], by_slot: bool) -> Self {
        let mut chain = Self { by_slot, ..Self::new() };
        for block in &blocks[1..] {
            chain.accept(&[header(block)]).unwrap();
        }
        chain
    }

    pub(in super::super) fn node(&self, hash: BlockHash) -> Option<Node> {
        self.nodes.get(&hash).copied()
    }

    fn check(&self, header: &Header, parent: &Node) -> Result<Node, RefusedHeaders> {
        let refuse = || RefusedHeaders::Invalid(Arc::new(Fault::UnlinkedHeaders));
        let (index, is_valid) = read(&header.raw).ok_or_else(refuse)?;
        let height = parent.height + 1;
        let is_placed = if self.by_slot { index > parent.slot } else { index == height };
        if !is_valid || !is_placed {
            return Err(refuse());
        }
        if self.fails_at == Some(height) {
            return Err(RefusedHeaders::Store(Arc::new(Fault::NoHeaders)));
        }
        Ok(Node { parent: header.parent, height, slot: index })
    }

    /// Makes `last` the tip.
    fn switch(&mut self, last: BlockHash) -> Update {
        let keep = self.fork_point(last).unwrap().height + 1;
        let mut append = Vec::new();
        let mut at = last;
        while self.nodes[&at].height >= keep {
            append.push(at);
            at = self.nodes[&at].parent;
        }
        append.reverse();
        let keep_here = (keep - self.base) as usize;
        self.reorgs += usize::from(keep_here < self.best.len());
        self.best.truncate(keep_here);
        self.best.extend(&append);
        Update { keep, append }
    }
}

pub(in super::super) fn header(block: &SimBlock) -> Header {
    Header { hash: block.hash, parent: block.parent, raw: block.bytes.slice(..49) }
}

/// The index of a block, and whether it is valid.
fn read(bytes: &[u8]) -> Option<(u64, bool)> {
    let index = u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?);
    Some((index, *bytes.get(48)? == 1))
}

impl Chain for SimChain {
    fn tip(&self) -> BlockId {
        BlockId { height: self.base + self.best.len() as u64 - 1, hash: *self.best.last().unwrap() }
    }

    fn best_at(&self, height: u64) -> Option<BlockHash> {
        self.best.get(height.checked_sub(self.base)? as usize).copied()
    }

    fn find(&self, hash: BlockHash) -> Option<BlockId> {
        self.nodes.get(&hash).map(|node| BlockId { height: node.height, hash })
    }

    fn fork_point(&self, mut hash: BlockHash) -> Option<BlockId> {
        loop {
            let node = self.nodes.get(&hash)?;
            if self.best_at(node.height) == Some(hash) {
                return Some(BlockId { height: node.height, hash });
            }
            hash = node.parent;
        }
    }

    fn locator(&self, from: BlockHash) -> Vec<BlockHash> {
        vec![from]
    }

    fn accept(&mut self, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        let [header] = headers else { panic!("one by one") };
        if self.nodes.contains_key(&header.hash) {
            self.repeated += 1;
            return Ok(Accepted { added: 0, last: Some(header.hash), update: None });
        }
        let Some(parent) = self.node(header.parent) else {
            return Err(RefusedHeaders::UnknownParent { parent: header.parent });
        };
        let node = self.check(header, &parent).inspect_err(|_| self.refused += 1)?;
        if self.stumbles_at == Some(node.height) {
            self.stumbles_at = None;
            return Err(RefusedHeaders::UnknownParent { parent: header.parent });
        }
        if self.max_height.is_some_and(|max| node.height > max) {
            return Ok(Accepted { added: 0, last: Some(header.parent), update: None });
        }
        self.nodes.insert(header.hash, node);
        let update = (node.height > self.tip().height).then(|| self.switch(header.hash));
        Ok(Accepted { added: 1, last: Some(header.hash), update })
    }

    fn local_block(&self, _: BlockId) -> Option<Block> {
        None
    }

    fn read_head(&self, start: &[u8]) -> Option<BlockHead> {
        let (index, _) = read(start)?;
        let parent = BlockHash::from_bytes(start.get(..32)?.try_into().ok()?);
        let raw = Bytes::copy_from_slice(start.get(..49)?);
        let header = Header { hash: hash_of(start), parent, raw };
        Some(BlockHead { header, parents: vec![parent], index: Some(index) })
    }

    fn slot(&self, hash: BlockHash) -> Option<u64> {
        self.node(hash).map(|node| node.slot)
    }

    fn wanted_past(&self) -> Option<Past> {
        let (hash, parent) = self.lowest;
        let height = self.base - self.past.len() as u64;
        (self.wants_past && height > 0).then_some(Past { of: BlockId { height, hash }, parent })
    }

    fn accept_past(&mut self, head: &BlockHead, block: Block) -> Result<(), RefusedHeaders> {
        assert_eq!(Some(head.header.hash), self.wanted_past().map(|past| past.parent));
        assert_eq!(block.id.hash, head.header.hash);
        if !read(&head.header.raw).is_some_and(|(_, is_valid)| is_valid) {
            return Err(RefusedHeaders::Invalid(Arc::new(Fault::UnlinkedHeaders)));
        }
        self.past.push(head.header.hash);
        self.lowest = (head.header.hash, head.header.parent);
        Ok(())
    }

    fn irreversible(&self) -> u64 {
        self.finality.map_or(self.base, |depth| self.tip().height.saturating_sub(depth).max(self.base))
    }
}
