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
    /// The segment that is written to, and its length.
    number: u32,
    len: u64,
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
        let mut segments = Self { dir: dir.to_owned(), magic, number, len, file: writer(file) };
        segments.file.seek(SeekFrom::Start(len)).map_err(StoreError::io(&path))?;
        Ok(segments)
    }

    /// Where the next record goes.
    pub(super) fn end(&self) -> (u32, u64) {
        (self.number, self.len)
    }

    /// Writes a block; returns where its first byte is.
    pub(super) fn append(&mut self, block: &Block) -> Result<(u32, u64), StoreError> {
        let header = blk_frame_header(self.magic, block.size);
        let record = header.len() as u64 + block.size;
        if self.len > 0 && self.len + record > SEGMENT_SIZE {
            self.next_segment()?;
        }
        let failed = StoreError::io(&segment_path(&self.dir, self.number));
        self.file.write_all(&header).map_err(&failed)?;
        for part in &block.parts {
            self.file.write_all(&part.bytes).map_err(&failed)?;
        }
        let offset = self.len + header.len() as u64;
        self.len += record;
        Ok((self.number, offset))
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
