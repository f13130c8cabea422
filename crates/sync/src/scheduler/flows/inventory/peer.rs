//! What the flow knows of a peer.

use std::time::{Duration, Instant};

use tipward_peer::{PeerInfo, wire::BlockHash};

/// How many blocks a peer is asked for at first. One more with every block that comes.
const FIRST_QUOTA: usize = 16;
/// The longest that a peer may bring nothing.
const MAX_PATIENCE: Duration = Duration::from_secs(64);

/// A peer as the flow sees it.
#[derive(Debug)]
pub(super) struct InventoryPeer {
    /// The height that it claims: a hint, lowered when it can't show it.
    pub(super) claimed: u64,
    /// It serves only so many blocks behind its tip.
    recent_only: Option<u64>,
    /// The last block of the tree that it has shown.
    pub(super) shown: Option<BlockHash>,
    /// The question for a list that it has not answered.
    pub(super) question: Option<Question>,
    /// The last question, answered or not.
    pub(super) last_question: Option<Question>,
    /// No block that it has is higher, by its last answer, if that was a whole list.
    pub(super) reach: Option<u64>,
    /// The first block of a list that may not have been an answer.
    pub(super) doubted: Option<BlockHash>,
    /// What to ask it next.
    pub(super) next: Next,
    pub(super) answer: Answer,
    /// When it is asked again although nothing tells that it has more.
    pub(super) poll_at: Option<Instant>,
    /// How many blocks to ask for at a time.
    pub(super) quota: usize,
    /// When something came last, or it was asked for blocks with nothing else to send, or let go.
    pub(super) alive: Instant,
    /// Nothing is read from it: it can't be late.
    pub(super) is_held: bool,
    /// How long it may do nothing; doubles with every stall.
    pub(super) patience: Duration,
    /// Not to be asked for anything before.
    pub(super) rests_until: Instant,
    /// Not to be the sync peer before.
    pub(super) leads_from: Instant,
    /// Not to be asked for what it has not announced before.
    pub(super) guesses_from: Instant,
    /// It brings what it is asked for, announced or not.
    pub(super) is_proven: bool,
    /// How long it takes for a block, in seconds, on average.
    pub(super) pace: Option<f64>,
    /// Stalls and claims not shown since the last block.
    pub(super) strikes: u32,
}

/// A question for a list of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    /// The highest block of the locator.
    pub(super) after: BlockHash,
    /// Its height: no block of the answer is higher than its place in it tells.
    pub(super) height: u64,
    pub(super) stop: BlockHash,
    /// Our tip at that time.
    pub(super) tip: BlockHash,
    pub(super) asked: Instant,
}

/// Which list to ask a peer for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// None, until it is time to look.
    Nothing,
    /// What comes after our tip.
    FromTip,
    /// What leads to an orphan.
    To(BlockHash),
    /// The last list was cut here: what follows, once this block is in the tree.
    After { block: BlockHash, stop: BlockHash },
}

/// What came of the last question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The peer was not asked yet, or its time to answer is not over.
    Pending,
    /// Blocks that are not in the tree, when our tip was this one.
    News(BlockHash),
    /// Nothing that is not in the tree.
    NoNews,
}

impl InventoryPeer {
    pub(super) fn new(info: &PeerInfo, patience: Duration, now: Instant) -> Self {
        Self {
            claimed: info.claimed_height,
            recent_only: info.recent_only,
            shown: None,
            question: None,
            last_question: None,
            reach: None,
            doubted: None,
            next: Next::Nothing,
            answer: Answer::Pending,
            poll_at: None,
            quota: FIRST_QUOTA,
            alive: now,
            is_held: false,
            patience,
            rests_until: now,
            leads_from: now,
            guesses_from: now,
            is_proven: false,
            pace: None,
            strikes: 0,
        }
    }

    pub(super) fn can_be_asked(&self, now: Instant) -> bool {
        !self.is_held && self.rests_until <= now
    }

    /// Whether it does not serve all blocks.
    pub(super) fn is_pruned(&self) -> bool {
        self.recent_only.is_some()
    }

    /// Whether it has the blocks above this height, as far as it says.
    pub(super) fn serves_above(&self, height: u64) -> bool {
        self.recent_only.is_none_or(|recent| self.claimed.saturating_sub(recent) <= height)
    }

    /// Since when nothing has come while an answer is due: it waits behind all blocks that flow, wanted or not.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.question.filter(|_| !self.is_held).map(|question| question.asked.max(self.alive))
    }

    /// A block came from the peer.
    pub(super) fn brought(&mut self, patience: Duration, max_in_flight: usize, took: Option<Duration>) {
        if let Some(took) = took.map(|took| took.as_secs_f64()) {
            self.is_proven = true;
            self.pace = Some(self.pace.map_or(took, |pace| (pace * 7.0 + took) / 8.0));
        }
        self.strikes = 0;
        self.patience = patience;
        self.quota = (self.quota + 1).min(max_in_flight);
    }

    /// It does not have what it was asked for without having announced it.
    pub(super) fn guessed_wrong(&mut self, now: Instant) {
        (self.is_proven, self.guesses_from) = (false, now + MAX_PATIENCE);
    }

    /// The peer did not do what it was asked: it rests, and has more time when it is asked again.
    pub(super) fn strike(&mut self, now: Instant) {
        self.strikes += 1;
        self.quota = (self.quota / 2).max(1);
        self.rest(now);
    }

    pub(super) fn rest(&mut self, now: Instant) {
        self.rests_until = now + self.patience;
        self.patience = (self.patience * 2).min(MAX_PATIENCE);
    }
}
