//! Blocks as they arrive: from the first part to the end.

use std::time::{Duration, Instant};

use tipward_peer::{
    PeerId,
    wire::{BlockEnd, BlockHash, BlockPart},
};

use super::{
    Fault, Scheduler,
    flow::{Arrived, FlowInput},
    peers::{Arriving, Mode, Place},
};
use crate::{Block, BlockId, Chain, Order};

/// Of how many blocks an average size is made.
const AVERAGED: u64 = 32;
/// How often a flow is told that a peer is sending.
const TELL_INTERVAL: Duration = Duration::from_millis(100);
/// A flow that takes blocks is told of no less than so many bytes: who sends a byte a second is as good as silent.
const TELL_BYTES: u64 = 200;
/// Some who are asked for a block need not bring it any more.
const MANY: u8 = u8::MAX;

impl Scheduler {
    pub(super) fn part(&mut self, now: Instant, id: PeerId, part: BlockPart, chain: &mut dyn Chain) {
        if part.index == 0 {
            self.begin(now, id, &part, chain);
        }
        let end = part.offset.saturating_add(part.bytes.len() as u64);
        self.seen(now, id, end, chain);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // The rest of something that was given up.
        let Some(arriving) = &mut peer.arriving else { return };
        if arriving.download != part.download || arriving.next != part.index {
            return self.drop_peer(id, Fault::BrokenParts);
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
        let (new, is_start) = (received.saturating_sub(*before), *before == 0);
        *before += new;
        if new > 0 {
            peer.received(now, new, is_start);
        }
        peer.untold += new;
        let least = if self.flow.takes_blocks() { TELL_BYTES } else { 0 };
        if now >= peer.told + TELL_INTERVAL && peer.untold >= least {
            (peer.told, peer.untold) = (now, 0);
            self.tell_flow(now, FlowInput::Progress(id), chain);
        }
    }

    /// The first part of a block: is there a place for it?
    fn begin(&mut self, now: Instant, id: PeerId, part: &BlockPart, chain: &mut dyn Chain) {
        self.discard(now, id);
        let size = part.block_size.max(part.bytes.len() as u64);
        let is_large = size > self.ahead_budget();
        // What can't be kept until its place is known.
        let takes_heads = self.flow.takes_heads();
        let has_no_place = is_large || takes_heads && !self.has_room(size, Place::Unknown);
        let was_asked = self.peers.get(&id).is_some_and(|peer| peer.flight(part.block).is_some());
        let place = match self.peers.get(&id).map(|peer| peer.flight(part.block)) {
            None => return,
            Some(Some((_, flight))) => Place::Height(flight.height),
            // It can't be kept until its place is known, so that is found out now.
            Some(None) if has_no_place && self.flow.takes_blocks() => self.place(now, id, part, chain),
            Some(None) => Place::Unknown,
        };
        // Known now, it is fetched when there is room: a peer held with it would hold up what it was asked for before.
        let is_put_off = has_no_place && takes_heads && !is_large && !was_asked && !self.is_front(place);
        let is_needed = match place {
            Place::Height(height) => !is_put_off && self.window.is_missing(height, part.block),
            Place::Unknown => self.flow.takes_blocks() && !has_no_place,
        };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.arriving = Some(Arriving {
            hash: part.block,
            place,
            download: part.download,
            parts: Vec::new(),
            next: 0,
            size,
            seen: std::mem::take(&mut peer.early),
            mode: if is_needed { Mode::Wait } else { Mode::Drain },
        });
        if was_asked && takes_heads {
            self.tell_flow(now, FlowInput::Passes(id, part.block), chain);
        }
        if is_put_off {
            self.lapse(id, |flight| flight.hash == part.block);
        }
        if is_needed && !self.admit(now, id) {
            if let Place::Height(height) = place
                && is_large
            {
                self.large.insert(height, part.block);
            }
            self.room.held.insert(id);
            self.hold(id, now);
        } else if is_large && place == Place::Unknown && self.flow.takes_blocks() && !takes_heads {
            self.tell_flow(now, FlowInput::Missing(id, vec![part.block]), chain);
        }
    }

    /// Finds the place of a large block that a flow asked for: the chain takes its header now.
    fn place(&mut self, now: Instant, id: PeerId, part: &BlockPart, chain: &mut dyn Chain) -> Place {
        let Some(head) = chain.read_head(&part.bytes).filter(|head| head.header.hash == part.block) else {
            return Place::Unknown;
        };
        if self.flow.takes_heads() {
            self.tell_flow(now, FlowInput::NoRoom(id, head.clone()), chain);
        }
        if !head.parents.iter().all(|parent| chain.fork_point(*parent).is_some()) {
            return Place::Unknown;
        }
        // What is wrong with it shows when the flow gets it from a peer that it can blame.
        let Ok(accepted) = chain.accept(&[head.header]) else { return Place::Unknown };
        self.best_chain_changed(now, &accepted, chain);
        self.fill(now, chain);
        let found = chain.fork_point(part.block).filter(|found| found.hash == part.block);
        let Some(height) = found.map(|found| found.height) else { return Place::Unknown };
        if self.window.is_missing(height, part.block)
            && let Some(peer) = self.peers.get_mut(&id)
        {
            peer.asked(now, height, part.block);
            self.window.ask(height);
            self.note(id);
        }
        self.tell_flow(now, FlowInput::Known(part.block), chain);
        Place::Height(height)
    }

    pub(super) fn block_end(&mut self, now: Instant, id: PeerId, end: &BlockEnd, chain: &mut dyn Chain) {
        self.seen(now, id, end.size, chain);
        let share = self.share();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(arriving) = peer.arriving.take_if(|arriving| arriving.download == end.download) else {
            return;
        };
        peer.blocks += 1;
        peer.stall.landed(now, self.options.stall_timeout);
        peer.pace.completed(self.average_size, self.options.max_in_flight, share);
        let flight = peer.land(now, end.block);
        self.count_size(end.size);
        let arriving_mode = arriving.mode;
        let is_whole = arriving.next == end.parts;
        self.settle_room(&arriving);
        // What came after we had stopped to read has to find room all the same.
        let has_room = arriving.mode != Mode::Wait || self.has_room(end.size, arriving.place);
        match (arriving.mode, arriving.place) {
            (Mode::Stream, Place::Height(height)) if is_whole => {
                self.stream = None;
                self.finish_stream(now, BlockId { height, hash: end.block }, end, id);
            }
            (Mode::Collect | Mode::Wait, Place::Height(height)) if is_whole && has_room => {
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
            (Mode::Collect | Mode::Wait, Place::Unknown) if is_whole && has_room => {
                let (parts, transactions, size) = (arriving.parts, end.transactions, end.size);
                let arrived = Arrived { hash: end.block, parts, transactions, size, served_by: id };
                // Its place may have been found meanwhile, and this may be all that comes of it.
                let place = chain.find(end.block).filter(|at| self.window.is_missing(at.height, end.block));
                let is_streamed = |height| self.stream.is_some() && self.is_front(Place::Height(height));
                if let Some(place) = place.filter(|place| !is_streamed(place.height)) {
                    self.complete(now, arrived.clone().into_block(place.height));
                    self.call_off(now, end.block, MANY);
                }
                self.tell_flow(now, FlowInput::Block(arrived), chain);
            }
            (Mode::Wait, Place::Unknown) if is_whole => {
                if let Some(flight) = flight.filter(|flight| !flight.is_lapsed) {
                    self.window.give_back(flight.height, flight.hash);
                }
                self.tell_flow(now, FlowInput::Missing(id, vec![end.block]), chain);
            }
            (Mode::Drain, _) | (Mode::Wait, Place::Height(_)) if is_whole || arriving.mode == Mode::Drain => {
                if let Some(flight) = flight.filter(|flight| !flight.is_lapsed) {
                    self.window.give_back(flight.height, flight.hash);
                }
            }
            _ => return self.drop_peer(id, Fault::BrokenParts),
        }
        // Who was held for want of room and brought the rest all the same is let go when there is room.
        if arriving_mode != Mode::Wait {
            self.release(id, now);
        }
        self.note(id);
    }

    /// Counts a block into the average of the latest sizes.
    fn count_size(&mut self, size: u64) {
        self.sizes = (self.sizes + 1).min(AVERAGED);
        self.average_size = (self.average_size * (self.sizes - 1) + size) / self.sizes;
    }

    /// A block whose place is known is there.
    pub(super) fn complete(&mut self, now: Instant, block: Block) {
        let BlockId { height, hash } = block.id;
        let askers = self.window.askers(height);
        if !self.window.complete(block) {
            return;
        }
        self.large.remove(&height);
        if self.options.order == Order::AsReceived {
            self.ready.insert(height);
        }
        self.call_off(now, hash, askers);
    }

    /// Others need not bring a block any more. One that is under way can't be stopped.
    pub(super) fn call_off(&mut self, now: Instant, hash: BlockHash, askers: u8) {
        if askers < 2 && !self.has_lapsed {
            return;
        }
        let others: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| peer.flight(hash).is_some()).map(|(&id, _)| id).collect();
        for id in others {
            self.lapse(id, |flight| flight.hash == hash);
            let arriving = self.peers.get(&id).and_then(|peer| peer.arriving.as_ref());
            if arriving.is_some_and(|arriving| arriving.hash == hash) {
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
