//! What a peer is like.

use std::time::Duration;

/// A node and the line to it.
#[derive(Debug, Clone)]
pub(crate) struct Nature {
    pub(crate) behaviour: Behaviour,
    /// One way.
    pub(crate) latency: Duration,
    /// More of it, at most.
    pub(crate) jitter: Duration,
    /// Bytes a second.
    pub(crate) bandwidth: u64,
    /// In how large parts blocks come from it.
    pub(crate) part_size: u64,
    /// Which of the network's views it has at first; a branch of its own if there is none of that number.
    pub(crate) first_view: Start,
    /// It hears of no later view of the network: its tip gets stale.
    pub(crate) last_view: usize,
    /// How long after the network it hears of a new view.
    pub(crate) learns_after: Duration,
    /// How far its claim is from the truth.
    pub(crate) claim: i64,
    /// It serves only so many blocks behind its tip, and says so.
    pub(crate) recent_only: Option<u64>,
    pub(crate) announces: Announces,
    /// How long it thinks about headers.
    pub(crate) header_delay: Duration,
    pub(crate) joins_at: Duration,
    /// How long its connections last, and for how long it is away then.
    pub(crate) life: Option<(Duration, Duration)>,
    /// From when to when nothing comes from it.
    pub(crate) stalls: Vec<(Duration, Duration)>,
}

/// What a node has at first.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    /// What the network has.
    Network(usize),
    /// This branch, up to this height.
    Branch(crate::chain::View),
}

/// How a node tells of new blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announces {
    Headers,
    Inventory,
    Nothing,
}

/// How a node behaves; most after some blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Behaviour {
    Honest,
    /// Says nothing more.
    Silent {
        after: u64,
    },
    /// Sends a byte a second.
    Trickling {
        after: u64,
    },
    /// Resets the connection in the middle of a block, and comes back.
    Resetting {
        after: u64,
    },
    /// A block does not pass its checks.
    Aborting {
        after: u64,
    },
    /// Sends a block that was not asked for, or another one: the session ends that.
    WrongBlock {
        after: u64,
    },
    /// Claims blocks that nobody has.
    LyingHigh,
    /// Its branch breaks a rule.
    InvalidHeaders,
    /// Says of one in so many blocks that it does not have them.
    Missing {
        one_in: u64,
    },
    /// Never answers for headers.
    NoHeaders,
    /// Answers for headers after the time for it.
    LateHeaders,
}

impl Nature {
    /// A node that does everything as it should, at this speed.
    pub(crate) fn healthy(bandwidth: u64, latency: Duration) -> Self {
        Self {
            behaviour: Behaviour::Honest,
            latency,
            jitter: Duration::ZERO,
            bandwidth,
            part_size: 1 << 20,
            first_view: Start::Network(0),
            last_view: usize::MAX,
            learns_after: Duration::ZERO,
            claim: 0,
            recent_only: None,
            announces: Announces::Headers,
            header_delay: Duration::ZERO,
            joins_at: Duration::ZERO,
            life: None,
            stalls: Vec::new(),
        }
    }

    /// Whether it means well: it must never be dropped, nor anything be counted against it. Slow, stale, pruned, far away
    /// and often away is all no offence, and neither is a tip that it did not have when it greeted.
    pub(crate) fn is_honest(&self) -> bool {
        self.behaviour == Behaviour::Honest
    }
}
