//! Blocks as they arrive: kept while there is room, passed on in parts if they are too large for that.
//!
//! Everything kept counts against one byte budget, and a block counts with its whole size from its first part on. One that
//! has no room holds its peer: what the network buffers is not ours. The next block for the sink never waits for room: it
//! goes to the sink in parts, as fast as the sink takes them.

use std::time::{Duration, Instant};

use tipward_peer::{
    PeerId,
    wire::{BlockEnd, BlockHash, BlockPart},
};

use super::{
    Fault, Output, Scheduler,
    flow::{Arrived, FlowInput},
    peers::{Arriving, Mode, PeerState, Place},
};
use crate::{Block, BlockId, Chain};

/// This fraction of the budget is kept free for the next block.
const FRONT_SHARE: u64 = 8;
/// This fraction of the budget may be on its way to a sink that takes a block in parts.
const STREAM_SHARE: u64 = 4;
/// How often a flow is told that a peer is sending.
const TELL_INTERVAL: Duration = Duration::from_millis(100);
/// A flow that takes blocks is told of no less than so many bytes: who sends a byte a second is as good as silent.
const TELL_BYTES: u64 = 200;

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

    fn has_room(&self, size: u64, place: Place) -> bool {
        let budget = if self.is_front(place) { self.options.byte_budget } else { self.ahead_budget() };
        self.committed().saturating_add(size) <= budget
    }

    fn is_front(&self, place: Place) -> bool {
        place == Place::Height(self.window.base())
    }

    pub(super) fn part(&mut self, now: Instant, id: PeerId, part: BlockPart, chain: &mut dyn Chain) {
        if part.index == 0 {
            self.begin(now, id, &part);
        }
        let end = part.offset.saturating_add(part.bytes.len() as u64);
        self.seen(now, id, end, chain);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // The rest of something that was given up.
        let Some(arriving) = &mut peer.arriving else { return };
        if arriving.download != part.download || arriving.next != part.index {
            return self.drop_peer(now, id, Fault::BrokenParts);
        }
        arriving.next += 1;
        let length = part.bytes.len() as u64;
        match arriving.mode {
            Mode::Collect => {
                self.room.partial += length;
                arriving.parts.push(part);
            }
            Mode::Wait => {
                self.room.partial += length;
                self.room.waiting += length;
                arriving.parts.push(part);
            }
            Mode::Stream => self.stream_part(now, part),
            Mode::Drain => {}
        }
    }

    /// So many bytes of the arriving block have come.
    pub(super) fn seen(&mut self, now: Instant, id: PeerId, received: u64, chain: &mut dyn Chain) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let before = match &mut peer.arriving {
            Some(arriving) => &mut arriving.seen,
            None => &mut peer.early,
        };
        let new = received.saturating_sub(*before);
        *before += new;
        if new > 0 {
            self.total_rate += peer.received(now, new);
        }
        peer.untold += new;
        let least = if self.flow.takes_blocks() { TELL_BYTES } else { 0 };
        if now >= peer.told + TELL_INTERVAL && peer.untold >= least {
            (peer.told, peer.untold) = (now, 0);
            self.tell_flow(now, FlowInput::Progress(id), chain);
        }
    }

    /// The first part of a block: is there a place for it?
    fn begin(&mut self, now: Instant, id: PeerId, part: &BlockPart) {
        self.discard(now, id);
        let Some(peer) = self.peers.get(&id) else { return };
        let place = match peer.flight(part.block) {
            Some((_, flight)) => Place::Height(flight.height),
            None => Place::Unknown,
        };
        let is_needed = match place {
            Place::Height(height) => self.window.is_missing(height, part.block),
            Place::Unknown => self.flow.takes_blocks(),
        };
        let arriving = Arriving {
            hash: part.block,
            place,
            download: part.download,
            parts: Vec::new(),
            next: 0,
            size: part.block_size.max(part.bytes.len() as u64),
            seen: peer.early,
            mode: Mode::Drain,
        };
        let size = arriving.size;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.arriving = Some(arriving);
            peer.early = 0;
        }
        if is_needed && !self.admit(now, id) {
            if size > self.ahead_budget()
                && let Place::Height(height) = place
            {
                self.large.insert(height, part.block);
            }
            self.set_mode(id, Mode::Wait);
            self.room.held.insert(id);
            self.hold(id, now);
        }
    }

    /// Collects or streams the block that arrives from this peer, if either is possible.
    fn admit(&mut self, now: Instant, id: PeerId) -> bool {
        let Some(arriving) = self.peers.get(&id).and_then(|peer| peer.arriving.as_ref()) else { return true };
        let (place, size) = (arriving.place, arriving.size);
        let waited: u64 = arriving.parts.iter().map(|part| part.bytes.len() as u64).sum();
        if self.has_room(size - waited.min(size), place) {
            self.room.waiting -= waited;
            self.room.reserved += size;
            self.room.collecting += 1;
            self.set_mode(id, Mode::Collect);
            return true;
        }
        if !self.is_front(place) || !self.takes_over_stream(now, id) {
            return false;
        }
        self.room.waiting -= waited;
        self.room.partial -= waited;
        self.stream = Some(id);
        let parts = self.set_mode(id, Mode::Stream);
        parts.into_iter().for_each(|part| self.stream_part(now, part));
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
        let is_faster = remaining(streaming).is_some_and(|theirs| ours < theirs / 2);
        if is_faster {
            self.discard(now, streaming);
        }
        is_faster
    }

    /// Looks whether those who wait need not wait any more.
    pub(super) fn admit_waiting(&mut self, now: Instant) {
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
            if self.admit(now, id) {
                self.room.held.remove(&id);
                self.release(id, now);
                self.throttle(now);
            }
        }
    }

    /// Gives up the block that arrives from a peer: what is left of it will be dropped as it comes.
    pub(super) fn discard(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(arriving) = &mut peer.arriving else { return };
        let kept: u64 = arriving.parts.drain(..).map(|part| part.bytes.len() as u64).sum();
        let mode = std::mem::replace(&mut arriving.mode, Mode::Drain);
        let (hash, place, size) = (arriving.hash, arriving.place, arriving.size);
        let lapsed = peer.lapse(|flight| flight.hash == hash);
        match mode {
            Mode::Collect => {
                self.room.partial -= kept;
                self.room.reserved -= size;
                self.room.collecting -= 1;
            }
            Mode::Wait => {
                self.room.partial -= kept;
                self.room.waiting -= kept;
                self.room.held.remove(&id);
            }
            Mode::Stream => {
                self.stream = None;
                if let Place::Height(height) = place {
                    self.unapplied.push(0);
                    self.outputs.push_back(Output::Abort(BlockId { height, hash }));
                }
            }
            Mode::Drain => {}
        }
        self.release(id, now);
        lapsed.into_iter().for_each(|flight| self.window.give_back(flight.height, flight.hash));
    }

    fn set_mode(&mut self, id: PeerId, mode: Mode) -> Vec<BlockPart> {
        let Some(arriving) = self.peers.get_mut(&id).and_then(|peer| peer.arriving.as_mut()) else {
            return Vec::new();
        };
        arriving.mode = mode;
        if mode == Mode::Stream { std::mem::take(&mut arriving.parts) } else { Vec::new() }
    }

    fn stream_part(&mut self, now: Instant, part: BlockPart) {
        let height = self.window.base();
        self.roll_back_for(height);
        self.unapplied.push(part.bytes.len() as u64);
        self.outputs.push_back(Output::ApplyPart(BlockId { height, hash: part.block }, part));
        self.throttle(now);
    }

    /// Holds the peer whose block passes through when the sink does not keep up.
    fn throttle(&mut self, now: Instant) {
        if let Some(id) = self.stream
            && self.unapplied.bytes > self.options.byte_budget / STREAM_SHARE
        {
            self.hold(id, now);
        }
    }

    /// The sink has taken something: whoever streams may go on.
    pub(super) fn stream_on(&mut self, now: Instant) {
        if let Some(id) = self.stream
            && self.unapplied.bytes <= self.options.byte_budget / STREAM_SHARE / 2
        {
            self.release(id, now);
        }
    }

    /// Reads nothing more from a peer. What it would send after the arriving block is asked of others.
    fn hold(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.is_held) else { return };
        peer.is_held = true;
        peer.pace.idle(now);
        let hash = peer.arriving.as_ref().map(|arriving| arriving.hash);
        let lapsed = peer.lapse(|flight| Some(flight.hash) != hash);
        self.hungry.remove(&id);
        self.outputs.push_back(Output::Hold(id));
        lapsed.into_iter().for_each(|flight| self.window.give_back(flight.height, flight.hash));
    }

    fn release(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.is_held) else { return };
        peer.is_held = false;
        peer.stall.restart(now);
        if peer.load() > 0 {
            peer.pace.asked(now);
        }
        self.outputs.push_back(Output::Resume(id));
        self.note_hunger(id);
    }

    pub(super) fn block_end(&mut self, now: Instant, id: PeerId, end: &BlockEnd, chain: &mut dyn Chain) {
        self.seen(now, id, end.size, chain);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(arriving) = peer.arriving.take_if(|arriving| arriving.download == end.download) else {
            return;
        };
        peer.blocks += 1;
        peer.stall.landed(now, self.options.stall_timeout);
        peer.pace.completed(self.average_size, self.options.max_in_flight);
        let flight = peer.land(now, end.block);
        self.average_size = (self.average_size * 7 + end.size) / 8;
        let is_whole = arriving.next == end.parts;
        self.settle_room(id, &arriving);
        match (arriving.mode, arriving.place) {
            (Mode::Stream, Place::Height(height)) if is_whole => {
                self.stream = None;
                self.finish_stream(now, BlockId { height, hash: end.block }, end, id);
            }
            (Mode::Collect | Mode::Wait, Place::Height(height)) if is_whole => {
                let block = Block {
                    id: BlockId { height, hash: end.block },
                    parts: arriving.parts,
                    transactions: end.transactions,
                    size: end.size,
                    served_by: Some(id),
                    is_streamed: false,
                };
                self.complete(now, block);
            }
            (Mode::Collect | Mode::Wait, Place::Unknown) if is_whole => {
                let (parts, transactions, size) = (arriving.parts, end.transactions, end.size);
                let arrived = Arrived { hash: end.block, parts, transactions, size, served_by: id };
                self.tell_flow(now, FlowInput::Block(arrived), chain);
            }
            (Mode::Drain, _) => {
                if let Some(flight) = flight.filter(|flight| !flight.is_lapsed) {
                    self.window.give_back(flight.height, flight.hash);
                }
            }
            _ => return self.drop_peer(now, id, Fault::BrokenParts),
        }
        self.release(id, now);
        self.note_hunger(id);
    }

    fn settle_room(&mut self, id: PeerId, arriving: &Arriving) {
        let kept: u64 = arriving.parts.iter().map(|part| part.bytes.len() as u64).sum();
        self.room.partial -= kept;
        match arriving.mode {
            Mode::Collect => {
                self.room.reserved -= arriving.size;
                self.room.collecting -= 1;
            }
            Mode::Wait => {
                self.room.waiting -= kept;
                self.room.held.remove(&id);
            }
            Mode::Stream | Mode::Drain => {}
        }
    }

    /// A block whose place is known is there.
    pub(super) fn complete(&mut self, now: Instant, block: Block) {
        let BlockId { height, hash } = block.id;
        let askers = self.window.askers(height);
        if !self.window.complete(block) {
            return;
        }
        self.large.remove(&height);
        if self.options.order == crate::Order::AsReceived {
            self.ready.insert(height);
        }
        if askers > 0 {
            self.call_off(now, hash, askers);
        }
    }

    /// Others need not bring a block any more. One that is under way can't be stopped.
    pub(super) fn call_off(&mut self, now: Instant, hash: BlockHash, askers: u8) {
        if askers < 2 {
            return;
        }
        let others: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| peer.flight(hash).is_some()).map(|(&id, _)| id).collect();
        for id in others {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            peer.lapse(|flight| flight.hash == hash);
            if peer.arriving.as_ref().is_some_and(|arriving| arriving.hash == hash) {
                self.discard(now, id);
            }
        }
    }

    /// A block's parts are void; the connection's end is near.
    pub(super) fn aborted(&mut self, now: Instant, id: PeerId, hash: BlockHash) {
        if self
            .peers
            .get(&id)
            .and_then(|peer| peer.arriving.as_ref())
            .is_some_and(|arriving| arriving.hash == hash)
        {
            self.discard(now, id);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.arriving = None;
            }
        }
    }
}
