//! Blocks from many peers at once, and their way to the sink.

use tipward_sync::Chain;

use super::*;

#[test]
fn everything_waits_for_the_peer_that_was_asked_first() {
    let trunk = chain(400);
    // Bytes enough not to be silent; yet no block for an hour.
    let mut models = vec![Model::honest(&trunk); 3];
    models.push(Model { rate: 30.0, ..Model::honest(&trunk) });
    for strategy in [Strategy::HeadersFirst, LISTS, RANGES] {
        let mut world = World::new(strategy, models.clone());
        world.run_until(seconds(120), |world| world.applied.len() == trunk.len());
        assert_eq!(world.applied, hashes(&trunk), "{strategy:?}");
        assert!((0..3).all(|id| !world.is_dropped(id)), "{strategy:?}");
    }
}

#[test]
fn a_block_is_lost_or_given_twice_over_a_reorg() {
    for strategy in ALL {
        let trunk = chain(100);
        let better = branch(&trunk, 80, 2, 103);
        let model = Model { rate: 3000.0, ..Model::honest(&trunk) };
        let mut world = World::new(strategy, vec![model.clone(), model]);
        // Before, while and after the old branch is fetched.
        for at in [10, 90, 101] {
            world.run_until(seconds(600), |world| world.applied.len() >= at);
        }
        world.extend(0, &better);
        world.extend(1, &better);
        world.run_until(seconds(1200), |world| world.applied == hashes(&better));
        assert_eq!(world.applied, hashes(&better), "{strategy:?}");
        assert_eq!(world.tree.tip().hash, better.last().unwrap().hash);
        world.blames_nobody();
    }
}
