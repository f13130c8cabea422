//! Peers and a clock: the flow in virtual time.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use bytes::Bytes;
use tipward_peer::{
    PeerInfo,
    wire::{BlockPart, DownloadId},
};

use super::*;
use crate::Chain;

struct SimPeer {
    model: Model,
    served: u64,
    free_at: Instant,
    /// The last block of a full list that was sent.
    cut: Option<BlockHash>,
}

pub(super) const SIZE: u64 = 1000;

pub(super) struct Sim {
    pub(super) flow: InventoryFlow,
    pub(super) tree: Tree,
    pub(super) now: Instant,
    pub(super) start: Instant,
    peers: BTreeMap<PeerId, SimPeer>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    due: HashMap<u64, FlowInput>,
    sequence: u64,
    pub(super) room: usize,
    pub(super) byte_room: u64,
    pub(super) may_ask: bool,
    /// In order.
    pub(super) accepted: Vec<BlockHash>,
    pub(super) bodies: Vec<(u64, BlockHash)>,
    pub(super) dropped: Vec<(PeerId, String)>,
    pub(super) penalised: Vec<(PeerId, String)>,
    pub(super) disbelieved: Vec<PeerId>,
    pub(super) shows: Vec<(PeerId, BlockHash)>,
    /// Of whom which block was asked, and when.
    pub(super) asked: Vec<(Duration, PeerId, BlockHash)>,
    pub(super) lists: Vec<(Duration, PeerId, BlockHash, BlockHash)>,
    pub(super) trace: Vec<String>,
    pub(super) most_asked: usize,
    pub(super) failed: bool,
    ticks: u32,
}

pub(super) fn options() -> SyncOptions {
    SyncOptions { strategy: crate::Strategy::Inventory { batch: 500 }, ..SyncOptions::default() }
}

impl Sim {
    pub(super) fn new(models: Vec<Model>) -> Self {
        Self::with(&options(), 500, false, 7, models)
    }

    pub(super) fn with(
        options: &SyncOptions,
        batch: usize,
        is_dag: bool,
        seed: u64,
        models: Vec<Model>,
    ) -> Self {
        let now = Instant::now();
        let mut sim = Self {
            flow: InventoryFlow::new(options, batch, seed),
            tree: Tree::new(is_dag),
            now,
            start: now,
            peers: BTreeMap::new(),
            queue: BinaryHeap::new(),
            due: HashMap::new(),
            sequence: 0,
            room: options.window,
            byte_room: options.byte_budget,
            may_ask: true,
            accepted: Vec::new(),
            bodies: Vec::new(),
            dropped: Vec::new(),
            penalised: Vec::new(),
            disbelieved: Vec::new(),
            shows: Vec::new(),
            asked: Vec::new(),
            lists: Vec::new(),
            trace: Vec::new(),
            most_asked: 0,
            failed: false,
            ticks: 0,
        };
        for (n, model) in models.into_iter().enumerate() {
            sim.connect(n as u64, model);
        }
        sim
    }

    pub(super) fn connect(&mut self, id: u64, model: Model) {
        let (id, info) = (PeerId(id), PeerInfo::new("sim", model.claims));
        self.peers.insert(id, SimPeer { model, served: 0, free_at: self.now, cut: None });
        self.later(self.now, FlowInput::Connected(id, info));
    }

    pub(super) fn disconnect(&mut self, id: u64) {
        self.peers.remove(&PeerId(id));
        self.later(self.now, FlowInput::Disconnected(PeerId(id)));
    }

    pub(super) fn model(&mut self, id: u64) -> &mut Model {
        &mut self.peers.get_mut(&PeerId(id)).unwrap().model
    }

    /// The peer has this chain from now on, and tells its tip.
    pub(super) fn extend(&mut self, id: u64, chain: &[Made]) {
        self.model(id).chain = chain.to_vec();
        let tip = chain.last().unwrap().hash;
        self.later(self.now, FlowInput::Announced(PeerId(id), vec![tip]));
    }

    pub(super) fn later(&mut self, at: Instant, input: FlowInput) {
        self.sequence += 1;
        self.due.insert(self.sequence, input);
        self.queue.push(Reverse((at, self.sequence)));
    }

    /// What happened until now, and nothing that time brings.
    pub(super) fn settle(&mut self) {
        while self.queue.peek().is_some_and(|Reverse((at, _))| *at <= self.now) {
            self.step_next();
        }
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next_at().is_some_and(|at| at <= end) {
            self.step_next();
        }
        self.now = end;
    }

    /// Runs until the flow has everything.
    pub(super) fn run(&mut self) {
        self.run_until(|sim| sim.flow.is_caught_up());
    }

    pub(super) fn run_until(&mut self, is_done: impl Fn(&Self) -> bool) {
        self.settle();
        let end = self.now + Duration::from_secs(3600);
        while !is_done(self) {
            let next = self.next_at().expect("the flow waits for nothing");
            assert!(next <= end, "not done after a virtual hour, {} accepted", self.accepted.len());
            self.step_next();
        }
    }

    pub(super) fn time(&self) -> Duration {
        self.now - self.start
    }

    pub(super) fn asked_of(&self, id: u64) -> Vec<BlockHash> {
        self.asked.iter().filter(|(_, peer, _)| *peer == PeerId(id)).map(|(.., hash)| *hash).collect()
    }

    fn next_at(&self) -> Option<Instant> {
        let event = self.queue.peek().map(|Reverse((at, _))| *at);
        event.into_iter().chain(self.flow.deadline()).min()
    }

    fn step_next(&mut self) {
        let Some(next) = self.next_at() else { return };
        if next > self.now {
            self.ticks = 0;
        }
        self.now = self.now.max(next);
        let input = match self.queue.peek() {
            Some(Reverse((at, _))) if *at <= self.now => {
                let Some(Reverse((_, sequence))) = self.queue.pop() else { unreachable!() };
                self.due.remove(&sequence).unwrap()
            }
            _ => {
                self.ticks += 1;
                assert!(self.ticks < 3, "ticks that do nothing");
                FlowInput::Tick
            }
        };
        let (FlowInput::Announced(id, _) | FlowInput::Missing(id, _) | FlowInput::Progress(id)) = &input
        else {
            return self.step(input);
        };
        if self.peers.contains_key(id) {
            self.step(input);
        }
    }

    pub(super) fn step(&mut self, input: FlowInput) {
        if let FlowInput::Block(block) = &input
            && !self.peers.contains_key(&block.served_by)
        {
            return;
        }
        let mut context = FlowContext {
            chain: &mut self.tree,
            room: self.room,
            byte_room: self.byte_room.saturating_sub(self.flow.buffered_bytes()),
            may_ask: self.may_ask,
        };
        self.flow.handle(self.now, input, &mut context);
        self.most_asked = self.most_asked.max(self.flow.requests.asked());
        // One may always be asked for, or what has room would wait for ever for what is missing.
        assert!(self.flow.requests.asked() + self.flow.pool.len() <= self.room + 1);
        assert!(self.flow.pool.bytes() <= self.byte_room);
        assert!(self.flow.requests.len() <= requests::MAX_REQUESTED);
        while let Some(output) = self.flow.poll() {
            self.trace.push(format!("{:?} {output:?}", self.now - self.start));
            self.obey(output);
        }
    }

    fn obey(&mut self, output: FlowOutput) {
        let time = self.time();
        match output {
            FlowOutput::Ask(id, Want::Blocks(blocks)) => {
                assert!(self.may_ask, "asked for blocks during a pause");
                self.asked.extend(blocks.iter().map(|hash| (time, id, *hash)));
                blocks.into_iter().for_each(|hash| self.serve(id, hash));
            }
            FlowOutput::Ask(id, Want::BlocksAfter { locator, stop }) => {
                self.lists.push((time, id, locator[0], stop));
                self.serve_list(id, &locator, stop);
            }
            FlowOutput::Ask(_, want) => panic!("{want:?}"),
            FlowOutput::Drop(id, fault) => {
                assert!(self.peers.remove(&id).is_some(), "dropped twice");
                self.dropped.push((id, fault.to_string()));
            }
            FlowOutput::Penalise(id, fault) => self.penalised.push((id, fault.to_string())),
            FlowOutput::Accepted(accepted) => self.accepted.extend(accepted.last),
            FlowOutput::Body(block) => {
                assert!(self.tree.blocks.contains_key(&block.id.hash), "a body before its header");
                assert!(self.tree.read_head(&block.parts[0].bytes).is_some(), "a body that is another's");
                self.bodies.push((block.id.height, block.id.hash));
            }
            FlowOutput::Shows(id, hash) => {
                assert!(self.tree.blocks.contains_key(&hash));
                self.shows.push((id, hash));
            }
            FlowOutput::ShowsNothing(_) => {}
            FlowOutput::Disbelieve(id) => self.disbelieved.push(id),
            FlowOutput::Failed(_) => self.failed = true,
        }
    }

    fn serve_list(&mut self, id: PeerId, locator: &[BlockHash], stop: BlockHash) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let list = peer.model.list(locator, stop);
        if list.is_empty() || !peer.model.answers_lists {
            return;
        }
        if list.len() == peer.model.batch && peer.model.tells_of_cut {
            peer.cut = list.last().copied();
        }
        let at = self.now + peer.model.latency * 2;
        self.later(at, FlowInput::Announced(id, list));
    }

    fn serve(&mut self, id: PeerId, hash: BlockHash) {
        let start = self.start;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let model = &peer.model;
        let back = self.now + model.latency * 2;
        let is_silent =
            model.silent_after.is_some_and(|n| peer.served >= n) || model.withheld.contains(&hash);
        let block = model.chain.iter().find(|block| block.hash == hash);
        let Some(block) = block.filter(|_| !model.missing.contains(&hash) && !is_silent) else {
            if !is_silent && model.says_missing {
                self.later(back, FlowInput::Missing(id, vec![hash]));
            }
            return;
        };
        let bytes = if model.poisoned.contains(&hash) { poisoned(block) } else { block.bytes.clone() };
        peer.served += 1;
        let took = Duration::from_secs_f64(SIZE as f64 / model.bytes_per_second as f64);
        let mut begin = peer.free_at.max(self.now + model.latency);
        if let Some((from, to)) = model.pause
            && begin + took > start + Duration::from_secs(from)
        {
            begin = begin.max(start + Duration::from_secs(to));
        }
        peer.free_at = begin + took;
        let at = peer.free_at + model.latency;
        let leaves = model.leaves_after.is_some_and(|n| peer.served >= n);
        let is_cut = peer.cut == Some(hash);
        let (latency, tells) = (model.latency, model.bytes_per_second >= 100);
        // What the scheduler tells of a block that flows.
        let second = Duration::from_secs(1);
        let mut told = begin + latency + second;
        while tells && told < at {
            self.later(told, FlowInput::Progress(id));
            told += second;
        }
        self.later(at, FlowInput::Block(arrived(hash, bytes, id)));
        if is_cut {
            self.later(at, FlowInput::Announced(id, vec![BlockHash::ZERO]));
        }
        if leaves {
            self.later(at, FlowInput::Disconnected(id));
        }
    }
}

pub(super) fn arrived(hash: BlockHash, bytes: Bytes, served_by: PeerId) -> Arrived {
    let part = BlockPart {
        block: hash,
        download: DownloadId(0),
        block_size: SIZE,
        index: 0,
        offset: 0,
        first_transaction: 0,
        transactions: Vec::new(),
        bytes,
        ends_inside_transaction: false,
    };
    Arrived { hash, parts: vec![part], transactions: 1, size: SIZE, served_by }
}

pub(super) fn hashes(chain: &[Made]) -> Vec<BlockHash> {
    chain.iter().map(|block| block.hash).collect()
}
