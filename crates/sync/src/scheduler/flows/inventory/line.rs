//! What one peer is asked for, and what it will be asked for next.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tipward_peer::wire::BlockHash;

use super::requests::Rank;

/// After so long a request is passed on to another peer, counted from when the peer had nothing else to send before.
pub(super) const REQUEST_EXPIRY: Duration = Duration::from_secs(30);
/// For how many blocks a peer that did not announce them is asked at a time, before it has brought any.
pub(super) const MAX_HUNCHES: usize = 16;

/// The requests that one peer is to serve.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Blocks that wait and that the peer has announced.
    pub(super) announced: BTreeMap<Rank, BlockHash>,
    /// By the order of asking.
    pub(super) asked: BTreeMap<u64, Asked>,
    /// How many of those are hunches.
    pub(super) open_hunches: usize,
    pub(super) next: u64,
    /// The last in this order that came, and when.
    pub(super) landed: Option<(u64, Instant)>,
    /// Nothing is read from the peer: nothing expires.
    pub(super) is_held: bool,
    /// How many blocks are wanted because of this peer.
    pub(super) introduced: usize,
}

#[derive(Debug)]
pub(super) struct Asked {
    pub(super) hash: BlockHash,
    pub(super) at: Instant,
    pub(super) is_hunch: bool,
}

impl Line {
    /// The first that was asked for is the first to expire. Peers answer in order: the time of a request starts anew with every
    /// block that comes before it.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        let (&seq, first) = self.asked.first_key_value().filter(|_| !self.is_held)?;
        let since = self.landed.filter(|(last, _)| *last < seq).map_or(first.at, |(_, at)| at.max(first.at));
        Some(since + REQUEST_EXPIRY)
    }
}
