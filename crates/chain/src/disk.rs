//! All that the stores do to the disk goes through here, so that tests can let any of it fail.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use redb::{Database, DatabaseError};

use crate::{StoreError, store::shared};

#[cfg(test)]
pub(crate) mod faulty;

/// A file is synced while it is written whenever it has grown by so many bytes.
const EARLY: usize = 16 << 20;

/// Files by path. What was written is durable once its file was synced, and a name that came or went once its directory was.
pub(crate) trait Disk: fmt::Debug + Send + Sync {
    /// Creates a directory and its parents where they are not there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Opens a database for writing, or creates it.
    fn database(&self, path: &Path) -> Result<Database, DatabaseError>;

    /// Opens a file for writing, or creates it.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading from a byte on.
    fn read(&self, path: &Path, offset: u64) -> io::Result<Box<dyn Read + Send>>;

    /// The names in a directory.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file that is open for writing.
pub(crate) trait DiskFile: fmt::Debug + Send + Sync {
    fn len(&self) -> io::Result<u64>;
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system.
#[derive(Debug)]
pub(crate) struct FileSystem;

impl Disk for FileSystem {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.as_os_str().is_empty() || dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(Path::new(""));
        self.create_dir(parent)?;
        match std::fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => self.sync_dir(parent),
        }
    }

    fn database(&self, path: &Path) -> Result<Database, DatabaseError> {
        shared().create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Box::new(EarlyFile { file, path: path.to_owned(), waiting: 0, early: None }))
    }

    fn read(&self, path: &Path, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(here(dir))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Elsewhere a directory can't be opened, and names are durable by themselves.
        if cfg!(unix) {
            File::open(here(dir))?.sync_all()?;
        }
        Ok(())
    }
}

/// A file of which much is on the disk already when somebody waits for it to be: a thread syncs it while it is written.
#[derive(Debug)]
struct EarlyFile {
    file: File,
    path: PathBuf,
    /// How many bytes were written since the thread was told.
    waiting: usize,
    /// The thread, from when it is first needed. It ends when this does.
    early: Option<SyncSender<()>>,
}

impl EarlyFile {
    fn sync_early(&mut self) -> io::Result<()> {
        if self.early.is_none() {
            // Opened again: an error that the thread meets is reported to it alone, and once more to who waits.
            let file = OpenOptions::new().write(true).open(&self.path)?;
            let (early, told) = sync_channel(1);
            let work = move || told.iter().for_each(|()| drop(file.sync_data()));
            thread::Builder::new().name("tipward-archive".to_owned()).spawn(work)?;
            self.early = Some(early);
        }
        // If it is told already, that is enough.
        self.early.as_ref().map(|early| early.try_send(()));
        Ok(())
    }
}

impl DiskFile for EarlyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.write_all(bytes)?;
        self.waiting += bytes.len();
        if self.waiting >= EARLY {
            self.waiting = 0;
            // If it can't be, whoever syncs waits longer.
            self.sync_early().ok();
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.waiting = 0;
        self.file.sync_data()
    }
}

/// Removes a file, if it is there.
pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io(path)(error)),
        _ => Ok(()),
    }
}

/// The directory of a path without one.
fn here(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}
