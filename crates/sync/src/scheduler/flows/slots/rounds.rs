//! Rounds: what every group of peers has, then back-fill of what does not link.

use std::{collections::BTreeMap, time::Instant};

use tipward_peer::{PeerId, Want, wire::BlockHash};

use super::{
    Anchor, Fault, FlowContext, FlowOutput, Open, Phase, SlotFlow, SlotPeer, Standing, orphans::MAX_ORPHANS,
};
use crate::scheduler::flows::backfill::{BackFill, End, Step, WalkBounds};

/// What a group of peers with the same tip brings.
#[derive(Debug)]
pub(super) struct Download {
    /// Those who may be asked if the current one fails, the next one last.
    left: Vec<PeerId>,
    /// Who is asked.
    current: Option<PeerId>,
    /// The slot of our tip when the round began.
    tip: u64,
    /// The slot that it is from.
    first: u64,
    /// The slot to ask from next.
    start: u64,
    /// The highest slot that came.
    last: u64,
    /// Nobody in it is believed to have more than we, and nothing unknown came.
    pub(super) is_poll: bool,
    is_over: bool,
}

impl SlotFlow {
    /// Groups the peers that have more than we. True if there are any.
    pub(super) fn begin_round(&mut self, now: Instant, context: &FlowContext<'_>) -> bool {
        let (tip, slot) = self.tip;
        if !context.may_ask || context.room == 0 || tip.height >= self.options.stop_at {
            return false;
        }
        let mut groups: BTreeMap<(u64, Option<BlockHash>), Vec<PeerId>> = BTreeMap::new();
        for (&id, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.is_wanted(slot, now)) {
            groups.entry((peer.claimed, peer.shown)).or_default().push(id);
            (peer.was_asked, peer.was_useful, peer.has_news) = (false, false, false);
            peer.poll_at = now + self.options.poll_interval;
        }
        let mut downloads = Vec::new();
        for ((claimed, shown), members) in groups {
            let mut left = members.clone();
            self.rng.shuffle(&mut left);
            let is_waited_for = |peer: &SlotPeer| peer.standing == Standing::Fresh || peer.is_ahead(slot);
            let is_poll = !members.iter().filter_map(|id| self.peers.get(id)).any(is_waited_for);
            let shown_slot =
                members.first().and_then(|id| self.peers.get(id)).map_or(0, |peer| peer.shown_slot);
            let first = match shown {
                // Who has shown our tip, or its own, need not send it again.
                Some(shown) if shown == tip.hash || shown_slot >= claimed => shown_slot + 1,
                // Who is behind by slots may be ahead by blocks: its tip shows.
                _ => claimed.min(slot),
            };
            let download = Download {
                left,
                current: None,
                tip: slot,
                first,
                start: first,
                last: 0,
                is_poll,
                is_over: false,
            };
            downloads.push(download);
            self.groups.push(members);
        }
        let has_any = !downloads.is_empty();
        if has_any {
            self.phase = Phase::Downloading(downloads);
        }
        has_any
    }

    /// Asks one peer of every group. True if all groups are through.
    pub(super) fn download(&mut self, now: Instant, context: &FlowContext<'_>) -> bool {
        let Phase::Downloading(mut downloads) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return true;
        };
        for download in downloads.iter_mut().filter(|download| !download.is_over) {
            self.go_on_with(now, download, context);
        }
        let is_over = downloads.iter().all(|download| download.is_over);
        if is_over {
            self.phase = Phase::BackFilling(None);
        } else {
            self.phase = Phase::Downloading(downloads);
        }
        is_over
    }

    fn go_on_with(&mut self, now: Instant, download: &mut Download, context: &FlowContext<'_>) {
        let is_asked = |id: &PeerId| {
            self.peers.get(id).is_some_and(|peer| matches!(peer.open, Some(Open::Slots { .. })))
        };
        if download.current.filter(is_asked).is_some() {
            return;
        }
        // Whoever has failed rests, or is gone.
        let is_fit = |id: &PeerId| self.peers.get(id).is_some_and(|peer| peer.rests_until <= now);
        if download.current.filter(is_fit).is_none() {
            download.current = None;
            download.left.retain(is_fit);
            let Some(next) = download.left.pop() else {
                download.is_over = true;
                return;
            };
            download.current = Some(next);
            // Where the one before stopped, so that it is seen whether they are on the same chain; a slot above its tip is a
            // lie of the one before.
            let claimed = self.peers.get(&next).map_or(0, |peer| peer.claimed);
            if download.last > 0 {
                download.start = download.first.max(download.last.min(claimed));
            }
        }
        let room = self.room(context);
        let is_full = self.orphans.len() >= MAX_ORPHANS || room == 0 && self.orphans.len() > 0;
        if is_full || self.tip.0.height >= self.options.stop_at {
            download.is_over = true; // First what is there.
            return;
        }
        let Some(peer) = download.current.and_then(|id| self.peers.get_mut(&id)) else { return };
        if room == 0 || !context.may_ask || peer.open.is_some() {
            return;
        }
        let count = self.options.batch.min(u32::try_from(room).unwrap_or(u32::MAX));
        peer.ask(Open::Slots { start: download.start, count, came: 0 }, now);
        peer.was_asked = true;
        if let Some(id) = download.current {
            self.outputs.push_back(FlowOutput::Ask(id, Want::SlotRange { start: download.start, count }));
        }
    }

    /// A block of this slot came in answer to a question for slots.
    pub(super) fn came(&mut self, id: PeerId, slot: u64, is_known: bool) {
        let Phase::Downloading(downloads) = &mut self.phase else { return };
        if let Some(download) = downloads.iter_mut().find(|download| download.current == Some(id)) {
            download.last = download.last.max(slot);
            download.is_poll &= is_known;
        }
    }

    /// A peer has sent all that it sends to a question for slots.
    pub(super) fn slots_end(&mut self, now: Instant, id: PeerId) {
        let Phase::Downloading(downloads) = &mut self.phase else { return };
        let Some(download) = downloads.iter_mut().find(|download| download.current == Some(id)) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let has_advanced = download.last >= download.start;
        download.start = download.last.max(download.start) + 1;
        let is_there = peer.highest >= peer.claimed;
        if has_advanced && (!is_there || peer.claimed <= download.tip) {
            return; // There may be more.
        }
        if is_there || !peer.is_ahead(download.tip) {
            download.is_over = true;
            return;
        }
        // It says that it has more. Perhaps the next one of its group does.
        let (claimed, shown) = (peer.claimed, peer.highest);
        self.outputs.push_back(FlowOutput::Disbelieve(id));
        self.outputs.push_back(FlowOutput::Penalise(id, Fault::HeightNotShown { claimed, shown }));
        self.failed(now, id, Fault::HeightNotShown { claimed, shown });
    }

    /// Links one orphan after the other, the highest first. True if none is left.
    pub(super) fn back_fill(&mut self, now: Instant, context: &mut FlowContext<'_>) -> bool {
        let Phase::BackFilling(walk) = std::mem::replace(&mut self.phase, Phase::Idle) else { return true };
        let Some(mut walk) = walk.or_else(|| self.begin_walk(context)) else {
            self.end_round(now);
            return true;
        };
        let rejected = &self.rejected;
        let end = walk.walk(context.chain, &mut self.orphans, |hash| rejected.contains(hash));
        match end {
            None => {
                if self.ask_for_walk(now, &mut walk, context) {
                    self.phase = Phase::BackFilling(Some(walk));
                    return false;
                }
                self.give_up_on(walk.source());
            }
            Some(End::Linked) => self.go_up(walk, context),
            Some(End::Hopeless) => {
                for step in walk.into_way_up() {
                    self.reject(step.header.hash);
                }
            }
        }
        self.phase = Phase::BackFilling(None);
        !self.has_failed
    }

    /// Nobody has what this peer's blocks build on, not even the peer.
    fn give_up_on(&mut self, source: Option<PeerId>) {
        let Some(id) = source else { return };
        // All that it sent is of one chain. The next round may bring it again.
        self.orphans.forget(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.unlinked += 1;
        if peer.unlinked >= self.options.max_strikes {
            self.drop_peer(id, Fault::BadRange);
        }
    }

    /// Starts from the highest orphan that is still one.
    fn begin_walk(&mut self, context: &FlowContext<'_>) -> Option<BackFill> {
        let irreversible = context.chain.irreversible();
        let floor =
            context.chain.best_at(irreversible).and_then(|hash| context.chain.slot(hash)).unwrap_or(0);
        while let Some(orphan) = self.orphans.take_highest() {
            let hash = orphan.header.hash;
            if context.chain.fork_point(hash).is_none() && !self.rejected.contains(hash) {
                let max_bytes = context.byte_room / 2;
                let max_steps = self.options.max_back_fill;
                return Some(BackFill::new(orphan, WalkBounds { max_steps, max_bytes, floor }));
            }
        }
        None
    }

    /// Asks a peer for the next blocks on the way. False if nobody has them.
    fn ask_for_walk(&mut self, now: Instant, walk: &mut BackFill, context: &FlowContext<'_>) -> bool {
        let is_asked = |open: &Option<Open>| matches!(open, Some(Open::Ancestors { .. } | Open::Block(_)));
        if !context.may_ask || self.peers.values().any(|peer| is_asked(&peer.open)) {
            return true;
        }
        let Some((of, parent)) = walk.lowest() else { return false };
        // Whoever has the orphan should have what it builds on.
        let source = walk.source();
        let mut able: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| peer.is_free(now)).map(|(&id, _)| id).collect();
        able.sort_by_cached_key(|id| (Some(*id) != source, self.rng.u64(..)));
        if let Some(id) = walk.whom(now, able.into_iter()) {
            let Some(peer) = self.peers.get_mut(&id) else { return true };
            let want = if peer.knows_ancestors {
                let count = self.options.batch.min(u32::try_from(walk.room()).unwrap_or(u32::MAX));
                peer.ask(Open::Ancestors { came: 0 }, now);
                Want::Ancestors { of, count }
            } else {
                peer.ask(Open::Block(parent), now);
                Want::Blocks(vec![parent])
            };
            self.outputs.push_back(FlowOutput::Ask(id, want));
            return true;
        }
        if self.peers.is_empty() {
            return false;
        }
        walk.rest(now, self.options.stall_timeout)
    }

    /// A block came that may be on the way. True if it is.
    pub(super) fn is_on_the_way(&mut self, step: Step) -> Option<Step> {
        match &mut self.phase {
            Phase::BackFilling(Some(walk)) if walk.takes(step.header.hash) => {
                walk.push(step);
                None
            }
            Phase::BackFilling(_) | Phase::Idle | Phase::Downloading(_) => Some(step),
        }
    }

    /// Offers the way to the chain, from the tree upwards.
    fn go_up(&mut self, walk: BackFill, context: &mut FlowContext<'_>) {
        let source = walk.source();
        let mut is_rejected = false;
        for step in walk.into_way_up() {
            if self.has_failed {
                return;
            }
            if is_rejected {
                self.reject(step.header.hash);
                continue;
            }
            let hash = step.header.hash;
            self.offer(step, context);
            is_rejected = self.rejected.contains(hash);
        }
        // It has led to what is new, whoever brought the blocks below.
        if let Some(peer) = source.and_then(|id| self.peers.get_mut(&id)).filter(|_| !is_rejected) {
            peer.was_useful = true;
        }
    }

    /// Ends the sync of the tips that brought nothing new.
    fn end_round(&mut self, now: Instant) {
        self.phase = Phase::Idle;
        for members in std::mem::take(&mut self.groups) {
            let group = || members.iter().filter_map(|id| self.peers.get(id));
            let was_useful = group().any(|peer| peer.was_useful);
            // The tip is in the tree, so it has nothing more to bring. Else it may have been a lie of those who were asked.
            let is_there = group().any(|peer| peer.was_asked && peer.shown_slot >= peer.claimed);
            for id in members {
                let Some(peer) = self.peers.get_mut(&id) else { continue };
                if was_useful {
                    peer.fruitless = 0;
                } else if peer.was_asked || is_there {
                    peer.end_tip(now, self.tip.1, self.options.stall_timeout);
                } else {
                    peer.has_news = true;
                }
                let is_strange = peer.was_asked && peer.shown.is_none() && peer.highest > 0;
                peer.standing = if is_strange { Standing::Strange } else { Standing::Heard };
                if peer.shown.is_none() && !is_strange {
                    self.outputs.push_back(FlowOutput::ShowsNothing(id));
                }
                if let (true, Anchor::Loose { since, .. }) = (is_strange, &mut self.anchor) {
                    since.get_or_insert(now);
                }
            }
        }
    }

    /// How many more blocks may be asked for.
    fn room(&self, context: &FlowContext<'_>) -> usize {
        let open = self.peers.values().map(|peer| match peer.open {
            Some(Open::Slots { count, came, .. }) => count.saturating_sub(came) as usize,
            _ => 0,
        });
        let taken = open.sum::<usize>() + self.orphans.len();
        let bytes = context.byte_room.saturating_sub(self.orphans.bytes()) / self.average_size.max(1);
        // One block is let through whatever its size.
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).max(usize::from(context.byte_room > 0));
        self.options.window.min(context.room).min(bytes).saturating_sub(taken)
    }
}
