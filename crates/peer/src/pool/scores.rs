//! What hosts have done wrong: points that fade.
//!
//! They stick to the host and outlive the connection, so that hanging up does not wipe them away.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// So many points are too many.
pub(super) const MAX_POINTS: f64 = 100.0;
/// After this long half of the points is left.
const HALF_LIFE: Duration = Duration::from_secs(3600);
/// How many hosts are remembered; the one with the fewest points is forgotten first.
const MAX_HOSTS: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Scores(BTreeMap<String, Score>);

#[derive(Debug, Clone, Copy)]
struct Score {
    points: f64,
    updated: Instant,
}

impl Score {
    fn at(self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.points * (-passed / HALF_LIFE.as_secs_f64()).exp2()
    }
}

impl Scores {
    /// The points of a host now.
    pub(super) fn get(&self, host: &str, now: Instant) -> f64 {
        self.0.get(host).map_or(0.0, |score| score.at(now))
    }

    /// Adds points and returns their sum.
    pub(super) fn add(&mut self, host: &str, points: u32, now: Instant) -> f64 {
        let points = self.get(host, now) + f64::from(points);
        if self.0.len() >= MAX_HOSTS && !self.0.contains_key(host) {
            let least = self.0.iter().min_by(|a, b| a.1.at(now).total_cmp(&b.1.at(now)));
            if let Some(least) = least.map(|(host, _)| host.clone()) {
                self.0.remove(&least);
            }
        }
        self.0.insert(host.to_owned(), Score { points, updated: now });
        points
    }

    pub(super) fn forget(&mut self, host: &str) {
        self.0.remove(host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_fade_by_half_each_hour() {
        let now = Instant::now();
        let mut scores = Scores::default();
        assert!((scores.add("a", 80, now) - 80.0).abs() < 1e-9);
        assert!((scores.get("a", now + HALF_LIFE) - 40.0).abs() < 1e-9);
        assert!((scores.add("a", 10, now + 2 * HALF_LIFE) - 30.0).abs() < 1e-9);
        assert!(scores.get("b", now).abs() < 1e-9);
        scores.forget("a");
        assert!(scores.get("a", now).abs() < 1e-9);
    }

    #[test]
    fn no_more_hosts_than_bounded_are_remembered() {
        let now = Instant::now();
        let mut scores = Scores::default();
        scores.add("worst", 99, now);
        (0..2 * MAX_HOSTS).for_each(|n| {
            scores.add(&n.to_string(), 1, now);
        });
        assert_eq!(scores.0.len(), MAX_HOSTS);
        assert!(scores.get("worst", now) > 98.0, "the worst is the last to be forgotten");
    }
}
