//! Blocks whose parents are missing.

use std::{thread, time::Instant};

use tipward_sync::{Orphan, OrphanOptions, OrphanPool, peer::Reply};

use super::*;

fn numbered(n: u64) -> BlockHash {
    let mut bytes = [9; 32];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    BlockHash::from_bytes(bytes)
}

fn orphan(n: u64, parent: u64, peer: u64) -> Orphan<()> {
    Orphan { hash: numbered(n), parents: vec![numbered(parent)], peer: PeerId(peer), bytes: 100, payload: () }
}

#[test]
fn one_peer_flushes_its_own_orphans_only() {
    let now = Instant::now();
    let mut pool = OrphanPool::new(OrphanOptions::default());
    for n in 0..150 {
        pool.insert(now, orphan(n, 1_000_000, 1)).unwrap();
    }
    for n in 1000..100_000 {
        let evicted = pool.insert(now, orphan(n, 2_000_000, 2)).unwrap();
        assert!(evicted.iter().all(|orphan| orphan.peer == PeerId(2)));
    }
    assert_eq!((pool.len(), pool.bytes()), (700, 70_000));
    assert_eq!(pool.resolve(numbered(1_000_000)).len(), 150);
}

#[test]
fn deep_orphans_are_released_without_recursion() {
    let deep = || {
        let options =
            OrphanOptions { max_count: usize::MAX, max_bytes: u64::MAX, ..OrphanOptions::default() };
        let (mut pool, now, count) = (OrphanPool::new(options), Instant::now(), 50_000);
        for n in (1..=count).rev() {
            pool.insert(now, orphan(n, n - 1, 1)).unwrap();
        }
        assert_eq!(pool.missing_ancestors(numbered(count)), [numbered(0)]);
        let released = pool.resolve(numbered(0));
        assert!(released.iter().zip(1..).all(|(orphan, n)| orphan.hash == numbered(n)), "parents first");
        assert_eq!(released.len() as u64, count);
        for n in (1..=count).rev() {
            pool.insert(now, orphan(n, n - 1, 1)).unwrap();
        }
        assert_eq!(pool.remove_subtree(numbered(1)).len() as u64, count);
    };
    // A stack on which no fifty thousand calls fit.
    thread::Builder::new().stack_size(128 << 10).spawn(deep).unwrap().join().unwrap();
}

#[test]
fn an_orphan_asks_for_all_of_its_missing_parents() {
    let trunk = chain(1);
    let sides = [SimBlock::new(trunk[1].hash, 2, 5), SimBlock::new(trunk[1].hash, 2, 6)];
    let merge = SimBlock::merging([sides[0].hash, sides[1].hash], 3);
    let mut silent = Model { claim: Some(0), lists: false, ..Model::honest(&trunk) };
    silent.tells_what_is_missing = false;
    let mut world = World::new(LISTS, vec![Model::honest(&trunk), silent]);
    world.runs_to(&trunk);
    world.peers.get_mut(&PeerId(1)).unwrap().model.chain.push(merge.clone());
    world.say(1, Reply::Announced(vec![merge.hash]));
    world.run_for(seconds(2));
    assert!(!world.asked(&merge).is_empty());
    for side in &sides {
        assert!(!world.asked(side).is_empty(), "a parent is not asked for");
    }
}

#[test]
fn an_orphan_that_fails_the_checks_never_enters() {
    let trunk = chain(2);
    let mut bad = SimBlock::new(trunk[2].hash, 3, 1);
    let mut bytes = bad.bytes.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    bad.bytes = bytes.into();
    let good = branch(&trunk, 2, 1, 3);
    assert_eq!(good[3].hash, bad.hash, "a copy with other content");
    let mut world = World::new(LISTS, vec![Model::honest(&trunk)]);
    world.runs_to(&trunk);
    let mut forged = trunk.clone();
    forged.push(bad);
    world.extend(0, &forged);
    world.run_for(seconds(3));
    assert!(!world.tree.contains(good[3].hash) && world.applied == hashes(&trunk));
    world.connect(1, Model::honest(&good));
    world.runs_to(&good);
}

#[test]
fn orphans_stay_when_their_peer_leaves() {
    let trunk = chain(20);
    let mut lacking = Model::honest(&trunk);
    (lacking.lists, lacking.skips) = (false, (1..20).collect());
    let mut world = World::new(LISTS, vec![lacking]);
    world.run_for(seconds(1));
    world.extend(0, &trunk);
    world.run_for(seconds(5));
    assert_eq!(world.asked(&trunk[20]), [PeerId(0)]);
    world.disconnect(0);
    world.connect(1, Model::honest(&trunk));
    world.run_until(seconds(200), |world| world.applied.len() == trunk.len());
    assert_eq!(world.applied, hashes(&trunk));
    assert_eq!(world.asked(&trunk[20]), [PeerId(0)], "it stayed");
}
