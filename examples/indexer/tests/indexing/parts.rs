//! Transactions that come in several parts.

use indexer::parse::{Parsed, parse, parse_large};
use tipward_chain::wire::bitcoin::{BlkFile, Chain};
use tipward_simnet::{ChainSpec, SimChain};

use crate::world::{How, World, fresh, lines};

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
            whole.transactions.push(indexer::parse::ParsedTransaction { inputs, outputs, ..part });
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

#[test]
fn many_outputs_come_in_several_runs() {
    let mut bytes =
        [&[2, 0, 0, 0, 1][..], &[7; 36], &[0], &[0xff; 4], &[0xfd], &25_000_u16.to_le_bytes()].concat();
    for value in 0..25_000_u64 {
        bytes.extend([&value.to_le_bytes()[..], &[3], &value.to_le_bytes()[..3]].concat());
    }
    bytes.extend([0; 4]);
    let (found, runs) = large(&bytes, 81);
    assert_eq!((runs, found), (3, parse(Chain::Btc, bytes.into(), 81).unwrap()));
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
