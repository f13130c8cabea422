//! What the tests of the flows by range need: blocks, a chain, peers with faults, and a clock.

mod chain;
mod peers;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::{Duration, Instant},
};

use tipward_peer::{PeerId, PeerInfo, Want, wire::BlockHash};

use crate::scheduler::flow::{FlowContext, FlowInput, FlowOutput};
pub(super) use chain::{SimBlock, SimChain, branch, genesis, slots};
use peers::SimPeer;
pub(super) use peers::{Model, arrived};

/// A flow for which more happens than this goes round in circles. The random cases of slots need some 20,000 at most.
const MAX_EVENTS: u64 = 1_000_000;

/// What the flows have in common.
pub(super) trait Machine {
    fn handle(&mut self, now: Instant, input: FlowInput, context: &mut FlowContext<'_>);
    fn poll(&mut self) -> Option<FlowOutput>;
    fn deadline(&self) -> Option<Instant>;
    fn is_caught_up(&self) -> bool;
    fn buffered_bytes(&self) -> u64;
}

/// A flow, a chain, peers, a sink and a clock.
pub(super) struct Sim<M> {
    pub(super) flow: M,
    pub(super) chain: SimChain,
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) peers: BTreeMap<PeerId, SimPeer>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    due: BTreeMap<u64, Event>,
    sequence: u64,
    /// What has happened so far, and ticks.
    events: u64,
    /// How many blocks may be ahead of what the sink has applied.
    pub(super) window: usize,
    pub(super) byte_room: u64,
    /// Blocks that the sink applies in a second; `None` for all at once.
    pub(super) sink_rate: Option<f64>,
    pub(super) may_ask: bool,
    pub(super) asks: Vec<(Duration, PeerId, Want)>,
    pub(super) bodies: BTreeSet<BlockHash>,
    pub(super) shown: BTreeMap<PeerId, BlockHash>,
    pub(super) shows_nothing: BTreeSet<PeerId>,
    pub(super) disbelieved: Vec<PeerId>,
    pub(super) penalised: Vec<(PeerId, String)>,
    pub(super) dropped: BTreeMap<PeerId, String>,
    pub(super) failed: Option<String>,
    pub(super) most_buffered: u64,
    /// Everything that the flow said, with its time.
    pub(super) trace: Vec<String>,
}

pub(super) enum Event {
    Input(FlowInput),
    /// The peer has this chain from now on, and says so.
    Chain(PeerId, Vec<SimBlock>),
    /// The peer says that it is this high.
    Boast(PeerId, u64),
    Leave(PeerId),
    Room(bool),
}

impl<M: Machine> Sim<M> {
    pub(super) fn new(flow: M, chain: SimChain, models: Vec<Model>) -> Self {
        let now = Instant::now();
        let mut sim = Self {
            flow,
            chain,
            now,
            start: now,
            peers: BTreeMap::new(),
            queue: BinaryHeap::new(),
            due: BTreeMap::new(),
            sequence: 0,
            events: 0,
            window: 1024,
            byte_room: 64 << 20,
            sink_rate: None,
            may_ask: true,
            asks: Vec::new(),
            bodies: BTreeSet::new(),
            shown: BTreeMap::new(),
            shows_nothing: BTreeSet::new(),
            disbelieved: Vec::new(),
            penalised: Vec::new(),
            dropped: BTreeMap::new(),
            failed: None,
            most_buffered: 0,
            trace: Vec::new(),
        };
        for (n, model) in models.into_iter().enumerate() {
            sim.connect(PeerId(n as u64), model);
        }
        sim
    }

    pub(super) fn connect(&mut self, id: PeerId, model: Model) {
        let info = PeerInfo::new("sim", model.claim());
        let at = self.now + model.joins_after;
        self.later(at, Event::Input(FlowInput::Connected(id, info)));
        if let Some(after) = model.leaves_after {
            self.later(self.now + after, Event::Leave(id));
        }
        self.peers.insert(id, SimPeer::new(model, self.now));
    }

    pub(super) fn later(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.due.insert(self.sequence, event);
        self.queue.push(Reverse((at, self.sequence)));
    }

    pub(super) fn after(&mut self, seconds: f64, event: Event) {
        self.later(self.now + Duration::from_secs_f64(seconds), event);
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Runs until the flow has everything and nothing else is to happen soon, or has failed, or `limit` has passed.
    pub(super) fn run(&mut self, limit: Duration) -> bool {
        let is_done = |sim: &Self| sim.failed.is_some() || sim.flow.is_caught_up();
        self.run_while(limit, |sim| !is_done(sim))
    }

    /// Runs while `goes_on`; false if `limit` has passed since the start before.
    pub(super) fn run_while(&mut self, limit: Duration, goes_on: impl Fn(&Self) -> bool) -> bool {
        let end = self.start + limit;
        while goes_on(self) {
            self.events += 1;
            assert!(self.events <= MAX_EVENTS, "endless: {:?}", self.trace.last());
            let event = self.queue.peek().map(|Reverse((at, _))| *at);
            let deadline = self.flow.deadline();
            let Some(next) = event.into_iter().chain(deadline).min() else { return false };
            if next > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            match self.queue.peek() {
                Some(Reverse((at, _))) if *at <= self.now => {
                    let Some(Reverse((_, sequence))) = self.queue.pop() else { continue };
                    if let Some(event) = self.due.remove(&sequence) {
                        self.happens(event);
                    }
                }
                _ => {
                    self.step(FlowInput::Tick);
                    let deadline = self.flow.deadline();
                    assert!(deadline.is_none_or(|at| at > self.now), "a tick leaves its deadline as it was");
                }
            }
        }
        true
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Input(input) => {
                // A peer that was dropped is not heard any more; the scheduler does not tell of it.
                if !input_peer(&input).is_some_and(|id| self.dropped.contains_key(&id)) {
                    self.step(input);
                }
            }
            Event::Chain(id, chain) => {
                let height = chain.last().map_or(0, |block| block.index);
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.model.chain = chain;
                    self.happens(Event::Input(FlowInput::Height(id, height)));
                }
            }
            Event::Boast(id, height) => self.happens(Event::Input(FlowInput::Height(id, height))),
            Event::Leave(id) => {
                if self.peers.remove(&id).is_some() && !self.dropped.contains_key(&id) {
                    self.step(FlowInput::Disconnected(id));
                }
            }
            Event::Room(may_ask) => {
                self.may_ask = may_ask;
                self.step(FlowInput::Tick);
            }
        }
    }

    /// Room for blocks beyond the best chain, with a sink that has applied so much of it.
    fn room(&self) -> usize {
        let Some(rate) = self.sink_rate else { return self.window };
        let applied = (self.elapsed().as_secs_f64() * rate) as u64;
        let ahead = self.chain.best.len() as u64 - 1;
        self.window.saturating_sub(ahead.saturating_sub(applied) as usize)
    }

    pub(super) fn step(&mut self, input: FlowInput) {
        if let FlowInput::Disconnected(_) | FlowInput::Connected(..) = &input {
            self.trace.push(format!("{:?} {input:?}", self.elapsed()));
        }
        let (room, byte_room, may_ask) = (self.room(), self.byte_room, self.may_ask);
        let mut context = FlowContext { chain: &mut self.chain, room, byte_room, may_ask };
        self.flow.handle(self.now, input, &mut context);
        self.most_buffered = self.most_buffered.max(self.flow.buffered_bytes());
        assert!(self.flow.buffered_bytes() <= byte_room, "more is kept than there is room for");
        if let Some(rate) = self.sink_rate {
            // A sink that makes room tells.
            let _ = rate;
        }
        while let Some(output) = self.flow.poll() {
            self.trace.push(format!("{:?} {}", self.elapsed(), describe(&output)));
            self.obey(output);
        }
    }

    fn obey(&mut self, output: FlowOutput) {
        match output {
            FlowOutput::Ask(id, want) => {
                assert!(!self.dropped.contains_key(&id), "asks {id}, which it has dropped");
                self.asks.push((self.elapsed(), id, want.clone()));
                let Some(peer) = self.peers.get_mut(&id) else { return };
                for (at, input) in peer.serve(id, &want, self.now) {
                    self.later(at, Event::Input(input));
                }
            }
            FlowOutput::Drop(id, fault) => {
                assert!(self.dropped.insert(id, fault.to_string()).is_none(), "dropped twice");
            }
            FlowOutput::Penalise(id, fault) => self.penalised.push((id, fault.to_string())),
            FlowOutput::Accepted(_) => {}
            FlowOutput::Body(block) => {
                assert!(self.bodies.insert(block.id.hash), "a block twice");
                let node = self.chain.node(block.id.hash).expect("its header was accepted before");
                assert!(self.chain.by_slot || node.height == block.id.height, "at its height");
            }
            FlowOutput::Shows(id, hash) => {
                let has = self.peers.get(&id).is_none_or(|peer| peer.has_served(hash));
                assert!(has, "{id} has shown what it has not");
                assert!(self.chain.node(hash).is_some(), "in the tree");
                self.shown.insert(id, hash);
            }
            FlowOutput::ShowsNothing(id) => drop(self.shows_nothing.insert(id)),
            FlowOutput::Disbelieve(id) => self.disbelieved.push(id),
            FlowOutput::Failed(reason) => self.failed = Some(reason.to_string()),
        }
    }

    /// How often a height was asked for by range, over all peers.
    pub(super) fn times_asked(&self, height: u64) -> usize {
        let asks = |want: &Want| matches!(want, Want::Range { start, count } if (*start..start + u64::from(*count)).contains(&height));
        self.asks.iter().filter(|(_, _, want)| asks(want)).count()
    }
}

fn input_peer(input: &FlowInput) -> Option<PeerId> {
    match input {
        FlowInput::Connected(id, _)
        | FlowInput::Disconnected(id)
        | FlowInput::Headers { peer: id, .. }
        | FlowInput::Announced(id, _)
        | FlowInput::Height(id, _)
        | FlowInput::Missing(id, _)
        | FlowInput::RangeEnd(id)
        | FlowInput::Unsupported(id, _)
        | FlowInput::Held(id)
        | FlowInput::Released(id)
        | FlowInput::NoRoom { peer: id, .. }
        | FlowInput::Passes(id, _)
        | FlowInput::Progress(id) => Some(*id),
        FlowInput::Block(block) => Some(block.served_by),
        FlowInput::Tick | FlowInput::Room | FlowInput::Known(_) | FlowInput::Rejected { .. } => None,
    }
}

fn describe(output: &FlowOutput) -> String {
    match output {
        FlowOutput::Body(block) => format!("Body({} from {:?})", block.id, block.served_by),
        other => format!("{other:?}"),
    }
}
