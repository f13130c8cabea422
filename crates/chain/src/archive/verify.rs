//! Whether the archive holds what it says.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

use bytes::{Bytes, BytesMut};
use tipward_sync::{
    BlockId,
    peer::wire::{BlockError, BlockHash, bitcoin::blk_frame_header},
};

use super::{
    ArchiveReader, ArchivedBlock,
    index::{Place, Snapshot},
    segments::{segment_name, segment_path},
};
use crate::{Coin, StoreError};

/// How many entries of the index are looked at in one state of it.
const BATCH: usize = 1000;
/// How much is read at once, in bytes.
const READ: usize = 1 << 20;

/// What became of a block that was read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedBlock {
    /// Hash and height.
    pub block: BlockId,
    /// The number of its segment, and where its first byte is there; `None` if the index has a height for it and no place.
    pub place: Option<(u32, u64)>,
    /// Its size in bytes, as the index says.
    pub size: u64,
    /// What is wrong with it, the first thing found.
    pub problem: Option<ArchiveProblem>,
}

/// What is wrong with a block of the archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveProblem {
    /// Its segment is missing, or ends before the block does.
    #[error("of its {size} bytes and the frame before them, only {found} bytes are there")]
    Missing {
        /// The size that it should have.
        size: u64,
        /// How many bytes were found from the start of its frame on.
        found: u64,
    },
    /// The system can't read it.
    #[error("it can't be read: {error}")]
    Unreadable {
        /// The system's error.
        error: String,
    },
    /// The frame before it has another magic or length.
    #[error("the frame before it is not that of a block of {size} bytes of this network")]
    Frame {
        /// The size that it should have.
        size: u64,
    },
    /// Its bytes have changed.
    #[error("its bytes have checksum {found:08x}, where {expected:08x} was archived")]
    Checksum {
        /// The CRC-32 of its bytes.
        found: u32,
        /// The CRC-32 in the index.
        expected: u32,
    },
    /// It does not parse, or disagrees with its own header.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// It is another block.
    #[error("block {found} is there instead")]
    Hash {
        /// The block that is there.
        found: BlockHash,
    },
    /// It has another number of transactions.
    #[error("it has {found} transactions, and {expected} in the index")]
    Transactions {
        /// How many it has.
        found: u64,
        /// How many the index says.
        expected: u64,
    },
    /// It is on the best chain, and its parent is not.
    #[error("its parent is {found}, and not {expected}, the block before it on the best chain")]
    Parent {
        /// Its parent.
        found: BlockHash,
        /// What the index has at the height before.
        expected: BlockHash,
    },
    /// It is on the best chain, and nothing is at the height before, though there is further below.
    #[error("the best chain has no block before it")]
    Gap,
    /// It is on the best chain, and the index does not know where it is, or has it at another height.
    #[error("the index has no place for it at its height")]
    NoPlace,
}

impl std::fmt::Display for CheckedBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "block {}", self.block)?;
        if let Some((segment, offset)) = self.place {
            write!(f, ", {} from byte {offset}", segment_name(segment))?;
        }
        match &self.problem {
            Some(problem) => write!(f, ": {problem}"),
            None => write!(f, ": as archived"),
        }
    }
}

/// Reads the archive block by block: see [`ArchiveReader::verify`]. Ends after an error of the index.
pub struct Verify<'a> {
    archive: &'a ArchiveReader,
    coin: &'a dyn Coin,
    /// Blocks to read, each with its parent if it is known from the best chain.
    waiting: VecDeque<(ArchivedBlock, Option<BlockHash>)>,
    next: Next,
    buffer: BytesMut,
}

/// Where the next batch begins.
#[derive(Clone, Copy)]
enum Next {
    Block(Place),
    /// The heights from there on; the last of them, unless these are the first.
    Height(u64, Option<u64>),
    Nothing,
}

impl<'a> Verify<'a> {
    pub(super) fn new(archive: &'a ArchiveReader, coin: &'a dyn Coin) -> Self {
        let buffer = BytesMut::with_capacity(READ);
        Self { archive, coin, waiting: VecDeque::new(), next: Next::Block((0, 0)), buffer }
    }

    fn read_batch(&mut self, from: Place) -> Result<(), StoreError> {
        self.waiting = self.archive.ask(|index| {
            let blocks = index.blocks_from(from, BATCH)?;
            blocks.into_iter().map(|block| Ok((block, parent(index, &block)?))).collect()
        })?;
        self.next = match self.waiting.back() {
            Some((last, _)) => Next::Block((last.segment, last.offset + 1)),
            None => Next::Height(0, None),
        };
        Ok(())
    }

    /// `None` if the block is gone, for it was pruned just now.
    fn check(
        &mut self,
        block: &ArchivedBlock,
        parent: Option<BlockHash>,
    ) -> Result<Option<CheckedBlock>, StoreError> {
        let problem = self.problem(block, parent).err();
        if problem.is_some() && block.segment < self.archive.ask(Snapshot::first)? {
            return Ok(None);
        }
        let place = Some((block.segment, block.offset));
        Ok(Some(CheckedBlock { block: block.id, place, size: block.size, problem }))
    }

    fn problem(&mut self, block: &ArchivedBlock, parent: Option<BlockHash>) -> Result<(), ArchiveProblem> {
        let expected = blk_frame_header(self.archive.magic, block.size);
        let (size, frame) = (block.size, expected.len() as u64);
        let path = segment_path(&self.archive.dir, block.segment);
        let failed = |found: u64| {
            move |error: io::Error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => {
                    ArchiveProblem::Missing { size, found }
                }
                _ => ArchiveProblem::Unreadable { error: error.to_string() },
            }
        };
        let mut source =
            self.archive.disk.read(&path, block.offset.saturating_sub(frame)).map_err(failed(0))?;
        let mut found = vec![0; expected.len()];
        source.read_exact(&mut found).map_err(failed(0))?;
        let mut pieces = Pieces {
            source,
            left: size,
            checksum: crc32fast::Hasher::new(),
            buffer: &mut self.buffer,
            error: None,
        };
        let checked = self.coin.check_block(size, &mut pieces);
        pieces.by_ref().for_each(drop);
        if let Some(error) = pieces.error.take() {
            return Err(failed(frame + size - pieces.left)(error));
        }
        if found != expected {
            return Err(ArchiveProblem::Frame { size });
        }
        let (found, expected) = (pieces.checksum.finalize(), block.checksum);
        if found != expected {
            return Err(ArchiveProblem::Checksum { found, expected });
        }
        let (header, found) = checked?;
        if header.hash != block.id.hash {
            return Err(ArchiveProblem::Hash { found: header.hash });
        }
        if found != block.transactions {
            return Err(ArchiveProblem::Transactions { found, expected: block.transactions });
        }
        match parent {
            Some(expected) if header.parent != expected => {
                Err(ArchiveProblem::Parent { found: header.parent, expected })
            }
            _ => Ok(()),
        }
    }

    /// The next height that has a problem.
    fn check_heights(
        &mut self,
        from: u64,
        mut last: Option<u64>,
    ) -> Result<Option<CheckedBlock>, StoreError> {
        let mut from = from;
        loop {
            let found = self.archive.ask(|index| {
                let batch = index.best_from(from, BATCH)?;
                for id in &batch {
                    let place = index.block(id.hash)?.filter(|block| block.id == *id);
                    let problem = if place.is_none() {
                        ArchiveProblem::NoPlace
                    } else if last.is_some_and(|last| last + 1 != id.height) {
                        ArchiveProblem::Gap
                    } else {
                        last = Some(id.height);
                        continue;
                    };
                    let place = place.map(|block| (block.segment, block.offset));
                    return Ok((
                        Some(CheckedBlock { block: *id, place, size: 0, problem: Some(problem) }),
                        id.height,
                    ));
                }
                Ok((None, batch.last().map_or(from, |id| id.height)))
            })?;
            match found {
                (Some(problem), height) => {
                    self.next = Next::Height(height + 1, Some(height));
                    return Ok(Some(problem));
                }
                (None, height) if height == from => {
                    self.next = Next::Nothing;
                    return Ok(None);
                }
                (None, height) => from = height + 1,
            }
        }
    }
}

impl Iterator for Verify<'_> {
    type Item = Result<CheckedBlock, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((block, parent)) = self.waiting.pop_front() {
                match self.check(&block, parent).transpose() {
                    Some(checked) => return Some(checked),
                    None => continue,
                }
            }
            let read = match self.next {
                Next::Block(from) => self.read_batch(from).map(|()| None),
                Next::Height(from, last) => self.check_heights(from, last),
                Next::Nothing => return None,
            };
            match read {
                Ok(None) => {}
                Ok(Some(checked)) => return Some(Ok(checked)),
                Err(error) => {
                    self.next = Next::Nothing;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// What the best chain says about a block's parent; `None` if the block is not on it, or the first.
fn parent(index: &Snapshot, block: &ArchivedBlock) -> Result<Option<BlockHash>, redb::Error> {
    let below = block.id.height.checked_sub(1);
    match (below, index.best_at(block.id.height)?) {
        (Some(below), Some(best)) if best == block.id.hash => index.best_at(below),
        _ => Ok(None),
    }
}

/// A block's bytes piece by piece. Ends early if they can't be read.
struct Pieces<'a> {
    source: Box<dyn Read + Send>,
    left: u64,
    checksum: crc32fast::Hasher,
    buffer: &'a mut BytesMut,
    error: Option<io::Error>,
}

impl Iterator for Pieces<'_> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.left).map_or(READ, |left| left.min(READ));
        if length == 0 || self.error.is_some() {
            return None;
        }
        self.buffer.clear();
        self.buffer.resize(length, 0);
        let read = loop {
            match self.source.read(self.buffer) {
                Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(read) => {
                self.buffer.truncate(read);
                self.checksum.update(self.buffer);
                self.left -= read as u64;
                Some(self.buffer.split().freeze())
            }
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}
