//! A block tree in which the longest branch is best and the first of equals stays.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use tipward_sync::{
    Accepted, Block, BlockHead, BlockId, Chain, Fault, Past, RefusedHeaders, Update, peer::wire::sha256d,
};

use super::{
    block::{HEADER, parents, read},
    *,
};

#[derive(Debug, Clone, Copy)]
struct Node {
    parent: BlockHash,
    height: u64,
    slot: u64,
}

#[derive(Debug)]
pub(crate) struct Tree {
    nodes: HashMap<BlockHash, Node>,
    pub(crate) best: Vec<BlockHash>,
    /// The height of the first block.
    base: u64,
    /// The trusted block that it starts at has its past fetched.
    pub(crate) wants_past: bool,
    /// The lowest block of the past so far, its height, and its parent.
    lowest: (BlockHash, u64, BlockHash),
    /// The first time that it is offered a block of this height it does not find the parent.
    pub(crate) stumbles_at: Option<u64>,
    /// The store fails at this height.
    pub(crate) fails_at: Option<u64>,
    /// How deep a reorg may go.
    pub(crate) finality: Option<u64>,
    /// How many blocks were offered and refused as invalid.
    pub(crate) refused: usize,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self::from_block(&chain(0)[0], 0)
    }

    /// A tree that starts at a trusted block.
    pub(crate) fn from_block(block: &SimBlock, height: u64) -> Self {
        let root = Node { parent: block.parent, height, slot: block.index };
        Self {
            nodes: [(block.hash, root)].into(),
            best: vec![block.hash],
            base: height,
            wants_past: false,
            lowest: (block.hash, height, block.parent),
            stumbles_at: None,
            fails_at: None,
            finality: None,
            refused: 0,
        }
    }

    pub(crate) fn contains(&self, hash: BlockHash) -> bool {
        self.nodes.contains_key(&hash)
    }

    fn node(&self, header: &Header, parent: Node) -> Result<Node, RefusedHeaders> {
        let height = parent.height + 1;
        match read(&header.raw) {
            Some((slot, true)) if slot > parent.slot => Ok(Node { parent: header.parent, height, slot }),
            _ => Err(RefusedHeaders::Invalid(Arc::new(Fault::UnlinkedHeaders))),
        }
    }

    fn switch(&mut self, last: BlockHash) -> Update {
        let keep = self.fork_point(last).unwrap().height + 1;
        let (mut append, mut at) = (Vec::new(), last);
        while self.nodes[&at].height >= keep {
            append.push(at);
            at = self.nodes[&at].parent;
        }
        append.reverse();
        self.best.truncate((keep - self.base) as usize);
        self.best.extend(&append);
        Update { keep, append }
    }
}

impl Chain for Tree {
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

    fn locator(&self, mut from: BlockHash) -> Vec<BlockHash> {
        let mut hashes = Vec::new();
        while let Some(node) = self.nodes.get(&from) {
            hashes.push(from);
            from = node.parent;
        }
        hashes
    }

    fn accept(&mut self, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        let parent = headers[0].parent;
        let mut above = *self.nodes.get(&parent).ok_or(RefusedHeaders::UnknownParent { parent })?;
        let mut nodes = Vec::new();
        for header in headers {
            above = self.node(header, above).inspect_err(|_| self.refused += 1)?;
            nodes.push((header.hash, above));
        }
        if self.stumbles_at == Some(above.height) {
            self.stumbles_at = None;
            return Err(RefusedHeaders::UnknownParent { parent });
        }
        if self.fails_at == Some(above.height) {
            return Err(RefusedHeaders::Store(Arc::new(Fault::NoHeaders)));
        }
        let before = self.nodes.len();
        self.nodes.extend(nodes);
        let last = headers.last().unwrap().hash;
        let update = (above.height > self.tip().height).then(|| self.switch(last));
        Ok(Accepted { added: self.nodes.len() - before, last: Some(last), update })
    }

    fn local_block(&self, id: BlockId) -> Option<Block> {
        (id.height == self.base).then(|| Block {
            id,
            parts: Vec::new(),
            transactions: 1,
            size: 285,
            served_by: None,
            is_streamed: false,
        })
    }

    fn read_head(&self, start: &[u8]) -> Option<BlockHead> {
        let raw = Bytes::copy_from_slice(start.get(..HEADER)?);
        // What follows the header is what that stands for, as far as it is there.
        let is_whole = start.len() < 4096 && start.get(HEADER) == Some(&1);
        if is_whole && raw[36..68] != sha256d(&start[HEADER + 1..]) {
            return None;
        }
        let (parents, (index, _)) = (parents(start)?, read(&raw)?);
        let header = Header { hash: BlockHash::from_bytes(sha256d(&raw)), parent: parents[0], raw };
        Some(BlockHead { header, parents, index: Some(index) })
    }

    fn irreversible(&self) -> u64 {
        self.finality.map_or(self.base, |depth| self.tip().height.saturating_sub(depth).max(self.base))
    }

    fn slot(&self, hash: BlockHash) -> Option<u64> {
        self.nodes.get(&hash).map(|node| node.slot)
    }

    fn wanted_past(&self) -> Option<Past> {
        let (hash, height, parent) = self.lowest;
        (self.wants_past && height > 0).then_some(Past { of: BlockId { height, hash }, parent })
    }

    fn accept_past(&mut self, head: &BlockHead, block: Block) -> Result<(), RefusedHeaders> {
        assert_eq!(block.id.hash, head.header.hash);
        if !read(&head.header.raw).is_some_and(|(_, is_valid)| is_valid) {
            return Err(RefusedHeaders::Invalid(Arc::new(Fault::UnlinkedHeaders)));
        }
        self.lowest = (head.header.hash, self.lowest.1 - 1, head.header.parent);
        Ok(())
    }
}
