//! Headers on disk, in one `redb` file.
//!
//! Every accepted header is kept, in the order of arrival, so that a restart finds the same branches and the same choice
//! among equals; those of side branches that are given up are removed. A file belongs to one network and one start, named in
//! it by the block that the chain starts with.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tipward_sync::peer::wire::BlockHash;

use crate::{CheckpointError, Coin};

/// Header by its number of arrival.
const HEADERS: TableDefinition<u64, &[u8]> = TableDefinition::new("headers");
/// What the file is.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// The layout of the tables; another one is refused.
const VERSION: &[u8] = b"1";

/// Why a store can't be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to another network.
    #[error("{} belongs to network {found}, not {expected}", path.display())]
    OtherNetwork {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked.
        expected: String,
    },
    /// It was written by another version of this library.
    #[error("{} has layout {found}, this version reads layout {}", path.display(), String::from_utf8_lossy(VERSION))]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: String,
    },
    /// What it holds does not fit together.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// The headers to start from can't be.
    #[error("can't start from the checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// Parts of a block do not follow each other, or are not all of it.
    #[error("block {block}: {found} bytes of it came, {expected} were due")]
    Parts {
        /// The block.
        block: BlockHash,
        /// How many bytes came, the part included that does not fit.
        found: u64,
        /// How many had to.
        expected: u64,
    },
    /// The system reported an error.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// The database reported an error.
    #[error("{}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The error.
        source: Box<redb::Error>,
    },
}

impl StoreError {
    pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path: path.clone(), source }
    }

    pub(crate) fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), problem: problem.into() }
    }

    pub(crate) fn database<E: Into<redb::Error>>(path: &Path) -> impl Fn(E) -> Self + use<E> {
        let path = path.to_owned();
        move |source| match source.into() {
            redb::Error::DatabaseAlreadyOpen => Self::InUse { path: path.clone() },
            redb::Error::Io(source) => Self::Io { path: path.clone(), source },
            source => Self::Database { path: path.clone(), source: Box::new(source) },
        }
    }
}

/// Opens or creates a database that belongs to one network, and to a chain that starts with this block.
pub(crate) fn open_database(path: &Path, coin: &dyn Coin, start: BlockHash) -> Result<Database, StoreError> {
    let failed = StoreError::database(path);
    let database = Database::create(path).map_err(StoreError::database(path))?;
    let transaction = database.begin_write().map_err(StoreError::database(path))?;
    {
        let mut meta = transaction.open_table(META).map_err(StoreError::database(path))?;
        let expected: [(&str, &[u8]); 3] =
            [("version", VERSION), ("network", coin.name().as_bytes()), ("genesis", start.as_bytes())];
        for (key, value) in expected {
            let found = meta.get(key).map_err(&failed)?.map(|found| found.value().to_vec());
            match found {
                None => drop(meta.insert(key, value).map_err(&failed)?),
                Some(found) if found == value => {}
                Some(found) if key == "version" => {
                    let found = String::from_utf8_lossy(&found).into_owned();
                    return Err(StoreError::OtherVersion { path: path.to_owned(), found });
                }
                Some(found) => return Err(other_network(path, key, &found, coin, start)),
            }
        }
    }
    transaction.commit().map_err(StoreError::database(path))?;
    Ok(database)
}

/// The network's name that a database was made for; `None` if there is no such file yet.
pub(crate) fn network_of(path: &Path) -> Result<Option<String>, StoreError> {
    if !path.exists() {
        return Ok(None);
    }
    let database = Database::open(path).map_err(StoreError::database(path))?;
    let transaction = database.begin_read().map_err(StoreError::database(path))?;
    let meta = transaction.open_table(META).map_err(StoreError::database(path))?;
    let name = meta.get("network").map_err(StoreError::database(path))?;
    Ok(name.map(|name| String::from_utf8_lossy(name.value()).into_owned()))
}

fn other_network(path: &Path, key: &str, found: &[u8], coin: &dyn Coin, start: BlockHash) -> StoreError {
    let (found, expected) = match <[u8; 32]>::try_from(found) {
        Ok(hash) if key == "genesis" => {
            (format!("that starts with {}", BlockHash::from_bytes(hash)), format!("that starts with {start}"))
        }
        _ => (String::from_utf8_lossy(found).into_owned(), coin.name().to_owned()),
    };
    StoreError::OtherNetwork { path: path.to_owned(), found, expected }
}

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
        let database = open_database(path, coin, start)?;
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

    /// Removes every header for which, in the order of arrival, `stays` is false.
    ///
    /// # Errors
    /// The file can't be read or written; all are kept then.
    pub fn retain(&mut self, stays: &[bool]) -> Result<(), StoreError> {
        let failed = StoreError::database(&self.path);
        let transaction = self.database.begin_write().map_err(StoreError::database(&self.path))?;
        {
            let mut table = transaction.open_table(HEADERS).map_err(StoreError::database(&self.path))?;
            let mut gone = Vec::new();
            for (entry, stays) in table.iter().map_err(&failed)?.zip(stays) {
                let (number, _) = entry.map_err(&failed)?;
                gone.extend((!stays).then(|| number.value()));
            }
            for number in gone {
                table.remove(number).map_err(&failed)?;
            }
        }
        transaction.commit().map_err(StoreError::database(&self.path))
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
