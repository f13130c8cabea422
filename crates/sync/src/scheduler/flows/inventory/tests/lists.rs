//! Sync mode, its peer, and when lists are asked for.

use std::collections::BTreeSet;

use super::*;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn one_peer_brings_everything_in_order_and_once() {
    let chain = trunk(1700);
    let mut sim = Sim::new(vec![Model::honest(&chain)]);
    sim.run();
    assert_eq!(sim.accepted, hashes(&chain[1..]));
    assert_eq!(sim.bodies, chain[1..].iter().map(|block| (block.height, block.hash)).collect::<Vec<_>>());
    assert_eq!(sim.asked.len(), 1700, "each once");
    assert_eq!(sim.tree.best, hashes(&chain));
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty() && sim.disbelieved.is_empty());
    assert_eq!(sim.shows.last(), Some(&(PeerId(0), chain[1700].hash)));
}

#[test]
fn a_full_list_is_asked_on_from_its_last_entry_once_that_is_there() {
    let chain = trunk(1200);
    let mut sim = Sim::new(vec![Model { claims: 0, ..Model::honest(&chain) }]);
    sim.run_until(|sim| sim.accepted.len() == 1200);
    let from: Vec<BlockHash> = sim.lists.iter().map(|(_, _, after, _)| *after).collect();
    // A block below the last entry, so that the answer shows that the peer has it.
    assert_eq!(from, [chain[0].hash, chain[499].hash, chain[998].hash]);
    let whole = |n: usize| sim.asked.iter().position(|(.., hash)| *hash == chain[n].hash).unwrap();
    assert!(whole(501) > whole(500));
}

#[test]
fn behind_the_sync_peer_after_a_block_it_is_asked_for_more() {
    // A peer that cuts shorter than we know of: its claim tells that there is more.
    let chain = trunk(300);
    let mut sim = Sim::new(vec![Model { batch: 100, ..Model::honest(&chain) }]);
    sim.run();
    assert_eq!(sim.accepted, hashes(&chain[1..]));
    assert!(sim.penalised.is_empty() && sim.lists.len() >= 3);
}

#[test]
fn a_zero_hash_asks_again_from_our_tip() {
    let chain = trunk(300);
    // Neither the length of the list nor the claim tells that there is more.
    let model = Model { batch: 100, tells_of_cut: true, claims: 0, ..Model::honest(&chain) };
    let mut sim = Sim::new(vec![model]);
    sim.run_until(|sim| sim.accepted.len() == 300);
    assert!(sim.time() < secs(10), "{:?}", sim.time());
}

#[test]
fn zero_hashes_over_and_over_are_not_obeyed_each() {
    let mut sim = Sim::new(vec![Model::honest(&trunk(10))]);
    sim.run();
    let before = sim.lists.len();
    for n in 0..1000 {
        let at = sim.now + Duration::from_millis(n * 10);
        sim.later(at, FlowInput::Announced(PeerId(0), vec![BlockHash::ZERO]));
    }
    sim.run_for(secs(10));
    assert!(sim.lists.len() - before <= 6, "{}", sim.lists.len() - before);
}

#[test]
fn in_sync_mode_what_others_announce_is_dropped_and_what_they_were_asked_is_not() {
    let chain = trunk(2000);
    let mut sim = Sim::new(vec![Model { bytes_per_second: 100_000, ..Model::honest(&chain) }]);
    sim.run_until(|sim| sim.accepted.len() == 10);
    assert_eq!(sim.flow.mode, Mode::Syncing(PeerId(0)));
    let side = branch(&chain[..5], 2, 6);
    sim.connect(1, Model { claims: 6, ..Model::honest(&side) });
    sim.extend(1, &side);
    sim.run_until(|sim| sim.accepted.len() == 1000);
    assert!(sim.asked_of(1).is_empty());
    // When we are through it is asked what it has.
    sim.run();
    assert!(sim.asked_of(1).contains(&side[6].hash));
    assert!(sim.tree.blocks.contains_key(&side[6].hash));

    // An answer counts, whoever is the sync peer by then.
    let longer = branch(&chain, 1, 2001);
    sim.extend(1, &longer);
    sim.model(1).latency = secs(1);
    sim.settle();
    let longest = branch(&chain, 1, 2100);
    sim.connect(2, Model::honest(&longest));
    sim.settle();
    assert_eq!(sim.flow.mode, Mode::Syncing(PeerId(2)));
    assert!(sim.asked_of(1).contains(&longer[2001].hash));
    sim.run_until(|sim| sim.accepted.contains(&longer[2001].hash));
}

#[test]
fn the_sync_peer_is_drawn_among_those_that_claim_more_else_among_equals() {
    let mut drawn = BTreeSet::new();
    for seed in 0..40 {
        let long = trunk(50);
        let models = [&long[..], &long[..11], &long[..], &long[..1]].map(Model::honest).to_vec();
        let mut sim = Sim::with(&options(), 500, false, seed, models);
        // All are there before anybody is asked.
        sim.may_ask = false;
        sim.settle();
        let Mode::Syncing(first) = sim.flow.mode else { panic!("{:?}", sim.flow.mode) };
        drawn.insert(first);
        sim.may_ask = true;
        sim.step(FlowInput::Room);
        assert_eq!(sim.lists[0].1, first);
    }
    // Whoever comes first and claims more is taken at once.
    assert_eq!(drawn, [PeerId(0)].into());

    let mut drawn = BTreeSet::new();
    for seed in 0..40 {
        let long = trunk(50);
        let models = vec![Model::honest(&long); 4];
        let mut sim = Sim::with(&options(), 500, false, seed, models);
        sim.settle();
        sim.disconnect(0);
        sim.settle();
        let Mode::Syncing(next) = sim.flow.mode else { panic!("{:?}", sim.flow.mode) };
        drawn.insert(next);
    }
    assert_eq!(drawn.len(), 3, "{drawn:?}");

    let genesis = trunk(0);
    let mut sim = Sim::new(vec![Model::honest(&genesis); 2]);
    sim.settle();
    assert!(matches!(sim.flow.mode, Mode::Syncing(_)));
    sim.run();
    assert_eq!(sim.flow.mode, Mode::Following);
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty());
}

#[test]
fn sync_mode_ends_when_nobody_is_ahead_and_then_everybody_announces() {
    let chain = trunk(100);
    let mut sim = Sim::new(vec![Model::honest(&chain); 3]);
    sim.run();
    assert_eq!(sim.flow.mode, Mode::Following);
    let longer = branch(&chain, 1, 101);
    sim.run_for(secs(30));
    (0..3).for_each(|id| sim.extend(id, &longer));
    sim.run_until(|sim| sim.accepted.len() == 101);
    let asked = sim.asked.iter().filter(|(.., hash)| *hash == longer[101].hash).count();
    assert_eq!(asked, 1, "of one of those who announced it");
}

#[test]
fn peers_of_equal_height_on_another_branch_are_heard() {
    let chain = trunk(100);
    let other = branch(&chain[..90], 2, 100);
    let mut sim = Sim::new(vec![Model::honest(&chain), Model::honest(&other)]);
    sim.run();
    assert!(sim.tree.blocks.contains_key(&chain[100].hash) && sim.tree.blocks.contains_key(&other[100].hash));
    // The branch of which we had no bodies to pass on wins.
    let loser = if sim.tree.best[100] == chain[100].hash { 1 } else { 0 };
    let longer = if loser == 1 { branch(&other, 2, 102) } else { branch(&chain, 1, 102) };
    sim.extend(loser, &longer);
    sim.run();
    assert_eq!(sim.tree.best, hashes(&longer));
    assert_eq!(sim.accepted.len(), 100 + 11 + 2);
    assert!(sim.penalised.is_empty() && sim.disbelieved.is_empty());
}

#[test]
fn a_quiet_peer_is_asked_now_and_then() {
    let chain = trunk(20);
    let mut sim = Sim::new(vec![Model::honest(&chain[..11])]);
    sim.run();
    // It has grown and says nothing.
    sim.model(0).chain = chain.clone();
    sim.run_until(|sim| sim.accepted.len() == 20);
    assert!(sim.time() > secs(30) && sim.time() < secs(90));
}

#[test]
fn the_sync_peer_is_replaced_when_it_leaves() {
    let chain = trunk(1000);
    let leaver = Model { leaves_after: Some(120), ..Model::honest(&chain) };
    let mut sim = Sim::new(vec![leaver, Model::honest(&chain)]);
    sim.run();
    assert_eq!(sim.accepted, hashes(&chain[1..]));
    assert!(sim.time() < secs(5), "{:?}", sim.time());
}

#[test]
fn the_sync_peer_is_replaced_when_it_stalls() {
    let chain = trunk(1000);
    let silent = Model { silent_after: Some(120), ..Model::honest(&chain) };
    let mut sim = Sim::new(vec![silent, Model::honest(&chain)]);
    sim.run_until(|sim| sim.accepted.len() == 1000);
    assert_eq!(sim.accepted, hashes(&chain[1..]));
    assert!(sim.time() < secs(6), "{:?}", sim.time());

    // It says nothing to begin with.
    let mute = Model { answers_lists: false, ..Model::honest(&chain) };
    let mut sim = Sim::new(vec![mute, Model::honest(&chain)]);
    sim.run_until(|sim| sim.accepted.len() == 1000);
    assert!(sim.time() < secs(6), "{:?}", sim.time());
}

#[test]
fn who_trickles_stalls_and_who_flows_does_not() {
    let chain = trunk(40);
    // A byte a second: of that nobody is told. A block would take a quarter of an hour.
    let trickle = Model { bytes_per_second: 1, ..Model::honest(&chain) };
    let mut sim = Sim::new(vec![trickle.clone(), Model::honest(&chain)]);
    sim.run_until(|sim| sim.accepted.len() == 40);
    assert!(sim.time() < secs(6), "{:?}", sim.time());

    // Alone it gets more and more time, and is dropped in the end.
    let mut sim = Sim::new(vec![trickle]);
    sim.run_until(|sim| !sim.dropped.is_empty());
    assert!(sim.dropped[0].1.starts_with("stalled"), "{:?}", sim.dropped);

    // Ten seconds a block, for which bytes come all the time.
    let slow = Model { bytes_per_second: SIZE / 10, ..Model::honest(&chain) };
    let mut sim = Sim::new(vec![slow]);
    sim.run();
    assert_eq!(sim.accepted, hashes(&chain[1..]));
    assert_eq!(sim.asked.len(), 40, "asked once each");
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
}

#[test]
fn a_pause_of_the_only_peer_costs_it_nothing_but_time() {
    let chain = trunk(3000);
    let paused = Model { pause: Some((1, 7)), ..Model::honest(&chain) };
    let mut sim = Sim::new(vec![paused]);
    sim.run_until(|sim| sim.accepted.len() == 3000);
    assert_eq!(sim.accepted, hashes(&chain[1..]));
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
    assert!(sim.time() < secs(20), "{:?}", sim.time());
}

#[test]
fn nothing_is_asked_during_a_pause_above_the_stop_or_without_room() {
    let chain = trunk(300);
    let mut sim = Sim::new(vec![Model::honest(&chain)]);
    sim.may_ask = false;
    sim.run_for(secs(100));
    assert!(sim.asked.is_empty() && sim.lists.is_empty());
    sim.may_ask = true;
    sim.step(FlowInput::Room);
    sim.run();
    assert_eq!(sim.accepted.len(), 300);

    let stop = SyncOptions { stop_at: Some(70), ..options() };
    let mut sim = Sim::with(&stop, 500, false, 0, vec![Model::honest(&chain); 2]);
    sim.run_for(secs(100));
    assert_eq!(sim.accepted, hashes(&chain[1..=70]));
    assert_eq!(sim.asked.len(), 70, "nothing above was asked for");

    let mut sim = Sim::new(vec![Model::honest(&chain)]);
    sim.room = 0;
    sim.run_for(secs(10));
    assert!(sim.asked.is_empty() && sim.penalised.is_empty());
    sim.room = 8;
    sim.step(FlowInput::Room);
    sim.run();
    assert_eq!((sim.accepted.len(), sim.most_asked), (300, 8));
}

#[test]
fn an_announcement_that_crosses_a_question_is_not_its_answer() {
    let chain = trunk(300);
    let options = SyncOptions { stop_at: Some(100), ..options() };
    // The answer takes a second; what the peer announces meanwhile is far above the stop.
    let far = Model { latency: secs(1), ..Model::honest(&chain) };
    let mut sim = Sim::with(&options, 50, false, 7, vec![far]);
    sim.later(sim.now + secs(1), FlowInput::Announced(PeerId(0), vec![chain[300].hash]));
    sim.run_until(|sim| sim.accepted.len() == 100);
    assert!(sim.asked.iter().all(|(.., hash)| *hash != chain[300].hash));
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty());

    // A list of a branch that shows nothing known is asked for again, and taken when it is the same.
    let side = branch(&chain[..1], 2, 90);
    let mut sim = Sim::with(&options, 500, false, 7, vec![Model::honest(&chain[..81])]);
    sim.run();
    sim.connect(1, Model::honest(&side));
    sim.run_until(|sim| sim.accepted.contains(&side[90].hash));
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty());
}

#[test]
fn what_is_asked_for_is_bounded() {
    let chain = trunk(2000);
    let few = SyncOptions { max_in_flight: 20, ..options() };
    let mut sim = Sim::with(&few, 500, false, 0, vec![Model::honest(&chain)]);
    sim.run();
    assert_eq!((sim.accepted.len(), sim.most_asked), (2000, 20));
    // All who claim to have more bring it, each so many.
    let mut sim = Sim::with(&few, 500, false, 0, vec![Model::honest(&chain); 3]);
    sim.run();
    assert_eq!(sim.accepted.len(), 2000);
    assert!((41..=60).contains(&sim.most_asked), "{}", sim.most_asked);

    let mut sim = Sim::new(vec![Model::honest(&chain)]);
    sim.run();
    assert!(sim.most_asked > 400, "{}", sim.most_asked);

    let mut sim = Sim::new(vec![Model::honest(&chain)]);
    sim.byte_room = 30 * SIZE;
    sim.run();
    assert!(sim.most_asked <= 30, "{}", sim.most_asked);
    assert_eq!(sim.accepted.len(), 2000);
}

#[test]
fn a_store_that_fails_ends_it() {
    let mut sim = Sim::new(vec![Model::honest(&trunk(10))]);
    sim.tree.store_fails = true;
    sim.run_until(|sim| sim.failed);
    assert_eq!(sim.flow.deadline(), None);
}
