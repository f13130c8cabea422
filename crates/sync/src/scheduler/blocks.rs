//! Requests: whom to ask for which block, and when to ask somebody else.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tipward_peer::{PeerId, Want, wire::BlockHash};

use super::{
    Fault, Output, Scheduler,
    peers::{Flight, Has, PeerState},
};

/// How much of the budget may be in flight; the rest is for what has come and waits for its turn.
const IN_FLIGHT_SHARE: f64 = 0.6;
/// What is asked for and has not begun takes no room yet: this fraction of it is counted. Who comes too early is held.
const UNBEGUN_SHARE: u64 = 2;
/// How many times its usual time a peer is given for the block that it is asked for, so that it is there when the sink comes to
/// it: what the sink has to wait for fills the budget with what lies behind it.
const MARGIN: f64 = 2.0;
/// How often the rates are added up.
const RATE_INTERVAL: Duration = Duration::from_millis(100);

impl Scheduler {
    /// Asks the peers for what is wanted, each in its turn so that the next blocks come from many.
    pub(super) fn assign(&mut self, now: Instant) {
        if self.is_paused || !self.window.has_wanted() {
            return;
        }
        self.add_up_rates(now);
        let under_way = self.window.asked().saturating_sub(self.room.collecting) as u64;
        let unbegun = self.average_size / UNBEGUN_SHARE;
        let mut expected = self.committed().saturating_add(under_way.saturating_mul(unbegun));
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
                expected += unbegun;
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

    /// How fast blocks come from all who are asked for some, and when the quickest of them would bring one more.
    fn add_up_rates(&mut self, now: Instant) {
        if self.rates_at.is_none_or(|at| at + RATE_INTERVAL <= now) {
            self.rates_at = Some(now);
            let busy = self.peers.values().filter(|peer| peer.load() > 0);
            let quickest = busy.clone().filter_map(|peer| self.takes(peer)).min_by(f64::total_cmp);
            self.total_rate = busy.map(|peer| peer.pace.rate()).sum();
            self.quickest = quickest.unwrap_or(0.0);
        }
    }

    /// The block that this peer is to be asked for next, when so many bytes are under way: the lowest that nobody would have
    /// to wait for.
    fn next_for(&self, id: PeerId, expected: u64) -> Option<(u64, BlockHash)> {
        let peer = self.peers.get(&id)?;
        let base = self.window.base();
        let serves = peer.serves();
        // What lies further ahead than the budget reaches would take the room of what comes before it, unless the peer needs as
        // long as it takes to get there.
        let reach = base.saturating_add(3 * self.ahead_budget() / 2 / self.average_size.max(1));
        let earliest = if peer.stall.strikes > 0 {
            // Who has stalled shows with one block that it is back.
            (peer.load() == 0).then(|| reach.min(self.window.end().saturating_sub(1)))?
        } else {
            base.saturating_add(self.blocks_before(peer))
        };
        let reach = reach.max(earliest.saturating_add(self.peers.len() as u64));
        let mut heights = *serves.start().max(&earliest)..=*serves.end().min(&reach).min(&self.deliverable);
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

    /// How many blocks the sink takes until this peer would bring one, counted from when the quickest would: that one sees to the
    /// first.
    fn blocks_before(&self, peer: &PeerState) -> u64 {
        let late = self.takes(peer).map_or(0.0, |takes| (takes - self.quickest).max(0.0));
        // Saturates on purpose.
        (late * self.total_rate / self.average_size.max(1) as f64) as u64
    }

    /// Seconds until the peer will have brought what it is asked for next, with a margin; `None` if its speed is not known.
    fn takes(&self, peer: &PeerState) -> Option<f64> {
        let queue = peer.pace.usual(peer.queued_bytes(self.average_size))?.max(peer.pace.latency());
        let own = peer.pace.usual(self.average_size)?;
        Some(queue.as_secs_f64() + own.as_secs_f64() * MARGIN)
    }

    pub(super) fn ask_of(&mut self, now: Instant, id: PeerId, height: u64, hash: BlockHash) {
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
            peer.claimed = peer.claimed.min(below);
            if let Has::Shown { reach, .. } = &mut peer.has {
                *reach = (*reach).min(below);
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
