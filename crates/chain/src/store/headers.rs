//! Headers on disk, in one `redb` file.
//!
//! Every accepted header is kept, in the order of arrival, so that a restart finds the same branches and the same choice
//! among equals; those of side branches that are given up are removed. A file belongs to one network and one start, named in
//! it by the block that the chain starts with.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tipward_sync::peer::wire::BlockHash;

use super::{StoreError, bind_database, rejected, shared};
use crate::{Coin, headers::MAX_REJECTED};

/// The layout of the tables.
const LAYOUT: &[u8] = b"1";
/// Header by its number of arrival.
const HEADERS: TableDefinition<u64, &[u8]> = TableDefinition::new("headers");

/// The headers of one network.
#[derive(Debug)]
pub struct HeaderStore {
    path: PathBuf,
    database: Database,
    /// The number of the next header.
    next: u64,
}

impl HeaderStore {
    /// Opens the file, or creates it, for the headers above this block: genesis, or a checkpoint.
    ///
    /// # Errors
    /// It is in use, belongs to another network or start, or can't be read.
    pub fn open(path: &Path, coin: &dyn Coin, start: BlockHash) -> Result<Self, StoreError> {
        let failed = StoreError::database(path);
        let database = shared().create(path).map_err(StoreError::database(path))?;
        bind_database(&database, path, coin, start, LAYOUT)?;
        let transaction = database.begin_write().map_err(StoreError::database(path))?;
        let next = {
            let table = transaction.open_table(HEADERS).map_err(StoreError::database(path))?;
            let last = table.last().map_err(&failed)?;
            last.map_or(0, |(number, _)| number.value() + 1)
        };
        transaction.commit().map_err(StoreError::database(path))?;
        Ok(Self { path: path.to_owned(), database, next })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends headers; they are durable when this returns.
    ///
    /// # Errors
    /// They can't be written; none of them is kept then.
    pub fn append<'a>(&mut self, headers: impl Iterator<Item = &'a Bytes>) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(StoreError::database(&self.path))?;
        let mut next = self.next;
        {
            let mut table = transaction.open_table(HEADERS).map_err(StoreError::database(&self.path))?;
            for header in headers {
                table.insert(next, &header[..]).map_err(StoreError::database(&self.path))?;
                next += 1;
            }
        }
        transaction.commit().map_err(StoreError::database(&self.path))?;
        self.next = next;
        Ok(())
    }

    /// Keeps in mind that a block was given up, and why. Of more than 1000 such blocks the first is forgotten.
    ///
    /// # Errors
    /// It can't be written.
    pub fn reject(&mut self, block: BlockHash, reason: &str) -> Result<(), StoreError> {
        rejected::add(&self.database, block, reason, MAX_REJECTED).map_err(StoreError::database(&self.path))
    }

    /// The blocks that were given up, and why, in their order.
    ///
    /// # Errors
    /// They can't be read.
    pub fn rejected(&self) -> Result<Vec<(BlockHash, String)>, StoreError> {
        rejected::load(&self.database).map_err(StoreError::database(&self.path))
    }

    /// Removes every header for which, in the order of arrival, `stays` is false.
    ///
    /// # Errors
    /// The file can't be read or written; all are kept then.
    pub fn retain(&mut self, stays: &[bool]) -> Result<(), StoreError> {
        let failed = StoreError::database(&self.path);
        let transaction = self.database.begin_write().map_err(StoreError::database(&self.path))?;
        let mut next;
        {
            let mut table = transaction.open_table(HEADERS).map_err(StoreError::database(&self.path))?;
            // What follows the first that goes moves up.
            let first = stays.iter().position(|stays| !stays).unwrap_or(stays.len()) as u64;
            let mut moved = Vec::new();
            for (entry, stays) in table.range(first..).map_err(&failed)?.zip(&stays[first as usize..]) {
                let (_, header) = entry.map_err(&failed)?;
                moved.extend(stays.then(|| header.value().to_vec()));
            }
            table.retain_in(first.., |_, _| false).map_err(&failed)?;
            next = first;
            for header in moved {
                table.insert(next, &header[..]).map_err(&failed)?;
                next += 1;
            }
        }
        transaction.commit().map_err(StoreError::database(&self.path))?;
        self.next = next;
        Ok(())
    }

    /// The header of a number in the order of arrival, from 0 on, of those that are kept.
    ///
    /// # Errors
    /// It can't be read.
    pub fn get(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        let transaction = self.database.begin_read().map_err(StoreError::database(&self.path))?;
        let table = transaction.open_table(HEADERS).map_err(StoreError::database(&self.path))?;
        let header = table.get(number).map_err(StoreError::database(&self.path))?;
        Ok(header.map(|header| Bytes::copy_from_slice(header.value())))
    }

    /// Calls `each` with every header, in the order of arrival.
    ///
    /// # Errors
    /// They can't be read, or `each` says what is wrong with one.
    pub fn load(&self, mut each: impl FnMut(&[u8]) -> Result<(), String>) -> Result<(), StoreError> {
        let failed = StoreError::database(&self.path);
        let transaction = self.database.begin_read().map_err(StoreError::database(&self.path))?;
        let table = transaction.open_table(HEADERS).map_err(StoreError::database(&self.path))?;
        for entry in table.iter().map_err(&failed)? {
            let (number, header) = entry.map_err(&failed)?;
            each(header.value()).map_err(|problem| {
                StoreError::damaged(&self.path, format!("header {}: {problem}", number.value()))
            })?;
        }
        Ok(())
    }
}
