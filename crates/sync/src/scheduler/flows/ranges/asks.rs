//! Whom to ask for what.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use tipward_peer::{PeerId, Want};

use super::{
    RangeFlow,
    peer::{Branch, MAX_OPEN, Purpose, RangePeer, Search, Trust, back_off},
};
use crate::scheduler::flow::{FlowContext, FlowOutput};

/// Of how many peers the block after the tip is asked at most.
const MAX_ASKERS: usize = 3;
/// How many blocks may be asked for of other branches although there is no room: what fills it may wait for just these.
const CLIMB_ROOM: u64 = 16;

impl RangeFlow {
    pub(super) fn ask(&mut self, now: Instant, context: &FlowContext<'_>) {
        self.renew_skips(now);
        if context.may_ask {
            let free = self.peers.iter().filter(|(_, peer)| peer.may_be_asked(now));
            let free: Vec<_> = free.map(|(&id, _)| id).collect();
            for &id in &free {
                self.ask_alone(now, id, context);
            }
            if !free.is_empty() && self.top() > self.tip.height && context.room > 0 && context.byte_room > 0 {
                self.ask_shares(now, context);
            }
            if self.second_ask_at().is_some_and(|at| Some(at) <= self.checked) {
                self.ask_a_second(now);
            }
        }
        let next = self.tip.height + 1;
        match self.frontier {
            Some((height, _)) if height == next && self.askers() > 0 => {}
            _ => self.frontier = (self.askers() > 0).then_some((next, now)),
        }
    }

    /// Asks a peer what only this peer can answer: where its chain is, what follows there, whether there is more.
    fn ask_alone(&mut self, now: Instant, id: PeerId, context: &FlowContext<'_>) {
        let tip = self.tip.height;
        let Some(peer) = self.peers.get(&id) else { return };
        let is_idle = peer.is_idle();
        match peer.branch {
            Branch::Fresh if is_idle && tip > 0 && peer.claimed > 0 => {
                self.ask_probe(now, id, Search::below(peer.claimed.min(tip) + 1), context);
            }
            Branch::Search(search) if !peer.is_asked(Purpose::Probe) => {
                self.ask_probe(now, id, search, context);
            }
            Branch::Climb { .. }
                if is_idle && peer.reach().min(self.options.stop_at) > peer.shown_height() =>
            {
                self.ask_climb(now, id, context);
            }
            Branch::Fresh if tip == 0 && peer.claimed > 0 && peer.trust == Trust::Believed => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.branch = Branch::Best; // Nothing to compare yet.
                }
            }
            Branch::Fresh | Branch::Best | Branch::Climb { .. } if is_idle => self.ask_poll(now, id, context),
            Branch::Fresh | Branch::Best | Branch::Climb { .. } | Branch::Search(_) => {}
        }
    }

    /// Asks a peer for what follows its last block on its own branch.
    fn ask_climb(&mut self, now: Instant, id: PeerId, context: &FlowContext<'_>) {
        let Some(peer) = self.peers.get(&id) else { return };
        let is_same = |other: &&RangePeer| other.shown == peer.shown && other.is_asked(Purpose::Climb);
        if self.peers.values().any(|other| is_same(&other)) {
            return; // Another brings the same; then this one will be seen to be further.
        }
        let start = peer.shown_height() + 1;
        let climbs = self.peers.values().flat_map(RangePeer::open);
        let climbs =
            climbs.filter(|open| open.purpose == Purpose::Climb).map(|open| open.end - open.next).sum();
        let room = self.room(context).max(CLIMB_ROOM.saturating_sub(climbs));
        let end = peer.reach().min(self.options.stop_at).saturating_add(1);
        let count = room.min(u64::from(peer.quota)).min(end - start);
        if count > 0 {
            self.ask_range(now, id, Purpose::Climb, start..start + count);
        }
    }

    /// Asks a peer whether it has more than is known.
    fn ask_poll(&mut self, now: Instant, id: PeerId, context: &FlowContext<'_>) {
        let Some(peer) = self.peers.get(&id) else { return };
        let top = match peer.branch {
            Branch::Climb { .. } => peer.shown_height(),
            Branch::Fresh | Branch::Best | Branch::Search(_) => self.tip.height,
        };
        if peer.reach() > top {
            return; // It will be asked for that.
        }
        // That it has the tip is shown by that: whoever has may have to bring what is known and not there. It does not make up for
        // a lie.
        let shows_tip = peer.trust == Trust::Believed && peer.shown_height() < top;
        let start = if shows_tip { top } else { top + 1 };
        // What is asked of another already may be asked of this one too, but not much of it.
        let is_news = peer.announced.is_some_and(|hash| context.chain.fork_point(hash).is_none());
        let is_due = peer.poll_at <= now || is_news && self.askers() == 0;
        let Some(peer) = self.peers.get_mut(&id).filter(|_| is_due && start <= self.options.stop_at) else {
            return;
        };
        peer.announced = None;
        let quota = u64::from(peer.quota);
        let count = if self.askers() > 0 { 1 } else { quota.min(self.room(context)).max(1) };
        let end = (start + count).min(self.options.stop_at.saturating_add(1));
        let waiting = self.kept.at(start + 1, end).next().map_or(end, |kept| kept.height);
        self.ask_range(now, id, Purpose::Poll, start..end.min(waiting));
    }

    /// Spreads what is missing above the tip over the peers that have it, each height once.
    fn ask_shares(&mut self, now: Instant, context: &FlowContext<'_>) {
        let tip = self.tip.height;
        let is_usable = |peer: &RangePeer| {
            peer.is_on_our_chain()
                && peer.trust == Trust::Believed
                && peer.reach() > tip
                && peer.rests_until <= now
        };
        let is_able = |peer: &RangePeer| {
            is_usable(peer) && peer.may_be_asked(now) && peer.load() <= u64::from(peer.quota) / 2
        };
        let usable = self.peers.values().filter(|peer| is_usable(peer)).count() as u64;
        let mut able: Vec<_> = self.peers.iter().filter(|(_, peer)| is_able(peer)).collect();
        if able.is_empty() {
            return;
        }
        // The lowest heights go to whoever is fastest, as far as known.
        able.sort_by_cached_key(|(_, peer)| (peer.pace.is_none(), peer.pace, self.rng.u64(..)));
        let able: Vec<PeerId> = able.into_iter().map(|(&id, _)| id).collect();
        let span = (self.options.window.min(context.room) as u64).min(self.top().saturating_sub(tip));
        let fair = span.div_ceil(usable.max(1) * MAX_OPEN as u64).max(1);
        let mut covered = self.covered(now, span);
        for id in able {
            let room = self.room(context);
            let Some(peer) = self.peers.get(&id) else { continue };
            let Some(heights) = self.share(id, peer, &covered, fair, room) else { continue };
            heights.clone().for_each(|height| covered[(height - tip - 1) as usize] = true);
            self.ask_range(now, id, Purpose::Share, heights);
        }
    }

    /// The next missing heights that this peer can be asked for, of which there are `room`.
    fn share(
        &self,
        id: PeerId,
        peer: &RangePeer,
        covered: &[bool],
        fair: u64,
        room: u64,
    ) -> Option<Range<u64>> {
        let next = self.tip.height + 1;
        let is_open = |height: u64| {
            let is_covered = covered.get((height - next) as usize).copied().unwrap_or(true);
            let passed_over = || self.skips.get(&height).is_some_and(|skip| skip.by.contains(&id));
            !is_covered && peer.serves(height) && !passed_over()
        };
        let start = (next..next + covered.len() as u64).find(|&height| is_open(height))?;
        // The block after the tip is always due: what waits for it would wait for ever.
        let room = if start == next { room.max(1) } else { room };
        let wanted = u64::from(peer.quota).min(fair);
        let count = (start..start + wanted).take_while(|&height| is_open(height)).count() as u64;
        // Where room is all that is short, it is better to wait for more than to ask for crumbs.
        let is_crumb = room < count && room < wanted.div_ceil(2) && start != next;
        (room > 0 && !is_crumb).then(|| start..start + count.min(room))
    }

    /// Which of the `span` heights after the tip are there, asked for, or not to be asked for now.
    fn covered(&self, now: Instant, span: u64) -> Vec<bool> {
        let next = self.tip.height + 1;
        let mut covered = vec![false; usize::try_from(span).unwrap_or(usize::MAX)];
        let mut cover = |heights: Range<u64>| {
            for height in heights.start.max(next)..heights.end.min(next + span) {
                covered[(height - next) as usize] = true;
            }
        };
        // Where nothing has to wait any more it does not link.
        for kept in self.kept.at(next + 1, next + span) {
            cover(kept.height..kept.height + 1);
        }
        for peer in self.peers.values().filter(|peer| peer.is_on_our_chain()) {
            peer.open().for_each(|open| cover(open.missing()));
        }
        for (&height, _) in self.skips.iter().filter(|(_, skip)| skip.again > now) {
            cover(height..height + 1);
        }
        covered
    }

    /// Asks one more peer for the block that everything waits for, and what follows, if it has been long in coming.
    fn ask_a_second(&mut self, now: Instant) {
        let next = self.tip.height + 1;
        let asked = self.peers.values().flat_map(RangePeer::open);
        let Some(end) = asked.filter(|open| open.missing().contains(&next)).map(|open| open.end).max() else {
            return;
        };
        let can_serve =
            |peer: &RangePeer| peer.serves(next) && peer.may_be_asked(now) && !peer.is_asked_for(next);
        let able = self.peers.iter().filter(|(_, peer)| can_serve(peer));
        let Some((&id, peer)) = able.min_by_key(|(id, peer)| (peer.load(), peer.pace, **id)) else { return };
        // It takes no more room: the same blocks were asked for before.
        let count = u64::from(peer.quota).min(end - next).min(peer.reach() - self.tip.height);
        self.ask_range(now, id, Purpose::Share, next..next + count);
    }

    /// When the block after the tip is to be asked of one more peer.
    pub(super) fn second_ask_at(&self) -> Option<Instant> {
        let (_, since) = self.frontier.filter(|(height, _)| *height == self.tip.height + 1)?;
        // Who is held does not bring it now.
        let held = self.peers.values().filter(|peer| peer.is_held && peer.is_asked_for(self.tip.height + 1));
        let askers = self.askers();
        let waits = (0..askers as u32).map(|nth| back_off(self.options.stall_timeout, nth)).sum::<Duration>();
        (askers > 0 && askers - held.count() < MAX_ASKERS).then(|| since + waits)
    }

    /// How many peers are asked for the block after the tip.
    fn askers(&self) -> usize {
        let next = self.tip.height + 1;
        self.peers.values().filter(|peer| peer.is_asked_for(next)).count()
    }

    /// The highest block that anybody is believed to have on our chain, and that is wanted.
    fn top(&self) -> u64 {
        let peers = self.peers.values().filter(|peer| peer.is_on_our_chain());
        peers.map(RangePeer::reach).max().unwrap_or(0).min(self.options.stop_at)
    }

    /// How many more blocks may be asked for.
    fn room(&self, context: &FlowContext<'_>) -> u64 {
        let tip = self.tip.height;
        let open = self.peers.values().flat_map(RangePeer::open);
        let open: u64 = open.map(|open| open.end.saturating_sub(open.next.max(tip + 1))).sum();
        let count =
            (self.options.window.min(context.room) as u64).saturating_sub(open + self.kept.len() as u64);
        let bytes = context.byte_room.saturating_sub(self.kept.bytes()) / self.average_size.max(1);
        count.min(bytes.saturating_sub(open))
    }

    pub(super) fn ask_range(&mut self, now: Instant, id: PeerId, purpose: Purpose, heights: Range<u64>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.ask(purpose, &heights, now);
        let count = u32::try_from(heights.end - heights.start).unwrap_or(u32::MAX);
        self.outputs.push_back(FlowOutput::Ask(id, Want::Range { start: heights.start, count }));
    }
}
