//! How much small talk a peer may make: a bucket that refills with time.
//!
//! Announcements, headers, blocks and transactions are what a connection is for; they are slowed by the reader and cost
//! nothing here. Everything else (pings, addresses, questions to one who serves nothing, unheard-of commands, messages that
//! do not parse) a peer can make as fast as its line is; it costs the reader time and is of no use.

use std::time::Instant;

/// How many units may be spent at once.
const BURST: f64 = 2000.0;
/// How many units come back in a second.
const REFILL: f64 = 10.0;

#[derive(Debug)]
pub(super) struct Allowance {
    left: f64,
    updated: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, updated: now }
    }

    /// Spends; false if there is not enough left.
    pub(super) fn spend(&mut self, cost: u32, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.updated = self.updated.max(now);
        self.left = (self.left + passed * REFILL).min(BURST) - f64::from(cost);
        self.left >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_fine_and_a_flood_is_not() {
        let mut now = Instant::now();
        let mut allowance = Allowance::new(now);
        assert!((0..2000).all(|_| allowance.spend(1, now)));
        assert!(!allowance.spend(1, now));
        now += Duration::from_secs(3600);
        assert!(allowance.spend(2000, now), "no more than a burst comes back");
        assert!(!allowance.spend(1, now));
        let mut steady = Allowance::new(now);
        for _ in 0..100_000 {
            now += Duration::from_millis(100);
            assert!(steady.spend(1, now));
        }
    }
}
