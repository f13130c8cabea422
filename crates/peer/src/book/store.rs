//! The file that keeps a book. The one place of this crate that touches the file system; it blocks.

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use super::{Book, BookOptions, BookProblem, UnixTime};

/// More bytes than any entry takes.
const MAX_ENTRY_SIZE: u64 = 2048;
/// A file may have so many bytes even if the options allow few entries: those of an earlier run may have allowed more.
const MIN_LIMIT: u64 = 32 << 20;
/// The most damaged files set aside within one second.
const MAX_SET_ASIDE: u32 = 100;

/// Where a book is kept, if anywhere. One process may use a file at a time.
#[derive(Debug, Clone)]
pub struct BookFile {
    path: Option<PathBuf>,
    network: String,
}

/// A book that was read.
#[derive(Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The book; empty if there was no file, or the file was no good.
    pub book: Book,
    /// What was wrong with the file, and where it is now.
    pub problem: Option<(BookProblem, PathBuf)>,
}

/// Why a book could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BookFileError {
    /// The system reported an error.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Of which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is of another network: a wrong path, which must not cost its owner the file.
    #[error("{} {problem}", path.display())]
    OtherNetwork {
        /// The file.
        path: PathBuf,
        /// Which networks.
        problem: BookProblem,
    },
}

impl BookFile {
    /// A file for the book of the named network; without a path nothing is read and nothing is ever written.
    #[must_use]
    pub fn new(path: Option<PathBuf>, network: &str) -> Self {
        Self { path, network: network.to_owned() }
    }

    /// Reads the book. A missing file is an empty book. A file that is damaged, too large or of another version is renamed
    /// to `<name>.damaged-<unix seconds>`, and the book is empty.
    ///
    /// # Errors
    /// The system reports an error, or the file is of another network.
    pub fn load(
        &self,
        options: BookOptions,
        random: fastrand::Rng,
        now: UnixTime,
    ) -> Result<Loaded, BookFileError> {
        let empty = |options, random| Loaded { book: Book::new(options, random), problem: None };
        let Some(path) = &self.path else { return Ok(empty(options, random)) };
        let entries = u64::try_from(options.max_entries.max(1)).unwrap_or(u64::MAX);
        let bytes = match read(path, entries.saturating_mul(MAX_ENTRY_SIZE).max(MIN_LIMIT)) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(empty(options, random)),
            Err(source) => return Err(io_error("read", path, source)),
        };
        let read = bytes.and_then(|bytes| {
            let text = std::str::from_utf8(&bytes).map_err(|_| BookProblem::NotText)?;
            Book::from_json(text, &self.network, options.clone(), random.clone(), now)
        });
        match read {
            Ok(book) => Ok(Loaded { book, problem: None }),
            Err(problem @ BookProblem::OtherNetwork { .. }) => {
                Err(BookFileError::OtherNetwork { path: path.clone(), problem })
            }
            Err(problem) => {
                let aside =
                    set_aside(path, now).map_err(|source| io_error("set aside the damaged", path, source))?;
                Ok(Loaded { problem: Some((problem, aside)), ..empty(options, random) })
            }
        }
    }

    /// The text to [`write`](Self::write); `None` without a path. Quick enough for the task that owns the book.
    #[must_use]
    pub fn text(&self, book: &Book) -> Option<String> {
        self.path.as_ref().map(|_| book.to_json(&self.network))
    }

    /// Replaces the file by this text, or leaves it as it is: a reader, or a crash, never finds half of it.
    ///
    /// # Errors
    /// The system reports an error.
    pub fn write(&self, text: &str) -> Result<(), BookFileError> {
        let Some(path) = &self.path else { return Ok(()) };
        let temporary = with_suffix(path, ".tmp");
        replace(path, &temporary, text.as_bytes()).map_err(|source| {
            fs::remove_file(&temporary).ok();
            io_error("write", path, source)
        })
    }
}

/// The file's bytes; `None` if there is no file.
fn read(path: &Path, limit: u64) -> io::Result<Option<Result<Vec<u8>, BookProblem>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let size = file.metadata()?.len();
    let mut bytes = Vec::new();
    if size <= limit {
        // It may grow while it is read.
        file.take(limit + 1).read_to_end(&mut bytes)?;
    }
    let size = size.max(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    Ok(Some(if size > limit { Err(BookProblem::TooLarge { size, limit }) } else { Ok(bytes) }))
}

fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(temporary, path)?;
    sync_folder(path)
}

/// Makes a rename last.
fn sync_folder(path: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened as a file.
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Renames the file so that nothing is overwritten.
fn set_aside(path: &Path, now: UnixTime) -> io::Result<PathBuf> {
    for n in 0..MAX_SET_ASIDE {
        let again = if n == 0 { String::new() } else { format!("-{n}") };
        let aside = with_suffix(path, &format!(".damaged-{}{again}", now.as_secs()));
        if !aside.try_exists()? {
            fs::rename(path, &aside)?;
            sync_folder(path)?;
            return Ok(aside);
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many damaged files"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> BookFileError {
    BookFileError::Io { action, path: path.to_owned(), source }
}
