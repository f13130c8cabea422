//! Requests: whom to ask for which block, and when to ask somebody else.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tipward_peer::{PeerId, Want, wire::BlockHash};

use super::{
    Fault, Output, Scheduler,
    peers::{Flight, Has, Mode, PeerState},
};

/// Of how many peers the next block is asked at most.
const MAX_ASKERS: u8 = 3;
/// How long the next block is waited for before it is looked for whether another peer would be faster.
const MIN_GRACE: Duration = Duration::from_millis(250);
/// How much of the budget may be in flight; the rest is for what has come and waits for its turn.
const IN_FLIGHT_SHARE: f64 = 0.6;
/// How often the rates are added up.
const RATE_INTERVAL: Duration = Duration::from_millis(100);

/// Since when the first block of the window is the first one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frontier {
    height: u64,
    since: Instant,
    /// When it is to be looked after.
    due: Instant,
    /// How long until the next look, when there was nothing to do.
    pause: Duration,
}

impl Scheduler {
    /// Asks the peers for what is wanted, each in its turn so that the next blocks come from many.
    pub(super) fn assign(&mut self, now: Instant) {
        if self.is_paused || !self.window.has_wanted() {
            return;
        }
        self.add_up_rates(now);
        let under_way = self.window.asked().saturating_sub(self.room.collecting) as u64;
        let mut expected = self.committed().saturating_add(under_way.saturating_mul(self.average_size));
        let is_front_wanted = self.window.missing_front().is_some_and(|(_, askers)| askers == 0);
        if expected >= self.ahead_budget() && !is_front_wanted {
            return;
        }
        let mut able: Vec<PeerId> = self
            .hungry
            .iter()
            .filter(|id| self.peers.get(id).is_some_and(|peer| peer.may_be_asked(now)))
            .copied()
            .collect();
        if !able.is_empty() {
            let shift = self.turn as usize % able.len();
            able.rotate_left(shift);
        }
        let mut asks: BTreeMap<PeerId, Vec<BlockHash>> = BTreeMap::new();
        while self.window.has_wanted() && !able.is_empty() {
            able.retain(|&id| {
                let Some((height, hash)) = self.next_for(id, expected) else { return false };
                self.ask_of(now, id, height, hash);
                asks.entry(id).or_default().push(hash);
                expected += self.average_size;
                self.peers.get(&id).is_some_and(|peer| peer.load() < peer.pace.limit())
            });
        }
        self.turn += asks.len() as u64;
        for (id, blocks) in asks {
            self.note(id);
            self.outputs.push_back(Output::Ask(id, Want::Blocks(blocks)));
        }
        if is_front_wanted {
            self.ask_for_front(now);
        }
    }

    /// How many seconds of what all peers bring the budget holds, with some room for those that wait for their turn.
    pub(super) fn share(&self) -> f64 {
        IN_FLIGHT_SHARE * self.ahead_budget() as f64 / self.total_rate.max(1.0)
    }

    /// How fast blocks come from all who are asked for some.
    fn add_up_rates(&mut self, now: Instant) {
        if self.rates_at.is_none_or(|at| at + RATE_INTERVAL <= now) {
            self.rates_at = Some(now);
            let busy = self.peers.values().filter(|peer| peer.load() > 0);
            self.total_rate = busy.map(|peer| peer.pace.rate()).sum();
        }
    }

    /// The block that this peer is to be asked for next, when so many bytes are under way: the lowest that nobody would have
    /// to wait for.
    fn next_for(&self, id: PeerId, expected: u64) -> Option<(u64, BlockHash)> {
        let peer = self.peers.get(&id)?;
        let base = self.window.base();
        let serves = peer.serves();
        // What lies further ahead than the budget reaches would take the room of what comes before it.
        let reach = base.saturating_add(3 * self.ahead_budget() / 2 / self.average_size.max(1));
        let earliest = self.in_time(peer).map(|earliest| earliest.min(reach))?;
        let mut heights = *serves.start().max(&earliest)..=*serves.end().min(&reach);
        loop {
            let (height, hash) = self.window.first_wanted(&heights)?;
            if height != base && expected >= self.ahead_budget() {
                return None;
            }
            // Too large to be kept: its turn is when it is the next one.
            if height != base && self.large.get(&height) == Some(&hash) {
                heights = height + 1..=*heights.end();
                continue;
            }
            return Some((height, hash));
        }
    }

    /// The lowest height that this peer would bring before the sink gets there. Others who are faster see to those below.
    fn in_time(&self, peer: &PeerState) -> Option<u64> {
        let base = self.window.base();
        if peer.stall.strikes > 0 {
            // Who has stalled shows with one block that it is back.
            return (peer.load() == 0).then(|| self.window.end().saturating_sub(1));
        }
        let bytes = peer.bytes_before(peer.load(), self.average_size);
        let Some(takes) = peer.pace.usual(bytes) else { return Some(base) };
        let late = takes.saturating_sub(self.options.stall_timeout).as_secs_f64();
        // Saturates on purpose.
        Some(base.saturating_add((late * self.total_rate / self.average_size.max(1) as f64) as u64))
    }

    fn ask_of(&mut self, now: Instant, id: PeerId, height: u64, hash: BlockHash) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.asked(now, height, hash);
        self.window.ask(height);
        if height == self.window.base() {
            // Its time counts from here, however long it was the next one.
            self.restart_frontier(now);
        }
    }

    /// Something about this peer is different: whether it can take more requests, and when it is to be looked after.
    pub(super) fn note(&mut self, id: PeerId) {
        let peer = self.peers.get(&id);
        match peer {
            Some(peer) if peer.is_hungry() => self.hungry.insert(id),
            _ => self.hungry.remove(&id),
        };
        let due = peer.and_then(|peer| peer.due(self.checked));
        self.peers_due = [self.peers_due, due].into_iter().flatten().min();
    }

    /// The next block is wanted and nobody was found who would bring it in time: whoever brings it first does. If all who
    /// could are held with a block that has no room, the one with the least to come is freed.
    fn ask_for_front(&mut self, now: Instant) {
        let base = self.window.base();
        let Some((hash, 0)) = self.window.missing_front() else { return };
        let serves = |peer: &PeerState| peer.serves().contains(&base);
        let takes = |peer: &PeerState| {
            let bytes = peer.bytes_before(peer.load(), self.average_size);
            let takes = peer.pace.expected(now, bytes).unwrap_or(self.options.stall_timeout);
            (peer.stall.strikes, takes)
        };
        let able = self.peers.iter().filter(|(_, peer)| serves(peer) && peer.may_be_asked(now));
        let first = able.min_by_key(|(id, peer)| (takes(peer), **id)).map(|(&id, _)| id);
        let Some(id) = first.or_else(|| self.least_held(base)) else { return };
        self.discard_held(now, id);
        self.ask_of(now, id, base, hash);
        self.note(id);
        self.outputs.push_back(Output::Ask(id, Want::Blocks(vec![hash])));
    }

    /// Of those who are held for want of room and have the block at this height, the one with the least to come.
    fn least_held(&self, height: u64) -> Option<PeerId> {
        let left = |peer: &PeerState| match &peer.arriving {
            None => Some(0),
            Some(arriving) => {
                (arriving.mode == Mode::Wait).then(|| arriving.size.saturating_sub(arriving.seen))
            }
        };
        let held = self.room.held.iter().filter_map(|id| Some((*id, self.peers.get(id)?)));
        let able = held.filter(|(_, peer)| peer.serves().contains(&height));
        able.filter_map(|(id, peer)| Some((left(peer)?, id))).min().map(|(_, id)| id)
    }

    /// Lets a held peer go. What was arriving from it is given up.
    fn discard_held(&mut self, now: Instant, id: PeerId) {
        if self.peers.get(&id).is_some_and(|peer| peer.is_held) {
            self.discard(now, id);
            self.release(id, now);
        }
    }

    /// The time of the next block starts when it becomes the next one.
    pub(super) fn watch_frontier(&mut self, now: Instant) {
        if self.frontier.is_none_or(|frontier| frontier.height != self.window.base()) {
            self.restart_frontier(now);
        }
    }

    fn restart_frontier(&mut self, now: Instant) {
        self.frontier =
            Some(Frontier { height: self.window.base(), since: now, due: now + MIN_GRACE, pause: MIN_GRACE });
    }

    /// When the next block is to be looked after.
    pub(super) fn frontier_due(&self) -> Option<Instant> {
        let (_, askers) = self.window.missing_front()?;
        let frontier = self.frontier.filter(|_| !self.is_paused && (1..MAX_ASKERS).contains(&askers))?;
        Some(frontier.due)
    }

    /// Asks one more peer for the block that everything waits for, if it is long in coming and another would be faster.
    pub(super) fn look_after_front(&mut self, now: Instant) {
        let (Some(mut frontier), Some((hash, askers))) = (self.frontier, self.window.missing_front()) else {
            return;
        };
        if self.frontier_due().is_none_or(|due| due > now) {
            return;
        }
        let asked: Vec<(PeerId, u64, Option<Duration>)> = self
            .peers
            .iter()
            .filter_map(|(&id, peer)| {
                let (at, _) = peer.flight(hash).filter(|(_, flight)| !flight.is_lapsed)?;
                let bytes = peer.bytes_before(at, self.average_size);
                let arriving = peer.arriving.as_ref().filter(|arriving| arriving.hash == hash);
                let size = arriving.map_or(self.average_size, |arriving| arriving.size);
                Some((id, size, peer.pace.expected(now, bytes)))
            })
            .collect();
        let remaining = asked.iter().filter_map(|(_, _, remaining)| *remaining).min();
        let stall = self.options.stall_timeout;
        let grace = match remaining {
            Some(remaining) if remaining <= stall => (2 * remaining).clamp(MIN_GRACE, stall),
            Some(_) => MIN_GRACE,
            None => stall,
        };
        frontier.due = frontier.since + grace * u32::from(askers.max(1));
        if frontier.due > now {
            // What remains grows while nothing comes: not to be chased in small steps.
            frontier.due = frontier.due.max(now + MIN_GRACE);
            self.frontier = Some(frontier);
            return;
        }
        // To be looked at again, whatever comes of it.
        frontier.due = now + frontier.pause.max(grace);
        frontier.pause = (2 * frontier.pause).min(stall);
        self.frontier = Some(frontier);
        let size = asked.iter().map(|(_, size, _)| *size).max().unwrap_or(self.average_size);
        if let Some(id) = self.faster_for_front(now, hash, size, remaining) {
            for (asked, ..) in asked {
                self.take_back(asked, Some(hash));
            }
            self.ask_of(now, id, self.window.base(), hash);
            self.note(id);
            self.outputs.push_back(Output::Ask(id, Want::Blocks(vec![hash])));
        }
    }

    /// Who else would bring the next block, and much earlier than it will come otherwise.
    fn faster_for_front(
        &self,
        now: Instant,
        hash: BlockHash,
        size: u64,
        remaining: Option<Duration>,
    ) -> Option<PeerId> {
        // A block that is coming already is not asked for again but for a large gain: a second copy can't be called off.
        let is_coming = |peer: &PeerState| {
            peer.stall.is_flowing(now) && peer.arriving.as_ref().is_some_and(|arriving| arriving.hash == hash)
        };
        let gain = if self.peers.values().any(is_coming) { 4 } else { 2 };
        let base = self.window.base();
        let stall = self.options.stall_timeout;
        self.peers
            .iter()
            .filter(|(_, peer)| {
                peer.may_be_asked(now) && peer.serves().contains(&base) && peer.flight(hash).is_none()
            })
            .map(|(&id, peer)| {
                let queue =
                    if peer.load() == 0 { 0 } else { peer.bytes_before(peer.load() - 1, self.average_size) };
                let takes = peer.pace.expected(now, queue.saturating_add(size)).unwrap_or(stall);
                (takes, id)
            })
            .min()
            .filter(|(takes, _)| remaining.is_none_or(|remaining| *takes < remaining / gain))
            .map(|(_, id)| id)
    }

    /// Takes the requests back from a peer that does not bring what is waited for, but for one.
    fn take_back(&mut self, id: PeerId, but: Option<BlockHash>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let arriving = peer.arriving.as_ref().map(|arriving| arriving.hash);
        peer.pace.stalled();
        tracing::debug!(%id, requests = peer.open(), "takes too long");
        self.lapse(id, |flight| Some(flight.hash) != but && Some(flight.hash) != arriving);
    }

    /// Takes requests back from a peer: these blocks are wanted of others. They may still come.
    pub(super) fn lapse(&mut self, id: PeerId, is_void: impl FnMut(&Flight) -> bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let lapsed = peer.lapse(is_void);
        self.has_lapsed |= !lapsed.is_empty();
        lapsed.into_iter().for_each(|flight| self.window.give_back(flight.height, flight.hash));
        self.note(id);
    }

    /// Takes the requests back from peers that bring nothing.
    pub(super) fn check_stalls(&mut self, now: Instant) {
        let stalled: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.stalls_at().is_some_and(|at| at <= now))
            .map(|(&id, _)| id)
            .collect();
        for id in stalled {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            self.stalls += 1;
            peer.stall.strike(now);
            peer.pace.stalled();
            let strikes = peer.stall.strikes;
            tracing::debug!(%id, strikes, requests = peer.open(), "stalled");
            self.lapse(id, |_| true);
            if strikes >= self.options.max_strikes {
                self.drop_peer(id, Fault::Stalled);
            }
        }
    }

    /// A peer does not have these blocks.
    pub(super) fn missing(&mut self, now: Instant, id: PeerId, blocks: &[BlockHash]) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        for hash in blocks {
            let Some(flight) = peer.land(now, *hash) else { continue };
            if !flight.is_lapsed {
                self.window.give_back(flight.height, flight.hash);
            }
            if !self.window.is_missing(flight.height, *hash) {
                continue;
            }
            let below = flight.height.saturating_sub(1);
            match &mut peer.has {
                Has::Shown { reach, .. } => *reach = (*reach).min(below),
                Has::Claims => peer.claimed = peer.claimed.min(below),
                Has::Unknown => {}
            }
        }
        self.note(id);
    }

    /// A peer can't take these requests now.
    pub(super) fn refused(&mut self, now: Instant, id: PeerId, blocks: &[BlockHash]) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        for hash in blocks {
            if let Some(flight) = peer.land(now, *hash).filter(|flight| !flight.is_lapsed) {
                self.window.give_back(flight.height, flight.hash);
            }
        }
        peer.stall.rests_until = now + peer.stall.patience;
        self.note(id);
    }
}
