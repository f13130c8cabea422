//! Block files as nodes keep them: `magic[4] | length u32 | block`, repeated.
//!
//! A block of 4 GiB or more has the length FFFFFFFF and its true length in 64 bits behind it, as BSV nodes write it.
//! Nodes allocate their files ahead, so zeros may follow the last record. Bitcoin Core 28 and later obfuscate their files
//! (`xor.dat`); such a file shows as a wrong magic here.

use bytes::{Buf, Bytes, BytesMut};

use super::{Block, BlockHeader, BlockOptions, BlockReader, Chain, DEFAULT_PART_SIZE, Network};
use crate::{BlockAborted, BlockEvent, DownloadId};

/// What stands before a block of `length` bytes: 8 bytes, or 16 from 4 GiB on.
#[must_use]
pub fn blk_frame_header(magic: [u8; 4], length: u64) -> Vec<u8> {
    let mut header = magic.to_vec();
    match u32::try_from(length) {
        Ok(short) if short != u32::MAX => header.extend_from_slice(&short.to_le_bytes()),
        _ => {
            header.extend_from_slice(&u32::MAX.to_le_bytes());
            header.extend_from_slice(&length.to_le_bytes());
        }
    }
    header
}

/// What is wrong with a block file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlkError {
    /// A record does not start with the magic of a known network, or not with the one before it.
    #[error("byte {offset}: no block starts here (found {found:02x?} where a network magic belongs)")]
    Magic {
        /// Where in the file, in bytes.
        offset: u64,
        /// What stands there.
        found: [u8; 4],
    },
    /// A block does not parse.
    #[error("byte {offset}: {source}")]
    Block {
        /// Where the block starts in the file, in bytes.
        offset: u64,
        /// What is wrong with it.
        source: BlockAborted,
    },
    /// The file ends inside a record. If parts of its block were yielded, they are void.
    #[error("byte {offset}: the file ends inside the record that starts here")]
    Truncated {
        /// Where the record starts in the file, in bytes.
        offset: u64,
    },
}

/// What a block file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlkEvent {
    /// A block begins.
    Begin {
        /// The network whose magic the record has.
        network: &'static Network,
        /// Where the block's own bytes start in the file.
        offset: u64,
        /// The block's size in bytes.
        size: u64,
    },
    /// A part of the block, or its end.
    Block(BlockEvent),
}

/// Reads a block file from reads of any size. Memory is bounded by the part size.
pub struct BlkDecoder {
    part_size: usize,
    network: Option<&'static Network>,
    /// Where in the file the next record starts.
    offset: u64,
    /// Where the record being read starts.
    record: u64,
    blocks: u64,
    block: Option<BlockReader>,
    padding: bool,
    merkle_root: bool,
}

impl Default for BlkDecoder {
    fn default() -> Self {
        Self::new(DEFAULT_PART_SIZE)
    }
}

impl BlkDecoder {
    /// A decoder that yields parts of about `part_size` bytes.
    #[must_use]
    pub fn new(part_size: usize) -> Self {
        Self {
            part_size,
            network: None,
            offset: 0,
            record: 0,
            blocks: 0,
            block: None,
            padding: false,
            merkle_root: true,
        }
    }

    /// Takes the next event from the front of `input`; `None` when more bytes are needed.
    ///
    /// # Errors
    /// The file is not a block file, or a block in it does not parse.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BlkEvent>, BlkError> {
        if let Some(block) = &mut self.block {
            let event =
                block.decode(input).map_err(|source| BlkError::Block { offset: self.offset, source })?;
            if let Some(BlockEvent::End(end)) = &event {
                self.offset += end.size;
                self.block = None;
            }
            return Ok(event.map(BlkEvent::Block));
        }
        if self.padding {
            return self.skip_padding(input).map(|()| None);
        }
        let (network, header, size) = match record(input, self.network, self.offset)? {
            Record::Cut => return Ok(None),
            Record::Padding => {
                self.padding = true;
                return self.skip_padding(input).map(|()| None);
            }
            Record::Block { network, header, size } => (network, header, size),
        };
        input.advance(header);
        self.network = Some(network);
        self.record = self.offset;
        self.offset += header as u64;
        self.blocks += 1;
        let mut options = BlockOptions::new(network);
        (options.part_size, options.merkle_root) = (self.part_size, self.merkle_root);
        self.block = Some(BlockReader::new(DownloadId(self.blocks), size, options));
        Ok(Some(BlkEvent::Begin { network, offset: self.offset, size }))
    }

    /// Zeros may only be followed by zeros: a hole is not the end.
    fn skip_padding(&mut self, input: &mut BytesMut) -> Result<(), BlkError> {
        check_padding(input, self.offset)?;
        self.offset += input.len() as u64;
        input.clear();
        Ok(())
    }

    /// Sets whether merkle roots are compared with the headers', which is most of the work; they are unless this was called.
    #[must_use]
    pub fn check_merkle_root(mut self, check: bool) -> Self {
        self.merkle_root = check;
        self
    }

    /// Ends the file; `rest` is what is left of the input.
    ///
    /// # Errors
    /// [`BlkError::Truncated`] if the file ends inside a record.
    pub fn finish(&self, rest: &[u8]) -> Result<(), BlkError> {
        match (&self.block, rest) {
            (None, []) => Ok(()),
            (None, zeros) if zeros.iter().all(|&byte| byte == 0) => Ok(()),
            (Some(_), _) => Err(BlkError::Truncated { offset: self.record }),
            (None, _) => Err(BlkError::Truncated { offset: self.offset }),
        }
    }
}

/// What stands at the start of a record.
enum Record {
    /// Too little to tell.
    Cut,
    Padding,
    /// A block of `size` bytes after `header` bytes.
    Block {
        network: &'static Network,
        header: usize,
        size: u64,
    },
}

fn record(mut input: &[u8], known: Option<&'static Network>, offset: u64) -> Result<Record, BlkError> {
    let Some(&found) = input.first_chunk::<4>().filter(|_| input.len() >= 8) else { return Ok(Record::Cut) };
    if found == [0; 4] {
        return Ok(Record::Padding);
    }
    let network = Network::by_magic(found).filter(|network| known.is_none_or(|known| known == *network));
    let network = network.ok_or(BlkError::Magic { offset, found })?;
    input.advance(4);
    match (input.get_u32_le(), input.first_chunk()) {
        (u32::MAX, None) => Ok(Record::Cut),
        (u32::MAX, Some(long)) => Ok(Record::Block { network, header: 16, size: u64::from_le_bytes(*long) }),
        (short, _) => Ok(Record::Block { network, header: 8, size: u64::from(short) }),
    }
}

fn check_padding(bytes: &[u8], offset: u64) -> Result<(), BlkError> {
    let Some(at) = bytes.iter().position(|&byte| byte != 0) else { return Ok(()) };
    let mut found = [0; 4];
    found.iter_mut().zip(&bytes[at..]).for_each(|(found, byte)| *found = *byte);
    Err(BlkError::Magic { offset: offset + at as u64, found })
}

/// The blocks of a file that is in memory. Ends after the first error.
///
/// Blocks are taken apart, not checked: see [`Block::check_merkle_root`].
#[derive(Debug, Clone)]
pub struct BlkFile {
    rest: Bytes,
    network: Option<&'static Network>,
    offset: u64,
    blocks: u64,
}

impl BlkFile {
    /// Takes the bytes of a file.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self { rest: bytes.into(), network: None, offset: 0, blocks: 0 }
    }

    fn take(&mut self) -> Result<Option<Block>, BlkError> {
        let (network, header, size) = match record(&self.rest, self.network, self.offset)? {
            Record::Cut if self.rest.iter().all(|&byte| byte == 0) => return Ok(None),
            Record::Padding => return check_padding(&self.rest, self.offset).map(|()| None),
            Record::Cut => return Err(BlkError::Truncated { offset: self.offset }),
            Record::Block { network, header, size } => (network, header, size),
        };
        let size = usize::try_from(size).ok().filter(|size| *size <= self.rest.len() - header);
        let size = size.ok_or(BlkError::Truncated { offset: self.offset })?;
        self.rest.advance(header);
        let bytes = self.rest.split_to(size);
        self.network = Some(network);
        self.blocks += 1;
        let offset = self.offset + header as u64;
        self.offset = offset + size as u64;
        let hash = bytes.first_chunk().map(|header| BlockHeader::from_bytes(header).hash());
        let block = match network.chain {
            Chain::Btc => Block::new(bytes),
            Chain::Bsv => Block::without_witnesses(bytes),
        };
        let block = block.map_err(|reason| {
            let aborted = BlockAborted { download: DownloadId(self.blocks), block: hash, reason };
            BlkError::Block { offset, source: aborted }
        })?;
        Ok(Some(block))
    }
}

impl Iterator for BlkFile {
    type Item = Result<Block, BlkError>;

    fn next(&mut self) -> Option<Self::Item> {
        let taken = self.take().transpose();
        if !matches!(taken, Some(Ok(_))) {
            self.rest.clear();
        }
        taken
    }
}

#[cfg(test)]
mod tests;
