//! The flow against simulated peers in virtual time.

use std::collections::BTreeSet;

use super::*;
use crate::scheduler::flow::FlowInput;
use sim::{BATCH, Model, Sim, branch, hash, headers, trunk};

mod claims;
mod racing;
mod random;
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
        let mut sim = Sim::with(&SyncOptions::default(), seed, vec![Model::silent(&trunk(7))]);
        models.into_iter().zip(1..).for_each(|(model, id)| sim.connect(id, model));
        sim.disconnect(0);
        first.insert(sim.asked[1].1);
    }
    assert_eq!(first, [3, 4, 5].map(PeerId).into());
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
        let mut sim = Sim::with(&SyncOptions::default(), seed, [record, Model::honest(&chain)]);
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
    let mut sim = Sim::with(&options, 1, vec![Model::honest(&trunk(300)); 3]);
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
    // After a restart nobody has to be waited for.
    let tree = sim.tree;
    let mut sim = Sim::with(&options, 1, []);
    sim.accepted = 70;
    sim.tree = tree;
    assert!(!sim.flow.may_fetch());
    sim.connect(0, Model::silent(&trunk(300)));
    assert!(sim.flow.may_fetch() && !sim.flow.is_caught_up());
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
    let models = [Model::silent(&trunk(30)), Model { answers_after: 0, ..Model::honest(&trunk(30)) }];
    // The simulator fails on a tick that changes nothing.
    let mut sim = Sim::with(&options_of(Duration::ZERO, 0), 1, models);
    sim.run_until_caught_up();
    sim.run_for(2);
    assert!(sim.asked.len() < 400, "{}", sim.asked.len());
}

#[test]
fn options_without_bounds_overflow_nothing() {
    let mut sim = Sim::with(&options_of(Duration::MAX, u32::MAX), 1, [Model::silent(&trunk(30))]);
    sim.connect(1, Model::honest(&trunk(30)));
    for _ in 0..12 {
        sim.now = sim.flow.deadline().unwrap();
        sim.handle(FlowInput::Tick);
    }
    assert!(sim.asked(0) > 1);
}

fn options_of(wait: Duration, max_strikes: u32) -> SyncOptions {
    SyncOptions {
        stall_timeout: wait,
        header_timeout: wait,
        header_interval: wait,
        max_strikes,
        ..SyncOptions::default()
    }
}

#[test]
fn stop_at_ends_the_questions_of_a_chain_that_takes_more() {
    let options = SyncOptions { stop_at: Some(70), ..SyncOptions::default() };
    let mut sim = Sim::with(&options, 1, vec![Model::honest(&trunk(300)); 3]);
    sim.run_until_caught_up();
    assert!(sim.tree.best().len() > 70 && sim.tree.best().len() <= 70 + 2 * BATCH);
    assert!(sim.penalised.is_empty() && sim.disbelieved.is_empty());
}

#[test]
fn who_has_more_is_waited_for_although_it_was_heard_before() {
    let (first, second) = (trunk(90), branch(&trunk(90), 10, 2, 95));
    let mut sim = Sim::new([Model::honest(&trunk(10)), Model::honest(&trunk(10))]);
    sim.run_until_caught_up();
    for (id, chain) in [(0, &first), (1, &second)] {
        sim.peers.insert(PeerId(id), Model::honest(chain));
        sim.tell(id, headers(chain, 80..=80), false);
    }
    sim.run_until(|sim| sim.tree.best().len() > 20);
    sim.run_until_caught_up();
    assert!(sim.is_at(&second));
}

#[test]
fn known_branches_without_end_are_not_waited_for() {
    let sides = [2, 3].map(|name| branch(&trunk(30), 0, name, 25));
    let mut sim = Sim::new([&trunk(30), &sides[0], &sides[1]].map(|chain| Model::honest(chain)));
    sim.run_until_caught_up();
    sim.connect(9, Model::silent(&trunk(30)));
    let mut answers = 0;
    while !sim.flow.is_caught_up() {
        answers += 1;
        assert!(answers < 110);
        sim.tell(9, headers(&sides[answers % 2], 1..=BATCH), true);
    }
    assert_eq!(sim.asked(9), 1 + answers, "each was an answer");
    assert!(sim.elapsed() < Duration::from_secs(5));
}
