use super::*;

mod examples;
pub(crate) mod oracle;

fn id(n: u64) -> BlockHash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    BlockHash::from_bytes(bytes)
}

fn ids(numbers: &[u64]) -> Vec<BlockHash> {
    numbers.iter().copied().map(id).collect()
}

fn options(security: u64, window: u64) -> DensityOptions {
    let bound = SlotBound::Exclusive;
    DensityOptions { security, window, bound, max_forks: 1000, max_side_blocks: 100_000 }
}

fn block(n: u64, parent: u64, slot: u64) -> Candidate<u64> {
    Candidate { hash: id(n), parent: id(parent), facts: slot }
}

fn tree(options: DensityOptions) -> DensityTree {
    DensityTree::new(id(0), 0, options)
}

fn forks(tree: &DensityTree) -> Vec<BlockHash> {
    tree.forks().collect()
}

/// Offers a chain of blocks numbered from `first` on, in these slots.
fn grow(tree: &mut DensityTree, first: u64, mut parent: u64, slots: impl IntoIterator<Item = u64>) -> u64 {
    for (n, slot) in (first..).zip(slots) {
        tree.offer(block(n, parent, slot)).unwrap();
        parent = n;
    }
    parent
}

#[test]
fn at_the_tip_a_branch_that_parted_long_ago_is_refused_however_dense() {
    let dense = |mode| {
        let mut tree = tree(options(2, 100));
        grow(&mut tree, 1, 0, [1, 20, 40, 60]);
        tree.set_mode(mode);
        let branch = (2..8).map(|slot| block(100 + slot, if slot == 2 { 1 } else { 99 + slot }, slot));
        branch.map(|block| tree.offer(block)).find_map(Result::err).map_or(Ok(tree.tip().hash), Err)
    };
    assert_eq!(dense(DensityMode::Bootstrapping), Ok(id(107)));
    assert!(matches!(dense(DensityMode::Online), Err(OfferError::ImmutableFork { .. })));
}

#[test]
fn what_a_block_lacks_is_named() {
    let mut tree = tree(options(1, 50));
    tree.offer(block(1, 0, 5)).unwrap();
    assert_eq!(
        tree.offer(block(2, 1, 5)),
        Err(OfferError::Slot { hash: id(2), slot: 5, parent: 5 }),
        "slots increase"
    );
    assert_eq!(tree.offer(block(3, 9, 6)), Err(OfferError::ParentNotFound { hash: id(3), parent: id(9) }));
    assert_eq!(tree.offer(block(1, 0, 5)).unwrap(), Offered::default(), "known");
}

#[test]
fn of_too_many_branches_those_go_that_have_not_grown_for_long() {
    let mut tree = tree(DensityOptions { max_forks: 3, max_side_blocks: 8, ..options(10, 50) });
    grow(&mut tree, 1, 0, 1..=9);
    for branch in 1..=3 {
        grow(&mut tree, branch * 100, 1, [2, 3]);
    }
    assert_eq!(tree.offer(block(102, 101, 4)).unwrap(), Offered::default(), "it grows");
    let offered = tree.offer(block(400, 201, 4)).unwrap();
    assert_eq!((offered.pruned, forks(&tree)), (vec![], ids(&[301, 102, 400])), "a branch that goes on");
    let offered = tree.offer(block(500, 201, 4)).unwrap();
    assert_eq!((offered.pruned, forks(&tree)), (ids(&[300, 301]), ids(&[102, 400, 500])));
    // Of a shared stem only what is one's own goes.
    assert!(tree.offer(block(401, 400, 5)).unwrap().pruned.is_empty());
    let offered = tree.offer(block(402, 401, 6)).unwrap();
    assert_eq!((offered.pruned, forks(&tree)), (ids(&[100, 101, 102]), ids(&[500, 402])), "too many blocks");
    grow(&mut tree, 501, 500, 5..=7);
    assert_eq!(forks(&tree), ids(&[503]), "of the other only what both have stays");
    grow(&mut tree, 504, 503, 8..=10);
    assert_eq!(tree.tip().height, 10, "the last one to grow stays, and may win");
    assert_eq!(tree.len(), 11 + 8);
}

/// The rule is not transitive: the sparse branch loses to a dense one, which is so short that the longer one wins.
#[test]
fn nothing_is_undone_to_be_done_again() {
    let mut tree = tree(options(1, 2));
    tree.offer(block(1, 0, 3)).unwrap();
    tree.offer(block(10, 0, 1)).unwrap();
    grow(&mut tree, 2, 1, [4, 5]);
    let update = tree.offer(block(20, 2, 5)).unwrap().update;
    assert_eq!(update, Some(Update { keep: 3, append: ids(&[20]) }), "from 3 to 10 to 20");
    assert_eq!((tree.tip().hash, forks(&tree)), (id(20), ids(&[3, 10])));
}

#[test]
fn a_reorg_of_ten_thousand() {
    let mut tree = tree(options(20_000, 50));
    grow(&mut tree, 1, 0, 1..=10_000);
    let last = grow(&mut tree, 20_000, 0, 1..=10_000);
    let offered = tree.offer(block(50_000, last, 10_001)).unwrap();
    let update = offered.update.unwrap();
    assert_eq!((update.keep, update.append.len()), (1, 10_001));
    assert_eq!(tree.best_at(10_001), Some(id(50_000)));
}
