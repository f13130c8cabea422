//! Blocks from many peers at once, and their way to the sink.

use tipward_sync::Chain;

use super::*;

/// A chain whose block at this height has so many bytes.
fn with_large(height: u64, at: usize, size: u64) -> Vec<SimBlock> {
    let mut chain = chain(height);
    chain[at].size = size;
    chain
}

#[test]
fn a_block_of_4_gb_that_flows_is_no_stall() {
    for strategy in [Strategy::HeadersFirst, LISTS, RANGES] {
        let trunk = with_large(20, 10, 4 << 30);
        // A part takes longer than the stall time-out at first; the block, eleven hours.
        let slow = Model { rate: 100_000.0, ..Model::honest(&trunk) };
        let mut world = World::new(strategy, vec![slow]);
        world.run_until(seconds(86_400), |world| world.applied.len() == trunk.len());
        assert_eq!(world.applied, hashes(&trunk), "{strategy:?}");
        assert!(world.streamed >= 4 << 30, "{strategy:?}: it passes through");
        assert_eq!(world.asked(&trunk[10]).len(), 1, "{strategy:?}: not fetched twice");
        assert!(world.most_buffered <= world.options.byte_budget, "{strategy:?}");
        world.blames_nobody();
    }
}

#[test]
fn our_own_back_pressure_is_held_against_nobody() {
    for strategy in ALL {
        let mut trunk = chain(200);
        for block in &mut trunk[1..] {
            block.size = 1 << 20;
        }
        let mut options = options(strategy);
        options.byte_budget = 16 << 20;
        let model = Model { rate: 20e6, ..Model::honest(&trunk) };
        let mut world = World::with(options, Tree::new(), vec![model; 3]);
        world.sink = None;
        world.run_for(seconds(3600));
        assert!(world.applied.len() < 40, "{strategy:?}: {} with the sink", world.applied.len());
        let slack = 8 << 20;
        assert!(world.most_buffered <= (16 << 20) + slack, "{strategy:?}: {}", world.most_buffered);
        world.blames_nobody();
        world.free_sink();
        world.runs_to(&trunk);
        world.blames_nobody();
    }
}

#[test]
fn the_window_is_ahead_of_what_is_applied() {
    for strategy in [Strategy::HeadersFirst, LISTS] {
        let trunk = chain(1000);
        let mut options = options(strategy);
        options.window = 64;
        let mut world = World::with(options, Tree::new(), vec![Model::honest(&trunk); 3]);
        world.sink = None;
        world.run_for(seconds(600));
        let highest = trunk.iter().rev().find(|block| !world.asked(block).is_empty()).unwrap();
        assert!(highest.index <= 64 + 1, "{strategy:?}: block {} was asked for", highest.index);
        world.free_sink();
        world.runs_to(&trunk);
        world.blames_nobody();
    }
}

#[test]
fn one_slow_peer_costs_its_share_only() {
    let trunk = chain(3000);
    let fast = vec![Model::honest(&trunk); 3];
    let took = |models: Vec<Model>| {
        let mut world = World::new(Strategy::HeadersFirst, models);
        world.runs_to(&trunk);
        world.elapsed().as_secs_f64()
    };
    let alone = took(fast.clone());
    let mut slow = Model { rate: 500.0, latency: millis(500), ..Model::honest(&trunk) };
    let with_slow = took([fast.clone(), vec![slow.clone()]].concat());
    assert!(with_slow < alone * 1.3 + 3.0, "{with_slow} s instead of {alone}");
    // As little does one that brings nothing.
    slow.mute_after = Some(3);
    let with_mute = took([fast, vec![slow]].concat());
    assert!(with_mute < alone * 1.3 + 6.0, "{with_mute} s instead of {alone}");
}

#[test]
fn nothing_waits_long_for_the_peer_that_was_asked_first() {
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
fn over_a_reorg_every_block_is_given_once() {
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

#[test]
fn a_side_chain_that_overtakes_is_one_reorg_and_a_shorter_or_equal_one_is_none() {
    for strategy in ALL {
        for headers_only in [false, true] {
            if headers_only && strategy != Strategy::HeadersFirst {
                continue;
            }
            let trunk = chain(100);
            let side = branch(&trunk, 80, 2, 103);
            let mut options = options(strategy);
            options.headers_only = headers_only;
            let mut world = World::with(options, Tree::new(), vec![Model::honest(&trunk); 2]);
            world.run_for(seconds(60));
            assert_eq!(world.tree.tip().hash, trunk[100].hash, "{strategy:?}");
            world.connect(2, Model::honest(&trunk));
            world.run_for(seconds(60));
            for height in [95, 100] {
                world.extend(2, &side[..=height]);
                world.run_for(seconds(60));
                assert_eq!(world.tree.tip().hash, trunk[100].hash, "{strategy:?}: {height}");
                assert_eq!(world.reorgs, [], "{strategy:?}: {height}");
            }
            world.extend(2, &side);
            world.run_for(seconds(200));
            assert_eq!(world.reorgs, [(trunk[100].hash, trunk[80].hash)], "{strategy:?}");
            if !headers_only {
                assert_eq!(world.applied, hashes(&side), "{strategy:?}");
            }
            world.blames_nobody();
        }
    }
}

#[test]
fn what_stays_behind_the_tip_comes_once() {
    for strategy in ALL {
        let trunk = chain(300);
        let mut options = options(strategy);
        options.stay_behind = 40;
        options.window = 20;
        let mut world = World::with(options, Tree::new(), vec![Model::honest(&trunk)]);
        world.runs_to(&trunk[..=260]);
        let twice = |block: &&SimBlock| world.asked(block).len() > 1;
        // A peer shows with the tip that it has it.
        let twice: Vec<u64> = trunk[..300].iter().filter(twice).map(|block| block.index).collect();
        assert!(twice.is_empty(), "{strategy:?}: {twice:?}");
        if strategy == SLOTS {
            let by_hash = world.asks.iter().filter(|(.., want)| matches!(want, Want::Blocks(_))).count();
            assert_eq!(by_hash, 0, "all came by slot");
        }
        world.blames_nobody();
    }
}
