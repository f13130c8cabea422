//! Chains to serve: generated from a seed, or read from a block file.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::Read,
    path::Path,
};

use bytes::{BufMut, Bytes, BytesMut};
use tipward_wire::{
    BlockEvent, BlockHash, Txid,
    bitcoin::{
        BlkDecoder, BlkError, BlkEvent, BlockHeader, Chain, MerkleBuilder, Network, encode_compact_size,
    },
};

use crate::transaction::{Transaction, anyone, data, witness_commitment};

/// After so many blocks a coinbase may be spent.
const MATURITY: usize = 100;
/// Regression test networks halve the subsidy this often.
const HALVING: u32 = 150;
const FIRST_SUBSIDY: u64 = 50 * 100_000_000;

/// What a generated chain looks like.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ChainSpec {
    /// How many blocks follow the genesis block.
    pub blocks: u32,
    /// What the blocks' contents are drawn from.
    pub seed: u64,
    /// The most transactions in a block beside its coinbase; 8. None are spent in the first 100 blocks.
    pub max_transactions: u32,
    /// The most data in one transaction, in bytes; 1,000.
    pub max_data: usize,
}

impl ChainSpec {
    /// A chain of small blocks.
    #[must_use]
    pub fn new(blocks: u32, seed: u64) -> Self {
        Self { blocks, seed, max_transactions: 8, max_data: 1000 }
    }
}

/// A block of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimBlock {
    /// Its hash.
    pub hash: BlockHash,
    /// Its header.
    pub header: BlockHeader,
    /// The whole block as it travels.
    pub raw: Bytes,
}

/// A chain of blocks, each the child of the one before.
#[derive(Debug, Clone)]
pub struct SimChain {
    network: &'static Network,
    blocks: Vec<SimBlock>,
    positions: HashMap<BlockHash, usize>,
    /// The first output of each block's coinbase, for generated blocks.
    coinbases: Vec<Option<(Txid, u64)>>,
}

/// Why a block file can't be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file can't be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is no block file.
    #[error("{path}: {source}")]
    Format {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: BlkError,
    },
    /// The blocks are no chain of the network.
    #[error("{path}: {problem}")]
    NoChain {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl SimChain {
    /// The genesis block alone.
    #[must_use]
    pub fn genesis(network: &'static Network) -> Self {
        let block = SimBlock {
            hash: network.genesis_hash(),
            header: network.genesis(),
            raw: network.genesis_block(),
        };
        let mut chain =
            Self { network, blocks: Vec::new(), positions: HashMap::new(), coinbases: Vec::new() };
        chain.push(block, None);
        chain
    }

    /// Generates a chain from genesis; the same network and spec give the same blocks.
    #[must_use]
    pub fn generate(network: &'static Network, spec: ChainSpec) -> Self {
        let mut chain = Self::genesis(network);
        chain.extend(spec);
        chain
    }

    /// Adds generated blocks on top.
    pub fn extend(&mut self, spec: ChainSpec) {
        let mut random = fastrand::Rng::with_seed(spec.seed ^ self.height());
        for _ in 0..spec.blocks {
            self.mine(spec, &mut random);
        }
    }

    /// A branch: this chain up to `height`, then other generated blocks.
    #[must_use]
    pub fn fork(&self, height: u64, spec: ChainSpec) -> Self {
        let keep =
            usize::try_from(height).map_or(self.blocks.len(), |height| self.blocks.len().min(height + 1));
        let mut branch = self.clone();
        branch.blocks.truncate(keep);
        branch.coinbases.truncate(keep);
        branch.positions.retain(|_, position| *position < keep);
        branch.extend(spec);
        branch
    }

    /// Reads a block file whose blocks form one chain, in any order. The whole file is kept in memory.
    ///
    /// # Errors
    /// The file can't be read, is of another network, or its blocks do not link up.
    pub fn from_blk(path: &Path, network: &'static Network) -> Result<Self, LoadError> {
        let name = path.display().to_string();
        let no_chain = |problem: String| LoadError::NoChain { path: name.clone(), problem };
        let found = read_blocks(path)?;
        if let Some((other, _)) = found.iter().find(|(of, _)| of.magic != network.magic) {
            return Err(no_chain(format!("blocks of {}, not of {}", other.name, network.name)));
        }
        let mut rest: Vec<SimBlock> = found.into_iter().map(|(_, block)| block).collect();
        let is_known = |hash| rest.iter().any(|block| block.hash == hash);
        let first = rest.iter().position(|block| !is_known(block.header.parent));
        let first = first.ok_or_else(|| no_chain("no block is the first one".to_owned()))?;
        let mut chain =
            Self { network, blocks: Vec::new(), positions: HashMap::new(), coinbases: Vec::new() };
        chain.push(rest.swap_remove(first), None);
        let mut by_parent: BTreeMap<BlockHash, SimBlock> =
            rest.into_iter().map(|block| (block.header.parent, block)).collect();
        while let Some(next) = by_parent.remove(&chain.tip().hash) {
            chain.push(next, None);
        }
        if let Some(stray) = by_parent.values().next() {
            return Err(no_chain(format!("block {} is not on the chain of the first", stray.hash)));
        }
        Ok(chain)
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &'static Network {
        self.network
    }

    /// The height of the last block, counted from the first.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.blocks.len() as u64 - 1
    }

    /// The blocks, the first one first. Never empty.
    #[must_use]
    pub fn blocks(&self) -> &[SimBlock] {
        &self.blocks
    }

    /// The last block.
    #[must_use]
    pub fn tip(&self) -> &SimBlock {
        self.blocks.last().expect("a chain has a first block")
    }

    /// Where a block is on this chain.
    #[must_use]
    pub fn position(&self, hash: BlockHash) -> Option<usize> {
        self.positions.get(&hash).copied()
    }

    fn push(&mut self, block: SimBlock, coinbase: Option<(Txid, u64)>) {
        self.positions.insert(block.hash, self.blocks.len());
        self.blocks.push(block);
        self.coinbases.push(coinbase);
    }

    fn mine(&mut self, spec: ChainSpec, random: &mut fastrand::Rng) {
        let height = self.blocks.len() as u32;
        let segwit = self.network.chain == Chain::Btc;
        let subsidy = FIRST_SUBSIDY.checked_shr(height / HALVING).unwrap_or(0);
        let mut coinbase = Transaction::coinbase(height, random.u64(..), segwit);
        coinbase.outputs.push((subsidy, anyone(segwit)));
        let spends = self.spends(spec, segwit, random);
        if segwit {
            let wtxids = std::iter::once(Txid::ZERO).chain(spends.iter().map(Transaction::wtxid));
            coinbase.outputs.push((0, witness_commitment(merkle_root(wtxids))));
        }
        let txid = coinbase.txid();
        let txids = std::iter::once(txid).chain(spends.iter().map(Transaction::txid));
        let mut header = BlockHeader {
            version: 0x2000_0000,
            parent: self.tip().hash,
            merkle_root: merkle_root(txids),
            time: self.tip().header.time + 600,
            bits: self.network.pow_limit,
            nonce: 0,
        };
        while !header.meets_target(self.network.pow_limit) {
            header.nonce += 1;
        }
        let mut raw = BytesMut::new();
        raw.put_slice(&header.to_bytes());
        encode_compact_size(1 + spends.len() as u64, &mut raw);
        for transaction in std::iter::once(&coinbase).chain(&spends) {
            raw.put_slice(&transaction.serialize(segwit));
        }
        self.push(SimBlock { hash: header.hash(), header, raw: raw.freeze() }, Some((txid, subsidy)));
    }

    /// A chain of transactions: the first spends the coinbase that has just matured, each other the one before.
    fn spends(&self, spec: ChainSpec, segwit: bool, random: &mut fastrand::Rng) -> Vec<Transaction> {
        let matured = self.blocks.len().checked_sub(MATURITY).and_then(|height| self.coinbases[height]);
        let Some((mut txid, value)) = matured else { return Vec::new() };
        let count = random.u32(0..=spec.max_transactions);
        let mut spends: Vec<Transaction> = Vec::new();
        for _ in 0..count {
            let mut spend = Transaction::spend((txid, 0), segwit);
            spend.outputs.push((value, anyone(segwit)));
            let mut content = vec![0; random.usize(0..=spec.max_data)];
            random.fill(&mut content);
            spend.outputs.push((0, data(&content)));
            txid = spend.txid();
            spends.push(spend);
        }
        spends
    }
}

fn merkle_root(leaves: impl Iterator<Item = Txid>) -> [u8; 32] {
    let mut merkle = MerkleBuilder::new();
    leaves.for_each(|leaf| merkle.push(leaf));
    merkle.finish().0
}

fn read_blocks(path: &Path) -> Result<Vec<(&'static Network, SimBlock)>, LoadError> {
    let name = || path.display().to_string();
    let io = |source| LoadError::Io { path: name(), source };
    let format = |source| LoadError::Format { path: name(), source };
    let mut file = File::open(path).map_err(io)?;
    let (mut decoder, mut input) = (BlkDecoder::default(), BytesMut::new());
    let mut blocks: Vec<(&'static Network, SimBlock)> = Vec::new();
    let (mut network, mut raw) = (None, BytesMut::new());
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut chunk).map_err(io)?;
        input.put_slice(&chunk[..read]);
        while let Some(event) = decoder.decode(&mut input).map_err(format)? {
            match event {
                BlkEvent::Begin { network: of, .. } => network = Some(of),
                BlkEvent::Block(BlockEvent::Part(part)) => raw.put_slice(&part.bytes),
                BlkEvent::Block(BlockEvent::End(end)) => {
                    let raw = std::mem::take(&mut raw).freeze();
                    if let (Some(network), Some(header)) = (network, raw.first_chunk()) {
                        let header = BlockHeader::from_bytes(header);
                        blocks.push((network, SimBlock { hash: end.block, header, raw }));
                    }
                }
            }
        }
        if read == 0 {
            decoder.finish(&input).map_err(format)?;
            return Ok(blocks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_chain() {
        let one = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(130, 7));
        let two = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(130, 7));
        assert_eq!(one.blocks(), two.blocks());
        let other = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(130, 8));
        assert_ne!(one.tip().hash, other.tip().hash);
        assert!(one.blocks().iter().any(|block| block.raw.len() > 2000), "there are transactions");
    }

    #[test]
    fn a_branch_shares_its_past() {
        let trunk = SimChain::generate(Network::BSV_REGTEST, ChainSpec::new(120, 7));
        let branch = trunk.fork(110, ChainSpec::new(20, 9));
        assert_eq!(branch.height(), 130);
        assert_eq!(branch.blocks()[..=110], trunk.blocks()[..=110]);
        assert_ne!(branch.blocks()[111], trunk.blocks()[111]);
    }
}
