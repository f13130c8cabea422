//! A whole block as a view over its bytes, for those who have it in memory. The witness commitment: BIP 141.

use bytes::Bytes;

use super::{
    BlockHeader, MerkleBuilder, ScanError, Transaction, TransactionScanner, decode_compact_size,
    layout::Layout, merkle::pair, reader::check_root,
};
use crate::{BlockError, BlockHash, Verdict};

/// A block over its bytes, with the places of its transactions: eight bytes of memory for each.
///
/// ```
/// use tipward_wire::bitcoin::{Block, Network};
///
/// let block = Block::new(Network::BTC.genesis_block())?;
/// assert_eq!(block.hash(), Network::BTC.genesis_hash());
/// let coinbase = block.transactions().next().expect("a block has one");
/// assert_eq!(coinbase.outputs().next().map(|output| output.value()), Some(50 * 100_000_000));
/// block.check_merkle_root()?;
/// # Ok::<(), tipward_wire::BlockError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    bytes: Bytes,
    header: BlockHeader,
    witnesses: bool,
    offsets: Vec<u64>,
}

impl Block {
    /// A view over `bytes`, which are one block whose transactions may have witnesses. They are found, not checked.
    ///
    /// # Errors
    /// [`BlockError::NoHeader`] or [`BlockError::Malformed`].
    pub fn new(bytes: Bytes) -> Result<Self, BlockError> {
        Self::with_witnesses(bytes, true)
    }

    /// The same for a block of BSV, whose transactions have none.
    ///
    /// # Errors
    /// [`BlockError::NoHeader`] or [`BlockError::Malformed`].
    pub fn without_witnesses(bytes: Bytes) -> Result<Self, BlockError> {
        Self::with_witnesses(bytes, false)
    }

    fn with_witnesses(bytes: Bytes, witnesses: bool) -> Result<Self, BlockError> {
        let no_header = BlockError::NoHeader { size: bytes.len() as u64 };
        let (header, rest) = bytes.split_first_chunk::<{ BlockHeader::SIZE }>().ok_or(no_header)?;
        let malformed = |offset: usize, problem| BlockError::Malformed { offset: offset as u64, problem };
        let (count, length) = decode_compact_size(rest)
            .ok_or_else(|| malformed(BlockHeader::SIZE, "no transaction count in its shortest form"))?;
        let first = BlockHeader::SIZE + length;
        if count == 0 {
            return Err(malformed(BlockHeader::SIZE, "no transactions"));
        }
        let (mut offsets, end) = (Vec::new(), bytes.len() as u64);
        let mut scanner = TransactionScanner::new(witnesses, first as u64, count, end);
        scanner
            .push(&bytes[first..], &mut offsets)
            .and_then(|()| scanner.finish())
            .map_err(|ScanError { offset, problem }| BlockError::Malformed { offset, problem })?;
        let header = BlockHeader::from_bytes(header);
        Ok(Self { bytes, header, witnesses, offsets })
    }

    /// The block as it travels.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &BlockHeader {
        &self.header
    }

    /// The block's hash, computed each time.
    #[must_use]
    pub fn hash(&self) -> BlockHash {
        self.header.hash()
    }

    /// Where each transaction starts in the block, in bytes.
    #[must_use]
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// A transaction by its position, from 0.
    #[must_use]
    pub fn transaction(&self, index: usize) -> Option<Transaction> {
        let start = usize::try_from(*self.offsets.get(index)?).ok()?;
        Transaction::split(&mut self.bytes.slice(start..), self.witnesses)
    }

    /// The transactions in order.
    pub fn transactions(&self) -> impl Iterator<Item = Transaction> {
        (0..self.offsets.len()).map_while(|index| self.transaction(index))
    }

    /// The merkle root of the transactions, and whether some are listed twice (CVE-2012-2459).
    #[must_use]
    pub fn merkle_root(&self) -> ([u8; 32], bool) {
        let mut builder = MerkleBuilder::new();
        for offset in &self.offsets {
            let layout = usize::try_from(*offset)
                .ok()
                .and_then(|start| Layout::find(&self.bytes, start, self.witnesses, usize::MAX));
            if let Some(layout) = layout {
                builder.push(layout.txid(&self.bytes));
            }
        }
        builder.finish()
    }

    /// Compares the merkle root with the header's.
    ///
    /// # Errors
    /// [`BlockError::MerkleRoot`], [`BlockError::Mutated`] or [`BlockError::NoCoinbase`].
    pub fn check_merkle_root(&self) -> Result<(), BlockError> {
        let (root, mutated) = self.merkle_root();
        let coinbase = self.transaction(0).is_some_and(|first| first.is_coinbase());
        check_root(&self.header, root, mutated, coinbase)
    }

    /// The merkle root of the wtxids, in which the coinbase's counts as zero.
    #[must_use]
    pub fn witness_root(&self) -> [u8; 32] {
        let mut builder = MerkleBuilder::new();
        for (index, transaction) in self.transactions().enumerate() {
            builder.push_hash(if index == 0 { [0; 32] } else { *transaction.wtxid().as_bytes() });
        }
        builder.finish().0
    }

    /// Compares the witnesses with the commitment to them in the coinbase: [`Verdict::NotChecked`] if there is none, which
    /// a block without witnesses need not have.
    ///
    /// Only for blocks of BTC since SegWit is active (height 481,824 on its main network): what looks like a commitment has
    /// no meaning before that, or on BSV. A block from a node that was not asked for witnesses fails.
    ///
    /// # Errors
    /// [`BlockError::WitnessCommitment`] if they differ, or if there are witnesses and no commitment.
    pub fn check_witness_commitment(&self) -> Result<Verdict, BlockError> {
        let coinbase = self.transaction(0);
        let has_witnesses = self.transactions().any(|transaction| transaction.has_witnesses());
        check_commitment(coinbase.as_ref(), has_witnesses, || self.witness_root())
    }
}

/// Whether the root of a block's wtxids is the one that its coinbase commits to, if that commits to any.
pub(super) fn check_commitment(
    coinbase: Option<&Transaction>,
    has_witnesses: bool,
    root: impl FnOnce() -> [u8; 32],
) -> Result<Verdict, BlockError> {
    let Some(commitment) = coinbase.and_then(witness_commitment) else {
        return if has_witnesses { Err(BlockError::WitnessCommitment) } else { Ok(Verdict::NotChecked) };
    };
    // The coinbase's witness is one item: 32 bytes reserved for what may be committed to one day.
    let mut items = coinbase.into_iter().flat_map(Transaction::witnesses).flat_map(|witness| witness.items());
    let holds = match (items.next().map(<[u8; 32]>::try_from), items.next()) {
        (Some(Ok(reserved)), None) => pair(&root(), &reserved) == commitment,
        _ => false,
    };
    if holds { Ok(Verdict::Verified) } else { Err(BlockError::WitnessCommitment) }
}

/// The commitment to a block's witnesses in its coinbase: 32 bytes in the last output that has one.
#[must_use]
pub fn witness_commitment(coinbase: &Transaction) -> Option<[u8; 32]> {
    let commitments = coinbase
        .outputs()
        .filter_map(|output| output.script().as_bytes().strip_prefix(b"\x6a\x24\xaa\x21\xa9\xed"))
        .filter_map(|rest| rest.first_chunk().copied());
    commitments.last()
}
