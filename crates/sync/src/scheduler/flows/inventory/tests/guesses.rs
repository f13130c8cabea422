//! Blocks are asked of those who did not announce them, too.

use std::collections::BTreeSet;

use super::*;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A sync from one peer that has accepted 10 blocks, when another peer comes.
fn joined(chain: &[Made], other: Model) -> Sim {
    let slow = Model { bytes_per_second: 100_000, ..Model::honest(chain) };
    let mut sim = Sim::new(vec![slow]);
    sim.run_until(|sim| sim.accepted.len() == 10);
    sim.connect(1, other);
    sim
}

#[test]
fn one_gives_the_lists_and_all_bring_what_is_on_them_each_as_it_can() {
    let chain = trunk(2000);
    let fast = Model { bytes_per_second: 400_000, ..Model::honest(&chain) };
    let mut sim = joined(&chain, fast);
    sim.run_until(|sim| sim.accepted.len() == 2000);
    // When they are through, the other is asked what it has.
    assert!(sim.lists.iter().all(|(at, id, ..)| *id == PeerId(0) || *at == sim.time()));
    let of_fast = sim.asked_of(1).len();
    assert!((1200..1900).contains(&of_fast), "{of_fast} of 2000 from the one that is four times as fast");
    assert!(sim.time() < secs(8), "{:?} with 500,000 bytes a second", sim.time());
    assert_eq!(sim.asked.len(), 2000, "nothing twice");
}

#[test]
fn who_was_only_thought_to_have_a_block_is_not_blamed_and_left_alone_for_a_while() {
    let chain = trunk(500);
    for says_missing in [true, false] {
        let lacks = hashes(&chain[1..]).into_iter().collect();
        let mut sim = joined(&chain, Model { missing: lacks, says_missing, ..Model::honest(&chain) });
        sim.run_until(|sim| sim.accepted.len() == 500);
        assert!(sim.dropped.is_empty() && sim.penalised.is_empty(), "{:?} {:?}", sim.dropped, sim.penalised);
        assert!((1..=line::MAX_HUNCHES).contains(&sim.asked_of(1).len()), "{}", sim.asked_of(1).len());
        assert!(sim.time() < secs(10), "{:?}", sim.time());
    }
}

#[test]
fn a_block_that_is_passed_over_is_asked_of_another_at_once() {
    let chain = trunk(500);
    // It has all but a few, and is silent about those.
    let lacks: BTreeSet<BlockHash> = hashes(&chain[..450]).into_iter().step_by(50).collect();
    let fast = Model { bytes_per_second: 400_000, withheld: lacks.clone(), ..Model::honest(&chain) };
    let mut sim = joined(&chain, fast);
    sim.run_until(|sim| sim.accepted.len() == 500);
    let asked = |id: u64, of: BlockHash| {
        sim.asked.iter().find(|(_, peer, hash)| (*peer, *hash) == (PeerId(id), of)).map(|(at, ..)| *at)
    };
    let waited = lacks.iter().filter_map(|&hash| Some(asked(0, hash)?.saturating_sub(asked(1, hash)?)));
    let waited: Vec<Duration> = waited.collect();
    assert!(waited.len() > 2 && waited.iter().all(|time| *time < secs(1)), "{waited:?}");
    assert!(sim.asked_of(1).len() > 100 && sim.dropped.is_empty() && sim.penalised.is_empty());
}

#[test]
fn where_nothing_more_is_wanted_everybody_is_asked_once_what_it_has() {
    let chain = trunk(30);
    let mut sim = Sim::new(vec![Model::honest(&chain)]);
    sim.run();
    // Started again, with less wanted than is known.
    let options = SyncOptions { stop_at: Some(20), ..options() };
    sim.flow = InventoryFlow::new(&options, 500, 7);
    (sim.lists, sim.shows) = (Vec::new(), Vec::new());
    sim.connect(1, Model::honest(&chain));
    sim.run_for(secs(300));
    assert_eq!(sim.lists.len(), 1);
    assert_eq!(sim.shows, [(PeerId(1), chain[30].hash)]);
}
