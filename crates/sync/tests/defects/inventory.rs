//! Lists of blocks, and requests for them.

use std::collections::BTreeSet;

use tipward_sync::peer::{Reply, wire::sha256d};

use super::*;

fn phantom(n: u64) -> BlockHash {
    BlockHash::from_bytes(sha256d(&n.to_le_bytes()))
}

#[test]
fn a_flood_of_announcements_makes_no_request_forgotten() {
    let trunk = chain(21);
    let mut world = World::new(LISTS, vec![Model::honest(&trunk[..=20]); 2]);
    world.runs_to(&trunk[..=20]);
    // Peers that have nothing of what they tell of.
    for id in 10..80 {
        let nothing = Model { rate: 1.0, latency: seconds(5), ..Model::honest(&trunk[..=20]) };
        world.connect(id, nothing);
    }
    world.run_for(seconds(20));
    // A block that takes a while.
    world.peers.get_mut(&PeerId(0)).unwrap().model.latency = seconds(3);
    world.extend(0, &trunk);
    world.run_for(millis(100));
    assert_eq!(world.asked(&trunk[21]).len(), 1);
    for id in 10..80 {
        world.say(id, Reply::Announced((0..1000).map(|n| phantom(id * 1000 + n)).collect()));
    }
    world.run_for(millis(100));
    // It is still known to be asked for.
    for id in [0, 1] {
        world.say(id, Reply::Announced(vec![trunk[21].hash]));
    }
    world.run_for(seconds(1));
    assert_eq!(world.asked(&trunk[21]).len(), 1);
    world.run_until(world.elapsed() + seconds(60), |world| world.applied.len() == trunk.len());
    assert_eq!(world.applied, hashes(&trunk));
}

#[test]
fn what_was_requested_outlives_its_request() {
    let trunk = chain(30);
    for case in 0..3 {
        let mut losing = Model::honest(&trunk);
        match case {
            // Silence in the middle of it, "not found", and the end of the connection.
            0 => losing.mute_after = Some(7),
            1 => losing.skips = [3, 4, 20].into(),
            _ => losing.rate = 10.0,
        }
        let late = Model { joins_after: seconds(1), ..Model::honest(&trunk) };
        let mut world = World::new(LISTS, vec![losing, late]);
        world.run_for(millis(950));
        assert!(world.applied.len() < trunk.len(), "case {case}");
        if case == 2 {
            world.disconnect(0);
        }
        world.run_until(seconds(50), |world| world.applied.len() == trunk.len());
        assert_eq!(world.applied, hashes(&trunk), "case {case}");
        let limit = [40, 5, 5][case];
        assert!(world.elapsed() <= seconds(limit), "case {case} took {:?}", world.elapsed());
    }
}

#[test]
fn a_list_that_is_cut_goes_on() {
    let trunk = chain(1700);
    let fast = Model { rate: 10e6, ..Model::honest(&trunk) };
    let mut world = World::new(LISTS, vec![fast]);
    world.runs_to(&trunk);
    assert!(world.elapsed() < seconds(20), "took {:?}", world.elapsed());
    world.blames_nobody();
}

#[test]
fn a_hash_of_zeros_asks_us_to_ask_again() {
    let trunk = chain(20);
    let mut world = World::new(LISTS, vec![Model::honest(&trunk)]);
    world.runs_to(&trunk);
    let lists = |world: &World| {
        world.asks.iter().filter(|(.., want)| matches!(want, Want::BlocksAfter { .. })).count()
    };
    let before = lists(&world);
    world.say(0, Reply::Announced(vec![BlockHash::ZERO]));
    world.run_for(seconds(1));
    assert!(lists(&world) > before, "it asks us to ask again");
    let asks = world.asks.iter().filter_map(|(.., want)| match want {
        Want::Blocks(hashes) => Some(hashes),
        _ => None,
    });
    assert!(asks.flatten().all(|hash| *hash != BlockHash::ZERO));
}

#[test]
fn in_sync_mode_announcements_of_others_are_dropped_and_blocks_that_were_asked_for_are_not() {
    let trunk = chain(300);
    // Asked by whoever is the sync peer first; then another one is.
    let slow = Model { rate: 4000.0, ..Model::honest(&trunk) };
    let mut world = World::new(LISTS, vec![slow.clone(), slow]);
    world.run_for(seconds(3));
    assert!(world.applied.len() < 200);
    for id in [0, 1] {
        // Of what others than the sync peer tell nothing is fetched.
        world.say(id, Reply::Announced((0..50).map(|n| phantom(id * 100 + n)).collect()));
    }
    world.run_until(seconds(400), |world| world.applied.len() == trunk.len());
    assert_eq!(world.applied, hashes(&trunk));
    let heard: BTreeSet<bool> = [0, 1]
        .map(|id| {
            let is_asked = |want: &Want| matches!(want, Want::Blocks(hashes) if hashes.iter().any(|hash| (0..50).any(|n| phantom(id * 100 + n) == *hash)));
            world.asks.iter().any(|(.., want)| is_asked(want))
        })
        .into();
    assert!(heard.contains(&false), "in sync mode one peer is heard at most");
}

#[test]
fn a_sync_peer_that_stalls_is_replaced() {
    let trunk = chain(400);
    // It lists and brings some, and then nothing more.
    let stalling = Model { mute_after: Some(40), ..Model::honest(&trunk) };
    let mut models = vec![stalling; 3];
    models.push(Model::honest(&trunk));
    let mut world = World::new(LISTS, models);
    world.run_until(seconds(90), |world| world.applied.len() == trunk.len());
    assert_eq!(world.applied, hashes(&trunk), "after {:?}", world.elapsed());
    assert!(!world.is_dropped(3));
}
