//! A block header as every layer passes it on, whatever the chain.

use bytes::Bytes;

use crate::BlockHash;

/// A header in its chain's own encoding, with the two identifiers that every chain has.
///
/// The hash was computed from `raw` by the dialect that received it; nothing else about the header is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The block's identifier.
    pub hash: BlockHash,
    /// The identifier of the block's parent; [`BlockHash::ZERO`] for a genesis block.
    pub parent: BlockHash,
    /// The header as it travels: 80 bytes for Bitcoin.
    pub raw: Bytes,
}
