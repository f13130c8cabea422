use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::bitcoin::MerkleBuilder;
use crate::bitcoin::transaction::tests::{Shape, serialize, shape};
use crate::bitcoin::{CompactTarget, Network, encode_compact_size};

mod witnesses;

pub(in crate::bitcoin) struct Oracle {
    pub(in crate::bitcoin) block: Bytes,
    offsets: Vec<u64>,
    header: usize,
}

/// A block of a coinbase and these.
pub(in crate::bitcoin) fn block(shapes: &[Shape], witnesses: bool) -> Oracle {
    with_first(Shape::coinbase(), shapes, witnesses)
}

fn with_first(first: Shape, shapes: &[Shape], witnesses: bool) -> Oracle {
    let shapes = &[&[first], shapes].concat()[..];
    let mut merkle = MerkleBuilder::new();
    for shape in shapes {
        let mut stripped = BytesMut::new();
        serialize(shape, false, &mut stripped);
        merkle.push(Txid::from_bytes(sha256d(&stripped)));
    }
    let header = BlockHeader {
        version: 4,
        parent: BlockHash::ZERO,
        merkle_root: merkle.finish().0,
        time: 1,
        bits: CompactTarget(0x207f_ffff),
        nonce: 7,
    };
    let mut block = BytesMut::new();
    block.put_slice(&header.to_bytes());
    encode_compact_size(shapes.len() as u64, &mut block);
    let header = block.len();
    let mut offsets = Vec::new();
    for shape in shapes {
        offsets.push(block.len() as u64);
        serialize(shape, witnesses, &mut block);
    }
    Oracle { block: block.freeze(), offsets, header }
}

/// Whatever the witnesses are: these blocks commit to none.
fn options(witnesses: bool, part_size: usize) -> BlockOptions {
    BlockOptions { witnesses, part_size, ..BlockOptions::new(Network::BSV) }
}

/// Feeds `bytes` in reads of the given sizes, repeated, and collects everything.
fn read(
    bytes: &[u8],
    witnesses: bool,
    part_size: usize,
    reads: &[usize],
) -> Result<Vec<BlockEvent>, BlockError> {
    let options = options(witnesses, part_size);
    let mut reader = BlockReader::new(DownloadId(3), bytes.len() as u64, options);
    let (mut input, mut events, mut at) = (BytesMut::new(), Vec::new(), 0);
    for size in reads.iter().cycle() {
        while let Some(event) = reader.decode(&mut input).map_err(|aborted| aborted.reason)? {
            events.push(event);
        }
        assert!(input.len() <= part_size.max(MIN_PART_SIZE), "the reader lets its input pile up");
        if at == bytes.len() {
            break;
        }
        let end = bytes.len().min(at + size);
        input.put_slice(&bytes[at..end]);
        at = end;
    }
    Ok(events)
}

/// Makes no two neighbours equal: those would be a mutated list.
pub(in crate::bitcoin) fn make_different(shapes: &mut Vec<Shape>) {
    let mut empty = 0;
    shapes.retain(|shape| {
        empty += usize::from(shape.inputs.is_empty());
        !shape.inputs.is_empty() || empty < 2
    });
    for (n, shape) in shapes.iter_mut().filter(|shape| !shape.inputs.is_empty()).enumerate() {
        shape.outputs.push(100 + n);
    }
}

proptest! {
    #[test]
    fn parts_equal_the_whole_buffer(
        shapes in prop::collection::vec(shape(), 1..20),
        witnesses: bool,
        part_size in prop_oneof![128usize..400, 400usize..20_000],
        reads in prop::collection::vec(1usize..500, 1..8),
    ) {
        let mut shapes = shapes;
        make_different(&mut shapes);
        let oracle = block(&shapes, witnesses);
        let reads: Vec<usize> = reads.into_iter().map(|read| read.min(part_size / 2)).collect();
        let events = read(&oracle.block, witnesses, part_size, &reads).unwrap();

        let (mut bytes, mut offsets) = (BytesMut::new(), Vec::new());
        let mut inside = false;
        for (index, event) in events.iter().enumerate() {
            match event {
                BlockEvent::Part(part) => {
                    prop_assert_eq!(part.index as usize, index);
                    prop_assert_eq!(part.offset as usize, bytes.len());
                    prop_assert_eq!(part.block_size as usize, oracle.block.len());
                    prop_assert_eq!(part.first_transaction as usize, offsets.len());
                    prop_assert!(!part.bytes.is_empty() && part.bytes.len() <= part_size);
                    bytes.put_slice(&part.bytes);
                    offsets.extend(part.transactions.iter().map(|&start| part.offset + u64::from(start)));
                    let at_boundary = bytes.len() == oracle.block.len()
                        || bytes.len() == oracle.header
                        || oracle.offsets.contains(&(bytes.len() as u64));
                    prop_assert_eq!(part.ends_inside_transaction, !at_boundary);
                    // A cut inside a transaction needs one that is larger than a part.
                    prop_assert!(at_boundary || inside || part.transactions.len() <= 1);
                    inside = part.ends_inside_transaction;
                }
                BlockEvent::End(end) => {
                    prop_assert_eq!(index, events.len() - 1);
                    prop_assert_eq!(end.size as usize, oracle.block.len());
                    prop_assert_eq!(end.transactions as usize, shapes.len() + 1);
                    prop_assert_eq!(end.parts as usize, index);
                }
            }
        }
        prop_assert!(matches!(events.last(), Some(BlockEvent::End(_))));
        prop_assert_eq!(bytes, oracle.block);
        prop_assert_eq!(offsets, oracle.offsets);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), witnesses: bool, size in 1usize..300) {
        let _ = read(&bytes, witnesses, 200, &[size]);
    }

    #[test]
    fn a_changed_byte_of_a_transaction_is_found(
        shapes in prop::collection::vec(shape(), 1..5),
        at: prop::sample::Index,
        bit in 0u8..8,
    ) {
        // Without witnesses every byte after the count is part of a txid.
        let oracle = block(&shapes, false);
        let mut bytes = oracle.block.to_vec();
        let at = oracle.header + at.index(bytes.len() - oracle.header);
        bytes[at] ^= 1 << bit;
        let result = read(&bytes, false, 1000, &[300]);
        prop_assert!(result.is_err());
    }
}

#[test]
fn repeated_transactions_are_refused() {
    let shapes: Vec<Shape> = (0..2)
        .map(|n| Shape { coinbase: false, inputs: vec![n], outputs: vec![n], witnesses: None })
        .collect();
    let honest = block(&shapes, false);
    let mut bytes = honest.block.to_vec();
    let last = bytes[honest.offsets[2] as usize..].to_vec();
    bytes.extend_from_slice(&last);
    bytes[80] = 4;
    assert!(matches!(read(&bytes, false, 1000, &[1000]), Err(BlockError::Mutated)));
}

#[test]
fn declared_count_must_be_found() {
    let shapes = [Shape { coinbase: false, inputs: vec![1], outputs: vec![1], witnesses: None }];
    for (declared, problem) in [(0, "no transactions"), (3, "the block ends before its last transaction")] {
        let mut bytes = block(&shapes, false).block.to_vec();
        bytes[80] = declared;
        match read(&bytes, false, 1000, &[1000]) {
            Err(BlockError::Malformed { problem: found, .. }) => assert_eq!(found, problem),
            other => panic!("{other:?}"),
        }
    }
    let mut trailing = block(&shapes, false).block.to_vec();
    trailing.push(0);
    assert!(matches!(read(&trailing, false, 1000, &[1000]), Err(BlockError::Malformed { .. })));
}

#[test]
fn a_length_past_the_end_is_refused_before_it_is_awaited() {
    let shapes = [Shape { coinbase: false, inputs: vec![1], outputs: vec![1], witnesses: None }];
    let mut bytes = block(&shapes, false).block.to_vec();
    bytes[81 + 4 + 1 + 36] = 0xfc;
    // Only the first half arrives: the error must not wait for the rest.
    let options = options(false, 1000);
    let mut reader = BlockReader::new(DownloadId(1), bytes.len() as u64, options);
    let mut input = BytesMut::from(&bytes[..81 + 4 + 1 + 36 + 1]);
    let aborted = reader.decode(&mut input).unwrap_err();
    assert!(matches!(aborted.reason, BlockError::Malformed { .. }));
    assert_eq!((aborted.download, aborted.block), (DownloadId(1), reader.block()));
}

#[test]
fn a_block_starts_with_a_coinbase() {
    let other = Shape { coinbase: false, inputs: vec![1], outputs: vec![1], witnesses: None };
    let two = Shape { inputs: vec![1, 2], ..Shape::coinbase() };
    for (first, expected) in [
        (other.clone(), Err(BlockError::NoCoinbase)),
        (two, Err(BlockError::NoCoinbase)),
        (Shape::coinbase(), Ok(())),
    ] {
        let block =
            with_first(first, &[7, 9].map(|script| Shape { inputs: vec![script], ..other.clone() }), false)
                .block;
        for size in [1, 3, 50, 1000] {
            assert_eq!(read(&block, false, 1000, &[size]).map(|_| ()), expected, "reads of {size}");
        }
        assert_eq!(crate::bitcoin::Block::new(block).unwrap().check_merkle_root(), expected);
    }
}

/// CVE-2017-12842: the ids of two transactions, given for one transaction of 64 bytes. The two were ground so that they parse
/// as one.
#[test]
fn nodes_of_the_tree_are_no_transactions() {
    let node = |text: &str| hex_conservative::decode_to_array::<32>(text).unwrap();
    let left = node("9dc776d401afa0d5df4d1248c92f29eea7351c3a2de08a9a24d5d9579e44c70f");
    let right = node("65fa059185df013aab0db9ea97a96c015992ef69f62fd852ca2825002e4f4e18");
    let mut merkle = MerkleBuilder::new();
    [left, right].into_iter().for_each(|id| merkle.push(Txid::from_bytes(id)));
    let header = BlockHeader { merkle_root: merkle.finish().0, ..Network::BTC.genesis() };
    let block = [&header.to_bytes()[..], &[1], &left, &right].concat();
    for size in [1, 7, 1000] {
        assert_eq!(read(&block, true, 1000, &[size]), Err(BlockError::NoCoinbase));
    }
    let view = crate::bitcoin::Block::new(block.into()).unwrap();
    assert_eq!(view.check_merkle_root(), Err(BlockError::NoCoinbase));
}

#[test]
fn the_last_part_is_not_yielded_and_a_failed_block_stays_failed() {
    let shapes: Vec<Shape> = (1..9)
        .map(|n| Shape { coinbase: false, inputs: vec![n], outputs: vec![50], witnesses: None })
        .collect();
    let honest = block(&shapes, false).block;
    let mut zero_root = honest.to_vec();
    zero_root[36..68].fill(0);
    let mut wrong = honest.to_vec();
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    for block in [zero_root, wrong] {
        let options = options(false, 200);
        let mut reader = BlockReader::new(DownloadId(1), block.len() as u64, options);
        let mut input = BytesMut::from(&block[..]);
        let mut parted = 0;
        let error = loop {
            match reader.decode(&mut input) {
                Ok(Some(BlockEvent::Part(part))) => parted += part.bytes.len(),
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.reason, BlockError::MerkleRoot);
        assert!(parted > 0 && parted < block.len() && parted + input.len() == block.len());
        for _ in 0..3 {
            assert_eq!(reader.decode(&mut input), Err(error.clone()));
        }
    }
}
