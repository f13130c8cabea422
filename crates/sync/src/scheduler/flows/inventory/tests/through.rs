//! Through the scheduler: blocks reach the sink in order, and once.

use std::collections::HashMap;

use bytes::Bytes;
use tipward_peer::{
    PeerInfo, Reply,
    wire::{BlockEnd, BlockPart, DownloadId, Verdict},
};

use super::*;
use crate::{Event, Input, Output, Scheduler};

/// Peers behind a scheduler, and a sink that takes its time.
struct Live {
    scheduler: Scheduler,
    tree: Tree,
    models: BTreeMap<PeerId, Model>,
    free_at: HashMap<PeerId, Instant>,
    now: Instant,
    start: Instant,
    /// By time and number.
    due: BTreeMap<(Instant, u64), (Option<PeerId>, Input)>,
    sequence: u64,
    /// What has come from peers of which nothing is read now.
    held: BTreeMap<PeerId, Vec<Input>>,
    sink_takes: Duration,
    sink_free_at: Instant,
    applied: Vec<BlockHash>,
    rollbacks: usize,
    asked: BTreeMap<BlockHash, usize>,
    dropped: Vec<(PeerId, String)>,
    synced: bool,
    stopped: bool,
    most_buffered: u64,
}

impl Live {
    fn new(options: SyncOptions, models: Vec<Model>) -> Self {
        let now = Instant::now();
        let mut live = Self {
            scheduler: Scheduler::new(options, None, 3),
            tree: Tree::new(false),
            models: BTreeMap::new(),
            free_at: HashMap::new(),
            now,
            start: now,
            due: BTreeMap::new(),
            sequence: 0,
            held: BTreeMap::new(),
            sink_takes: Duration::ZERO,
            sink_free_at: now,
            applied: Vec::new(),
            rollbacks: 0,
            asked: BTreeMap::new(),
            dropped: Vec::new(),
            synced: false,
            stopped: false,
            most_buffered: 0,
        };
        for (n, model) in models.into_iter().enumerate() {
            live.connect(n as u64, model);
        }
        live.later(now, None, Input::Settled);
        live
    }

    fn connect(&mut self, id: u64, model: Model) {
        let (id, info) = (PeerId(id), PeerInfo::new("sim", model.claims));
        self.models.insert(id, model);
        self.later(self.now, None, Input::Connected(id, info));
    }

    fn later(&mut self, at: Instant, peer: Option<PeerId>, input: Input) {
        self.sequence += 1;
        self.due.insert((at, self.sequence), (peer, input));
    }

    fn reply(&mut self, at: Instant, id: PeerId, reply: Reply) {
        self.later(at, Some(id), Input::Reply(id, reply));
    }

    fn run(&mut self) {
        self.synced = false;
        let end = self.now + Duration::from_secs(3600);
        while !self.synced && !self.stopped {
            let event = self.due.first_key_value().map(|((at, _), _)| *at);
            let next =
                event.into_iter().chain(self.scheduler.deadline()).min().expect("all wait for nothing");
            assert!(next <= end, "not done after a virtual hour, applied {}", self.applied.len());
            self.now = self.now.max(next);
            if event.is_none_or(|at| at > self.now) {
                self.step(Input::Tick);
                continue;
            }
            let Some((_, (peer, input))) = self.due.pop_first() else { unreachable!() };
            match peer.and_then(|id| self.held.get_mut(&id)) {
                Some(held) => held.push(input),
                None => self.step(input),
            }
        }
    }

    fn step(&mut self, input: Input) {
        self.scheduler.handle(self.now, input, &mut self.tree);
        self.most_buffered = self.most_buffered.max(self.scheduler.buffered_bytes());
        while let Some(output) = self.scheduler.poll() {
            match output {
                Output::Ask(id, Want::Blocks(blocks)) => self.serve(id, &blocks),
                Output::Ask(id, Want::BlocksAfter { locator, stop }) => {
                    let Some(model) = self.models.get(&id) else { continue };
                    let (list, at) = (model.list(&locator, stop), self.now + model.latency * 2);
                    if !list.is_empty() && model.answers_lists {
                        self.reply(at, id, Reply::Announced(list));
                    }
                }
                Output::Drop(id, fault) => {
                    self.models.remove(&id);
                    self.dropped.push((id, fault.to_string()));
                }
                Output::Hold(id) => _ = self.held.insert(id, Vec::new()),
                Output::Resume(id) => {
                    for input in self.held.remove(&id).unwrap_or_default() {
                        self.later(self.now, Some(id), input);
                    }
                }
                Output::Apply(block) => {
                    assert_eq!(block.id.height as usize, self.applied.len(), "in order, nothing twice");
                    let parent = self.tree.blocks[&block.id.hash].0.first().copied();
                    assert_eq!(parent, self.applied.last().copied(), "the parent was applied before");
                    self.applied.push(block.id.hash);
                    self.deliver();
                }
                Output::Rollback(to) => {
                    self.rollbacks += 1;
                    self.applied.truncate(to.height as usize + 1);
                    self.deliver();
                }
                Output::Event(Event::Synced { .. }) => self.synced = true,
                Output::Stopped => self.stopped = true,
                Output::Event(_) | Output::Headers(_) | Output::Penalise(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn deliver(&mut self) {
        self.sink_free_at = self.sink_free_at.max(self.now) + self.sink_takes;
        self.later(self.sink_free_at, None, Input::Delivered(1));
    }

    fn serve(&mut self, id: PeerId, blocks: &[BlockHash]) {
        for hash in blocks {
            *self.asked.entry(*hash).or_default() += 1;
            let Some(model) = self.models.get(&id) else { return };
            let made = model.chain.iter().find(|block| block.hash == *hash).cloned();
            let Some(made) = made.filter(|_| !model.withheld.contains(hash)) else { continue };
            let took = Duration::from_secs_f64(SIZE as f64 / model.bytes_per_second as f64);
            let (latency, trickles) = (model.latency, model.bytes_per_second < 100);
            let free_at = self.free_at.entry(id).or_insert(self.now);
            let begin = (*free_at).max(self.now + latency);
            *free_at = begin + took;
            let at = *free_at + latency;
            for second in 1..if trickles { 100 } else { 0 } {
                let at = begin + latency + Duration::from_secs(second);
                self.reply(at, id, Reply::Progress { received: second });
            }
            let mut bytes = made.bytes.to_vec();
            bytes.resize(SIZE as usize, 0);
            self.reply(at, id, Reply::Part(part(*hash, Bytes::from(bytes))));
            self.reply(at, id, Reply::BlockEnd(block_end(*hash)));
        }
    }
}

fn part(block: BlockHash, bytes: Bytes) -> BlockPart {
    BlockPart {
        block,
        download: DownloadId(0),
        block_size: SIZE,
        index: 0,
        offset: 0,
        first_transaction: 0,
        transactions: Vec::new(),
        bytes,
        ends_inside_transaction: false,
    }
}

fn block_end(block: BlockHash) -> BlockEnd {
    BlockEnd {
        block,
        download: DownloadId(0),
        transactions: 1,
        size: SIZE,
        parts: 1,
        checksum: Verdict::Verified,
        merkle_root: Verdict::Verified,
    }
}

#[test]
fn blocks_reach_the_sink_in_order_and_once() {
    let chain = trunk(1700);
    let mut live = Live::new(options(), vec![Model::honest(&chain); 3]);
    live.run();
    assert_eq!(live.applied, hashes(&chain));
    assert!(live.asked.len() == 1700 && live.asked.values().all(|times| *times == 1));
    assert!(live.dropped.is_empty(), "{:?}", live.dropped);

    // A new tip, which all announce.
    let longer = branch(&chain, 1, 1701);
    live.models.values_mut().for_each(|model| model.chain = longer.clone());
    let at = live.now + Duration::from_secs(5);
    (0..3).for_each(|id| live.reply(at, PeerId(id), Reply::Announced(vec![longer[1701].hash])));
    live.run();
    assert_eq!(live.applied, hashes(&longer));
    assert_eq!(live.asked[&longer[1701].hash], 1);
}

#[test]
fn a_branch_that_wins_late_is_followed() {
    let chain = trunk(100);
    let mut live = Live::new(options(), vec![Model::honest(&chain)]);
    live.run();
    let other = branch(&chain[..91], 2, 103);
    live.connect(1, Model::honest(&other));
    live.run();
    assert_eq!(live.applied, hashes(&other));
    assert_eq!(live.rollbacks, 1);
}

#[test]
fn a_slow_sink_and_little_room_hold_nobody_against_anybody() {
    let chain = trunk(300);
    let few = SyncOptions { window: 16, byte_budget: 24 * SIZE, ..options() };
    let mut live = Live::new(few, vec![Model::honest(&chain); 2]);
    live.sink_takes = Duration::from_millis(700);
    live.run();
    assert_eq!(live.applied, hashes(&chain));
    assert!(live.most_buffered <= 24 * SIZE, "{}", live.most_buffered);
    assert!(live.dropped.is_empty(), "{:?}", live.dropped);
    // The sink is what takes the time.
    assert!(live.now - live.start < Duration::from_millis(700) * 320, "{:?}", live.now - live.start);
}

#[test]
fn a_trickle_is_no_progress() {
    let chain = trunk(60);
    let trickle = Model { bytes_per_second: 1, ..Model::honest(&chain) };
    let mut live = Live::new(options(), vec![trickle, Model::honest(&chain)]);
    live.run();
    assert_eq!(live.applied, hashes(&chain));
    assert!(live.now - live.start < Duration::from_secs(10), "{:?}", live.now - live.start);
}

#[test]
fn a_pause_of_the_user_ends() {
    let chain = trunk(300);
    let slow = Model { bytes_per_second: 100_000, ..Model::honest(&chain) };
    let mut live = Live::new(options(), vec![slow]);
    live.later(live.now + Duration::from_millis(600), None, Input::Pause);
    live.later(live.now + Duration::from_secs(30), None, Input::Resume);
    live.run();
    assert_eq!(live.applied, hashes(&chain));
    let took = live.now - live.start;
    assert!(took > Duration::from_secs(30) && took < Duration::from_secs(34), "{took:?}");
}

#[test]
fn it_stops_where_it_is_told_to() {
    let chain = trunk(300);
    let mut live = Live::new(SyncOptions { stop_at: Some(120), ..options() }, vec![Model::honest(&chain)]);
    live.run();
    assert!(live.stopped);
    assert_eq!(live.applied, hashes(&chain[..=120]));

    let mut live =
        Live::new(SyncOptions { stop_when_synced: true, ..options() }, vec![Model::honest(&chain)]);
    live.run();
    assert!(live.stopped);
    assert_eq!(live.applied, hashes(&chain));
}
