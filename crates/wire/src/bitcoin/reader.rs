//! A block as a stream of parts: cut at whole transactions, checked while it passes.

use bytes::BytesMut;

use super::{
    BlockHeader, MerkleBuilder,
    compact_size::compact_size_len,
    decode_compact_size,
    scanner::{Scan, Scanner},
};
use crate::{BlockEnd, BlockError, BlockEvent, BlockHash, BlockPart, DownloadId, sha256d};

/// The size of a part unless another is asked for: 32 MiB. Smaller blocks come whole.
pub const DEFAULT_PART_SIZE: usize = 32 << 20;

/// The smallest part size; it holds the header and the longest transaction count.
const MIN_PART_SIZE: usize = 128;

/// Reads one block of known size from reads of any size.
///
/// Memory is bounded by the part size: a transaction that is larger is yielded in pieces
/// ([`BlockPart::ends_inside_transaction`]).
pub struct BlockReader {
    download: DownloadId,
    size: u64,
    part_size: usize,
    scanner: Scanner,
    merkle: MerkleBuilder,
    state: State,
    header: Option<(BlockHash, BlockHeader)>,
    declared: u64,
    /// Where the part to be yielded next starts in the block.
    offset: u64,
    index: u32,
    first_transaction: u64,
    /// Bytes at the front of the input that were scanned already.
    scanned: usize,
    /// How much of them ends with a whole transaction.
    whole: usize,
    /// Where transactions start in them.
    starts: Vec<u32>,
    inside_transaction: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Transactions,
    Checked,
    Done,
}

impl BlockReader {
    /// A reader for a block of `size` bytes whose transactions may have witnesses or not. `part_size` is in bytes, raised
    /// to 128 and cut to 1 GiB.
    #[must_use]
    pub fn new(download: DownloadId, size: u64, witnesses: bool, part_size: usize) -> Self {
        Self {
            download,
            size,
            part_size: part_size.clamp(MIN_PART_SIZE, 1 << 30),
            scanner: Scanner::new(witnesses),
            merkle: MerkleBuilder::new(),
            state: State::Header,
            header: None,
            declared: 0,
            offset: 0,
            index: 0,
            first_transaction: 0,
            scanned: 0,
            whole: 0,
            starts: Vec::new(),
            inside_transaction: false,
        }
    }

    /// The block's hash, once its header is there.
    #[must_use]
    pub fn block(&self) -> Option<BlockHash> {
        self.header.map(|(hash, _)| hash)
    }

    /// How many bytes of the block were seen so far.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.offset + self.scanned as u64
    }

    /// How many bytes are still to come in the part being filled: what a reader should make room for.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.part_end() - self.scanned
    }

    /// Takes the next event from the front of `input`; `None` when more bytes are needed. Bytes that were scanned stay in
    /// `input` until their part is whole, so they must not be touched. Bytes after the block are left alone.
    ///
    /// # Errors
    /// The block does not parse, or disagrees with its header; the last part is not yielded then.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BlockEvent>, BlockError> {
        if self.state == State::Header && !self.read_header(input)? {
            return Ok(None);
        }
        if self.state == State::Transactions {
            let end = input.len().min(self.part_end());
            self.scan(&input[..end])?;
            if self.offset + self.scanned as u64 == self.size {
                self.check()?;
                self.state = State::Checked;
                return Ok(Some(self.cut(input, self.scanned)));
            }
            if self.scanned == self.part_size {
                let cut = if self.whole > 0 { self.whole } else { self.scanned };
                return Ok(Some(self.cut(input, cut)));
            }
        }
        if self.state == State::Checked {
            self.state = State::Done;
            return Ok(self.end().map(BlockEvent::End));
        }
        Ok(None)
    }

    /// Whether the end was yielded.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How long the part being filled can get.
    fn part_end(&self) -> usize {
        usize::try_from(self.size - self.offset).map_or(self.part_size, |left| left.min(self.part_size))
    }

    fn read_header(&mut self, input: &BytesMut) -> Result<bool, BlockError> {
        if self.size < 81 {
            return Err(BlockError::NoHeader { size: self.size });
        }
        if self.header.is_none() {
            let Some(bytes) = input.first_chunk::<{ BlockHeader::SIZE }>() else { return Ok(false) };
            self.header = Some((BlockHash::from_bytes(sha256d(bytes)), BlockHeader::from_bytes(bytes)));
        }
        let Some(&first) = input.get(80) else { return Ok(false) };
        let end = 80 + compact_size_len(first);
        if end as u64 >= self.size {
            return Err(BlockError::NoHeader { size: self.size });
        }
        if input.len() < end {
            return Ok(false);
        }
        let (declared, _) = decode_compact_size(&input[80..end])
            .ok_or_else(|| self.malformed(80, "the transaction count is not in its shortest form"))?;
        if declared == 0 {
            return Err(self.malformed(80, "no transactions"));
        }
        self.declared = declared;
        self.scanned = end;
        self.whole = end;
        self.state = State::Transactions;
        Ok(true)
    }

    fn scan(&mut self, bytes: &[u8]) -> Result<(), BlockError> {
        while self.scanned < bytes.len() {
            if self.merkle.count() == self.declared {
                return Err(self.malformed(self.scanned, "bytes follow the last transaction"));
            }
            if !self.inside_transaction {
                self.starts.push(self.scanned as u32);
                self.inside_transaction = true;
            }
            let remaining = self.size - self.offset - self.scanned as u64;
            match self.scanner.push(&bytes[self.scanned..], remaining) {
                Ok(Scan::More) => self.scanned = bytes.len(),
                Ok(Scan::End { consumed, txid }) => {
                    self.scanned += consumed;
                    self.whole = self.scanned;
                    self.inside_transaction = false;
                    self.merkle.push(txid);
                }
                Err(problem) => return Err(self.malformed(self.scanned, problem)),
            }
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), BlockError> {
        if self.inside_transaction || self.merkle.count() != self.declared {
            return Err(self.malformed(self.scanned, "the block ends before its last transaction"));
        }
        let Some((block, header)) = self.header else { return Ok(()) };
        match std::mem::take(&mut self.merkle).finish() {
            (root, _) if root != header.merkle_root => Err(BlockError::MerkleRoot { block }),
            (_, true) => Err(BlockError::Mutated { block }),
            _ => Ok(()),
        }
    }

    fn cut(&mut self, input: &mut BytesMut, cut: usize) -> BlockEvent {
        let carried = self.starts.partition_point(|&start| (start as usize) < cut);
        let rest = self.starts[carried..].iter().map(|start| start - cut as u32).collect();
        self.starts.truncate(carried);
        let transactions = std::mem::replace(&mut self.starts, rest);
        let part = BlockPart {
            block: self.block().unwrap_or_default(),
            download: self.download,
            index: self.index,
            offset: self.offset,
            first_transaction: self.first_transaction,
            ends_inside_transaction: cut > self.whole,
            bytes: input.split_to(cut).freeze(),
            transactions,
        };
        self.first_transaction += part.transactions.len() as u64;
        self.index += 1;
        self.offset += cut as u64;
        self.scanned -= cut;
        self.whole = 0;
        BlockEvent::Part(part)
    }

    fn end(&self) -> Option<BlockEnd> {
        let (download, parts) = (self.download, self.index);
        self.block().map(|block| BlockEnd {
            block,
            download,
            transactions: self.declared,
            size: self.size,
            parts,
        })
    }

    fn malformed(&self, at: usize, problem: &'static str) -> BlockError {
        let block = self.block().unwrap_or_default();
        BlockError::Malformed { block, offset: self.offset + at as u64, problem }
    }
}

#[cfg(test)]
mod tests;
