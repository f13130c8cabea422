//! Proofs that transactions are in blocks of the best chain (BIP 37; Bitcoin Core, `gettxoutproof` and `verifytxoutproof`).
//!
//! Who has a block makes a proof of it; who has only headers can verify it.

use std::{
    collections::HashSet,
    io::{self, Read},
    vec,
};

use bytes::BytesMut;
use tipward_sync::{
    BlockId,
    peer::wire::{
        BlockAborted, BlockHash, DownloadId, Txid,
        bitcoin::{
            BlockHeader, BlockOptions, BlockReader, MerkleBlock, Network, PartialMerkleError,
            PartialMerkleTree,
        },
    },
};

use crate::{ArchiveReader, ArchivedBlock, ChainView, HeaderReader, StoreError};

/// How much of a block is read at once, in bytes.
const READ: usize = 1 << 20;

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The block does not have a transaction.
    #[error("transaction {0} is not in the block")]
    NotInBlock(Txid),
    /// The block has more transactions than a proof can count.
    #[error("proofs have no room for {0} transactions")]
    TooManyTransactions(u64),
    /// The bytes are not those of the block, or were not the same twice.
    #[error("the block is damaged: {0}")]
    Damaged(String),
    /// The block can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The block can't be read.
    #[error("can't read the block: {0}")]
    Read(#[from] io::Error),
}

/// Proves that transactions are in a block: the answer serializes to what Bitcoin Core's `gettxoutproof` returns.
///
/// `open` gives the bytes of the block, of which there are `size`, from the start. They are read more than once: the memory
/// needed is a few MiB and the proof, whatever the size.
///
/// # Errors
/// A transaction is not in the block, or the block is damaged or can't be read.
pub fn prove<R: Read>(
    network: &Network,
    size: u64,
    mut open: impl FnMut() -> Result<R, StoreError>,
    transactions: &[Txid],
) -> Result<MerkleBlock, ProofError> {
    let mut header = [0; BlockHeader::SIZE];
    open()?.read_exact(&mut header)?;
    let wanted: HashSet<Txid> = transactions.iter().copied().collect();
    let (mut count, mut found) = (0_u64, Vec::new());
    for txid in Txids::new(network, size, open()?) {
        let txid = txid?;
        if wanted.contains(&txid) {
            found.push((count, txid));
        }
        count += 1;
    }
    if let Some(missing) = wanted.iter().find(|txid| !found.iter().any(|(_, found)| found == *txid)) {
        return Err(ProofError::NotInBlock(*missing));
    }
    let count = u32::try_from(count).map_err(|_| ProofError::TooManyTransactions(count))?;
    // Below the count, so they fit.
    let matched: Vec<u32> = found.iter().map(|(index, _)| *index as u32).collect();
    let tree = PartialMerkleTree::from_stream(count, &matched, Txids::new(network, size, open()?))?;
    let tree = tree.ok_or_else(|| ProofError::Damaged("it has changed while it was read".to_owned()))?;
    Ok(MerkleBlock { header: BlockHeader::from_bytes(&header), tree })
}

impl ArchiveReader {
    /// Proves that transactions are in a block of the archive. See [`prove`].
    ///
    /// # Errors
    /// A transaction is not in the block, or the block was pruned, is damaged or can't be read.
    pub fn prove(
        &self,
        network: &Network,
        block: &ArchivedBlock,
        transactions: &[Txid],
    ) -> Result<MerkleBlock, ProofError> {
        prove(network, block.size, || self.read(block), transactions)
    }
}

/// The ids of a block's transactions, in order, read as they are asked for. Before the end is told, the block was checked.
struct Txids<R> {
    source: R,
    reader: BlockReader,
    input: BytesMut,
    buffer: Vec<u8>,
    ready: vec::IntoIter<Txid>,
    is_over: bool,
}

impl<R: Read> Txids<R> {
    fn new(network: &Network, size: u64, source: R) -> Self {
        let mut options = BlockOptions::new(network);
        (options.part_size, options.txids) = (READ, true);
        // It was taken once, by whatever rules.
        (options.witnesses_from, options.max_weight) = (None, None);
        Self {
            source,
            reader: BlockReader::new(DownloadId(0), size, options),
            input: BytesMut::new(),
            buffer: vec![0; READ],
            ready: Vec::new().into_iter(),
            is_over: false,
        }
    }

    /// Reads on. False at the end.
    fn read(&mut self) -> Result<bool, ProofError> {
        let damaged = |aborted: BlockAborted| ProofError::Damaged(aborted.reason.to_string());
        if self.reader.decode(&mut self.input).map_err(damaged)?.is_none() {
            if self.reader.is_done() {
                return Ok(false);
            }
            let count = self.source.read(&mut self.buffer)?;
            if count == 0 {
                return Err(ProofError::Damaged("it ends too early".to_owned()));
            }
            self.input.extend_from_slice(&self.buffer[..count]);
        }
        self.ready = self.reader.take_txids().into_iter();
        Ok(true)
    }
}

impl<R: Read> Iterator for Txids<R> {
    type Item = Result<Txid, ProofError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.ready.next() {
                Some(txid) => return Some(Ok(txid)),
                None if self.is_over => return None,
                None => {}
            }
            match self.read() {
                Ok(has_more) => self.is_over = !has_more,
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// What a proof has proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inclusion {
    /// The block that has the transactions, which is on the best chain.
    pub block: BlockId,
    /// How many blocks of the best chain confirm them: 1 in its tip.
    pub confirmations: u64,
    /// The transactions, by their index in the block, which ascends.
    pub transactions: Vec<(u32, Txid)>,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InclusionRefused {
    /// Its tree is none.
    #[error(transparent)]
    Tree(#[from] PartialMerkleError),
    /// Its tree does not lead to the merkle root of its header.
    #[error("the proof does not lead to the merkle root of block {0}")]
    MerkleRoot(BlockHash),
    /// Its block is not on the best chain.
    #[error("block {0} is not on the best chain")]
    NotOnBestChain(BlockHash),
}

impl ChainView<'_> {
    /// Verifies a proof against the headers of the best chain. What a partial merkle tree can't rule out is told at
    /// [`PartialMerkleTree::verify`].
    ///
    /// # Errors
    /// The proof proves nothing, or not now: its block may be on the best chain after a reorg.
    pub fn verify_inclusion(&self, proof: &MerkleBlock) -> Result<Inclusion, InclusionRefused> {
        verify(proof, |hash| Some((self.node(hash)?.id, self.confirmations(hash)?)))
    }
}

impl HeaderReader {
    /// Verifies a proof against the headers that were read, as [`ChainView::verify_inclusion`] does against those of a running
    /// node.
    ///
    /// # Errors
    /// The proof proves nothing, or not now: its block may be on the best chain after a reorg.
    pub fn verify_inclusion(&self, proof: &MerkleBlock) -> Result<Inclusion, InclusionRefused> {
        let tree = self.tree();
        verify(proof, |hash| {
            let id = tree.get(hash).filter(|id| tree.best_at(id.height) == Some(id.hash))?;
            Some((id, tree.tip().height - id.height + 1))
        })
    }
}

/// `find` tells where a block is on the best chain, and how many blocks confirm it.
fn verify(
    proof: &MerkleBlock,
    find: impl FnOnce(BlockHash) -> Option<(BlockId, u64)>,
) -> Result<Inclusion, InclusionRefused> {
    let hash = proof.header.hash();
    let proven = proof.tree.verify()?;
    if proven.root != proof.header.merkle_root {
        return Err(InclusionRefused::MerkleRoot(hash));
    }
    let (block, confirmations) = find(hash).ok_or(InclusionRefused::NotOnBestChain(hash))?;
    Ok(Inclusion { block, confirmations, transactions: proven.matches })
}

#[cfg(test)]
mod tests;
