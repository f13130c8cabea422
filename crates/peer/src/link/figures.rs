//! What is measured on a connection.

use std::time::{Duration, Instant};

/// How much the latest measurement counts in an average.
const WEIGHT: f64 = 0.25;

/// What was measured on a connection so far.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Figures {
    /// Bytes received, as they came from the socket.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Messages received, parts of blocks not counted.
    pub messages: u64,
    /// Blocks received whole.
    pub blocks: u64,
    /// When anything was received last.
    pub last_received: Instant,
    /// The round trip of the last ping.
    pub ping: Option<Duration>,
    /// The shortest round trip of a ping.
    pub min_ping: Option<Duration>,
    /// How fast blocks come while some are asked for, in bytes a second: a moving average.
    pub speed: Option<f64>,
    /// Since when blocks that were asked for are to come, or the last one came.
    busy_since: Option<Instant>,
    /// Blocks that were asked for and have not come.
    open: usize,
}

impl Figures {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            received: 0,
            sent: 0,
            messages: 0,
            blocks: 0,
            last_received: now,
            ping: None,
            min_ping: None,
            speed: None,
            busy_since: None,
            open: 0,
        }
    }

    /// Blocks were asked for.
    pub(crate) fn asked(&mut self, blocks: usize, now: Instant) {
        self.busy_since.get_or_insert(now);
        self.open = self.open.saturating_add(blocks);
    }

    /// Blocks that were asked for will not come.
    pub(crate) fn missed(&mut self, blocks: usize) {
        self.open = self.open.saturating_sub(blocks);
        if self.open == 0 {
            self.busy_since = None;
        }
    }

    /// A block came.
    pub(crate) fn got(&mut self, size: u64, now: Instant) {
        self.blocks += 1;
        if let Some(since) = self.busy_since {
            let seconds = now.saturating_duration_since(since).as_secs_f64().max(1e-6);
            average(&mut self.speed, size as f64 / seconds);
            self.busy_since = Some(now);
        }
        self.missed(1);
    }

    /// We did not read since then, so the time that passed says nothing about the peer: it counts as if it had not been.
    pub(crate) fn resumed(&mut self, since: Instant, now: Instant) {
        self.last_received = now;
        if let Some(busy_since) = &mut self.busy_since {
            *busy_since += now.saturating_duration_since(since.max(*busy_since));
        }
    }

    pub(crate) fn answered_ping(&mut self, round_trip: Duration) {
        self.ping = Some(round_trip);
        self.min_ping = Some(self.min_ping.map_or(round_trip, |best| best.min(round_trip)));
    }
}

fn average(mean: &mut Option<f64>, sample: f64) {
    *mean = Some(mean.map_or(sample, |mean| mean + WEIGHT * (sample - mean)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_is_that_of_the_time_in_which_blocks_were_due() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut figures = Figures::new(start);
        figures.asked(2, at(10));
        figures.got(1000, at(11));
        assert_eq!(figures.speed, Some(1000.0));
        figures.got(3000, at(12));
        assert_eq!(figures.speed, Some(1500.0));
        // An hour without requests changes nothing, nor does one in which we did not read.
        figures.asked(1, at(3612));
        figures.resumed(at(3000), at(7000));
        figures.got(1500, at(7001));
        assert_eq!(figures.speed, Some(1500.0));
        // Nor does a pause make who was slow before it look fast.
        figures.asked(1, at(7100));
        figures.resumed(at(7101), at(7900));
        figures.got(3000, at(7901));
        assert_eq!(figures.speed, Some(1500.0));
        figures.asked(1, at(8000));
        figures.missed(1);
        figures.got(9, at(9000));
        assert_eq!((figures.speed, figures.blocks), (Some(1500.0), 5));
    }
}
