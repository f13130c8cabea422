//! The machine on virtual time, among peers of all kinds. `TIPWARD_FILTER_SEEDS=20000` runs so many seeds.

mod world;

use std::time::Duration;

use fastrand::Rng;

use crate::SyncOptions;
use world::{Nature, World};

const DEFAULT_SEEDS: u64 = 150;

fn seeds() -> u64 {
    std::env::var("TIPWARD_FILTER_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_SEEDS)
}

/// Two of any kind and one honest peer: every payment arrives, in order and once, and nobody honest is dropped.
#[test]
fn one_honest_peer_is_enough_whatever_the_others_do() {
    for seed in 0..seeds() {
        let mut world = World::new(seed);
        let natures = [world.any_nature(), world.any_nature(), Nature::Honest];
        world.connect(&natures);
        world.run(seed);
    }
}

#[test]
fn false_filters_are_found_out() {
    for nature in [
        Nature::LacksOutputs,
        Nature::WrongBytes,
        Nature::Malformed,
        Nature::Equivocates,
        Nature::MakesUpHeaders,
    ] {
        let mut world = World::new(7);
        world.connect(&[nature, Nature::Honest, Nature::Honest]);
        world.run(7);
        assert_eq!(world.dropped(), [0], "{nature:?}");
    }
}

/// Nothing tells who is right: nobody is dropped, and the sink gets the block.
#[test]
fn what_can_not_be_decided_goes_to_the_sink() {
    let mut world = World::new(8);
    world.connect(&[Nature::HasMore, Nature::HasMore, Nature::Honest]);
    world.run(8);
    assert!(world.dropped().is_empty());
    let figures = world.figures();
    assert!(figures.undecided > 0 && figures.undecided <= figures.disputed, "{figures:?}");
}

#[test]
fn who_is_silent_is_done_without_and_dropped_in_the_end() {
    for nature in [Nature::SilentOnHashes, Nature::SilentOnFilters, Nature::SilentOnBlocks] {
        let mut world = World::new(9);
        world.connect(&[nature, Nature::Honest, Nature::Honest]);
        world.run(9);
        assert!(world.dropped().is_empty() || world.dropped() == [0], "{nature:?}");
        assert!(world.elapsed() < Duration::from_secs(60), "{nature:?} holds up {:?}", world.elapsed());
    }
}

/// Who is right may be gone before the block tells: a lie does not win by that.
#[test]
fn a_dispute_outlives_who_is_right() {
    let mut world = World::with(Rng::with_seed(11), 120, 0, SyncOptions::default());
    world.connect(&[Nature::LacksOutputs, Nature::Honest]);
    while world.figures().disputed == 0 {
        world.step(11);
    }
    world.lose(1);
    world.run(11);
    assert_eq!(world.figures().undecided, world.figures().disputed);
}

/// The budget holds for whatever waits; what comes next is taken all the same.
#[test]
fn memory_has_a_bound() {
    let options = SyncOptions { byte_budget: 4000, ..SyncOptions::default() };
    let mut world = World::with(Rng::with_seed(10), 3000, 0, options);
    world.connect(&[Nature::Honest, Nature::Honest, Nature::Honest]);
    world.run(10);
    // What comes next, and a few blocks of each peer, come on top.
    assert!(world.most_buffered() < 4000 + 3 * 4 * 40, "{} bytes", world.most_buffered());
    assert!(world.most_buffered() > 1500, "{} bytes are no test of it", world.most_buffered());
}

/// The first who speaks has lied about everything before anybody else has shown a block.
#[test]
fn who_is_about_to_show_its_blocks_is_heard() {
    let mut world = World::with(Rng::with_seed(12), 2000, 0, SyncOptions::default());
    world.connect(&[Nature::LacksOutputs, Nature::LacksOutputs, Nature::Late]);
    world.run(12);
    assert_eq!(world.dropped(), [0, 1]);
}

/// A claim outlives who made it, and so may be found false when there is nobody to blame.
#[test]
fn what_is_found_malformed_later_is_asked_of_others() {
    let mut world = World::with(Rng::with_seed(13), 120, 0, SyncOptions::default());
    world.connect(&[Nature::HasExcess]);
    while world.figures().filters < 119 {
        world.step(13);
    }
    world.lose(0);
    world.watch(1_000_000);
    world.connect(&[Nature::Honest]);
    world.run(13);
    assert!(world.figures().filters > 119, "nothing was asked for again");
}

#[test]
fn who_can_not_be_asked_for_filters_any_more_is_done_without() {
    let mut world = World::with(Rng::with_seed(14), 300, 0, SyncOptions::default());
    world.connect(&[Nature::ServesHashesAlone; 3]);
    while world.figures().peers > 0 || world.elapsed() == Duration::ZERO {
        world.step(14);
    }
    world.connect(&[Nature::Honest]);
    world.run(14);
}

/// Something always comes, so it is never late; and never there.
#[test]
fn who_trickles_holds_nothing_up_for_long() {
    let mut world = World::with(Rng::with_seed(15), 900, 0, SyncOptions::default());
    world.connect(&[Nature::Trickles, Nature::Honest]);
    world.run(15);
    assert!(world.elapsed() < Duration::from_secs(150), "{:?}", world.elapsed());
}

/// More work may be in fewer blocks: the sink is not at the tip because it is as high.
#[test]
fn a_branch_of_fewer_blocks_is_gone_to() {
    let mut world = World::with(Rng::with_seed(16), 100, 0, SyncOptions::default());
    world.connect(&[Nature::Honest]);
    world.run(16);
    assert!(world.applied().is_some());
    world.shorten(5);
    assert_eq!(world.applied(), None);
    world.run(16);
    assert_eq!(world.applied().map(|at| at.height), Some(94));
}

/// What a block has to say of a filter is found once, however often something comes meanwhile.
#[test]
fn a_block_is_not_asked_again() {
    let mut world = World::with(Rng::with_seed(17), 120, 0, SyncOptions::default());
    world.connect(&[Nature::ClaimsInVain, Nature::Honest]);
    world.run(17);
    let disputed = world.figures().disputed;
    assert!(disputed > 0 && world.judged() <= disputed, "{} of {disputed}", world.judged());
}

#[test]
fn who_comes_late_is_heard_while_there_are_few() {
    let mut world = World::with(Rng::with_seed(18), 120, 0, SyncOptions::default());
    world.connect(&[Nature::ClaimsInVain]);
    while world.elapsed() < Duration::from_secs(1) {
        world.step(18);
    }
    world.connect(&[Nature::Honest]);
    world.run(18);
    assert!(world.figures().disputed > 0);
}

/// Not even when all are gone, and who lied is the first to be back.
#[test]
fn what_was_in_dispute_is_not_believed_later() {
    let mut world = World::with(Rng::with_seed(19), 120, 0, SyncOptions::default());
    world.connect(&[Nature::LacksSpent, Nature::Honest]);
    while world.figures().disputed == 0 {
        world.step(19);
    }
    world.lose(1);
    world.lose(0);
    world.connect(&[Nature::LacksSpent]);
    world.run(19);
}
