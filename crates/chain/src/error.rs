//! Why headers are refused.

use tipward_sync::peer::wire::BlockHash;

/// Why a header is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// It does not have the length of a header.
    #[error("a header of {len} bytes")]
    Length {
        /// The length in bytes.
        len: usize,
    },
    /// Its target is none, or easier than the network allows.
    #[error("header {hash} claims target {bits}, easier than the network's limit or no target")]
    Target {
        /// The block.
        hash: BlockHash,
        /// The target it claims, in compact form.
        bits: String,
    },
    /// Its hash misses its target.
    #[error("header {hash} lacks proof of work for its target {bits}")]
    ProofOfWork {
        /// The block.
        hash: BlockHash,
        /// The target it claims, in compact form.
        bits: String,
    },
    /// Its parent is not the header before it.
    #[error("header {hash} does not follow the header before it")]
    NotLinked {
        /// The block.
        hash: BlockHash,
    },
    /// It is of a chain that shares this one's past and protocol, and has parted from it.
    #[error("header {hash} belongs to another chain: at height {height} this one has {expected}")]
    OtherChain {
        /// The block.
        hash: BlockHash,
        /// Its height.
        height: u64,
        /// The block that this chain has there.
        expected: BlockHash,
    },
    /// Its target is not the one that follows from the headers before it.
    #[error("header {hash} at height {height} claims target {bits}, where {required} is due")]
    Difficulty {
        /// The block.
        hash: BlockHash,
        /// Its height.
        height: u64,
        /// The target it claims, in compact form.
        bits: String,
        /// The target that is due, in compact form.
        required: String,
    },
    /// Its time is not later than the median of the headers before it.
    #[error("header {hash} has time {time}, not later than {median}, the median of those before it")]
    TimeTooOld {
        /// The block.
        hash: BlockHash,
        /// Its time, in seconds since 1970.
        time: u32,
        /// The median time, in seconds since 1970.
        median: u32,
    },
    /// It begins a period between targets and goes back in time (BIP 94).
    #[error("header {hash} begins a period with time {time}, too long before its parent's {parent}")]
    TimeWarp {
        /// The block.
        hash: BlockHash,
        /// Its time, in seconds since 1970.
        time: u32,
        /// Its parent's time, in seconds since 1970.
        parent: u32,
    },
    /// Its time is too far in the future: it may be valid later.
    #[error("header {hash} has time {time}, too far after the present time {now}")]
    TimeTooNew {
        /// The block.
        hash: BlockHash,
        /// Its time, in seconds since 1970.
        time: u32,
        /// The present time, in seconds since 1970.
        now: u64,
    },
    /// It is not the block that is known to be at its height.
    #[error("header {hash} is not the checkpoint {expected} at height {height}")]
    Checkpoint {
        /// The block.
        hash: BlockHash,
        /// Its height.
        height: u64,
        /// The block that is known to be there.
        expected: BlockHash,
    },
    /// It forks off below a block that is known to be on the chain, and is there.
    #[error("header {hash} at height {height} forks off below the checkpoint at height {checkpoint}")]
    BelowCheckpoint {
        /// The block.
        hash: BlockHash,
        /// Its height.
        height: u64,
        /// The height of the checkpoint.
        checkpoint: u64,
    },
    /// Its block was given up, or one that it builds on: it breaks a rule that headers do not show.
    #[error("header {hash} is of a branch that was rejected: {reason}")]
    Rejected {
        /// The block.
        hash: BlockHash,
        /// The rule.
        reason: String,
    },
    /// What it has to be checked against lies before the first header of the tree.
    #[error("checking a header takes the one at height {height}, which lies before the first that is known")]
    NoPast {
        /// The height.
        height: u64,
    },
    /// It is not one of the chain of headers that was shown before, to prove that it has enough work.
    #[error("header {hash} at height {height} is not of the chain whose work was shown before")]
    OtherThanShown {
        /// The block.
        hash: BlockHash,
        /// Its height.
        height: u64,
    },
    /// So many headers do not have the work that the network is known to have.
    #[error("header {hash} is number {count} of a chain that still has too little work")]
    LowWork {
        /// The block.
        hash: BlockHash,
        /// How many headers there are.
        count: u64,
    },
}
