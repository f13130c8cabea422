//! Room: what is kept while it waits for its turn, and what passes through because it is too large for that.
//!
//! Everything kept counts against one byte budget, and a block counts with its whole size from its first part on. One that
//! has no room holds its peer: what the network buffers is not ours. The next block for the sink never waits for room: it
//! goes to the sink in parts, as fast as the sink takes them.

use std::{collections::BTreeSet, time::Instant};

use tipward_peer::{PeerId, wire::BlockPart};

use super::{
    Output, Scheduler,
    flow::FlowInput,
    peers::{Arriving, Mode, PeerState, Place},
};
use crate::{BlockId, Chain};

/// This fraction of the budget is kept free for the next block.
const FRONT_SHARE: u64 = 8;
/// This fraction of the budget may be taken by blocks that the sink may not have before there are more above them.
const EARLY_SHARE: u64 = 2;
/// This fraction of the budget may be on its way to a sink that takes a block in parts.
const STREAM_SHARE: u64 = 4;

/// What arriving blocks take of the budget.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Bytes of parts that are kept.
    pub(super) partial: u64,
    /// The whole sizes of the blocks that are being collected.
    pub(super) reserved: u64,
    /// How many these are.
    pub(super) collecting: usize,
    /// Bytes of parts of blocks that have no room.
    pub(super) waiting: u64,
    /// Who is held because of such a block. It may be complete by now: what was read already still comes.
    pub(super) held: BTreeSet<PeerId>,
}

impl Scheduler {
    /// Bytes that are kept, or for which there is room reserved.
    pub(super) fn committed(&self) -> u64 {
        self.window.buffered()
            + self.unapplied.bytes
            + self.room.reserved
            + self.room.waiting
            + self.flow.buffered_bytes()
    }

    /// How much of the budget blocks may take that are not the next one.
    pub(super) fn ahead_budget(&self) -> u64 {
        self.options.byte_budget - self.options.byte_budget / FRONT_SHARE
    }

    pub(super) fn has_room(&self, size: u64, place: Place) -> bool {
        let budget = if self.is_front(place) { self.options.byte_budget } else { self.ahead_budget() };
        self.committed().saturating_add(size) <= budget
    }

    /// Whether there is room for a block that the sink may not have yet: it must leave some for what has to come before it may.
    pub(super) fn has_early_room(&self, size: u64) -> bool {
        self.committed().saturating_add(size) <= self.ahead_budget() / EARLY_SHARE
    }

    pub(super) fn is_front(&self, place: Place) -> bool {
        place == Place::Height(self.window.base()) && self.window.base() <= self.deliverable
    }

    /// Collects or streams the block that arrives from this peer, if either is possible.
    pub(super) fn admit(&mut self, now: Instant, id: PeerId, chain: &dyn Chain) -> bool {
        let arriving = self.peers.get(&id).and_then(|peer| peer.arriving.as_ref());
        let Some(arriving) = arriving.filter(|arriving| arriving.mode == Mode::Wait) else {
            return self.committed() <= self.ahead_budget();
        };
        let (place, size) = (arriving.place, arriving.size);
        let waited: u64 = arriving.parts.iter().map(|part| part.bytes.len() as u64).sum();
        if self.has_room(size - waited.min(size), place) {
            self.room.waiting -= waited;
            self.room.reserved += size;
            self.room.collecting += 1;
            self.set_mode(id, Mode::Collect);
            return true;
        }
        if !self.is_front(place) || !self.may_stream(STREAM_SHARE) || !self.takes_over_stream(now, id) {
            return false;
        }
        self.room.waiting -= waited;
        self.room.partial -= waited;
        self.stream = Some(id);
        let parts = self.set_mode(id, Mode::Stream);
        parts.into_iter().for_each(|part| self.stream_part(now, part, chain));
        true
    }

    /// Whether this peer may pass the next block to the sink: nobody else does, or one that is slower by far.
    fn takes_over_stream(&mut self, now: Instant, id: PeerId) -> bool {
        let Some(streaming) = self.stream else { return true };
        let remaining = |id: PeerId| {
            let peer = self.peers.get(&id)?;
            let arriving = peer.arriving.as_ref()?;
            peer.pace.expected(now, arriving.size.saturating_sub(arriving.seen))
        };
        let ours = remaining(id).unwrap_or(self.options.stall_timeout);
        let is_faster =
            remaining(streaming).is_some_and(|theirs| ours < theirs / (2 << self.stream_aborts()));
        if is_faster {
            self.discard(now, streaming);
        }
        is_faster
    }

    /// Looks whether those who wait need not wait any more.
    pub(super) fn admit_waiting(&mut self, now: Instant, chain: &dyn Chain) {
        if self.room.held.is_empty() {
            return;
        }
        let place = |peer: &PeerState| match peer.arriving.as_ref().map(|arriving| arriving.place) {
            Some(Place::Height(height)) => height,
            Some(Place::Unknown) | None => u64::MAX,
        };
        let mut waiting: Vec<(u64, PeerId)> = self
            .room
            .held
            .iter()
            .filter_map(|id| self.peers.get(id).map(|peer| (place(peer), *id)))
            .collect();
        waiting.sort_unstable();
        for (_, id) in waiting {
            if self.admit(now, id, chain) {
                self.release(id, now);
                self.throttle(now);
            }
        }
    }

    /// A flow that takes blocks may need one of the peers all of which are held, to find the next block: one is let go.
    pub(super) fn free_one(&mut self, now: Instant) {
        if !self.flow.takes_blocks() || self.room.held.is_empty() {
            return;
        }
        let is_front = |peer: &PeerState| peer.arriving.as_ref().is_some_and(|it| self.is_front(it.place));
        if self.peers.values().all(|peer| peer.is_held && !is_front(peer))
            && let Some(&first) = self.room.held.first()
        {
            self.discard(now, first);
            self.release(first, now);
        }
    }

    /// Gives up the block that arrives from a peer: what is left of it will be dropped as it comes.
    pub(super) fn discard(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(arriving) = &mut peer.arriving else { return };
        let given_up = Arriving {
            parts: std::mem::take(&mut arriving.parts),
            mode: std::mem::replace(&mut arriving.mode, Mode::Drain),
            ..*arriving
        };
        let hash = given_up.hash;
        self.give_up(&given_up);
        self.lapse(id, |flight| flight.hash == hash);
        self.release(id, now);
    }

    /// Frees what an arriving block has taken, and tells the sink if it has got parts of it.
    pub(super) fn give_up(&mut self, arriving: &Arriving) {
        self.settle_room(arriving);
        if let (Mode::Stream, Place::Height(height)) = (arriving.mode, arriving.place) {
            self.stream = None;
            self.frontier.iter_mut().for_each(|frontier| frontier.aborts += 1);
            self.unapplied.push(0);
            self.outputs.push_back(Output::Abort(BlockId { height, hash: arriving.hash }));
        }
    }

    pub(super) fn set_mode(&mut self, id: PeerId, mode: Mode) -> Vec<BlockPart> {
        let Some(arriving) = self.peers.get_mut(&id).and_then(|peer| peer.arriving.as_mut()) else {
            return Vec::new();
        };
        arriving.mode = mode;
        if mode == Mode::Stream { std::mem::take(&mut arriving.parts) } else { Vec::new() }
    }

    pub(super) fn stream_part(&mut self, now: Instant, part: BlockPart, chain: &dyn Chain) {
        let height = self.window.base();
        self.roll_back_for(height, chain);
        self.unapplied.push(part.bytes.len() as u64);
        self.outputs.push_back(Output::ApplyPart(BlockId { height, hash: part.block }, part));
        self.throttle(now);
    }

    /// Holds the peer whose block passes through when the sink does not keep up.
    fn throttle(&mut self, now: Instant) {
        if let Some(id) = self.stream
            && !self.may_stream(STREAM_SHARE)
        {
            self.hold(id, now);
        }
    }

    /// The sink has taken something: whoever streams may go on.
    pub(super) fn stream_on(&mut self, now: Instant) {
        if let Some(id) = self.stream
            && self.may_stream(2 * STREAM_SHARE)
        {
            self.release(id, now);
        }
    }

    /// Whether the sink can be given more parts; always if it has none, or nothing would ever make room.
    fn may_stream(&self, share: u64) -> bool {
        let budget = self.options.byte_budget;
        self.unapplied.bytes == 0 || self.unapplied.bytes <= budget / share && self.committed() <= budget
    }

    /// Reads nothing more from a peer. What it would send after the arriving block is asked of others.
    pub(super) fn hold(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.is_held) else { return };
        peer.is_held = true;
        peer.pace.idle(now);
        let hash = peer.arriving.as_ref().map(|arriving| arriving.hash);
        self.outputs.push_back(Output::Hold(id));
        self.untold.push_back(FlowInput::Held(id));
        self.lapse(id, |flight| Some(flight.hash) != hash);
    }

    pub(super) fn release(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.is_held) else { return };
        self.room.held.remove(&id);
        peer.is_held = false;
        peer.stall.restart(now);
        if peer.load() > 0 {
            peer.pace.asked(now);
        }
        self.outputs.push_back(Output::Resume(id));
        self.untold.push_back(FlowInput::Released(id));
        self.note(id);
    }

    pub(super) fn settle_room(&mut self, arriving: &Arriving) {
        let kept: u64 = arriving.parts.iter().map(|part| part.bytes.len() as u64).sum();
        self.room.partial -= kept;
        match arriving.mode {
            Mode::Collect => {
                self.room.reserved -= arriving.size;
                self.room.collecting -= 1;
            }
            Mode::Wait => self.room.waiting -= kept,
            Mode::Stream | Mode::Drain => {}
        }
    }
}
