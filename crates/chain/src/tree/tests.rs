use bytes::Bytes;
use tipward_sync::peer::wire::bitcoin::CompactTarget;

use super::*;

fn hash(n: u8) -> BlockHash {
    BlockHash::from_bytes([n; 32])
}

fn header(n: u8, parent: u8) -> Header {
    Header { hash: hash(n), parent: hash(parent), raw: Bytes::new() }
}

/// The work of one header of regtest, so many times.
fn units(count: u64) -> HeaderFacts {
    let unit = CompactTarget(0x207f_ffff).to_target().unwrap().work();
    HeaderFacts { work: (0..count).map(|_| unit).sum(), time: 0, bits: 0 }
}

fn unit() -> HeaderFacts {
    units(1)
}

fn tree() -> BlockTree {
    BlockTree::new(&Header { hash: hash(1), parent: BlockHash::ZERO, raw: Bytes::new() }, unit())
}

fn update(keep: u64, append: &[u8]) -> Option<Update> {
    Some(Update { keep, append: append.iter().map(|&n| hash(n)).collect() })
}

#[test]
fn the_first_of_equals_stays_and_a_later_overtaking_is_a_reorg() {
    let mut tree = tree();
    assert_eq!(tree.insert(&header(2, 1), unit()), update(1, &[2]));
    assert_eq!(tree.insert(&header(3, 2), unit()), update(2, &[3]));
    assert_eq!(tree.insert(&header(12, 1), unit()), None);
    assert_eq!(tree.insert(&header(13, 12), unit()), None, "equal work");
    assert_eq!(tree.tip(), BlockId { height: 2, hash: hash(3) });
    assert_eq!(tree.insert(&header(14, 13), unit()), update(1, &[12, 13, 14]));
    assert_eq!(tree.fork_point(hash(3)), Some(BlockId { height: 0, hash: hash(1) }));
    assert_eq!(tree.side_headers(), 2);
    // Back again.
    assert_eq!(tree.insert(&header(4, 3), unit()), None);
    assert_eq!(tree.insert(&header(5, 4), unit()), update(1, &[2, 3, 4, 5]));
}

#[test]
fn a_shorter_branch_with_more_work_is_best() {
    let mut tree = tree();
    tree.insert(&header(2, 1), unit());
    tree.insert(&header(3, 2), unit());
    assert_eq!(tree.insert(&header(9, 1), units(3)), update(1, &[9]));
    assert_eq!(tree.tip().height, 1);
}

#[test]
fn unknown_parents_and_known_headers_change_nothing() {
    let mut tree = tree();
    assert_eq!(tree.insert(&header(3, 2), unit()), None);
    tree.insert(&header(2, 1), unit());
    assert_eq!(tree.insert(&header(2, 1), unit()), None);
    assert_eq!((tree.len(), tree.get(hash(3))), (2, None));
}

#[test]
fn locators_reach_genesis_in_few_steps() {
    let number = |n: u32| {
        let mut bytes = [1; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        BlockHash::from_bytes(bytes)
    };
    let mut tree =
        BlockTree::new(&Header { hash: number(0), parent: BlockHash::ZERO, raw: Bytes::new() }, unit());
    for n in 1..=100_000 {
        tree.insert(&Header { hash: number(n), parent: number(n - 1), raw: Bytes::new() }, unit());
    }
    let locator = tree.locator(number(100_000));
    let heights: Vec<u64> = locator.iter().map(|hash| tree.get(*hash).unwrap().height).collect();
    let first =
        [100_000, 99_999, 99_998, 99_997, 99_996, 99_995, 99_994, 99_993, 99_992, 99_991, 99_989, 99_985];
    assert_eq!(heights[..12], first);
    assert_eq!(heights.last(), Some(&0));
    assert!(heights.len() <= 42);
    assert_eq!(tree.locator(hash(77)), [number(0)]);
}
