//! The archive as a sink. It uses nothing that a sink of yours could not.

use tipward_sync::{Block, BlockId, BlockSink, SinkError, async_trait, peer::wire::BlockPart};

use super::Archive;
use crate::StoreError;

/// Blocks are written when so many bytes of them wait.
const BATCH_BYTES: u64 = 8 << 20;
/// Or so many of them.
const BATCH_BLOCKS: usize = 1000;

/// Writes blocks to an [`Archive`] in batches, since every batch waits for the disk; those too large to be held part by part.
#[derive(Debug)]
pub struct ArchiveSink {
    /// Away while a batch is being written; for good if that panicked.
    archive: Option<Archive>,
    pending: Vec<Block>,
    pending_bytes: u64,
}

impl ArchiveSink {
    /// A sink into this archive.
    #[must_use]
    pub fn new(archive: Archive) -> Self {
        Self { archive: Some(archive), pending: Vec::new(), pending_bytes: 0 }
    }

    /// Runs something that waits for the disk where it holds up no other task.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Archive) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let mut archive = self.archive.take().ok_or("the archive was lost in a panic")?;
        let (archive, result) = tokio::task::spawn_blocking(move || {
            let result = work(&mut archive);
            (archive, result)
        })
        .await?;
        self.archive = Some(archive);
        Ok(result?)
    }
}

#[async_trait]
impl BlockSink for ArchiveSink {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        self.blocking(|archive| archive.cursor()).await
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        if block.is_streamed {
            return self.blocking(move |archive| archive.append(&[block])).await;
        }
        self.pending_bytes += block.size;
        self.pending.push(block);
        if self.pending_bytes >= BATCH_BYTES || self.pending.len() >= BATCH_BLOCKS {
            self.flush().await?;
        }
        Ok(())
    }

    fn takes_parts(&self) -> bool {
        true
    }

    async fn apply_part(&mut self, block: BlockId, part: BlockPart) -> Result<(), SinkError> {
        // The blocks before it come first.
        self.flush().await?;
        self.blocking(move |archive| archive.append_part(block, &part)).await
    }

    async fn abort(&mut self, _: BlockId) -> Result<(), SinkError> {
        self.blocking(Archive::abort).await
    }

    async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError> {
        self.flush().await?;
        self.blocking(move |archive| archive.rollback(to.height)).await
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        let blocks = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        if blocks.is_empty() {
            return Ok(());
        }
        self.blocking(move |archive| archive.append(&blocks)).await
    }
}
