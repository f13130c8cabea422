//! The segment files: `blk00000.blk`, `blk00001.blk` and so on.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use tipward_sync::{Block, peer::wire::bitcoin::blk_frame_header};

use crate::StoreError;

/// A new segment is begun when this one would grow larger, in bytes: the nodes' own limit.
const SEGMENT_SIZE: u64 = 128 << 20;
const WRITE_BUFFER: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    magic: [u8; 4],
    /// The segment that is written to, and where its last whole record ends.
    number: u32,
    len: u64,
    /// The length of a record behind that which is begun; all else there is to be cut.
    begun: u64,
    file: BufWriter<File>,
}

impl Segments {
    /// Opens the last segment, cut to the end that the index knows, and removes later ones.
    pub(super) fn open(dir: &Path, magic: [u8; 4], (number, len): (u32, u64)) -> Result<Self, StoreError> {
        let path = segment_path(dir, number);
        let file = open(&path)?;
        let found = file.metadata().map_err(StoreError::io(&path))?.len();
        if found < len {
            return Err(StoreError::damaged(&path, format!("{len} bytes are indexed, {found} are there")));
        }
        if found > len {
            tracing::info!(path = %path.display(), bytes = found - len, "cutting the tail of an unfinished write");
            file.set_len(len).map_err(StoreError::io(&path))?;
        }
        for later in number + 1.. {
            let path = segment_path(dir, later);
            match std::fs::remove_file(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "removed a segment of an unfinished write"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(StoreError::io(&path)(error)),
            }
        }
        let mut segments = Self { dir: dir.to_owned(), magic, number, len, begun: 0, file: writer(file) };
        segments.file.seek(SeekFrom::Start(len)).map_err(StoreError::io(&path))?;
        Ok(segments)
    }

    /// Where the next record goes.
    pub(super) fn end(&self) -> (u32, u64) {
        (self.number, self.len)
    }

    /// Writes a block; returns where its first byte is.
    pub(super) fn append(&mut self, block: &Block) -> Result<(u32, u64), StoreError> {
        let place = self.begin(block.size)?;
        for part in &block.parts {
            self.write(&part.bytes)?;
        }
        self.complete();
        Ok(place)
    }

    /// Begins the record of a block of that size; returns where its first byte will be. The rest is for
    /// [`write`](Self::write), and then [`complete`](Self::complete) or [`cut`](Self::cut).
    pub(super) fn begin(&mut self, size: u64) -> Result<(u32, u64), StoreError> {
        if self.begun > 0 {
            // A record that could not be written to its end.
            self.cut()?;
        }
        let header = blk_frame_header(self.magic, size);
        if self.len > 0 && self.len + header.len() as u64 + size > SEGMENT_SIZE {
            self.next_segment()?;
        }
        self.write(&header)?;
        Ok((self.number, self.len + self.begun))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.begun += bytes.len() as u64;
        self.file.write_all(bytes).map_err(StoreError::io(&segment_path(&self.dir, self.number)))
    }

    /// What was begun is a record now.
    pub(super) fn complete(&mut self) {
        self.len += std::mem::take(&mut self.begun);
    }

    /// Cuts off what was begun.
    pub(super) fn cut(&mut self) -> Result<(), StoreError> {
        let failed = StoreError::io(&segment_path(&self.dir, self.number));
        // What is still in the buffer must not be written after all.
        let file = self.file.get_ref().try_clone().map_err(&failed)?;
        drop(std::mem::replace(&mut self.file, writer(file)).into_parts());
        self.file.get_ref().set_len(self.len).map_err(&failed)?;
        self.file.seek(SeekFrom::Start(self.len)).map_err(&failed)?;
        self.begun = 0;
        Ok(())
    }

    /// Makes durable what was written.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        let failed = StoreError::io(&segment_path(&self.dir, self.number));
        self.file.flush().map_err(&failed)?;
        self.file.get_ref().sync_data().map_err(&failed)
    }

    pub(super) fn read(&self, number: u32, offset: u64, size: u64) -> Result<io::Take<File>, StoreError> {
        let path = segment_path(&self.dir, number);
        let mut file = File::open(&path).map_err(StoreError::io(&path))?;
        file.seek(SeekFrom::Start(offset)).map_err(StoreError::io(&path))?;
        Ok(file.take(size))
    }

    fn next_segment(&mut self) -> Result<(), StoreError> {
        self.sync()?;
        let path = segment_path(&self.dir, self.number + 1);
        let file = open(&path)?;
        // What a failed write has left there is no part of it.
        file.set_len(0).map_err(StoreError::io(&path))?;
        // The new name must be as durable as what is written under it.
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(StoreError::io(&self.dir))?;
        self.file = writer(file);
        self.number += 1;
        self.len = 0;
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).open(path).map_err(StoreError::io(path))
}

fn writer(file: File) -> BufWriter<File> {
    BufWriter::with_capacity(WRITE_BUFFER, file)
}

fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("blk{number:05}.blk"))
}
