//! What the scheduler knows of a peer.

use std::{
    collections::BTreeSet,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use tipward_peer::{
    PeerInfo,
    wire::{BlockHash, BlockPart},
};

/// A peer as the scheduler sees it.
#[derive(Debug)]
pub(super) struct PeerState {
    /// The height that the peer claims: a hint until it has shown headers.
    pub(super) claimed: u64,
    /// The peer serves only so many blocks behind its tip.
    pub(super) recent_only: Option<u64>,
    pub(super) headers: HeaderState,
    /// The last header that the peer has shown and that is in the tree.
    pub(super) tip: Option<BlockHash>,
    /// The highest block of the best chain that the peer has, as far as `tip` tells.
    pub(super) reach: Option<u64>,
    /// Blocks asked of the peer that have not come, needed or not: it will send them all the same.
    pub(super) in_flight: BTreeSet<BlockHash>,
    /// How many more were taken back because nothing came. They may still come, until one that was asked for later has.
    pub(super) late: usize,
    /// Parts of the block that is arriving.
    pub(super) parts: Vec<BlockPart>,
    /// When something of a block came last, or the first block was asked for.
    pub(super) progress: Instant,
    /// How long the peer may bring nothing; doubles with every stall.
    pub(super) patience: Duration,
    /// No block is asked of the peer before.
    pub(super) rests_until: Instant,
    /// Stalls since the last block.
    pub(super) stalls: u32,
    /// Unanswered requests for headers since the last answer.
    pub(super) silences: u32,
    /// Announcements in a row that did not link.
    pub(super) unlinked: u32,
}

/// Where the peer is with its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderState {
    /// Not asked yet.
    Fresh,
    /// Asked, to be answered before.
    Asked { deadline: Instant },
    /// Has shown its last; to be asked again at.
    Answered { again: Instant },
    /// Did not answer; not to be asked before.
    Failed { until: Instant },
}

impl PeerState {
    pub(super) fn new(info: &PeerInfo, patience: Duration, now: Instant) -> Self {
        Self {
            claimed: info.claimed_height,
            recent_only: info.recent_only,
            headers: HeaderState::Fresh,
            tip: None,
            reach: None,
            in_flight: BTreeSet::new(),
            late: 0,
            parts: Vec::new(),
            progress: now,
            patience,
            rests_until: now,
            stalls: 0,
            silences: 0,
            unlinked: 0,
        }
    }

    /// The heights of the best chain that the peer can be asked for; none while it has yet to show what it has. Who shows
    /// nothing is taken by its word.
    pub(super) fn serves(&self) -> RangeInclusive<u64> {
        let high = match (self.reach, self.headers) {
            (Some(reach), _) => reach,
            (None, HeaderState::Answered { .. } | HeaderState::Failed { .. }) => self.claimed,
            (None, HeaderState::Fresh | HeaderState::Asked { .. }) => return RangeInclusive::new(1, 0),
        };
        let low = self.recent_only.map_or(0, |recent| high.saturating_sub(recent));
        low..=high
    }

    /// How many blocks the peer still has to send before it can turn to what it is asked next.
    pub(super) fn load(&self) -> usize {
        self.in_flight.len() + self.late
    }

    /// Whether the peer is busy sending blocks; what else it was asked waits behind them.
    pub(super) fn is_sending(&self, now: Instant) -> bool {
        !self.in_flight.is_empty() && self.progress + self.patience > now
    }

    pub(super) fn awaits_headers(&self) -> bool {
        matches!(self.headers, HeaderState::Asked { .. })
    }

    /// Bytes of the block that is arriving.
    pub(super) fn partial(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes.len() as u64).sum()
    }

    /// When the peer is due for a look, if nothing comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let headers = match self.headers {
            HeaderState::Fresh => None,
            HeaderState::Asked { deadline: at }
            | HeaderState::Answered { again: at }
            | HeaderState::Failed { until: at } => Some(at),
        };
        let stall = (!self.in_flight.is_empty()).then(|| self.progress + self.patience);
        headers.into_iter().chain(stall).min()
    }
}
