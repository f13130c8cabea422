//! All blocks that there will ever be in a run, and the tree that the scheduler sees of them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use fastrand::Rng;
use tipward_sync::{
    Accepted, Block, BlockHead, BlockId, Chain, RefusedHeaders, Update,
    peer::wire::{BlockHash, BlockPart, DownloadId, Header},
};

/// The largest part of a block in any run.
pub(crate) const MAX_PART: usize = 4 << 20;
/// Contents repeat after so many bytes; a multiple of a word. Blocks are numbered by the words of one period.
const PERIOD: usize = 1 << 22;
const WORD: usize = 8;
/// Genesis is not asked for.
const GENESIS_SIZE: u64 = 285;

/// Bytes of a block. All contents are windows on the same run of numbers, so that blocks of gigabytes cost nothing and
/// every byte can be checked: the block with number `n` starts with the word `n`.
pub(crate) fn content(block: u32, offset: u64, length: usize) -> &'static [u8] {
    static WORDS: OnceLock<Vec<u8>> = OnceLock::new();
    let words = WORDS.get_or_init(|| {
        (0..(PERIOD + MAX_PART) / WORD).flat_map(|n| ((n % (PERIOD / WORD)) as u64).to_le_bytes()).collect()
    });
    let start = (u64::from(block) * WORD as u64 + offset) % PERIOD as u64;
    &words[start as usize..][..length]
}

/// A block as it is in truth.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) hash: BlockHash,
    pub(crate) parent: u32,
    pub(crate) height: u32,
    pub(crate) size: u64,
    is_valid: bool,
}

/// How large blocks are.
#[derive(Debug, Clone)]
pub(crate) struct Sizes {
    /// Most of them: the logarithm is evenly spread in between.
    pub(crate) usual: (u64, u64),
    /// One in so many is as large as this.
    pub(crate) large: Option<(u64, u64)>,
}

impl Sizes {
    fn draw(&self, random: &mut Rng) -> u64 {
        match self.large {
            Some((one_in, size)) if random.u64(..one_in) == 0 => size - random.u64(..size / 4),
            _ => spread(random, self.usual),
        }
    }
}

/// A number between these, small ones as likely as large ones.
pub(crate) fn spread(random: &mut Rng, (low, high): (u64, u64)) -> u64 {
    let (from, to) = ((low as f64).ln(), (high as f64).ln());
    ((from + random.f64() * (to - from)).exp() as u64).clamp(low, high)
}

/// The branch that a node has, up to a height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) branch: usize,
    pub(crate) height: u32,
}

/// All blocks of a run, known or not yet.
#[derive(Debug)]
pub(crate) struct Universe {
    salt: u64,
    sizes: Sizes,
    blocks: Vec<Known>,
    /// Numbers of blocks from genesis on.
    branches: Vec<Vec<u32>>,
    /// Blocks count slots instead of heights.
    has_slots: bool,
}

impl Universe {
    /// Genesis and one branch of that height.
    pub(crate) fn new(random: &mut Rng, sizes: Sizes, height: u32, has_slots: bool) -> Self {
        let mut universe =
            Self { salt: random.u64(..), sizes, blocks: Vec::new(), branches: vec![Vec::new()], has_slots };
        (0..=height).for_each(|_| universe.grow(0, random, true));
        universe
    }

    /// A branch that leaves another one after `fork`, and breaks a rule at a height or not at all.
    pub(crate) fn fork(
        &mut self,
        of: usize,
        fork: u32,
        height: u32,
        breaks_at: Option<u32>,
        random: &mut Rng,
    ) -> usize {
        let branch = self.branches.len();
        self.branches.push(self.branches[of][..=fork as usize].to_vec());
        (fork + 1..=height).for_each(|at| self.grow(branch, random, breaks_at != Some(at)));
        branch
    }

    fn grow(&mut self, branch: usize, random: &mut Rng, is_valid: bool) {
        let number = self.blocks.len() as u32;
        assert!((number as usize) < PERIOD / WORD, "blocks are told apart by their first word");
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        hash[8..16].copy_from_slice(&self.salt.to_le_bytes());
        hash[16..20].copy_from_slice(&number.to_le_bytes());
        let path = &mut self.branches[branch];
        self.blocks.push(Known {
            hash: BlockHash::from_bytes(hash),
            parent: path.last().copied().unwrap_or(number),
            height: path.len() as u32,
            size: if path.is_empty() { GENESIS_SIZE } else { self.sizes.draw(random) },
            is_valid,
        });
        path.push(number);
    }

    pub(crate) fn block(&self, number: u32) -> &Known {
        &self.blocks[number as usize]
    }

    pub(crate) fn number(&self, hash: &BlockHash) -> Option<u32> {
        let number = u32::from_le_bytes(hash.as_bytes()[16..20].try_into().expect("four bytes"));
        (self.blocks.get(number as usize)?.hash == *hash).then_some(number)
    }

    pub(crate) fn at(&self, view: View, height: u64) -> Option<u32> {
        let number = *self.branches[view.branch].get(usize::try_from(height).ok()?)?;
        (height <= u64::from(view.height)).then_some(number)
    }

    pub(crate) fn contains(&self, view: View, number: u32) -> bool {
        self.at(view, u64::from(self.block(number).height)) == Some(number)
    }

    /// Whether a block is another one or comes after it.
    pub(crate) fn descends(&self, mut number: u32, from: u32) -> bool {
        while self.block(number).height > self.block(from).height {
            number = self.block(number).parent;
        }
        number == from
    }

    /// Whether neither the block nor one before it breaks a rule.
    pub(crate) fn is_valid(&self, mut number: u32) -> bool {
        while number != 0 && self.block(number).is_valid {
            number = self.block(number).parent;
        }
        number == 0
    }

    /// The last block that both have.
    pub(crate) fn fork_height(&self, one: View, other: View) -> u32 {
        let paths = self.branches[one.branch].iter().zip(&self.branches[other.branch]);
        let common = paths.take_while(|(one, other)| one == other).count() as u32 - 1;
        common.min(one.height).min(other.height)
    }

    /// Where a locator leads on this view.
    pub(crate) fn find(&self, locator: &[BlockHash], view: View) -> u32 {
        let known = |hash| self.number(hash).filter(|number| self.contains(view, *number));
        locator.iter().find_map(known).map_or(0, |number| self.block(number).height)
    }

    /// What the block says where it is to be found: a height, or a slot. Slots are left out.
    pub(crate) fn index(&self, number: u32) -> u64 {
        let height = u64::from(self.block(number).height);
        if self.has_slots { height * 3 + u64::from(number % 2) } else { height }
    }

    /// What the last block of a view says of itself.
    pub(crate) fn top(&self, view: View) -> u64 {
        self.at(view, u64::from(view.height)).map_or(0, |number| self.index(number))
    }

    pub(crate) fn header(&self, number: u32) -> Header {
        let block = self.block(number);
        let parent = if block.height == 0 { BlockHash::ZERO } else { self.block(block.parent).hash };
        Header { hash: block.hash, parent, raw: Bytes::new() }
    }

    pub(crate) fn bytes_up_to(&self, view: View) -> u64 {
        let path = &self.branches[view.branch][..=view.height as usize];
        path.iter().map(|number| self.block(*number).size).sum()
    }

    pub(crate) fn largest(&self) -> u64 {
        self.blocks.iter().map(|block| block.size).max().unwrap_or(0)
    }
}

/// The tree that headers are put into: the longest branch is best and the first of equals stays.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    universe: Arc<Universe>,
    is_known: Vec<bool>,
    best: Vec<u32>,
    /// Headers taken.
    pub(crate) added: u64,
}

/// What is wrong with the headers of an invalid branch.
#[derive(Debug, thiserror::Error)]
#[error("a rule is broken at height {0}")]
struct Broken(u32);

impl Tree {
    pub(crate) fn new(universe: Arc<Universe>) -> Self {
        let mut is_known = vec![false; universe.blocks.len()];
        is_known[0] = true;
        Self { universe, is_known, best: vec![0], added: 0 }
    }

    fn id(&self, number: u32) -> BlockId {
        let block = self.universe.block(number);
        BlockId { height: u64::from(block.height), hash: block.hash }
    }

    fn known(&self, hash: &BlockHash) -> Option<u32> {
        self.universe.number(hash).filter(|number| self.is_known[*number as usize])
    }

    fn is_best(&self, number: u32) -> bool {
        self.best.get(self.universe.block(number).height as usize) == Some(&number)
    }
}

impl Chain for Tree {
    fn tip(&self) -> BlockId {
        self.id(*self.best.last().expect("genesis is never cut off"))
    }

    fn best_at(&self, height: u64) -> Option<BlockHash> {
        let number = *self.best.get(usize::try_from(height).ok()?)?;
        Some(self.universe.block(number).hash)
    }

    fn find(&self, hash: BlockHash) -> Option<BlockId> {
        self.known(&hash).map(|number| self.id(number))
    }

    fn fork_point(&self, hash: BlockHash) -> Option<BlockId> {
        let mut number = self.known(&hash)?;
        while !self.is_best(number) {
            number = self.universe.block(number).parent;
        }
        Some(self.id(number))
    }

    fn locator(&self, from: BlockHash) -> Vec<BlockHash> {
        let Some(mut number) = self.known(&from) else { return Vec::new() };
        let (mut hashes, mut step) = (Vec::new(), 1);
        loop {
            let block = self.universe.block(number);
            hashes.push(block.hash);
            if block.height == 0 {
                return hashes;
            }
            if hashes.len() >= 10 {
                step *= 2;
            }
            for _ in 0..step {
                number = self.universe.block(number).parent;
            }
        }
    }

    fn accept(&mut self, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        let parent = headers.first().map_or(BlockHash::ZERO, |header| header.parent);
        let mut last = self.known(&parent).ok_or(RefusedHeaders::UnknownParent { parent })?;
        let universe = Arc::clone(&self.universe);
        let mut numbers = Vec::with_capacity(headers.len());
        for header in headers {
            let invalid = || RefusedHeaders::Invalid(Arc::new(Broken(universe.block(last).height + 1)));
            let number = universe.number(&header.hash).ok_or_else(invalid)?;
            let block = universe.block(number);
            if !block.is_valid || block.parent != last || header.parent != universe.block(last).hash {
                return Err(invalid());
            }
            numbers.push(number);
            last = number;
        }
        let before = self.added;
        for number in numbers {
            self.added += u64::from(!self.is_known[number as usize]);
            self.is_known[number as usize] = true;
        }
        let mut update = None;
        if universe.block(last).height as usize >= self.best.len() {
            let (mut append, mut at) = (Vec::new(), last);
            while !self.is_best(at) {
                append.push(at);
                at = universe.block(at).parent;
            }
            let keep = universe.block(at).height + 1;
            self.best.truncate(keep as usize);
            self.best.extend(append.iter().rev());
            let append = append.iter().rev().map(|number| universe.block(*number).hash).collect();
            update = Some(Update { keep: u64::from(keep), append });
        }
        Ok(Accepted { added: (self.added - before) as usize, last: Some(universe.block(last).hash), update })
    }

    fn local_block(&self, id: BlockId) -> Option<Block> {
        let genesis = self.universe.block(0);
        (id.hash == genesis.hash).then(|| Block {
            id,
            parts: vec![part(&self.universe, 0, 0, (0, genesis.size), DownloadId(0), Bytes::from_static)],
            transactions: 1,
            size: genesis.size,
            served_by: None,
            is_streamed: false,
        })
    }

    fn slot(&self, hash: BlockHash) -> Option<u64> {
        self.known(&hash).map(|number| self.universe.index(number))
    }

    fn read_head(&self, start: &[u8]) -> Option<BlockHead> {
        let number = u64::from_le_bytes(*start.first_chunk()?) as u32;
        self.universe.blocks.get(number as usize)?;
        let header = self.universe.header(number);
        let parents = (number != 0).then_some(header.parent).into_iter().collect();
        Some(BlockHead { parents, index: Some(self.universe.index(number)), header })
    }
}

/// The bytes of a block from one offset to another, as one part. One transaction starts in each part.
pub(crate) fn part(
    universe: &Universe,
    number: u32,
    index: u32,
    (from, to): (u64, u64),
    download: DownloadId,
    hold: impl Fn(&'static [u8]) -> Bytes,
) -> BlockPart {
    let block = universe.block(number);
    BlockPart {
        block: block.hash,
        download,
        block_size: block.size,
        index,
        offset: from,
        first_transaction: u64::from(index),
        transactions: vec![if index == 0 { 81 } else { 0 }],
        bytes: hold(content(number, from, (to - from) as usize)),
        ends_inside_transaction: false,
    }
}
