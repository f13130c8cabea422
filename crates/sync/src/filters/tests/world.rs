//! A chain, peers, a sink and a clock.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    error::Error,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use fastrand::Rng;
use tipward_peer::{
    PeerId, Reply, Want,
    wire::{BlockEnd, BlockHash, BlockPart, DownloadId, FilterHash, FilterHeader, Header, Verdict, sha256d},
};

use crate::{
    Accepted, Block, BlockId, Chain, FilterRules, Output, RefusedHeaders, SyncOptions, WatchSet,
    filters::{FilterFigures, FilterInput, Filters, View},
};

const PATIENCE: Duration = Duration::from_secs(600);
/// Scripts are numbers; those below are ours, and paid in their order.
const OURS: u32 = 1000;

/// What a peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    Honest,
    LacksOutputs,
    LacksSpent,
    HasMore,
    WrongBytes,
    Malformed,
    Equivocates,
    /// Tells the right hashes, after headers that it makes up each time.
    MakesUpHeaders,
    SilentOnHashes,
    SilentOnFilters,
    SilentOnBlocks,
    LacksBlocks,
    ServesNone,
    /// Tells hashes of false filters, and sends none.
    ClaimsInVain,
    /// Tells hashes, and then can't be asked for filters.
    ServesHashesAlone,
    /// Honest but for a byte too many, which who looks for what is low does not get to see.
    HasExcess,
    /// Sends one filter at a time, and of blocks nothing but a byte now and then.
    Trickles,
    /// Honest, and has shown no block for the first seconds.
    Late,
    /// Honest, and lost now and then.
    Restless,
}
/// How long until who is late shows what it has.
const LATE: Duration = Duration::from_secs(5);

/// Filters are lists of scripts, blocks too: what they pay, then how many outputs they spend.
#[derive(Debug, Default)]
struct Toy {
    /// How often a block was asked about a filter.
    judged: AtomicU64,
}

fn list(scripts: &BTreeSet<u32>) -> Bytes {
    let mut bytes = BytesMut::new();
    scripts.iter().for_each(|script| bytes.put_u32(*script));
    bytes.freeze()
}

fn read(bytes: &[u8]) -> BTreeSet<u32> {
    bytes.as_chunks::<4>().0.iter().map(|chunk| u32::from_be_bytes(*chunk)).collect()
}

impl FilterRules for Toy {
    fn hash(&self, filter: &Bytes) -> FilterHash {
        FilterHash::from_bytes(sha256d(filter))
    }

    fn header(&self, hash: FilterHash, previous: FilterHeader) -> FilterHeader {
        FilterHeader::from_bytes(sha256d([*hash.as_bytes(), *previous.as_bytes()].as_flattened()))
    }

    fn matches(
        &self,
        _block: BlockHash,
        filter: &Bytes,
        scripts: &[Bytes],
    ) -> Result<bool, Box<dyn Error + Send + Sync>> {
        let content = read(filter);
        let is_read = |script: &Bytes| read(script).last() > content.last();
        if !filter.len().is_multiple_of(4) && scripts.iter().any(is_read) {
            return Err("it is cut".into());
        }
        Ok(scripts.iter().any(|script| read(script).iter().any(|script| content.contains(script))))
    }

    fn refute(&self, filter: &Bytes, block: &Block) -> Option<String> {
        self.judged.fetch_add(1, Ordering::Relaxed);
        let bytes = block.bytes();
        let (spent, outputs) = (usize::from(bytes[0]), read(&bytes[1..]));
        let content = read(filter);
        let is_right = filter.len().is_multiple_of(4)
            && content.is_superset(&outputs)
            && content.len() <= outputs.len() + spent;
        (!is_right).then(|| "it is false".to_owned())
    }
}

#[derive(Debug, Clone)]
struct ToyBlock {
    height: u64,
    parent: BlockHash,
    outputs: BTreeSet<u32>,
    spent: BTreeSet<u32>,
}

impl ToyBlock {
    fn bytes(&self) -> Bytes {
        [&[self.spent.len() as u8 + 1][..], &list(&self.outputs)].concat().into()
    }

    fn filter(&self, nature: Nature, is_odd: bool) -> Bytes {
        let (outputs, spent) = (&self.outputs, &self.spent);
        let mut content: BTreeSet<u32> = outputs.union(spent).copied().collect();
        match nature {
            Nature::LacksOutputs | Nature::ClaimsInVain => content = spent.clone(),
            Nature::LacksSpent => content = outputs.clone(),
            Nature::HasMore => _ = content.insert(77_777),
            Nature::Equivocates if is_odd => content = outputs.iter().copied().skip(1).collect(),
            Nature::Malformed => return Bytes::from_static(b"x"),
            Nature::HasExcess => return [&list(&content)[..], b"x"].concat().into(),
            _ => {}
        }
        list(&content)
    }
}

struct ToyChain {
    blocks: BTreeMap<BlockHash, ToyBlock>,
    best: Vec<BlockHash>,
}

impl ToyChain {
    fn extend(&mut self, count: u64, random: &mut Rng, next: &mut u32) {
        for _ in 0..count {
            let height = self.best.len() as u64;
            let mut outputs: BTreeSet<u32> = (0..random.u32(1..6)).map(|_| random.u32(OURS..9999)).collect();
            let mut spent: BTreeSet<u32> = (0..random.u32(0..3)).map(|_| random.u32(OURS..9999)).collect();
            match random.u8(..) {
                0..40 => {
                    outputs.insert(*next);
                    *next += 1;
                }
                40..50 => _ = spent.insert(random.u32(0..1 + *next)),
                _ => {}
            }
            let hash = BlockHash::from_bytes(sha256d(&random.u128(..).to_be_bytes()));
            let parent = self.best.last().copied().unwrap_or(BlockHash::ZERO);
            self.blocks.insert(hash, ToyBlock { height, parent, outputs, spent });
            self.best.push(hash);
        }
    }

    fn id(&self, hash: BlockHash) -> Option<BlockId> {
        Some(BlockId { height: self.blocks.get(&hash)?.height, hash })
    }
}

impl Chain for ToyChain {
    fn tip(&self) -> BlockId {
        BlockId { height: self.best.len() as u64 - 1, hash: *self.best.last().unwrap() }
    }

    fn best_at(&self, height: u64) -> Option<BlockHash> {
        self.best.get(height as usize).copied()
    }

    fn find(&self, hash: BlockHash) -> Option<BlockId> {
        self.id(hash)
    }

    fn fork_point(&self, mut hash: BlockHash) -> Option<BlockId> {
        loop {
            let id = self.id(hash)?;
            if self.best_at(id.height) == Some(hash) {
                return Some(id);
            }
            hash = self.blocks[&hash].parent;
        }
    }

    fn locator(&self, from: BlockHash) -> Vec<BlockHash> {
        vec![from]
    }

    fn accept(&mut self, _headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        Ok(Accepted { added: 0, last: None, update: None })
    }

    fn local_block(&self, id: BlockId) -> Option<Block> {
        let is_genesis = id.height == 0;
        is_genesis.then(|| Block {
            id,
            parts: Vec::new(),
            transactions: 1,
            size: 0,
            served_by: None,
            is_streamed: false,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Replies(u64, usize),
    Done,
    Reorg,
    Lose(u64),
    Join(u64),
    News,
}

pub(super) struct World {
    random: Rng,
    start: Instant,
    now: Instant,
    chain: ToyChain,
    filters: Filters,
    rules: Arc<Toy>,
    watch: WatchSet,
    natures: BTreeMap<u64, Nature>,
    connected: BTreeSet<u64>,
    dropped: Vec<u64>,
    replies: Vec<Vec<Reply>>,
    questions: u64,
    queue: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    sequence: u64,
    next: u32,
    /// Where the sink is, and what it does now and next.
    cursor: Option<BlockId>,
    given: Vec<Output>,
    reorgs: u32,
    most: Cell<u64>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let (blocks, reorgs) = (random.u64(1..900), random.u32(0..3));
        let options = SyncOptions {
            byte_budget: 1 << 20,
            window: random.usize(1..2000),
            stay_behind: random.u64(0..3),
            ..SyncOptions::default()
        };
        Self::with(random, blocks, reorgs, options)
    }

    pub(super) fn with(mut random: Rng, blocks: u64, reorgs: u32, options: SyncOptions) -> Self {
        let mut chain = ToyChain { blocks: BTreeMap::new(), best: Vec::new() };
        let (mut next, watch) = (0, WatchSet::new());
        chain.extend(blocks, &mut random, &mut next);
        (0..3).for_each(|script| _ = watch.insert(script_of(script)));
        let start = Instant::now();
        let rules = Arc::new(Toy::default());
        let mut filters = Filters::new(options, None, rules.clone(), watch.clone());
        // That of these filters.
        filters.average = 20;
        filters.is_settled = true;
        let mut world = Self {
            random,
            start,
            now: start,
            chain,
            filters,
            rules,
            watch,
            natures: BTreeMap::new(),
            connected: BTreeSet::new(),
            dropped: Vec::new(),
            replies: Vec::new(),
            questions: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            next,
            cursor: None,
            given: Vec::new(),
            reorgs,
            most: Cell::new(0),
        };
        for _ in 0..reorgs {
            let at = Duration::from_millis(world.random.u64(0..5000));
            world.later(at, Event::Reorg);
        }
        world
    }

    pub(super) fn any_nature(&mut self) -> Nature {
        use Nature::*;
        let all = [
            LacksOutputs,
            LacksSpent,
            HasMore,
            WrongBytes,
            Malformed,
            Equivocates,
            MakesUpHeaders,
            SilentOnHashes,
            SilentOnFilters,
            SilentOnBlocks,
            LacksBlocks,
            ServesNone,
            ClaimsInVain,
            ServesHashesAlone,
            HasExcess,
            Trickles,
            Late,
            Restless,
        ];
        all[self.random.usize(..all.len())]
    }

    pub(super) fn connect(&mut self, natures: &[Nature]) {
        for nature in natures {
            let id = self.natures.len() as u64;
            self.natures.insert(id, *nature);
            self.later(Duration::ZERO, Event::Join(id));
        }
        self.later(LATE, Event::News);
    }

    pub(super) fn watch(&self, script: u32) {
        self.watch.insert(script_of(script));
    }

    /// Another branch is best although it has fewer blocks.
    pub(super) fn shorten(&mut self, by: usize) {
        self.chain.best.truncate(self.chain.best.len() - 2 * by);
        self.chain.extend(by as u64, &mut self.random, &mut self.next);
        self.tell(FilterInput::News);
    }

    pub(super) fn judged(&self) -> u64 {
        self.rules.judged.load(Ordering::Relaxed)
    }

    /// Where the sink is, if it need not go back.
    pub(super) fn applied(&self) -> Option<BlockId> {
        self.filters.applied(&self.chain)
    }

    pub(super) fn dropped(&self) -> &[u64] {
        &self.dropped
    }

    pub(super) fn figures(&self) -> FilterFigures {
        self.filters.figures()
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(super) fn most_buffered(&self) -> u64 {
        self.most.get()
    }

    fn later(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + after, self.sequence, event)));
    }

    fn is_done(&self) -> bool {
        let target = self.chain.tip().height.saturating_sub(self.filters.options.stay_behind);
        let at = self.cursor.filter(|_| self.given.is_empty() && self.reorgs == 0);
        at.is_some_and(|at| at.height >= target && self.chain.best_at(at.height) == Some(at.hash))
    }

    /// Runs until the sink is at the tip and nothing more is to happen to the chain.
    pub(super) fn run(&mut self, seed: u64) {
        while !self.is_done() {
            self.step(seed);
        }
        let honest = |id: &u64| matches!(self.natures[id], Nature::Honest | Nature::Restless | Nature::Late);
        assert!(!self.dropped.iter().any(honest), "seed {seed}: {:?} of {:?}", self.dropped, self.natures);
    }

    /// Lets the next thing happen.
    pub(super) fn step(&mut self, seed: u64) {
        let event = self.queue.peek().map(|Reverse(next)| next.0);
        let deadline = self.filters.deadline();
        let next = event.into_iter().chain(deadline).min();
        let next = next.unwrap_or_else(|| panic!("seed {seed}: it waits for nothing at {:?}", self.cursor));
        self.now = self.now.max(next);
        assert!(self.elapsed() < PATIENCE, "seed {seed}: at {:?}, {:?}", self.cursor, self.natures);
        match event.filter(|at| *at <= self.now).and_then(|_| self.queue.pop()) {
            Some(Reverse((_, _, event))) => self.happen(event),
            None => self.tell(FilterInput::Tick),
        }
        self.most.set(self.most.get().max(self.filters.buffered_bytes()));
    }

    /// A peer is gone for good.
    pub(super) fn lose(&mut self, id: u64) {
        self.connected.remove(&id);
        self.tell(FilterInput::Disconnected(PeerId(id)));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Replies(id, at) => {
                for reply in std::mem::take(&mut self.replies[at]) {
                    if self.connected.contains(&id) {
                        self.tell(FilterInput::Reply(PeerId(id), reply));
                    }
                }
            }
            Event::Done => {
                let given = std::mem::take(&mut self.given);
                let count = given.len();
                given.into_iter().for_each(|output| self.sink(output));
                self.tell(FilterInput::Delivered(count));
            }
            Event::Reorg => {
                self.reorgs -= 1;
                let depth = self.random.u64(0..20).min(self.chain.best.len() as u64 - 1);
                self.chain.best.truncate(self.chain.best.len() - depth as usize);
                self.chain.extend(depth + 1, &mut self.random, &mut self.next);
                self.tell(FilterInput::News);
            }
            Event::Lose(id) if self.connected.remove(&id) => {
                self.tell(FilterInput::Disconnected(PeerId(id)));
                self.later(Duration::from_millis(500), Event::Join(id));
            }
            Event::Lose(_) => {}
            Event::News => self.tell(FilterInput::News),
            Event::Join(id) => {
                self.connected.insert(id);
                self.tell(FilterInput::Connected(PeerId(id)));
                if self.natures[&id] == Nature::Restless {
                    let after = Duration::from_millis(self.random.u64(100..3000));
                    self.later(after, Event::Lose(id));
                }
            }
        }
    }

    fn tell(&mut self, input: FilterInput) {
        let top = self.chain.tip().height;
        let is_early = self.now < self.start + LATE;
        let is_hidden = |peer: PeerId| is_early && self.natures[&peer.0] == Nature::Late;
        let serves = |peer: PeerId| if is_hidden(peer) { RangeInclusive::new(1, 0) } else { 0..=top };
        let view = View { chain: &self.chain, serves: &serves, may_fetch: true };
        self.filters.handle(self.now, input, &view);
        while let Some(output) = self.filters.poll() {
            match output {
                Output::Ask(PeerId(id), want) => self.ask(id, &want),
                Output::Drop(PeerId(id), _) => {
                    self.connected.remove(&id);
                    self.dropped.push(id);
                }
                Output::Apply(_) | Output::Skip(_) | Output::Rollback(_) => {
                    if self.given.is_empty() {
                        let after = Duration::from_millis(self.random.u64(0..20));
                        self.later(after, Event::Done);
                    }
                    self.given.push(output);
                }
                Output::Event(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    /// The sink holds what it is told to the chain: in order, once, and nothing of ours skipped.
    fn sink(&mut self, output: Output) {
        match output {
            Output::Apply(block) => {
                let toy = &self.chain.blocks[&block.id.hash];
                assert_eq!(self.cursor.map_or(0, |at| at.height + 1), block.id.height);
                assert!(self.cursor.is_none_or(|at| toy.parent == at.hash));
                for script in toy.outputs.iter().filter(|script| **script < OURS) {
                    (*script..script + 4).for_each(|script| _ = self.watch.insert(script_of(script)));
                }
                self.cursor = Some(block.id);
            }
            Output::Skip(to) => {
                let (from, mut hash) = (self.cursor.unwrap(), to.hash);
                assert!(to.height > from.height);
                while hash != from.hash {
                    let toy = &self.chain.blocks[&hash];
                    assert!(toy.height > from.height, "it does not build on where the sink is");
                    let mut content = toy.outputs.union(&toy.spent);
                    assert!(
                        !content.any(|script| self.watch.contains(&script_of(*script))),
                        "height {} is ours and skipped: {:?}",
                        toy.height,
                        self.natures
                    );
                    hash = toy.parent;
                }
                self.cursor = Some(to);
            }
            Output::Rollback(to) => {
                assert!(self.cursor.unwrap().height > to.height);
                self.cursor = Some(to);
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    fn ask(&mut self, id: u64, want: &Want) {
        self.questions += 1;
        let nature = self.natures[&id];
        let replies = self.answer(nature, want);
        if nature == Nature::Trickles {
            for (reply, turn) in replies.into_iter().zip(1..) {
                self.replies.push(vec![reply]);
                self.later(turn * Duration::from_millis(1500), Event::Replies(id, self.replies.len() - 1));
            }
            return;
        }
        if !replies.is_empty() {
            self.replies.push(replies);
            let after = Duration::from_millis(self.random.u64(1..300));
            self.later(after, Event::Replies(id, self.replies.len() - 1));
        }
    }

    fn answer(&self, nature: Nature, want: &Want) -> Vec<Reply> {
        let is_odd = self.questions % 2 == 1;
        match want {
            Want::FilterHashes { .. } | Want::Filters { .. } if nature == Nature::ServesNone => {
                vec![Reply::Unsupported(want.clone())]
            }
            Want::Filters { .. } if nature == Nature::ServesHashesAlone => {
                vec![Reply::Unsupported(want.clone())]
            }
            Want::Blocks(_) if nature == Nature::Trickles => vec![Reply::Progress { received: 1 }; 400],
            Want::FilterHashes { .. } if nature == Nature::SilentOnHashes => vec![],
            Want::Filters { .. } if matches!(nature, Nature::SilentOnFilters | Nature::ClaimsInVain) => {
                vec![]
            }
            Want::Blocks(_) if nature == Nature::SilentOnBlocks => vec![],
            Want::Blocks(blocks) if nature == Nature::LacksBlocks => vec![Reply::Missing(blocks.clone())],
            Want::FilterHashes { count, stop, .. } => {
                let mut branch = self.branch(*stop, nature, is_odd);
                let after = branch.split_off(branch.len() - *count as usize);
                let first = if nature == Nature::MakesUpHeaders { self.questions as u8 } else { 0 };
                let first = FilterHeader::from_bytes([first; 32]);
                let previous = branch.iter().fold(first, |previous, hash| self.rules.header(*hash, previous));
                vec![Reply::FilterHashes { stop: *stop, previous, hashes: after }]
            }
            Want::Filters { blocks, .. } => {
                let filter = |block: &BlockHash| {
                    let nature = if nature == Nature::WrongBytes { Nature::LacksOutputs } else { nature };
                    let bytes = self.chain.blocks[block].filter(nature, is_odd);
                    Reply::Filter { block: *block, bytes }
                };
                blocks.iter().map(filter).collect()
            }
            Want::Blocks(blocks) => blocks.iter().flat_map(|block| self.block(*block)).collect(),
            _ => vec![],
        }
    }

    /// The hashes of the filters up to a block.
    fn branch(&self, mut hash: BlockHash, nature: Nature, is_odd: bool) -> Vec<FilterHash> {
        let mut hashes = Vec::new();
        while let Some(block) = self.chain.blocks.get(&hash) {
            hashes.push(self.rules.hash(&block.filter(nature, is_odd)));
            hash = block.parent;
        }
        hashes.reverse();
        hashes
    }

    fn block(&self, block: BlockHash) -> [Reply; 2] {
        let (bytes, download) = (self.chain.blocks[&block].bytes(), DownloadId(self.questions));
        let size = bytes.len() as u64;
        let end = BlockEnd {
            block,
            download,
            transactions: 1,
            size,
            parts: 1,
            checksum: Verdict::Verified,
            merkle_root: Verdict::Verified,
        };
        let part = BlockPart {
            block,
            download,
            block_size: size,
            index: 0,
            offset: 0,
            first_transaction: 0,
            transactions: vec![0],
            bytes,
            ends_inside_transaction: false,
        };
        [Reply::Part(part), Reply::BlockEnd(end)]
    }
}

fn script_of(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}
