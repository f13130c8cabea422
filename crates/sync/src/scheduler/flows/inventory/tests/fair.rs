//! What is not a peer's fault is not held against it, and what is not needed is not asked for.

use std::collections::BTreeSet;

use super::*;
use crate::Chain;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Peers that claim a height and have said nothing, and what they are asked.
fn silent(claimed: u64) -> Sim {
    Sim::new(vec![Model { claims: claimed, answers_lists: false, ..Model::honest(&trunk(0)) }])
}

#[test]
fn a_peer_is_not_late_while_it_is_held() {
    let mut sim = silent(100);
    sim.settle();
    sim.step(FlowInput::Held(PeerId(0)));
    sim.run_for(secs(300));
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty(), "{:?} {:?}", sim.penalised, sim.dropped);
    assert_eq!(sim.lists.len(), 1, "nothing is asked of a peer from which nothing is read");
    // Its whole time begins when it is let go.
    sim.step(FlowInput::Released(PeerId(0)));
    sim.run_for(secs(9));
    assert!(sim.penalised.is_empty());
    sim.run_for(secs(2));
    assert!(!sim.penalised.is_empty());
}

#[test]
fn requests_do_not_expire_while_their_peer_is_held() {
    let chain = trunk(3);
    let withheld = hashes(&chain[1..]).into_iter().collect();
    let mut sim = Sim::new(vec![Model { withheld, ..Model::honest(&chain) }]);
    sim.run_for(secs(1));
    let before = sim.asked.len();
    assert!(before > 0);
    sim.step(FlowInput::Held(PeerId(0)));
    sim.run_for(secs(300));
    assert_eq!(sim.asked.len(), before);
    assert!(sim.dropped.is_empty());
}

#[test]
fn a_pruned_peer_may_list_what_it_does_not_serve() {
    let chain = trunk(60);
    let missing = hashes(&chain[1..40]).into_iter().collect();
    let pruned = Model { missing, says_missing: true, ..Model::honest(&chain) };
    let mut sim = Sim::new(vec![]);
    sim.connect(0, pruned);
    let mut info = PeerInfo::new("sim", 60);
    info.recent_only = Some(20);
    sim.later(sim.now, FlowInput::Connected(PeerId(0), info));
    sim.run_for(secs(60));
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty(), "{:?}", sim.dropped);
    sim.connect(1, Model::honest(&chain));
    sim.run_until(|sim| sim.accepted.len() == 60);
    assert!(sim.dropped.is_empty() && sim.penalised.is_empty());
}

#[test]
fn a_block_that_has_no_room_before_its_place_is_known_leaves_its_header() {
    let chain = trunk(3);
    let mut sim = Sim::new(vec![Model::honest(&chain[..1])]);
    sim.run();
    let withheld = hashes(&chain[1..]).into_iter().collect();
    *sim.model(0) = Model { withheld, ..Model::honest(&chain) };
    sim.step(FlowInput::Announced(PeerId(0), vec![chain[3].hash]));
    let unkept = |sim: &mut Sim, n: usize| {
        let head = sim.tree.read_head(&chain[n].bytes);
        sim.step(FlowInput::NoRoom { peer: PeerId(0), block: chain[n].hash, head });
    };
    unkept(&mut sim, 3);
    assert_eq!((sim.flow.pool.len(), sim.flow.pool.bytes()), (1, 0));
    unkept(&mut sim, 2);
    sim.step(FlowInput::Announced(PeerId(0), vec![chain[1].hash]));
    unkept(&mut sim, 1);
    assert_eq!(sim.accepted, hashes(&chain[1..]));
    assert!(sim.bodies.is_empty() && sim.flow.pool.is_empty());
    assert!(sim.penalised.is_empty() && sim.dropped.is_empty(), "it has brought what it was asked for");
}

#[test]
fn nothing_is_asked_for_that_may_be_above_the_stop() {
    let chain = trunk(300);
    let options = SyncOptions { stop_at: Some(100), stay_behind: 7, ..options() };
    let mut sim = Sim::with(&options, 50, false, 7, vec![Model::honest(&chain)]);
    sim.run_until(|sim| sim.accepted.len() == 20);
    // What is announced by itself, with no question open, may be of any height.
    sim.extend(0, &chain);
    sim.run_until(|sim| sim.accepted.len() == 107);
    sim.run_for(secs(300));
    let asked: BTreeSet<BlockHash> = sim.asked.iter().map(|(.., hash)| *hash).collect();
    let above = hashes(&chain[108..]).iter().filter(|hash| asked.contains(*hash)).count();
    assert_eq!((asked.len(), above), (107, 0));
}
