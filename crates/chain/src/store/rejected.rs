//! The blocks that were given up, in the headers' file: hash and reason by number.

use redb::{Database, ReadTransaction, ReadableTable, TableDefinition};
use tipward_sync::peer::wire::BlockHash;

/// Rejected blocks by their number, from the first on: the hash, then the reason.
const REJECTED: TableDefinition<u64, &[u8]> = TableDefinition::new("rejected");

/// Adds a block; of more than `most` the first goes.
pub(super) fn add(
    database: &Database,
    hash: BlockHash,
    reason: &str,
    most: usize,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(REJECTED)?;
        let next = table.last()?.map_or(0, |(number, _)| number.value() + 1);
        table.insert(next, &[hash.as_bytes(), reason.as_bytes()].concat()[..])?;
        if let Some(gone) = (next + 1).checked_sub(most as u64) {
            table.retain_in(..gone, |_, _| false)?;
        }
    }
    Ok(transaction.commit()?)
}

/// All of them, in their order.
pub(super) fn load(transaction: &ReadTransaction) -> Result<Vec<(BlockHash, String)>, redb::Error> {
    let table = match transaction.open_table(REJECTED) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        table => table?,
    };
    let mut rejected = Vec::new();
    for entry in table.iter()? {
        let (_, value) = entry?;
        if let Some((hash, reason)) = value.value().split_first_chunk() {
            rejected.push((BlockHash::from_bytes(*hash), String::from_utf8_lossy(reason).into_owned()));
        }
    }
    Ok(rejected)
}
