//! Transactions that come in several parts.

use indexer::{
    index::Index,
    keys::Place,
    parse::{Parsed, ParsedTransaction, parse, parse_large},
};
use tipward_chain::{
    sync::BlockId,
    wire::{
        BlockHash, Txid,
        bitcoin::{BlkFile, Chain, OutPoint},
    },
};
use tipward_simnet::{ChainSpec, SimChain};

use crate::world::{How, NETWORK, World, fresh, lines};

/// What comes of a transaction that is read as it comes, put together.
fn large(bytes: &[u8], offset: u64) -> (Parsed, usize) {
    let (mut whole, mut runs) = (Parsed::default(), 0);
    parse_large(Chain::Btc, bytes, offset, |mut run| {
        runs += 1;
        let part = run.transactions.pop().unwrap();
        assert!(run.transactions.is_empty());
        whole.inputs.append(&mut run.inputs);
        whole.outputs.append(&mut run.outputs);
        if part.whole.is_some() {
            let (inputs, outputs) = (whole.inputs.len(), whole.outputs.len());
            whole.transactions.push(ParsedTransaction { inputs, outputs, ..part });
        }
        Ok(())
    })
    .unwrap();
    (whole, runs)
}

#[test]
fn a_transaction_read_as_it_comes_is_the_same() {
    let Some(file) = tipward_tests::testdata("btc-mainnet-blocks-831328-831335.blk") else { return };
    let block = BlkFile::new(std::fs::read(file).unwrap()).next().unwrap().unwrap();
    for (transaction, offset) in block.transactions().zip(block.offsets()) {
        let bytes = transaction.as_bytes();
        assert_eq!(large(bytes, *offset).0, parse(Chain::Btc, bytes.clone(), *offset).unwrap());
        let cut = parse_large(Chain::Btc, &bytes[..bytes.len() - 1], 0, |_| Ok(()));
        assert!(cut.is_err(), "its last byte is missing");
    }
}

/// A transaction with so many outputs, of which each has a script of its own.
fn many_outputs(count: u16) -> Vec<u8> {
    let mut bytes =
        [&[2, 0, 0, 0, 1][..], &[7; 36], &[0], &[0xff; 4], &[0xfd], &count.to_le_bytes()].concat();
    for value in 0..u64::from(count) {
        bytes.extend([&value.to_le_bytes()[..], &[3], &value.to_le_bytes()[..3]].concat());
    }
    bytes.extend([0; 4]);
    bytes
}

#[test]
fn many_outputs_come_in_several_runs() {
    let bytes = many_outputs(25_000);
    let (found, runs) = large(&bytes, 81);
    assert_eq!((runs, found), (3, parse(Chain::Btc, bytes.into(), 81).unwrap()));
}

#[test]
fn outputs_that_are_written_before_their_transaction_has_an_id_can_be_spent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.redb");
    let mut index = Index::open(&path, NETWORK, 16 << 20).unwrap().with_most_pending(15_000);
    let block = |height| BlockId { height, hash: BlockHash::from_bytes([height as u8; 32]) };
    index.begin(block(0), &[0; 80]);
    index.finish(0, 80).unwrap();
    let bytes = many_outputs(25_000);
    let mut runs = Vec::new();
    parse_large(Chain::Btc, &bytes[..], 81, |run| {
        runs.push(run);
        Ok(())
    })
    .unwrap();
    let (txid, ..) = runs.last().unwrap().transactions[0].whole.unwrap();
    index.begin(block(1), &[0; 80]);
    runs.iter().for_each(|run| index.add(run).unwrap());
    // The same block spends the first and the last of them.
    let inputs = vec![OutPoint { txid, index: 0 }, OutPoint { txid, index: 24_999 }];
    let whole = Some((Txid::from_bytes([9; 32]), 81, 100));
    let transactions = vec![ParsedTransaction { whole, inputs: 2, outputs: 0 }];
    index.add(&Parsed { transactions, inputs, outputs: Vec::new() }).unwrap();
    index.finish(2, 1000).unwrap();
    index.commit().unwrap();
    let view = index.reader().view().unwrap();
    let row = view.block(1).unwrap().unwrap();
    // The large transaction spends what nobody has.
    assert_eq!((row.inputs, row.value_in, row.unknown_inputs), (2, 24_999, 1));
    let is_unspent = |index| view.is_unspent(Place { transaction: 0, index }).unwrap();
    assert_eq!([0, 1, 24_998, 24_999].map(is_unspent), [false, true, true, false]);
}

#[tokio::test]
async fn blocks_in_the_smallest_parts_are_indexed_alike() {
    let mut spec = ChainSpec::new(125, 3);
    (spec.max_transactions, spec.max_data) = (20, 2000);
    let chain = SimChain::generate(tipward_chain::wire::bitcoin::Network::BSV_REGTEST, spec);
    let expected = fresh(&chain).await;
    for is_streamed in [false, true] {
        let mut world = World::new(chain.network());
        for height in 0..=chain.height() {
            world.apply(&chain, height, How { part_size: 128, is_streamed }).await;
        }
        assert_eq!(lines(&world.end().await.1), expected);
    }
}
