//! What simulated peers answer to each question: the simulator itself is held to what is said of the questions.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use tipward_sync::{
    Chain,
    peer::{PeerId, Reply, Want, wire::BlockHash},
};

use crate::{
    chain::{Sizes, Tree, Universe, View},
    nature::Nature,
    peers::Host,
    scene::Scene,
};

/// A peer with a chain of 1200 blocks in slots, whose every message holds 100.
fn scene() -> (Scene, Host, Tree) {
    let sizes = Sizes { usual: (200, 5000), large: None };
    let universe = Arc::new(Universe::new(&mut Rng::with_seed(1), sizes, 1200, true));
    let start = Instant::now();
    let tree = Tree::new(Arc::clone(&universe));
    let scene = Scene { universe, headers: 100, list: 100, start, alive: Arc::default() };
    let mut nature = Nature::healthy(1_000_000, Duration::from_millis(50));
    nature.part_size = 1000;
    let mut host = Host::new(nature, View { branch: 0, height: 1200 }, start);
    host.open(PeerId(1), &scene.universe);
    (scene, host, tree)
}

fn hash(scene: &Scene, height: u64) -> BlockHash {
    let number = scene.universe.at(View { branch: 0, height: 1200 }, height).expect("it is that high");
    scene.universe.block(number).hash
}

fn answers(want: Want) -> (Scene, Tree, Vec<Reply>) {
    let (scene, mut host, tree) = scene();
    let mut replies = Vec::new();
    replies.extend(host.ask(want, scene.start));
    while host.advance(&scene).is_some() {
        host.arrive(&scene, &mut replies);
    }
    (scene, tree, replies)
}

/// The heights of the blocks that came whole, and whether the answer's end was told. Their contents say where they belong.
fn blocks(want: Want) -> (Vec<u64>, bool) {
    let (scene, tree, replies) = answers(want);
    let mut heights = Vec::new();
    for reply in &replies {
        match reply {
            Reply::Part(part) if part.index == 0 => {
                let head = tree.read_head(&part.bytes).expect("every block has a head");
                assert_eq!(head.header.hash, part.block);
                let number = scene.universe.number(&part.block).expect("it exists");
                assert_eq!(head.index, Some(scene.universe.index(number)));
                heights.push(u64::from(scene.universe.block(number).height));
            }
            Reply::Part(_) | Reply::BlockEnd(_) | Reply::Progress { .. } | Reply::RangeEnd => {}
            other => panic!("{other:?}"),
        }
    }
    let ends = replies.iter().filter(|reply| matches!(reply, Reply::BlockEnd(_))).count();
    assert_eq!(ends, heights.len(), "every block is whole");
    (heights, replies.last() == Some(&Reply::RangeEnd))
}

#[test]
fn blocks_come_by_hash_range_slot_and_descent() {
    let (scene, ..) = scene();
    assert_eq!(blocks(Want::Blocks(vec![hash(&scene, 7), hash(&scene, 5)])), (vec![7, 5], false));
    assert_eq!(blocks(Want::Range { start: 1198, count: 10 }), (vec![1198, 1199, 1200], true));
    let (heights, is_over) = blocks(Want::SlotRange { start: 300, count: 4 });
    assert_eq!((heights, is_over), (vec![100, 101, 102, 103], true));
    assert_eq!(blocks(Want::SlotRange { start: 9999, count: 4 }), (vec![], true));
    assert_eq!(blocks(Want::Ancestors { of: hash(&scene, 9), count: 3 }), (vec![8, 7, 6], true));
    assert_eq!(blocks(Want::Ancestors { of: hash(&scene, 2), count: 9 }), (vec![1, 0], true));
}

#[test]
fn lists_and_headers_start_after_the_locator() {
    let (scene, ..) = scene();
    let locator = vec![BlockHash::from_bytes([3; 32]), hash(&scene, 40), hash(&scene, 0)];
    let (_, _, replies) = answers(Want::HeadersAfter(locator.clone()));
    let [Reply::Headers { headers, more: true }] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(
        (headers.len(), headers[0].parent, headers[0].hash),
        (100, hash(&scene, 40), hash(&scene, 41))
    );

    let (_, _, replies) = answers(Want::BlocksAfter { locator: locator.clone(), stop: hash(&scene, 42) });
    assert_eq!(replies, [Reply::Announced(vec![hash(&scene, 41), hash(&scene, 42)])]);
    let (_, _, replies) = answers(Want::BlocksAfter { locator, stop: BlockHash::ZERO });
    let [Reply::Announced(hashes)] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!((hashes.len(), hashes[99]), (100, hash(&scene, 140)));
    let (_, _, replies) =
        answers(Want::BlocksAfter { locator: vec![hash(&scene, 1200)], stop: BlockHash::ZERO });
    assert_eq!(replies, [], "who has no more stays silent");
    let unknown = BlockHash::from_bytes([3; 32]);
    assert_eq!(answers(Want::Blocks(vec![unknown])).2, [Reply::Missing(vec![unknown])]);
}

#[test]
fn a_line_that_is_held_stands_still() {
    let (scene, mut host, _) = scene();
    let mut replies = Vec::new();
    let want = Want::Range { start: 1, count: 1000 };
    assert_eq!(host.ask(want, scene.start + Duration::from_millis(100)), None);
    let mut arrive = |host: &mut Host, times: usize| {
        (0..times)
            .map_while(|_| {
                let (at, _) = host.advance(&scene)?;
                host.arrive(&scene, &mut replies);
                Some(at)
            })
            .last()
    };
    let at = arrive(&mut host, 100).expect("blocks come");
    host.pipe.hold(at, 3000);
    let last = arrive(&mut host, 1000).unwrap_or(at);
    assert!(last <= at + Duration::from_millis(3), "no more than was read comes at a megabyte a second");
    let later = at + Duration::from_secs(10);
    host.pipe.resume(later);
    assert!(arrive(&mut host, 1).is_some_and(|at| at >= later), "it goes on from there");
}
