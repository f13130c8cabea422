//! Peers on different branches, and reorgs.

use super::*;

#[test]
fn two_branches_are_both_heard_and_the_longer_wins() {
    let first = trunk(300);
    let second = branch(&first, 120, 2, 340);
    for models in [vec![&first, &second], vec![&second, &first], vec![&first, &first, &second]] {
        let models = models.into_iter().map(|chain| Model::honest(chain)).collect();
        let mut sim = sim(models);
        assert!(sim.run(HOUR), "{:?}", sim.trace.last());
        assert_eq!(sim.chain.best, hashes(&second));
        assert!(first.iter().all(|block| sim.chain.node(block.hash).is_some()), "the other was heard too");
        assert_eq!(sim.chain.repeated, 0);
        assert!(sim.dropped.is_empty() && sim.penalised.is_empty(), "{:?}", sim.penalised);
        assert!(sim.elapsed() < seconds(10), "took {:?}", sim.elapsed());
    }
}

#[test]
fn a_reorg_at_the_tip_is_followed() {
    let first = trunk(200);
    let second = branch(&first, 190, 2, 203);
    let mut sim = sim(vec![Model::honest(&first); 3]);
    runs_to(&mut sim, &first);
    for id in 0..3 {
        sim.after(5.0 + id as f64, Event::Chain(PeerId(id), second.clone()));
    }
    sim.run_while(sim.elapsed() + seconds(20), |_| true);
    assert_eq!(sim.chain.best, hashes(&second));
    assert_eq!(sim.chain.reorgs, 1);
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
    // Down in doubling steps, then by halves, then up: no block of the branch is brought twice by its first peer.
    let brought = sim.asks.iter().filter(|(at, ..)| *at > seconds(4)).count();
    assert!(brought < 30, "{brought} questions");
}

#[test]
fn a_reorg_in_the_middle_of_it_is_followed() {
    let first = trunk(2000);
    let second = branch(&first, 500, 2, 2010);
    let mut sim = sim(vec![Model::honest(&first); 3]);
    for id in 0..3 {
        sim.after(0.7 + id as f64 * 0.1, Event::Chain(PeerId(id), second.clone()));
    }
    assert!(sim.run(HOUR));
    assert_eq!(sim.chain.best, hashes(&second));
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty(), "{:?}", sim.penalised);
    assert!(sim.elapsed() < seconds(30), "took {:?}", sim.elapsed());
}

#[test]
fn a_deep_fork_is_found_in_few_questions() {
    let first = trunk(5000);
    let second = branch(&first, 100, 2, 5001);
    let mut sim = sim(vec![Model::honest(&second)]);
    sim.chain = SimChain::holding(&first, false);
    assert!(sim.run(HOUR));
    assert_eq!(sim.chain.best, hashes(&second));
    let single = |want: &&Want| matches!(want, Want::Range { count: 1, .. });
    let probes = sim.asks.iter().map(|(.., want)| want).filter(single).count();
    assert!(probes <= 30, "{probes} probes");
    assert!(sim.peers[&PeerId(0)].served < 4901 + 100, "{} served", sim.peers[&PeerId(0)].served);
}

#[test]
fn a_fork_below_what_is_irreversible_ends_a_peer_and_not_the_others() {
    let first = trunk(300);
    let second = branch(&first, 100, 2, 340);
    let mut sim = sim(vec![Model::honest(&second), Model::honest(&branch(&first, 300, 1, 320))]);
    sim.chain = SimChain::holding(&first, false);
    sim.chain.finality = Some(50);
    assert!(sim.run(HOUR));
    assert_eq!(sim.chain.best.len(), 321);
    assert!(sim.dropped.contains_key(&PeerId(0)));
    assert!(!sim.dropped.contains_key(&PeerId(1)));
    let lowest = sim.asks.iter().map(|(.., want)| match want {
        Want::Range { start, .. } => *start,
        _ => 0,
    });
    assert!(lowest.min().unwrap() >= 250, "nothing is asked for below");
}

#[test]
fn a_forger_is_found_out_and_the_chain_goes_on() {
    let chain = trunk(1000);
    let mut forging = Model::honest(&chain);
    forging.forges_from = Some(40);
    let mut sim = sim(vec![forging, Model::honest(&chain), Model::honest(&chain)]);
    runs_to(&mut sim, &chain);
    assert!(!sim.dropped.contains_key(&PeerId(1)) && !sim.dropped.contains_key(&PeerId(2)));
    assert!(sim.elapsed() < seconds(8), "took {:?}", sim.elapsed());
}

#[test]
fn one_who_forges_everything_is_dropped() {
    let chain = trunk(100);
    let mut forging = Model::honest(&chain);
    forging.forges_from = Some(1);
    let mut sim = sim(vec![forging, Model::honest(&chain)]);
    runs_to(&mut sim, &chain);
    sim.run_while(seconds(600), |_| true);
    assert!(sim.dropped.contains_key(&PeerId(0)) && !sim.dropped.contains_key(&PeerId(1)));
}

#[test]
fn a_full_window_does_not_keep_other_branches_out() {
    let first = trunk(300);
    let second = branch(&first, 200, 2, 340);
    let mut sim = sim(vec![Model::honest(&second)]);
    sim.chain = SimChain::holding(&first, false);
    // The sink waits for blocks that nobody has.
    sim.window = 0;
    assert!(sim.run_while(HOUR, |sim| sim.chain.reorgs == 0), "the branch is heard");
}

#[test]
fn an_equal_branch_does_not_disturb() {
    let first = trunk(100);
    let second = branch(&first, 90, 2, 100);
    let mut sim = sim(vec![Model::honest(&first), Model::honest(&second)]);
    assert!(sim.run(seconds(30)));
    sim.run_while(seconds(300), |_| true);
    assert_eq!(sim.chain.reorgs, 0);
    assert!(sim.flow.is_caught_up());
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty(), "{:?}", sim.penalised);
}
