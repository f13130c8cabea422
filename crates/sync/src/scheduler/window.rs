//! The blocks ahead of the sink: wanted, asked for, or there and waiting for their turn.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::RangeInclusive,
};

use tipward_peer::wire::BlockHash;

use crate::{Block, BlockId};

/// Consecutive blocks of the best chain, the next one for the sink first.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The height of the first slot.
    base: u64,
    slots: VecDeque<Slot>,
    /// From here on nobody was asked for anything.
    fresh: u64,
    /// Heights below `fresh` that nobody is asked for.
    returned: BTreeSet<u64>,
    /// How many blocks are asked for and not there.
    asked: usize,
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
    /// So many peers are asked, never none.
    Asked(u8),
    Done(Box<Block>),
    /// The sink has it before its turn.
    Sent,
}

/// What became of the slots that are off the best chain now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Realigned {
    /// The sink has blocks that are not on the best chain.
    pub(super) undoes_sent: bool,
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

    /// Bytes of the blocks that are there.
    pub(super) fn buffered(&self) -> u64 {
        self.buffered
    }

    /// How many blocks are asked for and not there.
    pub(super) fn asked(&self) -> usize {
        self.asked
    }

    pub(super) fn has_wanted(&self) -> bool {
        !self.returned.is_empty() || self.fresh < self.end()
    }

    /// The lowest of these heights that nobody is asked for.
    pub(super) fn first_wanted(&self, heights: &RangeInclusive<u64>) -> Option<(u64, BlockHash)> {
        if heights.is_empty() {
            return None;
        }
        let returned = self.returned.range(heights.clone()).next().copied();
        let fresh = self.fresh.max(*heights.start());
        let height = returned.or((fresh < self.end() && heights.contains(&fresh)).then_some(fresh))?;
        Some((height, self.slot(height)?.hash))
    }

    /// The first block if it is not there: its hash, and of how many peers it is asked.
    pub(super) fn missing_front(&self) -> Option<(BlockHash, u8)> {
        let slot = self.slots.front()?;
        match slot.state {
            State::Wanted => Some((slot.hash, 0)),
            State::Asked(peers) => Some((slot.hash, peers)),
            State::Done(_) | State::Sent => None,
        }
    }

    /// Adds the next block of the best chain.
    pub(super) fn push(&mut self, hash: BlockHash, local: Option<Block>) {
        self.slots.push_back(Slot { hash, state: State::Wanted });
        if let Some(block) = local {
            self.complete(block);
        }
    }

    /// One more peer is asked for the block at this height.
    pub(super) fn ask(&mut self, height: u64) {
        match self.slot(height).map(|slot| &slot.state) {
            Some(State::Wanted) => {
                self.take_wanted(height);
                self.asked += 1;
                self.set(height, State::Asked(1));
            }
            Some(&State::Asked(peers)) => self.set(height, State::Asked(peers.saturating_add(1))),
            Some(State::Done(_) | State::Sent) | None => {}
        }
    }

    /// One of those who were asked will not serve it; if nobody else was, it is wanted again.
    pub(super) fn give_back(&mut self, height: u64, hash: BlockHash) {
        let Some(slot) = self.slot(height).filter(|slot| slot.hash == hash) else { return };
        match slot.state {
            State::Asked(1) => {
                self.asked -= 1;
                self.set(height, State::Wanted);
                self.returned.insert(height);
            }
            State::Asked(peers) => self.set(height, State::Asked(peers - 1)),
            State::Wanted | State::Done(_) | State::Sent => {}
        }
    }

    /// Of how many peers the block at this height is asked.
    pub(super) fn askers(&self, height: u64) -> u8 {
        match self.slot(height).map(|slot| &slot.state) {
            Some(&State::Asked(peers)) => peers,
            _ => 0,
        }
    }

    /// Whether this block is in the window and not there.
    pub(super) fn is_missing(&self, height: u64, hash: BlockHash) -> bool {
        self.slot(height)
            .is_some_and(|slot| slot.hash == hash && matches!(slot.state, State::Wanted | State::Asked(_)))
    }

    /// A block has come. False if it is not needed.
    pub(super) fn complete(&mut self, block: Block) -> bool {
        let BlockId { height, hash } = block.id;
        if !self.is_missing(height, hash) {
            return false;
        }
        self.buffered += block.size;
        self.settle(height, State::Done(Box::new(block)));
        true
    }

    /// The first block went to the sink in parts. [`skip_sent`](Self::skip_sent) moves on.
    pub(super) fn pass_front(&mut self) {
        self.settle(self.base, State::Sent);
    }

    /// Takes the first block if it is there.
    pub(super) fn pop(&mut self) -> Option<Block> {
        if !matches!(self.slots.front()?.state, State::Done(_)) {
            return None;
        }
        let slot = self.slots.pop_front()?;
        self.base += 1;
        self.fresh = self.fresh.max(self.base);
        let State::Done(block) = slot.state else { return None };
        self.buffered -= block.size;
        Some(*block)
    }

    /// Takes a block that is there before its turn.
    pub(super) fn take(&mut self, height: u64) -> Option<Block> {
        let at = self.at(height)?;
        let slot = self.slots.get_mut(at)?;
        if !matches!(slot.state, State::Done(_)) {
            return None;
        }
        let State::Done(block) = std::mem::replace(&mut slot.state, State::Sent) else { return None };
        self.buffered -= block.size;
        Some(*block)
    }

    /// Moves on past what the sink has at the front; the last of it.
    pub(super) fn skip_sent(&mut self) -> Option<BlockId> {
        let mut last = None;
        while self.slots.front().is_some_and(|slot| matches!(slot.state, State::Sent)) {
            let slot = self.slots.pop_front()?;
            last = Some(BlockId { height: self.base, hash: slot.hash });
            self.base += 1;
            self.fresh = self.fresh.max(self.base);
        }
        last
    }

    /// The block at this height.
    pub(super) fn id(&self, height: u64) -> Option<BlockId> {
        self.slot(height).map(|slot| BlockId { height, hash: slot.hash })
    }

    /// Makes the window start at `base` and agree with the best chain: what does not is dropped, and so is everything from
    /// height `keep` on.
    pub(super) fn realign(
        &mut self,
        base: u64,
        keep: u64,
        best_at: impl Fn(u64) -> Option<BlockHash>,
    ) -> Realigned {
        let agrees = |window: &Self| {
            window.slots.back().is_none_or(|last| best_at(window.end() - 1) == Some(last.hash))
        };
        let mut realigned = Realigned::default();
        while !self.slots.is_empty() && (base != self.base || self.end() > keep) || !agrees(self) {
            realigned.undoes_sent |= self.pop_back();
        }
        if self.slots.is_empty() {
            self.base = base;
            self.fresh = base;
        }
        realigned
    }

    /// True if the sink has that block.
    fn pop_back(&mut self) -> bool {
        let Some(slot) = self.slots.pop_back() else { return false };
        self.returned.remove(&self.end());
        self.fresh = self.fresh.min(self.end());
        match slot.state {
            State::Done(block) => self.buffered -= block.size,
            State::Asked(_) => self.asked -= 1,
            State::Sent => return true,
            State::Wanted => {}
        }
        false
    }

    /// Moves a slot that is not there to where it is.
    fn settle(&mut self, height: u64, state: State) {
        match self.slot(height).map(|slot| &slot.state) {
            Some(State::Wanted) => self.take_wanted(height),
            Some(State::Asked(_)) => self.asked -= 1,
            Some(State::Done(_) | State::Sent) | None => return,
        }
        self.set(height, state);
    }

    /// This height is not wanted any more; what it skips is noted.
    fn take_wanted(&mut self, height: u64) {
        if height >= self.fresh {
            self.returned.extend(self.fresh..height);
            self.fresh = height + 1;
        } else {
            self.returned.remove(&height);
        }
    }

    fn set(&mut self, height: u64, state: State) {
        if let Some(slot) = self.at(height).and_then(|at| self.slots.get_mut(at)) {
            slot.state = state;
        }
    }

    fn at(&self, height: u64) -> Option<usize> {
        usize::try_from(height.checked_sub(self.base)?).ok()
    }

    fn slot(&self, height: u64) -> Option<&Slot> {
        self.slots.get(self.at(height)?)
    }
}
