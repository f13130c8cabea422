//! What a slot-range sync has to cope with, one thing at a time.

use std::{sync::atomic::Ordering, time::Duration};

use tipward_chain::{
    Rule,
    density::DensityMode,
    sync::{Strategy, peer::Want},
};

use super::{
    blocks::{Flaw, Rules, SimBlock, branch, flawed, genesis},
    peers::Model,
    world::{World, options},
};

const SECOND: Duration = Duration::from_secs(1);

/// 100 blocks, in every second slot.
fn trunk() -> Vec<SimBlock> {
    branch(&genesis(), 0, 1, (2..=200).step_by(2))
}

fn has_all(world: &World, chain: &[SimBlock]) -> bool {
    chain.iter().all(|block| world.knows(block))
}

fn tip(chain: &[SimBlock]) -> tipward_chain::sync::peer::wire::BlockHash {
    chain[chain.len() - 1].hash
}

/// At rest, with nobody punished.
fn at_rest(mut world: World) -> World {
    world.run();
    assert_eq!((&world.dropped[..], &world.penalised[..]), (&[][..], &[][..]));
    world
}

#[test]
fn a_single_chain_from_one_peer_and_from_many() {
    for peers in [1, 5] {
        let world = at_rest(World::new(options(10, 50), vec![Model::new(&trunk()); peers]));
        assert_eq!((world.tip(), world.reorgs), (tip(&trunk()), 0));
        assert_eq!(world.chain.tree().mode(), DensityMode::Online);
        assert_eq!(world.chain.tree().irreversible().height, 90);
        assert!(world.synced[0].0 < 3 * SECOND, "{:?}", world.synced);
    }
}

#[test]
fn the_longer_of_two_forks_while_little_is_undone() {
    let (a, b) = (trunk(), branch(&trunk(), 60, 2, (123..=250).step_by(3)));
    assert!(b.len() > a.len());
    let world = at_rest(World::new(options(1000, 50), vec![Model::new(&a), Model::new(&b)]));
    assert_eq!(world.tip(), tip(&b));
    assert!(has_all(&world, &a) && has_all(&world, &b));
}

/// The long branch was made in secret: sparse where the two part, however dense it is later.
#[test]
fn the_denser_of_two_forks_that_parted_long_ago() {
    let dense = branch(&trunk(), 50, 2, 101..=150);
    let sparse = branch(&trunk(), 50, 3, (110..=200).step_by(10).chain(201..=300));
    assert!(sparse.len() > dense.len());
    for models in [[&dense, &sparse], [&sparse, &dense]] {
        let rules = Rules { stays_bootstrapping: true, ..Rules::default() };
        let models = models.map(|chain| Model::new(chain)).to_vec();
        let world = at_rest(World::with(options(5, 50), rules, models, 3));
        assert_eq!(world.tip(), tip(&dense));
        assert!(has_all(&world, &sparse));
    }
}

#[test]
fn a_partial_local_tree_is_completed() {
    let fork = branch(&trunk(), 40, 2, (83..=150).step_by(4));
    for known in [&trunk()[..30], &fork[..50]] {
        let models = vec![Model::new(&trunk()), Model::new(&fork)];
        let world = at_rest(World::new(options(100, 50), models).knowing(known));
        assert_eq!(world.tip(), tip(&trunk()));
        assert!(has_all(&world, &fork));
    }
}

#[test]
fn peers_with_different_tips() {
    let models = [10, 40, 70, 101, 101].map(|length| Model::new(&trunk()[..length]));
    let world = at_rest(World::new(options(10, 50), models.to_vec()));
    assert_eq!(world.tip(), tip(&trunk()));
}

/// Every block has one peer or two, and no peer has every block.
#[test]
fn from_peers_none_of_which_has_everything() {
    let models = vec![
        Model::lacking(&trunk(), &[(30, 60), (100, 150)]),
        Model::lacking(&trunk(), &[(1, 30), (60, 100)]),
        Model::lacking(&trunk(), &[(1, 100), (150, 180)]),
    ];
    let world = at_rest(World::new(options(10, 50), models));
    assert_eq!(world.tip(), tip(&trunk()));
}

#[test]
fn a_fork_s_ancestors_come_from_peers_that_do_not_follow_it() {
    let fork = branch(&trunk(), 30, 2, (63..=251).step_by(2));
    // It has only the end of the fork, as one that has just come may. Two others have a part of it beside their own chain.
    let end = Model::lacking(&fork, &[(1, 200)]);
    let beside =
        |lacks: &[(u64, u64)]| Model { others: vec![fork.clone()], ..Model::lacking(&trunk(), lacks) };
    let models = vec![end, beside(&[(141, 142), (63, 90)]), beside(&[(91, 140)])];
    let world = at_rest(World::new(options(1000, 50), models));
    assert_eq!(world.tip(), tip(&fork));
}

#[test]
fn an_invalid_block_is_refused_and_whoever_serves_it_dropped() {
    for flaw in [Flaw::Alone, Flaw::OnParent] {
        let invalid =
            flawed(
                &trunk(),
                70,
                2,
                (143..=300).step_by(2),
                |slot| if slot == 145 { flaw } else { Flaw::Nothing },
            );
        let mut world = World::new(options(10, 50), vec![Model::new(&invalid), Model::new(&trunk())]);
        world.run();
        assert_eq!(world.tip(), tip(&trunk()));
        assert!(
            world.knows(&invalid[71])
                || flaw == Flaw::OnParent
                || world.chain.tree().mode() == DensityMode::Online
        );
        assert!(!invalid[72..].iter().any(|block| world.knows(block)), "nor what builds on it");
        assert_eq!(world.dropped.iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), [0]);
    }
}

#[test]
fn an_invalid_fork_is_rejected_with_its_descendants_and_harms_nothing() {
    // It is longer and denser, and only its peers have it; its middle breaks a rule.
    let flaw = |slot| if slot == 120 { Flaw::OnParent } else { Flaw::Nothing };
    let invalid = flawed(&trunk(), 50, 2, 101..=400, flaw);
    let liar = |joins_at| Model { joins_at, ..Model::new(&invalid) };
    let models = vec![Model::new(&trunk()), liar(3 * SECOND), liar(20 * SECOND), liar(40 * SECOND)];
    let rules = Rules { stays_bootstrapping: true, ..Rules::default() };
    let mut world = World::with(options(1000, 50), rules, models, 1);
    world.run();
    assert_eq!((world.tip(), world.reorgs), (tip(&trunk()), 0), "the valid start of the fork is shorter");
    let at = invalid.iter().position(|block| block.slot == 120).unwrap();
    assert!(!invalid[at..].iter().any(|block| world.knows(block)));
    assert_eq!(world.dropped.iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), [1], "who served the block");
    let questions = world.asks.iter().filter(|(_, peer, _)| *peer > 1).count();
    assert!(questions < 80, "{questions} to those who only have what builds on it");
}

/// What never ends where a round is over when nothing was fetched.
#[test]
fn a_shorter_chain_with_the_higher_slot_comes_to_an_end() {
    let short = branch(&trunk(), 20, 2, (300..=500).step_by(20));
    assert!(short.len() < trunk().len());
    for models in [vec![&short, &trunk()], vec![&trunk(), &short]] {
        let models = models.into_iter().map(|chain| Model::new(chain)).collect();
        let rules = Rules { stays_bootstrapping: true, ..Rules::default() };
        let world = at_rest(World::with(options(1000, 50), rules, models, 1));
        assert_eq!(world.tip(), tip(&trunk()));
        assert!(has_all(&world, &short));
        assert!(world.synced.last().unwrap().0 < 5 * SECOND, "{:?}", world.synced);
        assert!(world.asks.len() < 60, "{} questions", world.asks.len());
    }
}

#[test]
fn it_stops_with_a_shorter_chain_in_a_higher_slot_when_it_is_to_stop_at_the_tip() {
    let short = branch(&trunk(), 20, 2, (300..=500).step_by(20));
    let models = vec![Model::new(&trunk()), Model::new(&short)];
    let mut world = World::new(options(1000, 50), models).tuned(|options| options.stop_when_synced = true);
    world.run_to(60 * SECOND);
    assert!(world.is_stopped);
    assert_eq!(world.applied.last().map(|last| last.hash), Some(tip(&trunk())));
}

#[test]
fn orphan_forks_are_back_filled_when_their_peers_come() {
    let forks = [20, 45, 80]
        .map(|at| branch(&trunk(), at, 10 + at as u64, (2 * at as u64 + 1..).step_by(at).take(12)));
    let late = |(n, chain): (usize, &Vec<SimBlock>)| Model {
        joins_at: SECOND * (5 + 5 * n as u32),
        ..Model::new(chain)
    };
    let rules = Rules { stays_bootstrapping: true, ..Rules::default() };
    let models = [Model::new(&trunk())].into_iter().chain(forks.iter().enumerate().map(late)).collect();
    let world = at_rest(World::with(options(1000, 50), rules, models, 1));
    assert!(forks.iter().all(|fork| has_all(&world, fork)));
    assert_eq!(world.tip(), tip(&trunk()));
    assert!(world.asks.iter().any(|(_, _, want)| matches!(want, Want::Ancestors { .. })));
}

/// What it builds on nobody had when it was there first.
#[test]
fn a_fork_that_did_not_link_is_tried_again_when_others_come() {
    // Longer than one answer above our tip, too.
    for last in [75, 260] {
        let fork = branch(&trunk(), 30, 2, (61..=75).chain(201..=last));
        let first = Model { others: vec![trunk()], ..Model::lacking(&fork, &[(40, 64)]) };
        // What the first one brings of the other chain says nothing of its own.
        let late = Model::lacking(&trunk(), &[(150, 180)]);
        let late = Model { others: vec![fork.clone()], joins_at: 10 * SECOND, ..late };
        let rules = Rules { stays_bootstrapping: true, ..Rules::default() };
        let mut world = World::with(options(1000, 50), rules, vec![first, late], 1);
        world.run_to(100 * SECOND);
        assert!(has_all(&world, &fork) && has_all(&world, &trunk()), "at the first poll after a minute");
        at_rest(world);
    }
}

#[test]
fn a_peer_whose_tip_falls_to_a_lower_slot_or_stays_in_it_has_another_chain() {
    for last in [150, 200] {
        let fork = branch(&trunk(), 60, 2, (121..last - 1).step_by(4).chain([last]));
        let mut world = World::new(options(1000, 50), vec![Model::new(&trunk()); 2]);
        world.grow(5 * SECOND, 1, &fork);
        let world = at_rest(world);
        assert!(has_all(&world, &fork));
        assert_eq!((world.tip(), world.reorgs), (tip(&trunk()), 0));
    }
}

#[test]
fn back_fill_goes_no_further_than_it_may() {
    let fork = branch(&trunk(), 10, 2, 150..=349);
    // Its tip alone is above our slot, and everything below has to be walked.
    let model = Model { joins_at: 5 * SECOND, ..Model::lacking(&fork, &[(200, 340)]) };
    let helper = Model { others: vec![fork.clone()], ..Model::new(&trunk()) };
    let result = |max_back_fill| {
        let rules = Rules { stays_bootstrapping: true, ..Rules::default() };
        let mut world = World::with(options(1000, 50), rules, vec![helper.clone(), model.clone()], 1)
            .tuned(|options| options.strategy = Strategy::SlotRange { batch: 20, max_back_fill });
        world.run();
        let of_fork = fork[11..].iter().filter(|block| world.knows(block)).count();
        (world.tip() == tip(&fork), of_fork)
    };
    assert_eq!(result(1000), (true, 200));
    assert_eq!(result(20), (false, 0));
}

#[test]
fn what_forks_off_below_the_irreversible_block_is_never_followed() {
    // By far longer and denser than what is known when it comes.
    let fork = branch(&trunk(), 50, 2, 101..=400);
    let late = Model { joins_at: 5 * SECOND, ..Model::new(&fork) };
    let mut world = World::new(options(10, 50), vec![Model::new(&trunk()), late]);
    world.run();
    assert_eq!((world.tip(), world.reorgs), (tip(&trunk()), 0));
    assert!(!fork[51..].iter().any(|block| world.knows(block)));
    assert!(!world.dropped.iter().any(|(peer, _)| *peer == 0));
    // A walk ends at the slot of that block: its ancestors are not all asked for.
    let walked = world.asks.iter().filter(|(_, _, want)| matches!(want, Want::Ancestors { .. })).count();
    assert!(walked <= 20, "{walked}");
}

#[test]
fn whoever_brings_what_is_too_deep_for_others_is_not_at_fault() {
    let fork = branch(&trunk(), 50, 2, 186..=400);
    let late = Model { joins_at: 5 * SECOND, ..Model::lacking(&fork, &[(186, 250)]) };
    let helper = Model { others: vec![fork.clone()], ..Model::new(&trunk()) };
    let mut world = World::new(options(10, 50), vec![helper, late]);
    world.run();
    assert_eq!((world.tip(), world.reorgs), (tip(&trunk()), 0));
    assert!(!world.dropped.iter().any(|(peer, _)| *peer == 0), "{:?}", world.dropped);
}

#[test]
fn a_fork_that_parts_above_it_is() {
    let fork = branch(&trunk(), 95, 2, 191..=210);
    let late = Model { joins_at: 5 * SECOND, ..Model::new(&fork) };
    let world = at_rest(World::new(options(10, 50), vec![Model::new(&trunk()), late]));
    assert_eq!((world.tip(), world.reorgs), (tip(&fork), 1));
    assert!(!world.knows(&trunk()[96]), "the old branch parts below the new irreversible block");
}

/// With every block that it takes the tree forgets the branch that the sink is still on.
#[test]
fn a_sink_goes_back_from_a_branch_that_is_forgotten_at_once() {
    let mut world = World::new(options(0, 50), vec![Model::new(&trunk()); 2]);
    // Nothing is undone where no block may be.
    world.grow(5 * SECOND, 1, &branch(&trunk(), 98, 2, 199..=220));
    world.run();
    assert_eq!((world.tip(), world.reorgs), (tip(&trunk()), 0));

    let fork = branch(&trunk(), 99, 2, 201..=220);
    let mut world = World::new(options(1, 50), vec![Model::new(&trunk()); 2]);
    world.grow(5 * SECOND, 1, &fork);
    let mut world = at_rest(world);
    assert_eq!((world.tip(), world.reorgs), (tip(&fork), 1));
    assert!(!world.knows(&trunk()[100]));
    let next = branch(&fork, fork.len() - 1, 3, [300, 301]);
    world.grow(world.elapsed() + SECOND, 1, &next);
    assert_eq!(at_rest(world).tip(), tip(&next), "and goes on");
}

/// A ledger that looks at whole blocks, in the order of the chain.
#[test]
fn a_block_that_the_sink_refuses_goes_with_its_descendants_and_comes_never_again() {
    let (fork, other) = (branch(&trunk(), 60, 2, (123..=190).step_by(3)), branch(&trunk(), 70, 3, [150]));
    // One that looks at whole blocks too.
    let honest = Model::new(&trunk()[..80]);
    let models = vec![Model::new(&trunk()), Model::new(&fork), Model::new(&other), honest];
    let mut world = World::new(options(1000, 50), models);
    world.refuses.extend([trunk()[80].hash, fork[62].hash]);
    world.run();
    assert_eq!(world.tip(), trunk()[79].hash, "the best of what is left");
    assert!(!trunk()[80..].iter().chain(&fork[62..]).any(|block| world.knows(block)));
    assert!(has_all(&world, &other));
    let rejected = &world.rejected;
    assert!(rejected.contains(&trunk()[80].hash));
    // Who has the others' chain for its own may try once more; a new one is refused at its first block.
    world.join(Model { joins_at: world.elapsed() + SECOND, ..Model::new(&trunk()) });
    world.join(Model { joins_at: world.elapsed() + SECOND, ..Model::new(&branch(&other, 71, 4, 300..340)) });
    world.run();
    assert!(!trunk()[80..].iter().any(|block| world.knows(block)));
    assert_eq!(world.chain.tree().tip().height, 111, "others go on");
}

#[test]
fn a_restart_in_the_middle_goes_on_where_the_sink_is() {
    let fork = branch(&trunk(), 60, 2, (123..=200).step_by(4));
    for keeps_headers in [true, false] {
        for after in [300, 600, 900, 1500] {
            let models = vec![Model::new(&fork), Model::new(&trunk())];
            let mut world = World::new(options(10, 50), models);
            world.run_to(Duration::from_millis(after));
            let before = world.applied.len();
            world.restart(keeps_headers);
            world.run();
            assert_eq!(world.tip(), tip(&trunk()));
            assert!(before < 101 || after > 600, "in the middle: {before} blocks");
        }
    }
}

#[test]
fn blocks_before_their_time_wait_for_it() {
    let rules = Rules::default();
    rules.present.store(150, Ordering::Relaxed);
    let mut world = World::with(options(10, 50), rules, vec![Model::new(&trunk()); 2], 1);
    world.run();
    assert_eq!(world.chain.tree().tip().height, 75);
    assert!(world.dropped.is_empty());
    assert!(world.asks.len() < 150, "{} questions", world.asks.len());
    world.rules.present.store(0, Ordering::Relaxed);
    world.run();
    assert_eq!(world.tip(), tip(&trunk()));
}

#[test]
fn a_chain_grows_and_forks_while_it_is_followed() {
    let mut world = World::new(options(5, 50), vec![Model::new(&trunk()[..80]); 3]);
    let mut chain = trunk()[..80].to_vec();
    for n in 1..=60_u64 {
        // Every peer in its turn, and now and then one is alone with its block.
        let slot = 160 + 3 * n;
        let last = chain.len() - 1;
        if n % 7 == 0 {
            let stray = branch(&chain, last, 100 + n, [slot - 1]);
            world.grow(SECOND * n as u32, (n % 3) as usize, &stray);
        }
        chain = branch(&chain, last, n, [slot]);
        for peer in 0..3 {
            world.grow(SECOND * n as u32 + Duration::from_millis(300 * (peer as u64 + 1)), peer, &chain);
        }
    }
    let world = at_rest(world);
    assert_eq!(world.tip(), tip(&chain));
    assert_eq!(world.chain.tree().irreversible().height, chain.len() as u64 - 6);
}
