//! A sink that keeps everything, trusts nothing, and can be stopped at a height.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tipward_chain::sync::{
    Block, BlockId, BlockSink, SinkError, async_trait,
    peer::wire::{BlockHash, BlockPart, bitcoin::BlockHeader},
};
use tokio::sync::watch;

/// A record of the chain in memory. It outlives the node that fills it, as a database would: a sink made of it later has its
/// cursor where the last one had left it.
///
/// Its sink fails, and so the sync, when a call is not what [`BlockSink`] promises: every block is the child of the last one,
/// every rollback undoes something and leads to a block that is there, parts are complete and in order.
#[derive(Debug, Clone)]
pub struct Record {
    books: Arc<Mutex<Books>>,
    /// The height at which nothing is applied before the gate is opened.
    gate: watch::Sender<u64>,
    takes_parts: bool,
}

/// A block as the sink got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its hash.
    pub hash: BlockHash,
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// Where transactions start, in bytes from the start of the block.
    pub transactions: Vec<u64>,
    /// In how many parts it came by [`BlockSink::apply_part`]; 0 if it came whole.
    pub parts: u32,
}

#[derive(Debug, Default)]
struct Books {
    /// By height.
    blocks: Vec<Recorded>,
    applied: u64,
    /// To which height, in order.
    rollbacks: Vec<u64>,
    arriving: Option<Recorded>,
    aborted: u64,
}

impl Default for Record {
    fn default() -> Self {
        Self { books: Arc::default(), gate: watch::Sender::new(u64::MAX), takes_parts: false }
    }
}

impl Record {
    /// One whose sinks take large blocks in parts.
    #[must_use]
    pub fn in_parts() -> Self {
        Self { takes_parts: true, ..Self::default() }
    }

    /// A sink that goes on where the last one ended.
    #[must_use]
    pub fn sink(&self) -> impl BlockSink + use<> {
        RecordSink(self.clone())
    }

    /// Lets no block of this height or above through, until the gate is moved again; [`u64::MAX`] opens it.
    pub fn stop_before(&self, height: u64) {
        self.gate.send_replace(height);
    }

    /// The blocks, by height.
    #[must_use]
    pub fn blocks(&self) -> Vec<Recorded> {
        self.books().blocks.clone()
    }

    /// The last block.
    #[must_use]
    pub fn tip(&self) -> Option<BlockId> {
        self.books().tip()
    }

    /// How often a block was applied.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.books().applied
    }

    /// The heights that were rolled back to, in order.
    #[must_use]
    pub fn rollbacks(&self) -> Vec<u64> {
        self.books().rollbacks.clone()
    }

    /// How many parts have come of a block whose end has not.
    #[must_use]
    pub fn arriving(&self) -> u32 {
        self.books().arriving.as_ref().map_or(0, |arriving| arriving.parts)
    }

    /// How often parts were to be forgotten.
    #[must_use]
    pub fn aborted(&self) -> u64 {
        self.books().aborted
    }

    /// It holds exactly these blocks.
    ///
    /// # Panics
    /// It does not.
    pub fn assert_holds(&self, expected: &[(BlockHash, Vec<u8>)]) {
        let books = self.books();
        assert_eq!(books.blocks.len(), expected.len(), "blocks in the record");
        for (height, (found, (hash, bytes))) in books.blocks.iter().zip(expected).enumerate() {
            assert_eq!(found.hash, *hash, "hash at height {height}");
            assert!(found.bytes == *bytes, "the bytes at height {height} differ");
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn tip(&self) -> Option<BlockId> {
        let last = self.blocks.last()?;
        Some(BlockId { height: self.blocks.len() as u64 - 1, hash: last.hash })
    }

    fn part(&mut self, id: BlockId, part: &BlockPart) -> Result<(), String> {
        if part.index == 0 && self.arriving.is_some() {
            return Err(format!("{id} begins while another is arriving"));
        }
        let arriving = self.arriving.get_or_insert_with(|| Recorded {
            hash: id.hash,
            bytes: Vec::new(),
            transactions: Vec::new(),
            parts: 0,
        });
        let expected = (id.hash, arriving.parts, arriving.bytes.len(), arriving.transactions.len());
        if (arriving.hash, part.index, part.offset as usize, part.first_transaction as usize) != expected {
            return Err(format!(
                "part {} of {id} at {} does not follow {expected:?}",
                part.index, part.offset
            ));
        }
        arriving.bytes.extend_from_slice(&part.bytes);
        arriving.transactions.extend(part.transaction_offsets());
        arriving.parts += 1;
        Ok(())
    }

    fn apply(&mut self, block: &Block) -> Result<(), String> {
        let id = block.id;
        let whole = Recorded {
            hash: id.hash,
            bytes: block.bytes().to_vec(),
            transactions: block.transaction_offsets().collect(),
            parts: 0,
        };
        let recorded = match self.arriving.take() {
            Some(arriving) if block.is_streamed => arriving,
            None if !block.is_streamed => whole,
            arriving => return Err(format!("{id} ends while {:?} is arriving", arriving.map(|it| it.hash))),
        };
        let size = (recorded.bytes.len() as u64, recorded.transactions.len() as u64);
        if size != (block.size, block.transactions) || recorded.hash != id.hash {
            return Err(format!("{id} is said to have {} bytes: {size:?}", block.size));
        }
        let header: &[u8; BlockHeader::SIZE] = recorded.bytes.first_chunk().ok_or("no header")?;
        let header = BlockHeader::from_bytes(header);
        let parent = self.blocks.last().map_or(BlockHash::ZERO, |last| last.hash);
        if (header.hash(), header.parent, id.height) != (id.hash, parent, self.blocks.len() as u64) {
            return Err(format!("{id} does not follow {:?}", self.tip()));
        }
        self.blocks.push(recorded);
        self.applied += 1;
        Ok(())
    }

    fn roll_back(&mut self, to: BlockId) -> Result<(), String> {
        let keep = to.height as usize + 1;
        if keep >= self.blocks.len() || self.blocks.get(to.height as usize).map(|it| it.hash) != Some(to.hash)
        {
            return Err(format!("rolled back to {to} from {:?}", self.tip()));
        }
        if self.arriving.is_some() {
            return Err(format!("rolled back to {to} while a block is arriving"));
        }
        self.blocks.truncate(keep);
        self.rollbacks.push(to.height);
        Ok(())
    }
}

struct RecordSink(Record);

#[async_trait]
impl BlockSink for RecordSink {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        let mut books = self.0.books();
        // What was open when the last sink ended is void.
        books.arriving = None;
        Ok(books.tip())
    }

    fn takes_parts(&self) -> bool {
        self.0.takes_parts
    }

    async fn apply_part(&mut self, id: BlockId, part: BlockPart) -> Result<(), SinkError> {
        Ok(self.0.books().part(id, &part)?)
    }

    async fn abort(&mut self, _block: BlockId) -> Result<(), SinkError> {
        let mut books = self.0.books();
        books.arriving.take().ok_or("there is nothing to forget")?;
        books.aborted += 1;
        Ok(())
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        self.0.gate.subscribe().wait_for(|closed| block.id.height < *closed).await?;
        Ok(self.0.books().apply(&block)?)
    }

    async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError> {
        Ok(self.0.books().roll_back(to)?)
    }
}
