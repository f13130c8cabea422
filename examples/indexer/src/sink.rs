//! Blocks to the archive and the index.
//!
//! The sink gives the bytes of a block to the archive and cuts them into runs of whole transactions, which worker threads parse. What
//! they make of them goes through a queue, in the order of the chain, to one thread that writes the index. So a block's bytes are
//! written while its transactions are hashed and those before it are indexed; what is held is bounded by the length of the queue.
//!
//! The index is the truth: a block is committed to it only after it is durable in the archive, and taken back from it
//! before the archive. So after a crash the archive may be ahead, and goes back to where the index is.

use std::{
    io::{self, Read},
    thread,
};

use tipward_chain::{
    Archive, ArchiveSink,
    sync::{
        Block, BlockId, BlockSink, SinkError, async_trait,
        peer::wire::{
            BlockPart,
            bitcoin::{BlockHeader, Chain},
            bytes::Bytes,
        },
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};

use crate::{
    index::{Index, IndexError},
    parse::{Parsed, parse, parse_large},
};

/// The index is committed at the latest after so many bytes of blocks.
const COMMIT_BYTES: u64 = 128 << 20;
/// How many runs of transactions may be parsed or wait for each core, each of a part of a block at most, which is 1 MiB.
const QUEUE_PER_CORE: usize = 4;

type Runs = mpsc::Receiver<io::Result<Parsed>>;

/// What the thread of the index is told, in this order.
enum Work {
    Begin(BlockId, [u8; BlockHeader::SIZE]),
    /// The next transactions of the block, parsed or about to be.
    Transactions(Runs),
    Finish {
        id: BlockId,
        transactions: u64,
        size: u64,
    },
    /// All before this is durable in the archive. It need not be committed now if there is more to do.
    Durable {
        commit: bool,
    },
    /// Forget the block that was begun.
    Abort,
    Rollback(BlockId, oneshot::Sender<()>),
}

/// Gives blocks to an archive and an index. See the [module](self).
pub struct IndexSink {
    archive: ArchiveSink,
    chain: Chain,
    cursor: Option<BlockId>,
    work: mpsc::Sender<Work>,
    uncommitted: u64,
    /// Where the bytes go of a transaction that is larger than a part.
    large: Option<mpsc::Sender<Bytes>>,
}

/// The thread that writes the index. It ends when its sink is gone and its work is done.
pub struct Writer(thread::JoinHandle<Result<(), IndexError>>);

impl Writer {
    /// Waits for its end.
    ///
    /// # Errors
    /// What has ended it before, and the sync with it.
    pub fn join(self) -> Result<(), IndexError> {
        self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl IndexSink {
    /// A sink into these, for blocks of this chain. Must be used within a tokio runtime.
    #[must_use]
    pub fn new(archive: Archive, index: Index, chain: Chain) -> (Self, Writer) {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (work, inbox) = mpsc::channel(QUEUE_PER_CORE * cores);
        let (archive, cursor) = (ArchiveSink::new(archive), index.cursor());
        let writer = Writer(thread::spawn(move || write(index, inbox)));
        (Self { archive, chain, cursor, work, uncommitted: 0, large: None }, writer)
    }

    async fn tell(&self, work: Work) -> Result<(), SinkError> {
        // Why it has ended, its owner is told.
        self.work.send(work).await.map_err(|_| "the index can't be written any more".into())
    }

    async fn begin(&self, id: BlockId, part: &BlockPart) -> Result<(), SinkError> {
        let header = part.bytes.first_chunk().ok_or("a block's first part has no header")?;
        self.tell(Work::Begin(id, *header)).await
    }

    /// Hands the transactions of a part on to be parsed.
    async fn transactions(&mut self, part: &BlockPart) -> Result<(), SinkError> {
        let end = part.bytes.len();
        let mut starts = part.transactions.iter().map(|&start| start as usize);
        let first = starts.next().unwrap_or(end);
        if let Some(large) = &self.large {
            // If nobody takes them, the thread of the index knows why.
            large.send(part.bytes.slice(..first)).await.ok();
            if first < end || !part.ends_inside_transaction {
                self.large = None;
            }
        }
        let whole = if part.ends_inside_transaction { starts.next_back().unwrap_or(first) } else { end };
        if first < whole {
            let (chain, bytes) = (self.chain, part.bytes.slice(first..whole));
            let offset = part.offset + first as u64;
            let (give, runs) = mpsc::channel(1);
            spawn_blocking(move || give.blocking_send(parse(chain, bytes, offset)));
            self.tell(Work::Transactions(runs)).await?;
        }
        if whole < end {
            let (large, bytes) = mpsc::channel(1);
            let runs = self.parse_large(bytes, part.offset + whole as u64);
            self.tell(Work::Transactions(runs)).await?;
            large.send(part.bytes.slice(whole..)).await.ok();
            self.large = Some(large);
        }
        Ok(())
    }

    fn parse_large(&self, bytes: mpsc::Receiver<Bytes>, offset: u64) -> Runs {
        let (chain, (give, runs)) = (self.chain, mpsc::channel(1));
        spawn_blocking(move || {
            let source = Pieces { bytes, piece: Bytes::new() };
            let gone = |_| io::Error::other("the index does not wait for it any more");
            let parsed = parse_large(chain, source, offset, |run| give.blocking_send(Ok(run)).map_err(gone));
            if let Err(error) = parsed {
                give.blocking_send(Err(error)).ok();
            }
        });
        runs
    }

    async fn durable(&mut self, commit: bool) -> Result<(), SinkError> {
        self.archive.flush().await?;
        self.uncommitted = 0;
        self.tell(Work::Durable { commit }).await
    }
}

#[async_trait]
impl BlockSink for IndexSink {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        let (index, archive) = (self.cursor, self.archive.cursor().await?);
        if let Some(archived) = archive {
            let genesis = BlockId { height: 0, hash: archived.hash };
            self.archive.rollback(index.unwrap_or(genesis)).await?;
        }
        let archive = self.archive.cursor().await?;
        if index.is_some() && archive != index {
            let name = |id: Option<BlockId>| id.map_or("nowhere".to_owned(), |id| id.to_string());
            let (index, archive) = (name(index), name(archive));
            return Err(format!(
                "the index is at {index} and the archive at {archive}: delete the index, and it is built anew"
            )
            .into());
        }
        Ok(index)
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        let Block { id, transactions, size, .. } = block;
        let parts = if block.is_streamed { Vec::new() } else { block.parts.clone() };
        self.archive.apply(block).await?;
        if let Some(first) = parts.first() {
            self.begin(id, first).await?;
        }
        for part in &parts {
            self.transactions(part).await?;
        }
        self.tell(Work::Finish { id, transactions, size }).await?;
        self.uncommitted += size;
        if self.uncommitted >= COMMIT_BYTES { self.durable(true).await } else { Ok(()) }
    }

    fn takes_parts(&self) -> bool {
        true
    }

    async fn apply_part(&mut self, block: BlockId, part: BlockPart) -> Result<(), SinkError> {
        if part.index == 0 {
            // If the block comes to nothing, those before it stay.
            self.large = None;
            self.durable(true).await?;
            self.begin(block, &part).await?;
        }
        self.transactions(&part).await?;
        self.archive.apply_part(block, part).await
    }

    async fn abort(&mut self, block: BlockId) -> Result<(), SinkError> {
        self.large = None;
        self.tell(Work::Abort).await?;
        self.archive.abort(block).await
    }

    async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError> {
        self.archive.flush().await?;
        let (done, is_done) = oneshot::channel();
        self.tell(Work::Rollback(to, done)).await?;
        is_done.await.map_err(|_| "the index can't be written any more")?;
        self.archive.rollback(to).await
    }

    /// Makes the archive durable. The index follows when it has nothing else to do, and at the end.
    async fn flush(&mut self) -> Result<(), SinkError> {
        self.durable(false).await
    }
}

/// Bytes that come in pieces, to be read by a thread.
struct Pieces {
    bytes: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.bytes.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.piece.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// The thread of the index.
fn write(mut index: Index, mut inbox: mpsc::Receiver<Work>) -> Result<(), IndexError> {
    // What is wrong with the transactions of this block. It may be void anyway, so that is told when it is complete.
    let mut problem = None;
    while let Some(work) = inbox.blocking_recv() {
        match work {
            Work::Begin(id, header) => {
                problem = None;
                index.begin(id, &header);
            }
            Work::Transactions(mut runs) => {
                while let Some(run) = runs.blocking_recv() {
                    match run {
                        Ok(parsed) => index.add(&parsed)?,
                        Err(error) => problem = Some(error.to_string()),
                    }
                }
            }
            Work::Finish { id, transactions, size } => match problem.take() {
                Some(problem) => return Err(IndexError::Block { block: id, problem }),
                None => index.finish(transactions, size)?,
            },
            Work::Durable { commit } if commit || inbox.is_empty() => index.commit()?,
            Work::Durable { .. } => {}
            Work::Abort => index.forget()?,
            Work::Rollback(to, done) => {
                index.rollback(to)?;
                done.send(()).ok();
            }
        }
    }
    Ok(())
}
