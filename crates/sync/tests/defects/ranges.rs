//! The holes of published syncers by index.

use super::*;

#[test]
fn a_block_skipped_once_is_asked_for_again() {
    let trunk = chain(500);
    let mut skipping = Model::honest(&trunk);
    skipping.skips_once = [1, 3, 4, 77, 150, 151, 399, 500].into();
    for others in [1, 3] {
        let mut models = vec![skipping.clone()];
        models.extend(vec![Model::honest(&trunk); others]);
        let mut world = World::new(RANGES, models);
        world.runs_to(&trunk);
        assert!(world.elapsed() < seconds(120), "took {:?}", world.elapsed());
    }
}

#[test]
fn the_frontier_is_the_contiguous_and_not_the_highest() {
    let trunk = chain(200);
    let mut holed = Model::honest(&trunk);
    // Block 5 is nowhere for ten seconds.
    holed.skips = [5].into();
    let late = Model { joins_after: seconds(10), ..Model::honest(&trunk) };
    let mut world = World::new(RANGES, vec![holed.clone(), holed, late]);
    world.run_for(seconds(9));
    assert_eq!(world.applied, hashes(&trunk[..5]), "nothing above the gap");
    assert!(!world.asked(&trunk[50]).is_empty(), "what is above is fetched all the same");
    assert!(world.synced.is_empty());
    world.runs_to(&trunk);
    assert!(world.asked(&trunk[6]).len() <= 2, "what waits is not fetched again");
}

#[test]
fn a_late_block_is_applied_in_its_turn() {
    let trunk = chain(400);
    // One whose answers come backwards, and one so late that others were asked meanwhile.
    let reversing = Model { reverses: true, ..Model::honest(&trunk) };
    let slow = Model { latency: seconds(3), ..Model::honest(&trunk) };
    let mut world = World::new(RANGES, vec![reversing, slow, Model::honest(&trunk)]);
    world.runs_to(&trunk);
    // What is on its way still comes; the world checks the order.
    world.run_for(seconds(20));
    assert_eq!(world.applied, hashes(&trunk));
    assert!(!world.is_dropped(0) && !world.is_dropped(2));
}

#[test]
fn a_lie_about_the_height_makes_no_phantom_requests() {
    let trunk = chain(300);
    let lying = Model { claim: Some(1_000_000), ..Model::honest(&trunk) };
    let mut world = World::new(RANGES, vec![lying, Model::honest(&trunk)]);
    world.runs_to(&trunk);
    world.run_for(seconds(600));
    let is_phantom = |want: &Want| matches!(want, Want::Range { start, .. } if *start > 301);
    assert!(!world.asks.iter().any(|(.., want)| is_phantom(want)), "nobody has anything there");
    let to_liar = |(at, id, _): &&(Duration, PeerId, Want)| *id == PeerId(0) && *at > seconds(20);
    let asks = world.asks.iter().filter(to_liar).count();
    assert!(asks <= 20, "{asks} questions after the end: only a look now and then");
    assert!(!world.is_dropped(1));
}

#[test]
fn a_block_that_could_not_be_applied_comes_again() {
    let trunk = chain(300);
    // The chain does not take it the first time.
    let mut world = World::new(RANGES, vec![Model::honest(&trunk); 2]);
    world.tree.stumbles_at = Some(150);
    world.runs_to(&trunk);
    world.blames_nobody();
    // It is not the right one, and what comes after it waits: the true one is fetched of another.
    let mut bad = trunk.clone();
    bad[150] = SimBlock::invalid(trunk[149].hash, 150, 9);
    let late = Model { joins_after: seconds(1), ..Model::honest(&trunk) };
    let mut world = World::new(RANGES, vec![Model::honest(&bad), late]);
    world.runs_to(&trunk);
    assert!(world.is_dropped(0) && !world.is_dropped(1));
}

#[test]
fn no_question_is_longer_than_peers_answer() {
    let trunk = chain(2000);
    let fast = Model { rate: 10e6, latency: millis(1), ..Model::honest(&trunk) };
    let mut world = World::new(RANGES, vec![fast; 3]);
    world.runs_to(&trunk);
    let counts = world.asks.iter().filter_map(|(.., want)| match want {
        Want::Range { count, .. } => Some(*count),
        _ => None,
    });
    assert_eq!(counts.max(), Some(100));
}

#[test]
fn peers_bring_different_ranges() {
    let trunk = chain(1000);
    let mut world = World::new(RANGES, vec![Model::honest(&trunk); 4]);
    world.runs_to(&trunk);
    let twice = trunk[1..].iter().filter(|block| world.asked(block).len() > 1).count();
    assert!(twice <= 10, "{twice} blocks were asked for twice");
    for (id, peer) in &world.peers {
        assert!(peer.served > 100, "{id} has served {}", peer.served);
    }
}
