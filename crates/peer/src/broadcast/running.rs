//! One transaction on its way: what each host did, and what that decides.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use bytes::Bytes;
use fastrand::Rng;

use super::{BroadcastId, BroadcastOutcome, BroadcastPolicy, HostRejection, RejectRule};
use crate::{PeerId, Rejection, link::after};

/// The most hosts whose doings one broadcast keeps.
const MAX_HOSTS: usize = 1024;
/// `reject` for what the node has already (BIP 61).
const DUPLICATE: u8 = 0x12;

/// A transaction being broadcast.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) bytes: Bytes,
    pub(super) submissions: Vec<Submission>,
    hosts: BTreeMap<String, Evidence>,
    /// When a host was last found to have it after it was offered.
    last_taken: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Submission {
    pub(super) id: BroadcastId,
    pub(super) policy: BroadcastPolicy,
    pub(super) deadline: Instant,
}

/// What a host did.
#[derive(Debug, PartialEq, Eq)]
enum Evidence {
    /// Nothing yet, after it was offered to this connection.
    Offered(PeerId),
    /// It was sent to this connection.
    Fetched(PeerId),
    /// It was offered, and the host says that it knows it. That may be from us, by an earlier broadcast.
    Known,
    Rejected {
        code: u8,
        reason: String,
    },
    /// It announced it without having got it from us.
    Announced,
    /// The connection was lost before it fetched: to be offered to after all others.
    Lost,
}

impl Running {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { bytes, submissions: Vec::new(), hosts: BTreeMap::new(), last_taken: None }
    }

    /// Which of the connected hosts it is to be offered to now. Those that were lost before come last.
    pub(super) fn to_offer(
        &self,
        live: &BTreeMap<String, BTreeSet<PeerId>>,
        random: &mut Rng,
    ) -> Vec<String> {
        let most = |of: fn(&BroadcastPolicy) -> usize| {
            self.submissions.iter().map(|it| of(&it.policy).max(1)).max().unwrap_or(1)
        };
        let spent = self.count(Evidence::was_offered);
        let room = most(|policy| policy.peers).saturating_sub(spent).min(MAX_HOSTS - self.hosts.len());
        if room == 0 {
            return Vec::new();
        }
        let mut candidates: Vec<&String> = live.keys().filter(|host| self.is_candidate(host)).collect();
        // Those that could announce it. While nobody takes it from us, there is nothing for them to announce.
        let witnesses = most(|policy| policy.seen_from).saturating_sub(self.count(Evidence::is_announced));
        let spare = candidates.len().saturating_sub(witnesses);
        let has_hope = self.count(|it| it.was_offered() && !it.is_rejected()) > 0;
        let number = if has_hope { spare } else { spare.max(1) };
        random.shuffle(&mut candidates);
        candidates.sort_by_key(|host| self.hosts.contains_key(*host));
        candidates.into_iter().take(number.min(room)).cloned().collect()
    }

    pub(super) fn offered(&mut self, host: &str, peer: PeerId) {
        self.hosts.insert(host.to_owned(), Evidence::Offered(peer));
    }

    /// The peer was sent the transaction.
    pub(super) fn fetched(&mut self, peer: PeerId, host: &str, now: Instant) {
        if let Some(evidence @ (Evidence::Offered(_) | Evidence::Announced)) = self.hosts.get_mut(host) {
            *evidence = Evidence::Fetched(peer);
            self.last_taken = Some(now);
        }
    }

    /// The peer has the transaction. A connection that it was offered to and that has not fetched it has it from elsewhere;
    /// of another connection to the same host this can't be told.
    pub(super) fn announced(&mut self, peer: PeerId, host: &str) {
        match self.hosts.get(host) {
            None if self.hosts.len() >= MAX_HOSTS => return,
            None | Some(Evidence::Lost) => {}
            Some(Evidence::Offered(to)) if *to == peer => {}
            Some(_) => return,
        }
        self.hosts.insert(host.to_owned(), Evidence::Announced);
    }

    /// The peer refuses the transaction. Of a host that it was not offered to this says nothing.
    pub(super) fn rejected(&mut self, host: &str, rejection: &Rejection, now: Instant) {
        if let Some(evidence @ (Evidence::Offered(_) | Evidence::Fetched(_) | Evidence::Known)) =
            self.hosts.get_mut(host)
        {
            // Nodes number double spends as duplicates too.
            let is_known = rejection.code == DUPLICATE && !rejection.reason.contains("conflict");
            *evidence = if is_known {
                self.last_taken = Some(now);
                Evidence::Known
            } else {
                Evidence::Rejected { code: rejection.code, reason: rejection.reason.clone() }
            };
        }
    }

    /// Whether the peer has fetched the transaction and not said more.
    pub(super) fn is_fetched_by(&self, peer: PeerId, host: &str) -> bool {
        self.hosts.get(host) == Some(&Evidence::Fetched(peer))
    }

    pub(super) fn peer_lost(&mut self, peer: PeerId, host: &str) {
        if let Some(evidence) = self.hosts.get_mut(host)
            && *evidence == Evidence::Offered(peer)
        {
            *evidence = Evidence::Lost;
        }
    }

    /// What is decided already, whatever comes. `idle` connected hosts have neither been offered it nor announced it.
    pub(super) fn decided(&self, policy: &BroadcastPolicy, idle: usize) -> Option<BroadcastOutcome> {
        if self.count(Evidence::is_announced) >= policy.seen_from.max(1) {
            return Some(BroadcastOutcome::SeenBack { hosts: self.names(Evidence::is_announced) });
        }
        let offered = self.count(Evidence::was_offered);
        let rejected = self.count(Evidence::is_rejected);
        let is_rejected = match policy.reject {
            RejectRule::All => rejected == offered && (idle == 0 || offered >= policy.peers.max(1)),
            RejectRule::Majority => rejected > offered / 2,
        };
        // Who announces it has accepted it.
        let is_accepted = self.count(Evidence::is_announced) > 0;
        (is_rejected && rejected > 0 && !is_accepted)
            .then(|| BroadcastOutcome::Rejected { rejections: self.rejections() })
    }

    /// When having been fetched ends the broadcast before its time: every host that it was offered to has answered, and
    /// nothing better can come or is asked for.
    pub(super) fn settles(&self, policy: &BroadcastPolicy, idle: usize) -> Option<Instant> {
        let is_open = self.count(|it| matches!(it, Evidence::Offered(_))) > 0;
        let may_improve = idle > 0 && !policy.accept_fetched;
        self.last_taken.filter(|_| !is_open && !may_improve).map(|at| after(at, policy.reject_wait))
    }

    /// What the evidence comes to when there is no more time.
    pub(super) fn verdict(&self) -> BroadcastOutcome {
        let hosts = self.names(Evidence::has_it);
        let rejections = self.rejections();
        if hosts.is_empty() {
            BroadcastOutcome::Undecided { offered_to: self.names(Evidence::was_offered), rejections }
        } else {
            BroadcastOutcome::Fetched { hosts, rejections }
        }
    }

    /// Whether a connected host could still be offered it or announce it.
    pub(super) fn is_candidate(&self, host: &str) -> bool {
        self.hosts.get(host).is_none_or(|evidence| *evidence == Evidence::Lost)
    }

    fn count(&self, is: impl Fn(&Evidence) -> bool) -> usize {
        self.hosts.values().filter(|evidence| is(evidence)).count()
    }

    fn names(&self, is: impl Fn(&Evidence) -> bool) -> Vec<String> {
        self.hosts.iter().filter(|(_, evidence)| is(evidence)).map(|(host, _)| host.clone()).collect()
    }

    fn rejections(&self) -> Vec<HostRejection> {
        let rejection = |(host, evidence): (&String, &Evidence)| match evidence {
            Evidence::Rejected { code, reason } => {
                Some(HostRejection { host: host.clone(), code: *code, reason: reason.clone() })
            }
            _ => None,
        };
        self.hosts.iter().filter_map(rejection).collect()
    }
}

impl Evidence {
    fn was_offered(&self) -> bool {
        match self {
            Self::Offered(_) | Self::Fetched(_) | Self::Known | Self::Rejected { .. } => true,
            Self::Announced | Self::Lost => false,
        }
    }

    fn has_it(&self) -> bool {
        matches!(self, Self::Fetched(_) | Self::Known | Self::Announced)
    }

    fn is_announced(&self) -> bool {
        *self == Self::Announced
    }

    fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected { .. })
    }
}
