//! The compact filters of a chain's blocks (BIP 157, BIP 158).

use std::collections::HashMap;

use tipward_wire::bitcoin::{Block, BlockFilter, FilterHeader, OutPoint};

use super::SimChain;

/// Each block's filter with its filter header, the first block's first.
pub(crate) type ChainFilters = Vec<(BlockFilter, FilterHeader)>;

impl SimChain {
    /// The filters of all blocks, computed at the first call. For a chain from a block file that does not begin with the
    /// genesis block, spent outputs of earlier blocks are missing in them.
    pub(crate) fn filters(&self) -> &ChainFilters {
        self.filters.get_or_init(|| {
            let (mut scripts, mut previous) = (HashMap::new(), FilterHeader::ZERO);
            let parsed = self.blocks.iter().map_while(|block| Block::new(block.bytes()).ok());
            parsed
                .map(|block| {
                    let filter = BlockFilter::of_block(&block, take_spent(&block, &mut scripts));
                    previous = filter.header(previous);
                    (filter, previous)
                })
                .collect()
        })
    }
}

/// The scripts of the outputs that the block spends; those of its own outputs are kept.
fn take_spent(block: &Block, unspent: &mut HashMap<OutPoint, Vec<u8>>) -> Vec<Vec<u8>> {
    let mut spent = Vec::new();
    for transaction in block.transactions() {
        spent.extend(transaction.inputs().filter_map(|input| unspent.remove(&input.outpoint())));
        let txid = transaction.txid();
        for (index, output) in (0..).zip(transaction.outputs()) {
            unspent.insert(OutPoint { txid, index }, output.script().as_bytes().to_vec());
        }
    }
    spent
}
