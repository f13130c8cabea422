//! The connections of a sync: what is to be asked of each, and what became of those that are gone.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Display,
};

use tipward_peer::{ManagerHandle, Peer, PeerAddress, PeerId, Want};
use tokio::task::JoinSet;

use super::SyncError;
use crate::{Fault, PeerProgress, PeerShare};

/// How many failures are remembered, for the case that nothing works.
const MAX_FAILURES: usize = 1000;
/// How many complaints may be on their way to the manager.
const MAX_COMPLAINTS: usize = 64;

/// The connections there are, and the last failure of each address.
#[derive(Debug, Default)]
pub(super) struct Peers {
    connected: BTreeMap<PeerId, Connected>,
    /// Who has something to be asked.
    unasked: BTreeSet<PeerId>,
    failures: BTreeMap<PeerAddress, String>,
    complaints: JoinSet<()>,
}

#[derive(Debug)]
struct Connected {
    handle: Peer,
    questions: Questions,
}

impl Peers {
    pub(super) fn len(&self) -> usize {
        self.connected.len()
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<&Peer> {
        Some(&self.connected.get(&peer)?.handle)
    }

    pub(super) fn connected(&mut self, handle: Peer) {
        self.failures.remove(handle.address());
        self.connected.insert(handle.id(), Connected { handle, questions: Questions::default() });
    }

    /// True if the peer was there: an end is told once, when we drop a peer or when its connection ends.
    pub(super) fn lost(&mut self, peer: PeerId, reason: &dyn Display) -> bool {
        self.unasked.remove(&peer);
        let Some(lost) = self.connected.remove(&peer) else { return false };
        let address = lost.handle.address().clone();
        let failure = format!("{address} was dropped: {reason}");
        self.failed(address, failure);
        true
    }

    /// An address came to nothing.
    pub(super) fn failed(&mut self, address: PeerAddress, failure: String) {
        if self.failures.len() < MAX_FAILURES || self.failures.contains_key(&address) {
            self.failures.insert(address, failure);
        }
    }

    pub(super) fn no_peers(&self) -> SyncError {
        let first = self.failures.values().next().cloned();
        SyncError::NoPeers {
            first: first
                .unwrap_or_else(|| "no address to connect to, and no DNS seeds to ask for one".to_owned()),
            others: self.failures.len().saturating_sub(1),
        }
    }

    /// Asks a peer with the next [`send`](Self::send).
    pub(super) fn ask(&mut self, peer: PeerId, want: Want) {
        if let Some(connected) = self.connected.get_mut(&peer) {
            connected.questions.push(want);
            self.unasked.insert(peer);
        }
    }

    /// Hands over what is to be asked. False if something is left: the connection's task has more than it can take for now.
    pub(super) fn send(&mut self) -> bool {
        self.unasked.retain(|peer| {
            let Some(Connected { handle, questions }) = self.connected.get_mut(peer) else { return false };
            !questions.send(|want| handle.ask(want).is_ok())
        });
        self.unasked.is_empty()
    }

    /// Reads nothing from a peer until it is resumed.
    pub(super) fn hold(&self, peer: PeerId) {
        if let Some(peer) = self.get(peer) {
            peer.hold();
        }
    }

    /// Reads from a peer again.
    pub(super) fn resume(&self, peer: PeerId) {
        if let Some(peer) = self.get(peer) {
            peer.resume();
        }
    }

    /// Counts something against a peer that stays. The manager is not waited for.
    pub(super) fn penalise(&mut self, manager: &ManagerHandle, peer: PeerId, fault: &Fault) {
        while self.complaints.try_join_next().is_some() {}
        if self.complaints.len() < MAX_COMPLAINTS {
            let (manager, points, what) = (manager.clone(), points(fault), fault.to_string());
            self.complaints.spawn(async move {
                manager.misbehaved(peer, points, what).await.ok();
            });
        }
    }

    /// These shares with who they are of.
    pub(super) fn shares(&self, shares: Vec<PeerShare>) -> Vec<PeerProgress> {
        let with_peer = |share: PeerShare| {
            let peer = self.get(share.peer)?;
            let (address, user_agent) = (peer.address().clone(), peer.info().user_agent.clone());
            Some(PeerProgress { address, user_agent, share })
        };
        shares.into_iter().filter_map(with_peer).collect()
    }
}

/// How bad it is in the pool's eyes, of 100.
fn points(fault: &Fault) -> u32 {
    match fault {
        // It may be wrong about itself, or have been reorganised away.
        Fault::HeightNotShown { .. } => 10,
        Fault::NoHeaders | Fault::Stalled | Fault::NoInventory | Fault::NoFilters | Fault::BadRange => 20,
        Fault::UnlinkedHeaders | Fault::RepeatedHeaders | Fault::BadInventory(_) | Fault::BrokenParts => 50,
        Fault::InvalidHeaders(_)
        | Fault::InvalidBlock { .. }
        | Fault::FalseFilter { .. }
        | Fault::FilterEquivocation { .. } => 100,
    }
}

/// What is to be asked of a peer, in order. Requests for blocks that follow each other are one.
#[derive(Debug, Default)]
struct Questions(VecDeque<Want>);

impl Questions {
    fn push(&mut self, want: Want) {
        match (self.0.back_mut(), want) {
            (Some(Want::Blocks(last)), Want::Blocks(more)) => last.extend(more),
            (_, want) => self.0.push_back(want),
        }
    }

    /// Passes them to `ask` until that fails. True if none is left.
    fn send(&mut self, ask: impl Fn(Want) -> bool) -> bool {
        while let Some(want) = self.0.front() {
            if !ask(want.clone()) {
                return false;
            }
            self.0.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use tipward_peer::wire::BlockHash;

    use super::*;

    fn blocks(numbers: &[u8]) -> Want {
        Want::Blocks(numbers.iter().map(|number| BlockHash::from_bytes([*number; 32])).collect())
    }

    #[test]
    fn requests_for_blocks_are_asked_at_once() {
        let mut questions = Questions::default();
        for want in [blocks(&[1]), blocks(&[2, 3]), Want::Addresses, blocks(&[4]), blocks(&[5])] {
            questions.push(want);
        }
        assert_eq!(questions.0, [blocks(&[1, 2, 3]), Want::Addresses, blocks(&[4, 5])]);
    }

    #[test]
    fn nothing_that_has_no_room_is_lost() {
        let mut questions = Questions::default();
        [blocks(&[1]), Want::Addresses, blocks(&[2])].into_iter().for_each(|want| questions.push(want));
        let asked = std::cell::RefCell::new(Vec::new());
        let mut send = |room: usize| {
            questions.send(|want| {
                let mut asked = asked.borrow_mut();
                let has_room = asked.len() < room;
                if has_room {
                    asked.push(want);
                }
                has_room
            })
        };
        assert!(!send(1));
        assert!(!send(2));
        assert!(send(9));
        assert_eq!(asked.take(), [blocks(&[1]), Want::Addresses, blocks(&[2])]);
    }
}
