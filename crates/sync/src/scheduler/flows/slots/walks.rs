//! Back-fill of what does not link.

use std::time::Instant;

use tipward_peer::{PeerId, Want};

use super::{Anchor, Fault, FlowContext, FlowOutput, SlotFlow, SlotPeer, Standing, peer::What};
use crate::scheduler::flows::backfill::{BackFill, End, Step, WalkBounds};

/// How many ancestors are asked for at once where there is no room for their bodies.
const FEW: u64 = 16;

impl SlotFlow {
    /// Links one orphan after the other, the highest first.
    pub(super) fn back_fill(&mut self, now: Instant, context: &mut FlowContext<'_>) {
        while !self.has_failed {
            let Some(mut walk) = self.walk.take().or_else(|| self.begin_walk(now, context)) else { return };
            let rejected = &self.rejected;
            let end = walk.walk(context.chain, &mut self.orphans, |hash| rejected.contains(hash));
            match end {
                None => {
                    if self.ask_for_walk(now, &mut walk, context) {
                        self.walk = Some(walk);
                        return;
                    }
                    self.give_up_on(now, &walk);
                }
                Some(End::Linked) => self.go_up(now, walk, context),
                Some(End::TooFar) => self.give_up_on(now, &walk),
                Some(End::Hopeless) => {
                    self.is_strange(now, walk.source());
                    for step in walk.into_way_up() {
                        self.reject(step.header.hash);
                    }
                }
            }
        }
    }

    /// Nobody has brought what this peer's blocks build on. All that it sent is of one chain; it may bring it again.
    fn give_up_on(&mut self, now: Instant, walk: &BackFill) {
        let Some(id) = walk.source() else { return };
        self.orphans.forget(id);
        self.is_strange(now, Some(id));
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.was_in_vain(now, self.options.stall_timeout);
        if walk.is_denied_by_source() {
            peer.unlinked += 1;
            if peer.unlinked >= self.options.max_strikes {
                self.drop_peer(id, Fault::BadRange);
            }
        }
    }

    /// What the peer has sent builds on nothing.
    pub(super) fn is_strange(&mut self, now: Instant, id: Option<PeerId>) {
        let Some(peer) = id.and_then(|id| self.peers.get_mut(&id)).filter(|peer| peer.shown.is_none()) else {
            return;
        };
        peer.standing = Standing::Strange;
        if let Anchor::Loose { since, .. } = &mut self.anchor {
            since.get_or_insert(now);
        }
    }

    /// Starts from the highest orphan that is still one, of a peer that has sent what it sends.
    fn begin_walk(&mut self, now: Instant, context: &FlowContext<'_>) -> Option<BackFill> {
        let irreversible = context.chain.irreversible();
        let floor =
            context.chain.best_at(irreversible).and_then(|hash| context.chain.slot(hash)).unwrap_or(0);
        let (peers, tip) = (&self.peers, self.tip.1);
        let is_through = |server| {
            let sends = |peer: &SlotPeer| {
                let is_sending =
                    peer.is_busy(Some(now)) && peer.open().is_some_and(|open| open.what.slots().is_some());
                is_sending || peer.is_free(now) && !peer.has_told && peer.is_ahead(tip)
            };
            !peers.get(&server).is_some_and(sends)
        };
        while let Some(orphan) = self.orphans.take_highest(is_through) {
            let hash = orphan.header.hash;
            if context.chain.find(hash).is_none() && !self.rejected.contains(hash) {
                let max_bytes = context.byte_room / 2;
                let max_steps = self.options.max_back_fill;
                return Some(BackFill::new(orphan, WalkBounds { max_steps, max_bytes, floor }));
            }
        }
        None
    }

    /// Asks a peer for the next blocks on the way. False if nobody has them.
    fn ask_for_walk(&mut self, now: Instant, walk: &mut BackFill, context: &FlowContext<'_>) -> bool {
        let Some((of, parent)) = walk.lowest() else { return false };
        let is_asked = |peer: &SlotPeer| {
            let is_it = |what| what == What::Ancestors(of) || what == What::Block(parent);
            peer.is_busy(Some(now)) && peer.open().is_some_and(|open| is_it(open.what))
        };
        if !context.may_ask || self.peers.values().any(is_asked) {
            return true;
        }
        // Whoever has the orphan should have what it builds on.
        let source = walk.source();
        let mut able: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| peer.is_free(now)).map(|(&id, _)| id).collect();
        able.sort_by_cached_key(|id| (Some(*id) != source, self.rng.u64(..)));
        if let Some(id) = walk.whom(now, able.into_iter()) {
            let Some(peer) = self.peers.get_mut(&id) else { return true };
            // Who does not have the lowest block, and so can't tell its ancestors, may have its parent all the same.
            let want = if peer.knows_ancestors && walk.is_first_round() {
                let fit = (context.byte_room / self.average_size.max(1)).max(FEW);
                let count = fit.min(walk.room() as u64).min(u64::from(self.options.batch));
                peer.ask(What::Ancestors(of), now);
                Want::Ancestors { of, count: u32::try_from(count).unwrap_or(u32::MAX) }
            } else {
                peer.ask(What::Block(parent), now);
                Want::Blocks(vec![parent])
            };
            self.outputs.push_back(FlowOutput::Ask(id, want));
            return true;
        }
        // Who is busy will be asked, and so will be whoever has the orphan.
        let will_be = |(&id, peer): (&PeerId, &SlotPeer)| {
            !walk.was_asked(id) && (peer.is_busy(Some(now)) || Some(id) == source)
        };
        if self.peers.iter().any(will_be) {
            return true;
        }
        !self.peers.is_empty() && walk.rest(now, self.options.stall_timeout)
    }

    /// A block came that may be on the way. `None` if it is.
    pub(super) fn is_on_the_way(&mut self, step: Step) -> Option<Step> {
        match &mut self.walk {
            Some(walk) if walk.takes(step.header.hash) => {
                walk.push(step);
                None
            }
            _ => Some(step),
        }
    }

    /// Offers the way to the chain, from the tree upwards. Bodies follow when all of it is there: not before is it known which
    /// of them are on the best chain.
    fn go_up(&mut self, now: Instant, walk: BackFill, context: &mut FlowContext<'_>) {
        let before = self.outputs.len();
        let top = walk.top();
        let is_at_its_end = self.offer_way(walk, context);
        let outputs = self.outputs.split_off(before);
        let is_body = |output: &FlowOutput| matches!(output, FlowOutput::Body(_));
        let (bodies, others): (Vec<_>, Vec<_>) = outputs.into_iter().partition(is_body);
        self.outputs.extend(others.into_iter().chain(bodies));
        let Some((peer, slot)) = top.and_then(|(id, slot)| Some((self.peers.get_mut(&id)?, slot))) else {
            return;
        };
        match is_at_its_end {
            // It has led to what is new, whoever brought the blocks below; and there may be more above.
            Some(true) => {
                (peer.fruitless, peer.linked) = (0, slot);
                if peer.strays(context.chain) {
                    (peer.has_news, peer.deaf_until) = (true, now);
                }
            }
            // Passed over, as will be what builds on it: for now the way leads nowhere.
            Some(false) => peer.was_in_vain(now, self.options.stall_timeout),
            None => {}
        }
    }

    /// Whether the whole way is in the tree now; false if some of it was passed over, `None` if it was rejected.
    fn offer_way(&mut self, walk: BackFill, context: &mut FlowContext<'_>) -> Option<bool> {
        let mut is_rejected = false;
        for step in walk.into_way_up() {
            if is_rejected {
                self.reject(step.header.hash);
                continue;
            }
            let hash = step.header.hash;
            self.offer(step, context);
            if self.has_failed {
                return None;
            }
            is_rejected = self.rejected.contains(hash);
            if !is_rejected && context.chain.find(hash).is_none() {
                return Some(false);
            }
        }
        (!is_rejected).then_some(true)
    }
}
