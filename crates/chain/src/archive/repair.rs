//! What can be done about an archive that has lost bytes.

use std::{path::Path, sync::Arc};

use redb::{ReadableTable, WriteTransaction};
use tipward_sync::BlockId;

use super::{
    Archive, ArchiveOptions, CheckedBlock, INDEX, change_index,
    index::{BLOCKS, HEIGHTS, PLACES},
    open_index,
    options::Limits,
};
use crate::{
    Coin, StoreError,
    disk::{Disk, FileSystem},
};

/// What a repair has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repaired {
    /// How many blocks were forgotten, of the best chain and others.
    pub forgotten: u64,
    /// The last block of the best chain before.
    pub before: Option<BlockId>,
    /// The last block of the best chain now. A sync goes on from there.
    pub after: Option<BlockId>,
}

impl Archive {
    /// Reads the whole archive and forgets every block that is not whole and correct, so that a sync fetches it again: the best
    /// chain ends before the first of them. Blocks that are correct stay, are not written again, and are found by hash. `each`
    /// is told about every block that was read, with what is wrong.
    ///
    /// The bytes of forgotten blocks stay where they are unless they are at the end, so other tools may stumble over them.
    ///
    /// # Errors
    /// There is no archive, it is in use, belongs to another network, or its index is damaged; nothing has changed then. Or
    /// segments can't be written.
    pub fn repair(
        dir: &Path,
        coin: &dyn Coin,
        each: impl FnMut(&CheckedBlock),
    ) -> Result<Repaired, StoreError> {
        let path = dir.join(INDEX);
        if !path.exists() {
            return Err(StoreError::io(&path)(std::io::ErrorKind::NotFound.into()));
        }
        repair_on(&(Arc::new(FileSystem) as _), dir, coin, each)
    }
}

pub(super) fn repair_on(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    coin: &dyn Coin,
    mut each: impl FnMut(&CheckedBlock),
) -> Result<Repaired, StoreError> {
    let (database, reader) = open_index(disk.clone(), dir, coin)?;
    let before = reader.cursor()?;
    let mut broken = Vec::new();
    for checked in reader.verify(coin) {
        let checked = checked?;
        each(&checked);
        broken.extend(checked.problem.is_some().then_some((checked.block, checked.place)));
    }
    let forget = |transaction: &WriteTransaction| {
        let mut index = transaction.open_table(BLOCKS)?;
        let mut places = transaction.open_table(PLACES)?;
        let mut heights = transaction.open_table(HEIGHTS)?;
        for (block, place) in &broken {
            let hash = block.hash.as_bytes();
            if heights.get(block.height)?.is_some_and(|best| best.value() == hash) {
                heights.retain_in(block.height.., |_, _| false)?;
            }
            if let Some(place) = place {
                places.remove(place)?;
            }
            let at = index.get(hash)?.map(|place| place.value());
            if at.map_or(Ok(false), |at| places.get(at).map(|entry| entry.is_none()))? {
                index.remove(hash)?;
            }
        }
        Ok(())
    };
    change_index(&database, forget).map_err(StoreError::database(&reader.index_path))?;
    let after = reader.cursor()?;
    drop((reader, database));
    // Cuts and removes what nobody points to now.
    Archive::open_on(disk.clone(), dir, coin, Limits::from(ArchiveOptions::default()))?;
    Ok(Repaired { forgotten: broken.len() as u64, before, after })
}
