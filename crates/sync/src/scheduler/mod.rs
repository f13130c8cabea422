//! What to ask of whom and when, and in which order to deliver it: a machine without I/O.
//!
//! A flow finds blocks ([`Strategy`]). Those whose place in the chain is known are asked of all peers that have them, in a
//! window ahead of what the sink has applied, and delivered in chain order. A peer is asked for as much as its speed and
//! latency tell. One that brings nothing for a while loses its requests to others; the block that everything waits for is
//! asked of a second peer before that. Everything kept fits one byte budget. A peer that lies is dropped.
//!
//! [`Strategy`]: crate::Strategy

mod arrivals;
mod blocks;
mod fault;
mod figures;
mod filtered;
pub(crate) mod flow;
mod flows;
mod front;
mod io;
mod order;
mod pace;
mod peers;
mod reject;
mod room;
mod window;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use tipward_peer::{PeerId, Reply, Want, wire::BlockHash};

use crate::{BlockId, Chain, Event, PeerShare, SyncOptions, filters::Filters};
pub(crate) use arrivals::unpin;
pub use fault::Fault;
pub(crate) use figures::Figures;
use flow::{Flow, FlowContext, FlowInput, FlowOutput};
use front::Frontier;
pub use io::{Input, Output};
use order::Unapplied;
use peers::{Has, PeerState};
use room::Room;
use window::Window;

/// After so many inputs without a tick time-outs are checked all the same; more than can be waiting to be read.
const MAX_UNCHECKED: u32 = 1024;

/// The sink's cursor is a block that no peer's chain has.
#[derive(Debug, thiserror::Error)]
#[error("the sink has applied block {0}, which is on no chain that the peers have")]
pub(crate) struct UnknownCursor(pub(crate) BlockId);

/// The scheduler. After every [`handle`](Self::handle), take [`poll`](Self::poll) until `None` and come back with
/// [`Input::Tick`] at [`deadline`](Self::deadline).
#[derive(Debug)]
pub struct Scheduler {
    options: SyncOptions,
    flow: Flow,
    /// If blocks are chosen by their filters: these see to everything but headers.
    filters: Option<Box<Filters>>,
    is_filtered: bool,
    peers: BTreeMap<PeerId, PeerState>,
    /// Peers that can take more requests.
    hungry: BTreeSet<PeerId>,
    /// No peer has to be looked after before. What a peer brings meanwhile can only put that off.
    peers_due: Option<Instant>,
    /// The sum of the rates of the peers that are asked for something, in bytes a second; in how many seconds the first of them
    /// would bring one block more; and when that was found.
    total_rate: f64,
    quickest: f64,
    rates_at: Option<Instant>,
    settled: bool,
    is_paused: bool,
    /// The tip of the best chain when it changed last.
    header_tip: Option<BlockId>,
    /// The last block given to the sink, in the order of the chain.
    sent: Option<BlockId>,
    /// That block is or was in the tree: it is not one that only the sink knows.
    is_placed: bool,
    /// Where the sink must go back to before it gets a block above.
    rollback: Option<BlockId>,
    window: Window,
    /// The sink may have blocks up to this height.
    deliverable: u64,
    frontier: Option<Frontier>,
    /// Blocks that are known to be too large to be kept, by height.
    large: BTreeMap<u64, BlockHash>,
    /// Heights of blocks that are there and may go to the sink before their turn.
    ready: BTreeSet<u64>,
    /// Who passes the next block to the sink in parts.
    stream: Option<PeerId>,
    room: Room,
    unapplied: Unapplied,
    /// The running average of block sizes, in bytes.
    average_size: u64,
    /// Of how many blocks that is.
    sizes: u64,
    /// Where the search for the next peer to ask begins, so that work spreads.
    turn: u64,
    synced_at: Option<BlockId>,
    /// Requests were taken back that may still be answered.
    has_lapsed: bool,
    /// What the flow has to be told of, when its turn comes.
    untold: VecDeque<FlowInput>,
    is_over: bool,
    /// How often a peer brought nothing for too long.
    stalls: u64,
    /// Inputs since the last look for what is late.
    unchecked: u32,
    /// When it was last looked for what is late.
    checked: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl Scheduler {
    /// A scheduler for a sink at `cursor`. Its choices among equal peers follow from the seed.
    #[must_use]
    pub fn new(options: SyncOptions, cursor: Option<BlockId>, seed: u64) -> Self {
        Self {
            flow: Flow::new(&options, seed),
            filters: None,
            is_filtered: false,
            options,
            peers: BTreeMap::new(),
            hungry: BTreeSet::new(),
            peers_due: None,
            total_rate: 0.0,
            quickest: 0.0,
            rates_at: None,
            settled: false,
            is_paused: false,
            header_tip: None,
            sent: cursor,
            is_placed: cursor.is_none(),
            rollback: None,
            window: Window::default(),
            deliverable: 0,
            frontier: None,
            large: BTreeMap::new(),
            ready: BTreeSet::new(),
            stream: None,
            room: Room::default(),
            unapplied: Unapplied::default(),
            // A guess until blocks have come; a full block of BTC.
            average_size: 1 << 20,
            sizes: 0,
            turn: 0,
            synced_at: None,
            has_lapsed: false,
            untold: VecDeque::new(),
            is_over: false,
            stalls: 0,
            unchecked: 0,
            checked: None,
            outputs: VecDeque::new(),
        }
    }

    /// Takes what happened at `now`. Times must not go back.
    pub fn handle(&mut self, now: Instant, input: Input, chain: &mut dyn Chain) {
        if self.is_over {
            return;
        }
        match self.filters.take() {
            Some(filters) => self.handle_filtered(now, input, filters, chain),
            None => {
                self.step(now, input, chain);
                self.conclude(chain);
            }
        }
    }

    fn step(&mut self, now: Instant, input: Input, chain: &mut dyn Chain) {
        let is_tick = matches!(input, Input::Tick);
        self.header_tip.get_or_insert_with(|| chain.tip());
        match input {
            Input::Connected(peer, info) => {
                let state = PeerState::new(&info, self.options.stall_timeout, now);
                self.peers.insert(peer, state);
                self.note(peer);
                self.tell_flow(now, FlowInput::Connected(peer, info), chain);
            }
            Input::Disconnected(peer) => {
                if self.forget(peer) {
                    self.tell_flow(now, FlowInput::Disconnected(peer), chain);
                }
            }
            Input::Settled => self.settled = true,
            Input::Reply(peer, reply) => self.reply(now, peer, reply, chain),
            Input::Delivered(count) => {
                self.unapplied.pop(count);
                self.stream_on(now);
                self.tell_of_room(now, chain);
            }
            Input::Rejected { block, reason } => self.rejected(now, block, reason, chain),
            Input::Pause => self.is_paused = true,
            Input::Resume => {
                self.is_paused = false;
                self.tell_of_room(now, chain);
            }
            // Without filters there is nothing to look through.
            Input::Tick | Input::Rescan(_) => {}
        }
        self.tell_the_untold(now, chain);
        // After a tick everything that has come is known. Before, what seems to be late may only be waiting to be read.
        self.unchecked += 1;
        let is_late_known = is_tick || self.unchecked > MAX_UNCHECKED;
        if is_late_known {
            self.unchecked = 0;
            self.checked = Some(now);
            self.has_lapsed = self.peers.values().any(PeerState::has_lapsed);
            self.check_stalls(now);
            self.tell_the_untold(now, chain);
            // Our own back-pressure is not held against a peer.
            let is_held = |(&id, peer): (&PeerId, &PeerState)| peer.is_held.then_some(id);
            let held: Vec<PeerId> = self.peers.iter().filter_map(is_held).collect();
            if self.flow.takes_blocks() {
                held.into_iter().for_each(|id| self.tell_flow(now, FlowInput::Progress(id), chain));
            }
            self.tell_flow(now, FlowInput::Tick, chain);
        }
        if !self.options.headers_only && self.flow.may_fetch() && !self.is_over {
            self.fill(now, chain);
            self.deliver(now, chain);
            self.admit_waiting(now, chain);
            self.free_one(now);
            self.assign(now);
            if is_late_known {
                self.look_after_front(now);
            }
        }
        if is_late_known {
            self.peers_due = self.peers.values().filter_map(|peer| peer.due(self.checked)).min();
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the time alone will have an effect.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        // What was due at the last look was acted on, or has to wait for something else. A flow sees to that by itself.
        let front = self.frontier_due().filter(|&at| Some(at) > self.checked);
        let filters = self.filters.as_ref().and_then(|filters| filters.deadline());
        [self.peers_due, front, self.flow.deadline(), filters].into_iter().flatten().min()
    }

    /// Bytes of blocks that are kept: those that wait for their turn or for the sink, and those that arrive.
    #[must_use]
    pub fn buffered_bytes(&self) -> u64 {
        let filters = self.filters.as_ref().map_or(0, |filters| filters.buffered_bytes());
        self.window.buffered()
            + self.unapplied.bytes
            + self.room.partial
            + self.flow.buffered_bytes()
            + filters
    }

    /// What each peer does.
    #[must_use]
    pub fn shares(&self) -> Vec<PeerShare> {
        let share = |(&id, peer): (&PeerId, &PeerState)| {
            let mut share = PeerShare {
                peer: id,
                blocks: peer.blocks,
                bytes: peer.bytes,
                // Saturates on purpose.
                rate: peer.pace.rate() as u64,
                in_flight: peer.open(),
            };
            self.filters.iter().for_each(|filters| filters.add_share(&mut share));
            share
        };
        self.peers.iter().map(share).collect()
    }

    fn reply(&mut self, now: Instant, peer: PeerId, reply: Reply, chain: &mut dyn Chain) {
        if !self.peers.contains_key(&peer) {
            return; // Dropped by us; what was still under way is void.
        }
        let input = match reply {
            Reply::Part(part) => return self.part(now, peer, part, chain),
            Reply::BlockEnd(end) => return self.block_end(now, peer, &end, chain),
            Reply::Progress { received } => return self.seen(now, peer, received, chain),
            Reply::BlockAborted { block, .. } => return self.aborted(now, peer, block),
            Reply::Missing(blocks) => {
                self.missing(now, peer, &blocks);
                FlowInput::Missing(peer, blocks)
            }
            Reply::Unsupported(Want::Blocks(blocks)) => {
                self.refused(now, peer, &blocks);
                FlowInput::Unsupported(peer, Want::Blocks(blocks))
            }
            Reply::Unsupported(want) => FlowInput::Unsupported(peer, want),
            Reply::Headers { headers, more } => FlowInput::Headers { peer, headers, more },
            Reply::Announced(blocks) => FlowInput::Announced(peer, blocks),
            Reply::RangeEnd => FlowInput::RangeEnd(peer),
            Reply::Height(height) => FlowInput::Height(peer, height),
            // Of interest to others.
            _ => return,
        };
        self.tell_flow(now, input, chain);
    }

    /// Lets the flow work, and does what it wants done.
    fn tell_flow(&mut self, now: Instant, input: FlowInput, chain: &mut dyn Chain) {
        let under_way = self.window.asked().saturating_sub(self.room.collecting) as u64;
        let taken = self.committed() - self.flow.buffered_bytes();
        let taken = taken.saturating_add(under_way.saturating_mul(self.average_size));
        // Where the next block is one that nobody has, a branch that wins over it may still be found.
        let is_stuck = self.window.missing_front().is_some_and(|(_, askers)| askers == 0);
        let mut context = FlowContext {
            chain,
            room: self.window_room().max(usize::from(is_stuck)),
            byte_room: self.ahead_budget().saturating_sub(taken),
            may_ask: !self.is_paused,
        };
        self.flow.handle(now, input, &mut context);
        while let Some(output) = self.flow.poll() {
            self.obey_flow(now, output, chain);
        }
    }

    fn tell_the_untold(&mut self, now: Instant, chain: &mut dyn Chain) {
        while let Some(input) = self.untold.pop_front() {
            self.tell_flow(now, input, chain);
        }
    }

    fn tell_of_room(&mut self, now: Instant, chain: &mut dyn Chain) {
        if self.flow.takes_blocks() {
            self.tell_flow(now, FlowInput::Room, chain);
        }
    }

    fn obey_flow(&mut self, now: Instant, output: FlowOutput, chain: &mut dyn Chain) {
        match output {
            FlowOutput::Ask(peer, want) => self.outputs.push_back(Output::Ask(peer, want)),
            FlowOutput::Drop(peer, fault) => {
                self.forget(peer);
                chain.lost(peer);
                self.outputs.push_back(Output::Drop(peer, fault));
            }
            FlowOutput::Penalise(peer, fault) => self.outputs.push_back(Output::Penalise(peer, fault)),
            FlowOutput::Accepted(accepted) => {
                self.best_chain_changed(now, &accepted, chain);
                self.fill(now, chain);
            }
            FlowOutput::Body(block) => self.complete(now, block, false),
            FlowOutput::Shows(peer, tip) => {
                if let (Some(point), Some(peer)) = (chain.fork_point(tip), self.peers.get_mut(&peer)) {
                    let is_best = point.hash == tip;
                    if matches!(peer.has, Has::Shown { reach, .. } if is_best && reach >= point.height) {
                        return;
                    }
                    peer.has = Has::Shown { tip, reach: point.height };
                    peer.claimed = peer.claimed.max(point.height);
                }
            }
            FlowOutput::ShowsNothing(peer) => {
                if let Some(peer) = self.peers.get_mut(&peer).filter(|peer| peer.has == Has::Unknown) {
                    peer.has = Has::Claims;
                }
            }
            FlowOutput::Disbelieve(peer) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.claimed = match peer.has {
                        Has::Shown { reach, .. } => reach,
                        Has::Claims | Has::Unknown => 0,
                    };
                }
            }
            FlowOutput::Failed(reason) => {
                self.is_over = true;
                self.outputs.push_back(Output::Failed(reason));
            }
        }
    }

    fn drop_peer(&mut self, peer: PeerId, fault: Fault) {
        if self.forget(peer) {
            self.outputs.push_back(Output::Drop(peer, fault));
            self.untold.push_back(FlowInput::Disconnected(peer));
        }
    }

    /// False if there is no such peer.
    fn forget(&mut self, id: PeerId) -> bool {
        self.hungry.remove(&id);
        let Some(mut peer) = self.peers.remove(&id) else { return false };
        if let Some(arriving) = &peer.arriving {
            self.give_up(arriving);
        }
        self.room.held.remove(&id);
        for flight in peer.lapse(|_| true) {
            self.window.give_back(flight.height, flight.hash);
        }
        self.rates_at = None;
        true
    }

    /// Tells when the target is reached, or the place to stop.
    fn conclude(&mut self, chain: &mut dyn Chain) {
        let tip = chain.tip();
        let applied = if let Some(filters) = &self.filters {
            filters.applied(chain)
        } else if self.options.headers_only {
            Some(tip)
        } else {
            self.sent.filter(|_| self.unapplied.len() == 0 && self.rollback.is_none())
        };
        if let (Some(stop), Some(applied)) = (self.options.stop_at, applied)
            && applied.height >= stop
        {
            self.is_over = true;
            self.outputs.push_back(Output::Stopped);
            return;
        }
        let follows_headers = self.options.headers_only && !self.is_filtered;
        let target = if follows_headers { tip.height } else { self.target(chain) };
        let is_there = applied.is_some_and(|applied| applied.height >= target);
        let is_lost = self.window.len() == 0 && !follows_headers;
        if !(is_there || is_lost) || !self.settled || !self.flow.is_caught_up() {
            return;
        }
        let own = || self.sent.filter(|_| self.is_without_place(chain)).map(UnknownCursor);
        let unknown = self.filters.as_ref().map_or_else(own, |filters| filters.is_without_place(chain));
        if let Some(unknown) = unknown {
            self.is_over = true;
            self.outputs.push_back(Output::Failed(Arc::new(unknown)));
        } else if let Some(applied) = applied.filter(|_| is_there && self.synced_at != Some(tip)) {
            self.synced_at = Some(tip);
            chain.caught_up();
            let tip = if self.options.stay_behind == 0 { tip } else { applied };
            self.outputs.push_back(Output::Event(Event::Synced { tip }));
            if self.options.stop_when_synced {
                self.is_over = true;
                self.outputs.push_back(Output::Stopped);
            }
        }
    }
}

#[cfg(test)]
mod tests;
