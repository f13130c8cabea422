//! Peers on another branch: where it left the tree, and when it is ours again.

use std::time::Instant;

use tipward_peer::PeerId;

use super::{
    Fault, RangeFlow,
    peer::{Branch, Purpose, RangePeer, Search},
};
use crate::{
    BlockId, Chain,
    scheduler::flow::{FlowContext, FlowOutput},
};

/// After so many blocks asked for in vain in search of its branch a peer is dropped. An honest search takes two for every
/// doubling of the depth.
const MAX_PROBES: u32 = 160;
/// So many does it count for if what should build on a block that the peer has shown does not. An honest peer does that only
/// if its chain changes just then.
const CONTRADICTION: u32 = 40;

impl RangeFlow {
    /// A peer's block at this height does not link, although everything below it that links is in the tree.
    pub(super) fn strayed(&mut self, id: PeerId, height: u64, is_probe: bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.branch = match peer.branch {
            Branch::Search(search) if is_probe || height < search.high => {
                let step = if is_probe { search.step.saturating_mul(2) } else { search.step };
                // Its chain has changed if this is below what it shared.
                let low = search.low.filter(|&low| low < height);
                Branch::Search(Search { low, high: height.min(search.high), step })
            }
            Branch::Search(search) => Branch::Search(search),
            Branch::Climb { .. } => {
                // It has just shown the parent, as it said.
                peer.probes += CONTRADICTION;
                Branch::Search(Search::below(height))
            }
            Branch::Fresh | Branch::Best => {
                // What it has brought and what it was asked for is of that branch, and will be asked for along it.
                peer.give_up();
                self.kept.forget(id);
                Branch::Search(Search::below(height))
            }
        };
    }

    /// A block that was asked for in search of the peer's branch is in the tree already.
    pub(super) fn probe_known(&mut self, id: PeerId, block: BlockId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.shown = Some(block);
        peer.branch = match peer.branch {
            Branch::Search(search) if block.height + 1 < search.high => {
                Branch::Search(Search { low: Some(block.height), ..search })
            }
            Branch::Search(Search { high, .. }) | Branch::Climb { high } => Branch::Climb { high },
            Branch::Fresh | Branch::Best => Branch::Best,
        };
        self.outputs.push_back(FlowOutput::Shows(id, block.hash));
    }

    /// A block that was asked for in search of the peer's branch was new and links: the branch goes on from `block`.
    pub(super) fn probe_linked(&mut self, id: PeerId, block: BlockId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.shown = Some(block);
        let high = match peer.branch {
            Branch::Search(Search { high, .. }) | Branch::Climb { high } => high,
            Branch::Fresh | Branch::Best => block.height,
        };
        peer.branch = Branch::Climb { high };
        self.outputs.push_back(FlowOutput::Shows(id, block.hash));
    }

    /// After the tip moved on from `old`: blocks whose turn has come and that do not link are from another branch.
    pub(super) fn look_for_strays(&mut self, old: BlockId) {
        let from = old.height.min(self.tip.height) + 1;
        let strays = self.kept.at(from, self.tip.height + 1);
        let strays: Vec<(PeerId, u64)> = strays.map(|kept| (kept.server, kept.height)).collect();
        for (id, height) in strays {
            match self.peers.get(&id).map(RangePeer::is_on_our_chain) {
                Some(true) => self.strayed(id, height, false),
                Some(false) => {}
                // Nobody is left to ask.
                None => drop(self.kept.take(height, height, |kept| kept.server == id)),
            }
        }
    }

    /// Sees whose last block is on the best chain now, and whose is no more.
    pub(super) fn follow_branches(&mut self, chain: &dyn Chain) {
        for peer in self.peers.values_mut() {
            let Some(shown) = peer.shown else { continue };
            if chain.best_at(shown.height) == Some(shown.hash) {
                if matches!(peer.branch, Branch::Climb { high } if high <= shown.height) {
                    peer.branch = Branch::Best;
                    peer.probes = 0;
                }
            } else if chain.fork_point(shown.hash).is_none() {
                // The tree has forgotten it.
                (peer.shown, peer.branch) = (None, Branch::Fresh);
            } else if peer.is_on_our_chain() {
                peer.branch = Branch::Climb { high: shown.height };
            }
        }
    }

    /// Asks a peer for the one block that tells most about its branch.
    pub(super) fn ask_probe(&mut self, now: Instant, id: PeerId, search: Search, context: &FlowContext<'_>) {
        let floor = context.chain.irreversible().max(1);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(height) = search.probe(floor) else {
            if search.low.is_none() {
                return self.drop_peer(id, Fault::BadRange); // Its chain is not ours where ours can't change.
            }
            // A block does not link to the one below that it has shown: its chain has changed.
            peer.probes += CONTRADICTION;
            peer.branch = Branch::Search(Search::below(search.high));
            return;
        };
        if peer.probes >= MAX_PROBES {
            return self.drop_peer(id, Fault::BadRange);
        }
        peer.probes += 1;
        self.ask_range(now, id, Purpose::Probe, height..height + 1);
    }
}
