//! Blocks too large to be held, which are written part by part before anybody knows whether they are whole.

use tipward_sync::{
    Block, BlockId,
    peer::wire::{BlockHash, BlockPart},
};

use super::Archive;
use crate::StoreError;

/// A block of which parts were taken.
#[derive(Debug)]
pub(super) struct Begun {
    block: BlockHash,
    size: u64,
    received: u64,
    place: Place,
}

/// Where its bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Into the last record, which is not one yet: segment, offset of the block's first byte.
    Open(u32, u64),
    /// Nowhere: the block is there from before a rollback.
    Known,
}

impl Archive {
    /// Takes a part of the next block of the best chain, from part 0 on, and writes it. It counts once
    /// [`append`](Self::append) was called with the block; until then a crash, an [`abort`](Self::abort) or a block begun anew
    /// leaves nothing of it.
    ///
    /// # Errors
    /// It can't be written, or does not follow the part before.
    pub fn append_part(&mut self, block: BlockId, part: &BlockPart) -> Result<(), StoreError> {
        if part.index == 0 {
            self.abort()?;
            let place = if self.by_hash(block.hash)?.is_some() {
                Place::Known
            } else {
                let (segment, offset) = self.segments.begin(part.block_size)?;
                Place::Open(segment, offset)
            };
            self.begun = Some(Begun { block: block.hash, size: part.block_size, received: 0, place });
        }
        let length = part.bytes.len() as u64;
        let misplaced =
            |expected| StoreError::Parts { block: block.hash, found: part.offset + length, expected };
        let Some(begun) = self.begun.as_mut().filter(|begun| begun.block == block.hash) else {
            return Err(misplaced(0));
        };
        if part.offset != begun.received || length > begun.size - begun.received {
            return Err(misplaced(begun.received));
        }
        begun.received += length;
        match begun.place {
            Place::Open(..) => self.segments.write(&part.bytes),
            Place::Known => Ok(()),
        }
    }

    /// Forgets the parts of a block that was begun, if one was.
    ///
    /// # Errors
    /// They can't be cut off.
    pub fn abort(&mut self) -> Result<(), StoreError> {
        match self.begun.take() {
            Some(Begun { place: Place::Open(..), .. }) => self.segments.cut(),
            Some(Begun { place: Place::Known, .. }) | None => Ok(()),
        }
    }

    /// Makes a record of what was written of this block, and says where it is unless it was there before. Whatever else was
    /// begun is forgotten.
    pub(super) fn complete(&mut self, block: Option<&Block>) -> Result<Option<(u32, u64)>, StoreError> {
        let Some(block) = block else {
            self.abort()?;
            return Ok(None);
        };
        let begun = self.begun.as_ref().filter(|begun| begun.block == block.id.hash);
        let (found, place) = begun.map_or((0, Place::Known), |begun| (begun.received, begun.place));
        if found != block.size || begun.is_none_or(|begun| begun.size != block.size) {
            return Err(StoreError::Parts { block: block.id.hash, found, expected: block.size });
        }
        self.begun = None;
        Ok(match place {
            Place::Open(segment, offset) => {
                self.segments.complete();
                Some((segment, offset))
            }
            Place::Known => None,
        })
    }
}
