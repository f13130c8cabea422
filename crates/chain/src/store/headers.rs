//! Headers on disk, in one `redb` file.
//!
//! Every accepted header is kept, in the order of arrival, so that a restart finds the same branches and the same choice
//! among equals; those of side branches that are given up are removed. Headers that came together are one entry, so that a
//! million of them are a few hundred. A file belongs to one network and one start, named in it by the block that
//! the chain starts with.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use redb::{Database, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};
use tipward_sync::peer::wire::BlockHash;

use super::{StoreError, bind_database, check_database, network_of, open_database, open_read_only, rejected};
use crate::{
    Coin,
    disk::{Disk, FileSystem},
    headers::MAX_REJECTED,
};
use writer::{Run, Writer};

mod writer;

/// The layout of the tables.
const LAYOUT: &[u8] = b"2";
/// Headers that came together, by the number of arrival of the first: of each the length, two bytes little-endian, and then it.
const RUNS: TableDefinition<u64, &[u8]> = TableDefinition::new("runs");
/// How many bytes tell the length of a header.
const LENGTH: usize = 2;

/// The headers of one network.
#[derive(Debug)]
pub struct HeaderStore {
    path: PathBuf,
    database: Arc<Database>,
    /// The number of the next header.
    next: u64,
    writer: Writer,
}

impl HeaderStore {
    /// Opens the file, or creates it, for the headers above this block: genesis, or a checkpoint.
    ///
    /// # Errors
    /// It is in use, belongs to another network or start, or can't be read.
    pub fn open(path: &Path, coin: &dyn Coin, start: BlockHash) -> Result<Self, StoreError> {
        Self::open_on(&FileSystem, path, coin, start)
    }

    fn open_on(disk: &dyn Disk, path: &Path, coin: &dyn Coin, start: BlockHash) -> Result<Self, StoreError> {
        let failed = StoreError::database(path);
        let bind = |database: &Database, path: &Path| bind_database(database, path, coin, start, LAYOUT);
        let database = open_database(disk, path, bind)?;
        check_database(&database, path, coin, start, LAYOUT)?;
        let transaction = database.begin_write().map_err(StoreError::database(path))?;
        let next = {
            let table = transaction.open_table(RUNS).map_err(StoreError::database(path))?;
            let last = table.last().map_err(&failed)?;
            match last {
                Some((first, run)) => first.value() + split(path, run.value())?.len() as u64,
                None => 0,
            }
        };
        transaction.commit().map_err(StoreError::database(path))?;
        let (path, database) = (path.to_owned(), Arc::new(database));
        let writer = Writer::start(path.clone(), database.clone(), next);
        Ok(Self { path, database, next, writer })
    }

    /// The network that a file belongs to; `None` if there is no such file.
    ///
    /// # Errors
    /// It can't be read.
    pub fn network_name(path: &Path) -> Result<Option<String>, StoreError> {
        network_of(path)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends headers. They are durable after a [`flush`](Self::flush), or when the store is dropped: each commit is of all
    /// that came during the one before.
    ///
    /// # Errors
    /// These, or others before, can't be written. After that none can.
    ///
    /// # Panics
    /// A header has 64 KiB or more.
    pub fn append<'a>(&mut self, headers: impl Iterator<Item = &'a Bytes>) -> Result<(), StoreError> {
        let mut run = Run { first: self.next, next: self.next, headers: Vec::new() };
        for header in headers {
            put(&mut run.headers, header);
            run.next += 1;
        }
        if run.next > run.first {
            let next = run.next;
            self.writer.write(run)?;
            self.next = next;
        }
        Ok(())
    }

    /// Waits until everything is durable.
    ///
    /// # Errors
    /// Something can't be written.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.writer.wait(self.next)
    }

    /// Keeps in mind that a block was given up, and why. Of more than 1000 such blocks the first is forgotten.
    ///
    /// # Errors
    /// It can't be written.
    pub fn reject(&mut self, block: BlockHash, reason: &str) -> Result<(), StoreError> {
        self.flush()?;
        rejected::add(&self.database, block, reason, MAX_REJECTED).map_err(StoreError::database(&self.path))
    }

    /// Removes every header for which, in the order of arrival, `stays` is false.
    ///
    /// # Errors
    /// The file can't be read or written; all are kept then.
    pub fn retain(&mut self, stays: &[bool]) -> Result<(), StoreError> {
        self.flush()?;
        let failed = StoreError::database(&self.path);
        let transaction = self.database.begin_write().map_err(StoreError::database(&self.path))?;
        let mut next = 0;
        {
            let mut table = transaction.open_table(RUNS).map_err(StoreError::database(&self.path))?;
            let mut stays = stays.iter().copied();
            // What follows the first that goes moves up.
            let (mut from, mut moved) = (None, Vec::new());
            for entry in table.iter().map_err(&failed)? {
                let (first, run) = entry.map_err(&failed)?;
                let headers = split(&self.path, run.value())?;
                let kept: Vec<Bytes> =
                    headers.iter().filter(|_| stays.next() == Some(true)).cloned().collect();
                if from.is_none() && kept.len() == headers.len() {
                    next = first.value() + kept.len() as u64;
                } else {
                    from.get_or_insert(first.value());
                    moved.push(kept);
                }
            }
            if let Some(from) = from {
                table.retain_in(from.., |_, _| false).map_err(&failed)?;
            }
            for headers in moved.iter().filter(|headers| !headers.is_empty()) {
                let mut run = Vec::new();
                headers.iter().for_each(|header| put(&mut run, header));
                table.insert(next, &run[..]).map_err(&failed)?;
                next += headers.len() as u64;
            }
        }
        transaction.commit().map_err(StoreError::database(&self.path))?;
        self.writer.reset(next);
        self.next = next;
        Ok(())
    }

    /// What is durable now.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn snapshot(&self) -> Result<HeaderSnapshot, StoreError> {
        let transaction = self.database.begin_read().map_err(StoreError::database(&self.path))?;
        Ok(HeaderSnapshot { path: self.path.clone(), transaction, _database: None })
    }

    /// The header of a number in the order of arrival, from 0 on, of those that are kept.
    ///
    /// # Errors
    /// It can't be read.
    pub fn get(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        match self.writer.waiting(number) {
            Some(run) => Ok(nth(&run.headers, number - run.first).map(Bytes::copy_from_slice)),
            None => self.snapshot()?.get(number),
        }
    }
}

/// The headers' file as it was at one moment, whoever writes to it since.
pub struct HeaderSnapshot {
    path: PathBuf,
    transaction: ReadTransaction,
    /// Of a file that another process may have open.
    _database: Option<ReadOnlyDatabase>,
}

impl HeaderSnapshot {
    /// Looks into the file beside whoever has it open.
    ///
    /// # Errors
    /// It is not there, belongs to another network or start, or can't be read.
    pub fn open(path: &Path, coin: &dyn Coin, start: BlockHash) -> Result<Self, StoreError> {
        let database = open_read_only(path)?;
        check_database(&database, path, coin, start, LAYOUT)?;
        let transaction = database.begin_read().map_err(StoreError::database(path))?;
        Ok(Self { path: path.to_owned(), transaction, _database: Some(database) })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The blocks that were given up, and why, in their order.
    ///
    /// # Errors
    /// They can't be read.
    pub fn rejected(&self) -> Result<Vec<(BlockHash, String)>, StoreError> {
        rejected::load(&self.transaction).map_err(StoreError::database(&self.path))
    }

    /// The header of a number in the order of arrival, from 0 on.
    ///
    /// # Errors
    /// It can't be read.
    pub fn get(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        let failed = StoreError::database(&self.path);
        let table = self.transaction.open_table(RUNS).map_err(StoreError::database(&self.path))?;
        let run = table.range(..=number).map_err(&failed)?.next_back().transpose().map_err(&failed)?;
        let Some((first, run)) = run else { return Ok(None) };
        Ok(nth(run.value(), number - first.value()).map(Bytes::copy_from_slice))
    }

    /// Calls `each` with all headers, in the order of arrival, many at a time, and the number of the first of them.
    ///
    /// # Errors
    /// They can't be read, or `each` fails.
    pub fn load(
        &self,
        mut each: impl FnMut(u64, Vec<Bytes>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let failed = StoreError::database(&self.path);
        let table = self.transaction.open_table(RUNS).map_err(StoreError::database(&self.path))?;
        let mut next = 0;
        for entry in table.iter().map_err(&failed)? {
            let (first, run) = entry.map_err(&failed)?;
            if first.value() != next {
                let problem = format!("header {} follows number {next}", first.value());
                return Err(StoreError::damaged(&self.path, problem));
            }
            let headers = split(&self.path, run.value())?;
            next += headers.len() as u64;
            each(first.value(), headers)?;
        }
        Ok(())
    }
}

impl fmt::Debug for HeaderSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeaderSnapshot").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Adds a header to a run.
fn put(run: &mut Vec<u8>, header: &[u8]) {
    let length = u16::try_from(header.len()).expect("no chain has headers of 64 KiB");
    run.extend_from_slice(&length.to_le_bytes());
    run.extend_from_slice(header);
}

/// The headers of a run, in one buffer.
fn split(path: &Path, run: &[u8]) -> Result<Vec<Bytes>, StoreError> {
    let mut run = Bytes::copy_from_slice(run);
    let mut headers = Vec::new();
    while let Some(length) = run.first_chunk::<LENGTH>() {
        let end = LENGTH + usize::from(u16::from_le_bytes(*length));
        if end > run.len() {
            break;
        }
        headers.push(run.split_to(end).slice(LENGTH..));
    }
    if run.is_empty() { Ok(headers) } else { Err(StoreError::damaged(path, "a run of headers is torn")) }
}

/// One header of a run.
fn nth(mut run: &[u8], number: u64) -> Option<&[u8]> {
    for _ in 0..number {
        let length = usize::from(u16::from_le_bytes(*run.first_chunk()?));
        run = run.get(LENGTH + length..)?;
    }
    run.get(LENGTH..LENGTH + usize::from(u16::from_le_bytes(*run.first_chunk()?)))
}

#[cfg(test)]
mod tests;
