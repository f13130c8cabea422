//! The task of a sink: one call after the other, and a flush in between.

use std::time::{Duration, Instant};

use tokio::{sync::mpsc, time::timeout_at};

use crate::{Block, BlockId, BlockSink, SinkError};

/// How long a sink may hold back what it has applied.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

/// What a sink is told, in this order.
pub(crate) enum SinkCommand {
    Apply(Block),
    Rollback(BlockId),
}

/// A block that the sink has applied.
pub(crate) struct Applied {
    pub(crate) block: BlockId,
    pub(crate) transactions: u64,
    pub(crate) size: u64,
    /// It came from a peer.
    pub(crate) is_received: bool,
}

/// Passes commands to the sink until there are no more; then flushes.
pub(crate) async fn deliver(
    mut sink: Box<dyn BlockSink>,
    mut inbox: mpsc::Receiver<SinkCommand>,
    acks: mpsc::Sender<Option<Applied>>,
) -> Result<(), SinkError> {
    let mut flush_at: Option<Instant> = None;
    loop {
        if flush_at.is_some_and(|at| at <= Instant::now()) {
            sink.flush().await?;
            flush_at = None;
        }
        let command = match flush_at {
            None => inbox.recv().await,
            Some(at) => match timeout_at(at.into(), inbox.recv()).await {
                Ok(command) => command,
                Err(_) => continue,
            },
        };
        match command {
            None => return sink.flush().await,
            Some(SinkCommand::Rollback(to)) => {
                sink.rollback(to).await?;
                acks.send(None).await.ok();
            }
            Some(SinkCommand::Apply(block)) => {
                let applied = Applied {
                    block: block.id,
                    transactions: block.transactions,
                    size: block.size,
                    is_received: block.served_by.is_some(),
                };
                sink.apply(block).await?;
                // The driver may have ended.
                acks.send(Some(applied)).await.ok();
            }
        }
        flush_at.get_or_insert_with(|| Instant::now() + FLUSH_INTERVAL);
    }
}
