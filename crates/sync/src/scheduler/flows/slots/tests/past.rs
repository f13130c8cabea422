//! Trees that start at a trusted block.

use super::*;

/// A tree that starts at block `n` of a chain and wants the past.
fn from(sim: &mut Sim<SlotFlow>, chain: &[SimBlock], n: usize) {
    sim.chain = SimChain::from_block(&chain[n], n as u64);
    (sim.chain.by_slot, sim.chain.wants_past) = (true, true);
}

#[test]
fn the_past_comes_when_the_tip_is_reached() {
    let chain = trunk(300);
    let mut sim = sim(vec![Model::honest(&chain), Model { pruned_below: 450, ..Model::honest(&chain) }]);
    from(&mut sim, &chain, 200);
    assert!(sim.run(HOUR));
    assert_eq!(sim.chain.best, hashes(&chain[200..]));
    assert!(sim.chain.past.is_empty(), "the tip first");
    assert!(sim.run_while(seconds(60), |sim| sim.chain.past.len() < 200));
    let expected: Vec<_> = hashes(&chain[..200]).into_iter().rev().collect();
    assert_eq!(sim.chain.past, expected, "downwards to genesis, each once");
    sim.run_while(sim.elapsed() + seconds(100), |_| true);
    assert_eq!((sim.failed.as_ref(), sim.dropped.len()), (None, 0));
    assert!(sim.penalised.is_empty());
}

#[test]
fn the_past_waits_for_peers_that_have_it() {
    let chain = trunk(120);
    let late = Model { joins_after: seconds(100), knows_ancestors: false, ..Model::honest(&chain) };
    let mut sim = sim(vec![Model { pruned_below: 250, ..Model::honest(&chain) }, late]);
    from(&mut sim, &chain, 100);
    assert!(sim.run_while(HOUR, |sim| sim.chain.past.len() < 100));
    assert_eq!(sim.failed, None);
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
}

#[test]
fn new_blocks_come_while_the_past_does() {
    let chain = trunk(400);
    let slow = Model { per_block: Duration::from_millis(50), ..Model::honest(&chain[..=350]) };
    let mut sim = sim(vec![slow]);
    from(&mut sim, &chain, 340);
    for n in 351..=400 {
        sim.after((n - 350) as f64 * 0.3, Event::Chain(PeerId(0), chain[..=n].to_vec()));
    }
    assert!(sim.run_while(seconds(120), |sim| sim.chain.past.len() < 340 || sim.chain.best.len() < 61));
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty());
}

#[test]
fn an_invalid_past_ends_the_sync() {
    let mut chain = trunk(50);
    chain.push(SimBlock::new(chain[50].hash, 151, 9, false));
    let chain = side(&chain, 51, 1, 60, 3);
    let mut sim = sim(vec![Model::honest(&chain), Model::honest(&chain)]);
    from(&mut sim, &chain, 90);
    assert!(sim.run_while(seconds(60), |sim| sim.failed.is_none()));
    assert!(
        sim.failed.as_ref().is_some_and(|reason| reason.contains("past of the trusted block")),
        "{:?}",
        sim.failed
    );
    assert!(sim.dropped.is_empty(), "the peers gave what was asked for");
}

#[test]
fn a_trusted_block_that_nobody_has_ends_the_sync() {
    let chain = trunk(100);
    let other = side(&chain, 50, 2, 80, 3);
    let mut sim = sim(vec![Model::honest(&chain), Model::honest(&chain[..=90])]);
    from(&mut sim, &other, 60);
    assert!(sim.run_while(seconds(300), |sim| sim.failed.is_none()));
    assert!(sim.failed.as_ref().is_some_and(|reason| reason.contains("trusted block")), "{:?}", sim.failed);
    assert!(sim.elapsed() >= TRUST_TIME, "peers had their time");
}

#[test]
fn one_peer_with_the_trusted_block_is_enough_even_if_it_is_late() {
    let chain = trunk(100);
    let other = side(&chain, 50, 2, 80, 3);
    let late = Model { joins_after: seconds(30), ..Model::honest(&other) };
    let mut sim = sim(vec![Model::honest(&chain), Model::honest(&chain), late]);
    from(&mut sim, &other, 60);
    sim.run_while(seconds(300), |sim| sim.chain.past.len() < 60);
    assert_eq!(sim.failed, None);
    assert_eq!(sim.chain.best, hashes(&other[60..]));
}
