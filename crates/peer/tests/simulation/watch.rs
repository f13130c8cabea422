//! The promises: each is looked at whenever it could be broken.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tipward_peer::{BroadcastId, PeerAddress, RequestId};

use crate::character::Character;

/// Within this time of any disturbance the pool is at its target size again; after an outage, of the network's return. Nodes
/// come and go all the time, so this is the longest time without a full pool. It takes half of that at worst.
pub(crate) const RECOVERY: Duration = Duration::from_secs(5 * 60);
/// How late an end may come that is due at a time.
const SLACK: Duration = Duration::from_secs(1);

/// What is to be remembered to judge.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Until when each address is banned.
    pub(crate) bans: BTreeMap<PeerAddress, Instant>,
    /// Since when the pool is below its target, if it is and could do something about it.
    low_since: Option<Instant>,
    requests: BTreeMap<RequestId, Instant>,
    broadcasts: BTreeMap<BroadcastId, Instant>,
    pub(crate) figures: Tally,
}

/// What came of a run, added up over all of them.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) dials: u64,
    pub(crate) ready: u64,
    pub(crate) bans: u64,
    pub(crate) dials_after_bans: u64,
    pub(crate) replaced: u64,
    pub(crate) honest_replaced: u64,
    pub(crate) stale_seen: u64,
    pub(crate) answered: u64,
    pub(crate) unanswered: u64,
    pub(crate) spread: u64,
    pub(crate) not_spread: u64,
    pub(crate) longest_low: Duration,
    pub(crate) most_addresses: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.dials += other.dials;
        self.ready += other.ready;
        self.bans += other.bans;
        self.dials_after_bans += other.dials_after_bans;
        self.replaced += other.replaced;
        self.honest_replaced += other.honest_replaced;
        self.stale_seen += other.stale_seen;
        self.answered += other.answered;
        self.unanswered += other.unanswered;
        self.spread += other.spread;
        self.not_spread += other.not_spread;
        self.longest_low = self.longest_low.max(other.longest_low);
        self.most_addresses = self.most_addresses.max(other.most_addresses);
    }

    /// What never happened was not tested.
    pub(crate) fn is_a_test(&self, runs: u64) {
        assert!(self.bans > 2 * runs && self.dials_after_bans > runs, "{self:?}");
        assert!(self.stale_seen > runs && self.replaced > runs, "{self:?}");
        assert!(100 * self.honest_replaced < self.replaced, "{self:?}");
        assert!(self.answered > 100 * runs && self.answered > 4 * self.unanswered, "{self:?}");
        assert!(self.spread > 20 * runs && self.spread > 2 * self.not_spread, "{self:?}");
    }
}

impl Watch {
    /// So many connections are ready of so many that are wanted; `is_away` while the whole network is.
    pub(crate) fn size(&mut self, ready: usize, target: usize, is_away: bool, now: Instant) {
        assert!(ready <= target, "{ready} connections where {target} are wanted");
        if ready == target || is_away {
            self.low_since = None;
            return;
        }
        let low = now.duration_since(*self.low_since.get_or_insert(now));
        self.figures.longest_low = self.figures.longest_low.max(low);
        assert!(low <= RECOVERY, "{ready} of {target} for {low:?}");
    }

    pub(crate) fn dialed(&mut self, address: &PeerAddress, now: Instant) {
        self.figures.dials += 1;
        if let Some(until) = self.bans.get(address) {
            // The pool's clock counts milliseconds.
            let left = until.saturating_duration_since(now);
            assert!(left <= Duration::from_millis(1), "{address} is dialled {left:?} before its ban ends");
            self.figures.dials_after_bans += 1;
        }
    }

    pub(crate) fn banned(
        &mut self,
        address: &PeerAddress,
        character: Option<Character>,
        reason: &str,
        until: Instant,
    ) {
        let is_honest = character.is_some_and(Character::is_honest);
        assert!(!is_honest, "{address} is {character:?} and was banned: {reason}");
        self.figures.bans += 1;
        self.bans.insert(address.clone(), until);
    }

    pub(crate) fn asked(&mut self, id: RequestId, until: Instant) {
        assert!(self.requests.insert(id, until).is_none(), "{id} is new");
    }

    pub(crate) fn answered(&mut self, id: RequestId, is_good: bool, now: Instant) {
        let until = self.requests.remove(&id);
        assert!(until.is_some_and(|until| now <= until + SLACK), "{id} ends once, and in time");
        let count = if is_good { &mut self.figures.answered } else { &mut self.figures.unanswered };
        *count += 1;
    }

    pub(crate) fn offered(&mut self, id: BroadcastId, until: Instant) {
        assert!(self.broadcasts.insert(id, until).is_none(), "{id} is new");
    }

    pub(crate) fn decided(&mut self, id: BroadcastId, is_good: bool, now: Instant) {
        let until = self.broadcasts.remove(&id);
        assert!(until.is_some_and(|until| now <= until + SLACK), "{id} ends once, and in time");
        let count = if is_good { &mut self.figures.spread } else { &mut self.figures.not_spread };
        *count += 1;
    }

    /// Nothing more is asked: everything has ended.
    pub(crate) fn finished(&self, open: usize) {
        assert!(self.requests.is_empty(), "{:?} never ended", self.requests.keys());
        assert!(self.broadcasts.is_empty(), "{:?} never ended", self.broadcasts.keys());
        assert_eq!(open, 0, "the pool waits for what nobody asked");
    }
}
