//! The blocks ahead of the sink: wanted, asked for, or there and waiting for their turn.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    ops::RangeInclusive,
    time::Instant,
};

use tipward_peer::{PeerId, wire::BlockHash};

use crate::Block;

/// Consecutive blocks of the best chain, the next one for the sink first.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The height of the first slot.
    base: u64,
    slots: VecDeque<Slot>,
    heights: HashMap<BlockHash, u64>,
    /// Heights of the slots that nobody was asked for.
    wanted: BTreeSet<u64>,
    /// Bytes of the blocks that are there.
    buffered: u64,
}

#[derive(Debug)]
struct Slot {
    hash: BlockHash,
    state: State,
}

#[derive(Debug)]
enum State {
    Wanted,
    /// Asked of these peers, never empty.
    Asked(Vec<PeerId>),
    Done(Box<Block>),
}

impl Window {
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The height after the last slot's.
    pub(super) fn end(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn buffered(&self) -> u64 {
        self.buffered
    }

    pub(super) fn has_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The lowest of these heights that nobody was asked for.
    pub(super) fn first_wanted(&self, heights: RangeInclusive<u64>) -> Option<(u64, BlockHash)> {
        if heights.is_empty() {
            return None;
        }
        let height = *self.wanted.range(heights).next()?;
        Some((height, self.slot(height)?.hash))
    }

    /// The first block, if it was asked for and has not come: its hash and who was asked.
    pub(super) fn overdue_front(&self) -> Option<(BlockHash, &[PeerId])> {
        let slot = self.slots.front()?;
        match &slot.state {
            State::Asked(peers) => Some((slot.hash, peers)),
            State::Wanted | State::Done(_) => None,
        }
    }

    /// Adds the next block of the best chain.
    pub(super) fn push(&mut self, hash: BlockHash, local: Option<Block>) {
        let height = self.end();
        self.heights.insert(hash, height);
        self.slots.push_back(Slot { hash, state: State::Wanted });
        self.wanted.insert(height);
        if let Some(block) = local {
            self.complete(block);
        }
    }

    pub(super) fn ask(&mut self, hash: BlockHash, peer: PeerId) {
        let Some(&height) = self.heights.get(&hash) else { return };
        let Some(slot) = self.slots.get_mut((height - self.base) as usize) else { return };
        match &mut slot.state {
            State::Wanted => {
                slot.state = State::Asked(vec![peer]);
                self.wanted.remove(&height);
            }
            State::Asked(peers) => peers.push(peer),
            State::Done(_) => {}
        }
    }

    /// The peer will not serve this block; if nobody else was asked, it is wanted again.
    pub(super) fn give_back(&mut self, hash: BlockHash, peer: PeerId) {
        let Some(&height) = self.heights.get(&hash) else { return };
        let Some(slot) = self.slots.get_mut((height - self.base) as usize) else { return };
        if let State::Asked(peers) = &mut slot.state {
            peers.retain(|asked| *asked != peer);
            if peers.is_empty() {
                slot.state = State::Wanted;
                self.wanted.insert(height);
            }
        }
    }

    /// The height of a block that is still missing.
    pub(super) fn missing(&self, hash: BlockHash) -> Option<u64> {
        let height = *self.heights.get(&hash)?;
        (!matches!(self.slot(height)?.state, State::Done(_))).then_some(height)
    }

    /// A block has come.
    pub(super) fn complete(&mut self, block: Block) {
        let height = block.id.height;
        let Some(slot) = height.checked_sub(self.base).and_then(|at| self.slots.get_mut(at as usize)) else {
            return;
        };
        if slot.hash == block.id.hash && !matches!(slot.state, State::Done(_)) {
            self.buffered += block.size;
            self.wanted.remove(&height);
            slot.state = State::Done(Box::new(block));
        }
    }

    /// Takes the first block if it is there.
    pub(super) fn pop(&mut self) -> Option<Block> {
        if !matches!(self.slots.front()?.state, State::Done(_)) {
            return None;
        }
        let slot = self.slots.pop_front()?;
        self.heights.remove(&slot.hash);
        self.base += 1;
        match slot.state {
            State::Done(block) => {
                self.buffered -= block.size;
                Some(*block)
            }
            State::Wanted | State::Asked(_) => None,
        }
    }

    /// Makes the window start at `base` and agree with the best chain: what does not is dropped.
    pub(super) fn realign(&mut self, base: u64, best_at: impl Fn(u64) -> Option<BlockHash>) {
        let agrees = |window: &Self| {
            window.slots.back().is_none_or(|last| best_at(window.end() - 1) == Some(last.hash))
        };
        while base != self.base && !self.slots.is_empty() || !agrees(self) {
            self.pop_back();
        }
        if self.slots.is_empty() {
            self.base = base;
        }
    }

    fn pop_back(&mut self) {
        let Some(slot) = self.slots.pop_back() else { return };
        self.heights.remove(&slot.hash);
        self.wanted.remove(&self.end());
        if let State::Done(block) = slot.state {
            self.buffered -= block.size;
        }
    }

    fn slot(&self, height: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(height.checked_sub(self.base)?).ok()?)
    }
}

/// Since when the first block of the window is the first one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frontier {
    pub(super) height: u64,
    pub(super) since: Instant,
}
