//! What is checked of a block's transactions while they pass: the merkle root, and on BTC the witnesses (BIP 141).

use bitcoin_hashes::{HashEngine as _, sha256d as engine};
use bytes::Bytes;

use super::BlockOptions;
use crate::{
    BlockError, Txid,
    bitcoin::{BlockHeader, MerkleBuilder, Transaction, block::check_commitment, layout::Layout},
    sha256d,
};

/// Txids as transactions pass, folded into the merkle root.
pub(super) struct Merkle {
    pub(super) builder: MerkleBuilder,
    /// Of the transaction that does not lie whole in one read.
    pub(super) engine: engine::HashEngine,
    /// What follows the version of the first transaction.
    pub(super) first: Vec<u8>,
    /// The ids that were not taken yet, if they are wanted.
    pub(super) txids: Option<Vec<Txid>>,
    /// `None` if they are not to be checked.
    pub(super) witnesses: Option<Witnesses>,
}

/// Wtxids as transactions pass, folded into their root, and what else it takes to check the witnesses.
#[derive(Default)]
pub(super) struct Witnesses {
    /// See [`BlockOptions::witnesses_from`].
    from: Option<u64>,
    /// See [`BlockOptions::max_weight`].
    max_weight: Option<u64>,
    builder: MerkleBuilder,
    /// Of the transaction that does not lie whole in one read.
    engine: engine::HashEngine,
    /// The first transaction.
    coinbase: Vec<u8>,
    /// Bytes of transactions, and how many of them count for txids.
    bytes: u64,
    pub(super) body: u64,
}

impl Witnesses {
    pub(super) fn whole(&mut self, bytes: &[u8], layout: &Layout, txid: Txid) {
        let transaction = &bytes[layout.start..layout.end];
        let hash = if layout.has_witnesses() {
            self.body += (8 + layout.outputs_end - layout.inputs) as u64;
            sha256d(transaction)
        } else {
            self.body += transaction.len() as u64;
            *txid.as_bytes()
        };
        self.bytes += transaction.len() as u64;
        if self.builder.count() == 0 {
            self.coinbase.extend_from_slice(transaction);
        }
        self.push(hash);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.engine.input(bytes);
        if self.builder.count() == 0 {
            self.coinbase.extend_from_slice(bytes);
        }
    }

    pub(super) fn end(&mut self) {
        let engine = std::mem::take(&mut self.engine);
        self.push(engine::Hash::from_engine(engine).to_byte_array());
    }

    /// The coinbase's counts as zero: it holds the commitment.
    fn push(&mut self, hash: [u8; 32]) {
        self.builder.push_hash(if self.builder.count() == 0 { [0; 32] } else { hash });
    }

    /// Of a block of so many bytes that has the merkle root of its header.
    pub(super) fn check(self, size: u64) -> Result<(), BlockError> {
        let witnesses = self.bytes - self.body;
        let (weight, has_witnesses) = (4 * size - 3 * witnesses, witnesses > 0);
        if let Some(limit) = self.max_weight.filter(|limit| weight > *limit) {
            return Err(BlockError::Weight { weight, limit });
        }
        let Some(from) = self.from else { return Ok(()) };
        let coinbase = Transaction::new(Bytes::from(self.coinbase)).ok();
        let height = coinbase.as_ref().and_then(Transaction::coinbase_height);
        // What looks like a commitment has no meaning before.
        if !has_witnesses && height.is_none_or(|height| height < from) {
            return Ok(());
        }
        check_commitment(coinbase.as_ref(), has_witnesses, || self.builder.finish().0).map(|_| ())
    }
}

/// What follows the version of a coinbase: the count of its inputs, and an outpoint that spends nothing.
pub(super) const COINBASE: [u8; 37] = {
    let mut start = [0; 37];
    start[0] = 1;
    let mut index = 33;
    while index < 37 {
        start[index] = 0xff;
        index += 1;
    }
    start
};

impl Merkle {
    pub(super) fn new(options: BlockOptions) -> Self {
        let BlockOptions { witnesses, witnesses_from: from, max_weight, txids, .. } = options;
        let has_checks = witnesses && (from.is_some() || max_weight.is_some());
        Self {
            builder: MerkleBuilder::new(),
            engine: engine::HashEngine::new(),
            first: Vec::new(),
            txids: txids.then(Vec::new),
            witnesses: has_checks.then(|| Witnesses { from, max_weight, ..Witnesses::default() }),
        }
    }

    pub(super) fn push(&mut self, txid: Txid) {
        self.builder.push(txid);
        if let Some(txids) = &mut self.txids {
            txids.push(txid);
        }
    }

    /// Keeps the start of the first transaction; `bytes` are more of it, of which `before` have passed.
    pub(super) fn note_first(&mut self, bytes: &[u8], before: u64) {
        if self.builder.count() == 0 && self.first.len() < COINBASE.len() {
            let version = usize::try_from(4u64.saturating_sub(before)).unwrap_or(4).min(bytes.len());
            let end = bytes.len().min(version + COINBASE.len() - self.first.len());
            self.first.extend_from_slice(&bytes[version..end]);
        }
    }
}

/// Whether a block has the merkle root of its header, from transactions alone: a list that repeats some of them can have the
/// same root (CVE-2012-2459), and so can the nodes of an inner level that are given for transactions of 64 bytes
/// (CVE-2017-12842). A node is no coinbase, so it is enough to look at the first.
pub(in super::super) fn check_root(
    header: &BlockHeader,
    root: [u8; 32],
    mutated: bool,
    starts_with_coinbase: bool,
) -> Result<(), BlockError> {
    if root != header.merkle_root {
        return Err(BlockError::MerkleRoot);
    }
    if mutated {
        return Err(BlockError::Mutated);
    }
    if starts_with_coinbase { Ok(()) } else { Err(BlockError::NoCoinbase) }
}
