//! A block as a stream of parts: cut at whole transactions, checked while it passes.

use bitcoin_hashes::{HashEngine as _, sha256d as engine};
use bytes::BytesMut;

use super::{
    BlockHeader, Chain, Network,
    compact_size::compact_size_len,
    decode_compact_size,
    layout::Layout,
    scanner::{Problem, Scanner, TOO_FEW, Visitor},
};
use crate::{
    BlockAborted, BlockEnd, BlockError, BlockEvent, BlockHash, BlockPart, DownloadId, Txid, Verdict, sha256d,
};
pub(super) use checks::check_root;
use checks::{COINBASE, Merkle};

mod checks;

/// The size of a part unless another is asked for: 32 MiB. Smaller blocks come whole.
pub const DEFAULT_PART_SIZE: usize = 32 << 20;

/// The smallest part size; it holds the header and the longest transaction count.
pub(super) const MIN_PART_SIZE: usize = 128;

/// How a [`BlockReader`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockOptions {
    /// Whether transactions may have witnesses (BIP 144): yes for BTC, no for BSV.
    pub witnesses: bool,
    /// The target size of parts, in bytes; raised to 128 and cut to 1 GiB. [`DEFAULT_PART_SIZE`] unless set.
    pub part_size: usize,
    /// Whether transactions are hashed and their merkle root compared with the header's, which costs more than all else.
    /// On unless unset.
    pub merkle_root: bool,
    /// With the merkle root: from what height on blocks must have the witnesses that their coinbase commits to (BIP 141).
    /// The height is the one that the coinbase tells (BIP 34), since no block with a commitment is older than that rule.
    /// Blocks that have witnesses are checked in any case. `None`, as for BSV: not at all.
    pub witnesses_from: Option<u64>,
    /// With the merkle root: the most that a block may weigh (BIP 141), in weight units; `None`, as for BSV: anything.
    pub max_weight: Option<u64>,
    /// With the merkle root: whether [`BlockReader::take_txids`] tells the transactions' ids. Off unless set.
    pub txids: bool,
}

impl BlockOptions {
    /// The defaults for a network.
    #[must_use]
    pub fn new(network: &Network) -> Self {
        Self {
            witnesses: network.chain == Chain::Btc,
            part_size: DEFAULT_PART_SIZE,
            merkle_root: true,
            witnesses_from: network.segwit_height,
            max_weight: network.max_weight,
            txids: false,
        }
    }
}

/// Reads one block of known size from reads of any size.
///
/// Memory is bounded by the part size: a transaction that is larger is yielded in pieces
/// ([`BlockPart::ends_inside_transaction`]).
pub struct BlockReader {
    download: DownloadId,
    size: u64,
    part_size: usize,
    scanner: Scanner,
    /// `None` if the merkle root is not to be checked.
    merkle: Option<Merkle>,
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
    failed: Option<BlockError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Transactions,
    Checked,
    Done,
}

impl BlockReader {
    /// A reader for a block of `size` bytes.
    #[must_use]
    pub fn new(download: DownloadId, size: u64, options: BlockOptions) -> Self {
        Self {
            download,
            size,
            part_size: options.part_size.clamp(MIN_PART_SIZE, 1 << 30),
            scanner: Scanner::new(options.witnesses, 0),
            merkle: options.merkle_root.then(|| Merkle::new(options)),
            state: State::Header,
            header: None,
            declared: 0,
            offset: 0,
            index: 0,
            first_transaction: 0,
            scanned: 0,
            whole: 0,
            starts: Vec::new(),
            failed: None,
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

    /// Takes the ids of the transactions that have passed since the last time, if [`BlockOptions::txids`] is set. They pile up
    /// if they are not taken.
    pub fn take_txids(&mut self) -> Vec<Txid> {
        let txids = self.merkle.as_mut().and_then(|merkle| merkle.txids.as_mut());
        txids.map(std::mem::take).unwrap_or_default()
    }

    /// The block's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
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
    /// The block does not parse, or disagrees with its header; the last part is not yielded then. Every later call returns
    /// the same error.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BlockEvent>, BlockAborted> {
        match self.failed.clone() {
            Some(reason) => Err(self.abort(reason)),
            None => self.next(input).map_err(|reason| self.fail(reason)),
        }
    }

    /// Gives the block up for good: every later call returns the same.
    pub(super) fn fail(&mut self, reason: BlockError) -> BlockAborted {
        self.failed = Some(reason.clone());
        self.abort(reason)
    }

    /// Why the block was given up, if it was.
    pub(super) fn failure(&self) -> Option<BlockAborted> {
        self.failed.clone().map(|reason| self.abort(reason))
    }

    /// Gives the block up, with its download's id: for a source that ends before the block does.
    #[must_use]
    pub fn abort(&self, reason: BlockError) -> BlockAborted {
        BlockAborted { download: self.download, block: self.block(), reason }
    }

    fn next(&mut self, input: &mut BytesMut) -> Result<Option<BlockEvent>, BlockError> {
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
        self.note_header(input);
        let Some(&first) = input.get(80) else { return Ok(false) };
        let end = 80 + compact_size_len(first);
        if end as u64 >= self.size {
            return Err(BlockError::NoHeader { size: self.size });
        }
        if input.len() < end {
            return Ok(false);
        }
        let malformed = |problem| BlockError::Malformed { offset: 80, problem };
        let (declared, _) = decode_compact_size(&input[80..end])
            .ok_or_else(|| malformed("the transaction count is not in its shortest form"))?;
        if declared == 0 {
            return Err(malformed("no transactions"));
        }
        self.declared = declared;
        self.scanner.expect(declared);
        self.scanned = end;
        self.whole = end;
        self.state = State::Transactions;
        Ok(true)
    }

    /// Takes note of the header, so that the block has its name even if nothing else is right with it.
    pub(super) fn note_header(&mut self, input: &[u8]) {
        if self.size < BlockHeader::SIZE as u64 {
            return; // what stands there is the next frame's
        }
        if let (None, Some(bytes)) = (self.header, input.first_chunk::<{ BlockHeader::SIZE }>()) {
            self.header = Some((BlockHash::from_bytes(sha256d(bytes)), BlockHeader::from_bytes(bytes)));
        }
    }

    fn scan(&mut self, bytes: &[u8]) -> Result<(), BlockError> {
        let base = self.scanned;
        let remaining = self.size - self.offset - base as u64;
        let starts = &mut self.starts;
        let scanned = match &mut self.merkle {
            Some(merkle) => {
                self.scanner.push(&bytes[base..], remaining, &mut Checked { base, starts, merkle })
            }
            None => self.scanner.push(&bytes[base..], remaining, &mut Unchecked { base, starts }),
        };
        match scanned {
            Ok(last_end) => {
                self.scanned = bytes.len();
                self.whole = last_end.map_or(self.whole, |end| base + end);
                Ok(())
            }
            Err((at, problem)) => Err(self.malformed(base + at, problem)),
        }
    }

    fn check(&mut self) -> Result<(), BlockError> {
        if !self.scanner.is_finished() {
            return Err(self.malformed(self.scanned, TOO_FEW));
        }
        let (Some(merkle), Some((_, header))) = (&mut self.merkle, self.header) else { return Ok(()) };
        let (root, mutated) = std::mem::take(&mut merkle.builder).finish();
        check_root(&header, root, mutated, merkle.first == COINBASE)?;
        // Only now it is known that the coinbase is the block's own.
        merkle.witnesses.take().map_or(Ok(()), |witnesses| witnesses.check(self.size))
    }

    fn cut(&mut self, input: &mut BytesMut, cut: usize) -> BlockEvent {
        let carried = self.starts.partition_point(|&start| (start as usize) < cut);
        // The next part has about as many.
        let mut rest = Vec::with_capacity(if self.offset + (cut as u64) < self.size { carried } else { 0 });
        rest.extend(self.starts[carried..].iter().map(|start| start - cut as u32));
        self.starts.truncate(carried);
        let transactions = std::mem::replace(&mut self.starts, rest);
        let part = BlockPart {
            block: self.block().unwrap_or_default(),
            download: self.download,
            block_size: self.size,
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
        let merkle_root = if self.merkle.is_some() { Verdict::Verified } else { Verdict::NotChecked };
        self.block().map(|block| BlockEnd {
            block,
            download,
            transactions: self.declared,
            size: self.size,
            parts,
            checksum: Verdict::NotChecked,
            merkle_root,
        })
    }

    fn malformed(&self, at: usize, problem: Problem) -> BlockError {
        BlockError::Malformed { offset: self.offset + at as u64, problem }
    }
}

/// Notes where transactions start.
struct Unchecked<'a> {
    base: usize,
    starts: &'a mut Vec<u32>,
}

impl Visitor for Unchecked<'_> {
    fn start(&mut self, at: usize) {
        self.starts.push((self.base + at) as u32); // a part is at most 1 GiB
    }
}

/// Notes where transactions start and hashes them.
struct Checked<'a> {
    base: usize,
    starts: &'a mut Vec<u32>,
    merkle: &'a mut Merkle,
}

impl Visitor for Checked<'_> {
    fn start(&mut self, at: usize) {
        self.starts.push((self.base + at) as u32); // a part is at most 1 GiB
    }

    fn whole(&mut self, bytes: &[u8], layout: &Layout) {
        self.start(layout.start);
        let start = &bytes[layout.inputs..layout.end.min(layout.inputs + COINBASE.len())];
        self.merkle.note_first(start, 4);
        let txid = layout.txid(bytes);
        self.merkle.push(txid);
        if let Some(witnesses) = &mut self.merkle.witnesses {
            witnesses.whole(bytes, layout, txid);
        }
    }

    fn body(&mut self, bytes: &[u8]) {
        self.merkle.note_first(bytes, self.merkle.engine.n_bytes_hashed());
        self.merkle.engine.input(bytes);
        if let Some(witnesses) = &mut self.merkle.witnesses {
            witnesses.body += bytes.len() as u64;
        }
    }

    fn raw(&mut self, bytes: &[u8]) {
        if let Some(witnesses) = &mut self.merkle.witnesses {
            witnesses.raw(bytes);
        }
    }

    fn end(&mut self) {
        let engine = std::mem::take(&mut self.merkle.engine);
        self.merkle.push(Txid::from_bytes(engine::Hash::from_engine(engine).to_byte_array()));
        if let Some(witnesses) = &mut self.merkle.witnesses {
            witnesses.end();
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
