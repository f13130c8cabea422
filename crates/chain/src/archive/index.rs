//! The index of the archive: a `redb` file with these tables.

use redb::{ReadTransaction, ReadableTable, TableDefinition};
use tipward_sync::{BlockId, peer::wire::BlockHash};

use super::ArchivedBlock;

/// The layout of the tables.
pub(super) const LAYOUT: &[u8] = b"archive 2";

/// Segment, and offset of the block's first byte there.
pub(super) type Place = (u32, u64);
/// Hash, size, transactions, height, CRC-32 of the block's bytes.
pub(super) type Entry<'a> = (&'a [u8; 32], u64, u64, u64, u32);

/// Where each block is.
pub(super) const BLOCKS: TableDefinition<&[u8; 32], Place> = TableDefinition::new("blocks");
/// What is at each place. The last one is the end of what is archived.
pub(super) const PLACES: TableDefinition<Place, Entry<'static>> = TableDefinition::new("places");
/// The best chain: hash by height. Its last entry is the cursor.
pub(super) const HEIGHTS: TableDefinition<u64, &[u8; 32]> = TableDefinition::new("heights");
/// The first segment that was not pruned. One entry, or none while there is nothing to tell.
pub(super) const FIRST: TableDefinition<(), u32> = TableDefinition::new("first");

/// One state of the index.
pub(super) struct Snapshot(pub(super) ReadTransaction);

impl Snapshot {
    pub(super) fn cursor(&self) -> Result<Option<BlockId>, redb::Error> {
        let heights = self.0.open_table(HEIGHTS)?;
        let last = heights.last()?;
        Ok(last.map(|(height, hash)| id(height.value(), hash.value())))
    }

    pub(super) fn best_at(&self, height: u64) -> Result<Option<BlockHash>, redb::Error> {
        let heights = self.0.open_table(HEIGHTS)?;
        Ok(heights.get(height)?.map(|hash| BlockHash::from_bytes(*hash.value())))
    }

    pub(super) fn block(&self, hash: BlockHash) -> Result<Option<ArchivedBlock>, redb::Error> {
        let place = self.0.open_table(BLOCKS)?.get(hash.as_bytes())?.map(|place| place.value());
        let Some(place) = place else { return Ok(None) };
        let first = self.first()?;
        let places = self.0.open_table(PLACES)?;
        let entry = places.get(place)?;
        Ok(entry.map(|entry| archived(place, entry.value(), first)))
    }

    /// Of each block whether its bytes are there.
    pub(super) fn are_there(
        &self,
        hashes: impl Iterator<Item = BlockHash>,
    ) -> Result<Vec<bool>, redb::Error> {
        let first = self.first()?;
        let index = self.0.open_table(BLOCKS)?;
        hashes
            .map(|hash| Ok(index.get(hash.as_bytes())?.is_some_and(|place| place.value().0 >= first)))
            .collect()
    }

    /// Up to so many blocks that were not pruned, by their places, from one place on.
    pub(super) fn blocks_from(&self, place: Place, most: usize) -> Result<Vec<ArchivedBlock>, redb::Error> {
        let first = self.first()?;
        let places = self.0.open_table(PLACES)?;
        let entries = places.range(place.max((first, 0))..)?.take(most);
        entries
            .map(|entry| {
                let (place, entry) = entry?;
                Ok(archived(place.value(), entry.value(), first))
            })
            .collect()
    }

    /// Up to so many blocks of the best chain from a height on.
    pub(super) fn best_from(&self, height: u64, most: usize) -> Result<Vec<BlockId>, redb::Error> {
        let heights = self.0.open_table(HEIGHTS)?;
        let range = heights.range(height..)?.take(most);
        range
            .map(|entry| entry.map_err(Into::into).map(|(height, hash)| id(height.value(), hash.value())))
            .collect()
    }

    pub(super) fn first(&self) -> Result<u32, redb::Error> {
        Ok(self.0.open_table(FIRST)?.get(())?.map_or(0, |first| first.value()))
    }
}

/// Where the next record goes.
pub(super) fn end(
    places: &impl ReadableTable<Place, Entry<'static>>,
    first: u32,
) -> Result<Place, redb::Error> {
    let last = places.last()?.map(|(place, entry)| (place.value(), entry.value().1));
    Ok(match last {
        Some(((segment, offset), size)) if segment >= first => (segment, offset + size),
        _ => (first, 0),
    })
}

fn id(height: u64, hash: &[u8; 32]) -> BlockId {
    BlockId { height, hash: BlockHash::from_bytes(*hash) }
}

fn archived((segment, offset): Place, entry: Entry<'_>, first: u32) -> ArchivedBlock {
    let (hash, size, transactions, height, checksum) = entry;
    let is_pruned = segment < first;
    ArchivedBlock { id: id(height, hash), size, transactions, segment, offset, checksum, is_pruned }
}
