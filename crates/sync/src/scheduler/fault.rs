//! Why the scheduler drops a peer, or counts something against it.

use std::{error::Error, sync::Arc};

use tipward_peer::{DisconnectReason, Penalty, wire::BlockHash};

/// Why the scheduler drops a peer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A header breaks the chain's rules.
    #[error("invalid headers: {0}")]
    InvalidHeaders(Arc<dyn Error + Send + Sync>),
    /// Headers link to nothing known, again and again.
    #[error("headers that do not link to the chain")]
    UnlinkedHeaders,
    /// The peer sends the same headers again and claims to have more.
    #[error("the same headers over and over")]
    RepeatedHeaders,
    /// Requests for headers are not answered.
    #[error("did not answer requests for headers")]
    NoHeaders,
    /// Requests for blocks are not answered.
    #[error("stalled: did not bring the blocks asked for")]
    Stalled,
    /// A block breaks the chain's rules.
    #[error("invalid block {block}: {reason}")]
    InvalidBlock {
        /// The block.
        block: BlockHash,
        /// The rule.
        reason: Arc<dyn Error + Send + Sync>,
    },
    /// The peer claims a height that it can't show.
    #[error("claims height {claimed} and has shown {shown}")]
    HeightNotShown {
        /// What it claims.
        claimed: u64,
        /// The height of what it has shown.
        shown: u64,
    },
    /// Requests for lists of blocks are not answered.
    #[error("did not answer requests for lists of blocks")]
    NoInventory,
    /// A list of blocks that can't be one.
    #[error("a list of blocks that can't be: {0}")]
    BadInventory(&'static str),
    /// Requests for ranges of blocks are not answered, or not with what was asked for.
    #[error("did not bring the range of blocks asked for")]
    BadRange,
    /// Requests for filters are not answered.
    #[error("did not answer requests for filters")]
    NoFilters,
    /// A filter that is not that of its block.
    #[error("a false filter of block {block}: {reason}")]
    FalseFilter {
        /// The block.
        block: BlockHash,
        /// What is wrong with it.
        reason: String,
    },
    /// The peer says two different things about the filters up to a block.
    #[error("said two different things about the filters up to block {block}")]
    FilterEquivocation {
        /// The last block.
        block: BlockHash,
    },
    /// The parts of a block do not follow each other.
    #[error("parts of a block out of order")]
    BrokenParts,
}

impl From<Fault> for DisconnectReason {
    fn from(fault: Fault) -> Self {
        let penalty = match fault {
            Fault::NoHeaders
            | Fault::Stalled
            | Fault::HeightNotShown { .. }
            | Fault::NoInventory
            | Fault::NoFilters
            | Fault::BadRange => Penalty::BackOff,
            Fault::InvalidHeaders(_)
            | Fault::UnlinkedHeaders
            | Fault::RepeatedHeaders
            | Fault::InvalidBlock { .. }
            | Fault::BadInventory(_)
            | Fault::FalseFilter { .. }
            | Fault::FilterEquivocation { .. }
            | Fault::BrokenParts => Penalty::Ban,
        };
        Self::Refused { penalty, source: Arc::new(fault) }
    }
}
