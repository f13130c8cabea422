//! The flow against simulated peers in virtual time.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::scheduler::flow::FlowInput;
use sim::{BATCH, Model, Sim, branch, hash, headers, trunk};

mod claims;
mod sim;
mod unasked;

#[test]
fn headers_come_from_one_peer_and_then_everybody_is_asked() {
    let chain = trunk(400);
    let mut sim = Sim::new(vec![Model::honest(&chain); 10]);
    sim.run_until(|sim| sim.flow.may_fetch());
    assert!(sim.is_at(&chain));
    // All came from the first, and the rest was asked when that was done.
    assert!((400 / BATCH..=400 / (BATCH - 1) + 1).contains(&sim.asked(0)), "asked {}", sim.asked(0));
    assert!((1..10).all(|id| sim.asked(id) == 1));
    assert!(!sim.flow.is_caught_up(), "the others have not answered");
    sim.run_until_caught_up();
    assert!((0..10).all(|id| sim.shown[&PeerId(id)] == chain[400]));
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty() && sim.disbelieved.is_empty());
}

#[test]
fn who_claims_more_than_is_known_is_asked_first_and_by_lot() {
    let mut first = BTreeSet::new();
    for seed in 0..40 {
        let models = [0, 0, 7, 7, 7].map(|claim| Model { claim, ..Model::honest(&trunk(7)) });
        let mut sim = Sim::with(SyncOptions::default(), seed, vec![Model::silent(&trunk(7))]);
        models.into_iter().zip(1..).for_each(|(model, id)| sim.connect(id, model));
        sim.disconnect(0);
        first.insert(sim.asked[1].1);
    }
    assert_eq!(first, [3, 4, 5].map(PeerId).into());
}

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
        let mut sim = Sim::with(SyncOptions::default(), seed, vec![Model::silent(&chain); 5]);
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
fn a_stale_leader_does_not_keep_others_from_showing_more() {
    let (stale, chain) = (trunk(50), trunk(300));
    let mut sim = Sim::new([Model::honest(&stale)]);
    sim.run_until(|sim| sim.tree.best().len() > 20);
    (1..5).for_each(|id| sim.connect(id, Model::honest(&chain)));
    sim.run_until(|sim| sim.flow.may_fetch());
    assert!(sim.is_at(&stale), "blocks may be fetched meanwhile");
    let before = sim.asked.len();
    sim.run_until_caught_up();
    assert!(sim.is_at(&chain));
    // All were asked, one of them went on, and then they were asked again.
    assert!(sim.asked.len() - before < 2 * 4 + 250 / (BATCH - 1) + 1, "{}", sim.asked.len() - before);
    assert_eq!(sim.shown[&PeerId(0)], stale[50]);
    assert!(sim.penalised.is_empty() && sim.disbelieved.is_empty());
}

#[test]
fn a_peer_behind_us_shows_nothing_and_is_blamed_for_nothing() {
    let mut sim = Sim::new([Model::honest(&trunk(100))]);
    sim.run_until_caught_up();
    sim.connect(1, Model::honest(&trunk(95)));
    sim.run_until_caught_up();
    assert_eq!(sim.showed_nothing, [PeerId(1)]);
    assert!(sim.disbelieved.is_empty() && sim.penalised.is_empty());
}

#[test]
fn the_better_branch_comes_from_another_than_the_leader() {
    let losing = branch(&trunk(500), 100, 2, 300);
    let winning = trunk(310);
    let mut sim = Sim::new([Model::honest(&losing), Model::honest(&winning), Model::honest(&losing)]);
    sim.run_until(|sim| sim.flow.may_fetch());
    assert!(sim.is_at(&losing));
    assert!(!sim.flow.is_caught_up());
    sim.run_until_caught_up();
    assert!(sim.is_at(&winning));
    assert_eq!(sim.shown[&PeerId(0)], losing[300]);
    assert_eq!(sim.shown[&PeerId(1)], winning[310]);
    assert_eq!(sim.shown[&PeerId(2)], losing[300]);
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
}

#[test]
fn a_peer_that_changes_its_branch_is_followed() {
    let (old, new) = (branch(&trunk(400), 100, 2, 300), trunk(400));
    let mut sim = Sim::new([Model::honest(&old)]);
    sim.run_until_caught_up();
    sim.peers.insert(PeerId(0), Model::honest(&new));
    sim.tell(0, headers(&new, 400..=400), false);
    sim.run_until(|sim| sim.is_at(&new));
    sim.run_until_caught_up();
    assert!(sim.dropped.is_empty());
}

#[test]
fn invalid_headers_cost_their_sender_alone() {
    let bad = branch(&trunk(130), 90, 2, 150);
    let mut sim = Sim::new([Model::honest(&bad), Model::honest(&trunk(130)), Model::honest(&bad)]);
    sim.tree.invalid = Some(hash(2, 120));
    sim.run_until_caught_up();
    assert!(sim.is_at(&trunk(130)));
    let dropped: BTreeSet<PeerId> = sim.dropped.iter().map(|(id, _)| *id).collect();
    assert_eq!(dropped, [PeerId(0), PeerId(2)].into());
    assert!(sim.dropped.iter().all(|(_, fault)| fault.starts_with("invalid headers")));
}

#[test]
fn repeated_headers_are_no_progress() {
    let chain = trunk(200);
    for seed in 0..10 {
        let record = Model { is_broken_record: true, ..Model::honest(&chain) };
        let mut sim = Sim::with(SyncOptions::default(), seed, [record, Model::honest(&chain)]);
        sim.run_until_caught_up();
        assert!(sim.is_at(&chain));
        sim.run_until(|sim| !sim.dropped.is_empty());
        assert_eq!(sim.dropped[0].0, PeerId(0));
        assert!(sim.asked(0) < 10);
    }
    // Answers that would answer, if they had not been given before.
    let mut sim = Sim::new([Model::silent(&trunk(100))]);
    for _ in 0..4 {
        sim.tell(0, headers(&chain, 1..=BATCH), true);
    }
    assert_eq!(sim.dropped, [(PeerId(0), "the same headers over and over".into())]);
}

#[test]
fn a_long_branch_that_is_known_is_walked_to_its_end() {
    let (best, side) = (trunk(400), branch(&trunk(400), 50, 2, 350));
    let mut sim = Sim::new([Model::honest(&side)]);
    sim.run_until_caught_up();
    sim.connect(1, Model::honest(&best));
    sim.run_until_caught_up();
    sim.connect(2, Model::honest(&side));
    sim.run_until_caught_up();
    assert_eq!(sim.shown[&PeerId(2)], side[350]);
    // Asked again and again, and still no bore.
    sim.run_for(1000);
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
}

#[test]
fn who_cannot_be_asked_is_dropped() {
    let mut sim = Sim::new([Model::silent(&trunk(10)), Model::honest(&trunk(10))]);
    let want = Want::HeadersAfter(vec![hash(0, 0)]);
    sim.handle(FlowInput::Unsupported(PeerId(0), want));
    assert_eq!(sim.dropped.len(), 1);
    assert!(sim.run_until_caught_up() < 1.0);
}

#[test]
fn stop_at_ends_the_search() {
    let options = SyncOptions { stop_at: Some(70), ..SyncOptions::default() };
    let mut sim = Sim::with(options, 1, vec![Model::honest(&trunk(300)); 3]);
    sim.tree.limit = 70;
    sim.run_until_caught_up();
    assert!(sim.flow.may_fetch());
    assert!(sim.is_at(&trunk(70)));
    let before = sim.asked.len();
    assert!(before < 70 / (BATCH - 1) + 4, "{before}");
    // Nobody is asked because of what lies above, or blamed for it.
    sim.handle(FlowInput::Height(PeerId(0), 301));
    sim.handle(FlowInput::Announced(PeerId(1), vec![hash(1, 301)]));
    sim.tell(2, headers(&trunk(301), 301..=301), false);
    assert_eq!(sim.asked.len(), before);
    sim.run_for(1000);
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty() && sim.disbelieved.is_empty());
}

#[test]
fn a_limit_of_the_chain_ends_the_questions() {
    let mut sim = Sim::new([Model::honest(&trunk(300)), Model::honest(&trunk(300))]);
    sim.tree.limit = 70;
    sim.run_until_caught_up();
    let before = sim.asked.len();
    sim.run_for(40);
    assert_eq!(sim.asked.len(), before);
    sim.run_for(1000);
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty() && sim.disbelieved.is_empty());
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
fn after_all_have_left_headers_come_from_one_peer_again() {
    let mut sim = Sim::new(vec![Model::honest(&trunk(10)); 3]);
    sim.run_until_caught_up();
    (0..3).for_each(|id| sim.disconnect(id));
    assert!(!sim.flow.is_caught_up() && sim.flow.may_fetch());
    assert_eq!(sim.flow.deadline(), None);
    let before = sim.asked.len();
    (10..30).for_each(|id| sim.connect(id, Model::honest(&trunk(100))));
    assert_eq!(sim.asked.len() - before, 1);
    sim.run_until_caught_up();
    assert!(sim.is_at(&trunk(100)));
}

#[test]
fn quiet_peers_are_asked_again_but_not_all_at_once() {
    let mut chain = trunk(10);
    let mut sim = Sim::new(vec![Model::honest(&chain); 50]);
    sim.run_until_caught_up();
    let before = sim.asked.len();
    // The first ten announce a block every half a minute.
    for n in 11..17 {
        sim.run_for(30);
        chain = trunk(n);
        for id in 0..10 {
            sim.peers.insert(PeerId(id), Model::honest(&chain));
            sim.tell(id, headers(&chain, n as usize..=n as usize), false);
        }
        assert!(sim.flow.is_caught_up(), "asking again changes nothing");
    }
    let later = &sim.asked[before..];
    assert!(later.iter().all(|&(_, id, _)| id.0 >= 10), "who announces is not asked");
    let each = |id| later.iter().filter(|(_, peer, _)| *peer == PeerId(id)).count();
    assert!((10..50).all(|id| (2..=4).contains(&each(id))), "each about once a minute");
    let moments: BTreeSet<Duration> = later.iter().map(|&(at, ..)| at).collect();
    assert!(moments.len() * 10 > later.len() * 9, "{} moments for {}", moments.len(), later.len());
}

#[test]
fn options_of_zero_do_not_spin() {
    let mut options = SyncOptions { max_strikes: 0, ..SyncOptions::default() };
    for duration in [&mut options.stall_timeout, &mut options.header_timeout, &mut options.header_interval] {
        *duration = Duration::ZERO;
    }
    let models = [Model::silent(&trunk(30)), Model { answers_after: 0, ..Model::honest(&trunk(30)) }];
    // The simulator fails on a tick that changes nothing.
    let mut sim = Sim::with(options, 1, models);
    sim.run_until_caught_up();
    sim.run_for(2);
    assert!(sim.asked.len() < 400, "{}", sim.asked.len());
}

fn model() -> impl Strategy<Value = Model> {
    let chains = vec![
        trunk(0),
        trunk(100),
        trunk(200),
        branch(&trunk(200), 75, 2, 195),
        branch(&trunk(200), 199, 3, 200),
        branch(&trunk(200), 5, 4, 150),
    ];
    let delay = prop_oneof![3 => 1u64..1500, 1 => 1500u64..9000];
    let answers = prop_oneof![3 => Just(u32::MAX), 1 => 0u32..6];
    let boast = prop_oneof![4 => Just(0u64), 1 => 0u64..10, 1 => Just(1_000_000)];
    (prop::sample::select(chains), delay, answers, 0u32..2, boast, prop::bool::weighted(0.05)).prop_map(
        |(chain, answers_after, answers, ignores, boast, is_broken_record)| {
            let honest = Model::honest(&chain);
            let claim = honest.claim + boast;
            Model { claim, answers_after, answers, ignores, is_broken_record, ..honest }
        },
    )
}

proptest! {
    /// Whatever the other peers are like: with one honest peer on the best chain all headers come, everybody who answers
    /// shows what it has, and no honest peer is blamed. The same seed does the same.
    #[test]
    fn one_honest_peer_is_enough(
        others in prop::collection::vec((model(), 0u64..40), 0..8),
        leaves in prop::collection::vec((0u64..8, 0u64..60), 0..3),
        honest_comes in 0u64..20,
        seed in any::<u64>(),
    ) {
        let best = branch(&trunk(200), 198, 5, 201);
        let run = || {
            let mut sim = Sim::with(SyncOptions::default(), seed, []);
            for second in 0..120 {
                for ((model, comes), id) in others.iter().zip(0..) {
                    if *comes == second {
                        sim.connect(id, model.clone());
                    }
                }
                if honest_comes == second {
                    sim.connect(99, Model::honest(&best));
                }
                leaves.iter().filter(|(_, at)| *at == second).for_each(|&(id, _)| sim.disconnect(id));
                sim.run_for(1);
            }
            sim.run_until_caught_up();
            sim.run_for(200);
            sim
        };
        let mut sim = run();
        prop_assert_eq!(sim.tree.best(), &best[..]);
        prop_assert!(sim.flow.may_fetch());
        sim.run_until_caught_up();
        let blamed: BTreeSet<PeerId> = sim.dropped.iter().chain(&sim.penalised).map(|(id, _)| *id).collect();
        for (&id, model) in &sim.peers {
            let is_silent = model.answers < u32::MAX || model.is_broken_record;
            if is_silent || model.claim > model.chain.len() as u64 + 15 {
                continue;
            }
            prop_assert!(!blamed.contains(&id), "{:?}", blamed);
            let is_ahead = model.chain.iter().enumerate().any(|(n, block)| best.get(n) != Some(block));
            if is_ahead || id == PeerId(99) {
                prop_assert_eq!(sim.shown.get(&id), model.chain.last());
            }
        }
        prop_assert!(!blamed.contains(&PeerId(99)));
        let penalties: BTreeSet<PeerId> = sim.penalised.iter().map(|(id, _)| *id).collect();
        prop_assert_eq!(penalties.len(), sim.penalised.len(), "each once");
        let mut again = run();
        again.run_until_caught_up();
        prop_assert_eq!(&sim.trace, &again.trace);
    }
}
