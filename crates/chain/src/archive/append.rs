//! Whole blocks: written at once, counted when they are committed.

use redb::{ReadableTable, WriteTransaction};
use tipward_sync::{Block, BlockId};

use super::{
    Archive, change_index,
    index::{BLOCKS, FIRST, HEIGHTS, PLACES, Place},
};
use crate::StoreError;

/// A block of the best chain that the index does not know of yet.
#[derive(Debug)]
pub(super) struct Written {
    id: BlockId,
    size: u64,
    transactions: u64,
    /// Where its bytes are, and their checksum; `None` if they are there from before.
    stored: Option<(Place, u32)>,
}

impl Archive {
    /// Appends blocks of the best chain, each the child of the one before, and makes them durable: [`write`](Self::write)
    /// and [`commit`](Self::commit).
    ///
    /// # Errors
    /// They can't be written, or parts are missing; none of them counts then, and parts have to come again.
    pub fn append(&mut self, blocks: &[Block]) -> Result<(), StoreError> {
        self.write(blocks)?;
        self.commit()
    }

    /// Writes blocks of the best chain, each the child of the one before. They count once they are [committed](Self::commit),
    /// and a crash until then leaves nothing of them. So there can be few commits, each of which waits for the disk several
    /// times, without holding many blocks.
    ///
    /// A block that is there from before a rollback is not written again. The first may be one that is
    /// [streamed](Block::is_streamed), whose parts [`append_part`](Self::append_part) has taken; of any other block that was
    /// begun nothing stays.
    ///
    /// # Errors
    /// They can't be written, or parts are missing; nothing counts then that was written since the last commit.
    pub fn write(&mut self, blocks: &[Block]) -> Result<(), StoreError> {
        let written = self.write_all(blocks);
        if written.is_err() {
            self.written.clear();
        }
        written
    }

    fn write_all(&mut self, blocks: &[Block]) -> Result<(), StoreError> {
        if blocks.is_empty() {
            return Ok(());
        }
        let mut streamed = self.complete(blocks.first().filter(|first| first.is_streamed))?;
        let known = self.ask(|index| index.are_there(blocks.iter().map(|block| block.id.hash)))?;
        for (block, is_known) in blocks.iter().zip(known) {
            let stored = match streamed.take() {
                _ if is_known => None,
                Some(stored) => Some(stored),
                None => Some(self.segments.append(block)?),
            };
            let Block { id, size, transactions, .. } = *block;
            self.written.push(Written { id, size, transactions, stored });
        }
        Ok(())
    }

    /// Makes durable what was written, and then deletes the segments that the [options](super::ArchiveOptions) tell to.
    ///
    /// # Errors
    /// It can't be done; nothing counts that was written since the last commit.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        let written = std::mem::take(&mut self.written);
        if written.is_empty() {
            return Ok(());
        }
        let transaction = self.database.begin_write().map_err(self.failed())?;
        let pruned = self.index(&transaction, &written).map_err(self.failed())?;
        self.segments.keep()?;
        transaction.commit().map_err(self.failed())?;
        // Nobody will look for them any more.
        pruned.for_each(|segment| self.segments.remove(segment));
        Ok(())
    }

    /// Enters blocks into the index; returns the segments that are pruned.
    fn index(
        &self,
        transaction: &WriteTransaction,
        written: &[Written],
    ) -> Result<std::ops::Range<u32>, redb::Error> {
        let mut index = transaction.open_table(BLOCKS)?;
        let mut places = transaction.open_table(PLACES)?;
        let mut heights = transaction.open_table(HEIGHTS)?;
        let mut firsts = transaction.open_table(FIRST)?;
        for Written { id, size, transactions, stored } in written {
            let hash = id.hash.as_bytes();
            if let Some((place, checksum)) = *stored {
                index.insert(hash, place)?;
                places.insert(place, (hash, *size, *transactions, id.height, checksum))?;
            }
            heights.insert(id.height, hash)?;
        }
        let first = firsts.get(())?.map_or(0, |first| first.value());
        let tip = heights.last()?.map_or(0, |(height, _)| height.value());
        let kept = self.limits.prune(&places, first, tip)?;
        if kept > first {
            firsts.insert((), kept)?;
        }
        Ok(first..kept)
    }

    /// Takes every block above `height` off the best chain. Their bytes stay and are found by hash.
    ///
    /// # Errors
    /// The index can't be written.
    pub fn rollback(&mut self, height: u64) -> Result<(), StoreError> {
        self.commit()?;
        self.abort()?;
        let change = |transaction: &WriteTransaction| {
            Ok(transaction.open_table(HEIGHTS)?.retain_in(height + 1.., |_, _| false)?)
        };
        change_index(&self.database, change).map_err(self.failed())
    }
}
