//! Peers that are silent, slow or gone.

use super::*;

#[test]
fn a_silent_peer_costs_one_stall_and_is_dropped_in_the_end() {
    let chain = trunk(200);
    let mut sim = Sim::new([Model::silent(&chain), Model::honest(&chain)]);
    let done = sim.run_until(|sim| sim.flow.may_fetch());
    assert!((2.0..4.0).contains(&done), "{done} s");
    let caught_up = sim.run_until_caught_up();
    assert!(caught_up <= 12.0, "it failed to answer within its time: {caught_up} s");
    sim.run_until(|sim| !sim.dropped.is_empty());
    assert_eq!(sim.dropped, [(PeerId(0), "did not answer requests for headers".into())]);
    // Three questions of 10 s, a rest of 10 s, one of 20 s.
    assert_eq!((sim.asked(0), sim.elapsed().as_secs()), (3, 60));
}

#[test]
fn many_silent_peers_delay_little() {
    let chain = trunk(200);
    for seed in 0..20 {
        let mut sim = Sim::with(&SyncOptions::default(), seed, vec![Model::silent(&chain); 5]);
        sim.connect(9, Model::honest(&chain));
        let done = sim.run_until(|sim| sim.flow.may_fetch());
        assert!(done < 20.0, "{done} s");
    }
}

#[test]
fn a_slow_leader_is_replaced_and_not_dropped() {
    let chain = trunk(1000);
    let slow = Model { answers_after: 5000, ..Model::honest(&chain) };
    let mut sim = Sim::new([slow, Model::honest(&chain)]);
    let done = sim.run_until(|sim| sim.flow.may_fetch());
    // 270 s with the slow one.
    assert!(done < 10.0, "{done} s");
    sim.run_until_caught_up();
    assert_eq!(sim.shown[&PeerId(0)], chain[1000]);
    assert!(sim.dropped.is_empty());
}

#[test]
fn a_leader_that_is_slow_within_a_grown_patience_is_replaced() {
    let chain = trunk(1000);
    let slow = Model { answers_after: 7000, ..Model::honest(&chain) };
    // The patience grows while nobody else answers.
    let late = Model { ignores: 2, ..Model::honest(&chain) };
    let mut sim = Sim::new([slow, late]);
    let done = sim.run_until(|sim| sim.flow.may_fetch());
    // 370 s with the slow one.
    assert!(done < 65.0, "{done} s");
}

#[test]
fn a_leader_that_is_just_not_slow_is_compared_now_and_then() {
    let chain = trunk(2000);
    let tardy = Model { answers_after: 1900, ..Model::honest(&chain) };
    let mut sim = Sim::new([tardy, Model::honest(&chain)]);
    let done = sim.run_until(|sim| sim.flow.may_fetch());
    // 200 s with the tardy one alone.
    assert!(done < 80.0, "{done} s");
}

#[test]
fn where_all_are_slow_little_is_asked_twice() {
    let chain = trunk(4000);
    let slow = Model { answers_after: 5000, ..Model::honest(&chain) };
    let mut sim = Sim::new(vec![slow; 4]);
    sim.run_until(|sim| sim.flow.may_fetch());
    let needed = 4000 / (BATCH - 1);
    assert!(sim.asked.len() < needed + needed / 4, "{} questions instead of {needed}", sim.asked.len());
    assert!(sim.dropped.is_empty());
}

#[test]
fn a_late_answer_is_an_answer() {
    let chain = trunk(100);
    let mut sim = Sim::new([Model { answers_after: 15_000, ..Model::honest(&chain) }]);
    sim.run_until(|sim| sim.is_at(&chain));
    sim.run_for(600);
    assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
    assert!(sim.flow.is_caught_up());
}

#[test]
fn an_answer_behind_blocks_that_flow_is_not_late() {
    let mut sim = Sim::new([Model::silent(&trunk(9)), Model::honest(&trunk(9))]);
    for second in 0..400 {
        sim.run_for(1);
        sim.handle(FlowInput::Progress(PeerId(0)));
        // Nobody waits for it, though.
        assert_eq!(sim.flow.is_caught_up(), second >= 9, "after {second} s");
    }
    assert!(sim.dropped.is_empty() && sim.disbelieved.is_empty());
    assert_eq!(sim.asked(0), 1);
    sim.tell(0, headers(&trunk(9), 1..=9), false);
    assert_eq!(sim.shown[&PeerId(0)], hash(1, 9));
    // Nothing flows any more: the next question is late when its time is over.
    sim.run_for(200);
    assert_eq!(sim.dropped.len(), 1);
}

#[test]
fn a_lost_leader_is_replaced_at_once() {
    let chain = trunk(200);
    let mut sim = Sim::new([Model::honest(&chain), Model::honest(&chain)]);
    sim.run_until(|sim| sim.tree.best().len() > 100);
    sim.disconnect(0);
    let done = sim.run_until_caught_up();
    assert!(done < 1.5, "{done} s");
    assert!(sim.is_at(&chain));
}

#[test]
fn flapping_peers_keep_nothing_from_coming() {
    let chain = trunk(2000);
    let mut sim = Sim::new([]);
    for round in 0..2000 {
        // Each stays for a second and a half; every third answers.
        let model = if round % 3 == 0 { Model::honest(&chain) } else { Model::silent(&chain) };
        sim.connect(round, model);
        sim.run_for(1);
        if let Some(old) = round.checked_sub(1) {
            sim.disconnect(old);
        }
        if sim.is_at(&chain) {
            break;
        }
    }
    assert!(sim.is_at(&chain));
    assert!(sim.elapsed() < Duration::from_secs(200), "{:?}", sim.elapsed());
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
}

#[test]
fn who_brings_what_is_known_does_not_lead() {
    let side = branch(&trunk(600), 50, 2, 590);
    let mut sim = Sim::new([Model::honest(&trunk(600))]);
    sim.run_until_caught_up();
    sim.connect(1, Model::honest(&side));
    sim.run_until_caught_up();
    (0..2).for_each(|id| sim.disconnect(id));
    let start = sim.elapsed();
    sim.connect(2, Model { answers_after: 1500, ..Model::honest(&side) });
    sim.connect(3, Model::honest(&trunk(700)));
    sim.run_until(|sim| sim.is_at(&trunk(700)));
    assert!(sim.elapsed() - start < Duration::from_secs(5), "{:?}", sim.elapsed() - start);
    sim.run_until_caught_up();
    assert_eq!(sim.shown[&PeerId(2)], side[590]);
}

#[test]
fn peers_at_their_end_do_not_take_the_place_of_others() {
    let mut sim = Sim::new([Model { answers: 2, ..Model::honest(&trunk(300)) }]);
    (1..3).for_each(|id| sim.connect(id, Model::honest(&trunk(20))));
    let done = sim.run_until(|sim| sim.flow.may_fetch());
    assert!(done < 12.0, "{done} s");
    sim.run_until_caught_up();
}
