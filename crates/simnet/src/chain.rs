//! Chains to serve: generated from a seed, or read from a block file.

use std::{collections::HashMap, sync::OnceLock};

use tipward_wire::{
    BlockHash, Txid,
    bitcoin::{BlockHeader, Network},
};

use self::filters::ChainFilters;
pub(crate) use self::filters::Content;

mod block;
mod filters;
mod generate;
mod load;
mod sized;

pub use block::SimBlock;
pub use load::LoadError;

/// The version of blocks that signal for nothing (BIP 9).
const VERSION: i32 = 0x2000_0000;

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
    /// The version in the headers; 0x20000000. Bit 1 signals for SegWit by BIP 9, which some nodes want to see first.
    pub version: i32,
    /// The height of the first block with witnesses, on BTC; 0. By BIP 9, SegWit is active on a regression test network from
    /// 432 on if all blocks signal for it.
    pub witnesses_from: u64,
    /// The least time in the headers after genesis, in seconds since 1970; 0, and each block is ten minutes after its parent,
    /// in 2011 for a start. Some nodes hold blocks to rules by their time, and some serve only chains whose tip is recent.
    pub not_before: u32,
}

impl ChainSpec {
    /// A chain of small blocks.
    #[must_use]
    pub fn new(blocks: u32, seed: u64) -> Self {
        Self {
            blocks,
            seed,
            max_transactions: 8,
            max_data: 1000,
            version: VERSION,
            witnesses_from: 0,
            not_before: 0,
        }
    }
}

/// A chain of blocks, each the child of the one before.
#[derive(Debug, Clone)]
pub struct SimChain {
    network: &'static Network,
    blocks: Vec<SimBlock>,
    positions: HashMap<BlockHash, usize>,
    /// The first output of each block's coinbase, for generated blocks.
    coinbases: Vec<Option<(Txid, u64)>>,
    version: i32,
    witnesses_from: u64,
    not_before: u32,
    /// Computed when first asked for.
    filters: [OnceLock<ChainFilters>; 3],
}

impl SimChain {
    /// The genesis block alone.
    #[must_use]
    pub fn genesis(network: &'static Network) -> Self {
        let block = SimBlock::whole(network.genesis(), network.genesis_block());
        let mut chain = Self::empty(network);
        chain.push(block, None);
        chain
    }

    /// A chain that begins with a genesis block of its own, so that nobody on the network knows what it links to.
    #[must_use]
    pub fn foreign(network: &'static Network, spec: ChainSpec) -> Self {
        let mut header = network.genesis();
        header.bits = Network::DEMO.pow_limit;
        header.time = header.time.wrapping_add(1);
        while !header.meets_target(header.bits) {
            header.nonce = header.nonce.wrapping_add(1);
        }
        let mut raw = network.genesis_block().to_vec();
        raw[..BlockHeader::SIZE].copy_from_slice(&header.to_bytes());
        let mut chain = Self::empty(network);
        chain.push(SimBlock::whole(header, raw.into()), None);
        chain.extend(spec);
        chain
    }

    /// Room for a chain; its first block is to be pushed at once.
    fn empty(network: &'static Network) -> Self {
        Self {
            network,
            blocks: Vec::new(),
            positions: HashMap::new(),
            coinbases: Vec::new(),
            version: VERSION,
            witnesses_from: 0,
            not_before: 0,
            filters: Default::default(),
        }
    }

    /// Generates a chain from genesis; the same network and spec give the same blocks.
    #[must_use]
    pub fn generate(network: &'static Network, spec: ChainSpec) -> Self {
        let mut chain = Self::genesis(network);
        chain.extend(spec);
        chain
    }

    /// A branch: this chain up to `height`, then other generated blocks.
    #[must_use]
    pub fn fork(&self, height: u64, spec: ChainSpec) -> Self {
        let keep =
            usize::try_from(height).map_or(self.blocks.len(), |height| self.blocks.len().min(height + 1));
        let mut branch = self.clone();
        branch.filters = Default::default();
        branch.blocks.truncate(keep);
        branch.coinbases.truncate(keep);
        branch.positions.retain(|_, position| *position < keep);
        branch.extend(spec);
        branch
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

    /// Computes every block's checksum now instead of when it is first served, for who measures its peers.
    pub fn prepare(&self) {
        self.blocks.iter().map(SimBlock::checksum).for_each(drop);
    }

    fn push(&mut self, block: SimBlock, coinbase: Option<(Txid, u64)>) {
        self.filters = Default::default();
        self.positions.insert(block.hash, self.blocks.len());
        self.blocks.push(block);
        self.coinbases.push(coinbase);
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

    /// Tests elsewhere rely on what a seed gives.
    #[test]
    fn a_seed_gives_what_it_always_gave() {
        for (network, tip) in [
            (Network::BTC_REGTEST, "616b652bc3e2b8c7fd526d4608a322b7992c5bf3a0ddcf6a7b01756bfe503617"),
            (Network::BSV_REGTEST, "0f1951d6346f71bd5d294b85955dc7c7b6e3624520abecd6bb0b333db3a48523"),
        ] {
            let chain = SimChain::generate(network, ChainSpec::new(300, 7));
            assert_eq!(chain.tip().hash.to_string(), tip);
        }
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
