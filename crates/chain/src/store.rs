//! What is kept on disk: headers here, blocks in the archive. Each has a `redb` file that belongs to one network.

use std::path::{Path, PathBuf};

use redb::{Builder, ConcurrencyMode, Database, ReadableDatabase, ReadableTable, TableDefinition};
use tipward_sync::peer::wire::BlockHash;

use crate::{CheckpointError, Coin};
pub use headers::HeaderStore;

mod headers;
mod rejected;

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

/// One process writes, and any number may read meanwhile.
pub(crate) fn shared() -> Builder {
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder
}

/// Opens or creates a database that belongs to one network, and to a chain that starts with this block.
pub(crate) fn open_database(path: &Path, coin: &dyn Coin, start: BlockHash) -> Result<Database, StoreError> {
    let failed = StoreError::database(path);
    let database = shared().create(path).map_err(StoreError::database(path))?;
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
    let database = shared().open_read_only(path).map_err(StoreError::database(path))?;
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
