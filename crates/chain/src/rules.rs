//! Rules for blocks beyond headers and merkle roots, which users bring: a validating library, a ledger.

use tipward_sync::{Block, BlockId, SinkError, async_trait, peer::wire::BlockPart};

/// What block rules say about a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The sink may have it.
    Valid,
    /// It breaks a rule, this one. The block and everything that builds on it are given up for good: the next best branch is
    /// followed, and who insists on headers of this one is dropped.
    Invalid(String),
}

/// Decides which blocks are valid, one after the other in the order of the chain, before the sink sees them. See
/// [`NodeBuilder::block_rules`](crate::NodeBuilder::block_rules).
///
/// Its own place in the chain must follow from what it has stored: a block may come again that was valid before, if the
/// process ended before the sink had it, and then every block after it.
#[async_trait]
pub trait BlockRules: Send + 'static {
    /// Checks the next block. If [`Block::is_streamed`], its parts were taken by [`check_part`](Self::check_part).
    ///
    /// # Errors
    /// It can't be checked, which ends the node.
    async fn check(&mut self, block: &Block) -> Result<Verdict, SinkError>;

    /// The blocks above this one, which were valid, are not on the best chain any more.
    ///
    /// # Errors
    /// They can't be undone, which ends the node.
    async fn rollback(&mut self, _to: BlockId) -> Result<(), SinkError> {
        Ok(())
    }

    /// Whether blocks that are too large to be held are taken in parts. If not, such a block is collected, which takes its size
    /// in memory.
    fn takes_parts(&self) -> bool {
        false
    }

    /// Takes a part of the next block, from part 0 on. Called only if [`takes_parts`](Self::takes_parts).
    ///
    /// # Errors
    /// It can't be taken, which ends the node.
    async fn check_part(&mut self, _block: BlockId, _part: &BlockPart) -> Result<(), SinkError> {
        Ok(())
    }

    /// Forgets the parts of a block that were taken so far.
    ///
    /// # Errors
    /// They can't be forgotten, which ends the node.
    async fn abort(&mut self, _block: BlockId) -> Result<(), SinkError> {
        Ok(())
    }
}
