//! What a coin with slots brings: its rules, and a block to start from.

use std::{error::Error, fmt};

use tipward_sync::{
    Block, BlockHead, BlockId,
    peer::wire::{BlockHash, Header},
};

use crate::OfferError;

/// What a rule of the ledger says.
pub type LedgerError = Box<dyn Error + Send + Sync>;

/// Takes the blocks below a trusted one, from above downwards. An error ends the sync.
pub type PastSink = Box<dyn FnMut(Block) -> Result<(), LedgerError> + Send>;

/// What makes a block valid, as far as its header tells. That slots increase along a chain need not be looked at.
///
/// Whole blocks are judged when they come in the order of the chain, and may be rejected then: see [`Chain::reject`](tipward_sync::Chain::reject).
pub trait SlotRules: Send + fmt::Debug {
    /// What a block says about itself in its first bytes; its index is its slot. See [`Chain::read_head`](tipward_sync::Chain::read_head).
    fn read_head(&self, start: &[u8]) -> Option<BlockHead>;

    /// The slot that a header claims, once everything about it was checked that can be without knowing its parent.
    ///
    /// # Errors
    /// The rule that it breaks.
    fn read(&self, header: &Header) -> Result<u64, LedgerError>;

    /// Checks a header as the child of a block. Parents come before their children; only the past below a trusted block is
    /// gone through from above.
    ///
    /// # Errors
    /// The rule that it breaks.
    fn check(&mut self, header: &Header, slot: u64, parent: &SlotBlock) -> Result<(), LedgerError>;

    /// These blocks are not in the tree any more, or never got there although they were checked.
    fn forget(&mut self, _blocks: &[BlockHash]) {}

    /// The slot of the present time; without end. Blocks of later slots are passed over until their time comes.
    fn present(&self) -> u64 {
        u64::MAX
    }

    /// Whether a program that has all that its peers have takes what is deep for irreversible. By default it does. One that was
    /// offline for long may want to wait, until it is sure to have met somebody honest.
    fn may_be_online(&self) -> bool {
        true
    }
}

/// A block in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotBlock {
    /// The block.
    pub id: BlockId,
    /// Its slot.
    pub slot: u64,
}

/// A trusted block to start from instead of genesis. The past below it is brought when everything above is there.
pub struct SlotCheckpoint {
    /// Its height.
    pub height: u64,
    /// Its header.
    pub header: Header,
    /// Where the blocks below go. Genesis is not among them.
    pub past: PastSink,
}

impl fmt::Debug for SlotCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { height, header, past: _ } = self;
        f.debug_struct("SlotCheckpoint")
            .field("height", height)
            .field("header", header)
            .finish_non_exhaustive()
    }
}

/// Why a block is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlotError {
    /// It breaks a rule of the ledger.
    #[error("block {hash}: {reason}")]
    Rule {
        /// The block.
        hash: BlockHash,
        /// The rule.
        #[source]
        reason: LedgerError,
    },
    /// It, or its parent, was rejected before.
    #[error("block {hash}, or what it builds on, was rejected")]
    Rejected {
        /// The block.
        hash: BlockHash,
    },
    /// It has no place in the tree.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// It can't be rejected: it is irreversible, or not in the tree.
    #[error("block {hash} can't be given up ({reason}): it is irreversible, or unknown")]
    Final {
        /// The block.
        hash: BlockHash,
        /// Why it should be.
        reason: String,
    },
    /// It is not the child of the one before.
    #[error("block {hash} does not follow the one before it")]
    NotLinked {
        /// The block.
        hash: BlockHash,
    },
    /// The past of a trusted block does not end with genesis, or not at its height.
    #[error("block {hash} at height {height} builds on {parent}; genesis is {genesis}")]
    OtherGenesis {
        /// The block.
        hash: BlockHash,
        /// Its height, by that of the trusted block.
        height: u64,
        /// What it builds on.
        parent: BlockHash,
        /// The chain's first block.
        genesis: BlockHash,
    },
}

impl SlotError {
    pub(super) fn rule(hash: BlockHash) -> impl FnOnce(LedgerError) -> Self {
        move |reason| Self::Rule { hash, reason }
    }
}
