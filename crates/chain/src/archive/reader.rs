//! The archive for those who only read it.

use std::{
    fmt,
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::ReadableDatabase;
use tipward_sync::{BlockId, peer::wire::BlockHash};

use super::{
    ArchivedBlock, INDEX, Verify,
    index::{LAYOUT, Snapshot},
    segments::segment_path,
};
use crate::{
    Coin, StoreError,
    disk::{Disk, FileSystem},
    store::{check_database, open_read_only},
};

/// The archive of one network, to be read: any number of processes may, also while one writes. Every call sees what was
/// archived last.
pub struct ArchiveReader {
    pub(super) dir: PathBuf,
    pub(super) index_path: PathBuf,
    pub(super) magic: [u8; 4],
    pub(super) database: Arc<dyn ReadableDatabase + Send + Sync>,
    pub(super) disk: Arc<dyn Disk>,
}

impl ArchiveReader {
    /// Opens the archive that is in `dir`.
    ///
    /// If nobody writes and the last who did was killed, the index is mended first, which takes the right to write to it.
    ///
    /// # Errors
    /// There is none, it belongs to another network, or can't be read.
    pub fn open(dir: &Path, coin: &dyn Coin) -> Result<Self, StoreError> {
        let index_path = dir.join(INDEX);
        let database = open_read_only(&index_path)?;
        check_database(&database, &index_path, coin, coin.genesis_header().hash, LAYOUT)?;
        let database = Arc::new(database);
        Ok(Self {
            dir: dir.to_owned(),
            index_path,
            magic: coin.magic(),
            database,
            disk: Arc::new(FileSystem),
        })
    }

    /// The last block of the best chain.
    ///
    /// # Errors
    /// The index can't be read.
    pub fn cursor(&self) -> Result<Option<BlockId>, StoreError> {
        self.ask(Snapshot::cursor)
    }

    /// The block of that hash, on the best chain or not. One that was pruned is known, and its bytes are gone.
    ///
    /// # Errors
    /// The index can't be read.
    pub fn by_hash(&self, hash: BlockHash) -> Result<Option<ArchivedBlock>, StoreError> {
        self.ask(|index| index.block(hash))
    }

    /// The block at a height of the best chain.
    ///
    /// # Errors
    /// The index can't be read.
    pub fn by_height(&self, height: u64) -> Result<Option<ArchivedBlock>, StoreError> {
        self.ask(|index| match index.best_at(height)? {
            Some(hash) => index.block(hash),
            None => Ok(None),
        })
    }

    /// A reader over the block's bytes. It fails at the end if they are not those that were archived.
    ///
    /// # Errors
    /// [`StoreError::Pruned`], or its segment can't be opened.
    pub fn read(&self, block: &ArchivedBlock) -> Result<BlockBytes, StoreError> {
        self.open_at(block, 0..block.size, Some(crc32fast::Hasher::new()))
    }

    /// A reader over some of the block's bytes, such as a transaction's, without those before. What lies past the block's end is
    /// left out. There is no checksum of a range: compare an id where it matters.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_range(&self, block: &ArchivedBlock, range: Range<u64>) -> Result<BlockBytes, StoreError> {
        self.open_at(block, range.start.min(block.size)..range.end.min(block.size), None)
    }

    fn open_at(
        &self,
        block: &ArchivedBlock,
        range: Range<u64>,
        checksum: Option<crc32fast::Hasher>,
    ) -> Result<BlockBytes, StoreError> {
        let path = segment_path(&self.dir, block.segment);
        if block.is_pruned {
            return Err(StoreError::Pruned { block: block.id });
        }
        match self.disk.read(&path, block.offset + range.start) {
            Ok(source) => {
                let left = range.end.saturating_sub(range.start);
                Ok(BlockBytes { block: *block, path, source, left, checksum })
            }
            // It may have been pruned since it was looked up.
            Err(_) if block.segment < self.ask(Snapshot::first)? => {
                Err(StoreError::Pruned { block: block.id })
            }
            Err(error) => Err(StoreError::io(&path)(error)),
        }
    }

    /// Reads every block that was not pruned and compares it with the index and with itself: its frame, its checksum, its
    /// header, its transactions and their merkle root, and that the best chain is one. Blocks come by their place on disk; at
    /// the end come heights that have none.
    ///
    /// Takes the memory of a part of a block, and of a thousand entries of the index. May run while another process writes: what
    /// is archived meanwhile is read too.
    pub fn verify<'a>(&'a self, coin: &'a dyn Coin) -> Verify<'a> {
        Verify::new(self, coin)
    }

    pub(super) fn ask<T>(
        &self,
        question: impl FnOnce(&Snapshot) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let failed = StoreError::database(&self.index_path);
        let transaction = self.database.begin_read().map_err(StoreError::database(&self.index_path))?;
        question(&Snapshot(transaction)).map_err(failed)
    }
}

impl fmt::Debug for ArchiveReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveReader").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// The bytes of a block, or some of them. The last of a whole block are given only if all have the checksum that was noted when
/// they were archived.
pub struct BlockBytes {
    block: ArchivedBlock,
    path: PathBuf,
    source: Box<dyn Read + Send>,
    left: u64,
    /// For a whole block.
    checksum: Option<crc32fast::Hasher>,
}

impl BlockBytes {
    fn damaged(&self, kind: io::ErrorKind, problem: &str) -> io::Error {
        let ArchivedBlock { id, offset, .. } = self.block;
        io::Error::new(kind, format!("block {id}, {} from byte {offset}: {problem}", self.path.display()))
    }

    fn check(&self) -> io::Result<()> {
        let is_right = |checksum: &crc32fast::Hasher| checksum.clone().finalize() == self.block.checksum;
        if self.left > 0 || self.checksum.as_ref().is_none_or(is_right) {
            return Ok(());
        }
        Err(self.damaged(io::ErrorKind::InvalidData, "its bytes are not those that were archived"))
    }
}

impl Read for BlockBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            return self.check().map(|()| 0);
        }
        let read = self.source.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(self.damaged(io::ErrorKind::UnexpectedEof, "its segment ends before it does"));
        }
        if let Some(checksum) = &mut self.checksum {
            checksum.update(&buffer[..read]);
        }
        self.left -= read as u64;
        self.check().map(|()| read)
    }
}

impl fmt::Debug for BlockBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockBytes")
            .field("block", &self.block)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}
