//! Back-fill: from a block whose parent is unknown down to the first known block, through what is there and what peers
//! bring, and then up again under the chain's rules.
//!
//! A hash names one block only, so it does not matter who brings a step: any number of peers, none of which needs to have
//! the whole way.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tipward_peer::{
    PeerId,
    wire::{BlockHash, Header},
};

use super::slots::orphans::{Orphan, Orphans};
use crate::{Chain, scheduler::flow::Arrived};

/// How often everybody is asked for a block before it is given up.
const MAX_ROUNDS: u32 = 2;

/// A walk from an orphan towards the tree.
#[derive(Debug)]
pub(super) struct BackFill {
    /// The way so far, the orphan first.
    steps: Vec<Step>,
    /// Bytes of the bodies on the way.
    bytes: u64,
    bounds: WalkBounds,
    /// Who was asked for the next block and has not brought it.
    tried: BTreeSet<PeerId>,
    /// How often everybody was.
    rounds: u32,
    /// Nobody is asked before.
    again: Option<Instant>,
    /// Who brought the orphan says that it has nothing below.
    is_denied: bool,
}

/// A block on the way.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) header: Header,
    pub(super) slot: u64,
    /// Who brought it.
    pub(super) server: PeerId,
    /// Left out if there is no room; it is fetched by its hash when its header is in the tree.
    pub(super) body: Option<Arrived>,
}

/// How far a walk may go.
#[derive(Debug, Clone, Copy)]
pub(super) struct WalkBounds {
    /// At most so many ancestors.
    pub(super) max_steps: usize,
    /// At most so many bytes of bodies; beyond, headers only.
    pub(super) max_bytes: u64,
    /// The slot of the block below which nothing changes any more: what is not above it and not in the tree is too deep.
    pub(super) floor: u64,
}

/// How a walk ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The next block is in the tree: the way can be offered upwards.
    Linked,
    /// It never will: the next block was rejected, or is too deep, or out of order.
    Hopeless,
    /// It is longer than a walk may be.
    TooFar,
}

impl BackFill {
    pub(super) fn new(orphan: Orphan, bounds: WalkBounds) -> Self {
        let mut walk = Self {
            steps: Vec::new(),
            bytes: 0,
            bounds,
            tried: BTreeSet::new(),
            rounds: 0,
            again: None,
            is_denied: false,
        };
        walk.push(Step::from(orphan));
        walk
    }

    /// The lowest block so far, and its parent, which is wanted; `None` never, for the orphan is there.
    pub(super) fn lowest(&self) -> Option<(BlockHash, BlockHash)> {
        self.steps.last().map(|step| (step.header.hash, step.header.parent))
    }

    /// How many blocks the way has.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many more steps it may have.
    pub(super) fn room(&self) -> usize {
        (self.bounds.max_steps + 1).saturating_sub(self.steps.len())
    }

    /// A block came. True if it is the next one.
    pub(super) fn takes(&self, hash: BlockHash) -> bool {
        self.lowest().is_some_and(|(_, parent)| parent == hash)
    }

    /// Goes on with the next block.
    pub(super) fn push(&mut self, mut step: Step) {
        let size = step.body.as_ref().map_or(0, |body| body.size);
        if self.bytes + size > self.bounds.max_bytes {
            step.body = None;
        } else {
            self.bytes += size;
        }
        self.steps.push(step);
        self.tried.clear();
        self.rounds = 0;
        self.again = None;
        self.is_denied = false;
    }

    /// Walks as far as it goes without peers. `None` if a peer has to be asked.
    pub(super) fn walk(
        &mut self,
        chain: &dyn Chain,
        orphans: &mut Orphans,
        is_rejected: impl Fn(BlockHash) -> bool,
    ) -> Option<End> {
        loop {
            let (_, parent) = self.lowest()?;
            if chain.fork_point(parent).is_some() {
                return Some(End::Linked);
            }
            if is_rejected(parent) || self.is_hopeless() {
                return Some(End::Hopeless);
            }
            if self.room() == 0 {
                return Some(End::TooFar);
            }
            self.push(Step::from(orphans.take(parent)?));
        }
    }

    fn is_hopeless(&self) -> bool {
        let mut lowest = self.steps.iter().rev();
        let Some(last) = lowest.next() else { return true };
        // Slots fall on the way down; so no way is endless.
        let is_out_of_order = lowest.next().is_some_and(|above| last.slot >= above.slot);
        is_out_of_order || last.slot <= self.bounds.floor
    }

    /// Whom to ask for the next block: one of these, the best first, who was not asked. When everybody was, all may be asked
    /// again after a while.
    pub(super) fn whom(&mut self, now: Instant, mut able: impl Iterator<Item = PeerId>) -> Option<PeerId> {
        if self.again.is_some_and(|again| again > now) {
            return None;
        }
        let next = able.find(|id| !self.tried.contains(id))?;
        self.tried.insert(next);
        Some(next)
    }

    pub(super) fn was_asked(&self, id: PeerId) -> bool {
        self.tried.contains(&id)
    }

    /// A peer says that it has nothing of what is wanted next.
    pub(super) fn denies(&mut self, id: PeerId) {
        self.is_denied |= self.source() == Some(id);
    }

    /// Whether even who brought the orphan has nothing of what is wanted next.
    pub(super) fn is_denied_by_source(&self) -> bool {
        self.is_denied
    }

    /// A peer may be asked once more, in another way.
    pub(super) fn untry(&mut self, id: PeerId) {
        self.tried.remove(&id);
    }

    /// Whether nobody was asked for the next block before.
    pub(super) fn is_first_round(&self) -> bool {
        self.rounds == 0
    }

    /// Nobody is left to ask. False if it is to be given up.
    pub(super) fn rest(&mut self, now: Instant, pause: Duration) -> bool {
        if self.again.is_none_or(|again| again <= now) {
            self.rounds += 1;
            self.tried.clear();
            self.again = Some(now + pause * self.rounds);
        }
        self.rounds < MAX_ROUNDS
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again
    }

    /// Who brought the orphan.
    pub(super) fn source(&self) -> Option<PeerId> {
        self.steps.first().map(|step| step.server)
    }

    /// Who brought the orphan, and its slot.
    pub(super) fn top(&self) -> Option<(PeerId, u64)> {
        self.steps.first().map(|step| (step.server, step.slot))
    }

    /// The way up, the lowest block first.
    pub(super) fn into_way_up(self) -> impl Iterator<Item = Step> {
        self.steps.into_iter().rev()
    }
}

impl From<Orphan> for Step {
    fn from(orphan: Orphan) -> Self {
        let Orphan { header, slot, server, body } = orphan;
        Self { header, slot, server, body }
    }
}
