//! How fast a peer is, and how much to ask of it for that.

use std::time::{Duration, Instant};

/// A measurement is taken when so much time was spent on it.
const SAMPLE: Duration = Duration::from_millis(250);
/// How much the latest measurement counts in the average.
const WEIGHT: f64 = 0.4;
/// For how long a peer is kept busy ahead, beside its latency: what it takes to notice that it has become slow.
const HORIZON: Duration = Duration::from_secs(2);
/// How many blocks a peer that is not known yet is asked for: a slow one would keep all that it is asked for.
const START: usize = 2;
/// The least that a peer is asked for, so that it does not wait for us between two blocks.
const LEAST: usize = 1;

/// A peer's measured speed.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// Bytes a second, once measured.
    rate: Option<f64>,
    /// From a question to a peer that has nothing to do until its first byte; the shortest of late.
    latency: Duration,
    /// Since when blocks are to come and we read: nothing is measured while that is not so.
    busy_since: Option<Instant>,
    /// Waiting for the first byte since.
    waiting_since: Option<Instant>,
    sample_time: Duration,
    sample_bytes: u64,
    /// How many blocks to have in flight.
    limit: usize,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            rate: None,
            latency: Duration::ZERO,
            busy_since: None,
            waiting_since: None,
            sample_time: Duration::ZERO,
            sample_bytes: 0,
            limit: START,
        }
    }

    /// Bytes a second; 0 if nothing was measured.
    pub(super) fn rate(&self) -> f64 {
        self.rate.unwrap_or(0.0)
    }

    /// How many blocks to have in flight.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A peer that had nothing to do is asked.
    pub(super) fn asked(&mut self, now: Instant) {
        self.busy_since.get_or_insert(now);
        self.waiting_since.get_or_insert(now);
    }

    /// The first bytes of a block come that was asked for then. They can't have come before the question had got there: what was
    /// waited for that is no part of the speed.
    pub(super) fn starts(&mut self, now: Instant, asked: Instant) {
        self.busy_since = self.busy_since.map(|since| since.max(asked + self.latency).min(now));
    }

    /// Bytes have come.
    pub(super) fn received(&mut self, now: Instant, bytes: u64) {
        if let Some(since) = self.waiting_since.take() {
            let latency = now.saturating_duration_since(since);
            // Waiting is no part of the speed.
            self.busy_since = self.busy_since.map(|_| now);
            // A question in the midst of others tells too much, the shortest of all for ever too little.
            self.latency = if self.latency.is_zero() { latency } else { self.latency.min(latency) };
        }
        self.sample_bytes += bytes;
        let Some(since) = self.busy_since else { return };
        self.sample_time += now.saturating_duration_since(since);
        self.busy_since = Some(now);
        if self.sample_time >= SAMPLE {
            self.measure();
        }
    }

    /// Nothing is to come any more, or we do not read.
    pub(super) fn idle(&mut self, now: Instant) {
        if let Some(since) = self.busy_since.take() {
            self.sample_time += now.saturating_duration_since(since);
        }
        self.waiting_since = None;
    }

    /// A block is complete: the peer may be worth more at a time.
    /// `share` is what it may have under way, in bytes for each of its bytes a second.
    pub(super) fn completed(&mut self, average_size: u64, most: usize, share: f64) {
        let target = match self.rate {
            None => most,
            Some(rate) => {
                let average = average_size.max(1) as f64;
                let ahead = rate * (HORIZON + 2 * self.latency).as_secs_f64().min(share);
                // One that comes, and what would come while the next question is on its way.
                let least = 1.0 + (rate * self.latency.as_secs_f64() / average).ceil();
                // Saturates on purpose.
                (ahead / average).max(least) as usize
            }
        };
        let target = target.clamp(LEAST.min(most), most);
        // Up by three for each block is four times as many in a round trip.
        self.limit = if self.limit < target { (self.limit + 3).min(target) } else { target };
    }

    /// The peer has stalled: it has to show anew what it is worth.
    pub(super) fn stalled(&mut self) {
        self.limit = LEAST;
    }

    /// How long so many bytes will take, by what is known at `now`; `None` if that is nothing.
    pub(super) fn expected(&self, now: Instant, bytes: u64) -> Option<Duration> {
        let mut rate = self.rate;
        // An open measurement that is longer than others tells of a peer that has become slow.
        if let Some(since) = self.busy_since {
            let time = self.sample_time + now.saturating_duration_since(since);
            if time > 2 * SAMPLE + self.latency {
                let current = self.sample_bytes as f64 / time.as_secs_f64();
                rate = Some(rate.map_or(current, |rate| rate.min(current)));
            }
        }
        Some(duration(bytes, rate?))
    }

    /// From a question to its first byte, the shortest of late.
    pub(super) fn latency(&self) -> Duration {
        self.latency
    }

    /// How long so many bytes usually take; `None` if that is not known.
    pub(super) fn usual(&self, bytes: u64) -> Option<Duration> {
        Some(duration(bytes, self.rate?))
    }

    fn measure(&mut self) {
        let measured = self.sample_bytes as f64 / self.sample_time.as_secs_f64();
        (self.sample_time, self.sample_bytes) = (Duration::ZERO, 0);
        self.rate = Some(self.rate.map_or(measured, |rate| rate + WEIGHT * (measured - rate)));
    }
}

fn duration(bytes: u64, rate: f64) -> Duration {
    // Slower than a byte a minute is as good as never.
    let seconds = bytes as f64 / rate.max(1.0 / 60.0);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).min(NEVER)
}

/// Longer than any sync, and short enough to be added up.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
