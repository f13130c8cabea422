//! A block archive: raw blocks in append-only segment files, indexed by hash and height.
//!
//! Segments have the nodes' own framing (`magic | length | block`), so other tools read them too. The index is a `redb`
//! file; a block counts when it is in there. Bytes are written and synced before their index entries are, so after a crash
//! a segment may have a tail that nobody points to, which is cut on opening, and never the other way round. So a block that
//! comes in parts can be written as they come.

mod parts;
mod segments;
mod sink;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tipward_sync::{Block, BlockId, peer::wire::BlockHash};

use crate::{Coin, StoreError, store::open_database};
use parts::Begun;
use segments::Segments;
pub use sink::ArchiveSink;

/// Where each block is, by hash: segment, offset of its first byte, size, transactions, height.
const BLOCKS: TableDefinition<&[u8; 32], (u32, u64, u64, u64, u64)> = TableDefinition::new("blocks");
/// The best chain: hash by height. Its last entry is the cursor.
const HEIGHTS: TableDefinition<u64, &[u8; 32]> = TableDefinition::new("heights");
/// The end of the indexed bytes: segment, offset. One entry.
const END: TableDefinition<(), (u32, u64)> = TableDefinition::new("end");

/// A block in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchivedBlock {
    /// Hash and height.
    pub id: BlockId,
    /// Its size in bytes.
    pub size: u64,
    /// How many transactions it has.
    pub transactions: u64,
    /// The number of the segment it is in.
    pub segment: u32,
    /// Where its first byte is in the segment.
    pub offset: u64,
}

/// The archive of one network, in a directory of its own. One process can have it open.
#[derive(Debug)]
pub struct Archive {
    index_path: PathBuf,
    database: Database,
    segments: Segments,
    /// The block of which parts were taken and not yet the end.
    begun: Option<Begun>,
}

impl Archive {
    /// Opens the archive, or creates it, and cuts what a crash has left behind.
    ///
    /// # Errors
    /// It is in use, belongs to another network, or can't be read or written.
    pub fn open(dir: &Path, coin: &dyn Coin) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(StoreError::io(dir))?;
        let path = dir.join("index.redb");
        let database = open_database(&path, coin, coin.genesis_header().hash)?;
        let transaction = database.begin_write().map_err(StoreError::database(&path))?;
        let end = {
            transaction.open_table(BLOCKS).map_err(StoreError::database(&path))?;
            transaction.open_table(HEIGHTS).map_err(StoreError::database(&path))?;
            let end = transaction.open_table(END).map_err(StoreError::database(&path))?;
            end.get(()).map_err(StoreError::database(&path))?.map_or((0, 0), |end| end.value())
        };
        transaction.commit().map_err(StoreError::database(&path))?;
        let segments = Segments::open(dir, coin.magic(), end)?;
        Ok(Self { index_path: path, database, segments, begun: None })
    }

    /// The network that the archive in `dir` belongs to; `None` if there is none.
    ///
    /// # Errors
    /// It is in use, or can't be read.
    pub fn network_name(dir: &Path) -> Result<Option<String>, StoreError> {
        crate::store::network_of(&dir.join("index.redb"))
    }

    /// The last block of the best chain.
    ///
    /// # Errors
    /// The index can't be read.
    pub fn cursor(&self) -> Result<Option<BlockId>, StoreError> {
        let transaction = self.database.begin_read().map_err(self.failed())?;
        let heights = transaction.open_table(HEIGHTS).map_err(self.failed())?;
        let last = heights.last().map_err(self.failed())?;
        Ok(last.map(|(height, hash)| BlockId {
            height: height.value(),
            hash: BlockHash::from_bytes(*hash.value()),
        }))
    }

    /// Appends blocks of the best chain, each the child of the one before, and makes them durable. A block that is there
    /// from before a rollback is not written again. The first may be one that is [streamed](Block::is_streamed), whose parts
    /// [`append_part`](Self::append_part) has taken; of any other block that was begun nothing stays.
    ///
    /// # Errors
    /// They can't be written, or parts are missing; none of them counts then.
    pub fn append(&mut self, blocks: &[Block]) -> Result<(), StoreError> {
        let mut streamed = self.complete(blocks.first().filter(|first| first.is_streamed))?;
        let transaction = self.database.begin_write().map_err(self.failed())?;
        {
            let mut index = transaction.open_table(BLOCKS).map_err(self.failed())?;
            let mut heights = transaction.open_table(HEIGHTS).map_err(self.failed())?;
            for block in blocks {
                let hash = block.id.hash.as_bytes();
                if index.get(hash).map_err(self.failed())?.is_none() {
                    let (segment, offset) = match streamed.take() {
                        Some(place) => place,
                        None => self.segments.append(block)?,
                    };
                    let entry = (segment, offset, block.size, block.transactions, block.id.height);
                    index.insert(hash, entry).map_err(self.failed())?;
                }
                heights.insert(block.id.height, hash).map_err(self.failed())?;
            }
            self.segments.sync()?;
            let mut end = transaction.open_table(END).map_err(self.failed())?;
            end.insert((), self.segments.end()).map_err(self.failed())?;
        }
        transaction.commit().map_err(self.failed())
    }

    /// Takes every block above `height` off the best chain. Their bytes stay and are found by hash.
    ///
    /// # Errors
    /// The index can't be written.
    pub fn rollback(&mut self, height: u64) -> Result<(), StoreError> {
        self.abort()?;
        let transaction = self.database.begin_write().map_err(self.failed())?;
        {
            let mut heights = transaction.open_table(HEIGHTS).map_err(self.failed())?;
            heights.retain_in(height + 1.., |_, _| false).map_err(self.failed())?;
        }
        transaction.commit().map_err(self.failed())
    }

    /// The block of that hash, on the best chain or not.
    ///
    /// # Errors
    /// The index can't be read.
    pub fn by_hash(&self, hash: BlockHash) -> Result<Option<ArchivedBlock>, StoreError> {
        let transaction = self.database.begin_read().map_err(self.failed())?;
        let index = transaction.open_table(BLOCKS).map_err(self.failed())?;
        let entry = index.get(hash.as_bytes()).map_err(self.failed())?;
        Ok(entry.map(|entry| {
            let (segment, offset, size, transactions, height) = entry.value();
            ArchivedBlock { id: BlockId { height, hash }, size, transactions, segment, offset }
        }))
    }

    /// The block at a height of the best chain.
    ///
    /// # Errors
    /// The index can't be read.
    pub fn by_height(&self, height: u64) -> Result<Option<ArchivedBlock>, StoreError> {
        let hash = {
            let transaction = self.database.begin_read().map_err(self.failed())?;
            let heights = transaction.open_table(HEIGHTS).map_err(self.failed())?;
            heights.get(height).map_err(self.failed())?.map(|hash| BlockHash::from_bytes(*hash.value()))
        };
        hash.map_or(Ok(None), |hash| self.by_hash(hash))
    }

    /// A reader over the block's bytes.
    ///
    /// # Errors
    /// Its segment can't be opened.
    pub fn read(&self, block: &ArchivedBlock) -> Result<io::Take<File>, StoreError> {
        self.segments.read(block.segment, block.offset, block.size)
    }

    fn failed<E: Into<redb::Error>>(&self) -> impl Fn(E) -> StoreError + use<E> {
        StoreError::database(&self.index_path)
    }
}

#[cfg(test)]
mod tests;
