use super::*;

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
fn the_denser_branch_wins_where_they_parted_long_ago() {
    // A is there first, with slots 1, 2, 3; B has 1, 2, 10.
    let winner = |window, bound| {
        let mut tree = tree(DensityOptions { bound, ..options(1, window) });
        let a = grow(&mut tree, 1, 0, [1, 2, 3]);
        grow(&mut tree, 11, 0, [1, 2, 10]);
        if tree.tip().hash == id(a) { 'a' } else { 'b' }
    };
    for window in 3..=11 {
        assert_eq!(winner(window, SlotBound::Exclusive), 'a', "{window}");
    }
    // The other way round the window tells a tie, where the first stays, from a denser branch.
    let winner = |window, bound| {
        let mut tree = tree(DensityOptions { bound, ..options(1, window) });
        let b = grow(&mut tree, 11, 0, [1, 2, 10]);
        grow(&mut tree, 1, 0, [1, 2, 3]);
        if tree.tip().hash == id(b) { 'b' } else { 'a' }
    };
    let by_window: String = (3..=11).map(|window| winner(window, SlotBound::Exclusive)).collect();
    assert_eq!(by_window, "baaaaaaab");
    let by_window: String = (2..=10).map(|window| winner(window, SlotBound::Inclusive)).collect();
    assert_eq!(by_window, "baaaaaaab", "the bound is one slot further");
}

#[test]
fn a_long_sparse_branch_loses_unless_it_undoes_little() {
    let tip = |security| {
        let mut tree = tree(options(security, 50));
        let common = grow(&mut tree, 1, 0, 1..=49);
        let long = grow(&mut tree, 1000, common, (50..=98).step_by(2).chain(100..=125));
        let short = grow(&mut tree, 2000, common, 50..=99);
        (tree.tip().hash == id(long), tree.tip().hash == id(short))
    };
    assert_eq!(tip(1), (false, true), "denser");
    assert_eq!(tip(60), (true, false), "longer");
}

#[test]
fn equal_blocks_keep_the_first_and_what_is_irreversible_stays() {
    let mut tree = tree(options(1, 50));
    tree.offer(block(1, 0, 1)).unwrap();
    tree.offer(block(2, 1, 2)).unwrap();
    assert_eq!(tree.offer(block(3, 1, 2)).unwrap(), Offered::default());
    assert_eq!(tree.tip().hash, id(2), "seen first");
    let offered = tree.offer(block(4, 3, 3)).unwrap();
    assert_eq!(offered.update, Some(Update { keep: 2, append: ids(&[3, 4]) }));
    assert_eq!((tree.tip().hash, forks(&tree)), (id(4), ids(&[2])));

    assert_eq!(tree.set_mode(DensityMode::Online), ids(&[2]));
    assert_eq!((tree.irreversible().hash, forks(&tree).len()), (id(3), 0));
    let error = tree.offer(block(5, 1, 4)).unwrap_err();
    assert_eq!(error, OfferError::ImmutableFork { hash: id(5), irreversible: tree.irreversible() });
    assert_eq!(tree.offer(block(7, 3, 4)).unwrap(), Offered::default());
    assert_eq!(forks(&tree), ids(&[7]));
    let offered = tree.offer(block(8, 7, 5)).unwrap();
    assert_eq!(
        offered,
        Offered { update: Some(Update { keep: 3, append: ids(&[7, 8]) }), pruned: ids(&[4]) }
    );
    assert_eq!((tree.tip().hash, tree.irreversible().hash), (id(8), id(7)));
    assert_eq!(tree.get(id(4)), None);
    assert_eq!(
        tree.offer(block(9, 4, 6)),
        Err(OfferError::ParentNotFound { hash: id(9), parent: id(4) }),
        "what is forgotten is unknown"
    );

    // Behind again, nothing more gets irreversible, and what is stays so.
    assert!(tree.set_mode(DensityMode::Bootstrapping).is_empty());
    grow(&mut tree, 20, 8, 6..=9);
    assert_eq!(tree.irreversible().hash, id(7));
    assert!(tree.set_mode(DensityMode::Online).is_empty());
    assert_eq!(tree.irreversible().hash, id(22));
}

#[test]
fn the_irreversible_block_is_so_many_below_the_tip() {
    let mut tree = tree(options(10, 50));
    tree.set_mode(DensityMode::Online);
    grow(&mut tree, 1, 0, 1..=10);
    assert_eq!(tree.irreversible().hash, id(0));
    tree.offer(block(11, 10, 11)).unwrap();
    assert_eq!(tree.irreversible().hash, id(1));
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

#[test]
fn a_common_prefix_includes_the_common_ancestor() {
    let mut tree = tree(options(100, 50));
    for (n, parent, slot) in [(1, 0, 1), (2, 1, 2), (3, 2, 3), (4, 0, 1), (5, 4, 2), (6, 2, 3), (7, 6, 4)] {
        tree.offer(block(n, parent, slot)).unwrap();
    }
    let prefix = |one, other| {
        let CommonPrefix { one, other } = tree.common_prefix(id(one), id(other)).unwrap();
        (one, other)
    };
    assert_eq!(prefix(3, 7), (ids(&[2, 3]), ids(&[2, 6, 7])));
    assert_eq!(prefix(7, 5), (ids(&[0, 1, 2, 6, 7]), ids(&[0, 4, 5])));
    assert_eq!(prefix(7, 7), (ids(&[7]), ids(&[7])));
    assert_eq!(prefix(1, 3), (ids(&[1]), ids(&[1, 2, 3])));
    assert_eq!(tree.common_prefix(id(1), id(99)), None);
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
