//! What a network brings to the chain layer. A new coin is one more implementation of [`Coin`].

use std::{fmt, sync::Arc};

use tipward_sync::{
    Block, BlockHead,
    peer::{
        Protocol,
        wire::{BlockHash, Header, bitcoin::Work},
    },
};

/// A network, as a node needs it.
pub trait Coin: Send + Sync + fmt::Debug {
    /// The network's name; stores are bound to it.
    fn name(&self) -> &'static str;

    /// What starts each record of a block file.
    fn magic(&self) -> [u8; 4];

    /// How to talk to its nodes.
    fn protocol(&self) -> Arc<dyn Protocol>;

    /// Which headers are valid.
    fn rules(&self) -> Box<dyn HeaderRules>;

    /// Reads a header as it was stored, hash included.
    ///
    /// # Errors
    /// [`HeaderError::Length`] if it is none.
    fn parse_header(&self, raw: &[u8]) -> Result<Header, HeaderError>;

    /// The header of block 0.
    fn genesis_header(&self) -> Header;

    /// Block 0.
    fn genesis_block(&self) -> Block;
}

/// What makes a header valid by itself, and what it weighs in the choice between branches.
pub trait HeaderRules: Send + Sync + fmt::Debug {
    /// The work of a header at this height.
    ///
    /// # Errors
    /// The rule that it breaks.
    fn check(&self, header: &Header, height: u64) -> Result<Work, HeaderError>;

    /// What a block says about itself in its first bytes, once everything about its header was checked that can be without
    /// knowing its place in the chain.
    ///
    /// # Errors
    /// There is no header, or the rule that it breaks.
    fn read_head(&self, start: &[u8]) -> Result<BlockHead, HeaderError>;
}

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
}
