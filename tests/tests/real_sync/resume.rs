//! A sync that is stopped on the way goes on from the sink's cursor.

use tipward_tests::{Record, patiently};

use crate::{applied, builder, chain, reached, serve};

/// Stopped four times in the middle, from two nodes; then the chain that it stands on loses while it is away.
#[tokio::test(flavor = "multi_thread")]
async fn stopped_on_the_way_and_reorganized_while_away() {
    let chain = chain(600);
    let (Some(one), Some(two)) = (serve(2, &chain), serve(3, &chain)) else { return };
    let (record, dir) = (Record::default(), tempfile::tempdir().unwrap());
    let mut random = fastrand::Rng::with_seed(5);
    let mut downloaded = 0;
    for run in 0..4_u64 {
        let cursor = record.tip();
        let gate = 120 * (run + 1);
        record.stop_before(gate);
        let mut builder = builder(dir.path(), &[one.address(), two.address()]).sink(record.sink());
        // So no more than this lies beyond the gate.
        builder.sync.window = 40;
        let node = builder.spawn().await.unwrap();
        applied(&record, gate - random.u64(0..40)).await;
        // The gate opens when the end has been asked for: the sink gets through what it was given, and no further.
        let open = async { record.stop_before(u64::MAX) };
        let (progress, ()) = patiently("the end", async { tokio::join!(node.shutdown(), open) }).await;
        let progress = progress.unwrap();
        assert_eq!(progress.resumed_from, cursor, "run {run}");
        assert_eq!(progress.applied, record.tip(), "run {run}");
        downloaded += progress.blocks;
        assert!((gate - 40..600).contains(&downloaded), "stopped on the way: {downloaded}");
        assert_eq!(record.applied(), downloaded + 1, "run {run}: nothing but genesis is not downloaded");
    }

    let cursor = record.tip().unwrap();
    record.stop_before(u64::MAX);
    // The other one stays behind on the losing branch, and may bring more of that before the better one is heard.
    one.reorganize(cursor.height - 9, 200);
    let node =
        builder(dir.path(), &[one.address(), two.address()]).sink(record.sink()).spawn().await.unwrap();
    let height = one.height();
    let progress = reached(&node, &one.hash(height)).await;
    assert_eq!(progress.resumed_from, Some(cursor));
    patiently("the end", node.shutdown()).await.unwrap();
    record.assert_holds(&one.chain());
    assert_eq!(record.rollbacks(), [cursor.height - 9]);
    let most = 200 + 600 - cursor.height;
    assert!((200..=most).contains(&progress.blocks), "nothing of what it had: {}", progress.blocks);
    assert_eq!(record.applied(), 1 + downloaded + progress.blocks);
}
