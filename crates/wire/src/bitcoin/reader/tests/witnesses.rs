use super::*;
use crate::{
    bitcoin::{Block, Network},
    testdata,
};

/// What a reader with these options makes of a block, and the txids that it tells.
fn check(bytes: &[u8], options: BlockOptions, size: usize) -> (Vec<Txid>, Result<(), BlockError>) {
    let mut reader = BlockReader::new(DownloadId(3), bytes.len() as u64, options);
    let (mut input, mut txids) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(size) {
        input.put_slice(piece);
        loop {
            let event = reader.decode(&mut input);
            txids.extend(reader.take_txids());
            match event {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(aborted) => return (txids, Err(aborted.reason)),
            }
        }
    }
    assert!(reader.is_done());
    (txids, Ok(()))
}

/// Those of BTC, with parts in which few transactions are whole.
fn btc() -> BlockOptions {
    BlockOptions { part_size: 1000, txids: true, ..BlockOptions::new(Network::BTC) }
}

/// The block as a node sends it that was not asked for witnesses.
fn stripped(block: &Block) -> Vec<u8> {
    let mut bytes = block.as_bytes()[..block.offsets()[0] as usize].to_vec();
    for transaction in block.transactions() {
        let raw = transaction.as_bytes();
        let end = raw.len() - 4;
        if transaction.has_witnesses() {
            let base = (transaction.weight() - raw.len()) / 3;
            let outputs_end = base - 2;
            bytes.extend([&raw[..4], &raw[6..outputs_end], &raw[end..]].concat());
        } else {
            bytes.extend_from_slice(raw);
        }
    }
    bytes
}

#[test]
fn real_blocks_pass_and_their_limit_is_their_weight() {
    for name in [
        "btc-mainnet-block-300025.blk",
        "btc-mainnet-block-413567.blk",
        "btc-mainnet-blocks-831328-831335.blk",
        "btc-mainnet-blocks-928816-928828.blk",
    ] {
        let Some(blocks) = testdata::blocks(name) else { return };
        for block in blocks {
            let (bytes, expected) = (block.as_bytes(), block.transactions().map(|one| one.txid()));
            let expected: Vec<Txid> = expected.collect();
            for size in [99, 700] {
                assert_eq!(check(bytes, btc(), size), (expected.clone(), Ok(())), "{name}");
            }
            let before = 4 * block.offsets()[0];
            let weight = before + block.transactions().map(|one| one.weight() as u64).sum::<u64>();
            let limited = |limit| BlockOptions { max_weight: Some(limit), ..btc() };
            assert_eq!(check(bytes, limited(weight), 1000).1, Ok(()));
            let limit = weight - 1;
            assert_eq!(check(bytes, limited(limit), 1000).1, Err(BlockError::Weight { weight, limit }));
        }
    }
}

#[test]
fn a_changed_witness_is_refused_and_so_are_missing_ones() {
    let Some(blocks) = testdata::blocks("btc-mainnet-blocks-831328-831335.blk") else { return };
    let block = &blocks[0];
    let first = block.transactions().position(|one| !one.is_coinbase() && one.has_witnesses()).unwrap();
    // The coinbase's own reserved value, which the commitment is made with, and another's last witness.
    for index in [0, first] {
        let transaction = block.transaction(index).unwrap();
        let mut items = transaction.witnesses().flat_map(|witness| witness.items());
        let item = items.find(|item| item.len() > 30).unwrap();
        let at = item.as_ptr() as usize - transaction.as_bytes().as_ptr() as usize;
        let mut bytes = block.as_bytes().to_vec();
        bytes[block.offsets()[index] as usize + at] ^= 1;
        for size in [50, 1000, bytes.len()] {
            let part_size = size.max(1000);
            let options = BlockOptions { part_size, ..btc() };
            assert_eq!(check(&bytes, options, size).1, Err(BlockError::WitnessCommitment), "{index}");
        }
        let unchecked = BlockOptions { witnesses_from: None, ..btc() };
        assert_eq!(check(&bytes, unchecked, 1000).1, Ok(()), "the merkle root does not tell");
    }
    let bytes = stripped(block);
    assert_eq!(check(&bytes, btc(), 1000).1, Err(BlockError::WitnessCommitment));
    // Before SegWit was active a commitment meant nothing.
    let later = BlockOptions { witnesses_from: Some(831_329), ..btc() };
    assert_eq!(check(&bytes, later, 1000).1, Ok(()));
    let BlockOptions { witnesses_from, max_weight, .. } = BlockOptions::new(Network::BSV);
    assert_eq!((witnesses_from, max_weight), (None, None));
}

#[test]
fn witnesses_without_a_commitment_are_refused() {
    let one = Shape { coinbase: false, inputs: vec![1], outputs: vec![1], witnesses: Some(vec![vec![3]]) };
    let block = block(&[one], true).block;
    assert_eq!(check(&block, btc(), 10).1, Err(BlockError::WitnessCommitment));
}
