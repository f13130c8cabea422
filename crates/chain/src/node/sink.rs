//! What stands between the sync and the user's sink.

use tipward_sync::{Block, BlockId, BlockRejected, BlockSink, SinkError, async_trait, peer::wire::BlockPart};

use crate::{BlockRules, Queries, Verdict};

/// Asks the user's rules before the sink, and keeps in mind how far the sink is, for those who ask the node.
pub(super) struct NodeSink {
    pub(super) sink: Box<dyn BlockSink>,
    /// For a chain that starts at a checkpoint: what the sink has not stored yet begins there.
    pub(super) start: Option<BlockId>,
    pub(super) queries: Queries,
    pub(super) rules: Option<Box<dyn BlockRules>>,
    /// The last block that the sink has.
    pub(super) at: Option<BlockId>,
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
        self.at = cursor;
        self.queries.set_applied(cursor);
        Ok(cursor)
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        let id = block.id;
        if let Some(rules) = &mut self.rules
            && let Verdict::Invalid(reason) = rules.check(&block).await?
        {
            return Err(BlockRejected { reason }.into());
        }
        if let Err(error) = self.sink.apply(block).await {
            // The sink refuses what the rules have let pass: they are not on it either.
            if error.is::<BlockRejected>()
                && let (Some(rules), Some(at)) = (&mut self.rules, self.at)
            {
                rules.rollback(at).await?;
            }
            return Err(error);
        }
        self.at = Some(id);
        self.queries.set_applied(Some(id));
        Ok(())
    }

    fn takes_parts(&self) -> bool {
        self.sink.takes_parts() && self.rules.as_ref().is_none_or(|rules| rules.takes_parts())
    }

    async fn apply_part(&mut self, block: BlockId, part: BlockPart) -> Result<(), SinkError> {
        if let Some(rules) = &mut self.rules {
            rules.check_part(block, &part).await?;
        }
        self.sink.apply_part(block, part).await
    }

    async fn abort(&mut self, block: BlockId) -> Result<(), SinkError> {
        if let Some(rules) = &mut self.rules {
            rules.abort(block).await?;
        }
        self.sink.abort(block).await
    }

    async fn skip(&mut self, to: BlockId) -> Result<(), SinkError> {
        self.sink.skip(to).await?;
        self.at = Some(to);
        self.queries.set_applied(Some(to));
        Ok(())
    }

    async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError> {
        self.sink.rollback(to).await?;
        if let Some(rules) = &mut self.rules {
            rules.rollback(to).await?;
        }
        self.at = Some(to);
        self.queries.set_applied(Some(to));
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        self.sink.flush().await
    }
}
