use tipward_sync::{
    BlockId,
    peer::wire::{BlockPart, DownloadId, sha256d},
};

use super::*;

/// The input's script that spends P2WPKH wrapped in P2SH (BIP 49's example), and the script that it spends.
const WRAPPED: [u8; 23] =
    *b"\x16\x00\x14\x38\x97\x1f\x73\x93\x0f\x6c\x14\x1d\x97\x7a\xc4\xfd\x4a\x72\x7c\x85\x49\x35\xb3";
const P2SH: [u8; 23] =
    *b"\xa9\x14\x33\x6c\xaa\x13\xe0\x8b\x96\x08\x0a\x32\xb5\xd8\x18\xd5\x9b\x4a\xb3\xb3\x67\x42\x87";
const PAID: [u8; 3] = [0x51, 0x52, 0x53];
/// One item of 32 bytes.
const WITNESS: [u8; 34] = {
    let mut bytes = [9; 34];
    (bytes[0], bytes[1]) = (1, 32);
    bytes
};
const RETURN: [u8; 3] = [0x6a, 1, 7];

/// A transaction with one input and, if so, a witness of one item.
fn transaction(spends: [u8; 32], input: &[u8], outputs: &[&[u8]], has_witness: bool) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    bytes.extend_from_slice(if has_witness { &[0, 1][..] } else { &[] });
    bytes.push(1);
    bytes.extend_from_slice(&spends);
    bytes.extend_from_slice(if spends == [0; 32] { &[255; 4] } else { &[0; 4] });
    bytes.push(input.len() as u8);
    bytes.extend_from_slice(input);
    bytes.extend_from_slice(&[255; 4]);
    bytes.push(outputs.len() as u8);
    for output in outputs {
        bytes.extend_from_slice(&[0; 8]);
        bytes.push(output.len() as u8);
        bytes.extend_from_slice(output);
    }
    bytes.extend_from_slice(if has_witness { &WITNESS } else { &[] });
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

/// A block that pays [`PAID`] and spends something in this way.
fn block(input: &[u8], has_witness: bool) -> Block {
    block_with(input, has_witness, has_witness)
}

fn block_with(input: &[u8], has_witness: bool, is_committed: bool) -> Block {
    let assemble = |commitment: &[u8]| {
        let mut bytes = vec![0; 80];
        bytes.push(2);
        let outputs: [&[u8]; 4] = [&PAID, &RETURN, &[], commitment];
        bytes.extend(transaction([0; 32], &[1, 1], &outputs, is_committed));
        bytes.extend(transaction([3; 32], input, &[&PAID], has_witness));
        bytes
    };
    let root = bitcoin::Block::new(assemble(&[]).into()).unwrap().witness_root();
    let hash = sha256d(&[root, [9; 32]].concat());
    let commitment = [&b"\x6a\x24\xaa\x21\xa9\xed"[..], &hash].concat();
    let bytes = assemble(if is_committed { &commitment } else { &[] });
    let parsed = bitcoin::Block::new(bytes.clone().into()).unwrap();
    let part = BlockPart {
        block: parsed.hash(),
        download: DownloadId(0),
        block_size: bytes.len() as u64,
        index: 0,
        offset: 0,
        first_transaction: 0,
        transactions: Vec::new(),
        bytes: bytes.into(),
        ends_inside_transaction: false,
    };
    let id = BlockId { height: 1, hash: parsed.hash() };
    let (size, served_by) = (part.block_size, None);
    Block { id, parts: vec![part], transactions: 2, size, served_by, is_streamed: false }
}

fn refuted(block: &Block, scripts: &[&[u8]]) -> Option<String> {
    let filter = BlockFilter::build(&block.id.hash, scripts);
    BasicFilters.refute(filter.as_bytes(), block)
}

#[test]
fn a_right_filter_is_never_refuted() {
    for (input, has_witness) in [(&WRAPPED[..], true), (&[][..], true), (&WRAPPED, false), (&[], false)] {
        let block = block(input, has_witness);
        assert_eq!(refuted(&block, &[&PAID, &P2SH]), None);
    }
    // What a bare or a native output spends no one can tell: the script may be that which is paid.
    assert_eq!(refuted(&block(&[], true), &[&PAID]), None);
    assert_eq!(refuted(&block(&WRAPPED, false), &[&PAID]), None);
    assert_eq!(refuted(&block(&[], true), &[&PAID, b"any other script"]), None);
}

/// Who sends the block may have added it, to make a right filter look false.
#[test]
fn a_witness_that_the_block_does_not_commit_to_tells_nothing() {
    assert_eq!(refuted(&block_with(&WRAPPED, true, false), &[&PAID]), None);
    assert!(refuted(&block_with(&WRAPPED, true, true), &[&PAID]).is_some());
}

#[test]
fn what_the_block_has_must_be_there() {
    let missing = |script: &[u8]| Some(format!("script {} of the block is not in it", Script(script)));
    let wrapped = block(&WRAPPED, true);
    assert_eq!(refuted(&wrapped, &[&P2SH]), missing(&PAID));
    assert_eq!(refuted(&wrapped, &[&PAID]), missing(&P2SH));
    assert_eq!(refuted(&block(&[], true), &[]), missing(&PAID));
}

#[test]
fn what_the_block_can_not_give_must_not() {
    let many = |count, most| Some(format!("it has {count} elements, the block gives {most} at most"));
    assert_eq!(refuted(&block(&WRAPPED, true), &[&PAID, &P2SH, b"one more"]), many(3, 2));
    assert_eq!(refuted(&block(&[], true), &[&PAID, b"spent", b"one more"]), many(3, 2));
    let cut = BlockFilter::build(&BlockHash::ZERO, [&PAID]).as_bytes().slice(..2);
    assert!(BasicFilters.refute(&cut, &block(&[], true)).is_some());
}
