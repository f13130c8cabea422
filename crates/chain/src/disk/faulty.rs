//! A disk in memory that fails, tears what is written, and forgets what was not synced.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use redb::{BackendError, Database, DatabaseError, StorageBackend};

use super::{Disk, DiskFile};
use crate::store::shared;

/// What happens to one of the operations that change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails and does nothing.
    Fail,
    /// It fails half way: a write is cut short, all else is done.
    Tear,
    /// The same, and nothing works any more.
    Crash,
}

/// What a crash leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    All,
    /// Of each change all, nothing or a part, drawn from a seed.
    Parts(u64),
}

/// The disk. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultyDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: Vec<Contents>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Names that came and went since the directory was synced.
    pending: Vec<NameChange>,
    /// How many operations have changed something.
    operations: u64,
    /// What happens to which of them.
    fault: Option<(u64, Fault)>,
    is_dead: bool,
}

#[derive(Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// What was done since it was synced.
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Clone)]
enum NameChange {
    Create(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Create(path, file) => drop(names.insert(path.clone(), *file)),
            Self::Remove(path) => drop(names.remove(path)),
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

impl FaultyDisk {
    /// A disk on which that happens to the operation of that number, from 0.
    pub(crate) fn with(number: u64, fault: Fault) -> Self {
        let disk = Self::default();
        disk.state().fault = Some((number, fault));
        disk
    }

    /// How many operations have changed something.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The names of all files.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// The disk after a crash.
    pub(crate) fn crashed(&self, left: Left) -> Self {
        let state = self.state();
        let mut random = fastrand::Rng::with_seed(if let Left::Parts(seed) = left { seed } else { 0 });
        let mut after = State::default();
        for file in &state.files {
            let mut bytes = file.durable.clone();
            for change in &file.pending {
                if let Some(change) = change.left(left, &mut random) {
                    change.apply(&mut bytes);
                }
            }
            after.files.push(Contents { durable: bytes.clone(), bytes, pending: Vec::new() });
        }
        after.names = state.durable_names.clone();
        for change in &state.pending {
            let is_kept = match left {
                Left::Nothing => false,
                Left::All => true,
                Left::Parts(_) => random.bool(),
            };
            if is_kept {
                change.apply(&mut after.names);
            }
        }
        after.durable_names = after.names.clone();
        Self(Arc::new(Mutex::new(after)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The file of that name, which may be new.
    fn named(&self, path: &Path) -> io::Result<FaultyFile> {
        let mut state = self.state();
        let known = state.names.get(path).copied();
        let file = match known {
            Some(file) => file,
            None => state.change(|state, _| {
                let file = state.files.len();
                state.files.push(Contents::default());
                state.rename(NameChange::Create(path.to_owned(), file));
                file
            })?,
        };
        Ok(FaultyFile { disk: self.clone(), file })
    }
}

impl State {
    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    /// Does something, or half of it, unless it fails.
    fn change<T>(&mut self, change: impl FnOnce(&mut Self, bool) -> T) -> io::Result<T> {
        let number = self.operations;
        self.operations += 1;
        let fault = self.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault);
        let failed = || io::Error::other("a fault of the disk");
        match fault {
            _ if self.is_dead => Err(failed()),
            None => Ok(change(self, false)),
            Some(Fault::Fail) => Err(failed()),
            Some(fault @ (Fault::Tear | Fault::Crash)) => {
                change(self, true);
                self.is_dead = fault == Fault::Crash;
                Err(failed())
            }
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, written) => {
                let start = *at as usize;
                let end = start + written.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[start..end].copy_from_slice(written);
            }
            Self::Length(len) => bytes.resize(*len as usize, 0),
        }
    }

    fn left(&self, left: Left, random: &mut fastrand::Rng) -> Option<Self> {
        match (left, self) {
            (Left::Nothing, _) => None,
            (Left::All, _) => Some(self.clone()),
            (Left::Parts(_), Self::Write(at, bytes)) => match random.u8(..4) {
                0 => None,
                1 => Some(Self::Write(*at, bytes[..random.usize(..=bytes.len())].to_vec())),
                2 => {
                    let start = random.usize(..=bytes.len());
                    Some(Self::Write(at + start as u64, bytes[start..].to_vec()))
                }
                _ => Some(self.clone()),
            },
            (Left::Parts(_), Self::Length(_)) => random.bool().then(|| self.clone()),
        }
    }
}

impl Disk for FaultyDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn database(&self, path: &Path) -> Result<Database, DatabaseError> {
        shared().create_with_backend(self.named(path)?)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(self.named(path)?))
    }

    fn read(&self, path: &Path, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let state = self.state();
        let file = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let bytes = state.files[file].bytes.get(offset as usize..).unwrap_or_default();
        Ok(Box::new(io::Cursor::new(bytes.to_vec())))
    }

    fn names(&self, _: &Path) -> io::Result<Vec<String>> {
        let names = self.state().names.clone();
        Ok(names.keys().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(|state, _| state.rename(NameChange::Remove(path.to_owned())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().change(|state, _| state.rename(NameChange::Rename(from.to_owned(), to.to_owned())))
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.state().change(|state, _| {
            state.durable_names = state.names.clone();
            state.pending.clear();
        })
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    file: usize,
}

impl FaultyFile {
    fn change(&self, change: Change) -> io::Result<()> {
        self.disk.state().change(|state, is_torn| {
            let change = match change {
                Change::Write(at, mut bytes) if is_torn => {
                    bytes.truncate(bytes.len() / 2);
                    Change::Write(at, bytes)
                }
                change => change,
            };
            let file = &mut state.files[self.file];
            change.apply(&mut file.bytes);
            file.pending.push(change);
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state().change(|state, is_torn| {
            let file = &mut state.files[self.file];
            let done = if is_torn { file.pending.len() / 2 } else { file.pending.len() };
            file.pending.drain(..done).for_each(|change| change.apply(&mut file.durable));
        })
    }
}

impl DiskFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].bytes.len() as u64)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.change(Change::Length(len))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset, bytes.to_vec()))
    }

    fn sync(&mut self) -> io::Result<()> {
        FaultyFile::sync(self)
    }
}

/// The index lives on the same disk. Nobody else is there to be locked out.
impl StorageBackend for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        DiskFile::len(self)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state();
        let bytes =
            state.files[self.file].bytes.get(offset as usize..).and_then(|bytes| bytes.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        FaultyFile::sync(self)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset, data.to_vec()))
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}
