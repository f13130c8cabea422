//! A block archive: raw blocks in append-only segment files, indexed by hash and height.
//!
//! Segments have the nodes' own framing (`magic | length | block`), so other tools read them too. The index is a `redb`
//! file; a block counts when it is in there. Bytes are written and synced before their index entries are, so after a crash
//! a segment may have a tail that nobody points to, which is cut on opening, and never the other way round. So a block that
//! comes in parts can be written as they come. Segments that are pruned leave the index first for the same reason.

mod append;
mod index;
mod options;
mod parts;
mod reader;
mod repair;
mod segments;
mod sink;
mod verify;

use std::{ops::Deref, path::Path, sync::Arc};

use redb::{Database, WriteTransaction};
use tipward_sync::BlockId;

use crate::{
    Coin, StoreError,
    disk::{Disk, FileSystem},
    store::{bind_database, check_database, network_of, open_database},
};
use append::Written;
use index::{BLOCKS, FIRST, HEIGHTS, LAYOUT, PLACES};
pub use options::ArchiveOptions;
use options::Limits;
use parts::Begun;
pub use reader::{ArchiveReader, BlockBytes};
pub use repair::Repaired;
use segments::Segments;
pub use sink::ArchiveSink;
pub use verify::{ArchiveProblem, CheckedBlock, Verify};

const INDEX: &str = "index.redb";

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
    /// The CRC-32 (IEEE 802.3) of its bytes.
    pub checksum: u32,
    /// It was archived, and its segment has been deleted.
    pub is_pruned: bool,
}

/// The archive of one network, in a directory of its own. One process can have it open like this; others can
/// [read](ArchiveReader) it meanwhile. What can be read there can be read here.
#[derive(Debug)]
pub struct Archive {
    database: Arc<Database>,
    reader: ArchiveReader,
    segments: Segments,
    limits: Limits,
    /// What is in the segments and not in the index, though it is to be.
    written: Vec<Written>,
    /// The block of which parts were taken and not yet the end.
    begun: Option<Begun>,
}

impl Archive {
    /// Opens the archive, or creates it, and cuts what a crash has left behind. Nothing is pruned.
    ///
    /// # Errors
    /// It is in use, belongs to another network, or can't be read or written; or bytes are missing that the index points to,
    /// which [`repair`](Self::repair) forgets.
    pub fn open(dir: &Path, coin: &dyn Coin) -> Result<Self, StoreError> {
        Self::open_with(dir, coin, ArchiveOptions::default())
    }

    /// The same with options. They are not stored: what an archive was pruned of stays away, and what is pruned next is up to
    /// whoever opens it next.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(dir: &Path, coin: &dyn Coin, options: ArchiveOptions) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(FileSystem), dir, coin, options.into())
    }

    fn open_on(disk: Arc<dyn Disk>, dir: &Path, coin: &dyn Coin, limits: Limits) -> Result<Self, StoreError> {
        let (database, reader) = open_index(disk.clone(), dir, coin)?;
        let end = reader.ask(|index| {
            let first = index.first()?;
            Ok((first, index::end(&index.0.open_table(PLACES)?, first)?))
        })?;
        let segments = Segments::open(disk, dir, coin.magic(), limits.segment_size, end)?;
        Ok(Self { database, reader, segments, limits, written: Vec::new(), begun: None })
    }

    /// The network that the archive in `dir` belongs to; `None` if there is none.
    ///
    /// # Errors
    /// It can't be read.
    pub fn network_name(dir: &Path) -> Result<Option<String>, StoreError> {
        network_of(&dir.join(INDEX))
    }

    fn failed<E: Into<redb::Error>>(&self) -> impl Fn(E) -> StoreError + use<E> {
        StoreError::database(&self.reader.index_path)
    }
}

impl Deref for Archive {
    type Target = ArchiveReader;

    fn deref(&self) -> &ArchiveReader {
        &self.reader
    }
}

/// Opens the index for writing, or creates it.
fn open_index(
    disk: Arc<dyn Disk>,
    dir: &Path,
    coin: &dyn Coin,
) -> Result<(Arc<Database>, ArchiveReader), StoreError> {
    disk.create_dir(dir).map_err(StoreError::io(dir))?;
    let index_path = dir.join(INDEX);
    let genesis = coin.genesis_header().hash;
    let database = open_database(&*disk, &index_path, |database, path| {
        bind_database(database, path, coin, genesis, LAYOUT)?;
        let create = |transaction: &WriteTransaction| {
            transaction.open_table(BLOCKS)?;
            transaction.open_table(PLACES)?;
            transaction.open_table(HEIGHTS)?;
            transaction.open_table(FIRST)?;
            Ok(())
        };
        change_index(database, create).map_err(StoreError::database(path))
    })?;
    check_database(&database, &index_path, coin, genesis, LAYOUT)?;
    let database = Arc::new(database);
    let (dir, magic) = (dir.to_owned(), coin.magic());
    let reader = ArchiveReader { dir, index_path, magic, database: database.clone(), disk };
    Ok((database, reader))
}

/// Makes a durable change of the index.
fn change_index<T>(
    database: &Database,
    change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    let transaction = database.begin_write()?;
    let changed = change(&transaction)?;
    transaction.commit()?;
    Ok(changed)
}

#[cfg(test)]
mod tests;
