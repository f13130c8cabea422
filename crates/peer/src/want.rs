//! The upper half of the waist: what every chain can be asked, and what it answers.

use std::fmt;

use tipward_wire::{BlockEnd, BlockHash, BlockPart, Header};

/// Numbers the connections of one manager; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}", self.0)
    }
}

/// A question to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Want {
    /// The headers after the first of these hashes that the peer has on its best chain; highest first.
    HeadersAfter(Vec<BlockHash>),
    /// These blocks, in this order if the peer keeps one.
    Blocks(Vec<BlockHash>),
}

/// An answer, or what a peer says unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// Headers, in the order received; whether they link is for the chain to say.
    Headers {
        /// The headers.
        headers: Vec<Header>,
        /// The message was full: the peer has more after the last of them.
        more: bool,
    },
    /// The peer has these blocks.
    Announced(Vec<BlockHash>),
    /// A part of a block that was asked for. Void if the peer is lost before the block's end.
    Part(BlockPart),
    /// A block that was asked for is complete: every part has come, and checksum, transaction count and merkle root agree.
    BlockEnd(BlockEnd),
    /// More of a block has arrived than its parts tell: so many bytes so far.
    Progress {
        /// Bytes of the block seen so far.
        received: u64,
    },
    /// The peer does not have these blocks.
    Missing(Vec<BlockHash>),
    /// The peer's dialect can't express the question, or can't be asked it now.
    Unsupported(Want),
}

/// A [`Want`] that a dialect can't express, or that would exceed what one peer may be asked at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer can't be asked this")]
pub struct Unsupported;
