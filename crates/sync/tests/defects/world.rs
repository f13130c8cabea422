//! A scheduler, its peers, its sink and a clock.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Instant,
};

use tipward_sync::{
    BlockId, Chain, Event, Input, Output, Scheduler,
    peer::{PeerInfo, Reply},
};

use super::{peer::Peer, *};

pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    pub(crate) tree: Tree,
    pub(crate) options: SyncOptions,
    pub(crate) now: Instant,
    start: Instant,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    due: BTreeMap<u64, Input>,
    pub(crate) peers: BTreeMap<PeerId, Peer>,
    /// How long the sink takes for a call; `None` for ever.
    pub(crate) sink: Option<Duration>,
    /// Calls that it was given and has not done.
    pub(crate) with_sink: usize,
    sink_free_at: Instant,
    /// In the order of the chain, or as they came.
    pub(crate) applied: Vec<BlockHash>,
    pub(crate) streamed: u64,
    pub(crate) asks: Vec<(Duration, PeerId, Want)>,
    pub(crate) dropped: Vec<(PeerId, String)>,
    pub(crate) penalised: Vec<(PeerId, String)>,
    /// When it was told to be synced.
    pub(crate) synced: Vec<(Duration, BlockId)>,
    /// The reorgs that it was told of: the tip that was left, and the last block that stays.
    pub(crate) reorgs: Vec<(BlockHash, BlockHash)>,
    pub(crate) failed: Option<String>,
    pub(crate) most_buffered: u64,
    idle_ticks: u32,
}

impl World {
    pub(crate) fn new(strategy: Strategy, models: Vec<Model>) -> Self {
        Self::with(options(strategy), Tree::new(), models)
    }

    pub(crate) fn with(options: SyncOptions, tree: Tree, models: Vec<Model>) -> Self {
        let now = Instant::now();
        let mut world = Self {
            scheduler: Scheduler::new(options.clone(), None, 3),
            tree,
            options,
            now,
            start: now,
            queue: BinaryHeap::new(),
            due: BTreeMap::new(),
            peers: BTreeMap::new(),
            sink: Some(Duration::ZERO),
            with_sink: 0,
            sink_free_at: now,
            applied: Vec::new(),
            streamed: 0,
            asks: Vec::new(),
            dropped: Vec::new(),
            penalised: Vec::new(),
            synced: Vec::new(),
            reorgs: Vec::new(),
            failed: None,
            most_buffered: 0,
            idle_ticks: 0,
        };
        for (id, model) in models.into_iter().enumerate() {
            world.connect(id as u64, model);
        }
        world.later(now, Input::Settled);
        world
    }

    pub(crate) fn connect(&mut self, id: u64, model: Model) {
        let info = PeerInfo::new("sim", model.claim());
        self.later(self.now + model.joins_after, Input::Connected(PeerId(id), info));
        self.peers.insert(PeerId(id), Peer::new(model, self.now));
    }

    pub(crate) fn disconnect(&mut self, id: u64) {
        self.peers.remove(&PeerId(id));
        self.later(self.now, Input::Disconnected(PeerId(id)));
    }

    pub(crate) fn later(&mut self, at: Instant, input: Input) {
        let number = self.due.last_key_value().map_or(0, |(number, _)| number + 1);
        self.due.insert(number, input);
        self.queue.push(Reverse((at, number)));
    }

    pub(crate) fn say(&mut self, id: u64, reply: Reply) {
        self.later(self.now, Input::Reply(PeerId(id), reply));
    }

    /// The peer has this chain from now on, and tells of its tip in all the ways there are.
    pub(crate) fn extend(&mut self, id: u64, chain: &[SimBlock]) {
        self.peers.get_mut(&PeerId(id)).unwrap().model.chain = chain.to_vec();
        let tip = chain.last().unwrap();
        self.say(id, Reply::Height(tip.index));
        match self.options.strategy {
            Strategy::HeadersFirst => {
                self.say(id, Reply::Headers { headers: vec![tip.header()], more: false });
            }
            _ => self.say(id, Reply::Announced(vec![tip.hash])),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Runs until all of this is applied and it is told to be everything; an hour at most.
    pub(crate) fn runs_to(&mut self, chain: &[SimBlock]) {
        let goal = chain.last().unwrap().hash;
        let is_done = |world: &Self| {
            world.synced.last().is_some_and(|(_, tip)| tip.hash == goal) || world.failed.is_some()
        };
        self.run_until(self.elapsed() + seconds(3600), is_done);
        assert_eq!(self.failed, None);
        assert!(is_done(self), "not done with {} of {} blocks", self.applied.len(), chain.len());
        assert_eq!(self.applied, hashes(chain));
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(self.elapsed() + time, |_| false);
    }

    /// Runs until it is so, or until then.
    pub(crate) fn run_until(&mut self, limit: Duration, is_done: impl Fn(&Self) -> bool) {
        let end = self.start + limit;
        while !is_done(self) {
            let event = self.queue.peek().map(|Reverse((at, _))| *at);
            let next = event.into_iter().chain(self.scheduler.deadline()).min();
            let Some(next) = next.filter(|&at| at <= end) else {
                self.now = end;
                return;
            };
            self.idle_ticks = if next > self.now { 0 } else { self.idle_ticks };
            self.now = self.now.max(next);
            let input = match self.queue.peek() {
                Some(Reverse((at, _))) if *at <= self.now => {
                    let Some(Reverse((_, number))) = self.queue.pop() else { continue };
                    self.due.remove(&number).unwrap()
                }
                _ => {
                    self.idle_ticks += 1;
                    assert!(self.idle_ticks < 100, "ticks that do nothing");
                    Input::Tick
                }
            };
            self.happen(input);
        }
    }

    fn happen(&mut self, input: Input) {
        let of = match &input {
            Input::Connected(id, _) | Input::Disconnected(id) | Input::Reply(id, _) => Some(*id),
            _ => None,
        };
        if let Some(id) = of {
            // A peer that is gone is not heard any more, and one from which nothing is read not yet.
            match self.peers.get_mut(&id).map(|peer| &mut peer.held) {
                None if !matches!(input, Input::Disconnected(_)) => return,
                Some(Some(held)) => return held.push(input),
                _ => {}
            }
        }
        self.with_sink -= if let Input::Delivered(count) = &input { *count } else { 0 };
        self.step(input);
    }

    pub(crate) fn step(&mut self, input: Input) {
        self.scheduler.handle(self.now, input, &mut self.tree);
        self.most_buffered = self.most_buffered.max(self.scheduler.buffered_bytes());
        while let Some(output) = self.scheduler.poll() {
            self.obey(output);
        }
    }

    fn obey(&mut self, output: Output) {
        match output {
            Output::Ask(id, want) => {
                self.asks.push((self.elapsed(), id, want.clone()));
                let replies = self.peers.get_mut(&id).map(|peer| peer.serve(id, &want, self.now));
                replies.into_iter().flatten().for_each(|(at, input)| self.later(at, input));
            }
            Output::Drop(id, fault) => {
                self.peers.remove(&id);
                self.dropped.push((id, fault.to_string()));
            }
            Output::Penalise(id, fault) => self.penalised.push((id, fault.to_string())),
            Output::Hold(id) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.held.get_or_insert_default();
                }
            }
            Output::Resume(id) => {
                let held = self.peers.get_mut(&id).and_then(|peer| peer.held.take());
                held.into_iter().flatten().for_each(|input| self.later(self.now, input));
            }
            Output::Rollback(to) => {
                let at = self.applied.iter().position(|hash| *hash == to.hash);
                self.applied.truncate(at.expect("rolled back to what was applied") + 1);
                self.give_sink();
            }
            Output::Apply(block) => {
                self.check_order(block.id);
                self.applied.push(block.id.hash);
                self.give_sink();
            }
            Output::ApplyPart(_, part) => {
                self.streamed += part.bytes.len() as u64;
                self.give_sink();
            }
            Output::Abort(_) | Output::Skip(_) => self.give_sink(),
            Output::Event(Event::Synced { tip }) => self.synced.push((self.elapsed(), tip)),
            Output::Event(Event::Reorg { old_tip, common, .. }) => {
                self.reorgs.push((old_tip.hash, common.hash));
            }
            Output::Event(_) | Output::Headers(_) | Output::Stopped => {}
            Output::Failed(reason) => self.failed = Some(reason.to_string()),
        }
    }

    /// In the order of the chain: every block after its parent, and once.
    fn check_order(&self, id: BlockId) {
        assert!(!self.applied.contains(&id.hash), "{id} twice");
        assert_eq!(self.tree.best_at(id.height), Some(id.hash), "{id} is not on the best chain");
        if let (Order::Chain, Some(last)) = (self.options.order, self.applied.last()) {
            let parent = id.height.checked_sub(1).and_then(|height| self.tree.best_at(height));
            assert_eq!(parent, Some(*last), "{id} before its parent");
        }
    }

    fn give_sink(&mut self) {
        self.with_sink += 1;
        if let Some(time) = self.sink {
            self.sink_free_at = self.sink_free_at.max(self.now) + time;
            self.later(self.sink_free_at, Input::Delivered(1));
        }
    }

    /// The sink does what it was given from now on, and all that it was given before.
    pub(crate) fn free_sink(&mut self) {
        self.sink = Some(Duration::ZERO);
        if self.with_sink > 0 {
            self.later(self.now, Input::Delivered(self.with_sink));
        }
    }

    /// How often this block was asked for, by its hash or its height, and of whom.
    pub(crate) fn asked(&self, block: &SimBlock) -> Vec<PeerId> {
        let is_it = |want: &Want| match want {
            Want::Blocks(hashes) => hashes.contains(&block.hash),
            Want::Range { start, count } => (*start..*start + u64::from(*count)).contains(&block.index),
            _ => false,
        };
        self.asks.iter().filter(|(.., want)| is_it(want)).map(|(_, id, _)| *id).collect()
    }

    pub(crate) fn is_dropped(&self, id: u64) -> bool {
        self.dropped.iter().any(|(dropped, _)| *dropped == PeerId(id))
    }

    /// Nothing was held against anybody.
    pub(crate) fn blames_nobody(&self) {
        assert!(
            self.dropped.is_empty() && self.penalised.is_empty(),
            "{:?} {:?}",
            self.dropped,
            self.penalised
        );
    }
}
