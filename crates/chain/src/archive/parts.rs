//! Blocks too large to be held, which are written part by part before anybody knows whether they are whole.

use tipward_sync::{
    Block, BlockId,
    peer::wire::{BlockHash, BlockPart},
};

use super::{Archive, index};
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
    /// Into the last record, which is not one yet.
    Open(index::Place),
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
            self.commit()?;
            self.abort()?;
            let place = match self.by_hash(block.hash)? {
                Some(known) if !known.is_pruned => Place::Known,
                _ => Place::Open(self.segments.begin(part.block_size)?),
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
            Place::Open(_) => self.segments.write(&part.bytes),
            Place::Known => Ok(()),
        }
    }

    /// Forgets the parts of a block that was begun, if one was.
    ///
    /// # Errors
    /// They can't be cut off.
    pub fn abort(&mut self) -> Result<(), StoreError> {
        self.begun = None;
        // While blocks wait to be committed, none was begun.
        if self.written.is_empty() { self.segments.revert() } else { Ok(()) }
    }

    /// Makes a record of what was written of this block, and says where it is and its checksum, unless it was there before.
    /// Whatever else was begun is forgotten.
    pub(super) fn complete(
        &mut self,
        block: Option<&Block>,
    ) -> Result<Option<(index::Place, u32)>, StoreError> {
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
            Place::Open(place) => Some((place, self.segments.complete())),
            Place::Known => None,
        })
    }
}
