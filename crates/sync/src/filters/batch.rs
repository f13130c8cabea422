//! A run of blocks whose filters are fetched together: what peers say of them, and what is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use bytes::Bytes;
use tipward_peer::{
    PeerId,
    wire::{BlockHash, FilterHash},
};

/// Blocks that follow each other. Peers are asked for the hashes of their filters, then one of them for the filters.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) start: u64,
    pub(super) slots: Vec<Slot>,
    /// What each peer says that the hashes are.
    pub(super) claims: BTreeMap<PeerId, Vec<FilterHash>>,
    /// Enough peers have said.
    pub(super) is_settled: bool,
    pub(super) begun: Instant,
}

/// A block and its filter.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) block: BlockHash,
    pub(super) state: State,
}

/// What is known of a block's filter.
#[derive(Debug)]
pub(super) enum State {
    /// What the hash is has yet to be said.
    Unknown,
    /// Nobody says otherwise.
    Agreed(FilterHash),
    /// Peers differ: what they say, with the filters that have come of it.
    Disputed(BTreeMap<FilterHash, Option<Bytes>>),
    /// The filter is there. Whether one of the first `seen` scripts is in it.
    There { hash: FilterHash, filter: Bytes, seen: usize, matches: bool },
    /// It can't be decided who is right: the sink gets the block.
    Undecided,
    /// The sink is past it.
    Done,
}

impl Batch {
    pub(super) fn new(start: u64, blocks: Vec<BlockHash>, now: Instant) -> Self {
        let slots = blocks.into_iter().map(|block| Slot { block, state: State::Unknown }).collect();
        Self { start, slots, claims: BTreeMap::new(), is_settled: false, begun: now }
    }

    /// The height of the last block.
    pub(super) fn end(&self) -> u64 {
        self.start + self.slots.len() as u64 - 1
    }

    pub(super) fn stop(&self) -> BlockHash {
        self.slots.last().map_or(BlockHash::ZERO, |slot| slot.block)
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn slot(&mut self, height: u64) -> Option<&mut Slot> {
        let index = usize::try_from(height.checked_sub(self.start)?).ok()?;
        self.slots.get_mut(index)
    }

    /// What a peer says of a block.
    pub(super) fn claim(&self, peer: PeerId, height: u64) -> Option<FilterHash> {
        let index = usize::try_from(height.checked_sub(self.start)?).ok()?;
        self.claims.get(&peer)?.get(index).copied()
    }

    /// Who says this of a block.
    pub(super) fn claimants(&self, height: u64, hash: FilterHash) -> Vec<PeerId> {
        self.claims.keys().filter(|peer| self.claim(**peer, height) == Some(hash)).copied().collect()
    }

    /// Compares what the peers say, block by block and by hash, so that a dispute over one block is none over those that follow.
    /// Returns how many disputes are new.
    pub(super) fn compare(&mut self) -> u64 {
        let mut disputes = 0;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let said: BTreeSet<FilterHash> =
                self.claims.values().filter_map(|hashes| hashes.get(index)).copied().collect();
            let was_disputed = matches!(slot.state, State::Disputed(_));
            slot.compare(&said);
            disputes += u64::from(!was_disputed && matches!(slot.state, State::Disputed(_)));
        }
        disputes
    }

    /// What this peer said counts no more. True if nobody's word is left.
    pub(super) fn forget(&mut self, peer: PeerId) -> bool {
        if self.claims.remove(&peer).is_none() {
            return false;
        }
        if self.claims.is_empty() {
            return true;
        }
        if self.is_settled {
            self.compare();
        }
        false
    }

    /// Begins anew: nothing that was said counts.
    pub(super) fn reset(&mut self, now: Instant) {
        (self.is_settled, self.begun) = (false, now);
        self.claims.clear();
        for slot in &mut self.slots {
            // A dispute stays one, whoever comes next.
            if !matches!(slot.state, State::Done | State::Undecided) {
                slot.state = State::Unknown;
            }
        }
    }

    /// Whether every filter is there or not needed.
    pub(super) fn is_complete(&self) -> bool {
        self.slots
            .iter()
            .all(|slot| matches!(slot.state, State::There { .. } | State::Undecided | State::Done))
    }

    /// Bytes of filters that are kept.
    pub(super) fn buffered(&self) -> u64 {
        self.slots.iter().map(Slot::buffered).sum()
    }
}

impl Slot {
    /// Whether the block itself is needed: for the sink, or to tell whose filter is right.
    pub(super) fn needs_block(&self) -> bool {
        matches!(self.state, State::Disputed(_) | State::Undecided | State::There { matches: true, .. })
    }

    fn buffered(&self) -> u64 {
        match &self.state {
            State::There { filter, .. } => filter.len() as u64,
            State::Disputed(filters) => filters.values().flatten().map(|filter| filter.len() as u64).sum(),
            State::Unknown | State::Agreed(_) | State::Undecided | State::Done => 0,
        }
    }

    fn compare(&mut self, said: &BTreeSet<FilterHash>) {
        let mut there = match std::mem::replace(&mut self.state, State::Unknown) {
            done @ (State::Undecided | State::Done) => return self.state = done,
            there @ State::There { hash, .. } if said.len() == 1 && said.contains(&hash) => {
                return self.state = there;
            }
            State::There { hash, filter, .. } => BTreeMap::from([(hash, Some(filter))]),
            State::Disputed(filters) => filters,
            State::Unknown | State::Agreed(_) => BTreeMap::new(),
        };
        let mut filters: BTreeMap<_, _> =
            said.iter().map(|hash| (*hash, there.remove(hash).flatten())).collect();
        self.state = match filters.len() {
            0 => State::Unknown,
            1 => match filters.pop_first() {
                // Looked through when its turn comes.
                Some((hash, Some(filter))) => State::There { hash, filter, seen: 0, matches: false },
                Some((hash, None)) => State::Agreed(hash),
                None => State::Unknown,
            },
            _ => State::Disputed(filters),
        };
    }
}
