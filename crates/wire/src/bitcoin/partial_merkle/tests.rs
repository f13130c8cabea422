use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    bitcoin::{Command, MerkleBlock, Message},
    testdata,
};

/// The proofs of real blocks: height and indices, as in the file's name.
const PROOFS: [(u32, &[u32]); 11] = [
    (830_000, &[0]),
    (830_000, &[1]),
    (830_000, &[10]),
    (830_000, &[100]),
    (830_000, &[1000]),
    (830_000, &[1850]),
    (831_332, &[0]),
    (831_332, &[0, 1, 15, 20, 115, 2019, 2024]),
    (831_332, &[1]),
    (831_332, &[15]),
    (831_332, &[20]),
];

/// The proof of some transactions of the block at `height`.
fn read_proof(height: u32, indices: &[u32]) -> Option<MerkleBlock> {
    let indices: Vec<_> = indices.iter().map(ToString::to_string).collect();
    let name = format!("btc-mainnet-txoutproof-{height:07}-{}.bin", indices.join("_"));
    let bytes = testdata::read(&name)?;
    let (message, trailing) = Message::parse(Command::new("merkleblock").unwrap(), bytes.clone()).unwrap();
    assert!(trailing.is_empty());
    let mut again = bytes::BytesMut::new();
    message.serialize(&mut again);
    assert_eq!(again, bytes);
    match message {
        Message::MerkleBlock(block) => Some(block),
        other => panic!("{other:?}"),
    }
}

#[test]
fn real_proofs_are_verified() {
    for (height, indices) in PROOFS {
        let Some(MerkleBlock { header, tree }) = read_proof(height, indices) else { return };
        let proven = tree.verify().unwrap();
        assert_eq!(proven.root, header.merkle_root, "{height} {indices:?}");
        let positions: Vec<u32> = proven.matches.iter().map(|(index, _)| *index).collect();
        assert_eq!(positions, indices, "{height}");
    }
}

#[test]
fn real_proofs_are_built_again() {
    let Some(blocks) = testdata::blocks("btc-mainnet-blocks-831328-831335.blk") else { return };
    let mut built = 0;
    for block in blocks {
        for (height, indices) in PROOFS {
            let Some(MerkleBlock { header, tree }) = read_proof(height, indices) else { return };
            if *block.header() != header {
                continue;
            }
            let txids: Vec<Txid> = block.transactions().map(|transaction| transaction.txid()).collect();
            let again = PartialMerkleTree::build(&txids, |index| indices.contains(&(index as u32)));
            assert_eq!(again.unwrap(), tree, "{height} {indices:?}");
            for (index, txid) in tree.verify().unwrap().matches {
                assert_eq!(txids[index as usize], txid);
            }
            built += 1;
        }
    }
    assert_eq!(built, 5, "the block at 831332 is there");
}

/// So many different txids.
fn txids(count: usize) -> Vec<Txid> {
    let txid = |n: u64| Txid::from_bytes(crate::sha256d(&n.to_le_bytes()));
    (0..count as u64).map(txid).collect()
}

/// The root by the definition: level after level over the whole list.
fn root_by_levels(leaves: &[Txid]) -> [u8; 32] {
    let mut level: Vec<[u8; 32]> = leaves.iter().map(|leaf| *leaf.as_bytes()).collect();
    while level.len() > 1 {
        let pair = |two: &[[u8; 32]]| crate::sha256d([two[0], *two.last().unwrap()].as_flattened());
        level = level.chunks(2).map(pair).collect();
    }
    level[0]
}

fn tree(transactions: u32, hashes: &[[u8; 32]], flags: &[u8]) -> PartialMerkleTree {
    PartialMerkleTree { transactions, hashes: hashes.to_vec(), flags: flags.to_vec() }
}

#[test]
fn small_trees() {
    assert_eq!(PartialMerkleTree::build(&[], |_| true), None);
    let [a, b, c] = [1, 2, 3].map(|n| [n; 32]);
    let txids = [a, b, c].map(Txid::from_bytes);
    let pair = |left, right| crate::sha256d([left, right].as_flattened());
    let root = pair(pair(a, b), pair(c, c));
    let build = |matched: &[usize]| PartialMerkleTree::build(&txids, |n| matched.contains(&n)).unwrap();
    assert_eq!(build(&[]), tree(3, &[root], &[0b0]));
    assert_eq!(build(&[1]), tree(3, &[a, b, pair(c, c)], &[0b01011]));
    assert_eq!(build(&[2]), tree(3, &[pair(a, b), c], &[0b1101]));
    assert_eq!(build(&[0, 1, 2]), tree(3, &[a, b, c], &[0b11_1111]));
    let one = PartialMerkleTree::build(&txids[..1], |_| true).unwrap();
    assert_eq!(one, tree(1, &[a], &[1]));
    assert_eq!(one.verify(), Ok(MerkleMatches { root: a, matches: vec![(0, txids[0])] }));
    assert_eq!(build(&[]).verify(), Ok(MerkleMatches { root, matches: Vec::new() }));
}

#[test]
fn a_stream_must_have_all_transactions_and_no_more() {
    let txids = txids(5);
    let build = |transactions, matched: &[u32], count: usize| {
        let stream = txids[..count].iter().map(|txid| Ok::<_, ()>(*txid));
        PartialMerkleTree::from_stream(transactions, matched, stream)
    };
    let whole = PartialMerkleTree::build(&txids, |index| index == 4).unwrap();
    assert_eq!(build(5, &[4], 5), Ok(Some(whole)));
    for (transactions, matched, count) in [
        (5, &[][..], 4),
        (5, &[4], 4),
        (5, &[0], 3),
        (4, &[1], 5),
        (0, &[], 0),
        (5, &[5], 5),
        (5, &[2, 1], 5),
    ] {
        assert_eq!(build(transactions, matched, count), Ok(None), "{transactions} {matched:?} {count}");
    }
    let broken = txids[..3].iter().map(|txid| Ok(*txid)).chain([Err("cut")]);
    assert_eq!(PartialMerkleTree::from_stream(5, &[1], broken), Err("cut"));
}

#[test]
fn malformed_trees_are_refused() {
    use PartialMerkleError as E;
    let [a, b, c] = [1, 2, 3].map(|n| [n; 32]);
    let verify = |transactions, hashes: &[[u8; 32]], flags: &[u8]| {
        tree(transactions, hashes, flags).verify().map(|proven| proven.matches.len())
    };
    assert_eq!(verify(2, &[a, b], &[0b011]), Ok(1));
    assert_eq!(verify(2, &[a, b], &[0b1111_1011]), Ok(1), "padding bits are free");
    assert_eq!(verify(0, &[], &[]), Err(E::NoTransactions));
    assert_eq!(verify(1, &[a, b], &[0b01]), Err(E::TooManyHashes { hashes: 2, transactions: 1 }));
    assert_eq!(verify(9, &[a; 9], &[0b01]), Err(E::TooFewFlags { flags: 1, hashes: 9 }));
    assert_eq!(verify(2, &[], &[]), Err(E::FlagsEnd { flags: 0 }));
    assert_eq!(verify(4, &[a, b], &[0b11_0011]), Err(E::HashesEnd { hashes: 2 }));
    assert_eq!(verify(32, &[a, b, c], &[0xff]), Err(E::FlagsEnd { flags: 1 }));
    assert_eq!(verify(2, &[a], &[0b011]), Err(E::HashesEnd { hashes: 1 }));
    assert_eq!(verify(2, &[a, a], &[0b011]), Err(E::EqualHalves { height: 1, position: 0 }));
    assert_eq!(verify(4, &[a, b, b], &[0b00101]), Err(E::EqualHalves { height: 1, position: 1 }));
    assert_eq!(verify(2, &[a, b], &[0b011, 0]), Err(E::UnusedFlags { used: 1, flags: 2 }));
    assert_eq!(verify(2, &[a, b], &[0]), Err(E::UnusedHashes { used: 1, hashes: 2 }));
}

#[test]
fn claimed_transactions_cost_nothing() {
    assert_eq!(tree(u32::MAX, &[[1; 32]], &[0]).verify().unwrap().matches, []);
    // The way to the first transaction of the most that can be, and the way to the last.
    let hashes: Vec<[u8; 32]> = (0..33).map(|n| [n; 32]).collect();
    let first = tree(u32::MAX, &hashes, &[0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0]).verify().unwrap();
    assert_eq!(first.matches, [(0, Txid::from_bytes([0; 32]))]);
    // The root, then 31 times to the right, and a left leaf without sibling.
    let mut flags = [0b0101_0101; 8];
    flags[7] |= 0b1000_0000;
    let last = tree(u32::MAX, &hashes[..32], &flags).verify().unwrap();
    assert_eq!(last.matches, [(u32::MAX - 1, Txid::from_bytes([31; 32]))]);
}

/// Txids, and whether each is matched.
fn matched_txids() -> impl Strategy<Value = (Vec<Txid>, Vec<bool>)> {
    let matched = prop_oneof![
        vec(any::<bool>(), 1..80),
        vec(prop::bool::weighted(0.02), 1..600),
        vec(prop::bool::weighted(0.98), 1..80),
    ];
    matched.prop_map(|matched| (txids(matched.len()), matched))
}

proptest! {
    #[test]
    fn built_trees_prove_the_matches((txids, matched) in matched_txids()) {
        let tree = PartialMerkleTree::build(&txids, |index| matched[index]).unwrap();
        let proven = tree.verify().unwrap();
        prop_assert_eq!(proven.root, root_by_levels(&txids));
        let indices = (0..txids.len()).filter(|index| matched[*index]);
        let expected: Vec<_> = indices.map(|index| (index as u32, txids[index])).collect();
        prop_assert_eq!(proven.matches, expected);
    }

    #[test]
    fn a_changed_hash_changes_the_root(
        (txids, matched) in matched_txids(),
        which: prop::sample::Index,
        bit in 0..256_usize,
    ) {
        let mut tree = PartialMerkleTree::build(&txids, |index| matched[index]).unwrap();
        let which = which.index(tree.hashes.len());
        tree.hashes[which][bit / 8] ^= 1 << (bit % 8);
        prop_assert_ne!(tree.verify().unwrap().root, root_by_levels(&txids));
    }

    /// Whatever is done to a tree, it does not prove a transaction that is not there.
    #[test]
    fn no_forged_tree_has_the_root(
        (txids, matched) in matched_txids(),
        flips in vec(any::<prop::sample::Index>(), 1..4),
        moves in vec(any::<(prop::sample::Index, prop::sample::Index)>(), 0..3),
        flag_byte in prop::option::of(any::<u8>()),
    ) {
        let mut tree = PartialMerkleTree::build(&txids, |index| matched[index]).unwrap();
        tree.flags.extend(flag_byte);
        for flip in flips {
            let bit = flip.index(8 * tree.flags.len());
            tree.flags[bit / 8] ^= 1 << (bit % 8);
        }
        for (from, to) in moves {
            let hash = tree.hashes.remove(from.index(tree.hashes.len()));
            tree.hashes.insert(to.index(tree.hashes.len() + 1), hash);
        }
        if let Ok(proven) = tree.verify() && proven.root == root_by_levels(&txids) {
            for (index, txid) in proven.matches {
                prop_assert_eq!(txids[index as usize], txid);
            }
        }
    }

    #[test]
    fn any_tree_ends_well(
        transactions in prop_oneof![any::<u32>(), 0..40_u32],
        hashes in vec(prop::array::uniform32(0..2_u8), 0..40),
        flags in vec(prop_oneof![any::<u8>(), Just(0xff)], 0..12),
    ) {
        drop(PartialMerkleTree { transactions, hashes, flags }.verify());
    }
}
