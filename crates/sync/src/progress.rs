//! Where a sync is: what is counted, how fast it goes, and how long it will take.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tipward_peer::{PeerAddress, PeerId};

use crate::{BlockId, SyncOptions, delivery::Delivered};

/// Rates are averages over so long.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// How far apart the samples are from which rates are taken.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Over how many blocks the average of their sizes runs.
const AVERAGED_BLOCKS: f64 = 1000.0;

/// Where a sync is; counts are of this run. Told ten times a second at most while it runs, and at once when peers come or go,
/// when the tip of the headers changes, on a reorg, when everything is applied, and at the end.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The tip of the best header chain.
    pub header_tip: Option<BlockId>,
    /// The last block that the sink has applied, or was rolled back to.
    pub applied: Option<BlockId>,
    /// The sink's cursor at the start; with headers only, the tip at the start.
    pub resumed_from: Option<BlockId>,
    /// Headers received that were new. Those of a chain that has to show its work before they are kept come twice.
    pub headers: u64,
    /// Blocks received and applied.
    pub blocks: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Filters received that had the hash which was agreed on; none without filters, like the next three.
    pub filters: u64,
    /// Blocks over whose filter peers differed.
    pub disputed_filters: u64,
    /// Blocks that the sink was given because nothing told whose filter is right.
    pub undecided_filters: u64,
    /// Connections there are now that serve filters.
    pub filter_peers: usize,
    /// Reorgs followed.
    pub reorgs: u64,
    /// The highest height that a peer has claimed: a hint of what is to come.
    pub claimed_height: u64,
    /// Connections there are now.
    pub peers: usize,
    /// Connections there were, in all.
    pub peers_seen: u64,
    /// Everything that the connected peers have is applied.
    pub synced: bool,
    /// Bytes of blocks received a second, over the last ten seconds; parts of blocks count when they come.
    pub bytes_per_second: u64,
    /// Blocks applied a second, over the last ten seconds.
    pub blocks_per_second: f64,
    /// How long it will take to the tip, or to where it is to stop: blocks that are left, times their average size of late, or
    /// that of their filters where there are some, over the rate of bytes. Zero if none are left; `None` while that is not known,
    /// while paused, and with headers only.
    pub eta: Option<Duration>,
    /// Bytes of blocks that are held: arriving, waiting for their turn, or given to the sink and not applied.
    pub buffered_bytes: u64,
    /// No block is asked for until [`Control::resume`](crate::Control::resume).
    pub paused: bool,
    /// Each connected peer's share of the work, by number.
    pub shares: Vec<PeerProgress>,
}

/// What a peer has contributed, as the scheduler counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerShare {
    /// The connection.
    pub peer: PeerId,
    /// Blocks received from it.
    pub blocks: u64,
    /// Bytes of blocks received from it.
    pub bytes: u64,
    /// How fast blocks come from it while some are asked of it, in bytes a second as measured; 0 before.
    pub rate: u64,
    /// Blocks asked of it that have not come.
    pub in_flight: usize,
}

/// A peer's share of a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerProgress {
    /// Where the peer is.
    pub address: PeerAddress,
    /// Its software, in its own words.
    pub user_agent: String,
    /// What it has contributed.
    pub share: PeerShare,
}

/// Counts, and makes [`Progress`] of it.
#[derive(Debug)]
pub(crate) struct Tally {
    progress: Progress,
    meter: Meter,
    average: AverageSize,
    /// Bytes of blocks received, whole or not, needed or not.
    received: u64,
    headers_only: bool,
    /// Filters come, and blocks do now and then.
    has_filters: bool,
    stay_behind: u64,
    stop_at: Option<u64>,
}

impl Tally {
    pub(crate) fn new(options: &SyncOptions, cursor: Option<BlockId>, tip: BlockId) -> Self {
        let resumed_from = if options.headers_only { Some(tip).filter(|tip| tip.height > 0) } else { cursor };
        Self {
            progress: Progress {
                header_tip: Some(tip),
                applied: cursor,
                resumed_from,
                ..Progress::default()
            },
            meter: Meter::default(),
            average: AverageSize::default(),
            received: 0,
            headers_only: options.headers_only,
            has_filters: false,
            stay_behind: options.stay_behind,
            stop_at: options.stop_at,
        }
    }

    /// What is counted directly.
    pub(crate) fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    /// Bytes of a block have come.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// A filter of so many bytes has come: where there are filters, most of what is left is filters.
    pub(crate) fn filtered(&mut self, bytes: usize) {
        self.has_filters = true;
        self.received(bytes);
        self.average.add(1, bytes as u64);
    }

    /// The sink has done something.
    pub(crate) fn delivered(&mut self, delivered: &Delivered) {
        self.progress.applied = delivered.reached.or(self.progress.applied);
        self.progress.blocks += delivered.blocks;
        self.progress.transactions += delivered.transactions;
        self.progress.bytes += delivered.bytes;
        if !self.has_filters {
            self.average.add(delivered.blocks, delivered.bytes);
        }
    }

    /// The progress as it is `now`.
    pub(crate) fn at(&mut self, now: Instant) -> &Progress {
        let (bytes, blocks) = self.meter.rates(now, self.received, self.progress.blocks);
        // A fraction of a byte is nothing.
        self.progress.bytes_per_second = bytes as u64;
        self.progress.blocks_per_second = blocks;
        self.progress.eta = self.eta(bytes);
        &self.progress
    }

    /// Whether time alone changes nothing any more.
    pub(crate) fn is_still(&self) -> bool {
        self.progress.bytes_per_second == 0
            && self.progress.blocks_per_second == 0.0
            && self.progress.buffered_bytes == 0
    }

    fn eta(&self, rate: f64) -> Option<Duration> {
        if self.headers_only || self.progress.paused {
            return None;
        }
        let tip = self.progress.header_tip?.height;
        let target = tip.saturating_sub(self.stay_behind).min(self.stop_at.unwrap_or(u64::MAX));
        let next = self.progress.applied.map_or(0, |applied| applied.height + 1);
        let left = (target + 1).saturating_sub(next);
        if left == 0 {
            return Some(Duration::ZERO);
        }
        let seconds = left as f64 * self.average.bytes()? / rate;
        // Fails where the rate is zero, or next to it.
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// The running average of block sizes.
#[derive(Debug, Default)]
struct AverageSize {
    bytes: f64,
    /// How many blocks it is of.
    blocks: f64,
}

impl AverageSize {
    fn add(&mut self, blocks: u64, bytes: u64) {
        if blocks == 0 {
            return;
        }
        let count = blocks as f64;
        self.blocks = (self.blocks + count).min(AVERAGED_BLOCKS.max(count));
        self.bytes += (bytes as f64 / count - self.bytes) * (count / self.blocks);
    }

    fn bytes(&self) -> Option<f64> {
        (self.blocks > 0.0).then_some(self.bytes)
    }
}

/// Rates over the last [`RATE_WINDOW`]. Samples before the first byte do not count.
#[derive(Debug, Default)]
struct Meter {
    /// The oldest is as old as the window, or the first there was.
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    bytes: u64,
    blocks: u64,
}

impl Meter {
    /// Bytes and blocks a second, when there are so many in all.
    fn rates(&mut self, now: Instant, bytes: u64, blocks: u64) -> (f64, f64) {
        if bytes == 0 {
            self.samples.clear();
        }
        if self.samples.back().is_none_or(|last| now >= last.at + SAMPLE_INTERVAL) {
            self.samples.push_back(Sample { at: now, bytes, blocks });
        }
        while self.samples.get(1).is_some_and(|second| second.at + RATE_WINDOW <= now) {
            self.samples.pop_front();
        }
        let Some(first) = self.samples.front() else { return (0.0, 0.0) };
        let seconds = now.saturating_duration_since(first.at).as_secs_f64();
        if seconds == 0.0 {
            return (0.0, 0.0);
        }
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        (per_second(bytes, first.bytes), per_second(blocks, first.blocks))
    }
}

#[cfg(test)]
mod tests;
