//! Whatever peers send, questions get rare once everything is there.

use super::*;

/// Our branch is held; the best chain leaves it below the tip.
fn branches() -> (Vec<SimBlock>, Vec<SimBlock>) {
    let best = trunk(260);
    let ours = side(&best, 68, 4, 40, 3);
    (best, ours)
}

/// Runs to the best chain. Then there is a look now and then.
fn gets_quiet(sim: &mut Sim<SlotFlow>, best: &[SimBlock]) {
    assert!(sim.run_while(seconds(60), |sim| sim.chain.best.len() < best.len()), "{:?}", sim.trace.last());
    sim.run_while(sim.elapsed() + seconds(300), |_| true);
    let asks = sim.asks.len();
    sim.run_while(sim.elapsed() + seconds(600), |_| true);
    let more = sim.asks.len() - asks;
    assert!(more <= 12 * sim.peers.len(), "{more} more: {:?}", sim.trace.last());
    assert!(asks < 200, "{asks} questions before");
    assert!(sim.flow.is_caught_up());
    assert!(!sim.dropped.contains_key(&PeerId(0)) && sim.chain.best == hashes(best));
}

#[test]
fn a_full_answer_below_the_claim_is_not_asked_for_again() {
    let (best, ours) = branches();
    // While what the slow one has sent is back-filled, there is time for hundreds of questions to the other.
    let slow = Model { latency: Duration::from_millis(700), ..Model::honest(&best[..=130]) };
    let (latency, joins_after) = (Duration::from_millis(1), seconds(3));
    let low =
        Model { claim: Some(5), latency, joins_after, per_block: Duration::ZERO, ..Model::honest(&best) };
    let mut sim = sim(vec![slow, low]);
    holding(&mut sim, &ours);
    gets_quiet(&mut sim, &best);
}

#[test]
fn blocks_that_build_on_nothing_end() {
    let (best, ours) = branches();
    for claim in [5, 100_000, u64::MAX - 20, u64::MAX] {
        let claim = Some(claim);
        let forging = Model { forges_without_end: true, claim, ..Model::honest(&best) };
        let late = Model { joins_after: seconds(5), ..Model::honest(&best) };
        let mut sim = sim(vec![late, forging]);
        holding(&mut sim, &ours);
        gets_quiet(&mut sim, &best);
    }
}

#[test]
fn a_block_in_the_last_slot_is_no_overflow() {
    let best = trunk(100);
    let last = slots(&best, 100, 5, [u64::MAX]);
    // They never tell the end of their answer. One is back-filled, the other asked on.
    let forging = Model { forges_from: Some(u64::MAX), mute_after: Some(1), ..Model::honest(&last[101..]) };
    let mut sim = sim(vec![Model::honest(&best), forging.clone(), forging]);
    holding(&mut sim, &best[..=50]);
    gets_quiet(&mut sim, &best);
}
