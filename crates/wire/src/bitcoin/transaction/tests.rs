use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::{
    bitcoin::{Block, encode_compact_size},
    testdata,
};

/// A transaction's shape: script lengths of inputs and outputs, and witness item lengths by input if it has witnesses.
#[derive(Debug, Clone)]
pub(in crate::bitcoin) struct Shape {
    pub(in crate::bitcoin) coinbase: bool,
    pub(in crate::bitcoin) inputs: Vec<usize>,
    pub(in crate::bitcoin) outputs: Vec<usize>,
    pub(in crate::bitcoin) witnesses: Option<Vec<Vec<usize>>>,
}

impl Shape {
    /// A transaction that spends nothing.
    pub(in crate::bitcoin) fn coinbase() -> Self {
        Self { coinbase: true, inputs: vec![5], outputs: vec![30], witnesses: None }
    }
}

pub(in crate::bitcoin) fn shape() -> impl Strategy<Value = Shape> {
    let script =
        prop_oneof![80 => 0usize..80, 10 => 250usize..260, 10 => 0usize..3000, 1 => 65_530usize..65_540];
    let items = prop::collection::vec(0usize..300, 0..4);
    let usual = (
        prop::collection::vec(script.clone(), 1..6),
        prop::collection::vec(script, 0..6),
        prop::option::of(prop::collection::vec(items, 6)),
    );
    let usual = usual.prop_map(|(inputs, outputs, witnesses)| {
        let witnesses = witnesses.map(|stacks| {
            let mut stacks: Vec<Vec<usize>> = stacks.into_iter().take(inputs.len()).collect();
            // A flag without any witness is refused.
            if stacks.iter().all(Vec::is_empty) {
                stacks[0].push(3);
            }
            stacks
        });
        Shape { coinbase: false, inputs, outputs, witnesses }
    });
    // Counts of more than a byte, and more than are scanned at once.
    let many =
        (1usize..700, 0usize..700, prop::option::of(250usize..600)).prop_map(|(inputs, outputs, items)| {
            let witnesses =
                items.map(|items| [vec![1; items]].into_iter().chain(vec![vec![]; inputs - 1]).collect());
            Shape { coinbase: false, inputs: vec![1; inputs], outputs: vec![2; outputs], witnesses }
        });
    let empty = Just(Shape { coinbase: false, inputs: vec![], outputs: vec![], witnesses: None });
    prop_oneof![40 => usual, 2 => many, 1 => empty]
}

/// The oracle: serializes with and without witnesses, the second for the txid.
pub(in crate::bitcoin) fn serialize(shape: &Shape, witnesses: bool, output: &mut BytesMut) {
    let stacks = shape.witnesses.as_ref().filter(|_| witnesses);
    output.put_i32_le(2);
    if stacks.is_some() {
        output.put_slice(&[0, 1]);
    }
    encode_compact_size(shape.inputs.len() as u64, output);
    for &script in &shape.inputs {
        if shape.coinbase {
            output.put_bytes(0, 32);
            output.put_u32_le(u32::MAX);
        } else {
            output.put_bytes(0xaa, 36);
        }
        encode_compact_size(script as u64, output);
        output.put_bytes(0xbb, script + 4);
    }
    encode_compact_size(shape.outputs.len() as u64, output);
    for &script in &shape.outputs {
        output.put_u64_le(5);
        encode_compact_size(script as u64, output);
        output.put_bytes(0xcc, script);
    }
    for stack in stacks.into_iter().flatten() {
        encode_compact_size(stack.len() as u64, output);
        for &item in stack {
            encode_compact_size(item as u64, output);
            output.put_bytes(0xdd, item);
        }
    }
    output.put_u32_le(0x1234_5678);
}

/// A transaction of that shape, and itself without witnesses.
fn transaction(shape: &Shape) -> (Transaction, Bytes) {
    let (mut whole, mut stripped) = (BytesMut::new(), BytesMut::new());
    serialize(shape, true, &mut whole);
    serialize(shape, false, &mut stripped);
    (Transaction::new(whole.freeze()).unwrap(), stripped.freeze())
}

proptest! {
    #[test]
    fn every_field_is_where_it_was_put(shape in shape()) {
        let (transaction, stripped) = transaction(&shape);
        prop_assert_eq!(transaction.version(), 2);
        prop_assert_eq!(transaction.lock_time(), 0x1234_5678);
        prop_assert_eq!(transaction.has_witnesses(), shape.witnesses.is_some());
        prop_assert_eq!(transaction.inputs().len(), shape.inputs.len());
        for (input, &script) in transaction.inputs().zip(&shape.inputs) {
            prop_assert_eq!(input.outpoint_bytes(), [0xaa; 36]);
            prop_assert_eq!(input.outpoint().index, 0xaaaa_aaaa);
            prop_assert_eq!(input.sequence(), 0xbbbb_bbbb);
            prop_assert_eq!(input.script().as_bytes(), &vec![0xbb; script]);
            let at = input.script_offset;
            prop_assert_eq!(&transaction.as_bytes()[at..at + script], input.script().as_bytes());
            prop_assert_eq!(&transaction.as_bytes()[input.offset..input.offset + 36], [0xaa; 36]);
        }
        prop_assert_eq!(transaction.outputs().len(), shape.outputs.len());
        for (output, &script) in transaction.outputs().zip(&shape.outputs) {
            prop_assert_eq!(output.value(), 5);
            prop_assert_eq!(output.script().as_bytes(), &vec![0xcc; script]);
            let at = output.script_offset;
            prop_assert_eq!(&transaction.as_bytes()[at..at + script], output.script().as_bytes());
            prop_assert_eq!(transaction.as_bytes()[output.offset], 5);
        }
        let witnesses: Vec<Vec<usize>> =
            transaction.witnesses().map(|witness| witness.items().map(<[u8]>::len).collect()).collect();
        prop_assert_eq!(witnesses, shape.witnesses.clone().unwrap_or_default());
        prop_assert_eq!(transaction.txid(), Txid::from_bytes(sha256d(&stripped)));
        prop_assert_eq!(transaction.wtxid(), Wtxid::from_bytes(sha256d(transaction.as_bytes())));
        prop_assert_eq!(transaction.stripped_size(), stripped.len());
        prop_assert_eq!(transaction.weight(), 3 * stripped.len() + transaction.as_bytes().len());
    }

    #[test]
    fn what_is_cut_or_longer_is_no_transaction(shape in shape(), at: prop::sample::Index) {
        let whole = transaction(&shape).0.as_bytes().clone();
        let cut = at.index(whole.len());
        let mut short = whole.slice(..cut);
        let error = Transaction::split_from(&mut short).unwrap_err();
        prop_assert!(error.offset <= cut as u64);
        prop_assert_eq!(short.len(), cut, "taken although there is none");
        let mut longer = whole.to_vec();
        longer.push(0);
        let error = Transaction::new(longer.into()).unwrap_err();
        prop_assert_eq!(error.offset, whole.len() as u64);
    }

    #[test]
    fn any_bytes_end_well(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..3, Just(0xfd)], 0..300)) {
        if let Ok(transaction) = Transaction::split_from(&mut bytes.into()) {
            transaction.inputs().for_each(|input| assert!(input.script().pushes().count() <= input.script().as_bytes().len()));
            transaction.outputs().for_each(|output| assert!(output.script().instructions().count() <= output.script().as_bytes().len()));
            let items: usize = transaction.witnesses().map(|witness| witness.items().count()).sum();
            assert!(items <= transaction.as_bytes().len());
            assert!(transaction.weight() <= 4 * transaction.as_bytes().len());
            let _ = (transaction.txid(), transaction.is_coinbase());
        }
    }
}

#[test]
fn real_blocks_commit_to_their_transactions_and_witnesses() {
    let mut commitments = 0;
    for (name, blocks) in [
        ("btc-mainnet-block-300025.blk", 1),
        ("btc-mainnet-block-413567.blk", 1),
        ("btc-mainnet-blocks-831328-831335.blk", 8),
        ("btc-mainnet-blocks-928816-928828.blk", 2),
        ("bsv-regtest-chain-116.blk", 117),
        ("bsv-regtest-chain-118.blk", 119),
    ] {
        let Some(found) = testdata::blocks(name) else { return };
        assert_eq!(found.len(), blocks, "{name}");
        for block in found {
            block.check_merkle_root().unwrap();
            let verdict = block.check_witness_commitment().unwrap();
            commitments += usize::from(verdict == crate::Verdict::Verified);
            assert!(block.transaction(0).unwrap().is_coinbase());
            assert!(block.transactions().skip(1).all(|transaction| !transaction.is_coinbase()));
            let size: usize = block.transactions().map(|transaction| transaction.as_bytes().len()).sum();
            assert_eq!(block.offsets()[0] as usize + size, block.as_bytes().len());
        }
    }
    // One of the ten blocks since SegWit has no witnesses and no commitment.
    assert_eq!(commitments, 9);
}

#[test]
fn a_changed_witness_is_found() {
    let Some(blocks) = testdata::blocks("btc-mainnet-blocks-831328-831335.blk") else { return };
    let block = &blocks[0];
    let (index, transaction) = block
        .transactions()
        .enumerate()
        .skip(1)
        .find(|(_, transaction)| transaction.has_witnesses())
        .unwrap();
    let item =
        transaction.witnesses().flat_map(|witness| witness.items()).find(|item| item.len() > 30).unwrap();
    let within = item.as_ptr() as usize - transaction.as_bytes().as_ptr() as usize;
    let mut bytes = block.as_bytes().to_vec();
    bytes[block.offsets()[index] as usize + within + 20] ^= 1;
    let changed = Block::new(bytes.into()).unwrap();
    changed.check_merkle_root().unwrap();
    assert_eq!(changed.check_witness_commitment(), Err(crate::BlockError::WitnessCommitment));
}

#[test]
fn a_flag_without_witnesses_is_refused() {
    let input = [&[7; 36][..], &[0, 1, 2, 3, 4]].concat();
    let form = |flag: &[u8], inputs: u8, witnesses: &[u8]| {
        let mut bytes = [&[2, 0, 0, 0], flag, &[inputs]].concat();
        (0..inputs).for_each(|_| bytes.extend_from_slice(&input));
        bytes.extend_from_slice(&[0]);
        bytes.extend_from_slice(witnesses);
        bytes.extend_from_slice(&[0; 4]);
        Bytes::from(bytes)
    };
    assert!(Transaction::new(form(&[0, 1], 2, &[0, 1, 0])).is_ok());
    for refused in [form(&[0, 1], 2, &[0, 0]), form(&[0, 1], 0, &[]), form(&[0, 2], 1, &[1, 0])] {
        let error = Transaction::new(refused.clone()).unwrap_err();
        assert!(error.problem.contains("witness") || error.problem.contains("inputs"), "{error}");
        // The resumed path says the same.
        let mut scanner = crate::bitcoin::TransactionScanner::new(true, 0, 1, refused.len() as u64);
        let found = refused.iter().find_map(|byte| scanner.push(&[*byte], &mut Vec::new()).err());
        assert_eq!(found.unwrap().problem, error.problem);
    }
}
