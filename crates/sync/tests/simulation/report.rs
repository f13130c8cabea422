//! What came of a run, and of all of them.

use std::time::Duration;

/// What came of a run.
#[derive(Debug, Default, Clone)]
pub(crate) struct Report {
    /// When everything was applied and told, and when that was told last.
    pub(crate) done_at: Duration,
    pub(crate) synced_at: Duration,
    pub(crate) trace: (u64, u64),
    /// What the scheduler was told, and how many ticks of that wanted nothing.
    pub(crate) inputs: u64,
    pub(crate) ticks: u64,
    pub(crate) idle_ticks: u64,
    /// Blocks asked for, and bytes of blocks that came.
    pub(crate) asked: u64,
    pub(crate) bytes: u64,
    pub(crate) most_alive: u64,
    pub(crate) connected: u64,
    pub(crate) lost: u64,
    pub(crate) lost_next: u64,
    /// Which peer was lost with the next block.
    pub(crate) lost_next_at: Option<usize>,
    pub(crate) dropped: u64,
    pub(crate) penalised: u64,
    pub(crate) held: u64,
    pub(crate) refused: u64,
    pub(crate) restarts: u64,
    pub(crate) rollbacks: u64,
    pub(crate) streamed: u64,
    pub(crate) aborted: u64,
    pub(crate) blocks: u64,
}

impl Report {
    /// Adds another run's counts; of times and peaks the largest stays.
    pub(crate) fn add(&mut self, other: &Self) {
        self.done_at = self.done_at.max(other.done_at);
        self.synced_at = self.synced_at.max(other.synced_at);
        self.most_alive = self.most_alive.max(other.most_alive);
        self.trace.0 += other.trace.0;
        for (sum, count) in self.counts().into_iter().zip(other.clone().counts()) {
            *sum += *count;
        }
    }

    /// A simulation in which nothing happens proves nothing.
    pub(crate) fn is_a_test(&self, idle_ticks: u64) {
        for (count, what) in [
            (self.blocks, "blocks applied"),
            (self.lost, "connections lost"),
            (self.lost_next, "connections lost with the next block"),
            (self.dropped, "peers dropped"),
            (self.restarts, "restarts"),
            (self.rollbacks, "rollbacks"),
            (self.streamed, "blocks streamed"),
            (self.aborted, "streams aborted"),
            (self.held, "peers held"),
        ] {
            assert!(count > 0, "no {what} in all runs: {self:?}");
        }
        assert!(self.idle_ticks * idle_ticks <= self.inputs, "too many ticks want nothing: {self:?}");
    }

    fn counts(&mut self) -> [&mut u64; 17] {
        [
            &mut self.inputs,
            &mut self.ticks,
            &mut self.idle_ticks,
            &mut self.asked,
            &mut self.bytes,
            &mut self.connected,
            &mut self.lost,
            &mut self.lost_next,
            &mut self.dropped,
            &mut self.penalised,
            &mut self.held,
            &mut self.refused,
            &mut self.restarts,
            &mut self.rollbacks,
            &mut self.streamed,
            &mut self.aborted,
            &mut self.blocks,
        ]
    }
}
