//! Blocks of a generated chain, which are as real as verifying needs them.

use bytes::BytesMut;
use tipward_simnet::{ChainSpec, SimBlock, SimChain};
use tipward_sync::peer::wire::{
    BlockEvent,
    bitcoin::{BlockOptions, BlockReader},
};

use super::*;

/// Genesis and so many blocks.
pub(super) fn trunk(blocks: u32) -> SimChain {
    let mut spec = ChainSpec::new(blocks, 1);
    (spec.max_transactions, spec.max_data) = (2, 100);
    SimChain::generate(Network::BTC_REGTEST, spec)
}

/// A chain that leaves another after `height`, by so many blocks.
pub(super) fn branch(chain: &SimChain, height: u64, blocks: u32) -> SimChain {
    let mut spec = ChainSpec::new(blocks, 2 + height);
    (spec.max_transactions, spec.max_data) = (2, 100);
    chain.fork(height, spec)
}

/// The blocks as they come from peers, in two parts or more.
pub(super) fn blocks(chain: &SimChain) -> Vec<Block> {
    chain.blocks().iter().zip(0..).map(|(block, height)| whole(height, block)).collect()
}

fn whole(height: u64, sim: &SimBlock) -> Block {
    let mut options = BlockOptions::new(Network::BTC_REGTEST);
    options.part_size = 128;
    let mut reader = BlockReader::new(DownloadId(1), sim.size(), options);
    let (mut input, mut parts, mut transactions) = (BytesMut::from(&sim.raw[..]), Vec::new(), 0);
    while let Some(event) = reader.decode(&mut input).unwrap() {
        match event {
            BlockEvent::Part(part) => parts.push(part),
            BlockEvent::End(end) => transactions = end.transactions,
        }
    }
    let id = BlockId { height, hash: sim.hash };
    Block { id, parts, transactions, size: sim.size(), served_by: None, is_streamed: false }
}
