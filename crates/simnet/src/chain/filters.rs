//! The compact filters of a chain's blocks (BIP 157, BIP 158).

use std::collections::HashMap;

use tipward_wire::bitcoin::{Block, BlockFilter, FilterHeader, OutPoint};

use super::SimChain;

/// Each block's filter with its filter header, the first block's first.
pub(crate) type ChainFilters = Vec<(BlockFilter, FilterHeader)>;

/// What is in a chain's filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// What belongs there.
    Right,
    /// Nothing that transactions other than the coinbase pay.
    NoPayments,
    /// A script more than belongs there.
    More,
}

impl SimChain {
    /// The filters of all blocks, computed at the first call. For a chain from a block file that does not begin with the
    /// genesis block, spent outputs of earlier blocks are missing in them.
    pub(crate) fn filters(&self, content: Content) -> &ChainFilters {
        self.filters[content as usize].get_or_init(|| {
            let (mut scripts, mut previous) = (HashMap::new(), FilterHeader::ZERO);
            let parsed = self.blocks.iter().map_while(|block| Block::new(block.bytes()).ok());
            parsed
                .map(|block| {
                    let filter = filter(&block, take_spent(&block, &mut scripts), content);
                    previous = filter.header(previous);
                    (filter, previous)
                })
                .collect()
        })
    }
}

fn filter(block: &Block, mut spent: Vec<Vec<u8>>, content: Content) -> BlockFilter {
    match content {
        Content::Right => BlockFilter::of_block(block, spent),
        Content::More => {
            spent.push(block.hash().as_bytes().to_vec());
            BlockFilter::of_block(block, spent)
        }
        Content::NoPayments => {
            let coinbase = block.transactions().next();
            let outputs = coinbase.iter().flat_map(|coinbase| coinbase.outputs());
            let scripts = outputs.map(|output| output.script()).filter(|script| !script.is_op_return());
            spent.extend(scripts.map(|script| script.as_bytes().to_vec()));
            BlockFilter::build(&block.hash(), spent)
        }
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
