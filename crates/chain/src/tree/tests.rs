use bytes::Bytes;
use tipward_sync::peer::wire::bitcoin::CompactTarget;

use super::{links::skip_depth, *};

mod model;

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
    let tree = numbered_tree(100_001);
    let locator = tree.locator(numbered(100_000));
    let heights: Vec<u64> = locator.iter().map(|hash| tree.get(*hash).unwrap().height).collect();
    let first =
        [100_000, 99_999, 99_998, 99_997, 99_996, 99_995, 99_994, 99_993, 99_992, 99_991, 99_989, 99_985];
    assert_eq!(heights[..12], first);
    assert_eq!(heights.last(), Some(&0));
    assert!(heights.len() <= 42);
    assert_eq!(tree.locator(hash(77)), [numbered(0)]);
}

fn numbered(n: u32) -> BlockHash {
    let mut bytes = [1; 32];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    BlockHash::from_bytes(bytes)
}

/// Headers of these numbers in a row, on top of one.
fn extend(tree: &mut BlockTree, parent: u32, numbers: std::ops::Range<u32>) -> Vec<Update> {
    let mut parent = numbered(parent);
    let mut updates = Vec::new();
    for n in numbers {
        let header = Header { hash: numbered(n), parent, raw: Bytes::new() };
        updates.extend(tree.insert(&header, unit()));
        parent = header.hash;
    }
    updates
}

fn numbered_tree(length: u32) -> BlockTree {
    let root = Header { hash: numbered(0), parent: BlockHash::ZERO, raw: Bytes::new() };
    let mut tree = BlockTree::new(&root, unit());
    assert_eq!(extend(&mut tree, 0, 1..length).len(), length as usize - 1);
    tree
}

#[test]
fn a_reorg_of_ten_thousand_blocks() {
    let mut tree = numbered_tree(20_001);
    let updates = extend(&mut tree, 10_000, 100_000..110_001);
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].keep, 10_001);
    assert!(updates[0].append.iter().copied().eq((100_000..110_001).map(numbered)));
    assert_eq!((tree.tip().height, tree.side_headers()), (20_001, 10_000));
    assert_eq!(tree.fork_point(numbered(20_000)), tree.get(numbered(10_000)));
    assert_eq!(tree.common_ancestor(numbered(20_000), numbered(105_000)), tree.get(numbered(10_000)));
    assert_eq!(tree.prune(10_000, 1), 0, "not too many, and not too far below");
    assert_eq!(tree.prune(4000, 1), 6000);
    assert_eq!(tree.tips().iter().map(|tip| tip.hash).collect::<Vec<_>>(), [14_000, 110_000].map(numbered));
}

#[test]
fn a_tree_may_start_above_genesis() {
    let before = units(1000).work;
    let root = Header { hash: numbered(0), parent: numbered(77), raw: Bytes::new() };
    let mut tree = BlockTree::above(500, before, &root, unit());
    assert_eq!((tree.root(), tree.tip().height), (tree.tip(), 500));
    let updates = extend(&mut tree, 0, 1..31);
    assert!(updates.iter().map(|update| update.keep).eq(501..531));
    assert_eq!(tree.work(numbered(30)), Some(units(1031).work));
    assert_eq!((tree.best_at(499), tree.best_at(500)), (None, Some(numbered(0))));
    assert_eq!((tree.best_at(530), tree.best_at(531)), (Some(numbered(30)), None));
    assert_eq!((tree.ancestor(numbered(30), 499), tree.ancestor(numbered(30), 531)), (None, None));
    assert_eq!(tree.ancestor(numbered(30), 501), tree.get(numbered(1)));
    assert_eq!(tree.locator(numbered(30)).last(), Some(&numbered(0)));
    let branch = tree.branch(numbered(10)).unwrap();
    assert!(branch.back().map(|node| node.id.height).eq((500..=510).rev()));
    assert_eq!((branch.median_time(509), branch.median_time(510)), (None, Some(0)));
    assert_eq!((tree.median_time(numbered(9)), tree.median_time(numbered(99))), (None, None));
}

/// The steps of a walk to an ancestor, over far links alone: no header of this branch is on the best chain.
#[test]
fn ancestors_are_few_steps_away() {
    let mut tree = numbered_tree(2);
    let root = numbered(0);
    let mut parent = root;
    for n in 100_000..200_000 {
        let header = Header { hash: numbered(n), parent, raw: Bytes::new() };
        assert!(tree.add(&header, unit()), "without a choice");
        parent = header.hash;
    }
    for (depth, entry) in (1_u32..).zip(&tree.entries[2..]) {
        assert_eq!((entry.depth, tree.entry(entry.skip).depth), (depth, skip_depth(depth)));
    }
    let steps = |from: u32, to: u32| {
        let (mut depth, mut steps) = (from, 0);
        while depth > to {
            let (skip, before) = (skip_depth(depth), skip_depth(depth - 1));
            let is_good = skip == to || (skip > to && !(before + 2 < skip && before >= to));
            depth = if is_good { skip } else { depth - 1 };
            steps += 1;
        }
        steps
    };
    let mut from = 99_999_u32;
    for _ in 0..2000 {
        let to = from.wrapping_mul(2_654_435_761) % from;
        assert!(steps(from, to) <= 110, "{from} to {to}: {}", steps(from, to));
        let found = tree.ancestor(numbered(99_999 + from), u64::from(to)).unwrap();
        assert_eq!(found.hash, if to == 0 { root } else { numbered(99_999 + to) });
        from -= 49;
    }
}

#[test]
fn what_was_added_can_be_taken_back() {
    let mut tree = numbered_tree(10);
    let (len, tip) = (tree.len(), tree.tip());
    for n in 10..15 {
        assert!(tree.add(&Header { hash: numbered(n), parent: numbered(n - 1), raw: Bytes::new() }, unit()));
    }
    assert_eq!((tree.tip(), tree.work(numbered(14))), (tip, Some(units(15).work)));
    tree.take_back(len);
    assert_eq!(
        (tree.len(), tree.tip(), tree.get(numbered(10)), tree.get(numbered(9))),
        (10, tip, None, Some(tip))
    );
    assert_eq!(extend(&mut tree, 9, 10..12).len(), 2);
}

#[test]
fn a_rejected_block_goes_with_its_descendants_and_the_best_of_the_rest_is_chosen() {
    let mut tree = tree();
    for (n, parent) in [(2, 1), (3, 2), (12, 1), (4, 3), (5, 4), (13, 12), (23, 2), (14, 3)] {
        tree.insert(&header(n, parent), unit());
    }
    assert_eq!(tree.tip(), BlockId { height: 4, hash: hash(5) });
    assert_eq!(tree.reject(hash(1)), None, "the root");
    assert_eq!(tree.reject(hash(77)), None, "not there");
    let gone = |gone: &[u8]| gone.iter().map(|&n| hash(n)).collect();
    assert_eq!(tree.reject(hash(5)), Some(Rejection { update: update(4, &[]), gone: gone(&[5]) }));
    assert_eq!(tree.reject(hash(23)), Some(Rejection { update: None, gone: gone(&[23]) }), "a side branch");
    // Of 12-13 and 2, the longer one.
    let rejection = Rejection { update: update(1, &[12, 13]), gone: gone(&[3, 4, 14]) };
    assert_eq!(tree.reject(hash(3)), Some(rejection));
    assert_eq!((tree.len(), tree.get(hash(3))), (4, None));
    // Of equals the first, which is not the one that was best until now.
    let rejection = Rejection { update: update(1, &[2]), gone: gone(&[13]) };
    assert_eq!(tree.reject(hash(13)), Some(rejection));
    assert_eq!(tree.insert(&header(13, 12), unit()), update(1, &[12, 13]), "it is taken again");
}
