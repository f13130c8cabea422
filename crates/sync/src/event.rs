//! What a sync tells its user.

use tipward_peer::{PeerAddress, PeerId, wire::BlockHash};
use tokio::sync::broadcast;

use crate::{BlockId, Chain};

/// So many blocks of each branch are named in [`Event::Reorg`].
const MAX_NAMED: usize = 1000;

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A peer is connected.
    PeerConnected {
        /// The connection.
        peer: PeerId,
        /// Where it is.
        address: PeerAddress,
        /// Its software.
        user_agent: String,
    },
    /// A connection ended, or was ended by us.
    PeerDisconnected {
        /// The connection.
        peer: PeerId,
        /// Where it was.
        address: PeerAddress,
        /// Why.
        reason: String,
    },
    /// A connection could not be made; it will be tried again.
    ConnectFailed {
        /// Where.
        address: PeerAddress,
        /// Why.
        reason: String,
    },
    /// The best header chain has a new tip.
    Headers {
        /// The tip.
        tip: BlockId,
    },
    /// The sink has applied a block.
    Applied {
        /// The block.
        block: BlockId,
        /// How many transactions it has.
        transactions: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// Another branch is the best chain now. The sink is rolled back to `common`, and the new branch follows; with
    /// headers only, this is about headers.
    Reorg {
        /// The tip that was left.
        old_tip: BlockId,
        /// The tip of the best chain now. Of its blocks the sink gets those that it is to have, when they come.
        new_tip: BlockId,
        /// The last block that stays.
        common: BlockId,
        /// How many blocks are undone.
        depth: u64,
        /// The blocks that are undone, from the old tip down: the first 1000, as far as their headers are kept.
        old_branch: Vec<BlockHash>,
        /// The blocks above `common` that are best now, in their order: the first 1000.
        new_branch: Vec<BlockHash>,
    },
    /// The sink has refused a block: it breaks a rule that only the sink knows. What builds on it counts no more either.
    Rejected {
        /// The block.
        block: BlockId,
        /// The rule.
        reason: String,
    },
    /// Everything that the connected peers have is applied.
    Synced {
        /// The last block.
        tip: BlockId,
    },
    /// The receiver was too slow and missed so many events. [`Progress`](crate::Progress) tells where the sync is all the same.
    Missed(u64),
}

impl Event {
    /// What it means to go from `old_tip` back to `common`, and on along the best chain.
    pub(crate) fn reorg(old_tip: BlockId, common: BlockId, chain: &dyn Chain) -> Self {
        let (new_tip, first) = (chain.tip(), common.height + 1);
        let old = (first..=old_tip.height).rev().take(MAX_NAMED);
        let new = (first..=new_tip.height).take(MAX_NAMED);
        Self::Reorg {
            old_tip,
            new_tip,
            common,
            depth: old_tip.height.saturating_sub(common.height),
            old_branch: old.map_while(|height| chain.ancestor(old_tip.hash, height)).collect(),
            new_branch: new.map_while(|height| chain.best_at(height)).collect(),
        }
    }
}

/// A stream of events. It holds the last 1024: a receiver that lags is told what it missed and holds nobody up.
#[derive(Debug)]
pub struct Events(pub(crate) broadcast::Receiver<Event>);

impl Events {
    /// The next event; `None` after the end of the sync.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
