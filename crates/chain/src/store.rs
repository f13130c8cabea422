//! What is kept on disk: headers here, blocks in the archive. Each has a `redb` file that belongs to one network.

use std::{
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use redb::{
    Builder, ConcurrencyMode, Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, ReadableTable,
    TableDefinition,
};
use tipward_sync::{BlockId, peer::wire::BlockHash};

use crate::{
    CheckpointError, Coin,
    disk::{Disk, remove},
};
pub use headers::{HeaderSnapshot, HeaderStore};

mod headers;
mod rejected;

/// What the file is.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// How often, and how long apart, a reader looks for a writer that is just mending a file to be done with it.
pub(crate) const LOOKS: u32 = 100;
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

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
    #[error("{} has layout {found}, this version reads layout {expected}", path.display())]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: String,
        /// The layout that this version reads.
        expected: String,
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
    /// The block was archived, and its segment has been deleted since.
    #[error("block {block} was pruned")]
    Pruned {
        /// The block.
        block: BlockId,
    },
    /// The process that wrote to it was killed, and who only reads it may not mend it.
    #[error("{} was not closed, and can't be mended for want of the right to write: open it once with that", path.display())]
    NotClosed {
        /// The file.
        path: PathBuf,
    },
    /// The node that had the headers open has ended.
    #[error("the node that had the headers open has ended")]
    Closed,
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

/// Opens a database for writing. One that is not there is created under another name first: half of one would be taken for
/// something else.
pub(crate) fn open_database(
    disk: &dyn Disk,
    path: &Path,
    fill: impl FnOnce(&Database, &Path) -> Result<(), StoreError>,
) -> Result<Database, StoreError> {
    let dir = path.parent().unwrap_or(Path::new(""));
    let is_it = |name: &String| path.file_name().is_some_and(|it| it == name.as_str());
    if !disk.names(dir).map_err(StoreError::io(dir))?.iter().any(is_it) {
        let new = path.with_extension("new");
        remove(disk, &new)?;
        fill(&disk.database(&new).map_err(StoreError::database(&new))?, &new)?;
        disk.rename(&new, path).map_err(StoreError::io(path))?;
        disk.sync_dir(dir).map_err(StoreError::io(dir))?;
    }
    disk.database(path).map_err(StoreError::database(path))
}

/// Opens a database for reading, also while another process writes. If nobody does and the last who did was killed, it is
/// mended first, as the next writer would.
pub(crate) fn open_read_only(path: &Path) -> Result<ReadOnlyDatabase, StoreError> {
    for _ in 0..LOOKS {
        match shared().open_read_only(path) {
            Err(DatabaseError::RepairAborted) => {}
            opened => return opened.map_err(StoreError::database(path)),
        }
        match shared().open(path) {
            Ok(mended) => drop(mended),
            // A writer has begun, and is mending it.
            Err(DatabaseError::DatabaseAlreadyOpen) => sleep(LOOK_AGAIN),
            Err(error) => {
                return Err(match StoreError::database(path)(error) {
                    StoreError::Io { source, .. } if is_denied(&source) => {
                        StoreError::NotClosed { path: path.to_owned() }
                    }
                    error => error,
                });
            }
        }
    }
    Err(StoreError::InUse { path: path.to_owned() })
}

fn is_denied(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem)
}

/// Binds a database to one network, to a chain that starts with this block, and to the layout of its tables; or says why it
/// is bound otherwise.
pub(crate) fn bind_database(
    database: &Database,
    path: &Path,
    coin: &dyn Coin,
    start: BlockHash,
    layout: &[u8],
) -> Result<(), StoreError> {
    let failed = StoreError::database(path);
    let transaction = database.begin_write().map_err(StoreError::database(path))?;
    {
        let mut meta = transaction.open_table(META).map_err(StoreError::database(path))?;
        for (key, value) in bonds(coin, &start, layout) {
            if meta.get(key).map_err(&failed)?.is_none() {
                meta.insert(key, value).map_err(&failed)?;
            }
        }
        check_meta(&meta, path, coin, start, layout)?;
    }
    transaction.commit().map_err(StoreError::database(path))
}

/// Says why a database is not bound so.
pub(crate) fn check_database(
    database: &impl ReadableDatabase,
    path: &Path,
    coin: &dyn Coin,
    start: BlockHash,
    layout: &[u8],
) -> Result<(), StoreError> {
    let transaction = database.begin_read().map_err(StoreError::database(path))?;
    let meta = transaction.open_table(META).map_err(StoreError::database(path))?;
    check_meta(&meta, path, coin, start, layout)
}

fn bonds<'a>(coin: &'a dyn Coin, start: &'a BlockHash, layout: &'a [u8]) -> [(&'static str, &'a [u8]); 3] {
    [("version", layout), ("network", coin.name().as_bytes()), ("genesis", start.as_bytes())]
}

fn check_meta(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    path: &Path,
    coin: &dyn Coin,
    start: BlockHash,
    layout: &[u8],
) -> Result<(), StoreError> {
    for (key, value) in bonds(coin, &start, layout) {
        let found = meta.get(key).map_err(StoreError::database(path))?;
        let found = found.map(|found| found.value().to_vec()).unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if found != value {
            return Err(match key {
                "version" => StoreError::OtherVersion {
                    path: path.to_owned(),
                    found: text(&found),
                    expected: text(value),
                },
                _ => other_network(path, key, &found, coin, start),
            });
        }
    }
    Ok(())
}

/// The network's name that a database was made for; `None` if there is no such file yet.
pub(crate) fn network_of(path: &Path) -> Result<Option<String>, StoreError> {
    if !path.exists() {
        return Ok(None);
    }
    let transaction = open_read_only(path)?.begin_read().map_err(StoreError::database(path))?;
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
