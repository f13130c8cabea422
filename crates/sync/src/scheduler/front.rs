//! The front: the block that the sink gets next, on which everything behind it waits, and what is done when it is late.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tipward_peer::{PeerId, Want, wire::BlockHash};

use super::{
    Output, Scheduler,
    peers::{Has, Mode, PeerState},
};

/// Of how many peers one block is asked at most.
const MAX_ASKERS: u8 = 3;
/// How long the front is waited for before it is looked for whether another peer would be faster.
const MIN_GRACE: Duration = Duration::from_millis(250);
/// Bytes a second that a peer is taken to bring of which nothing is known.
const UNKNOWN_RATE: u64 = 1 << 20;
/// How many times as fast another peer has to be. A block that is coming already is not asked for again but for a large gain: a
/// second copy can't be called off.
const GAIN: u32 = 2;
const GAIN_WHILE_COMING: u32 = 3;

/// Since when the first block of the window is the first one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frontier {
    height: u64,
    since: Instant,
    /// When it is to be looked after.
    due: Instant,
    /// How long until the next look, when there was nothing to do.
    pause: Duration,
    /// How often the sink had got parts of it in vain: each time another peer has to be twice as fast, or those who begin and
    /// break off would keep a slow one from ending.
    pub(super) aborts: u32,
}

/// A block that is asked for and has not come.
#[derive(Debug)]
struct Awaited {
    hash: BlockHash,
    size: u64,
    asked: Vec<PeerId>,
    /// How long it will take at least, if that is known.
    remaining: Option<Duration>,
    /// It is on its way.
    is_coming: bool,
}

impl Scheduler {
    /// The next block is wanted and nobody was found who would bring it in time: whoever brings it first does. If nobody has
    /// shown that far, those who claim it are taken by their word. If all who
    /// could are held with a block that has no room, the one who would be the first is freed.
    pub(super) fn ask_for_front(&mut self, now: Instant) {
        let base = self.window.base();
        let Some((hash, 0)) = self.window.missing_front().filter(|_| base <= self.deliverable) else {
            return;
        };
        let is_shown = self.peers.values().any(|peer| peer.serves().contains(&base));
        let serves = |peer: &PeerState| {
            if is_shown {
                peer.serves().contains(&base)
            } else {
                peer.has != Has::Unknown && peer.claimed >= base
            }
        };
        let takes = |peer: &PeerState| (peer.stall.strikes, self.would_take(now, peer, self.average_size));
        let able = self.peers.iter().filter(|(_, peer)| serves(peer) && peer.may_be_asked(now));
        let first = able.min_by_key(|(id, peer)| (takes(peer), **id)).map(|(&id, _)| id);
        let Some(id) = first.or_else(|| self.first_of_held(now, base)) else { return };
        self.discard_held(now, id);
        self.ask_of(now, id, base, hash);
        self.note(id);
        self.outputs.push_back(Output::Ask(id, Want::Blocks(vec![hash])));
    }

    /// Of those who are held for want of room and have the block at this height, the one who would bring it first: what is
    /// arriving has to pass before.
    fn first_of_held(&self, now: Instant, height: u64) -> Option<PeerId> {
        let held = self.room.held.iter().filter_map(|id| Some((*id, self.peers.get(id)?)));
        let waits = |peer: &PeerState| peer.arriving.as_ref().is_none_or(|it| it.mode == Mode::Wait);
        let able = held.filter(|(_, peer)| peer.serves().contains(&height) && waits(peer));
        able.map(|(id, peer)| (self.would_take(now, peer, self.average_size), id)).min().map(|(_, id)| id)
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

    pub(super) fn restart_frontier(&mut self, now: Instant) {
        let height = self.window.base();
        let same = self.frontier.filter(|frontier| frontier.height == height);
        let aborts = same.map_or(0, |frontier| frontier.aborts);
        self.frontier = Some(Frontier { height, since: now, due: now + MIN_GRACE, pause: MIN_GRACE, aborts });
    }

    /// When the next block is to be looked after.
    pub(super) fn frontier_due(&self) -> Option<Instant> {
        let (_, askers) = self.window.missing_front()?;
        let frontier = self.frontier.filter(|_| !self.is_paused && (1..MAX_ASKERS).contains(&askers))?;
        Some(frontier.due)
    }

    /// If the block that everything waits for is long in coming, asks others for it and for those behind it that will be late,
    /// where that brings them much earlier.
    pub(super) fn look_after_front(&mut self, now: Instant) {
        let (Some(mut frontier), Some((_, askers))) = (self.frontier, self.window.missing_front()) else {
            return;
        };
        if self.frontier_due().is_none_or(|due| due > now) {
            return;
        }
        let awaited = self.awaited(now);
        let remaining = awaited.get(&self.window.base()).and_then(|front| front.remaining);
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
        let mut asks: BTreeMap<PeerId, Vec<BlockHash>> = BTreeMap::new();
        for (height, block) in awaited {
            if let Some(id) = self.faster_for(now, height, &block) {
                for &asked in &block.asked {
                    self.take_back(asked, block.hash);
                }
                self.ask_of(now, id, height, block.hash);
                asks.entry(id).or_default().push(block.hash);
            }
        }
        for (id, blocks) in asks {
            self.note(id);
            self.outputs.push_back(Output::Ask(id, Want::Blocks(blocks)));
        }
    }

    /// The blocks that are asked for and will be needed first, by height.
    fn awaited(&self, now: Instant) -> BTreeMap<u64, Awaited> {
        let mut awaited: BTreeMap<u64, Awaited> = BTreeMap::new();
        let base = self.window.base();
        let reach = base.saturating_add(self.ahead_budget() / self.average_size.max(1));
        for (&id, peer) in &self.peers {
            for (at, flight) in peer.flights.iter().enumerate() {
                if flight.is_lapsed || flight.height > reach {
                    continue;
                }
                let arriving = peer.arriving.as_ref().filter(|arriving| arriving.hash == flight.hash);
                let usual = peer.pace.expected(now, peer.bytes_before(at, self.average_size));
                // Who is held brings nothing, unless it is for the sink to take what comes.
                let remaining = if peer.is_held && self.stream != Some(id) { None } else { usual };
                let block = awaited.entry(flight.height).or_insert_with(|| Awaited {
                    hash: flight.hash,
                    size: self.average_size,
                    asked: Vec::new(),
                    remaining: None,
                    is_coming: false,
                });
                block.asked.push(id);
                block.remaining = [block.remaining, remaining].into_iter().flatten().min();
                block.is_coming |= arriving.is_some() && peer.stall.is_flowing(now);
                block.size = arriving.map_or(block.size, |arriving| arriving.size);
            }
        }
        awaited
    }

    /// Who else would bring a block that will be late, and much earlier than it will come otherwise.
    fn faster_for(&self, now: Instant, height: u64, block: &Awaited) -> Option<PeerId> {
        if block.asked.len() >= usize::from(MAX_ASKERS) || !self.window.is_missing(height, block.hash) {
            return None;
        }
        let ahead = height - self.window.base();
        let remaining = match block.remaining {
            // The sink comes to it when what lies before it has come.
            Some(remaining) if ahead > 0 => {
                let needed = ahead as f64 * self.average_size as f64 / self.total_rate.max(1.0);
                (remaining.as_secs_f64() > needed + MIN_GRACE.as_secs_f64()).then_some(remaining)?
            }
            None if ahead > 0 => return None,
            of_front => of_front.unwrap_or(Duration::MAX),
        };
        let gain = if block.is_coming { GAIN_WHILE_COMING << self.stream_aborts() } else { GAIN };
        let is_able = |peer: &PeerState| {
            peer.may_be_asked(now) && peer.serves().contains(&height) && peer.flight(block.hash).is_none()
        };
        let able = self.peers.iter().filter(|(_, peer)| is_able(peer));
        able.map(|(&id, peer)| (self.would_take(now, peer, block.size), id))
            .min()
            .filter(|(takes, _)| *takes < remaining / gain)
            .map(|(_, id)| id)
    }

    /// How often the next block went to the sink in vain, up to 16.
    pub(super) fn stream_aborts(&self) -> u32 {
        self.frontier.map_or(0, |frontier| frontier.aborts.min(16))
    }

    /// How long it will take until this peer has brought a block of this size, if it is asked now.
    fn would_take(&self, now: Instant, peer: &PeerState, size: u64) -> Duration {
        let bytes = peer.queued_bytes(self.average_size).saturating_add(size);
        let takes = peer.pace.expected(now, bytes).unwrap_or_else(|| {
            // A newcomer must not be taken for the fastest: for a block that is coming already it would be asked again and again.
            self.options.stall_timeout.saturating_add(Duration::from_secs(bytes / UNKNOWN_RATE))
        });
        takes.saturating_add(peer.pace.latency())
    }

    /// Takes the requests back from a peer that does not bring what is waited for, but for one.
    fn take_back(&mut self, id: PeerId, but: BlockHash) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let arriving = peer.arriving.as_ref().map(|arriving| arriving.hash);
        peer.pace.stalled();
        tracing::debug!(%id, requests = peer.open(), "takes too long");
        self.lapse(id, |flight| flight.hash != but && Some(flight.hash) != arriving);
    }
}
