//! Blocks by slot, and back-fill.

use tipward_sync::Chain;

use super::*;

/// Blocks in every third slot.
fn trunk(length: u64) -> Vec<SimBlock> {
    slots(&chain(0), 0, 1, (1..=length).map(|n| 3 * n))
}

/// A chain that leaves `of` after its block number `fork`, with `length` blocks on, one in every `pace` slots.
fn side(of: &[SimBlock], fork: usize, length: u64, pace: u64) -> Vec<SimBlock> {
    let slot = of[fork].index;
    slots(of, fork, 2, (1..=length).map(|n| slot + n * pace))
}

#[test]
fn a_shorter_chain_with_a_higher_slot_ends() {
    let best = trunk(200);
    let sparse = side(&best, 100, 50, 20);
    assert!(sparse.last().unwrap().index > best.last().unwrap().index && sparse.len() < best.len());
    let mut world = World::new(SLOTS, vec![Model::honest(&best), Model::honest(&sparse)]);
    world.runs_to(&best);
    assert!(sparse.iter().all(|block| world.tree.contains(block.hash)), "it was heard");
    let (asks, told) = (world.asks.len(), world.synced.len());
    world.run_for(seconds(600));
    assert!(world.asks.len() - asks <= 60, "{} questions about nothing new", world.asks.len() - asks);
    assert_eq!(world.synced.len(), told);
    world.blames_nobody();
}

#[test]
fn descendants_of_a_rejected_block_are_not_offered() {
    let good = trunk(60);
    let mut bad = good[..=40].to_vec();
    bad.push(SimBlock::invalid(good[40].hash, 121, 5));
    bad = slots(&bad, 41, 5, (41..=90).map(|n| 3 * n + 10));
    let mut world = World::new(SLOTS, vec![Model::honest(&bad), Model::honest(&good)]);
    world.runs_to(&good);
    world.run_for(seconds(300));
    assert!(bad[41..].iter().all(|block| !world.tree.contains(block.hash)));
    assert_eq!(world.tree.refused, 1, "it and what builds on it is rejected once");
    assert!(!world.is_dropped(1));
}

#[test]
fn a_fork_below_our_tip_is_linked() {
    let ours = trunk(100);
    // More blocks, that leave ours below our tip; no peer has the whole way to ours.
    let theirs = side(&ours, 60, 80, 3);
    for knows_ancestors in [true, false] {
        let mut world = World::new(SLOTS, vec![Model { knows_ancestors, ..Model::honest(&ours) }]);
        world.runs_to(&ours);
        let mut halves =
            [Model::honest(&theirs), Model::honest(&theirs)].map(|model| Model { knows_ancestors, ..model });
        halves[0].skips = theirs[61..80].iter().map(|block| block.index).collect();
        halves[1].skips = theirs[80..95].iter().map(|block| block.index).collect();
        let [first, second] = halves;
        world.connect(1, first);
        world.connect(2, second);
        world.run_until(seconds(600), |world| world.applied == hashes(&theirs));
        assert_eq!(world.tree.tip().hash, theirs.last().unwrap().hash, "asks ancestors: {knows_ancestors}");
    }
}

#[test]
fn a_walk_back_has_an_end() {
    let ours = trunk(100);
    // Longer than what may be filled, or below what is irreversible.
    let far = slots(&ours, 0, 2, (1..=300).map(|n| 500 + n));
    let mut world = World::new(SLOTS, vec![Model::honest(&ours)]);
    world.tree.finality = Some(10);
    world.runs_to(&ours);
    let mut top = Model::honest(&far);
    top.skips = far[1..=20].iter().map(|block| block.index).collect();
    world.connect(1, top);
    world.run_for(seconds(600));
    assert_eq!(world.applied, hashes(&ours));
    let ancestors: u64 = world
        .asks
        .iter()
        .filter_map(
            |(.., want)| {
                if let Want::Ancestors { count, .. } = want { Some(u64::from(*count)) } else { None }
            },
        )
        .sum();
    assert!(ancestors <= 4000, "{ancestors} ancestors were asked for in ten minutes");
}

#[test]
fn a_trusted_block_that_nobody_has_ends_the_sync() {
    let (chain, other) = (trunk(100), side(&trunk(100), 20, 90, 3));
    let mut world = World::with(
        options(SLOTS),
        Tree::from_block(&other[60], 60),
        vec![Model::honest(&chain), Model::honest(&chain)],
    );
    world.tree.wants_past = true;
    world.run_until(seconds(600), |world| world.failed.is_some());
    assert!(world.failed.is_some(), "it ends with an error");
}

#[test]
fn an_invalid_past_ends_the_sync() {
    let mut bad = trunk(10);
    bad.push(SimBlock::invalid(bad[10].hash, 31, 5));
    let chain = slots(&bad, 11, 5, (1..=60).map(|n| 40 + n));
    let mut world =
        World::with(options(SLOTS), Tree::from_block(&chain[40], 40), vec![Model::honest(&chain); 2]);
    world.tree.wants_past = true;
    world.run_until(seconds(600), |world| world.failed.is_some());
    assert!(world.failed.is_some(), "it ends with an error");
}
