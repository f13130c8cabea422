//! A scheduler with the chain by density, its peers, its sink and a clock.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::{Duration, Instant},
};

use tipward_chain::{
    Rule,
    density::{DensityOptions, SlotBound, SlotChain, SlotCheckpoint},
    sync::{
        BlockId, Chain, Event, Input, Output, Scheduler, Strategy, SyncOptions,
        peer::{
            PeerId, PeerInfo, Reply, Want,
            wire::{BlockHash, Header},
        },
    },
};

use super::{
    blocks::{Flaw, Rules, SimBlock, block, genesis},
    peers::{Model, Peer},
};

/// How many things may happen in a scene: far more than do, unless something goes on for ever.
const MAX_STEPS: usize = 200_000;

pub(crate) fn options(security: u64, window: u64) -> DensityOptions {
    let bound = SlotBound::Exclusive;
    DensityOptions { security, window, bound, max_forks: 100, max_side_blocks: 10_000 }
}

#[derive(Debug)]
enum Due {
    Join(usize),
    Leave(PeerId),
    Reply(PeerId, Reply),
    /// A peer has another chain.
    Grow(usize, Vec<SimBlock>),
    /// The sink has done so much.
    Done(usize),
    /// It refuses a block.
    Refuse(BlockId),
}

pub(crate) struct World {
    pub(crate) chain: SlotChain,
    pub(crate) rules: Rules,
    pub(crate) scheduler: Scheduler,
    pub(crate) sync: SyncOptions,
    options: DensityOptions,
    now: Instant,
    start: Instant,
    seed: u64,
    peers: BTreeMap<PeerId, (usize, Peer)>,
    pub(crate) models: Vec<Model>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    due: BTreeMap<u64, Due>,
    sequence: u64,
    next_id: u64,
    /// The height of the first block that the sink may get.
    base: u64,
    pub(crate) applied: Vec<BlockId>,
    /// Blocks by their hash, of all that came.
    came: BTreeMap<BlockHash, SimBlock>,
    /// Blocks that the sink finds to be invalid when it gets them, and whether it waits for the answer to that.
    pub(crate) refuses: BTreeSet<BlockHash>,
    refused: Option<BlockId>,
    pub(crate) rejected: Vec<BlockHash>,
    pub(crate) synced: Vec<(Duration, BlockId)>,
    pub(crate) reorgs: usize,
    /// Which peers were dropped, by their number, and why.
    pub(crate) dropped: Vec<(usize, String)>,
    pub(crate) penalised: Vec<usize>,
    pub(crate) asks: Vec<(Duration, usize, Want)>,
    pub(crate) failed: Option<String>,
    pub(crate) is_stopped: bool,
    /// Nothing below may be undone any more.
    final_below: u64,
    steps: usize,
    is_begun: bool,
    is_told: bool,
}

impl World {
    pub(crate) fn new(options: DensityOptions, models: Vec<Model>) -> Self {
        Self::with(options, Rules::default(), models, 1)
    }

    pub(crate) fn with(options: DensityOptions, rules: Rules, models: Vec<Model>, seed: u64) -> Self {
        let first = &genesis()[0];
        let chain = SlotChain::new(block(first, 0), 0, options, Box::new(rules.clone()));
        Self::of(chain, options, rules, models, seed, None)
    }

    /// From a trusted block.
    pub(crate) fn trusting(options: DensityOptions, checkpoint: SlotCheckpoint, models: Vec<Model>) -> Self {
        let (first, rules) = (&genesis()[0], Rules::default());
        let cursor = BlockId { height: checkpoint.height, hash: checkpoint.header.hash };
        let boxed = Box::new(rules.clone());
        let chain = SlotChain::above(checkpoint, block(first, 0), 0, options, boxed);
        let chain = chain.expect("it can be a trusted block");
        Self::of(chain, options, rules, models, 1, Some(cursor))
    }

    fn of(
        chain: SlotChain,
        options: DensityOptions,
        rules: Rules,
        models: Vec<Model>,
        seed: u64,
        cursor: Option<BlockId>,
    ) -> Self {
        let start = Instant::now();
        let mut sync = SyncOptions::default();
        sync.strategy = Strategy::SlotRange { batch: 20, max_back_fill: 1000 };
        let mut world = Self {
            scheduler: Scheduler::new(sync.clone(), cursor, seed),
            chain,
            rules,
            sync,
            options,
            now: start,
            start,
            seed,
            peers: BTreeMap::new(),
            models: Vec::new(),
            queue: BinaryHeap::new(),
            due: BTreeMap::new(),
            sequence: 0,
            next_id: 0,
            base: cursor.map_or(0, |cursor| cursor.height + 1),
            applied: Vec::new(),
            came: BTreeMap::new(),
            refuses: BTreeSet::new(),
            refused: None,
            rejected: Vec::new(),
            synced: Vec::new(),
            reorgs: 0,
            dropped: Vec::new(),
            penalised: Vec::new(),
            asks: Vec::new(),
            failed: None,
            is_stopped: false,
            final_below: 0,
            steps: 0,
            is_begun: false,
            is_told: std::env::var_os("TIPWARD_LOG").is_some(),
        };
        models.into_iter().for_each(|model| world.join(model));
        world
    }

    /// The tree knows these blocks already.
    pub(crate) fn knowing(mut self, chain: &[SimBlock]) -> Self {
        chain.iter().skip(1).for_each(|block| self.offer_again(&block.header()));
        assert!(chain.iter().all(|block| self.knows(block)));
        self
    }

    /// Other options for the sync, before anything has happened.
    pub(crate) fn tuned(mut self, tune: impl FnOnce(&mut SyncOptions)) -> Self {
        tune(&mut self.sync);
        self.scheduler = Scheduler::new(self.sync.clone(), None, self.seed);
        self
    }

    /// A peer that comes when it says.
    pub(crate) fn join(&mut self, model: Model) {
        let at = self.start + model.joins_at;
        self.models.push(model);
        self.later(at.max(self.now), Due::Join(self.models.len() - 1));
    }

    /// A peer has another chain from then on, and tells.
    pub(crate) fn grow(&mut self, at: Duration, peer: usize, chain: &[SimBlock]) {
        self.later(self.start + at, Due::Grow(peer, chain.to_vec()));
    }

    /// The program is killed and starts again; it has kept all headers, or none, beside what the sink has.
    pub(crate) fn restart(&mut self, keeps_headers: bool) {
        let kept = std::mem::take(&mut *self.rules.valid.lock().expect("nobody panics with it"));
        let first = &genesis()[0];
        self.chain = SlotChain::new(block(first, 0), 0, self.options, Box::new(self.rules.clone()));
        for header in kept.iter().filter(|_| keeps_headers) {
            self.offer_again(header);
        }
        self.scheduler = Scheduler::new(self.sync.clone(), self.applied.last().copied(), self.seed);
        self.queue.clear();
        self.due.clear();
        (self.final_below, self.peers) = (0, BTreeMap::new());
        (0..self.models.len()).for_each(|model| self.later(self.now, Due::Join(model)));
        self.is_begun = false;
    }

    fn offer_again(&mut self, header: &Header) {
        // What was given up meanwhile is gone, and what builds on it.
        self.chain.accept(std::slice::from_ref(header)).ok();
    }

    fn later(&mut self, at: Instant, due: Due) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence)));
        self.due.insert(self.sequence, due);
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Runs until this time, or the sync ends.
    pub(crate) fn run_to(&mut self, end: Duration) {
        let end = self.start + end;
        if !std::mem::replace(&mut self.is_begun, true) {
            self.step(Input::Settled);
        }
        while self.failed.is_none() && !self.is_stopped {
            let event_at = self.queue.peek().map(|Reverse((at, _))| *at);
            let deadline = self.scheduler.deadline();
            let Some(next) = event_at.into_iter().chain(deadline).min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            self.steps += 1;
            assert!(self.steps < MAX_STEPS, "it goes on and on: {:?}", self.asks.last());
            if event_at.is_some_and(|at| at <= self.now) {
                let due = self.queue.pop().and_then(|Reverse((_, number))| self.due.remove(&number));
                self.happen(due.expect("it is there until it is due"));
            } else {
                self.step(Input::Tick);
            }
        }
    }

    /// Runs until everything is at rest, and looks at what the sink has.
    pub(crate) fn run(&mut self) {
        self.run_to(self.elapsed() + Duration::from_secs(600));
        assert_eq!(self.failed, None);
        assert!(!self.synced.is_empty(), "the end is not told");
        assert_eq!(self.applied.last().copied(), Some(self.chain.tip()), "the sink is at the tip");
        // It goes on to ask, but ever less: a quiet chain is polled.
        let rest = self.elapsed().saturating_sub(Duration::from_secs(200));
        let late = self.asks.iter().filter(|(at, ..)| *at > rest).count();
        assert!(late <= 12 * self.models.len(), "{late} questions at rest");
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Join(model) => {
                let id = PeerId(self.next_id);
                self.next_id += 1;
                let peer = Peer::new(self.models[model].clone(), self.now);
                let info = PeerInfo::new("simulated", peer.model.claim());
                if let Some(leaves_at) = peer.model.leaves_at.filter(|at| self.start + *at > self.now) {
                    self.later(self.start + leaves_at, Due::Leave(id));
                }
                self.peers.insert(id, (model, peer));
                self.step(Input::Connected(id, info));
            }
            Due::Leave(id) => {
                if self.peers.remove(&id).is_some() {
                    self.step(Input::Disconnected(id));
                }
            }
            Due::Reply(id, reply) => {
                if self.peers.contains_key(&id) {
                    self.step(Input::Reply(id, reply));
                }
            }
            Due::Grow(model, chain) => {
                self.models[model].chain = chain;
                let of = &self.models[model];
                let (slot, tip) = (of.claim(), of.chain[of.chain.len() - 1].hash);
                let mut told = Vec::new();
                for (id, (of, peer)) in &mut self.peers {
                    if *of == model {
                        peer.model.chain.clone_from(&self.models[model].chain);
                        told.push(*id);
                    }
                }
                for id in told {
                    self.step(Input::Reply(id, Reply::Height(slot)));
                    self.step(Input::Reply(id, Reply::Announced(vec![tip])));
                }
            }
            Due::Done(count) => self.step(Input::Delivered(count)),
            Due::Refuse(block) => {
                self.step(Input::Rejected { block, reason: "no good".to_owned() });
                assert_eq!(self.refused, None, "it is told to go on");
            }
        }
    }

    pub(crate) fn step(&mut self, input: Input) {
        if self.is_told && !matches!(input, Input::Tick | Input::Reply(_, Reply::Part(_))) {
            eprintln!("{:?} <- {input:?}", self.elapsed());
        }
        self.scheduler.handle(self.now, input, &mut self.chain);
        let mut done = 0;
        while let Some(output) = self.scheduler.poll() {
            if self.is_told {
                eprintln!("{:?} -> {output:?}", self.elapsed());
            }
            done += usize::from(matches!(output, Output::Apply(_) | Output::Rollback(_)));
            self.obey(output);
        }
        if done > 0 {
            self.later(self.now + Duration::from_millis(1), Due::Done(done));
        }
        let irreversible = self.chain.irreversible();
        assert!(irreversible >= self.final_below, "what is irreversible stays so");
        self.final_below = irreversible;
    }

    fn obey(&mut self, output: Output) {
        match output {
            Output::Ask(id, want) => {
                let Some((model, peer)) = self.peers.get_mut(&id) else { return };
                self.asks.push((self.now - self.start, *model, want.clone()));
                let replies = peer.serve(&want, self.now);
                self.came.extend(peer.model.blocks().map(|block| (block.hash, block.clone())));
                for (at, replies) in replies {
                    replies.into_iter().for_each(|reply| self.later(at, Due::Reply(id, reply)));
                }
            }
            Output::Drop(id, fault) => {
                let (model, _) = self.peers.remove(&id).expect("nobody is dropped twice");
                self.dropped.push((model, fault.to_string()));
            }
            Output::Penalise(id, _) => self.penalised.extend(self.peers.get(&id).map(|(model, _)| *model)),
            Output::Hold(_)
            | Output::Resume(_)
            | Output::ApplyPart(..)
            | Output::Abort(_)
            | Output::Skip(_) => {
                panic!("there is room for all: {output:?}")
            }
            Output::Rollback(to) if self.refused.is_some() => {
                self.refused = None;
                assert_eq!(self.applied.last(), Some(&to), "it is there already");
            }
            Output::Rollback(to) => {
                self.reorgs += 1;
                let kept = (to.height + 1).saturating_sub(self.base) as usize;
                assert!(kept < self.applied.len(), "it undoes something");
                self.applied.truncate(kept);
                assert!(self.applied.last().is_none_or(|last| *last == to));
            }
            // What comes before the answer builds on what is refused.
            Output::Apply(_) if self.refused.is_some() => {}
            Output::Apply(applied) if self.refuses.contains(&applied.id.hash) => {
                assert!(!self.rejected.contains(&applied.id.hash), "it comes once");
                self.refused = Some(applied.id);
                self.rejected.push(applied.id.hash);
                self.later(self.now + Duration::from_millis(20), Due::Refuse(applied.id));
            }
            Output::Apply(applied) => {
                let height = self.base + self.applied.len() as u64;
                assert_eq!(applied.id.height, height);
                if height > 0 {
                    let block = &self.came[&applied.id.hash];
                    assert_eq!(applied.parts[0].bytes, block.bytes);
                    assert_eq!(block.flaw(), Flaw::Nothing, "only valid blocks");
                    let parent = self.applied.last().map(|last| last.hash);
                    assert!(parent.is_none_or(|parent| block.parent == parent), "in the order of the chain");
                }
                self.applied.push(applied.id);
            }
            Output::Event(Event::Synced { tip }) => self.synced.push((self.now - self.start, tip)),
            Output::Event(_) | Output::Headers(_) => {}
            Output::Stopped => self.is_stopped = true,
            Output::Failed(reason) => self.failed = Some(reason.to_string()),
        }
    }

    /// The tip of the chain.
    pub(crate) fn tip(&self) -> BlockHash {
        self.chain.tree().tip().hash
    }

    /// Whether a block is in the tree.
    pub(crate) fn knows(&self, block: &SimBlock) -> bool {
        self.chain.tree().get(block.hash).is_some()
    }
}
