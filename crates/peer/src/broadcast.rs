//! Hands transactions to several nodes and decides from what they do whether they took them: a machine without I/O.
//!
//! Evidence counts hosts, never connections: what one connection of a host does, the host did. The best evidence is a host
//! that announces the transaction without having got it from us, so some hosts are left out for that (of two connected, one);
//! they are offered it only when every other host has rejected it or is gone. A host that fetches it may still reject it, and
//! on BTC does so in silence. `reject` (BIP 61) is believed for what it is: one host's word, which counts when all (or, by
//! policy, most) of those say so that it was offered to. A `reject` as duplicate means that the host has it.
//!
//! A transaction is broadcast once at a time: who submits it meanwhile joins, keeps its own policy and time, and profits from
//! the evidence so far. Nothing is kept of a broadcast that has ended, so it can always be done again.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use bytes::Bytes;
use fastrand::Rng;
use tipward_wire::Txid;

use crate::{PeerId, Rejection, Reply, link::after};

mod policy;
mod running;

pub use policy::{BroadcastError, BroadcastId, BroadcastOutcome, BroadcastPolicy, HostRejection, RejectRule};
use running::{Running, Submission};

/// The most transactions that are broadcast at a time.
const MAX_RUNNING: usize = 64;
/// The most submissions of one transaction that wait for their outcome.
const MAX_JOINED: usize = 64;
/// The most bytes that the transactions being broadcast have together.
const MAX_BYTES: usize = 128 << 20;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BroadcastOutput {
    /// Offer the transaction to the peer, which is ready.
    Offer { peer: PeerId, id: Txid, bytes: Bytes },
    /// A submission has its outcome.
    Done { submission: BroadcastId, id: Txid, outcome: BroadcastOutcome },
}

/// The running broadcasts and the ready peers.
///
/// Call order: after every other call take [`poll`](Self::poll) until `None`, and come back at
/// [`deadline`](Self::deadline).
#[derive(Debug)]
pub(crate) struct Broadcast {
    random: Rng,
    running: BTreeMap<Txid, Running>,
    peers: BTreeMap<PeerId, Connected>,
    /// The connections of each host.
    hosts: BTreeMap<String, BTreeSet<PeerId>>,
    outputs: VecDeque<BroadcastOutput>,
    next_id: u64,
}

#[derive(Debug)]
struct Connected {
    host: String,
    last_offered: Option<Txid>,
}

impl Broadcast {
    /// Nothing running and nobody connected. `seed` makes the choice of hosts.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Rng::with_seed(seed),
            running: BTreeMap::new(),
            peers: BTreeMap::new(),
            hosts: BTreeMap::new(),
            outputs: VecDeque::new(),
            next_id: 0,
        }
    }

    /// Starts to broadcast a transaction, or joins if it is being broadcast; then the bytes given first are used.
    ///
    /// # Errors
    /// There is no room for another one.
    pub(crate) fn submit(
        &mut self,
        id: Txid,
        bytes: Bytes,
        policy: BroadcastPolicy,
        now: Instant,
    ) -> Result<BroadcastId, BroadcastError> {
        self.check_room(id, bytes.len())?;
        let submission = BroadcastId(self.next_id);
        self.next_id += 1;
        let deadline = after(now, policy.timeout);
        let running = self.running.entry(id).or_insert_with(|| Running::new(bytes));
        running.submissions.push(Submission { id: submission, policy, deadline });
        self.advance(id);
        Ok(submission)
    }

    /// How many are running.
    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// A connection to the host may be used from now on.
    pub(crate) fn peer_ready(&mut self, peer: PeerId, host: &str) {
        self.peers.insert(peer, Connected { host: host.to_owned(), last_offered: None });
        self.hosts.entry(host.to_owned()).or_default().insert(peer);
        self.advance_all();
    }

    /// A connection is gone.
    pub(crate) fn peer_lost(&mut self, peer: PeerId) {
        let Some(Connected { host, .. }) = self.peers.remove(&peer) else { return };
        if let Some(connections) = self.hosts.get_mut(&host) {
            connections.remove(&peer);
            if connections.is_empty() {
                self.hosts.remove(&host);
            }
        }
        self.outputs.retain(|it| !matches!(it, BroadcastOutput::Offer { peer: to, .. } if *to == peer));
        self.running.values_mut().for_each(|running| running.peer_lost(peer, &host));
        self.advance_all();
    }

    /// A peer said something.
    pub(crate) fn reply(&mut self, peer: PeerId, reply: &Reply, now: Instant) {
        let Some(Connected { host, .. }) = self.peers.get(&peer) else { return };
        match reply {
            Reply::AnnouncedTransactions(ids) => {
                let mut changed = BTreeSet::new();
                for id in ids {
                    if let Some(running) = self.running.get_mut(id) {
                        running.announced(peer, host);
                        changed.insert(*id);
                    }
                }
                changed.into_iter().for_each(|id| self.advance(id));
            }
            Reply::Transaction { id, .. } => {
                if let Some(running) = self.running.get_mut(id) {
                    running.announced(peer, host);
                    self.advance(*id);
                }
            }
            Reply::Fetched(id) => {
                if let Some(running) = self.running.get_mut(id) {
                    running.fetched(peer, host, now);
                    self.advance(*id);
                }
            }
            Reply::Rejected(rejection) => self.rejected(peer, rejection, now),
            _ => {}
        }
    }

    /// Time has passed.
    pub(crate) fn timeout(&mut self, now: Instant) {
        for id in self.running.keys().copied().collect::<Vec<_>>() {
            self.finish(id, |running, submission, idle| {
                let settles = running.settles(&submission.policy, idle);
                let is_over = settles.into_iter().fold(submission.deadline, Instant::min) <= now;
                is_over.then(|| running.verdict())
            });
            self.advance(id);
        }
    }

    /// What is to be done next.
    pub(crate) fn poll(&mut self) -> Option<BroadcastOutput> {
        self.outputs.pop_front()
    }

    /// When [`timeout`](Self::timeout) is due; may have passed.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let next = |running: &Running| {
            let idle = idle(running, &self.hosts);
            let next = |it: &Submission| {
                running.settles(&it.policy, idle).into_iter().fold(it.deadline, Instant::min)
            };
            running.submissions.iter().map(next).min()
        };
        self.running.values().filter_map(next).min()
    }

    fn check_room(&self, id: Txid, size: usize) -> Result<(), BroadcastError> {
        if let Some(running) = self.running.get(&id) {
            let times = running.submissions.len();
            return if times < MAX_JOINED { Ok(()) } else { Err(BroadcastError::Joined { id, times }) };
        }
        if self.running.len() >= MAX_RUNNING {
            return Err(BroadcastError::Full { running: self.running.len() });
        }
        let held: usize = self.running.values().map(|running| running.bytes.len()).sum();
        if size > MAX_BYTES - held {
            return Err(BroadcastError::NoRoom { size, held, max: MAX_BYTES });
        }
        Ok(())
    }

    fn rejected(&mut self, peer: PeerId, rejection: &Rejection, now: Instant) {
        let Some(Connected { host, last_offered }) = self.peers.get(&peer) else { return };
        let id = match (rejection.transaction, rejection.block) {
            (Some(id), _) => id,
            (None, Some(_)) => return,
            // Without its hash it is the one that was offered last, if it was sent and no other one.
            (None, None) => {
                let mut sent = self.running.iter().filter(|(_, it)| it.is_fetched_by(peer, host));
                match (sent.next(), sent.next(), last_offered) {
                    (Some((id, _)), None, Some(last)) if id == last => *id,
                    _ => return,
                }
            }
        };
        if let Some(running) = self.running.get_mut(&id) {
            running.rejected(host, rejection, now);
            self.advance(id);
        }
    }

    fn advance_all(&mut self) {
        self.running.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| self.advance(id));
    }

    /// Offers the transaction to those it is to be offered to, then ends what is decided.
    fn advance(&mut self, id: Txid) {
        let Some(running) = self.running.get_mut(&id) else { return };
        for host in running.to_offer(&self.hosts, &mut self.random) {
            let Some(&peer) = self.hosts.get(&host).and_then(BTreeSet::first) else { continue };
            running.offered(&host, peer);
            if let Some(connected) = self.peers.get_mut(&peer) {
                connected.last_offered = Some(id);
            }
            self.outputs.push_back(BroadcastOutput::Offer { peer, id, bytes: running.bytes.clone() });
        }
        self.finish(id, |running, submission, idle| running.decided(&submission.policy, idle));
    }

    /// Ends the submissions that have an outcome, and the broadcast with the last of them.
    fn finish(
        &mut self,
        id: Txid,
        outcome: impl Fn(&Running, &Submission, usize) -> Option<BroadcastOutcome>,
    ) {
        let Some(running) = self.running.get_mut(&id) else { return };
        let idle = idle(running, &self.hosts);
        for submission in std::mem::take(&mut running.submissions) {
            match outcome(running, &submission, idle) {
                Some(outcome) => {
                    let submission = submission.id;
                    self.outputs.push_back(BroadcastOutput::Done { submission, id, outcome });
                }
                None => running.submissions.push(submission),
            }
        }
        if running.submissions.is_empty() {
            self.running.remove(&id);
        }
    }
}

/// How many connected hosts could still be offered the transaction or announce it.
fn idle(running: &Running, hosts: &BTreeMap<String, BTreeSet<PeerId>>) -> usize {
    hosts.keys().filter(|host| running.is_candidate(host)).count()
}

#[cfg(test)]
mod tests;
