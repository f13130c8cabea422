//! What the sink is told: block by block, with the scripts that are watched when their turn comes.

use std::time::Instant;

use tipward_peer::wire::BlockHash;

use super::{Batch, Filters, State};
use crate::{Block, BlockId, Chain, Event, Output};

/// What becomes of the next block.
enum Decision {
    Apply(Block),
    Skip,
    /// That can't be told yet.
    Wait,
}

impl Filters {
    /// Drops what is not on the best chain any more.
    pub(super) fn realign(&mut self, chain: &dyn Chain) {
        let tip = chain.tip();
        if self.tip == Some(tip) {
            return;
        }
        self.tip = Some(tip);
        self.is_stale = true;
        let is_best = |height: u64, hash: BlockHash| chain.best_at(height) == Some(hash);
        self.batches.retain(|_, batch| {
            (batch.start..).zip(&batch.slots).all(|(height, slot)| is_best(height, slot.block))
        });
        self.blocks.retain(|height, wanted| is_best(*height, wanted.id.hash));
    }

    /// The block of the best chain that the sink is on, or will be when it has gone back; `None` while its place is not known.
    pub(super) fn base(&mut self, chain: &dyn Chain) -> Option<Option<BlockId>> {
        let Some(front) = self.front else { return Some(None) };
        if let Some(point) = chain.fork_point(front.hash) {
            self.is_placed = true;
            return Some(Some(point));
        }
        // Its branch was best and is forgotten: what nothing can change both have.
        let height = chain.irreversible().min(front.height);
        let kept = chain.best_at(height).map(|hash| BlockId { height, hash });
        kept.filter(|_| self.is_placed).map(Some)
    }

    /// Tells the sink what is due, once it has done what it was told.
    pub(super) fn advance(&mut self, now: Instant, chain: &dyn Chain) {
        if self.busy > 0 || self.go_back(chain) {
            return;
        }
        let Some(base) = self.base(chain) else { return };
        let (mut reached, mut apply) = (base, None);
        let target = self.target(chain);
        loop {
            let height = reached.map_or(0, |block| block.height + 1);
            let Some(hash) = chain.best_at(height).filter(|_| height <= target) else { break };
            let id = BlockId { height, hash };
            if let Some(local) = chain.local_block(id) {
                apply = Some(local);
                break;
            }
            match self.decide(now, id) {
                Decision::Skip => reached = Some(id),
                Decision::Apply(block) => {
                    apply = Some(block);
                    break;
                }
                Decision::Wait => break,
            }
        }
        if reached == base && apply.is_none() {
            return;
        }
        // Not before: a branch of which nobody has blocks must not undo anything.
        if let (Some(old), Some(common)) = (self.front, base)
            && base != self.front
        {
            self.outputs.push_back(Output::Event(Event::reorg(old, common, chain)));
            self.tell(Output::Rollback(common), Some(common));
        }
        if let Some(to) = reached
            && reached != base
        {
            self.tell(Output::Skip(to), reached);
        }
        if let Some(block) = apply {
            let id = block.id;
            self.tell(Output::Apply(block), Some(id));
        }
        self.forget_done();
    }

    /// Goes back to look again, if that was asked for.
    fn go_back(&mut self, chain: &dyn Chain) -> bool {
        let (Some(height), Some(front)) = (self.rescan, self.front) else {
            self.rescan = None;
            return false;
        };
        // While the sink is on a branch that was left it goes back in any case.
        let Some(Some(base)) = self.base(chain) else { return false };
        self.rescan = None;
        // A chain that starts late has nothing below.
        let Some(to) = lowest_from(height, base, chain).filter(|to| to.height < front.height) else {
            return false;
        };
        self.batches.clear();
        self.blocks.clear();
        self.is_stale = true;
        self.tell(Output::Rollback(to), Some(to));
        true
    }

    fn tell(&mut self, command: Output, reached: Option<BlockId>) {
        self.busy += 1;
        self.front = reached;
        self.outputs.push_back(command);
    }

    fn decide(&mut self, now: Instant, id: BlockId) -> Decision {
        let Some((&start, batch)) = self.batches.range_mut(..=id.height).next_back() else {
            return Decision::Wait;
        };
        let Some(slot) = batch.slot(id.height).filter(|slot| slot.block == id.hash) else {
            return Decision::Wait;
        };
        let is_wanted = match &mut slot.state {
            State::There { hash, filter, seen, matches } => {
                if !*matches {
                    let rules = &self.rules;
                    let look = |new: &[_]| (new.len(), rules.matches(id.hash, filter, new));
                    match self.watch.after(*seen, look) {
                        (new, Ok(is_match)) => (*seen, *matches) = (*seen + new, is_match),
                        (_, Err(error)) => {
                            let (hash, reason) = (*hash, error.to_string());
                            self.malformed(now, start, id, hash, &reason);
                            return Decision::Wait;
                        }
                    }
                }
                *matches
            }
            State::Undecided => true,
            State::Unknown | State::Agreed(_) | State::Disputed(_) | State::Done => return Decision::Wait,
        };
        if !is_wanted {
            slot.state = State::Done;
            self.is_stale = true;
            return Decision::Skip;
        }
        match self.blocks.get_mut(&id.height).and_then(|wanted| wanted.block.take()) {
            Some(block) => {
                slot.state = State::Done;
                self.is_stale = true;
                Decision::Apply(block)
            }
            None => {
                // It may match since now only.
                self.is_stale |= !self.blocks.contains_key(&id.height);
                Decision::Wait
            }
        }
    }

    fn forget_done(&mut self) {
        let height = self.front.map_or(0, |front| front.height);
        self.batches.retain(|_, batch: &mut Batch| batch.end() > height);
        self.blocks.retain(|at, _| *at > height);
    }
}

/// The block at this height, or the lowest above it that the chain has.
fn lowest_from(height: u64, base: BlockId, chain: &dyn Chain) -> Option<BlockId> {
    let (mut low, mut high) = (height, base.height);
    while low < high {
        let middle = low + (high - low) / 2;
        if chain.best_at(middle).is_some() { high = middle } else { low = middle + 1 }
    }
    chain.best_at(low).map(|hash| BlockId { height: low, hash })
}
