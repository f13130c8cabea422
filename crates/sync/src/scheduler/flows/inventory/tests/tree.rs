//! What there is to be found: blocks, a tree that takes them, and what peers have of it.

use std::collections::BTreeSet;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use tipward_peer::wire::sha256d;

use super::*;
use crate::{Accepted, Block, BlockHead, Chain, RefusedHeaders, Update};

/// A block of a simulated chain or DAG. The hash stands for its name and for the hash of its parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) hash: BlockHash,
    pub(super) parents: Vec<BlockHash>,
    pub(super) height: u64,
    pub(super) bytes: Bytes,
}

/// A block with this name fails the checks that need no other block.
pub(super) const BROKEN: u64 = 666_666;

pub(super) fn make(name: u64, parents: &[&Made]) -> Made {
    let height = parents.iter().map(|parent| parent.height + 1).max().unwrap_or(0);
    let parents: Vec<BlockHash> = parents.iter().map(|parent| parent.hash).collect();
    let all: Vec<u8> = parents.iter().flat_map(|parent| *parent.as_bytes()).collect();
    let mut bytes = name.to_le_bytes().to_vec();
    bytes.extend(sha256d(&all));
    let hash = BlockHash::from_bytes(sha256d(&bytes));
    bytes.push(parents.len() as u8);
    bytes.extend(all);
    Made { hash, parents, height, bytes: Bytes::from(bytes) }
}

/// With other parents than its hash stands for.
pub(super) fn poisoned(block: &Made) -> Bytes {
    let mut bytes = block.bytes.to_vec();
    bytes.truncate(40);
    bytes.push(1);
    bytes.extend([7; 32]);
    Bytes::from(bytes)
}

pub(super) fn genesis() -> Made {
    make(0, &[])
}

/// A chain on top of `base`, so long in all.
pub(super) fn branch(base: &[Made], name: u64, length: u64) -> Vec<Made> {
    let mut chain = base.to_vec();
    while chain.len() as u64 <= length {
        let last = chain.last().unwrap();
        chain.push(make(name * 100_000 + chain.len() as u64, &[last]));
    }
    chain
}

pub(super) fn trunk(length: u64) -> Vec<Made> {
    branch(&[genesis()], 1, length)
}

/// A DAG of so many layers. Every block builds on up to three of the layer before and, now and then, on an older one.
pub(super) fn dag(layers: u64, seed: u64) -> Vec<Made> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut all = vec![genesis()];
    let mut last = all.clone();
    for layer in 1..=layers {
        let mut next = Vec::new();
        for n in 0..rng.u64(1..4) {
            let mut parents: Vec<&Made> = last.iter().filter(|_| rng.u8(..3) > 0).collect();
            if parents.is_empty() {
                parents.push(&last[0]);
            }
            let older = &all[rng.usize(..all.len())];
            if rng.u8(..4) == 0 && !parents.contains(&older) {
                parents.push(older);
            }
            next.push(make(layer * 10 + n, &parents));
        }
        next.sort_by_key(|block| block.hash);
        all.extend(next.iter().cloned());
        last = next;
    }
    all
}

/// The longest branch is best, the first of equals stays; of a DAG everything is, by height.
pub(super) struct Tree {
    pub(super) blocks: HashMap<BlockHash, (Vec<BlockHash>, u64)>,
    pub(super) best: Vec<BlockHash>,
    is_dag: bool,
    pub(super) invalid: BTreeSet<BlockHash>,
    pub(super) store_fails: bool,
}

impl Tree {
    pub(super) fn new(is_dag: bool) -> Self {
        let genesis = genesis().hash;
        let blocks = [(genesis, (Vec::new(), 0))].into();
        Self { blocks, best: vec![genesis], is_dag, invalid: BTreeSet::new(), store_fails: false }
    }

    fn path(&self, mut hash: BlockHash) -> Vec<BlockHash> {
        let mut path = vec![hash];
        while let Some(parent) = self.blocks[&hash].0.first() {
            path.push(*parent);
            hash = *parent;
        }
        path.reverse();
        path
    }
}

impl Chain for Tree {
    fn tip(&self) -> BlockId {
        BlockId { height: self.best.len() as u64 - 1, hash: *self.best.last().unwrap() }
    }

    fn best_at(&self, height: u64) -> Option<BlockHash> {
        self.best.get(height as usize).copied()
    }

    fn find(&self, hash: BlockHash) -> Option<BlockId> {
        self.blocks.get(&hash).map(|&(_, height)| BlockId { height, hash })
    }

    fn fork_point(&self, mut hash: BlockHash) -> Option<BlockId> {
        loop {
            let (parents, height) = self.blocks.get(&hash)?;
            let height =
                if self.is_dag { self.best.iter().position(|block| *block == hash)? as u64 } else { *height };
            if self.best_at(height) == Some(hash) {
                return Some(BlockId { height, hash });
            }
            hash = *parents.first()?;
        }
    }

    fn locator(&self, from: BlockHash) -> Vec<BlockHash> {
        let mut path = self.path(from);
        path.reverse();
        path
    }

    fn accept(&mut self, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        let [header] = headers else { panic!("one at a time") };
        let head = self.read_head(&header.raw).unwrap();
        assert!(!self.blocks.contains_key(&header.hash), "accepted twice");
        if let Some(&parent) = head.parents.iter().find(|parent| !self.blocks.contains_key(parent)) {
            panic!("{parent} is not known");
        }
        if self.store_fails {
            return Err(RefusedHeaders::Store(Arc::new(Fault::NoHeaders)));
        }
        if self.invalid.contains(&header.hash) {
            return Err(RefusedHeaders::Invalid(Arc::new(Fault::NoHeaders)));
        }
        let height = head.parents.iter().map(|parent| self.blocks[parent].1 + 1).max().unwrap();
        self.blocks.insert(header.hash, (head.parents, height));
        let old = self.best.clone();
        if self.is_dag {
            self.best = self.blocks.keys().copied().collect();
            self.best.sort_by_key(|hash| (self.blocks[hash].1, *hash));
        } else if height > self.tip().height {
            self.best = self.path(header.hash);
        }
        let keep = old.iter().zip(&self.best).take_while(|(old, new)| old == new).count();
        let append = self.best[keep..].to_vec();
        let update = (old != self.best).then_some(Update { keep: keep as u64, append });
        Ok(Accepted { added: 1, last: Some(header.hash), update })
    }

    fn local_block(&self, id: BlockId) -> Option<Block> {
        let (parts, transactions, served_by, is_streamed) = (Vec::new(), 1, None, false);
        (id.height == 0).then_some(Block { id, parts, transactions, size: 80, served_by, is_streamed })
    }

    fn read_head(&self, start: &[u8]) -> Option<BlockHead> {
        let (head, rest) = start.split_at_checked(40)?;
        let parents = rest.get(1..1 + 32 * usize::from(*rest.first()?))?;
        let is_broken = head[..8] == BROKEN.to_le_bytes();
        if sha256d(parents) != head[8..] || is_broken {
            return None;
        }
        let parents: Vec<BlockHash> =
            parents.chunks(32).map(|hash| BlockHash::from_bytes(hash.try_into().unwrap())).collect();
        let hash = BlockHash::from_bytes(sha256d(head));
        let parent = parents.first().copied().unwrap_or(BlockHash::ZERO);
        let header = Header { hash, parent, raw: Bytes::copy_from_slice(start) };
        Some(BlockHead { header, parents, index: None })
    }
}

/// What a simulated peer is like.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// By height.
    pub(super) chain: Vec<Made>,
    pub(super) claims: u64,
    pub(super) latency: Duration,
    pub(super) bytes_per_second: u64,
    /// Where it cuts a list.
    pub(super) batch: usize,
    /// After a full list it says so when its last block was served.
    pub(super) tells_of_cut: bool,
    pub(super) answers_lists: bool,
    /// Listed in place of its own.
    pub(super) phantoms: Vec<BlockHash>,
    /// Says nothing more after so many blocks.
    pub(super) silent_after: Option<u64>,
    /// Leaves after so many blocks.
    pub(super) leaves_after: Option<u64>,
    /// Says that it does not have these.
    pub(super) missing: BTreeSet<BlockHash>,
    /// Never sends these, and says nothing.
    pub(super) withheld: BTreeSet<BlockHash>,
    /// Sends these with wrong parents.
    pub(super) poisoned: BTreeSet<BlockHash>,
    /// From this second to that it sends nothing.
    pub(super) pause: Option<(u64, u64)>,
    /// Says that it does not have what it does not have.
    pub(super) says_missing: bool,
}

impl Model {
    pub(super) fn honest(chain: &[Made]) -> Self {
        Self {
            chain: chain.to_vec(),
            claims: chain.last().unwrap().height,
            latency: Duration::from_millis(50),
            bytes_per_second: 1_000_000,
            batch: 500,
            tells_of_cut: false,
            answers_lists: true,
            phantoms: Vec::new(),
            silent_after: None,
            leaves_after: None,
            missing: BTreeSet::new(),
            withheld: BTreeSet::new(),
            poisoned: BTreeSet::new(),
            pause: None,
            says_missing: true,
        }
    }

    pub(super) fn list(&self, locator: &[BlockHash], stop: BlockHash) -> Vec<BlockHash> {
        if !self.phantoms.is_empty() {
            return self.phantoms.clone();
        }
        let height =
            |hash: &BlockHash| self.chain.iter().find(|block| block.hash == *hash).map(|it| it.height);
        let from = locator.iter().find_map(height).unwrap_or(0);
        let end = height(&stop).unwrap_or(u64::MAX);
        let blocks = self.chain.iter().filter(|block| block.height > from && block.height <= end);
        blocks.take(self.batch).map(|block| block.hash).collect()
    }
}
