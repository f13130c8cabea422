//! Worked examples of the rule, from the specification of Cryptarchia's fork choice and of a follower of its chain.

use super::*;

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

/// How deep a branch is is counted from the best one so far, so that it matters which one is looked at first.
#[test]
fn the_order_of_branches_matters() {
    let best = |first: u64, second: u64| {
        let mut tree = tree(options(2, 3));
        // 1 is dense and short, 2 long and sparse.
        let branch = |tree: &mut DensityTree, n: u64| match n {
            1 => grow(tree, 100, 0, [1, 2]),
            _ => grow(tree, 200, 0, [4, 5, 6, 7]),
        };
        branch(&mut tree, first);
        branch(&mut tree, second);
        tree.tip().hash
    };
    assert_eq!(best(1, 2), id(203), "two blocks are undone for four");
    assert_eq!(best(2, 1), id(101), "four are not undone but for a denser start");
}
