//! Nothing that is wanted is lost, whatever becomes of those who were asked.

use super::*;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_request_that_expires_goes_to_another_peer() {
    let chain = trunk(200);
    // One block never comes, and the peer goes on with others, so that it does not stall.
    let withholds = |n: usize| Model { withheld: [chain[n].hash].into(), ..Model::honest(&chain) };
    let mut sim = Sim::new(vec![withholds(100), withholds(150)]);
    sim.run_until(|sim| sim.accepted.len() == 200);
    assert_eq!(sim.accepted, hashes(&chain[1..]));
    let of = |hash| sim.asked.iter().filter(|(.., it)| *it == hash).map(|(_, id, _)| *id).collect::<Vec<_>>();
    let first = of(chain[1].hash)[0];
    let (first_withheld, _) = if first == PeerId(0) { (100, 150) } else { (150, 100) };
    let askers = of(chain[first_withheld].hash);
    assert!(askers[0] == first && askers[1] != first, "{askers:?}");
    assert!(sim.dropped.is_empty());
}

#[test]
fn a_request_expires_after_thirty_seconds_and_others_do_not() {
    let chain = trunk(3);
    let mut sim = Sim::new(vec![Model::honest(&chain[..1]); 2]);
    sim.run();
    // Both have announced it; the one that is asked sends something all the time, and not this.
    let quiet = Model { withheld: [chain[1].hash].into(), ..Model::honest(&chain) };
    for id in 0..2 {
        *sim.model(id) = quiet.clone();
        sim.later(sim.now, FlowInput::Announced(PeerId(id), vec![chain[1].hash]));
    }
    sim.settle();
    let (asked_at, first, _) = sim.asked[0];
    for n in 1..60 {
        sim.later(sim.now + secs(n), FlowInput::Progress(first));
    }
    sim.run_for(secs(29));
    assert_eq!(sim.asked.len(), 1);
    sim.run_for(secs(2));
    let (again, second, hash) = sim.asked[1];
    assert_eq!((again - asked_at, hash), (line::REQUEST_EXPIRY, chain[1].hash));
    assert_ne!(first, second);
    // Then it comes back, after pauses.
    sim.model(first.0).withheld.clear();
    sim.run_until(|sim| sim.accepted.len() == 1);
}

#[test]
fn not_found_asks_another_at_once() {
    let chain = trunk(100);
    let has_not = Model { missing: [chain[50].hash].into(), ..Model::honest(&chain) };
    let mut sim = Sim::new(vec![has_not, Model::honest(&chain)]);
    sim.run();
    assert_eq!(sim.accepted, hashes(&chain[1..]));
    assert!(sim.time() < secs(2), "{:?}", sim.time());
}

#[test]
fn what_a_lost_peer_announced_is_asked_of_others() {
    let chain = trunk(21);
    let mut sim = Sim::new(vec![Model::honest(&chain[..21]); 2]);
    sim.run();
    // The other has it too, and has not said so.
    sim.model(1).chain = chain.clone();
    sim.model(0).withheld.insert(chain[21].hash);
    sim.extend(0, &chain);
    sim.settle();
    assert_eq!(sim.asked_of(0).last(), Some(&chain[21].hash));
    sim.disconnect(0);
    sim.run_until(|sim| sim.accepted.len() == 21);
    assert!(sim.now - sim.start < secs(2), "{:?}", sim.time());
}

#[test]
fn who_was_asked_in_vain_is_asked_again_when_the_only_other_is_lost() {
    let chain = trunk(21);
    let mut sim = Sim::new(vec![Model::honest(&chain[..21]); 2]);
    sim.run();
    // Both have announced it. One does not bring it in time, the other can't be asked, and leaves.
    sim.model(0).withheld.insert(chain[21].hash);
    sim.step(FlowInput::Held(PeerId(1)));
    sim.extend(0, &chain);
    sim.extend(1, &chain);
    sim.run_for(secs(5));
    assert_eq!(sim.asked_of(0).last(), Some(&chain[21].hash));
    sim.disconnect(1);
    sim.model(0).withheld.clear();
    sim.run_until(|sim| sim.accepted.len() == 21);
    assert!(sim.time() < secs(60), "{:?}", sim.time());
}

#[test]
fn what_the_last_peer_announced_waits_for_the_next() {
    let chain = trunk(21);
    let mut sim = Sim::new(vec![Model::honest(&chain[..21])]);
    sim.run();
    sim.model(0).withheld.insert(chain[21].hash);
    sim.extend(0, &chain);
    sim.settle();
    sim.disconnect(0);
    sim.run_for(secs(1000));
    assert!(sim.flow.requests.contains(chain[21].hash));
    // It claims nothing and answers for nothing but blocks.
    sim.connect(1, Model { answers_lists: false, claims: 0, ..Model::honest(&chain) });
    sim.run_until(|sim| sim.accepted.len() == 21);
}

#[test]
fn a_block_that_nobody_brings_comes_back_after_longer_and_longer_pauses() {
    let chain = trunk(2);
    let mut sim = Sim::new(vec![Model::honest(&chain[..2])]);
    sim.run();
    // Announced, and not brought for a while; other blocks are, so that the peer stays.
    sim.model(0).withheld.insert(chain[2].hash);
    sim.extend(0, &chain);
    for n in 1..600 {
        sim.later(sim.now + secs(n), FlowInput::Progress(PeerId(0)));
    }
    sim.run_for(secs(600));
    let times: Vec<Duration> =
        sim.asked.iter().filter(|(.., hash)| *hash == chain[2].hash).map(|(at, ..)| *at).collect();
    let gaps: Vec<u64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(gaps[..8], [32, 34, 38, 46, 62, 94, 94, 94]);
    sim.model(0).withheld.clear();
    sim.run_until(|sim| sim.accepted.len() == 2);
}

#[test]
fn late_blocks_are_taken_and_nothing_twice() {
    let chain = trunk(400);
    // Silent for four seconds in the midst, in which others are asked for the same.
    let paused = Model { pause: Some((1, 5)), bytes_per_second: 100_000, ..Model::honest(&chain) };
    let mut sim = Sim::new(vec![paused, Model { latency: secs(1), ..Model::honest(&chain) }]);
    sim.run_until(|sim| sim.accepted.len() == 400);
    sim.run_for(secs(30));
    assert_eq!(sim.accepted, hashes(&chain[1..]));
    assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
}

#[test]
fn unsupported_returns_the_blocks_and_drops_who_can_not_list() {
    let chain = trunk(10);
    let mut sim = Sim::new(vec![Model { silent_after: Some(0), ..Model::honest(&chain) }]);
    sim.run_until(|sim| !sim.asked.is_empty());
    let blocks: Vec<BlockHash> = sim.asked.iter().map(|(.., hash)| *hash).collect();
    sim.model(0).silent_after = None;
    sim.step(FlowInput::Unsupported(PeerId(0), Want::Blocks(blocks)));
    sim.run();
    assert_eq!(sim.accepted.len(), 10);
    assert!(sim.dropped.is_empty());
    let list = Want::BlocksAfter { locator: vec![chain[0].hash], stop: BlockHash::ZERO };
    sim.step(FlowInput::Unsupported(PeerId(0), list));
    assert_eq!(sim.dropped[0].1, "did not answer requests for lists of blocks");
}

#[test]
fn the_wanted_are_bounded_by_refusing() {
    let phantom = |n: u64| BlockHash::from_bytes(sha(n));
    let mut sim = Sim::new(vec![]);
    // Silent ones, with lists that are longer than lists are.
    for id in 0..60 {
        sim.connect(
            id,
            Model { answers_lists: false, claims: 0, says_missing: false, ..Model::honest(&trunk(0)) },
        );
        sim.settle();
        let list = (0..2000).map(|n| phantom(id * 10_000 + n)).collect();
        sim.step(FlowInput::Announced(PeerId(id), list));
        sim.flow.mode = Mode::Following;
    }
    assert_eq!(sim.flow.requests.len(), requests::MAX_REQUESTED);
    assert!((0..1000).all(|n| sim.flow.requests.contains(phantom(n))), "the first are still wanted");
    assert!(!sim.flow.requests.contains(phantom(1000)), "of one peer no more than two lists' worth");
    assert!(!sim.flow.requests.contains(phantom(590_000)), "refused");
    // Those whose lists were taken bring nothing and have to go; an honest peer then has all the room.
    sim.run_for(secs(100));
    assert_eq!(sim.dropped.len(), 50);
    assert_eq!(sim.flow.requests.len(), 0);
    let chain = trunk(1100);
    sim.connect(99, Model::honest(&chain));
    sim.run();
    assert_eq!(sim.accepted.len(), 1100);
}

#[test]
fn what_a_list_has_beyond_the_share_is_asked_for_later() {
    let chain = trunk(3000);
    let mut sim = Sim::with(&options(), 100, false, 0, vec![Model { batch: 2500, ..Model::honest(&chain) }]);
    sim.run();
    assert_eq!(sim.accepted, hashes(&chain[1..]));
    assert_eq!(sim.asked.len(), 3000);
}

fn sha(n: u64) -> [u8; 32] {
    tipward_peer::wire::sha256d(&n.to_le_bytes())
}
