//! What only the chain's dialect knows about filters.

use std::{error::Error, fmt};

use bytes::Bytes;
use tipward_peer::wire::{BlockHash, FilterHash, FilterHeader};

use crate::Block;

/// How a chain makes, chains and reads the filters of its blocks (BIP 157 and BIP 158 on Bitcoin).
pub trait FilterRules: Send + Sync + fmt::Debug {
    /// The hash that names a filter.
    fn hash(&self, filter: &Bytes) -> FilterHash;

    /// The filter header after `previous`.
    fn header(&self, hash: FilterHash, previous: FilterHeader) -> FilterHeader;

    /// Whether one of these scripts may be in the block. False without scripts.
    ///
    /// # Errors
    /// The filter is malformed.
    fn matches(
        &self,
        block: BlockHash,
        filter: &Bytes,
        scripts: &[Bytes],
    ) -> Result<bool, Box<dyn Error + Send + Sync>>;

    /// Why this can't be the filter of this block; `None` if it can't be told. The block is as [`BlockSink::apply`] gets it.
    ///
    /// [`BlockSink::apply`]: crate::BlockSink::apply
    fn refute(&self, filter: &Bytes, block: &Block) -> Option<String>;
}
