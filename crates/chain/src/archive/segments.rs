//! The segment files: `blk00000.blk`, `blk00001.blk` and so on.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tipward_sync::{Block, peer::wire::bitcoin::blk_frame_header};

use crate::{
    StoreError,
    disk::{Disk, DiskFile, remove},
};

const WRITE_BUFFER: usize = 1 << 20;

/// What is written to: the last segment.
#[derive(Debug)]
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    magic: [u8; 4],
    /// A new segment is begun when this one would grow larger, in bytes.
    segment_size: u64,
    number: u32,
    /// Where its last whole record ends.
    len: u64,
    /// The length of a record behind that which is begun.
    begun: u64,
    /// Of the block that was written last, or is being written.
    checksum: crc32fast::Hasher,
    /// The end of what stays: all else is of writes that have failed or were given up.
    kept: (u32, u64),
    file: Box<dyn DiskFile>,
    /// What goes to the file next.
    buffer: Vec<u8>,
}

impl Segments {
    /// Opens the last segment, cut to the `end` that the index knows, and removes those before the `first` and after the last.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        magic: [u8; 4],
        segment_size: u64,
        (first, end): (u32, (u32, u64)),
    ) -> Result<Self, StoreError> {
        for number in disk.names(dir).map_err(StoreError::io(dir))?.iter().filter_map(|name| number_of(name))
        {
            if number < first || number > end.0 {
                let path = segment_path(dir, number);
                tracing::info!(path = %path.display(), "removing a segment that nothing points to");
                remove(&*disk, &path)?;
            }
        }
        let file = open_last(&*disk, dir, end)?;
        // A new file's name must be as durable as what is written under it.
        disk.sync_dir(dir).map_err(StoreError::io(dir))?;
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            magic,
            segment_size,
            number: end.0,
            len: end.1,
            begun: 0,
            checksum: crc32fast::Hasher::new(),
            kept: end,
            file,
            buffer: Vec::new(),
        })
    }

    /// Where the next record goes.
    pub(super) fn end(&self) -> (u32, u64) {
        (self.number, self.len)
    }

    /// Writes a block; returns where its first byte is, and its checksum.
    pub(super) fn append(&mut self, block: &Block) -> Result<((u32, u64), u32), StoreError> {
        let place = self.begin(block.size)?;
        for part in &block.parts {
            self.write(&part.bytes)?;
        }
        Ok((place, self.complete()))
    }

    /// Begins the record of a block of that size; returns where its first byte will be. The rest is for
    /// [`write`](Self::write), and then [`complete`](Self::complete) or [`revert`](Self::revert).
    pub(super) fn begin(&mut self, size: u64) -> Result<(u32, u64), StoreError> {
        let header = blk_frame_header(self.magic, size);
        if self.len > 0 && self.len + header.len() as u64 + size > self.segment_size {
            self.next_segment()?;
        }
        self.write(&header)?;
        self.checksum.reset();
        Ok((self.number, self.len + self.begun))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.checksum.update(bytes);
        if self.buffer.len() + bytes.len() > WRITE_BUFFER {
            self.flush()?;
        }
        if bytes.len() < WRITE_BUFFER {
            self.buffer.extend_from_slice(bytes);
        } else {
            let written = self.file.write_at(self.len + self.begun, bytes);
            written.map_err(StoreError::io(&segment_path(&self.dir, self.number)))?;
        }
        self.begun += bytes.len() as u64;
        Ok(())
    }

    /// What was begun is a record now; returns the checksum of its block.
    pub(super) fn complete(&mut self) -> u32 {
        self.len += std::mem::take(&mut self.begun);
        self.checksum.clone().finalize()
    }

    /// Cuts off what was written since the last [`keep`](Self::keep).
    pub(super) fn revert(&mut self) -> Result<(), StoreError> {
        if self.end() == self.kept && self.begun == 0 {
            return Ok(());
        }
        self.buffer.clear();
        for later in self.kept.0 + 1..=self.number {
            remove(&*self.disk, &segment_path(&self.dir, later))?;
        }
        self.file = open_last(&*self.disk, &self.dir, self.kept)?;
        (self.number, self.len) = self.kept;
        self.begun = 0;
        Ok(())
    }

    /// Makes durable what was written. It stays from now on, whatever becomes of the index: who can't write to that does not
    /// know what it says.
    pub(super) fn keep(&mut self) -> Result<(), StoreError> {
        self.flush()?;
        self.file.sync().map_err(StoreError::io(&segment_path(&self.dir, self.number)))?;
        self.kept = self.end();
        Ok(())
    }

    /// Removes a segment that nothing points to any more. What can't be removed is tried again on opening.
    pub(super) fn remove(&self, number: u32) {
        if let Err(error) = remove(&*self.disk, &segment_path(&self.dir, number)) {
            tracing::warn!(%error, "a pruned segment can't be removed");
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if !self.buffer.is_empty() {
            let at = self.len + self.begun - self.buffer.len() as u64;
            let written = self.file.write_at(at, &self.buffer);
            written.map_err(StoreError::io(&segment_path(&self.dir, self.number)))?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn next_segment(&mut self) -> Result<(), StoreError> {
        self.flush()?;
        self.file.sync().map_err(StoreError::io(&segment_path(&self.dir, self.number)))?;
        self.file = open_last(&*self.disk, &self.dir, (self.number + 1, 0))?;
        self.number += 1;
        self.len = 0;
        self.disk.sync_dir(&self.dir).map_err(StoreError::io(&self.dir))
    }
}

/// Opens a segment that ends there, and cuts what is behind.
fn open_last(
    disk: &dyn Disk,
    dir: &Path,
    (number, len): (u32, u64),
) -> Result<Box<dyn DiskFile>, StoreError> {
    let path = segment_path(dir, number);
    let mut file = disk.open(&path).map_err(StoreError::io(&path))?;
    let found = file.len().map_err(StoreError::io(&path))?;
    if found < len {
        return Err(StoreError::damaged(
            &path,
            format!("{len} bytes are indexed, {found} are there; it needs a repair"),
        ));
    }
    if found > len {
        tracing::info!(path = %path.display(), bytes = found - len, "cutting the tail of an unfinished write");
        file.set_len(len).map_err(StoreError::io(&path))?;
    }
    Ok(file)
}

pub(super) fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(segment_name(number))
}

pub(super) fn segment_name(number: u32) -> String {
    format!("blk{number:05}.blk")
}

/// The number in a segment's name.
fn number_of(name: &str) -> Option<u32> {
    let number = name.strip_prefix("blk")?.strip_suffix(".blk")?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}
