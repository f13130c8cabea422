//! The past below a trusted block: brought in the background, one block after the other downwards, straight to the chain.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tipward_peer::{PeerId, Want, wire::BlockHash};

use super::{Arrived, FlowContext, FlowOutput, MAX_REST, SlotFlow, peer::What};
use crate::{BlockHead, BlockId, Chain, Past, RefusedHeaders};

/// Where the walk into the past is.
#[derive(Debug, Default)]
pub(super) struct PastWalk {
    /// Who was asked for the next block and has not brought it.
    tried: BTreeSet<PeerId>,
    /// How often everybody was.
    rounds: u32,
    /// Nobody is asked before.
    again: Option<Instant>,
}

/// The past of the trusted block breaks the chain's rules: it can't be trusted.
#[derive(Debug, thiserror::Error)]
#[error("the past of the trusted block is invalid at {block}: {reason}")]
struct InvalidPast {
    block: BlockId,
    reason: RefusedHeaders,
}

impl PastWalk {
    pub(super) fn is_wanted(&self, hash: BlockHash, chain: &dyn Chain) -> bool {
        chain.wanted_past().is_some_and(|past| past.parent == hash)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again
    }
}

impl SlotFlow {
    /// Asks for more of the past, if it is wanted and nothing else is to do.
    pub(super) fn ask_past(&mut self, now: Instant, context: &FlowContext<'_>) {
        let is_due = context.may_ask && context.room > 0 && self.past.again.is_none_or(|again| again <= now);
        if !is_due || self.walk.is_some() || !self.is_caught_up() {
            return;
        }
        let Some(Past { of, parent }) = context.chain.wanted_past() else { return };
        let is_it = |what| what == What::Past || what == What::Block(parent);
        if self.peers.values().any(|peer| peer.open().is_some_and(|open| is_it(open.what))) {
            return;
        }
        let able = self.peers.iter().filter(|(id, peer)| peer.is_free(now) && !self.past.tried.contains(id));
        let able: Vec<PeerId> = able.map(|(&id, _)| id).collect();
        let Some(id) = self.rng.choice(able) else {
            // All were asked. Others may come.
            self.past.tried.clear();
            let pause = self.options.stall_timeout.saturating_mul(1 << self.past.rounds.min(16));
            self.past.again = Some(now + pause.min(MAX_REST).max(Duration::from_millis(1)));
            self.past.rounds += 1;
            return;
        };
        self.past.tried.insert(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let room = u32::try_from(context.room).unwrap_or(u32::MAX);
        // Who does not have the lowest block, and so can't tell its ancestors, may have its parent all the same.
        let want = if peer.knows_ancestors && self.past.rounds.is_multiple_of(2) {
            peer.ask(What::Past, now);
            Want::Ancestors { of: of.hash, count: self.options.batch.min(room) }
        } else {
            peer.ask(What::Block(parent), now);
            Want::Blocks(vec![parent])
        };
        self.outputs.push_back(FlowOutput::Ask(id, want));
    }

    /// A block of the past came, or what was asked for as one.
    pub(super) fn past_block(
        &mut self,
        head: &BlockHead,
        body: Option<Arrived>,
        context: &mut FlowContext<'_>,
    ) {
        // Without its body it will be asked for again.
        let (Some(Past { of, parent }), Some(block)) = (context.chain.wanted_past(), body) else { return };
        if parent != block.hash {
            return; // The one after it, or none at all: it will be asked for.
        }
        let id = BlockId { height: of.height.saturating_sub(1), hash: parent };
        self.past = PastWalk::default();
        match context.chain.accept_past(head, block.into_block(id.height)) {
            Ok(()) => {}
            Err(RefusedHeaders::Store(reason)) => {
                self.has_failed = true;
                self.outputs.push_back(FlowOutput::Failed(reason));
            }
            // By its hash it is what the trusted block builds on: nobody's fault but that of whoever trusted it.
            Err(reason) => self.fail(InvalidPast { block: id, reason }),
        }
    }

    /// The peer can be asked again, in another way.
    pub(super) fn untry(&mut self, id: PeerId) {
        self.past.tried.remove(&id);
        if let Some(walk) = &mut self.walk {
            walk.untry(id);
        }
    }
}
