//! The task of a sink: one call after the other, in the order of the commands, and a flush in between.
//!
//! Small blocks come by the ten thousand a second, so commands are taken and acknowledged many at a time.

use std::time::{Duration, Instant};

use tipward_peer::wire::BlockPart;
use tokio::{
    sync::{broadcast, mpsc},
    time::timeout_at,
};
use tracing::{Instrument, Span, debug_span, trace_span};

use crate::{Block, BlockId, BlockRejected, BlockSink, Event, SinkError, metrics};

/// How long a sink may hold back what it has applied.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
/// How many commands are taken at once.
const BATCH: usize = 64;
/// After so many commands the driver is told that they are done, or it would have nothing to follow them up with.
const MAX_UNTOLD: usize = 32;
/// After so long it is told of fewer.
const UNTOLD_INTERVAL: Duration = Duration::from_millis(5);

/// What a sink is told, in this order.
#[derive(Debug)]
pub(crate) enum SinkCommand {
    Apply(Block),
    ApplyPart(BlockId, BlockPart),
    Abort(BlockId),
    Skip(BlockId),
    Rollback(BlockId),
}

/// What the sink has done since the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// How many commands.
    pub(crate) commands: usize,
    /// The block that the last of them was for, if the sink has refused it, and why.
    pub(crate) rejected: Option<(BlockId, String)>,
    /// The last block that was applied or rolled back to.
    pub(crate) reached: Option<BlockId>,
    /// Blocks applied that came from peers.
    pub(crate) blocks: u64,
    /// Transactions in them.
    pub(crate) transactions: u64,
    /// Bytes of them.
    pub(crate) bytes: u64,
}

/// Passes commands to the sink until there are no more; then flushes. A block that is not finished by then is aborted first.
///
/// A block that the sink refuses is told of, if it `may_reject`. What builds on it is passed over: everything up to the command
/// to roll back below it.
///
/// # Errors
/// The sink's first error. It is not called again after it.
pub(crate) async fn deliver(
    sink: Box<dyn BlockSink>,
    inbox: mpsc::UnboundedReceiver<SinkCommand>,
    acks: mpsc::Sender<Delivered>,
    events: broadcast::Sender<Event>,
    may_reject: bool,
) -> Result<(), SinkError> {
    let mut delivery = Delivery {
        takes_parts: sink.takes_parts(),
        sink,
        may_reject,
        rejected: None,
        open: None,
        flush_at: None,
        untold: Delivered::default(),
        told: now(),
        acks,
        events,
    };
    let result = delivery.run(inbox).await;
    // What was done before an error was done.
    delivery.tell().await;
    result
}

struct Delivery {
    sink: Box<dyn BlockSink>,
    takes_parts: bool,
    may_reject: bool,
    /// The block that was refused, until the sink is to go back below it.
    rejected: Option<BlockId>,
    /// The block of which parts came and whose end did not.
    open: Option<Open>,
    flush_at: Option<Instant>,
    /// Done, and not acknowledged.
    untold: Delivered,
    /// When was acknowledged last.
    told: Instant,
    acks: mpsc::Sender<Delivered>,
    events: broadcast::Sender<Event>,
}

struct Open {
    block: BlockId,
    /// For a sink that takes no parts.
    parts: Vec<BlockPart>,
}

impl Delivery {
    async fn run(&mut self, mut inbox: mpsc::UnboundedReceiver<SinkCommand>) -> Result<(), SinkError> {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let next = inbox.recv_many(&mut batch, BATCH);
            let count = match self.flush_at {
                None => next.await,
                Some(at) => match timeout_at(at.into(), next).await {
                    Ok(count) => count,
                    Err(_) => {
                        self.flush().await?;
                        continue;
                    }
                },
            };
            if count == 0 {
                if let Some(open) = self.open.take() {
                    self.abort(open.block).await?;
                }
                return self.flush().await;
            }
            // What it waited for is no command's.
            self.told = now();
            let mut begun = self.told;
            for command in batch.drain(..) {
                let name = self.obey(command).await?;
                let done = now();
                metrics::sink(name, done - begun);
                begun = done;
                self.untold.commands += 1;
                if self.untold.commands >= MAX_UNTOLD
                    || self.untold.rejected.is_some()
                    || done >= self.told + UNTOLD_INTERVAL
                {
                    self.tell().await;
                    self.told = done;
                }
                if done >= *self.flush_at.get_or_insert(done + FLUSH_INTERVAL) {
                    self.flush().await?;
                    begun = now();
                }
            }
            self.tell().await;
        }
    }

    /// Does it; returns its name.
    async fn obey(&mut self, command: SinkCommand) -> Result<&'static str, SinkError> {
        let Some(command) = self.unless_passed_over(command) else { return Ok("pass_over") };
        match command {
            SinkCommand::Apply(block) => {
                self.apply(block).await?;
                Ok("apply")
            }
            SinkCommand::ApplyPart(block, part) => {
                self.part(block, part).await?;
                Ok("apply_part")
            }
            SinkCommand::Abort(block) => {
                self.open = None;
                self.abort(block).await?;
                Ok("abort")
            }
            SinkCommand::Skip(to) => {
                let span = debug_span!("skip", height = to.height, hash = %to.hash);
                self.sink.skip(to).instrument(span).await?;
                self.untold.reached = Some(to);
                Ok("skip")
            }
            SinkCommand::Rollback(to) => {
                let span = debug_span!("rollback", height = to.height, hash = %to.hash);
                self.sink.rollback(to).instrument(span).await?;
                self.untold.reached = Some(to);
                Ok("rollback")
            }
        }
    }

    /// The command, unless it is void because of a block that was refused.
    fn unless_passed_over(&mut self, command: SinkCommand) -> Option<SinkCommand> {
        let Some(rejected) = self.rejected else { return Some(command) };
        let SinkCommand::Rollback(to) = command else { return None };
        if to.height >= rejected.height {
            return None;
        }
        self.rejected = None;
        // Its parent is where the sink is.
        let is_there = to.height + 1 == rejected.height;
        if is_there {
            self.untold.reached = Some(to);
        }
        (!is_there).then_some(command)
    }

    /// The sink refuses a block.
    async fn reject(&mut self, block: BlockId, was_streamed: bool, reason: String) -> Result<(), SinkError> {
        if was_streamed {
            self.abort(block).await?;
        }
        self.rejected = Some(block);
        self.untold.rejected = Some((block, reason));
        Ok(())
    }

    async fn apply(&mut self, mut block: Block) -> Result<(), SinkError> {
        let open = self.open.take();
        if block.is_streamed && !self.takes_parts {
            (block.parts, block.is_streamed) = (open.map(|open| open.parts).unwrap_or_default(), false);
        }
        let (id, transactions, size) = (block.id, block.transactions, block.size);
        let is_received = block.served_by.is_some();
        let (span, is_streamed) = (block_span(id, size), block.is_streamed);
        if let Err(error) = self.sink.apply(block).instrument(span).await {
            return match error.downcast::<BlockRejected>() {
                Ok(rejected) if self.may_reject => self.reject(id, is_streamed, rejected.reason).await,
                Ok(rejected) => Err(rejected),
                Err(error) => Err(error),
            };
        }
        self.untold.reached = Some(id);
        if is_received {
            self.untold.blocks += 1;
            self.untold.transactions += transactions;
            self.untold.bytes += size;
        }
        if self.events.receiver_count() > 0 {
            // The last listener may have left.
            self.events.send(Event::Applied { block: id, transactions, size }).ok();
        }
        Ok(())
    }

    async fn part(&mut self, block: BlockId, part: BlockPart) -> Result<(), SinkError> {
        let open = self.open.get_or_insert_with(|| Open { block, parts: Vec::new() });
        if !self.takes_parts {
            open.parts.push(part);
            return Ok(());
        }
        let span = trace_span!("apply_part", height = block.height, hash = %block.hash, part = part.index);
        self.sink.apply_part(block, part).instrument(span).await
    }

    /// A sink that was given no parts has nothing to forget.
    async fn abort(&mut self, block: BlockId) -> Result<(), SinkError> {
        if !self.takes_parts {
            return Ok(());
        }
        let span = debug_span!("abort", height = block.height, hash = %block.hash);
        self.sink.abort(block).instrument(span).await
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        self.flush_at = None;
        let begun = now();
        self.sink.flush().instrument(trace_span!("flush")).await?;
        metrics::sink("flush", now() - begun);
        Ok(())
    }

    async fn tell(&mut self) {
        let done = std::mem::take(&mut self.untold);
        if done.commands > 0 {
            // The driver may have ended.
            self.acks.send(done).await.ok();
        }
    }
}

fn block_span(block: BlockId, size: u64) -> Span {
    debug_span!("apply", height = block.height, hash = %block.hash, size)
}

/// The runtime's clock, which tests can move.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
