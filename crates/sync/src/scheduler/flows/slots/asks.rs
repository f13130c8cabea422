//! Whom to ask for which slots.
//!
//! Peers that have shown a block of our best chain bring what follows our tip, one of them at a time. Of all others it is
//! looked where their tips are; those on other chains bring what they have from there on, one for every claimed tip.

use std::time::Instant;

use tipward_peer::{PeerId, Want};

use super::{
    Fault, FlowContext, FlowOutput, SlotFlow, SlotPeer, Standing,
    peer::{Question, What},
};
use crate::Chain;

/// How many blocks are asked for to see where a peer is: its tip, and whether there is more.
const LOOK: u32 = 2;
/// How many blocks may be asked for of other chains although there is no room: what fills it may wait for just these.
const BRANCH_ROOM: usize = 16;

/// Which chain a peer is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Unknown,
    /// Our best chain, as far as known.
    Ours,
    Other,
}

impl SlotFlow {
    /// Asks whoever can be asked for what it is wanted to bring.
    pub(super) fn ask(&mut self, now: Instant, context: &FlowContext<'_>) {
        if !context.may_ask {
            return;
        }
        let free: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| peer.is_free(now)).map(|(&id, _)| id).collect();
        let has_room = !self.is_stopped() && self.room(context) > 0;
        let may_lead = |id: &PeerId| {
            let peer = self.peers.get(id).filter(|peer| peer.is_ahead(self.tip.1));
            has_room && peer.is_some_and(|peer| self.line(peer, context.chain) == Line::Ours)
        };
        let (able, others): (Vec<_>, Vec<_>) = free.into_iter().partition(may_lead);
        self.ask_leader(now, able, context);
        for id in others {
            let Some(peer) = self.peers.get(&id) else { continue };
            let line = self.line(peer, context.chain);
            if let Some((start, count)) = self.look(now, peer, line, context) {
                self.ask_slots(now, id, What::Look { start, count });
            }
        }
    }

    fn line(&self, peer: &SlotPeer, chain: &dyn Chain) -> Line {
        let is_best = |hash| chain.find(hash).map(|block| chain.best_at(block.height) == Some(hash));
        match peer.shown.map(is_best) {
            _ if peer.strays(chain) => Line::Other,
            Some(Some(true)) => Line::Ours,
            Some(Some(false)) => Line::Other,
            // Everybody has the first block.
            Some(None) | None if self.tip.0.height == 0 => Line::Ours,
            Some(None) | None => Line::Unknown,
        }
    }

    /// What only this peer can be asked: from which slot on, and how many blocks.
    fn look(
        &self,
        now: Instant,
        peer: &SlotPeer,
        line: Line,
        context: &FlowContext<'_>,
    ) -> Option<(u64, u32)> {
        let slot = self.tip.1;
        let low = peer.claimed.min(slot);
        let count = |room: usize| self.options.batch.min(u32::try_from(room).unwrap_or(u32::MAX));
        let has_room = !self.is_stopped() && self.room(context) > 0;
        let few = if has_room { LOOK } else { 1 };
        if line == Line::Ours && peer.is_ahead(slot) {
            // It can't bring more now, but what is known, if it has that.
            return (!has_room && peer.shown_slot < slot && !self.is_led(now)).then_some((slot, few));
        }
        if line == Line::Other && peer.is_ahead(slot) && !self.is_stopped() {
            let is_same = |other: &SlotPeer| {
                let is_looked_at = |open: &Question| matches!(open.what, What::Look { .. });
                other.claimed == peer.claimed
                    && other.is_busy(Some(now))
                    && other.open().is_some_and(is_looked_at)
            };
            let is_brought = self.peers.values().any(is_same);
            let room = self.room(context).max(BRANCH_ROOM);
            return (!is_brought).then(|| (low.max(peer.highest.saturating_add(1)), count(room)));
        }
        if line == Line::Unknown && peer.is_ahead(slot) {
            // Whoever leads may bring what it has.
            return (!self.is_led(now)).then_some((low, few));
        }
        if !peer.has_told && !peer.is_ahead(slot) {
            return Some((low, few));
        }
        if self.is_stopped() || !peer.has_news || peer.deaf_until > now {
            return None;
        }
        let start = if peer.strays(context.chain) {
            low.max(peer.linked.saturating_add(1))
        } else if peer.shown_slot < peer.claimed {
            low
        } else if line == Line::Ours && !peer.has_announced {
            // What is between is known.
            slot.max(peer.shown_slot + 1)
        } else if peer.has_announced && peer.shown_slot == peer.claimed {
            // Its new tip may be in the same slot.
            peer.claimed
        } else {
            peer.shown_slot + 1
        };
        Some((start, count(self.room(context).max(1))))
    }

    /// Asks one of these for what follows our tip, unless somebody is about to bring it: whoever did so before, if possible.
    fn ask_leader(&mut self, now: Instant, mut able: Vec<PeerId>, context: &FlowContext<'_>) {
        let room = self.room(context);
        if able.is_empty() || room == 0 || self.is_led(now) {
            return;
        }
        let strikes = |id: &PeerId| self.peers.get(id).map_or(u32::MAX, |peer| peer.strikes);
        let least = able.iter().map(strikes).min();
        able.retain(|id| Some(strikes(id)) == least);
        let same = self.leader.filter(|leader| able.contains(leader));
        self.leader = same.or_else(|| self.rng.choice(able));
        let count = self.options.batch.min(u32::try_from(room).unwrap_or(u32::MAX));
        if let Some(id) = self.leader {
            self.ask_slots(now, id, What::Lead { start: self.tip.1 + 1, count });
        }
    }

    /// Whether there is as much as is wanted.
    pub(super) fn is_stopped(&self) -> bool {
        self.tip.0.height >= self.options.stop_at
    }

    /// Whether somebody is about to bring what follows our tip.
    fn is_led(&self, now: Instant) -> bool {
        let leads = |open: &Question| matches!(open.what, What::Lead { .. });
        self.peers.values().any(|peer| peer.is_busy(Some(now)) && peer.open().is_some_and(leads))
    }

    fn ask_slots(&mut self, now: Instant, id: PeerId, what: What) {
        let (Some(peer), Some((start, count))) = (self.peers.get_mut(&id), what.slots()) else { return };
        peer.ask(what, now);
        (peer.was_useful, peer.has_news, peer.has_announced) = (false, false, false);
        peer.poll_at = now + self.options.poll_interval;
        self.outputs.push_back(FlowOutput::Ask(id, Want::SlotRange { start, count }));
    }

    /// A peer has sent all that it sends to a question for slots.
    pub(super) fn slots_end(&mut self, now: Instant, id: PeerId, question: &Question) {
        let pause = self.options.stall_timeout;
        let (Some(peer), Some((start, count))) = (self.peers.get_mut(&id), question.what.slots()) else {
            return;
        };
        peer.standing = if peer.standing == Standing::Fresh { Standing::Heard } else { peer.standing };
        // Whoever lacks a block may have those above all the same, and is to be asked for them again.
        self.outputs.extend(peer.shown.map(|shown| FlowOutput::Shows(id, shown)));
        if peer.was_useful {
            peer.fruitless = 0;
        } else {
            peer.was_in_vain(now, pause);
        }
        if question.came == 0 && question.is_denied {
            // It has thrown that away, and may be of use when we are further.
            peer.has_told = true;
            peer.rest(now);
        } else if question.came == 0 && start <= question.claimed && peer.highest < peer.claimed {
            peer.has_told = true;
            peer.ended = Some(peer.claimed);
            let fault = Fault::HeightNotShown { claimed: peer.claimed, shown: peer.highest };
            self.outputs.push_back(FlowOutput::Disbelieve(id));
            self.outputs.push_back(FlowOutput::Penalise(id, fault.clone()));
            self.failed(now, id, fault);
        } else if question.came == 0
            || peer.highest >= peer.claimed
            || peer.strays > self.options.max_back_fill
        {
            // Further up, no way leads from what it sends to the tree: it is looked first whether one does from here.
            peer.has_told = true;
            peer.ended = peer.ended.max(Some(peer.claimed));
            let has_more = peer.highest > question.highest || peer.was_useful && peer.strayed.is_some();
            if question.came >= count && has_more {
                // Its tip is further than it said, or than what links so far.
                peer.has_news = true;
                if peer.was_useful {
                    peer.deaf_until = now;
                }
            }
        }
    }

    /// How many more blocks may be asked for.
    fn room(&self, context: &FlowContext<'_>) -> usize {
        let open = self.peers.values().filter_map(|peer| {
            let open = peer.open().filter(|_| !peer.is_held)?;
            Some(open.what.slots()?.1.saturating_sub(open.came) as usize)
        });
        let taken = open.sum::<usize>();
        let bytes = context.byte_room.saturating_sub(self.buffered_bytes()) / self.average_size.max(1);
        // One block is let through whatever its size.
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).max(1);
        self.options.window.min(context.room).min(bytes).saturating_sub(taken)
    }
}
