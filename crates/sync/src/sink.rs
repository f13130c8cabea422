//! Where blocks go.

use std::error::Error;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tipward_peer::{PeerId, wire::BlockPart};

use crate::BlockId;

/// Any error of a sink. It ends the sync and is returned from there.
pub type SinkError = Box<dyn Error + Send + Sync>;

/// A sink's verdict on a block, as the error of [`BlockSink::apply`]: it breaks a rule that only the sink knows. The sync goes
/// on without the block and whatever builds on it, and the sink stays at its parent; in the end it follows the next best branch.
///
/// It is an error like any other, which ends the sync, with [`Order::AsReceived`](crate::Order::AsReceived), where the sink may
/// have what builds on it already, and with any strategy but [`HeadersFirst`](crate::Strategy::HeadersFirst).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the block breaks the rules: {reason}")]
pub struct BlockRejected {
    /// Which rule it breaks; at most 1000 bytes of it are kept.
    pub reason: String,
}

/// A block that passed every check that can be made without other blocks: its checksum, its transaction count, its merkle
/// root, and that it belongs to a header of the best chain.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its hash and height.
    pub id: BlockId,
    /// Its bytes, in order; cut between transactions, except inside one that is larger than a part.
    pub parts: Vec<BlockPart>,
    /// How many transactions it has.
    pub transactions: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Who served it; `None` for a block that was not asked for, such as genesis.
    pub served_by: Option<PeerId>,
    /// The parts went to [`BlockSink::apply_part`] before, and `parts` is empty.
    pub is_streamed: bool,
}

impl Block {
    /// The whole block in one piece; copied only if it has several parts.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        match &self.parts[..] {
            [part] => part.bytes.clone(),
            parts => {
                let mut whole = BytesMut::new();
                parts.iter().for_each(|part| whole.extend_from_slice(&part.bytes));
                whole.freeze()
            }
        }
    }

    /// Where transactions start, in bytes from the start of the block, ascending.
    pub fn transaction_offsets(&self) -> impl Iterator<Item = u64> {
        self.parts
            .iter()
            .flat_map(|part| part.transactions.iter().map(|&start| part.offset + u64::from(start)))
    }
}

/// Takes the blocks of the best chain, in order, genesis first.
///
/// Calls come one at a time: every block's parent is the block applied last, or the one rolled back to. On restart the
/// sink's [`cursor`](Self::cursor) is the truth: a sink that stores its cursor in one transaction with its data sees every
/// block exactly once. A slow sink slows the download, never a peer's standing.
#[async_trait]
pub trait BlockSink: Send + 'static {
    /// The last block whose effects are stored; `None` before the first. Called once, at the start.
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError>;

    /// Takes the next block. If [`Block::is_streamed`], its parts were taken by [`apply_part`](Self::apply_part), and this
    /// says that it is complete and passed its checks. The error [`BlockRejected`] refuses the block, of which nothing must
    /// stay; [`abort`](Self::abort) follows if it was streamed.
    async fn apply(&mut self, block: Block) -> Result<(), SinkError>;

    /// Whether this sink takes blocks that are too large to be held in parts. If not, such a block is collected and given to
    /// [`apply`](Self::apply) whole, which takes its size in memory.
    fn takes_parts(&self) -> bool {
        false
    }

    /// Takes a part of the next block, from part 0 on. It is not known yet whether the block is valid: after the last part
    /// comes [`apply`](Self::apply), or else [`abort`](Self::abort). Called only if [`takes_parts`](Self::takes_parts).
    async fn apply_part(&mut self, _block: BlockId, _part: BlockPart) -> Result<(), SinkError> {
        Err("the sink takes parts but has no apply_part".into())
    }

    /// Forgets the parts of a block that were taken so far; it may come again from its first part. A sink whose process
    /// ended between parts has to forget them by itself: its cursor is still at the block before.
    async fn abort(&mut self, _block: BlockId) -> Result<(), SinkError> {
        Ok(())
    }

    /// There is nothing for this sink in the blocks after the last one up to `to`, which is where it stands from now on: its
    /// cursor moves, and no more. Called only where blocks are chosen by their filters.
    async fn skip(&mut self, to: BlockId) -> Result<(), SinkError> {
        Err(format!("the sink can't skip to {to}: it has no skip").into())
    }

    /// Undoes every block above `to`, which was applied before: they are not on the best chain any more.
    async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError>;

    /// Makes durable what is still held back. Called a quarter of a second after the first call since the last flush, and
    /// at the end. Sinks that hold nothing back need not implement it.
    async fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}
