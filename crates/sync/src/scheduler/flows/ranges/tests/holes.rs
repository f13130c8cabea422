//! The holes of published syncers by index: none may be here.

use super::*;

#[test]
fn a_block_skipped_once_is_asked_for_again_of_another() {
    let chain = trunk(500);
    let mut skipping = Model::honest(&chain);
    skipping.skips_once = [3, 4, 77, 150, 151, 399].into();
    let mut sim = sim(vec![skipping, Model::honest(&chain)]);
    runs_to(&mut sim, &chain);
    assert!(sim.elapsed() < seconds(5), "at once, not after a time-out: {:?}", sim.elapsed());
}

#[test]
fn a_block_that_one_peer_never_sends_comes_from_another() {
    let chain = trunk(500);
    let mut skipping = Model::honest(&chain);
    skipping.skips = [1, 2, 50, 51, 52, 300].into();
    let mut sim = sim(vec![skipping.clone(), skipping, Model::honest(&chain)]);
    runs_to(&mut sim, &chain);
    assert!(!sim.dropped.contains_key(&PeerId(2)));
}

#[test]
fn a_block_that_all_peers_passed_over_is_asked_for_again_after_a_while() {
    let chain = trunk(300);
    let mut skipping = Model::honest(&chain);
    skipping.skips_once = [120].into();
    let mut sim = sim(vec![skipping.clone(), skipping]);
    runs_to(&mut sim, &chain);
    assert!(sim.dropped.is_empty());
    assert!(sim.elapsed() < seconds(20), "took {:?}", sim.elapsed());
}

#[test]
fn the_frontier_is_what_is_contiguous_and_not_the_highest() {
    let chain = trunk(200);
    let mut first = Model::honest(&chain);
    // Block 5 is nowhere for ten seconds.
    first.skips = [5].into();
    let mut late = Model::honest(&chain);
    late.joins_after = seconds(10);
    let mut sim = sim(vec![first.clone(), first, late]);
    sim.run_while(seconds(9), |_| true);
    assert_eq!(sim.chain.best.len(), 5, "nothing above the gap was accepted");
    assert!(sim.flow.kept.len() > 100, "what came waits: {}", sim.flow.kept.len());
    assert!(!sim.flow.is_caught_up());
    runs_to(&mut sim, &chain);
    assert!(sim.times_asked(6) <= 1, "what waits is not asked for again");
}

#[test]
fn late_blocks_and_blocks_in_reverse_are_accepted_in_order() {
    let chain = trunk(400);
    let mut reversing = Model::honest(&chain);
    reversing.reverses = true;
    let mut slow = Model::honest(&chain);
    // So late that others were asked meanwhile.
    slow.latency = seconds(2);
    let mut sim = sim(vec![reversing, slow, Model::honest(&chain)]);
    // The tree accepts nothing whose parent is missing.
    runs_to(&mut sim, &chain);
    sim.run_while(sim.elapsed() + seconds(20), |_| true);
    assert_eq!(sim.chain.repeated, 0);
    assert!(!sim.dropped.contains_key(&PeerId(0)) && !sim.dropped.contains_key(&PeerId(2)));
}

#[test]
fn a_lie_about_the_height_is_chased_once_and_pins_nobody() {
    let chain = trunk(300);
    let mut lying = Model::honest(&chain);
    lying.claim = Some(1_000_000);
    let mut sim = sim(vec![lying, Model::honest(&chain)]);
    runs_to(&mut sim, &chain);
    assert!(sim.elapsed() < seconds(6), "took {:?}", sim.elapsed());
    assert!(sim.disbelieved.iter().all(|&id| id == PeerId(0)));
    // It repeats the lie, as pings do, and is asked ever more seldom.
    (1..100).for_each(|n| sim.after(f64::from(n), Event::Boast(PeerId(0), 1_000_000 + n as u64)));
    let before = sim.asks.len();
    let caught_up_at = sim.elapsed();
    sim.run_while(caught_up_at + seconds(100), |sim| {
        assert!(sim.flow.is_caught_up(), "pinned at {:?}", sim.elapsed());
        true
    });
    let phantoms = sim.asks[before..].iter().filter(|(_, id, _)| *id == PeerId(0)).count();
    assert!(phantoms <= 3, "{phantoms} phantom requests");
    assert!(sim.penalised[0].1.contains("and has shown 300"), "{:?}", sim.penalised);
    assert!(sim.dropped.contains_key(&PeerId(0)), "in the end it goes");
    assert!(!sim.dropped.contains_key(&PeerId(1)));
}

#[test]
fn a_liar_with_the_true_chain_pins_nobody_for_long_although_it_grows() {
    let chain = trunk(400);
    let mut lying = Model::honest(&chain[..=300]);
    lying.claim = Some(1_000_000);
    let mut sim = sim(vec![lying, Model::honest(&chain[..=300])]);
    for n in 1..=100 {
        sim.after(10.0 * f64::from(n), Event::Chain(PeerId(1), chain[..=300 + n as usize].to_vec()));
        sim.after(10.0 * f64::from(n), Event::Chain(PeerId(0), chain[..=300 + n as usize].to_vec()));
        sim.after(10.0 * f64::from(n), Event::Boast(PeerId(0), 1_000_000));
    }
    // When it was last seen, whether it was caught up then, and how long it was not in all.
    let seen = std::cell::Cell::new((Duration::ZERO, true, Duration::ZERO));
    sim.run_while(seconds(1005), |sim| {
        let (at, was_caught_up, sum) = seen.get();
        let since = if was_caught_up { Duration::ZERO } else { sim.elapsed() - at };
        seen.set((sim.elapsed(), sim.flow.is_caught_up(), sum + since));
        true
    });
    assert!(seen.get().2 <= seconds(30), "pinned for {:?} of 1005 s", seen.get().2);
    assert_eq!(sim.chain.best, hashes(&chain));
    assert!(!sim.dropped.contains_key(&PeerId(1)));
}

#[test]
fn a_block_that_the_chain_refuses_is_asked_for_again_elsewhere_and_its_server_goes() {
    let chain = trunk(300);
    let mut bad = chain.clone();
    bad[150] = SimBlock::new(chain[149].hash, 150, 9, false);
    let late = Model { joins_after: seconds(1), ..Model::honest(&chain) };
    let mut sim = sim(vec![Model::honest(&bad), late]);
    runs_to(&mut sim, &chain);
    assert!(sim.dropped[&PeerId(0)].contains("invalid block"), "{:?}", sim.dropped);
    assert!(!sim.dropped.contains_key(&PeerId(1)));
}

#[test]
fn a_block_that_the_chain_could_not_take_is_not_lost() {
    let chain = trunk(300);
    let mut sim = sim(vec![Model::honest(&chain); 2]);
    sim.chain.stumbles_at = Some(150);
    runs_to(&mut sim, &chain);
    assert!(sim.elapsed() < seconds(5), "took {:?}", sim.elapsed());
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
}

#[test]
fn blocks_nobody_asked_for_do_not_push_out_those_that_wait() {
    let chain = trunk(300);
    let mut sim = sim(vec![Model::honest(&chain); 2]);
    for n in 0..5000u64 {
        let junk = SimBlock::new(BlockHash::from_bytes([7; 32]), 1 + n % 300, n, true);
        let input = FlowInput::Block(arrived(PeerId(0), &junk));
        sim.after(0.3 + n as f64 * 1e-5, Event::Input(input));
    }
    runs_to(&mut sim, &chain);
    assert!(sim.elapsed() < seconds(2), "took {:?}", sim.elapsed());
    for height in 1..=300 {
        assert!(sim.times_asked(height) <= 2, "height {height}");
    }
}
