//! What stands between the sync and the user's sink.

use tipward_sync::{Block, BlockId, BlockSink, SinkError, async_trait, peer::wire::BlockPart};

use crate::Queries;

/// Keeps in mind how far the sink is, for those who ask the node.
pub(super) struct NodeSink {
    pub(super) sink: Box<dyn BlockSink>,
    /// For a chain that starts at a checkpoint: what the sink has not stored yet begins there.
    pub(super) start: Option<BlockId>,
    pub(super) queries: Queries,
}

#[async_trait]
impl BlockSink for NodeSink {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        let cursor = match (self.sink.cursor().await?, self.start) {
            (Some(cursor), Some(start)) if cursor.height < start.height => {
                return Err(format!("the sink has {cursor}, and the chain starts with {start} only").into());
            }
            (cursor, start) => cursor.or(start),
        };
        self.queries.set_applied(cursor);
        Ok(cursor)
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        let id = block.id;
        self.sink.apply(block).await?;
        self.queries.set_applied(Some(id));
        Ok(())
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
        self.sink.rollback(to).await?;
        self.queries.set_applied(Some(to));
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        self.sink.flush().await
    }
}
