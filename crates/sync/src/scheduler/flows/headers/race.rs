//! Who brings headers while many are missing.

use std::time::{Duration, Instant};

use tipward_peer::PeerId;

/// So many peers are asked the same at most.
const MAX_RACERS: usize = 4;
/// The longest that an answer may take before another peer is asked the same.
const MAX_PATIENCE: Duration = Duration::from_secs(64);
/// Every so many full answers even a quick leader is compared with another peer, which costs as many answers twice.
const COMPARE_EVERY: u32 = 32;

/// Peers that are asked for the headers above what is known; one, unless it is slow.
#[derive(Debug)]
pub(super) struct Race {
    /// What is quick; see [`SyncOptions::stall_timeout`](crate::SyncOptions::stall_timeout).
    quick: Duration,
    /// How long nothing new may come before another peer is asked; doubles while it does not help.
    patience: Duration,
    racers: Vec<PeerId>,
    /// When another is asked.
    another_at: Option<Instant>,
    /// When a peer was asked last.
    entered_at: Option<Instant>,
    /// Who brought new headers last, and is asked for more.
    leader: Option<PeerId>,
    /// Full answers of the leader since it was compared with another peer.
    answers: u32,
    /// After how many slow answers it is compared again.
    compare_after: u32,
}

impl Race {
    /// A race without racers.
    pub(super) fn new(quick: Duration) -> Self {
        Self {
            quick,
            patience: quick,
            racers: Vec::new(),
            another_at: None,
            entered_at: None,
            leader: None,
            answers: 0,
            compare_after: 1,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.racers.is_empty()
    }

    pub(super) fn contains(&self, id: PeerId) -> bool {
        self.racers.contains(&id)
    }

    /// Whether the end of this peer's headers is the end of the race: nobody else has shown to be better.
    pub(super) fn ends_with(&self, id: PeerId) -> bool {
        self.contains(id) && self.leader.is_none_or(|leader| leader == id)
    }

    pub(super) fn enter(&mut self, id: PeerId, now: Instant) {
        if self.racers.is_empty() {
            self.another_at = Some(now + self.patience);
        }
        self.racers.push(id);
        self.entered_at = Some(now);
    }

    /// A peer that brings nothing new. Another takes its place at once.
    pub(super) fn leave(&mut self, id: PeerId) {
        if self.contains(id) {
            self.another_at = self.entered_at;
        }
        self.racers.retain(|&racer| racer != id);
        self.leader = self.leader.filter(|&leader| leader != id);
    }

    /// When another peer is to be asked the same, if it can be.
    pub(super) fn another_at(&self) -> Option<Instant> {
        self.another_at.filter(|_| (1..MAX_RACERS).contains(&self.racers.len()))
    }

    /// Nothing new came for too long.
    pub(super) fn stalled(&mut self, now: Instant) {
        self.patience = (self.patience * 2).min(MAX_PATIENCE.max(self.quick));
        self.another_at = Some(now + self.patience);
    }

    /// A peer has brought new headers, `took` after it was asked, and has more: it is asked for them, and whoever else was
    /// asked is not waited for. Says whether another peer should be asked as well, to see whether that is quicker.
    pub(super) fn won(&mut self, id: PeerId, now: Instant, took: Duration) -> bool {
        if self.leader != Some(id) {
            (self.leader, self.answers, self.compare_after) = (Some(id), 0, 1);
        } else if self.racers.len() > 1 {
            (self.answers, self.compare_after) = (0, (self.compare_after * 2).min(COMPARE_EVERY));
        }
        self.racers = vec![id];
        self.answers += 1;
        let is_quick = took <= self.quick;
        if is_quick {
            self.patience = self.quick;
        }
        self.another_at = Some(now + self.patience);
        self.answers >= if is_quick { COMPARE_EVERY } else { self.compare_after }
    }
}
