//! What the scheduler knows of a peer as a source of blocks.

use std::{
    collections::VecDeque,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use tipward_peer::{
    PeerInfo,
    wire::{BlockHash, BlockPart, DownloadId},
};

use super::pace::Pace;

/// A peer that brings fewer bytes a second than this, while it has something to bring, brings nothing.
const LEAST_RATE: u64 = 100;
/// A peer that brought something so long ago is still sending.
const FLOWING: Duration = Duration::from_secs(1);
/// The longest that a peer may bring nothing.
const MAX_PATIENCE: Duration = Duration::from_secs(64);

/// A peer as the scheduler sees it.
#[derive(Debug)]
pub(super) struct PeerState {
    /// The height that the peer claims: a hint until it has shown a block.
    pub(super) claimed: u64,
    /// The peer serves only so many blocks behind its tip.
    pub(super) recent_only: Option<u64>,
    /// What it has of the best chain.
    pub(super) has: Has,
    /// Blocks asked of the peer that have not come, in the order of asking: it will send them in this order.
    pub(super) flights: VecDeque<Flight>,
    /// How many of them are lapsed.
    lapsed: usize,
    /// The block that is arriving.
    pub(super) arriving: Option<Arriving>,
    /// Bytes of the next one, whose first part has not come.
    pub(super) early: u64,
    pub(super) pace: Pace,
    pub(super) stall: Stall,
    /// Nothing is read from the peer.
    pub(super) is_held: bool,
    /// The user's figures.
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    /// When the flow was told last that the peer is sending.
    pub(super) told: Instant,
    /// Bytes that have come since.
    pub(super) untold: u64,
}

/// What a peer has of the best chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Has {
    /// Not known yet.
    Unknown,
    /// What it claims; it was asked and has shown nothing.
    Claims,
    /// It has shown this block; this height of the best chain is the highest that it has for sure.
    Shown { tip: BlockHash, reach: u64 },
}

/// A block that was asked for and has not come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) height: u64,
    pub(super) hash: BlockHash,
    pub(super) asked: Instant,
    /// The request was taken back: the block may still come, and is taken if it is still missing.
    pub(super) is_lapsed: bool,
}

/// A block that is arriving.
#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) hash: BlockHash,
    pub(super) place: Place,
    pub(super) download: DownloadId,
    pub(super) parts: Vec<BlockPart>,
    /// The number of the part that comes next.
    pub(super) next: u32,
    pub(super) size: u64,
    /// Bytes told so far, those of a part under way included.
    pub(super) seen: u64,
    pub(super) mode: Mode,
}

/// Where an arriving block belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On the best chain.
    Height(u64),
    /// That is for the flow to find out.
    Unknown,
}

/// What is done with the parts of an arriving block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// They are kept, and there is room for all of them.
    Collect,
    /// They go to the sink at once: the block is the next one and too large to be kept.
    Stream,
    /// The first ones are kept and the peer is held, until there is room or the block is the next one.
    Wait,
    /// They are dropped: nobody needs the block, or it has no room and the peer is needed.
    Drain,
}

/// Whether a peer brings what it was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stall {
    /// Since when too little came.
    since: Instant,
    /// What came since.
    bytes: u64,
    /// How long the peer may bring nothing; doubles with every stall.
    pub(super) patience: Duration,
    /// No block is asked of the peer before.
    pub(super) rests_until: Instant,
    /// Stalls since the last block.
    pub(super) strikes: u32,
}

impl Stall {
    fn new(patience: Duration, now: Instant) -> Self {
        Self { since: now, bytes: 0, patience, rests_until: now, strikes: 0 }
    }

    pub(super) fn restart(&mut self, now: Instant) {
        (self.since, self.bytes) = (now, 0);
    }

    fn received(&mut self, now: Instant, bytes: u64) {
        self.bytes += bytes;
        // Enough for the time that has passed: a peer that sends a byte a second is silent to us.
        let millis = now.saturating_duration_since(self.since).as_millis();
        if u128::from(self.bytes) * 1000 > millis * u128::from(LEAST_RATE) {
            self.restart(now);
        }
    }

    /// A block came whole.
    pub(super) fn landed(&mut self, now: Instant, patience: Duration) {
        // A rest that was over long ago does not end now.
        *self = Self { rests_until: self.rests_until.min(now), ..Self::new(patience, now) };
    }

    /// Whether enough came of late.
    pub(super) fn is_flowing(&self, now: Instant) -> bool {
        self.since + FLOWING > now
    }

    fn at(&self) -> Instant {
        self.since + self.patience
    }

    /// Nothing came for too long.
    pub(super) fn strike(&mut self, now: Instant) {
        self.strikes += 1;
        self.rests_until = now + self.patience;
        self.patience = (self.patience * 2).min(MAX_PATIENCE);
    }
}

impl PeerState {
    pub(super) fn new(info: &PeerInfo, patience: Duration, now: Instant) -> Self {
        Self {
            claimed: info.claimed_height,
            recent_only: info.recent_only,
            has: Has::Unknown,
            flights: VecDeque::new(),
            lapsed: 0,
            arriving: None,
            early: 0,
            pace: Pace::new(),
            stall: Stall::new(patience, now),
            is_held: false,
            blocks: 0,
            bytes: 0,
            told: now,
            untold: 0,
        }
    }

    /// The heights of the best chain that the peer can be asked for; none while it has yet to show what it has. Who shows
    /// nothing is taken by its word.
    pub(super) fn serves(&self) -> RangeInclusive<u64> {
        let high = match self.has {
            Has::Shown { reach, .. } => reach,
            Has::Claims => self.claimed,
            Has::Unknown => return RangeInclusive::new(1, 0),
        };
        let low = self.recent_only.map_or(0, |recent| high.saturating_sub(recent));
        low..=high
    }

    /// How many blocks the peer still has to send before it can turn to what it is asked next.
    pub(super) fn load(&self) -> usize {
        self.flights.len()
    }

    /// How many of them are still wanted of it.
    pub(super) fn open(&self) -> usize {
        self.flights.len() - self.lapsed
    }

    /// Whether blocks may still come that are not wanted of it any more.
    pub(super) fn has_lapsed(&self) -> bool {
        self.lapsed > 0
    }

    /// Whether the peer may be asked for more now: when a third of what it can take is served, for several at a time.
    pub(super) fn is_hungry(&self) -> bool {
        self.load() <= self.pace.limit() * 2 / 3 && !self.is_held
    }

    pub(super) fn may_be_asked(&self, now: Instant) -> bool {
        !self.is_held && self.stall.rests_until <= now
    }

    /// Notes a request.
    pub(super) fn asked(&mut self, now: Instant, height: u64, hash: BlockHash) {
        if self.flights.is_empty() {
            self.stall.restart(now);
            self.pace.asked(now);
        }
        self.flights.push_back(Flight { height, hash, asked: now, is_lapsed: false });
    }

    /// Bytes of blocks came, perhaps the first ones of a block.
    pub(super) fn received(&mut self, now: Instant, bytes: u64, is_start: bool) {
        self.bytes += bytes;
        self.stall.received(now, bytes);
        if let Some(flight) = self.flights.front().filter(|_| is_start) {
            self.pace.starts(now, flight.asked);
        }
        self.pace.received(now, bytes);
    }

    /// The request for a block, and its place among the others.
    pub(super) fn flight(&self, hash: BlockHash) -> Option<(usize, Flight)> {
        let at = self.flights.iter().position(|flight| flight.hash == hash)?;
        Some((at, *self.flights.get(at)?))
    }

    /// A block came, or will not. Nodes answer in the order of the requests: what was taken back and asked for before it will
    /// not come any more.
    pub(super) fn land(&mut self, now: Instant, hash: BlockHash) -> Option<Flight> {
        let (at, mut flight) = self.flight(hash)?;
        self.flights.remove(at);
        // Asked for again after the first request was taken back: this is the answer that was waited for, and the other one is
        // not needed any more.
        if flight.is_lapsed
            && let Some(again) = self.flights.iter_mut().find(|other| other.hash == hash && !other.is_lapsed)
        {
            (flight.is_lapsed, again.is_lapsed) = (false, true);
        }
        if self.lapsed > 0 {
            let mut index = 0;
            self.flights.retain(|flight| {
                index += 1;
                index > at || !flight.is_lapsed
            });
            self.lapsed = self.flights.iter().filter(|flight| flight.is_lapsed).count();
        }
        if self.flights.is_empty() {
            self.pace.idle(now);
        }
        Some(flight)
    }

    /// Takes back the requests that `is_void` says; returns them.
    pub(super) fn lapse(&mut self, mut is_void: impl FnMut(&Flight) -> bool) -> Vec<Flight> {
        let mut taken = Vec::new();
        for flight in self.flights.iter_mut().filter(|flight| !flight.is_lapsed) {
            if is_void(flight) {
                flight.is_lapsed = true;
                taken.push(*flight);
            }
        }
        self.lapsed += taken.len();
        taken
    }

    /// Bytes that the peer still has to send before it turns to what it is asked next, likewise.
    pub(super) fn queued_bytes(&self, average: u64) -> u64 {
        self.load()
            .checked_sub(1)
            .map_or_else(|| self.arriving_bytes(), |last| self.bytes_before(last, average))
    }

    /// What is left of the block that is arriving, in bytes.
    fn arriving_bytes(&self) -> u64 {
        self.arriving.as_ref().map_or(0, |arriving| arriving.size.saturating_sub(arriving.seen))
    }

    /// Bytes that the peer still has to send up to the end of this request, by the average size of a block.
    pub(super) fn bytes_before(&self, at: usize, average: u64) -> u64 {
        let started = usize::from(self.arriving.is_some());
        self.arriving_bytes()
            .saturating_add(((at + 1).saturating_sub(started) as u64).saturating_mul(average))
    }

    /// When the peer is to be looked after: when it will have stalled, or its rest is over.
    pub(super) fn due(&self, checked: Option<Instant>) -> Option<Instant> {
        let due = [self.stalls_at(), Some(self.stall.rests_until)];
        due.into_iter().flatten().filter(|&at| Some(at) > checked).min()
    }

    /// When the peer will have stalled, if nothing comes.
    pub(super) fn stalls_at(&self) -> Option<Instant> {
        (!self.is_held && self.open() > 0).then(|| self.stall.at())
    }
}
