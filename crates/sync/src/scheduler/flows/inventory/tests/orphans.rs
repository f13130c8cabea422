//! Blocks whose parents are missing.

use std::collections::BTreeSet;

use super::*;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn an_orphan_asks_for_all_its_missing_parents() {
    let base = trunk(3);
    let [a, b, c] = [11, 12, 13].map(|name| make(name, &[&base[3]]));
    let top = make(20, &[&a, &b, &c]);
    let mut all = base.clone();
    all.extend([a.clone(), b.clone(), c.clone(), top.clone()]);
    let mut sim = Sim::with(&options(), 500, true, 0, vec![Model::honest(&base)]);
    sim.run();
    sim.extend(0, &all);
    sim.run_until(|sim| sim.flow.pool.contains(top.hash));
    let asked: BTreeSet<BlockHash> = sim.asked_of(0).into_iter().rev().take(3).collect();
    assert_eq!(asked, hashes(&[a, b, c]).into_iter().collect());
    sim.run();
    assert_eq!(sim.accepted.last(), Some(&top.hash));
    assert_eq!(sim.accepted.len(), 7);
}

#[test]
fn the_parent_of_an_orphan_asks_for_the_list_between() {
    let chain = trunk(1000);
    let mut sim = Sim::new(vec![Model::honest(&chain[..11])]);
    sim.run();
    let before = sim.lists.len();
    sim.extend(0, &chain);
    sim.run_until(|sim| sim.lists.len() > before);
    // The tip is an orphan, and its parent is: what leads from our tip to that one is asked for.
    let (_, _, after, stop) = sim.lists[before];
    assert_eq!((after, stop), (chain[9].hash, chain[999].hash));
    sim.run();
    assert_eq!(sim.tree.best, hashes(&chain));
    assert!(sim.flow.pool.is_empty());
    assert_eq!(sim.asked.len(), 1000, "nothing twice");
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
}

#[test]
fn a_gap_wider_than_the_pool_is_filled_from_below() {
    let chain = trunk(3000);
    let few = SyncOptions { window: 100, ..options() };
    let mut sim = Sim::with(&few, 500, false, 0, vec![Model::honest(&chain[..11])]);
    sim.run();
    sim.extend(0, &chain);
    sim.run();
    assert_eq!(sim.tree.best, hashes(&chain));
    assert!(sim.asked.len() < 3100, "{}", sim.asked.len());
    assert!(sim.time() < secs(60), "{:?}", sim.time());
}

#[test]
fn without_lists_the_way_to_an_orphan_is_found_by_parents() {
    let chain = trunk(60);
    let mut sim = Sim::new(vec![Model::honest(&chain[..11])]);
    sim.run();
    sim.model(0).answers_lists = false;
    sim.extend(0, &chain);
    sim.run_until(|sim| sim.accepted.len() == 60);
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
}

#[test]
fn orphans_of_a_peer_that_is_lost_stay() {
    let chain = trunk(30);
    let mut sim = Sim::new(vec![Model::honest(&chain[..21])]);
    sim.run();
    // It sends the tip and goes; what is missing comes from another.
    let model = sim.model(0);
    model.withheld.extend(hashes(&chain[21..30]));
    sim.extend(0, &chain);
    sim.run_until(|sim| !sim.flow.pool.is_empty());
    sim.disconnect(0);
    sim.settle();
    assert!(sim.flow.pool.contains(chain[30].hash));
    sim.connect(1, Model::honest(&chain[..30]));
    sim.run_until(|sim| sim.accepted.len() == 30);
    assert_eq!(sim.asked.iter().filter(|(.., hash)| *hash == chain[30].hash).count(), 1);
}

#[test]
fn missing_parents_are_asked_for_again_when_somebody_comes() {
    let chain = trunk(30);
    let mut sim = Sim::new(vec![Model::honest(&chain[..21])]);
    sim.run();
    sim.model(0).missing.extend(hashes(&chain[21..30]));
    sim.extend(0, &chain);
    sim.run_for(secs(5));
    sim.disconnect(0);
    sim.run_for(secs(500));
    assert!(sim.flow.pool.contains(chain[30].hash));
    // It answers for blocks only.
    sim.connect(1, Model { answers_lists: false, claims: 0, ..Model::honest(&chain) });
    sim.run_until(|sim| sim.accepted.len() == 30);
}

#[test]
fn orphans_are_given_up_after_an_hour() {
    let lone = make(5, &[&make(4, &[&make(3, &[])])]);
    let mut with = trunk(5);
    with.push(Made { height: 6, ..lone.clone() });
    let mut sim = Sim::new(vec![Model::honest(&with)]);
    sim.run_until(|sim| sim.flow.pool.contains(lone.hash));
    sim.run_for(secs(3000));
    assert!(sim.flow.pool.contains(lone.hash));
    sim.run_for(secs(1000));
    assert!(
        !sim.flow.pool.contains(lone.hash)
            || sim.asked_of(0).iter().filter(|it| **it == lone.hash).count() > 1
    );
}

#[test]
fn an_orphan_that_fails_the_checks_never_enters() {
    let missing = make(4, &[&genesis()]);
    let broken = make(BROKEN, &[&missing]);
    let mut sim = Sim::new(vec![Model::honest(&trunk(0))]);
    sim.run();
    sim.extend(0, &[genesis(), broken.clone()]);
    sim.run_until(|sim| !sim.penalised.is_empty());
    assert!(sim.penalised[0].1.starts_with("invalid block"), "{:?}", sim.penalised);
    assert!(sim.flow.pool.is_empty());
    // Asked of it again after a while, and then it has to go.
    sim.run_until(|sim| !sim.dropped.is_empty());
    assert!(sim.flow.pool.is_empty() && sim.flow.requests.len() == 0);
}

#[test]
fn a_poisoned_copy_does_not_displace_the_true_block() {
    let chain = trunk(100);
    let poisoner = Model { poisoned: hashes(&chain[40..42]).into_iter().collect(), ..Model::honest(&chain) };
    let mut sim = Sim::new(vec![poisoner, Model::honest(&chain)]);
    sim.run();
    assert_eq!(sim.tree.best, hashes(&chain));
    assert!(sim.penalised.iter().all(|(id, _)| *id == PeerId(0)) && !sim.penalised.is_empty());
    assert!(sim.dropped.is_empty(), "it may have been deceived itself");
    assert!(sim.time() < secs(2));
}

#[test]
fn an_invalid_block_costs_its_sender_and_takes_its_descendants_along() {
    let chain = trunk(50);
    let bad = branch(&chain[..31], 2, 80);
    let mut sim = Sim::new(vec![Model::honest(&bad), Model::honest(&chain)]);
    sim.tree.invalid.insert(bad[40].hash);
    sim.run();
    assert_eq!(sim.tree.best, hashes(&chain));
    let reasons: Vec<&str> = sim.dropped.iter().map(|(_, reason)| reason.as_str()).collect();
    assert!(sim.dropped[0].0 == PeerId(0) && reasons[0].starts_with("invalid block"), "{reasons:?}");
    assert_eq!(sim.dropped.len(), 1);
    // Whoever tells of it later is not asked for it again, nor are its descendants kept.
    let before = sim.asked.len();
    sim.connect(2, Model { claims: 0, ..Model::honest(&bad) });
    sim.run_for(secs(100));
    let again = &sim.asked[before..];
    assert!(again.iter().all(|(.., hash)| *hash != bad[40].hash));
    assert!(sim.flow.pool.is_empty());
}

#[test]
fn descendants_of_the_invalid_that_wait_are_rejected_with_it() {
    let chain = trunk(40);
    // The bad one comes last.
    let late = Model { withheld: [chain[20].hash].into(), ..Model::honest(&chain) };
    let mut sim = Sim::new(vec![late]);
    sim.tree.invalid.insert(chain[20].hash);
    sim.run_until(|sim| sim.flow.pool.len() == 20);
    sim.model(0).withheld.clear();
    sim.run_until(|sim| !sim.dropped.is_empty());
    assert!(sim.flow.pool.is_empty());
    assert!((20..=40).all(|n| sim.flow.rejected.contains(chain[n].hash)));
    assert_eq!(sim.accepted.len(), 19);
}

#[test]
fn an_unrequested_block_is_an_announcement() {
    let chain = trunk(10);
    let mut sim = Sim::new(vec![Model::honest(&chain[..9])]);
    sim.run();
    sim.model(0).chain = chain.clone();
    let block = arrived(chain[10].hash, chain[10].bytes.clone(), PeerId(0));
    sim.step(FlowInput::Block(block));
    assert!(sim.flow.pool.is_empty());
    assert_eq!(sim.asked_of(0).last(), Some(&chain[10].hash));
    sim.run();
    assert_eq!(sim.accepted.len(), 10);
    // One that is known is of no use, and shows what its sender has.
    sim.connect(5, Model { claims: 0, answers_lists: false, ..Model::honest(&chain) });
    sim.settle();
    sim.step(FlowInput::Block(arrived(chain[10].hash, chain[10].bytes.clone(), PeerId(5))));
    assert_eq!(sim.accepted.len(), 10);
    assert_eq!(sim.shows.last(), Some(&(PeerId(5), chain[10].hash)));
}

#[test]
fn a_dag_comes_whole_though_lists_are_cut_inside_a_layer() {
    for seed in 0..20 {
        let all = dag(60, seed);
        let model = Model { batch: 7, tells_of_cut: true, claims: 0, ..Model::honest(&all) };
        let mut sim = Sim::with(&options(), 7, true, seed, vec![model.clone(), model]);
        sim.run_until(|sim| sim.accepted.len() + 1 == all.len());
        assert_eq!(sim.tree.blocks.len(), all.len());
        assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
        let mut asked: Vec<BlockHash> = sim.asked.iter().map(|(.., hash)| *hash).collect();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked.len(), sim.asked.len(), "nothing was asked for twice");
    }
}
