//! The archive as a sink. It uses nothing that a sink of yours could not.

use tipward_sync::{Block, BlockId, BlockSink, SinkError, async_trait, peer::wire::BlockPart};

use super::Archive;
use crate::StoreError;

/// Blocks are written when so many bytes of them wait.
const BATCH_BYTES: u64 = 8 << 20;
/// Or so many of them.
const BATCH_BLOCKS: usize = 1000;
/// What was written is committed at the latest when it is so many bytes: what a fast disk takes between two flushes.
const COMMIT_BYTES: u64 = 128 << 20;

/// Writes blocks to an [`Archive`] in batches, those too large to be held part by part, and commits them when it is told to
/// [flush](BlockSink::flush), since every commit waits for the disk.
#[derive(Debug)]
pub struct ArchiveSink {
    /// Away while a batch is being written; for good if that panicked.
    archive: Option<Archive>,
    pending: Vec<Block>,
    pending_bytes: u64,
    /// What was written since the last commit.
    written_bytes: u64,
}

impl ArchiveSink {
    /// A sink into this archive.
    #[must_use]
    pub fn new(archive: Archive) -> Self {
        Self { archive: Some(archive), pending: Vec::new(), pending_bytes: 0, written_bytes: 0 }
    }

    /// Writes the blocks that wait, and commits them if that is asked for or due.
    async fn write(&mut self, commit: bool) -> Result<(), SinkError> {
        let blocks = std::mem::take(&mut self.pending);
        self.written_bytes += std::mem::take(&mut self.pending_bytes);
        let commit = commit || self.written_bytes >= COMMIT_BYTES;
        if commit {
            self.written_bytes = 0;
        }
        self.blocking(move |archive| {
            archive.write(&blocks)?;
            if commit { archive.commit() } else { Ok(()) }
        })
        .await
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
            self.write(false).await?;
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
        self.write(true).await
    }
}
