//! Blocks as they arrive: from the first part to the end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tipward_peer::{
    PeerId,
    wire::{BlockEnd, BlockHash, BlockPart},
};

use super::{
    Fault, Scheduler,
    flow::{Arrived, FlowInput},
    peers::{Arriving, Mode, Place},
};
use crate::{Block, BlockHead, BlockId, Chain, Order};

/// Parts of fewer bytes are copied when they have to wait. What larger ones are slices of is at most 16 times as large.
const SMALL_PART: usize = 256 << 10;
/// Of how many blocks an average size is made.
const AVERAGED: u64 = 32;
/// How often a flow is told that a peer is sending.
const TELL_INTERVAL: Duration = Duration::from_millis(100);
/// A flow that takes blocks is told of no less than so many bytes: who sends a byte a second is as good as silent.
const TELL_BYTES: u64 = 200;

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
            Mode::Stream => self.stream_part(now, part, chain),
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
        let takes_blocks = self.flow.takes_blocks();
        let has_no_place = is_large || takes_blocks && !self.has_room(size, Place::Unknown);
        let was_asked = self.peers.get(&id).is_some_and(|peer| peer.flight(part.block).is_some());
        if was_asked && takes_blocks {
            // The flow may have asked for it too, and takes what comes first for the answer.
            if let Some(head) = head_of(part, chain) {
                self.tell_flow(now, FlowInput::Passes(id, head), chain);
            }
        }
        let place = match self.peers.get(&id).map(|peer| peer.flight(part.block)) {
            None => return,
            Some(Some((_, flight))) => Place::Height(flight.height),
            // It can't be kept until its place is known, so that is found out now.
            Some(None) if has_no_place && takes_blocks => self.place(now, id, part, chain),
            Some(None) => Place::Unknown,
        };
        // Known, it is fetched when there is room: a peer held with it would hold up what the flow has asked it for, on which
        // everything may wait. To begin a large block again costs more than to do without one of several peers.
        let is_put_off = match place {
            Place::Height(height) if height > self.deliverable => has_no_place || !self.has_early_room(size),
            _ if is_large && self.peers.iter().any(|(&other, peer)| other != id && !peer.is_held) => false,
            _ => has_no_place && takes_blocks && !self.is_front(place),
        };
        let is_needed = match place {
            Place::Height(height) => !is_put_off && self.window.is_missing(height, part.block),
            Place::Unknown => takes_blocks && !has_no_place,
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
        let is_admitted = is_needed && self.admit(now, id, chain);
        if let Place::Height(height) = place
            && is_large
            && !is_admitted
            && self.window.is_missing(height, part.block)
        {
            self.large.insert(height, part.block);
        }
        if is_put_off {
            self.lapse(id, |flight| flight.hash == part.block);
        }
        if is_needed && !is_admitted {
            self.room.held.insert(id);
            self.hold(id, now);
        }
    }

    /// Finds the place of a large block that a flow asked for: the chain takes its header now.
    fn place(&mut self, now: Instant, id: PeerId, part: &BlockPart, chain: &mut dyn Chain) -> Place {
        let Some(head) = chain.read_head(&part.bytes).filter(|head| head.header.hash == part.block) else {
            return Place::Unknown;
        };
        let told = FlowInput::NoRoom { peer: id, block: part.block, head: Some(head.clone()) };
        self.tell_flow(now, told, chain);
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
        let was_asked = flight.is_some_and(|flight| !flight.is_lapsed);
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
                self.complete(now, block, was_asked);
            }
            (Mode::Collect | Mode::Wait, Place::Unknown) if is_whole && has_room => {
                let (mut parts, transactions, size) = (arriving.parts, end.transactions, end.size);
                unpin(&mut parts);
                let arrived = Arrived { hash: end.block, parts, transactions, size, served_by: id };
                self.arrived(now, arrived, was_asked, chain);
            }
            (Mode::Wait, Place::Unknown) if is_whole => {
                let head = arriving.parts.first().and_then(|part| chain.read_head(&part.bytes));
                self.tell_flow(now, FlowInput::NoRoom { peer: id, block: end.block, head }, chain);
            }
            (Mode::Drain, _) | (Mode::Wait, Place::Height(_)) if is_whole || arriving.mode == Mode::Drain => {
            }
            _ => return self.drop_peer(id, Fault::BrokenParts),
        }
        // It has come and is not there all the same, if there was no room.
        if let Some(flight) = flight.filter(|flight| !flight.is_lapsed) {
            self.window.give_back(flight.height, flight.hash);
        }
        // Who was held for want of room and brought the rest all the same is let go when there is room.
        if arriving_mode != Mode::Wait {
            self.release(id, now);
        }
        self.note(id);
    }

    /// A whole block has come whose place was not known when it began to.
    fn arrived(&mut self, now: Instant, arrived: Arrived, was_asked: bool, chain: &mut dyn Chain) {
        let found = chain.find(arrived.hash).map(|found| found.height);
        match (arrived.parts.first(), found) {
            // Its header came from somebody else meanwhile.
            (Some(part), Some(height)) if self.window.is_missing(height, arrived.hash) => {
                let (peer, block, head) = (arrived.served_by, arrived.hash, head_of(part, chain));
                self.tell_flow(now, FlowInput::NoRoom { peer, block, head }, chain);
                self.complete(now, arrived.into_block(height), was_asked);
            }
            _ => self.tell_flow(now, FlowInput::Block(arrived), chain),
        }
    }

    /// Counts a block into the average of the latest sizes.
    fn count_size(&mut self, size: u64) {
        self.sizes = (self.sizes + 1).min(AVERAGED);
        self.average_size = (self.average_size * (self.sizes - 1) + size) / self.sizes;
    }

    /// A block whose place is known is there. `was_asked`: from one of those who are asked for it by its hash.
    pub(super) fn complete(&mut self, now: Instant, mut block: Block, was_asked: bool) {
        let BlockId { height, hash } = block.id;
        if height != self.window.base() {
            unpin(&mut block.parts);
        }
        if height > self.deliverable && !self.has_early_room(block.size) {
            return;
        }
        let others = self.window.askers(height).saturating_sub(u8::from(was_asked));
        if !self.window.complete(block) {
            return;
        }
        self.large.remove(&height);
        if self.options.order == Order::AsReceived {
            self.ready.insert(height);
        }
        self.call_off(now, hash, others);
    }

    /// So many others need not bring a block any more. One that is under way can't be stopped.
    pub(super) fn call_off(&mut self, now: Instant, hash: BlockHash, others: u8) {
        if others == 0 && !self.has_lapsed {
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

/// What a block says at its start, if that is what its hash stands for.
fn head_of(start: &BlockPart, chain: &dyn Chain) -> Option<BlockHead> {
    chain.read_head(&start.bytes).filter(|head| head.header.hash == start.block)
}

/// Copies small parts, so that a block which waits keeps no more in memory than itself: they are slices of what was read at once,
/// up to megabytes, and a peer can put anything between two blocks.
pub(crate) fn unpin(parts: &mut [BlockPart]) {
    for part in parts.iter_mut().filter(|part| part.bytes.len() < SMALL_PART) {
        part.bytes = Bytes::copy_from_slice(&part.bytes);
    }
}

#[cfg(test)]
mod tests {
    use tipward_peer::wire::DownloadId;

    use super::*;

    #[test]
    fn a_small_block_that_waits_does_not_keep_what_was_read_with_it() {
        let part = |bytes: Bytes| BlockPart {
            block: BlockHash::ZERO,
            download: DownloadId(0),
            block_size: bytes.len() as u64,
            index: 0,
            offset: 0,
            first_transaction: 0,
            transactions: vec![81],
            bytes,
            ends_inside_transaction: false,
        };
        let read = Bytes::from(vec![7; 4 << 20]);
        let mut parts = [part(read.slice(100..350))];
        unpin(&mut parts);
        assert!(read.is_unique());
        assert_eq!(&parts[0].bytes[..], &[7; 250]);
        let mut large = [part(read.slice(..SMALL_PART))];
        unpin(&mut large);
        assert!(!read.is_unique(), "a large part is not copied");
    }
}
