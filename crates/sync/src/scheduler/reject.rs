//! Blocks that the sink refuses.

use std::time::Instant;

use super::{
    Output, Scheduler,
    flow::FlowInput,
    peers::{Has, PeerState},
};
use crate::{Accepted, BlockId, Chain, Event};

impl Scheduler {
    /// The sink has refused a block and is at its parent, whatever it was given since.
    pub(super) fn rejected(&mut self, now: Instant, block: BlockId, reason: String, chain: &mut dyn Chain) {
        let below = block.height.checked_sub(1);
        let parent =
            below.and_then(|height| chain.ancestor(block.hash, height).map(|hash| BlockId { height, hash }));
        // It is given up already, if the sink was given it more than once.
        let Some(parent) = parent else { return };
        let builds_on_it = |id: BlockId| {
            id.height >= block.height && chain.ancestor(id.hash, block.height) == Some(block.hash)
        };
        let was_sent = self.sent.is_some_and(builds_on_it);
        let shows_it = |peer: &PeerState| match peer.has {
            Has::Shown { tip, .. } => chain.find(tip).is_some_and(builds_on_it),
            Has::Claims | Has::Unknown => false,
        };
        let showing: Vec<_> =
            self.peers.iter().filter(|(_, peer)| shows_it(peer)).map(|(&id, _)| id).collect();
        let update = match chain.reject(block.hash, &reason) {
            Ok(update) => update,
            Err(error) => {
                self.is_over = true;
                return self.outputs.push_back(Output::Failed(error));
            }
        };
        tracing::warn!(%block, reason, "a block is rejected");
        self.outputs.push_back(Output::Event(Event::Rejected { block, reason }));
        for id in showing {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.has = Has::Shown { tip: parent.hash, reach: parent.height };
                peer.claimed = parent.height;
            }
        }
        if was_sent {
            if let Some(id) = self.stream {
                self.discard(now, id);
            }
            self.sent = Some(parent);
            // What the sink was given before this it passes over.
            self.unapplied.push(0);
            self.outputs.push_back(Output::Rollback(parent));
        }
        self.best_chain_changed(now, &Accepted { added: 0, last: None, update }, chain);
        // Another branch may have been best before, so that the sink has to go back from elsewhere now.
        self.realign(now, u64::MAX, chain);
        self.fill(now, chain);
        self.tell_flow(now, FlowInput::Rejected { parent }, chain);
    }
}
