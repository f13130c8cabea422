//! Blocks as streams: parts cut at whole transactions, then a verdict.
//!
//! A block can be larger than memory (BSV's exceed 4 GB), so it never travels as one value. A reader yields
//! [`BlockEvent::Part`]s while the bytes arrive and [`BlockEvent::End`] when everything about the block that can be
//! checked while it passes was checked: its checksum, its number of transactions, its merkle root, and where there are witnesses
//! the commitment to them and its weight. If anything fails, [`BlockAborted`](crate::BlockAborted) follows instead of the end, and what the parts carried is void.

use bytes::Bytes;

use crate::BlockHash;

/// Numbers the downloads of one connection, so that the parts of a second attempt are never taken for the first's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DownloadId(pub u64);

/// A run of a block's bytes.
///
/// Parts of one download come in order and without gaps: the next part's `offset` is this one's plus its length. Part 0
/// starts with the header and the transaction count. A cut lies between two transactions, except inside a transaction
/// that is larger than a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockPart {
    /// The block, from the header in part 0.
    pub block: BlockHash,
    /// The download that this part belongs to.
    pub download: DownloadId,
    /// How large the whole block is, in bytes, as its frame says: what a receiver needs to know before it decides to keep it.
    pub block_size: u64,
    /// The part's number, from 0.
    pub index: u32,
    /// Where the part starts in the block, in bytes.
    pub offset: u64,
    /// The number in the block of the first transaction that starts in this part.
    pub first_transaction: u64,
    /// Where transactions start, in bytes from the start of this part, ascending.
    pub transactions: Vec<u32>,
    /// The bytes, never empty.
    pub bytes: Bytes,
    /// The part ends inside a transaction, which the next part continues.
    pub ends_inside_transaction: bool,
}

impl BlockPart {
    /// Where the transactions that start in this part start in the block, in bytes, ascending.
    pub fn transaction_offsets(&self) -> impl ExactSizeIterator<Item = u64> {
        self.transactions.iter().map(|&start| self.offset + u64::from(start))
    }
}

/// What is known of a block when its last byte has passed every check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockEnd {
    /// The block.
    pub block: BlockHash,
    /// The download that ends here.
    pub download: DownloadId,
    /// How many transactions the block has; found, and equal to what it declares.
    pub transactions: u64,
    /// The block's size in bytes.
    pub size: u64,
    /// The number of parts that were yielded.
    pub parts: u32,
    /// Whether the checksum of the frame was compared. Extended frames have none, and neither has a file.
    pub checksum: Verdict,
    /// Whether the merkle root was compared with the header's.
    pub merkle_root: Verdict,
}

/// What became of a check that a block did not fail; one that fails ends the block with
/// [`BlockAborted`](crate::BlockAborted).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was made.
    Verified,
    /// It was not made: it is switched off, or there is nothing to compare with.
    NotChecked,
    /// It is left to the receiver: SHA-256d of the bytes of all parts, in order, must start with these.
    Deferred([u8; 4]),
}

/// What a block reader yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockEvent {
    /// More of the block.
    Part(BlockPart),
    /// The block is complete and passed its checks.
    End(BlockEnd),
}
