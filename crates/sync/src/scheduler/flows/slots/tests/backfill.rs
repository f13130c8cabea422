//! Back-fill of what does not link.

use super::*;

/// Our chain, and a longer one that leaves it `depth` blocks below our tip.
fn fork(depth: u64, length: u64) -> (Vec<SimBlock>, Vec<SimBlock>) {
    let ours = trunk(400);
    let theirs = side(&ours, 400 - depth as usize, 2, depth + length, 4);
    (ours, theirs)
}

fn is_ancestors(want: &Want) -> bool {
    matches!(want, Want::Ancestors { .. })
}

#[test]
fn a_fork_below_our_tip_is_back_filled_and_wins() {
    let (ours, theirs) = fork(120, 30);
    let mut sim = sim(vec![Model::honest(&theirs)]);
    holding(&mut sim, &ours);
    runs_to(&mut sim, &theirs);
    assert!((1..=4).contains(&count(&sim, is_ancestors)), "{:?}", sim.asks);
    let brought = theirs.iter().skip(281).filter(|block| sim.bodies.contains(&block.hash)).count();
    assert_eq!(brought, 150, "with all bodies");
    assert!(sim.peers[&PeerId(0)].served <= 150 + BATCH as usize, "local blocks first");
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
}

#[test]
fn without_questions_for_ancestors_they_are_asked_for_one_by_one() {
    let (ours, theirs) = fork(30, 5);
    let mut sim = sim(vec![Model { knows_ancestors: false, ..Model::honest(&theirs) }]);
    holding(&mut sim, &ours);
    runs_to(&mut sim, &theirs);
    let by_hash = count(&sim, |want| matches!(want, Want::Blocks(hashes) if hashes.len() == 1));
    assert!((5..=30).contains(&by_hash), "{by_hash}");
    assert_eq!(count(&sim, is_ancestors), 1, "asked once, then never");
}

#[test]
fn no_peer_needs_to_have_the_whole_way() {
    let (ours, theirs) = fork(120, 30);
    let slot = |n: usize| theirs[n].index;
    // One has thrown away what is old, one is short, one has holes.
    let pruned = Model { pruned_below: slot(370), ..Model::honest(&theirs) };
    let short = Model { pruned_below: slot(330), ..Model::honest(&theirs[..=375]) };
    let oldest = Model::honest(&theirs[..=335]);
    let mut sim = sim(vec![pruned, short, oldest]);
    holding(&mut sim, &ours);
    runs_to(&mut sim, &theirs);
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty(), "{:?}", sim.penalised);
}

#[test]
fn a_way_that_nobody_has_is_given_up() {
    let (ours, theirs) = fork(120, 30);
    let pruned = Model { pruned_below: theirs[370].index, ..Model::honest(&theirs) };
    let mut sim = sim(vec![pruned, Model::honest(&ours)]);
    holding(&mut sim, &ours);
    runs_to(&mut sim, &ours);
    assert!(sim.elapsed() < seconds(30), "took {:?}", sim.elapsed());
    let asks = sim.asks.len();
    sim.run_while(sim.elapsed() + seconds(600), |_| true);
    assert!(sim.asks.len() - asks < 150, "{}", sim.asks.len() - asks);
    assert!(!sim.dropped.contains_key(&PeerId(1)));
}

#[test]
fn an_invalid_block_on_the_way_rejects_what_is_above_and_keeps_what_is_below() {
    let ours = trunk(400);
    let mut theirs = side(&ours, 300, 2, 50, 4);
    let last = theirs.last().unwrap().clone();
    theirs.push(SimBlock::new(last.hash, last.index + 1, 2, false));
    let theirs = side(&theirs, 351, 2, 80, 4);
    let mut sim = sim(vec![Model::honest(&theirs), Model::honest(&ours)]);
    holding(&mut sim, &ours);
    runs_to(&mut sim, &ours);
    sim.run_while(seconds(200), |_| true);
    assert!(sim.chain.node(theirs[350].hash).is_some(), "below it is valid");
    assert!(theirs[351..].iter().all(|block| sim.chain.node(block.hash).is_none()));
    assert!(theirs[351..].iter().all(|block| sim.flow.rejected.contains(block.hash)));
    assert_eq!(sim.chain.refused, 1);
    assert!(sim.dropped[&PeerId(0)].contains("invalid block"));
    assert!(!sim.dropped.contains_key(&PeerId(1)));
}

#[test]
fn no_way_goes_below_what_is_irreversible_or_too_far() {
    let (ours, theirs) = fork(120, 30);
    for (finality, max_back_fill) in [(Some(50), 1000), (None, 60)] {
        let mut sim = sim_with(max_back_fill, vec![Model::honest(&theirs), Model::honest(&ours)]);
        holding(&mut sim, &ours);
        sim.chain.finality = finality;
        runs_to(&mut sim, &ours);
        assert!(count(&sim, is_ancestors) <= 4);
        let asks = sim.asks.len();
        sim.run_while(sim.elapsed() + seconds(300), |_| true);
        assert!(sim.asks.len() - asks < 60, "{}", sim.asks.len() - asks);
        assert_eq!(sim.chain.reorgs, 0);
    }
}

#[test]
fn bodies_beyond_the_room_are_left_out_and_their_headers_are_not() {
    let (ours, theirs) = fork(120, 30);
    let mut sim = sim(vec![Model::honest(&theirs)]);
    holding(&mut sim, &ours);
    sim.byte_room = 60_000;
    runs_to(&mut sim, &theirs);
    assert!(sim.bodies.len() < 150, "{}", sim.bodies.len());
    assert!(sim.most_buffered <= 60_000);
}

#[test]
fn forged_ancestors_lead_nowhere() {
    let (ours, theirs) = fork(120, 30);
    // It answers with other blocks than those asked for.
    let forging = Model { forges_from: Some(0), ..Model::honest(&theirs) };
    let mut sim = sim(vec![forging.clone(), forging, Model::honest(&theirs)]);
    holding(&mut sim, &ours);
    assert!(sim.run_while(seconds(120), |sim| sim.chain.reorgs == 0), "the honest one is heard");
    assert!(!sim.dropped.contains_key(&PeerId(2)));
}

#[test]
fn a_silent_peer_on_the_way_is_replaced() {
    let (ours, theirs) = fork(120, 30);
    let mute = Model { mute_after: Some(60), ..Model::honest(&theirs) };
    let mut sim = sim(vec![mute.clone(), mute, Model::honest(&theirs)]);
    holding(&mut sim, &ours);
    assert!(sim.run_while(seconds(60), |sim| sim.chain.best != hashes(&theirs)), "{:?}", sim.trace.last());
    assert!(!sim.dropped.contains_key(&PeerId(2)));
}
