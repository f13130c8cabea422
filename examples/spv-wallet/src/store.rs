//! The wallet on disk: one file, in which what was found and how far was looked are written in one transaction.
//!
//! Changes are appended; when the wallet is opened they are merged into one.

use std::{io, path::Path};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use tipward_chain::{
    sync::{BlockId, SinkError},
    wire::BlockHash,
};

use crate::ledger::ChangeSet;

/// Changes in the order of their numbers, as JSON.
const CHANGES: TableDefinition<u64, &[u8]> = TableDefinition::new("changes");
/// The [`Settings`], as JSON, under the one key.
const SETTINGS: TableDefinition<(), &[u8]> = TableDefinition::new("settings");

/// What there is one of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The network's name.
    pub(crate) network: String,
    /// The height and hash of the last block whose transactions are known.
    pub(crate) cursor: Option<(u64, String)>,
    /// The next sync is to begin with the block at this height.
    pub(crate) scan_from: Option<u64>,
}

impl Settings {
    pub(crate) fn cursor(&self) -> Result<Option<BlockId>, SinkError> {
        let Some((height, hash)) = &self.cursor else { return Ok(None) };
        let hash: BlockHash = hash.parse()?;
        Ok(Some(BlockId { height: *height, hash }))
    }

    pub(crate) fn set_cursor(&mut self, cursor: Option<BlockId>) {
        self.cursor = cursor.map(|block| (block.height, block.hash.to_string()));
    }
}

/// The file.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
    next: u64,
}

impl Store {
    /// Makes a new file. It has its name when all of this is in it.
    pub(crate) fn create(path: &Path, changes: &ChangeSet, settings: &Settings) -> Result<(), SinkError> {
        let unfinished = path.with_extension("new");
        std::fs::remove_file(&unfinished).or_else(absent)?;
        let database = Database::create(&unfinished).map_err(|error| explain(&unfinished, &error))?;
        Self { database, next: 0 }.commit(changes, settings)?;
        Ok(std::fs::rename(&unfinished, path)?)
    }

    /// Opens a file and reads everything.
    pub(crate) fn open(path: &Path) -> Result<(Self, Settings, ChangeSet), SinkError> {
        if !path.exists() {
            return Err(format!("there is no wallet: {} (make one with 'init')", path.display()).into());
        }
        let database = Database::open(path).map_err(|error| explain(path, &error))?;
        let (settings, mut all, rows) =
            read_all(&database).map_err(|error| format!("{} is damaged: {error}", path.display()))?;
        all.compact();
        let mut store = Self { database, next: if rows > 1 { 0 } else { rows } };
        if rows > 1 {
            store.write(&all, &settings, true)?;
        }
        Ok((store, settings, all))
    }

    /// Writes what has changed: all of it or, if the process or the machine dies on the way, nothing.
    pub(crate) fn commit(&mut self, changes: &ChangeSet, settings: &Settings) -> Result<(), SinkError> {
        self.write(changes, settings, false)
    }

    fn write(&mut self, changes: &ChangeSet, settings: &Settings, is_all: bool) -> Result<(), SinkError> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(CHANGES)?;
            if is_all {
                table.retain(|_, _| false)?;
            }
            if !changes.is_empty() {
                table.insert(self.next, &serde_json::to_vec(changes)?[..])?;
                self.next += 1;
            }
            transaction.open_table(SETTINGS)?.insert((), &serde_json::to_vec(settings)?[..])?;
        }
        transaction.commit()?;
        Ok(())
    }
}

/// The settings, all changes merged, and how many there were.
fn read_all(database: &Database) -> Result<(Settings, ChangeSet, u64), SinkError> {
    let read = database.begin_read()?;
    let (mut all, mut rows) = (ChangeSet::default(), 0);
    for row in read.open_table(CHANGES)?.iter()? {
        all.merge(serde_json::from_slice(row?.1.value())?);
        rows += 1;
    }
    let table = read.open_table(SETTINGS)?;
    let settings = table.get(())?.ok_or("it has no settings")?;
    Ok((serde_json::from_slice(settings.value())?, all, rows))
}

/// A file that is not there need not be removed.
pub(crate) fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn explain(path: &Path, error: &DatabaseError) -> String {
    match error {
        DatabaseError::DatabaseAlreadyOpen => format!("{} is in use by another process", path.display()),
        error => format!("{}: {error}", path.display()),
    }
}
