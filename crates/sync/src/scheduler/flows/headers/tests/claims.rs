//! Heights that peers claim.

use super::*;

const BOAST: u64 = 1_000_000;

#[test]
fn a_boast_is_penalised_once_and_neither_pins_nor_is_chased() {
    let chain = trunk(100);
    let liar = Model { claim: BOAST, ..Model::honest(&chain) };
    let mut sim = Sim::new([liar, Model::honest(&chain)]);
    let caught_up = sim.run_until_caught_up();
    assert!(caught_up < 2.0, "{caught_up} s");
    assert_eq!(sim.disbelieved, [PeerId(0)]);
    assert_eq!(sim.penalised, [(PeerId(0), "claims height 1000000 and has shown 100".into())]);
    let before = sim.asked(0);
    for _ in 0..600 {
        sim.handle(FlowInput::Height(PeerId(0), BOAST));
        assert!(sim.flow.is_caught_up());
        sim.run_for(1);
    }
    // Once an interval, and once more because of a claim after that.
    assert!(sim.asked(0) - before <= 2 * 14, "{}", sim.asked(0) - before);
    assert_eq!(sim.penalised.len(), 1);
    assert!(sim.dropped.is_empty());
}

#[test]
fn a_boast_without_any_headers_is_seen_through() {
    let mut sim = Sim::new([Model { claim: BOAST, ..Model::honest(&trunk(0)) }]);
    sim.connect(1, Model::honest(&trunk(50)));
    sim.run_until_caught_up();
    assert!(sim.is_at(&trunk(50)));
    assert_eq!(sim.penalised, [(PeerId(0), "claims height 1000000 and has shown 0".into())]);
    assert_eq!(sim.showed_nothing, [PeerId(0)]);
}

#[test]
fn who_boasts_and_never_answers_is_given_up() {
    let chain = trunk(100);
    let mute = Model { claim: BOAST, ..Model::silent(&chain) };
    let mut sim = Sim::new([mute, Model::honest(&chain)]);
    assert!(sim.run_until(|sim| sim.flow.may_fetch()) < 4.0);
    assert!(sim.run_until_caught_up() <= 12.0);
    assert_eq!(sim.disbelieved, [PeerId(0)]);
    sim.run_for(100);
    assert_eq!(sim.dropped.len(), 1);
    assert!(sim.penalised.is_empty(), "it is dropped for its silence");
}

#[test]
fn a_lie_is_not_preferred_after_it_was_seen_through() {
    let chain = trunk(100);
    let mut sim = Sim::new(vec![Model { claim: BOAST, ..Model::silent(&chain) }; 3]);
    sim.run_for(25);
    assert_eq!(sim.disbelieved.len(), 3);
    let before = sim.asked.len();
    sim.connect(9, Model::honest(&chain));
    // Their claims are forgotten; the one who claims something is next.
    sim.run_until(|sim| sim.asked.len() > before);
    assert_eq!(sim.asked[before].1, PeerId(9));
    assert!(sim.run_until_caught_up() < 35.0);
}

#[test]
fn a_little_too_much_is_forgotten_without_blame() {
    // Changed to a branch with fewer blocks since it greeted.
    let mut sim = Sim::new([Model { claim: 66, ..Model::honest(&trunk(50)) }]);
    sim.run_until_caught_up();
    assert_eq!(sim.disbelieved, [PeerId(0)]);
    assert!(sim.penalised.is_empty());
    sim.connect(1, Model { claim: 67, ..Model::honest(&trunk(50)) });
    sim.run_until_caught_up();
    assert_eq!(sim.penalised.len(), 1);
    // A branch of several answers beside the best is measured by its own height.
    let side = branch(&trunk(200), 10, 2, 150);
    let mut sim = Sim::new([Model::honest(&trunk(200))]);
    sim.run_until_caught_up();
    sim.connect(1, Model { claim: 155, ..Model::honest(&side) });
    sim.run_until_caught_up();
    assert_eq!((sim.shown[&PeerId(1)], sim.penalised.len()), (side[150], 0));
    assert_eq!(sim.disbelieved, [PeerId(1)]);
}

#[test]
fn a_claim_above_what_is_known_is_asked_for() {
    let mut sim = Sim::new([Model::honest(&trunk(10)), Model::honest(&trunk(10))]);
    sim.run_until_caught_up();
    let before = sim.asked.len();
    sim.handle(FlowInput::Height(PeerId(0), 10));
    assert_eq!(sim.asked.len(), before);
    sim.peers.insert(PeerId(0), Model::honest(&trunk(12)));
    sim.handle(FlowInput::Height(PeerId(0), 12));
    assert_eq!(sim.asked.len(), before + 1);
    sim.run_for(1);
    assert!(sim.is_at(&trunk(12)));
    assert!(sim.disbelieved.is_empty());
}

#[test]
fn small_lies_over_and_over_are_not_chased() {
    let mut sim = Sim::new([Model::honest(&trunk(10))]);
    sim.run_until_caught_up();
    let before = sim.asked.len();
    for _ in 0..100 {
        sim.handle(FlowInput::Height(PeerId(0), 11));
        sim.run_for(1);
    }
    assert!(sim.asked.len() - before <= 3 + 2 + 3, "{}", sim.asked.len() - before);
    assert!(sim.penalised.is_empty());
}
