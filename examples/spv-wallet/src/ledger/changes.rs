//! What is stored of the ledger.

use std::collections::{BTreeMap, BTreeSet};

use bdk_wallet::{
    bitcoin::ScriptBuf,
    chain::{Anchor, BlockId as ChainId, Merge, keychain_txout, local_chain, tx_graph},
    miniscript::{Descriptor, DescriptorPublicKey},
};
use serde::{Deserialize, Serialize};

/// Where a transaction is: the evidence that there was such a block with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) block: ChainId,
    /// The transaction's index in the block.
    pub(crate) position: u32,
    /// The time in the block's header, in seconds since 1970.
    pub(crate) time: u32,
    /// The proof, in hexadecimal digits, as `gettxoutproof` of a node makes it.
    pub(crate) proof: String,
}

impl Anchor for Found {
    fn anchor_block(&self) -> ChainId {
        self.block
    }
}

/// What has changed, or all that there is.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ChangeSet {
    pub(super) descriptors: BTreeMap<u32, Descriptor<DescriptorPublicKey>>,
    pub(super) scripts: BTreeSet<ScriptBuf>,
    pub(super) chain: local_chain::ChangeSet,
    pub(super) graph: tx_graph::ChangeSet<Found>,
    pub(super) index: keychain_txout::ChangeSet,
}

impl ChangeSet {
    pub(crate) fn merge(&mut self, other: Self) {
        self.descriptors.extend(other.descriptors);
        self.scripts.extend(other.scripts);
        self.chain.merge(other.chain);
        self.graph.merge(other.graph);
        self.index.merge(other.index);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.descriptors.is_empty()
            && self.scripts.is_empty()
            && self.chain.is_empty()
            && self.graph.is_empty()
            && self.index.is_empty()
    }

    /// Forgets the blocks that were taken out again: there is nothing left that they could be taken out of.
    pub(crate) fn compact(&mut self) {
        self.chain.blocks.retain(|_, hash| hash.is_some());
    }
}
