//! Delivery: the window along the best chain, and what the sink is given, in which order.

use std::{collections::VecDeque, time::Instant};

use tipward_peer::{PeerId, wire::BlockEnd};

use super::{
    Output, Scheduler,
    peers::{Has, Place},
};
use crate::{Accepted, Block, BlockId, Chain, Event, Order};

/// How many blocks, or parts of one, the sink may have been given and not taken.
const MAX_UNAPPLIED: usize = 1024;
/// The window is extended by so many blocks at a time, unless it is empty.
const FILL: usize = 64;

/// What the sink was given and has not taken: bytes.
#[derive(Debug, Default)]
pub(super) struct Unapplied {
    sizes: VecDeque<u64>,
    pub(super) bytes: u64,
}

impl Unapplied {
    pub(super) fn push(&mut self, bytes: u64) {
        self.sizes.push_back(bytes);
        self.bytes += bytes;
    }

    pub(super) fn pop(&mut self, count: usize) {
        for _ in 0..count {
            self.bytes -= self.sizes.pop_front().unwrap_or(0);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sizes.len()
    }
}

impl Scheduler {
    /// The highest block that the sink is to have, by what is known.
    pub(super) fn target(&self, chain: &dyn Chain) -> u64 {
        let top = chain.tip().height.saturating_sub(self.options.stay_behind);
        top.min(self.options.stop_at.unwrap_or(u64::MAX))
    }

    /// The highest block that is of use.
    fn top(&self, chain: &dyn Chain) -> u64 {
        let stop = self.options.stop_at.unwrap_or(u64::MAX);
        chain.tip().height.min(stop.saturating_add(self.options.stay_behind))
    }

    /// How many more blocks the window may have. What a flow has to bring before the sink may have any is on top of that.
    pub(super) fn window_room(&self) -> usize {
        let ahead = if self.flow.takes_blocks() { self.options.stay_behind } else { 0 };
        let window = self.options.window.saturating_add(usize::try_from(ahead).unwrap_or(usize::MAX));
        window.saturating_sub(self.window.len() + self.unapplied.len())
    }

    /// The best chain is another, or longer: tell, and measure anew what each peer has of it.
    pub(super) fn best_chain_changed(&mut self, now: Instant, accepted: &Accepted, chain: &dyn Chain) {
        if accepted.added > 0 {
            self.outputs.push_back(Output::Headers(accepted.added));
        }
        let Some(update) = &accepted.update else { return };
        self.deliverable = self.target(chain);
        let tip = chain.tip();
        let old = self.header_tip.replace(tip);
        self.outputs.push_back(Output::Event(Event::Headers { tip }));
        let Some(old_tip) = old.filter(|old| update.keep <= old.height) else { return };
        // What was best may be forgotten: what both have is what is kept.
        let kept = update.keep.saturating_sub(1);
        if self.options.headers_only
            && !self.is_filtered
            && let Some(common) = (chain.fork_point(old_tip.hash))
                .or_else(|| chain.best_at(kept).map(|hash| BlockId { height: kept, hash }))
        {
            self.outputs.push_back(Output::Event(Event::reorg(old_tip, common, chain)));
        }
        for peer in self.peers.values_mut() {
            if let Has::Shown { tip, reach } = &mut peer.has {
                *reach = chain.fork_point(*tip).map_or(kept.min(*reach), |point| point.height);
            }
        }
        // The chain may be further than this update: what lies above is looked at anew, whatever the last slot tells.
        self.realign(now, update.keep, chain);
    }

    /// Makes the window agree with the best chain, and finds out whether the sink has to go back.
    pub(super) fn realign(&mut self, now: Instant, keep: u64, chain: &dyn Chain) {
        let point = match self.sent {
            None => None,
            Some(sent) => match chain.fork_point(sent.hash) {
                Some(point) => {
                    self.is_placed = true;
                    Some(point)
                }
                // Its branch was best and is forgotten: what is kept both have.
                None if self.is_placed => {
                    let due = self.rollback.map_or(sent.height, |to| to.height);
                    let height = keep.saturating_sub(1).min(sent.height).min(due);
                    chain.best_at(height).map(|hash| BlockId { height, hash })
                }
                // Its headers have not come yet.
                None => return,
            },
        };
        // Where the sink will be: a rollback that is due in any case may take it further back than the chain does.
        let kept_rollback = self.rollback.filter(|_| self.options.order == Order::AsReceived);
        let height = |point: BlockId| kept_rollback.map_or(point.height, |to| point.height.min(to.height));
        let base = point.map_or(0, |point| height(point) + 1);
        let realigned = self.window.realign(base, keep, |height| chain.best_at(height));
        let end = self.window.end();
        match self.options.order {
            Order::Chain => self.rollback = point.filter(|_| point != self.sent),
            Order::AsReceived => {
                // What the sink got before its turn is undone even if it should come back.
                let kept = if point == self.sent {
                    end.checked_sub(1).and_then(|at| self.window.id(at)).or(point)
                } else {
                    point
                };
                let undone = kept.filter(|_| realigned.undoes_sent || point != self.sent);
                self.rollback = [self.rollback, undone].into_iter().flatten().min_by_key(|id| id.height);
            }
        }
        self.ready.split_off(&end);
        self.large.split_off(&end);
        self.call_off_the_lost(now);
    }

    /// Whether the block that the sink says it has was never seen in the tree.
    pub(super) fn is_without_place(&self, chain: &dyn Chain) -> bool {
        !self.is_placed && self.sent.is_some_and(|sent| chain.fork_point(sent.hash).is_none())
    }

    /// Nobody needs what is not in the window any more.
    fn call_off_the_lost(&mut self, now: Instant) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let window = &self.window;
            // Nothing is given back: the slots are gone.
            self.has_lapsed |=
                !peer.lapse(|flight| !window.is_missing(flight.height, flight.hash)).is_empty();
            let is_lost = peer.arriving.as_ref().is_some_and(|arriving| match arriving.place {
                Place::Height(height) => !window.is_missing(height, arriving.hash),
                Place::Unknown => false,
            });
            if is_lost {
                self.discard(now, id);
            }
        }
    }

    /// Extends the window along the best chain.
    pub(super) fn fill(&mut self, now: Instant, chain: &dyn Chain) {
        let room = self.window_room();
        // A block that a flow brings needs its place at once.
        let is_slow = !self.flow.takes_blocks() && self.window.len() > 0;
        if self.options.headers_only || room == 0 || is_slow && room < FILL.min(self.options.window / 4) {
            return;
        }
        // What a flow brings is kept although it is not to be delivered yet.
        let top = if self.flow.takes_blocks() { self.top(chain) } else { self.target(chain) };
        if self.window.end() > top && self.window.len() > 0 {
            return;
        }
        let next = self.sent.map_or(0, |sent| sent.height + 1);
        if self.window.len() == 0 && self.window.base() != next {
            self.realign(now, u64::MAX, chain);
        }
        if self.is_without_place(chain) {
            return;
        }
        for _ in 0..room {
            let height = self.window.end();
            if height > top {
                return;
            }
            let Some(hash) = chain.best_at(height) else { return };
            let local = chain.local_block(BlockId { height, hash });
            if local.is_some() && self.options.order == Order::AsReceived {
                self.ready.insert(height);
            }
            self.window.push(hash, local);
        }
    }

    /// Hands the sink what is due.
    pub(super) fn deliver(&mut self, now: Instant, chain: &dyn Chain) {
        self.deliverable = self.target(chain);
        while self.unapplied.len() < MAX_UNAPPLIED && self.unapplied.bytes <= self.options.byte_budget / 2 {
            let next = match self.options.order {
                Order::Chain if self.window.base() > self.deliverable => None,
                Order::Chain => self.window.pop(),
                // Nothing comes between the parts of a block.
                Order::AsReceived if self.stream.is_some() => None,
                Order::AsReceived if self.ready.first().is_some_and(|&first| first > self.deliverable) => {
                    None
                }
                Order::AsReceived => self.ready.pop_first().and_then(|height| self.window.take(height)),
            };
            let Some(block) = next else { break };
            self.roll_back_for(block.id.height, chain);
            match self.options.order {
                Order::Chain => self.sent = Some(block.id),
                Order::AsReceived => self.sent = self.window.skip_sent().or(self.sent),
            }
            self.unapplied.push(block.size);
            self.outputs.push_back(Output::Apply(block));
        }
        self.watch_frontier(now);
    }

    /// Sends the sink back before it gets a block of another branch. Not before such a block is there: a branch of which nobody
    /// has blocks must not undo anything.
    pub(super) fn roll_back_for(&mut self, height: u64, chain: &dyn Chain) {
        let Some(common) = self.rollback.take_if(|common| common.height < height) else { return };
        if let Some(old_tip) = self.sent {
            self.outputs.push_back(Output::Event(Event::reorg(old_tip, common, chain)));
            self.sent = Some(if common.height < old_tip.height { common } else { old_tip });
        }
        self.unapplied.push(0);
        self.outputs.push_back(Output::Rollback(common));
    }

    /// The next block has gone to the sink in parts, and all is well with it.
    pub(super) fn finish_stream(&mut self, now: Instant, id: BlockId, end: &BlockEnd, served_by: PeerId) {
        let askers = self.window.askers(id.height);
        self.window.pass_front();
        self.large.remove(&id.height);
        self.sent = self.window.skip_sent().or(self.sent);
        self.unapplied.push(0);
        self.outputs.push_back(Output::Apply(Block {
            id,
            parts: Vec::new(),
            transactions: end.transactions,
            size: end.size,
            served_by: Some(served_by),
            is_streamed: true,
        }));
        self.call_off(now, id.hash, askers.saturating_sub(1));
    }
}
