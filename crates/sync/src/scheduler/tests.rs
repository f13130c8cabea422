//! The scheduler against simulated peers in virtual time.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use bytes::Bytes;
use proptest::prelude::*;
use tipward_peer::{
    PeerInfo,
    wire::{BlockEnd, BlockHash, BlockPart, DownloadId, Header, Verdict},
};

use std::{error::Error, time::Duration};

use super::*;
use crate::{Accepted, Block, RefusedHeaders, Update};

mod rejected;

/// Block `n` of branch `branch`; branches share block 0.
fn hash(branch: u8, n: u64) -> BlockHash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    bytes[8] = if n == 0 { 0 } else { branch };
    bytes[9] = 1;
    BlockHash::from_bytes(bytes)
}

/// A branch that leaves another one after `fork`.
fn branch(of: &[BlockHash], fork: u64, name: u8, length: u64) -> Vec<BlockHash> {
    let trunk = of.iter().take(fork as usize + 1).copied();
    trunk.chain((fork + 1..=length).map(|n| hash(name, n))).collect()
}

fn header(chain: &[BlockHash], n: usize) -> Header {
    Header { hash: chain[n], parent: chain[n - 1], raw: Bytes::new() }
}

/// A tree in which the longest branch is best and the first of equals stays.
struct Tree {
    parents: HashMap<BlockHash, (u64, BlockHash)>,
    best: Vec<BlockHash>,
    /// Headers that break a rule.
    invalid: Vec<BlockHash>,
    /// Peers that it was told are gone.
    lost: Vec<PeerId>,
}

impl Tree {
    fn new() -> Self {
        let genesis = hash(0, 0);
        Self {
            parents: [(genesis, (0, BlockHash::ZERO))].into(),
            best: vec![genesis],
            invalid: Vec::new(),
            lost: Vec::new(),
        }
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
        let mut hashes = Vec::new();
        while let Some((_, parent)) = self.parents.get(&from) {
            hashes.push(from);
            from = *parent;
        }
        hashes
    }

    fn accept(&mut self, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        let parent = headers[0].parent;
        let Some(&(mut height, _)) = self.parents.get(&parent) else {
            return Err(RefusedHeaders::UnknownParent { parent });
        };
        if headers.iter().any(|header| self.invalid.contains(&header.hash)) {
            return Err(RefusedHeaders::Invalid(Arc::new(Fault::UnlinkedHeaders)));
        }
        let before = self.parents.len();
        for header in headers {
            height += 1;
            self.parents.insert(header.hash, (height, header.parent));
        }
        let last = headers.last().unwrap().hash;
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

    fn lost(&mut self, peer: PeerId) {
        self.lost.push(peer);
    }

    fn ancestor(&self, mut hash: BlockHash, height: u64) -> Option<BlockHash> {
        while self.parents.get(&hash)?.0 > height {
            hash = self.parents[&hash].1;
        }
        (self.parents[&hash].0 == height).then_some(hash)
    }

    fn reject(&mut self, block: BlockHash, _: &str) -> Result<Option<Update>, Arc<dyn Error + Send + Sync>> {
        let height = self.parents[&block].0;
        let all: Vec<BlockHash> = self.parents.keys().copied().collect();
        let gone = all.into_iter().filter(|hash| self.ancestor(*hash, height) == Some(block));
        for hash in gone.collect::<Vec<_>>() {
            self.parents.remove(&hash);
            self.invalid.push(hash);
        }
        if self.best.get(height as usize) != Some(&block) {
            return Ok(None);
        }
        self.best.truncate(height as usize);
        let longest = self.parents.iter().max_by_key(|(hash, (height, _))| (*height, Reverse(**hash)));
        let longest = *longest.unwrap().0;
        let mut append = Vec::new();
        let mut at = longest;
        while self.best_at(self.parents[&at].0) != Some(at) {
            append.push(at);
            at = self.parents[&at].1;
        }
        // A branch may leave below the block's parent.
        let keep = self.parents[&at].0 + 1;
        if keep + append.len() as u64 <= height {
            return Ok(Some(Update { keep: height, append: Vec::new() }));
        }
        append.reverse();
        self.best.truncate(keep as usize);
        self.best.extend(&append);
        Ok(Some(Update { keep, append }))
    }

    fn local_block(&self, id: BlockId) -> Option<Block> {
        (id.height == 0).then(|| Block {
            id,
            parts: Vec::new(),
            transactions: 1,
            size: 285,
            served_by: None,
            is_streamed: false,
        })
    }
}

/// What a simulated peer is like.
#[derive(Debug, Clone)]
struct Model {
    chain: Vec<BlockHash>,
    latency: Duration,
    bytes_per_second: u64,
    /// Says nothing after so many blocks.
    silent_after: Option<u64>,
    /// Leaves after so many blocks.
    leaves_after: Option<u64>,
    /// Tells more height than it has.
    boast: u64,
    /// Sends nothing from this second to that.
    pause: Option<(u64, u64)>,
    /// Answers for headers after the blocks that were asked for before.
    queues_headers: bool,
}

impl Model {
    fn honest(chain: &[BlockHash]) -> Self {
        Self {
            chain: chain.to_vec(),
            latency: Duration::from_millis(50),
            bytes_per_second: 1_000_000,
            silent_after: None,
            leaves_after: None,
            boast: 0,
            pause: None,
            queues_headers: false,
        }
    }
}

#[derive(Debug)]
struct SimPeer {
    model: Model,
    served: u64,
    free_at: Instant,
}

const BLOCK_SIZE: u64 = 10_000;

/// Peers, a tree, a sink that applies at once, and a clock.
struct Sim {
    scheduler: Scheduler,
    tree: Tree,
    now: Instant,
    start: Instant,
    peers: BTreeMap<PeerId, SimPeer>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    due: HashMap<u64, Input>,
    sequence: u64,
    applied: Vec<BlockHash>,
    rollbacks: usize,
    dropped: Vec<(PeerId, String)>,
    penalised: Vec<(PeerId, String)>,
    synced: Option<BlockId>,
    stopped: bool,
    most_buffered: u64,
    asked: BTreeMap<BlockHash, u32>,
    /// Blocks that the sink refuses, the one that it has refused last, and all of them.
    bad: Vec<BlockHash>,
    refused: Option<BlockId>,
    rejections: Vec<BlockHash>,
    /// How long the sink takes.
    lag: Duration,
    /// From when to when nothing is handled.
    held: Option<(Instant, Instant)>,
}

impl Sim {
    fn new(options: SyncOptions, models: Vec<Model>) -> Self {
        let now = Instant::now();
        let mut sim = Self {
            scheduler: Scheduler::new(options, None, 0),
            tree: Tree::new(),
            now,
            start: now,
            peers: BTreeMap::new(),
            queue: BinaryHeap::new(),
            due: HashMap::new(),
            sequence: 0,
            applied: Vec::new(),
            rollbacks: 0,
            dropped: Vec::new(),
            penalised: Vec::new(),
            synced: None,
            stopped: false,
            most_buffered: 0,
            asked: BTreeMap::new(),
            bad: Vec::new(),
            refused: None,
            rejections: Vec::new(),
            lag: Duration::ZERO,
            held: None,
        };
        for (n, model) in models.into_iter().enumerate() {
            sim.connect(PeerId(n as u64), model);
        }
        sim.later(sim.now, Input::Settled);
        sim
    }

    fn connect(&mut self, id: PeerId, model: Model) {
        let info = PeerInfo::new("sim", model.chain.len() as u64 - 1 + model.boast);
        self.peers.insert(id, SimPeer { model, served: 0, free_at: self.now });
        self.later(self.now, Input::Connected(id, info));
    }

    fn later(&mut self, at: Instant, input: Input) {
        self.sequence += 1;
        self.due.insert(self.sequence, input);
        self.queue.push(Reverse((at, self.sequence)));
    }

    /// Runs until the scheduler says it is synced or stopped, or a virtual hour has passed.
    fn run(&mut self) {
        let end = self.start + Duration::from_secs(3600);
        self.synced = None;
        let mut ticks = 0;
        while self.synced.is_none() && !self.stopped {
            let event = self.queue.peek().map(|Reverse((at, _))| *at);
            let deadline = self.scheduler.deadline();
            let next = event.into_iter().chain(deadline).min().expect("the machine waits for nothing");
            let next = self.held.filter(|&(from, to)| from <= next && next < to).map_or(next, |(_, to)| to);
            assert!(next <= end, "not done after a virtual hour, applied {}", self.applied.len());
            ticks = if next > self.now { 0 } else { ticks };
            self.now = self.now.max(next);
            let input = match self.queue.peek() {
                Some(Reverse((at, _))) if *at <= self.now => {
                    let Some(Reverse((_, sequence))) = self.queue.pop() else { unreachable!() };
                    self.due.remove(&sequence).unwrap()
                }
                _ => {
                    ticks += 1;
                    assert!(ticks < 3, "ticks that do nothing");
                    Input::Tick
                }
            };
            self.step(input);
        }
    }

    /// Runs for so long, whatever the scheduler says.
    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let event = self.queue.peek().map(|Reverse((at, _))| *at);
            let next = event.into_iter().chain(self.scheduler.deadline()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let input = if event.is_some_and(|at| at <= self.now) {
                self.queue.pop().and_then(|Reverse((_, sequence))| self.due.remove(&sequence)).unwrap()
            } else {
                Input::Tick
            };
            self.step(input);
        }
        self.now = end;
    }

    fn step(&mut self, input: Input) {
        self.scheduler.handle(self.now, input, &mut self.tree);
        self.most_buffered = self.most_buffered.max(self.scheduler.buffered_bytes());
        while let Some(output) = self.scheduler.poll() {
            match output {
                Output::Ask(peer, want) => self.serve(peer, want),
                Output::Drop(peer, fault) => {
                    self.dropped.push((peer, fault.to_string()));
                    self.peers.remove(&peer);
                }
                // What builds on a block that was refused is passed over.
                Output::Apply(_) if self.refused.is_some() => {
                    self.later(self.now + self.lag, Input::Delivered(1));
                }
                Output::Rollback(to) if self.refused.is_some_and(|refused| to.height >= refused.height) => {
                    self.later(self.now + self.lag, Input::Delivered(1));
                }
                Output::Apply(block) if self.bad.contains(&block.id.hash) => {
                    self.refused = Some(block.id);
                    self.rejections.push(block.id.hash);
                    let reason = "it is bad".to_owned();
                    self.later(self.now + self.lag, Input::Delivered(1));
                    self.later(self.now + self.lag, Input::Rejected { block: block.id, reason });
                }
                Output::Rollback(to) => {
                    self.refused = None;
                    self.rollbacks += 1;
                    assert_eq!(
                        self.applied.get(to.height as usize),
                        Some(&to.hash),
                        "rolled back to what was applied"
                    );
                    self.applied.truncate(to.height as usize + 1);
                    self.later(self.now + self.lag, Input::Delivered(1));
                }
                Output::Apply(block) => {
                    assert_eq!(block.id.height as usize, self.applied.len(), "in order, nothing twice");
                    if let Some(last) = self.applied.last() {
                        assert_eq!(
                            self.tree.parents[&block.id.hash].1, *last,
                            "the parent was applied before"
                        );
                    }
                    self.applied.push(block.id.hash);
                    self.later(self.now + self.lag, Input::Delivered(1));
                }
                Output::Event(Event::Synced { tip }) => self.synced = Some(tip),
                Output::Stopped => self.stopped = true,
                Output::Failed(reason) => panic!("{reason}"),
                Output::Penalise(peer, fault) => self.penalised.push((peer, fault.to_string())),
                Output::Event(_) | Output::Headers(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn serve(&mut self, id: PeerId, want: Want) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut replies = Vec::new();
        let mut leaves = false;
        match want {
            Want::HeadersAfter(locator) => {
                let known = |hash: &BlockHash| peer.model.chain.iter().position(|block| block == hash);
                let from = locator.iter().find_map(known).unwrap_or(0) + 1;
                let end = peer.model.chain.len().min(from + 2000);
                let headers: Vec<Header> = (from..end).map(|n| header(&peer.model.chain, n)).collect();
                let more = headers.len() == 2000;
                let free_at = if peer.model.queues_headers { peer.free_at.max(self.now) } else { self.now };
                if peer.model.silent_after != Some(0) {
                    replies.push((
                        free_at + peer.model.latency * 2,
                        Input::Reply(id, Reply::Headers { headers, more }),
                    ));
                }
            }
            Want::Blocks(blocks) => {
                for block in blocks {
                    *self.asked.entry(block).or_default() += 1;
                    if !peer.model.chain.contains(&block)
                        || peer.model.silent_after.is_some_and(|n| peer.served >= n)
                    {
                        continue;
                    }
                    peer.served += 1;
                    let took =
                        Duration::from_secs_f64(BLOCK_SIZE as f64 / peer.model.bytes_per_second as f64);
                    peer.free_at = peer.free_at.max(self.now + peer.model.latency) + took;
                    if let Some((from, to)) = peer.model.pause
                        && peer.free_at > self.start + Duration::from_secs(from)
                        && peer.free_at < self.start + Duration::from_secs(to)
                    {
                        peer.free_at = self.start + Duration::from_secs(to);
                    }
                    let at = peer.free_at + peer.model.latency;
                    replies.push((at, Input::Reply(id, Reply::Part(part(block)))));
                    replies.push((at, Input::Reply(id, Reply::BlockEnd(block_end(block)))));
                    if peer.model.leaves_after.is_some_and(|n| peer.served >= n) {
                        replies.push((at, Input::Disconnected(id)));
                        leaves = true;
                        break;
                    }
                }
            }
            other => panic!("{other:?}"),
        }
        if leaves {
            self.peers.remove(&id);
        }
        replies.into_iter().for_each(|(at, input)| self.later(at, input));
    }
}

fn part(block: BlockHash) -> BlockPart {
    BlockPart {
        block,
        download: DownloadId(0),
        block_size: BLOCK_SIZE,
        index: 0,
        offset: 0,
        first_transaction: 0,
        transactions: vec![81],
        bytes: Bytes::from(vec![0; BLOCK_SIZE as usize]),
        ends_inside_transaction: false,
    }
}

fn block_end(block: BlockHash) -> BlockEnd {
    BlockEnd {
        block,
        download: DownloadId(0),
        transactions: 1,
        size: BLOCK_SIZE,
        parts: 1,
        checksum: Verdict::Verified,
        merkle_root: Verdict::Verified,
    }
}

fn trunk(length: u64) -> Vec<BlockHash> {
    branch(&[hash(0, 0)], 0, 1, length)
}

#[test]
fn many_peers_share_the_work_in_order() {
    let chain = trunk(5000);
    let models = vec![Model::honest(&chain); 4];
    let mut sim = Sim::new(SyncOptions::default(), models);
    sim.run();
    assert_eq!(sim.applied, chain);
    assert!(sim.dropped.is_empty());
    assert!(sim.asked.values().all(|&times| times == 1), "nobody was asked for what another was");
    for (id, peer) in &sim.peers {
        assert!(peer.served > 1000, "{id} served {}", peer.served);
    }
}

#[test]
fn a_silent_peer_loses_its_requests_to_others() {
    let chain = trunk(1000);
    let silent = Model { silent_after: Some(30), ..Model::honest(&chain) };
    let mut sim =
        Sim::new(SyncOptions::default(), vec![silent, Model::honest(&chain), Model::honest(&chain)]);
    sim.run();
    assert_eq!(sim.applied, chain);
    assert!(sim.now - sim.start < Duration::from_secs(20), "took {:?}", sim.now - sim.start);
}

#[test]
fn a_pause_of_the_only_peer_costs_it_nothing() {
    let chain = trunk(3000);
    let paused = Model { pause: Some((3, 8)), ..Model::honest(&chain) };
    let mut sim = Sim::new(SyncOptions::default(), vec![paused]);
    sim.run();
    assert_eq!(sim.applied, chain);
    assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
}

#[test]
fn a_slow_peer_is_not_given_more_than_it_can_send() {
    let chain = trunk(600);
    let slow = Model { bytes_per_second: BLOCK_SIZE / 15, ..Model::honest(&chain) };
    let mut sim = Sim::new(SyncOptions::default(), vec![slow, Model::honest(&chain)]);
    sim.run();
    assert_eq!(sim.applied, chain);
    // One after the other its blocks are asked of the fast peer too; it gets no new ones for them.
    assert!(sim.peers[&PeerId(0)].served <= 17, "asked for {}", sim.peers[&PeerId(0)].served);
}

#[test]
fn a_new_block_at_the_tip_is_asked_of_one_peer() {
    let chain = trunk(100);
    let mut sim = Sim::new(SyncOptions::default(), vec![Model::honest(&chain); 3]);
    sim.run();
    let longer = trunk(101);
    for peer in sim.peers.values_mut() {
        peer.model.chain = longer.clone();
    }
    sim.now += Duration::from_secs(30);
    for id in 0..3 {
        let headers = vec![header(&longer, 101)];
        sim.later(sim.now, Input::Reply(PeerId(id), Reply::Headers { headers, more: false }));
    }
    sim.run();
    assert_eq!(sim.applied, longer);
    assert_eq!(sim.asked[&longer[101]], 1);
}

#[test]
fn a_header_request_waits_behind_a_block_that_flows() {
    let chain = trunk(1);
    // One block of 50 seconds, behind which every answer for headers has to wait.
    let slow = Model { bytes_per_second: BLOCK_SIZE / 50, queues_headers: true, ..Model::honest(&chain) };
    let mut sim = Sim::new(SyncOptions::default(), vec![slow]);
    for second in 1..50 {
        let at = sim.now + Duration::from_secs(second);
        sim.later(at, Input::Reply(PeerId(0), Reply::Progress { received: second * BLOCK_SIZE / 50 }));
    }
    sim.run();
    assert_eq!(sim.applied, chain);
    assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
}

#[test]
fn what_was_not_read_yet_is_not_late() {
    let chain = trunk(300);
    let mut sim = Sim::new(SyncOptions::default(), vec![Model::honest(&chain); 3]);
    // Our own process stands still for six seconds, in which everybody answers.
    sim.held = Some((sim.now + Duration::from_millis(400), sim.now + Duration::from_secs(6)));
    sim.run();
    assert_eq!(sim.applied, chain);
    assert!(sim.asked.values().all(|&times| times == 1), "nothing was asked for again");
}

#[test]
fn a_peer_that_is_lost_loses_nothing() {
    let chain = trunk(1000);
    let leaver = Model { leaves_after: Some(25), ..Model::honest(&chain) };
    let mut sim = Sim::new(SyncOptions::default(), vec![leaver.clone(), leaver, Model::honest(&chain)]);
    sim.run();
    assert_eq!(sim.applied, chain);
    assert!(sim.dropped.is_empty());
    sim.tree.lost.sort();
    assert_eq!(sim.tree.lost, [PeerId(0), PeerId(1)], "the chain need not wait for them");
}

#[test]
fn the_next_block_does_not_wait_for_a_slow_peer() {
    let chain = trunk(300);
    // Half a minute a block.
    let slow = Model { bytes_per_second: BLOCK_SIZE / 30, ..Model::honest(&chain) };
    let mut sim = Sim::new(SyncOptions::default(), vec![slow, Model::honest(&chain)]);
    sim.run();
    assert_eq!(sim.applied, chain);
    assert!(sim.now - sim.start < Duration::from_secs(20), "took {:?}", sim.now - sim.start);
}

#[test]
fn memory_stays_within_the_budget() {
    let chain = trunk(3000);
    let options = SyncOptions { byte_budget: 40 * BLOCK_SIZE, ..SyncOptions::default() };
    let models = vec![Model::honest(&chain), Model { silent_after: Some(10), ..Model::honest(&chain) }];
    let mut sim = Sim::new(options, models);
    sim.run();
    assert_eq!(sim.applied, chain);
    assert!(sim.most_buffered <= 41 * BLOCK_SIZE, "held {}", sim.most_buffered);
}

#[test]
fn the_order_of_blocks_follows_the_best_branch() {
    let losing = branch(&trunk(500), 450, 2, 505);
    let winning = trunk(520);
    let mut sim = Sim::new(SyncOptions::default(), vec![Model::honest(&losing)]);
    sim.run();
    assert_eq!(sim.applied, losing);
    sim.connect(PeerId(9), Model::honest(&winning));
    sim.run();
    assert_eq!(sim.applied, winning);
    assert_eq!(sim.rollbacks, 1);
}

#[test]
fn a_reorg_and_back_before_anything_is_delivered_loses_nothing_as_received() {
    let short = trunk(10);
    let other = branch(&short, 4, 2, 11);
    let longer = trunk(12);
    let options = SyncOptions { order: crate::Order::AsReceived, ..SyncOptions::default() };
    let mut sim = Sim::new(options, vec![Model::honest(&short)]);
    sim.run();
    assert_eq!(sim.applied, short);
    // Nobody has brought a block of the other branch when the first one is the best again.
    let headers = |chain: &[BlockHash], from: usize| {
        let headers = (from..chain.len()).map(|n| header(chain, n)).collect();
        Input::Reply(PeerId(0), Reply::Headers { headers, more: false })
    };
    let peer = sim.peers.get_mut(&PeerId(0)).unwrap();
    peer.model.chain.clone_from(&longer);
    sim.step(headers(&other, 5));
    sim.step(headers(&longer, 11));
    sim.run();
    assert_eq!(sim.applied, longer);
}

#[test]
fn a_branch_without_blocks_undoes_nothing() {
    let mut sim = Sim::new(SyncOptions::default(), vec![Model::honest(&trunk(100))]);
    sim.run();
    // Headers of a longer branch, whose blocks nobody has.
    let ghost = branch(&trunk(100), 50, 2, 200);
    let headers = (51..=200).map(|n| header(&ghost, n)).collect();
    sim.step(Input::Reply(PeerId(0), Reply::Headers { headers, more: false }));
    assert_eq!(sim.tree.tip().height, 200);
    // Until the peer is dropped, since it does not bring what its headers promise.
    while let Some(at) = sim.scheduler.deadline() {
        sim.now = at;
        sim.step(Input::Tick);
    }
    assert_eq!(sim.dropped.len(), 1);
    assert_eq!(sim.applied, trunk(100));
}

#[test]
fn a_lie_about_the_height_does_not_hold_up_the_rest() {
    let chain = trunk(100);
    let liar = Model { boast: 1_000_000, ..Model::honest(&chain) };
    let mut sim = Sim::new(SyncOptions::default(), vec![liar, Model::honest(&chain)]);
    sim.run();
    assert_eq!(sim.synced.map(|tip| tip.height), Some(100));
    let told = "claims height 1000100 and has shown 100".to_owned();
    assert_eq!(sim.penalised, [(PeerId(0), told)]);
}

#[test]
fn who_never_answers_for_headers_is_passed_over() {
    let chain = trunk(100);
    let mute = Model { silent_after: Some(0), boast: 5, ..Model::honest(&chain) };
    let mut sim = Sim::new(SyncOptions::default(), vec![mute, Model::honest(&chain)]);
    sim.run();
    assert_eq!(sim.applied, chain);
}

#[test]
fn invalid_headers_cost_their_sender_alone() {
    let bad = branch(&trunk(100), 90, 2, 150);
    let mut sim = Sim::new(SyncOptions::default(), vec![Model::honest(&bad), Model::honest(&trunk(100))]);
    sim.tree.invalid.push(hash(2, 120));
    sim.run();
    assert_eq!(sim.applied, trunk(100));
    assert_eq!(sim.dropped.len(), 1);
    assert!(sim.dropped[0].1.starts_with("invalid headers"), "{:?}", sim.dropped);
    assert_eq!(sim.tree.lost, [PeerId(0)]);
}

#[test]
fn stop_at_stops_there() {
    let options = SyncOptions { stop_at: Some(70), ..SyncOptions::default() };
    let mut sim = Sim::new(options, vec![Model::honest(&trunk(100))]);
    sim.run();
    assert!(sim.stopped);
    assert_eq!(sim.applied, trunk(70));
    assert!(sim.asked.len() == 70, "nothing above was asked for");
}

#[test]
fn a_cursor_that_nobody_knows_ends_the_sync() {
    let mut sim = Sim::new(SyncOptions::default(), vec![]);
    sim.scheduler = Scheduler::new(SyncOptions::default(), Some(BlockId { height: 7, hash: hash(9, 7) }), 0);
    sim.connect(PeerId(0), Model::honest(&trunk(100)));
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sim.run()));
    let message = *failed.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("which is on no chain that the peers have"), "{message}");
}

fn model(chains: Vec<Vec<BlockHash>>) -> impl proptest::strategy::Strategy<Value = Model> {
    let chain = prop::sample::select(chains);
    let some = |range| prop::option::weighted(0.3, range);
    (chain, 1u64..500, 5_000u64..2_000_000, some(0u64..200), some(1u64..200), 0u64..3).prop_map(
        |(chain, latency, bytes_per_second, silent_after, leaves_after, boast)| Model {
            chain,
            latency: Duration::from_millis(latency),
            bytes_per_second,
            silent_after,
            leaves_after,
            boast,
            pause: None,
            queues_headers: false,
        },
    )
}

proptest! {
    /// Whatever the other peers are like: with one honest peer on the best chain everything arrives, once and in order.
    #[test]
    fn one_honest_peer_is_enough(
        others in prop::collection::vec(
            model(vec![trunk(200), trunk(400), branch(&trunk(400), 150, 2, 390), branch(&trunk(400), 399, 3, 400)]),
            0..8,
        ),
        at in 0usize..8,
        window in 10usize..200,
    ) {
        let best = trunk(400);
        let mut models = others;
        let honest = at.min(models.len());
        // One more block, so that no branch of the same length is best.
        let best = branch(&best, 400, 1, 401);
        models.insert(honest, Model::honest(&best));
        let options = SyncOptions { window, ..SyncOptions::default() };
        let mut sim = Sim::new(options, models);
        while sim.applied.last() != best.last() {
            sim.run();
        }
        prop_assert_eq!(&sim.applied, &best);
        prop_assert!(sim.dropped.iter().all(|(id, _)| *id != PeerId(honest as u64)), "{:?}", sim.dropped);
    }
}
