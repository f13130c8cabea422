//! A sink that begins in the middle of a chain.

use tipward_sync::{Block, BlockId, BlockSink, SinkError, async_trait, peer::wire::BlockPart};

/// A sink for a chain that starts at a checkpoint: what it has not stored yet begins there.
pub(super) struct LateSink {
    pub(super) sink: Box<dyn BlockSink>,
    pub(super) start: BlockId,
}

#[async_trait]
impl BlockSink for LateSink {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        match self.sink.cursor().await? {
            Some(cursor) if cursor.height < self.start.height => {
                Err(format!("the sink has {cursor}, and the chain starts with {} only", self.start).into())
            }
            cursor => Ok(Some(cursor.unwrap_or(self.start))),
        }
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        self.sink.apply(block).await
    }

    fn takes_parts(&self) -> bool {
        self.sink.takes_parts()
    }

    async fn apply_part(&mut self, block: BlockId, part: BlockPart) -> Result<(), SinkError> {
        self.sink.apply_part(block, part).await
    }

    async fn abort(&mut self, block: BlockId) -> Result<(), SinkError> {
        self.sink.abort(block).await
    }

    async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError> {
        self.sink.rollback(to).await
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        self.sink.flush().await
    }
}
