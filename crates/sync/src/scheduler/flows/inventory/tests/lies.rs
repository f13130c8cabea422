//! Claims that are not shown.

use super::*;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_claim_that_is_not_shown_is_forgotten_and_neither_pins_nor_leads() {
    let chain = trunk(100);
    let liar = Model { claims: 1_000_000, ..Model::honest(&chain) };
    let mut sim = Sim::new(vec![liar.clone(), Model::honest(&chain)]);
    sim.run();
    assert_eq!(sim.flow.mode, Mode::Following);
    assert!(sim.time() < secs(5), "{:?}", sim.time());
    assert_eq!(sim.disbelieved, [PeerId(0)]);
    let told = (PeerId(0), "claims height 1000000 and has shown 100".to_owned());
    assert_eq!(sim.penalised, [told]);

    // One that answers nothing.
    let mute = Model { answers_lists: false, ..liar };
    let mut sim = Sim::new(vec![mute, Model::honest(&chain)]);
    sim.run();
    assert_eq!(sim.accepted.len(), 100);
    assert!(sim.time() < secs(15), "{:?}", sim.time());
    assert!(sim.disbelieved.contains(&PeerId(0)) && sim.penalised[0].0 == PeerId(0));
    assert!(sim.penalised.iter().all(|(id, _)| *id == PeerId(0)));
}

#[test]
fn a_liar_that_never_tires_is_dropped() {
    let chain = trunk(10);
    let mut sim = Sim::new(vec![Model::honest(&chain)]);
    sim.run();
    for n in 1..100 {
        sim.later(sim.now + secs(n), FlowInput::Height(PeerId(0), 1000 + n));
    }
    sim.run_for(secs(100));
    assert_eq!(sim.dropped.len(), 1);
    assert!(sim.dropped[0].1.starts_with("claims height"), "{:?}", sim.dropped);
}

#[test]
fn a_height_told_later_is_followed() {
    let chain = trunk(30);
    let mut sim = Sim::new(vec![Model::honest(&chain[..11])]);
    sim.run();
    sim.model(0).chain = chain.clone();
    sim.later(sim.now, FlowInput::Height(PeerId(0), 30));
    sim.run();
    assert_eq!(sim.accepted.len(), 30);
    assert!(sim.time() < secs(10) && sim.penalised.is_empty());
}

#[test]
fn a_higher_branch_that_is_not_best_is_no_lie() {
    // The tree takes the first of equals: a peer on the other branch has told the truth, and can't show it on ours.
    let chain = trunk(50);
    let other = branch(&chain[..41], 2, 50);
    let models = vec![Model::honest(&chain), Model { claims: 51, ..Model::honest(&other) }];
    let mut sim = Sim::new(models);
    sim.run();
    if sim.tree.best[50] == chain[50].hash {
        assert_eq!(sim.disbelieved, [PeerId(1)]);
        assert!(sim.penalised.is_empty());
    }
}

#[test]
fn what_a_whole_list_can_not_hold_is_a_lie_on_a_side_branch_too() {
    let chain = trunk(50);
    let side = branch(&chain[..41], 2, 45);
    let liar = Model { claims: 1_000_000, ..Model::honest(&side) };
    let mut sim = Sim::new(vec![Model::honest(&chain)]);
    sim.run();
    sim.connect(1, liar);
    sim.run();
    assert_eq!(sim.penalised.len(), 1);
    assert_eq!((sim.penalised[0].0, sim.disbelieved.clone()), (PeerId(1), vec![PeerId(1)]));
}

#[test]
fn phantoms_hold_nobody_up() {
    let chain = trunk(700);
    let phantoms: Vec<BlockHash> =
        (0..500u64).map(|n| BlockHash::from_bytes(tipward_peer::wire::sha256d(&n.to_le_bytes()))).collect();
    for says_missing in [false, true] {
        let liar =
            Model { phantoms: phantoms.clone(), claims: 10_000, says_missing, ..Model::honest(&chain) };
        let honest = Model { says_missing, ..Model::honest(&chain) };
        let mut sim = Sim::new(vec![liar.clone(), liar, honest]);
        sim.run_until(|sim| sim.accepted.len() == 700);
        assert!(sim.time() < secs(15), "{:?}", sim.time());
        sim.run();
        assert!(sim.time() < secs(60), "{:?}", sim.time());
        assert!(sim.dropped.iter().all(|(id, _)| *id != PeerId(2)), "{:?}", sim.dropped);
        assert!(sim.penalised.iter().all(|(id, _)| *id != PeerId(2)), "{:?}", sim.penalised);
    }
}
