//! Starts at a trusted block: from honest, dishonest and invalid sources.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tipward_chain::{
    Rule,
    density::SlotCheckpoint,
    sync::{BlockId, Chain},
};

use super::{
    blocks::{Flaw, SimBlock, branch, flawed, genesis},
    peers::Model,
    world::{World, options},
};

const SECOND: Duration = Duration::from_secs(1);

fn trunk() -> Vec<SimBlock> {
    branch(&genesis(), 0, 1, (2..=200).step_by(2))
}

type Past = Arc<Mutex<Vec<BlockId>>>;

/// Trusts the block of a chain at one height, and says it is at another.
fn trusting(chain: &[SimBlock], at: usize, height: u64, models: Vec<Model>) -> (World, Past) {
    let past = Past::default();
    let kept = Arc::clone(&past);
    let sink = Box::new(move |block: tipward_chain::sync::Block| {
        kept.lock().expect("nobody panics with it").push(block.id);
        Ok(())
    });
    let checkpoint = SlotCheckpoint { height, header: chain[at].header(), past: sink };
    (World::trusting(options(10, 50), checkpoint, models), past)
}

fn honest() -> Vec<Model> {
    vec![
        Model::lacking(&trunk(), &[(20, 60)]),
        Model::lacking(&trunk(), &[(1, 30), (90, 120)]),
        Model { knows_ancestors: false, ..Model::new(&trunk()) },
    ]
}

/// Who has a block need not have the one above.
#[test]
fn its_past_may_have_to_be_put_together() {
    let models = vec![
        Model::lacking(&trunk(), &[(40, 41), (44, 45), (48, 60)]),
        Model::lacking(&trunk(), &[(1, 30), (42, 43), (46, 47)]),
    ];
    let (mut world, past) = trusting(&trunk(), 60, 60, models);
    world.run();
    assert_eq!((past.lock().unwrap().len(), world.chain.wanted_past()), (59, None));
    assert!(world.dropped.is_empty(), "{:?}", world.dropped);
}

#[test]
fn an_honest_one_is_followed_and_its_past_filled_in_the_background() {
    let (mut world, past) = trusting(&trunk(), 60, 60, honest());
    world.run();
    assert_eq!(world.tip(), trunk()[100].hash);
    assert_eq!(world.applied.first().map(|first| first.height), Some(61), "the sink starts above");
    let expected = (1..60).rev().map(|height| BlockId { height, hash: trunk()[height as usize].hash });
    assert!(past.lock().unwrap().iter().copied().eq(expected), "each once, downwards");
    assert_eq!(world.chain.wanted_past(), None);
    assert!(world.dropped.is_empty() && world.penalised.is_empty());
    assert!(world.synced[0].0 < 5 * SECOND, "it does not wait for the past: {:?}", world.synced);
}

#[test]
fn at_the_tip_or_just_above_genesis_it_is_nothing_special() {
    for at in [1, 2, 100] {
        let (mut world, past) = trusting(&trunk(), at, at as u64, honest());
        world.sync.stop_when_synced = false;
        world.run_to(600 * SECOND);
        assert_eq!((world.failed.as_deref(), world.tip()), (None, trunk()[100].hash));
        assert_eq!((past.lock().unwrap().len(), world.chain.wanted_past()), (at - 1, None));
    }
}

#[test]
fn a_block_that_no_peer_can_link_to_ends_the_sync() {
    let other = branch(&genesis(), 0, 66, (2..=150).step_by(2));
    let (mut world, past) = trusting(&other, 50, 50, honest());
    world.run_to(600 * SECOND);
    let reason = world.failed.unwrap();
    assert!(reason.contains("no peer has a chain with the trusted block"), "{reason}");
    assert!(past.lock().unwrap().is_empty() && world.applied.is_empty());
}

#[test]
fn one_peer_that_has_it_is_enough() {
    let other = branch(&genesis(), 0, 66, (2..=150).step_by(2));
    let late = Model { joins_at: 20 * SECOND, ..Model::new(&trunk()) };
    let models = vec![Model::new(&other), Model::new(&other), late];
    let (mut world, past) = trusting(&trunk(), 60, 60, models);
    world.run_to(600 * SECOND);
    assert_eq!((world.failed.as_deref(), world.tip()), (None, trunk()[100].hash));
    assert_eq!(past.lock().unwrap().len(), 59);
}

#[test]
fn a_past_that_breaks_a_rule_ends_the_sync() {
    for flaw in [Flaw::Alone, Flaw::OnParent] {
        let invalid =
            flawed(
                &genesis(),
                0,
                1,
                (2..=200).step_by(2),
                |slot| {
                    if slot == 40 { flaw } else { Flaw::Nothing }
                },
            );
        let (mut world, past) = trusting(&invalid, 60, 60, vec![Model::new(&invalid); 3]);
        world.run_to(600 * SECOND);
        let reason = world.failed.unwrap();
        assert!(reason.contains("the past of the trusted block is invalid"), "{reason}");
        let lowest = past.lock().unwrap().last().map(|last| last.height);
        // What it is as a child is known when its parent is.
        assert_eq!(lowest, Some(if flaw == Flaw::Alone { 21 } else { 20 }));
    }
}

#[test]
fn a_height_that_is_not_the_trusted_block_s_ends_the_sync() {
    for said in [40, 80] {
        let (mut world, _) = trusting(&trunk(), 60, said, vec![Model::new(&trunk()); 2]);
        world.run_to(600 * SECOND);
        let reason = world.failed.unwrap();
        assert!(reason.contains("the past of the trusted block is invalid"), "{reason}");
        assert!(reason.contains("genesis is"), "{reason}");
    }
}

#[test]
fn a_past_from_another_genesis_ends_the_sync() {
    let first = SimBlock::new(trunk()[0].hash, 1, 5, Flaw::Nothing);
    let foreign = branch(&[SimBlock { parent: genesis()[0].parent, ..first }], 0, 1, (2..=200).step_by(2));
    let (mut world, _) = trusting(&foreign, 60, 60, vec![Model::new(&foreign); 2]);
    world.run_to(600 * SECOND);
    let reason = world.failed.unwrap();
    assert!(reason.contains("genesis is"), "{reason}");
}

#[test]
fn nothing_is_taken_that_forks_off_below() {
    let fork = branch(&trunk(), 40, 2, 81..=400);
    let models = vec![Model::new(&trunk()), Model { joins_at: 10 * SECOND, ..Model::new(&fork) }];
    let (mut world, _) = trusting(&trunk(), 60, 60, models);
    world.run();
    assert_eq!(world.tip(), trunk()[100].hash);
    assert_eq!(world.chain.tree().best_at(59), None);
    assert!(!fork[41..].iter().any(|block| world.knows(block)));
}
