//! What time it is, by the clocks of others. The model is `timedata.cpp` of bitcoind before version 27.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// The most peers whose samples are kept; further ones are not heard until one is removed.
const MAX_PEERS: usize = 200;
/// The last samples kept of one peer.
const MAX_SAMPLES: usize = 7;
/// Fewer samples than this, of all peers together, tell nothing.
const MIN_SAMPLES: usize = 5;
/// More disagreement than this is worth a warning, in ms; 70 min.
const WARN_ABOVE: u64 = 70 * 60 * 1000;

/// By how much another's clock is ahead of ours, in ms; negative if it is behind.
///
/// `remote_ms` is what it said, `local_ms` our clock when that arrived, both since the Unix epoch; the message was under
/// way for half of `round_trip`.
#[must_use]
pub fn clock_offset(remote_ms: u64, local_ms: u64, round_trip: Duration) -> i64 {
    let delay = (round_trip / 2).as_millis().min(u128::from(u64::MAX));
    // Three summands of 64 bits fit.
    let offset = i128::from(remote_ms) + delay.cast_signed() - i128::from(local_ms);
    i64::try_from(offset).unwrap_or(if offset > 0 { i64::MAX } else { i64::MIN })
}

/// How far our clock is from those of others: the median over peers of each one's median, so that neither one sample nor
/// one talkative peer moves it.
#[derive(Debug, Clone)]
pub struct NetworkTime<Id> {
    peers: BTreeMap<Id, VecDeque<i64>>,
}

impl<Id> Default for NetworkTime<Id> {
    fn default() -> Self {
        Self { peers: BTreeMap::new() }
    }
}

impl<Id: Ord + Clone> NetworkTime<Id> {
    /// No samples yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A peer told its time; see [`clock_offset`]. The last 7 samples of each of 200 peers are kept.
    pub fn sample(&mut self, id: &Id, remote_ms: u64, local_ms: u64, round_trip: Duration) {
        if !self.peers.contains_key(id) && self.peers.len() >= MAX_PEERS {
            return;
        }
        let before = self.disagreement();
        let samples = self.peers.entry(id.clone()).or_default();
        if samples.len() >= MAX_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(clock_offset(remote_ms, local_ms, round_trip));
        if let (None, Some(offset)) = (before, self.disagreement()) {
            tracing::warn!(offset_ms = offset, "our clock and those of the others disagree");
        }
    }

    /// Forgets a peer.
    pub fn remove(&mut self, id: &Id) {
        self.peers.remove(id);
    }

    /// By how much the others' clocks are ahead of ours, in ms; `None` before there are 5 samples.
    #[must_use]
    pub fn offset(&self) -> Option<i64> {
        if self.peers.values().map(VecDeque::len).sum::<usize>() < MIN_SAMPLES {
            return None;
        }
        median(self.peers.values().filter_map(|samples| median(samples.iter().copied())))
    }

    /// The offset in ms if it is above 70 min in either direction: somebody ought to look at our clock.
    #[must_use]
    pub fn disagreement(&self) -> Option<i64> {
        self.offset().filter(|offset| offset.unsigned_abs() > WARN_ABOVE)
    }
}

/// The middle value; of two, their mean.
fn median(values: impl Iterator<Item = i64>) -> Option<i64> {
    let mut values: Vec<i64> = values.collect();
    values.sort_unstable();
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *values.get(values.len() / 2 - 1)?;
    i64::try_from((i128::from(lower) + i128::from(upper)) / 2).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: u64 = 1_700_000_000_000;
    const ROUND_TRIP: Duration = Duration::from_millis(60);

    /// What arrives now from a clock that is `ahead`, after half a round trip.
    fn said(ahead: i64) -> u64 {
        LOCAL.checked_add_signed(ahead - 30).unwrap()
    }

    fn time(offsets: &[i64]) -> NetworkTime<usize> {
        let mut time = NetworkTime::new();
        offsets.iter().enumerate().for_each(|(id, &ms)| time.sample(&id, said(ms), LOCAL, ROUND_TRIP));
        time
    }

    #[test]
    fn a_clock_1000_ms_ahead_with_a_delay_of_30_ms_is_plus_1000() {
        assert_eq!(clock_offset(said(1000), LOCAL, ROUND_TRIP), 1000);
        assert_eq!(clock_offset(said(-1000), LOCAL, ROUND_TRIP), -1000);
        let mut time = NetworkTime::new();
        (0..5).for_each(|_| time.sample(&"one", said(1000), LOCAL, ROUND_TRIP));
        assert_eq!(time.offset(), Some(1000));
    }

    #[test]
    fn extremes_neither_wrap_nor_panic() {
        assert_eq!(clock_offset(u64::MAX, 0, Duration::MAX), i64::MAX);
        assert_eq!(clock_offset(0, u64::MAX, Duration::ZERO), i64::MIN);
        assert_eq!(median([i64::MAX, i64::MAX].into_iter()), Some(i64::MAX));
        assert_eq!(median([i64::MIN, i64::MIN].into_iter()), Some(i64::MIN));
        let mut time = NetworkTime::new();
        (0..5).for_each(|id| time.sample(&id, 0, u64::MAX, Duration::ZERO));
        assert!(time.disagreement().is_some());
    }

    #[test]
    fn few_samples_tell_nothing() {
        assert_eq!(time(&[]).offset(), None);
        assert_eq!(time(&[900; 4]).offset(), None);
        assert_eq!(time(&[900; 5]).offset(), Some(900));
    }

    #[test]
    fn one_sample_does_not_step_the_clock() {
        let mut time = time(&[10, 20, 30, 40, 50]);
        assert_eq!(time.offset(), Some(30));
        time.sample(&9, said(86_400_000), LOCAL, ROUND_TRIP);
        assert_eq!(time.offset(), Some(35), "to the next neighbour at most");
    }

    #[test]
    fn one_talkative_peer_has_one_vote() {
        let mut time = time(&[10, 20, 30, 40, 50]);
        (0..1000).for_each(|_| time.sample(&4, said(86_400_000), LOCAL, ROUND_TRIP));
        assert_eq!(time.offset(), Some(30));
        assert_eq!(time.peers[&4].len(), MAX_SAMPLES);
    }

    #[test]
    fn peers_are_bounded_and_may_be_forgotten() {
        let mut time = time(&[10; MAX_PEERS]);
        time.sample(&1000, said(10), LOCAL, ROUND_TRIP);
        assert!(time.peers.len() == MAX_PEERS && !time.peers.contains_key(&1000));
        time.remove(&0);
        time.sample(&1000, said(10), LOCAL, ROUND_TRIP);
        assert!(time.peers.contains_key(&1000));
    }

    #[test]
    fn warns_above_70_minutes() {
        const LIMIT: i64 = 70 * 60 * 1000;
        assert_eq!(time(&[LIMIT; 5]).disagreement(), None);
        assert_eq!(time(&[LIMIT + 1; 5]).disagreement(), Some(LIMIT + 1));
        assert_eq!(time(&[-LIMIT - 1; 5]).disagreement(), Some(-LIMIT - 1));
    }
}
