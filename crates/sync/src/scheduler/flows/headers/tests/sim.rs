//! Simulated peers, a tree and a clock.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tipward_peer::{
    PeerId, PeerInfo, Want,
    wire::{BlockHash, Header},
};

use super::super::HeadersFlow;
use crate::{
    Accepted, Block, BlockId, Chain, RefusedHeaders, SyncOptions, Update,
    scheduler::{
        Fault,
        flow::{FlowContext, FlowInput, FlowOutput},
    },
};

/// A full answer has so many headers.
pub(super) const BATCH: usize = 20;

/// Block `n` of branch `branch`; branches share block 0.
pub(super) fn hash(branch: u8, n: u64) -> BlockHash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    bytes[8] = if n == 0 { 0 } else { branch };
    bytes[9] = 1;
    BlockHash::from_bytes(bytes)
}

/// A branch that leaves another one after `fork`.
pub(super) fn branch(of: &[BlockHash], fork: u64, name: u8, length: u64) -> Vec<BlockHash> {
    let trunk = of.iter().take(fork as usize + 1).copied();
    trunk.chain((fork + 1..=length).map(|n| hash(name, n))).collect()
}

pub(super) fn trunk(length: u64) -> Vec<BlockHash> {
    branch(&[hash(0, 0)], 0, 1, length)
}

pub(super) fn headers(chain: &[BlockHash], heights: std::ops::RangeInclusive<usize>) -> Vec<Header> {
    heights.map(|n| Header { hash: chain[n], parent: chain[n - 1], raw: Bytes::new() }).collect()
}

/// A tree in which the longest branch is best and the first of equals stays.
pub(super) struct Tree {
    parents: HashMap<BlockHash, (u64, BlockHash)>,
    best: Vec<BlockHash>,
    /// A header that breaks a rule.
    pub(super) invalid: Option<BlockHash>,
    /// Headers above this height are passed over.
    pub(super) limit: u64,
}

impl Tree {
    pub(super) fn new() -> Self {
        let genesis = hash(0, 0);
        Self {
            parents: [(genesis, (0, BlockHash::ZERO))].into(),
            best: vec![genesis],
            invalid: None,
            limit: u64::MAX,
        }
    }

    pub(super) fn best(&self) -> &[BlockHash] {
        &self.best
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
        self.parents.get(&hash).map(|&(height, _)| BlockId { height, hash })
    }

    fn fork_point(&self, mut hash: BlockHash) -> Option<BlockId> {
        loop {
            let (height, parent) = *self.parents.get(&hash)?;
            if self.best_at(height) == Some(hash) {
                return Some(BlockId { height, hash });
            }
            hash = parent;
        }
    }

    fn locator(&self, mut from: BlockHash) -> Vec<BlockHash> {
        let mut hashes = vec![from];
        let mut step = 1;
        while from != self.best[0] {
            for _ in 0..step {
                from = self.parents.get(&from).map_or(self.best[0], |&(height, parent)| {
                    if height == 0 { self.best[0] } else { parent }
                });
            }
            hashes.push(from);
            step = if hashes.len() >= 10 { step * 2 } else { 1 };
        }
        hashes
    }

    fn accept(&mut self, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        let parent = headers[0].parent;
        let Some(&(mut height, _)) = self.parents.get(&parent) else {
            return Err(RefusedHeaders::UnknownParent { parent });
        };
        if headers.iter().any(|header| Some(header.hash) == self.invalid) {
            return Err(RefusedHeaders::Invalid(Arc::new(Fault::BrokenParts)));
        }
        let before = self.parents.len();
        let mut last = parent;
        let room = self.limit.saturating_sub(height) as usize;
        for header in headers.iter().take(room) {
            height += 1;
            self.parents.insert(header.hash, (height, header.parent));
            last = header.hash;
        }
        let mut update = None;
        if height > self.tip().height {
            let keep = self.fork_point(last).unwrap().height + 1;
            let mut append = Vec::new();
            let mut at = last;
            while self.parents[&at].0 >= keep {
                append.push(at);
                at = self.parents[&at].1;
            }
            append.reverse();
            self.best.truncate(keep as usize);
            self.best.extend(&append);
            update = Some(Update { keep, append });
        }
        Ok(Accepted { added: self.parents.len() - before, last: Some(last), update })
    }

    fn local_block(&self, _: BlockId) -> Option<Block> {
        None
    }
}

/// What a simulated peer is like.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) chain: Rc<Vec<BlockHash>>,
    pub(super) claim: u64,
    /// From the question to the answer, in milliseconds.
    pub(super) answers_after: u64,
    /// How many questions it answers.
    pub(super) answers: u32,
    /// How many questions it leaves unanswered before.
    pub(super) ignores: u32,
    /// Answers every question with its first headers, and says there are more.
    pub(super) is_broken_record: bool,
}

impl Model {
    pub(super) fn honest(chain: &[BlockHash]) -> Self {
        Self {
            chain: Rc::new(chain.to_vec()),
            claim: chain.len() as u64 - 1,
            answers_after: 100,
            answers: u32::MAX,
            ignores: 0,
            is_broken_record: false,
        }
    }

    pub(super) fn silent(chain: &[BlockHash]) -> Self {
        Self { answers: 0, ..Self::honest(chain) }
    }

    fn answer(&mut self, locator: &[BlockHash]) -> Option<(Vec<Header>, bool)> {
        if self.ignores > 0 {
            self.ignores -= 1;
            return None;
        }
        self.answers = self.answers.checked_sub(1)?;
        let known = |hash: &BlockHash| self.chain.iter().position(|block| block == hash);
        let from = locator.iter().find_map(known).filter(|_| !self.is_broken_record).unwrap_or(0);
        let to = (from + BATCH).min(self.chain.len() - 1);
        Some((headers(&self.chain, from + 1..=to), to - from == BATCH))
    }
}

/// Peers, a tree, and a clock that jumps.
pub(super) struct Sim {
    pub(super) flow: HeadersFlow,
    pub(super) tree: Tree,
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) peers: BTreeMap<PeerId, Model>,
    queue: BTreeMap<(Instant, u64), FlowInput>,
    sequence: u64,
    /// When each peer was asked, and with what first block in the locator.
    pub(super) asked: Vec<(Duration, PeerId, BlockHash)>,
    pub(super) shown: BTreeMap<PeerId, BlockHash>,
    pub(super) showed_nothing: Vec<PeerId>,
    pub(super) disbelieved: Vec<PeerId>,
    pub(super) penalised: Vec<(PeerId, String)>,
    pub(super) dropped: Vec<(PeerId, String)>,
    pub(super) accepted: usize,
    pub(super) trace: Vec<String>,
}

impl Sim {
    pub(super) fn new(models: impl IntoIterator<Item = Model>) -> Self {
        Self::with(&SyncOptions::default(), 1, models)
    }

    pub(super) fn with(options: &SyncOptions, seed: u64, models: impl IntoIterator<Item = Model>) -> Self {
        let now = Instant::now();
        let mut sim = Self {
            flow: HeadersFlow::new(options, seed),
            tree: Tree::new(),
            start: now,
            now,
            peers: BTreeMap::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            asked: Vec::new(),
            shown: BTreeMap::new(),
            showed_nothing: Vec::new(),
            disbelieved: Vec::new(),
            penalised: Vec::new(),
            dropped: Vec::new(),
            accepted: 0,
            trace: Vec::new(),
        };
        for (n, model) in models.into_iter().enumerate() {
            sim.connect(n as u64, model);
        }
        sim
    }

    pub(super) fn connect(&mut self, id: u64, model: Model) {
        let info = PeerInfo::new("sim", model.claim);
        self.peers.insert(PeerId(id), model);
        self.handle(FlowInput::Connected(PeerId(id), info));
    }

    pub(super) fn disconnect(&mut self, id: u64) {
        if self.peers.remove(&PeerId(id)).is_some() {
            self.handle(FlowInput::Disconnected(PeerId(id)));
        }
    }

    /// Headers that nobody asked for.
    pub(super) fn tell(&mut self, id: u64, headers: Vec<Header>, more: bool) {
        self.handle(FlowInput::Headers { peer: PeerId(id), headers, more });
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Whether this is the best chain.
    pub(super) fn is_at(&self, chain: &[BlockHash]) -> bool {
        self.tree.best() == chain
    }

    /// How often a peer was asked.
    pub(super) fn asked(&self, id: u64) -> usize {
        self.asked.iter().filter(|(_, peer, _)| *peer == PeerId(id)).count()
    }

    /// When something is true, in seconds from the start. Fails if it is not within a virtual hour.
    pub(super) fn run_until(&mut self, is_done: impl Fn(&Self) -> bool) -> f64 {
        let end = self.now + Duration::from_secs(3600);
        while !is_done(self) {
            assert!(self.step(end), "not within a virtual hour");
        }
        self.elapsed().as_secs_f64()
    }

    pub(super) fn run_until_caught_up(&mut self) -> f64 {
        self.run_until(|sim| sim.flow.is_caught_up())
    }

    pub(super) fn run_for(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.step(end) {}
        self.now = end;
    }

    /// Does what is next; false if that is after `end`.
    fn step(&mut self, end: Instant) -> bool {
        let arrival = self.queue.keys().next().map(|&(at, _)| at);
        let Some(next) = arrival.into_iter().chain(self.flow.deadline()).min().filter(|&at| at <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        match self.queue.first_entry().filter(|entry| entry.key().0 <= next) {
            Some(entry) => {
                let input = entry.remove();
                let is_gone =
                    matches!(&input, FlowInput::Headers { peer, .. } if !self.peers.contains_key(peer));
                if !is_gone {
                    self.handle(input);
                }
            }
            None => self.handle(FlowInput::Tick),
        }
        true
    }

    pub(super) fn handle(&mut self, input: FlowInput) {
        let is_tick = matches!(input, FlowInput::Tick);
        let mut context =
            FlowContext { chain: &mut self.tree, room: 1000, byte_room: 1 << 20, may_ask: true };
        self.flow.handle(self.now, input, &mut context);
        let mut is_open = BTreeMap::new();
        while let Some(output) = self.flow.poll() {
            self.trace.push(format!("{:?} {output:?}", self.elapsed()));
            match output {
                FlowOutput::Ask(id, want) => {
                    assert!(is_open.insert(id, ()).is_none(), "asked twice at once");
                    self.serve(id, want);
                }
                FlowOutput::Drop(id, fault) => {
                    self.dropped.push((id, fault.to_string()));
                    self.peers.remove(&id);
                }
                FlowOutput::Penalise(id, fault) => self.penalised.push((id, fault.to_string())),
                FlowOutput::Accepted(accepted) => self.accepted += accepted.added,
                FlowOutput::Shows(id, block) => {
                    assert!(self.peers.contains_key(&id) && self.tree.fork_point(block).is_some());
                    self.shown.insert(id, block);
                }
                FlowOutput::ShowsNothing(id) => self.showed_nothing.push(id),
                FlowOutput::Disbelieve(id) => self.disbelieved.push(id),
                FlowOutput::Body(_) | FlowOutput::Failed(_) => panic!("{output:?}"),
            }
        }
        let deadline = self.flow.deadline();
        assert!(!is_tick || deadline.is_none_or(|at| at > self.now), "a tick that changes nothing");
        assert_eq!(self.accepted + 1, self.tree.parents.len(), "all that is new was told");
    }

    fn serve(&mut self, id: PeerId, want: Want) {
        let Want::HeadersAfter(locator) = want else { panic!("{want:?}") };
        assert!(locator.len() <= 101, "Bitcoin Core refuses longer ones");
        self.asked.push((self.elapsed(), id, locator[0]));
        let Some(model) = self.peers.get_mut(&id) else { panic!("{id} is not there") };
        let at = self.now + Duration::from_millis(model.answers_after);
        if let Some((headers, more)) = model.answer(&locator) {
            self.sequence += 1;
            self.queue.insert((at, self.sequence), FlowInput::Headers { peer: id, headers, more });
        }
    }
}
