//! Nodes that are killed or freeze in the middle of a sync: the others bring what they owed.

use std::time::Duration;

use tipward_chain::Node;
use tipward_tests::{Bitcoind, Record, Throttle, patiently};

use crate::{SLOW, applied, builder, chain, reached, serve};

/// Starts a sync through slow lines, and lets it get into the middle.
async fn begin(nodes: &[&Bitcoind], record: &Record) -> (Node, Vec<Throttle>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut lines = Vec::new();
    for node in nodes {
        lines.push(Throttle::start(node.address(), SLOW).await.unwrap());
    }
    let addresses: Vec<_> = lines.iter().map(Throttle::address).collect();
    let mut builder = builder(dir.path(), &addresses).sink(record.sink());
    builder.sync.stall_timeout = Duration::from_secs(1);
    record.stop_before(400);
    let node = builder.spawn().await.unwrap();
    applied(record, 100).await;
    (node, lines, dir)
}

async fn one_of_two_is_lost(lose: impl FnOnce(&mut Bitcoind)) {
    let chain = chain(600);
    let (Some(stays), Some(mut goes)) = (serve(2, &chain), serve(3, &chain)) else { return };
    let record = Record::default();
    let (node, _lines, _dir) = begin(&[&stays, &goes], &record).await;
    lose(&mut goes);
    record.stop_before(u64::MAX);
    let progress = reached(&node, &stays.hash(600)).await;
    assert_eq!((progress.blocks, progress.reorgs), (600, 0));
    patiently("the end", node.shutdown()).await.unwrap();
    record.assert_holds(&stays.chain());
    assert_eq!((record.applied(), record.rollbacks()), (601, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_is_killed() {
    one_of_two_is_lost(Bitcoind::kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_freezes() {
    one_of_two_is_lost(|node| node.freeze()).await;
}

/// Each of three is killed in its turn, at moments drawn from a seed, and comes back when the next one has gone.
#[tokio::test(flavor = "multi_thread")]
async fn each_of_three_is_killed_in_turn() {
    let chain = chain(600);
    let (Some(one), Some(two), Some(three)) = (serve(2, &chain), serve(3, &chain), serve(4, &chain)) else {
        return;
    };
    let (expected, mut nodes) = (one.chain(), [one, two, three]);
    nodes.iter().for_each(Bitcoind::flush);
    for seed in 1..=3 {
        let mut random = fastrand::Rng::with_seed(seed);
        random.shuffle(&mut nodes);
        let record = Record::default();
        let (node, _lines, _dir) = begin(&nodes.each_ref(), &record).await;
        for victim in 0..3 {
            applied(&record, 100 * (victim as u64 + 1) + random.u64(0..90)).await;
            nodes[victim].kill();
            if let Some(back) = victim.checked_sub(1) {
                nodes[back].start_again();
            }
        }
        record.stop_before(u64::MAX);
        let tip = expected[600].0.to_string();
        let progress = reached(&node, &tip).await;
        assert_eq!((progress.blocks, progress.reorgs), (600, 0), "seed {seed}");
        patiently("the end", node.shutdown()).await.unwrap();
        record.assert_holds(&expected);
        assert_eq!((record.applied(), record.rollbacks()), (601, vec![]), "seed {seed}");
        nodes[2].start_again();
        assert!(nodes.iter().all(|node| node.height() == 600), "nobody has lost its own chain");
    }
}
