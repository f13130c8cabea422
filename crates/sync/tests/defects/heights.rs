//! Heights are hints, with every strategy.

use super::*;

#[test]
fn a_lie_about_the_height_neither_pins_the_sync_nor_is_chased() {
    for strategy in ALL {
        let trunk = chain(300);
        // Ones with our chain, and one with nothing at all.
        let lying = Model { claim: Some(1_000_000), ..Model::honest(&trunk) };
        let empty = Model { claim: Some(2_000_000), ..Model::honest(&trunk[..=0]) };
        let mut world = World::new(strategy, vec![lying, empty, Model::honest(&trunk)]);
        world.runs_to(&trunk);
        let took = world.elapsed();
        assert!(took < seconds(100), "{strategy:?}: pinned for {took:?}");
        let asks = world.asks.len();
        // They say it again and again, as pings do.
        for n in 0..60 {
            for id in [0, 1] {
                world.later(
                    world.now + seconds(10 * n),
                    tipward_sync::Input::Reply(PeerId(id), tipward_sync::peer::Reply::Height(1_000_000 + n)),
                );
            }
        }
        world.run_for(seconds(600));
        let more = world.asks.len() - asks;
        assert!(more <= 120, "{strategy:?}: {more} questions in ten minutes");
        assert!(!world.is_dropped(2), "{strategy:?}");
        // And a new block is found meanwhile.
        let longer = branch(&trunk, 300, 1, 301);
        world.extend(2, &longer);
        let now = world.elapsed();
        world.run_until(now + seconds(90), |world| world.applied.len() == longer.len());
        assert_eq!(world.applied.len(), longer.len(), "{strategy:?}");
    }
}

#[test]
fn who_lies_about_its_height_is_penalised_and_nobody_else() {
    for strategy in [Strategy::HeadersFirst, LISTS, RANGES] {
        let trunk = chain(50);
        let lying = Model { claim: Some(1_000_000), ..Model::honest(&trunk) };
        let mut world = World::new(strategy, vec![lying, Model::honest(&trunk)]);
        world.run_for(seconds(300));
        let blamed = |(id, _): &(PeerId, String)| *id == PeerId(0);
        assert!(
            world.penalised.iter().any(blamed) || world.dropped.iter().any(blamed),
            "{strategy:?}: it is penalised"
        );
        assert!(world.penalised.iter().chain(&world.dropped).all(blamed), "{strategy:?}");
    }
}

#[test]
fn with_nobody_there_it_waits_and_is_not_done() {
    for strategy in ALL {
        let mut world = World::new(strategy, Vec::new());
        world.run_for(seconds(3600));
        assert!(world.synced.is_empty() && world.failed.is_none(), "{strategy:?}");
        // All leave in the middle of it, and one comes back.
        let trunk = chain(100);
        let slow = Model { rate: 2000.0, ..Model::honest(&trunk) };
        world.connect(1, slow.clone());
        world.connect(2, slow);
        world.run_for(seconds(3));
        assert!(world.applied.len() < 100, "{strategy:?}");
        world.disconnect(1);
        world.disconnect(2);
        world.run_for(seconds(3600));
        world.connect(3, Model::honest(&trunk));
        world.run_until(world.elapsed() + seconds(100), |world| world.applied.len() == trunk.len());
        assert_eq!(world.applied, hashes(&trunk), "{strategy:?}");
        world.blames_nobody();
    }
}

#[test]
fn a_quiet_chain_makes_no_poor_peer() {
    for strategy in ALL {
        let trunk = chain(50);
        let mut world = World::new(strategy, vec![Model::honest(&trunk); 3]);
        world.runs_to(&trunk);
        world.run_for(seconds(12 * 3600));
        world.blames_nobody();
    }
}
