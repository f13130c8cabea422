//! Another branch wins while the sync is still under way.

use tipward_chain::sync::Progress;
use tipward_tests::{Record, Throttle, patiently, wait_for};

use crate::{SLOW, applied, builder, chain, reached, serve};

/// The branches part after the block at `fork`, when the sink has been let as far as the one before `gate`.
async fn reorg_on_the_way(fork: u64, gate: u64) -> Option<Vec<u64>> {
    let bitcoind = serve(2, &chain(300))?;
    let line = Throttle::start(bitcoind.address(), SLOW).await.unwrap();
    let (record, dir) = (Record::default(), tempfile::tempdir().unwrap());
    record.stop_before(gate);
    let mut builder = builder(dir.path(), &[line.address()]).sink(record.sink());
    // Nothing more than that is asked for while the sink is held.
    builder.sync.window = 40;
    let node = builder.spawn().await.unwrap();
    applied(&record, gate).await;
    bitcoind.reorganize(fork, 300 - fork + 10);
    let tip = bitcoind.hash(310);
    let has_heard =
        |progress: &Progress| progress.header_tip.is_some_and(|header| header.hash.to_string() == tip);
    wait_for(&node, "the other branch", has_heard).await;
    assert_eq!(record.applied(), gate, "still under way");
    record.stop_before(u64::MAX);
    let progress = reached(&node, &tip).await;
    assert_eq!(progress.applied.map(|tip| tip.height), Some(310));
    assert_eq!(progress.reorgs, record.rollbacks().len() as u64);
    patiently("the end", node.shutdown()).await.unwrap();
    record.assert_holds(&bitcoind.chain());
    Some(record.rollbacks())
}

/// Nothing of the old branch ever reaches the sink.
#[tokio::test(flavor = "multi_thread")]
async fn above_what_is_asked_for() {
    let Some(rollbacks) = reorg_on_the_way(280, 150).await else { return };
    assert!(rollbacks.is_empty(), "{rollbacks:?}");
}

/// Some of what is under way belongs to the branch that lost; what the sink was given of it is undone.
#[tokio::test(flavor = "multi_thread")]
async fn among_what_is_asked_for() {
    let Some(rollbacks) = reorg_on_the_way(260, 250).await else { return };
    assert!(rollbacks.is_empty() || rollbacks == [260], "{rollbacks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn below_what_is_applied() {
    let Some(rollbacks) = reorg_on_the_way(230, 250).await else { return };
    assert_eq!(rollbacks, [230]);
}
