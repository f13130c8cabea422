//! Lists of blocks instead of headers first: `getblocks`, `inv`, `getdata`.

use std::net::SocketAddr;

use serde_json::json;
use tipward_chain::{Node, sync::Strategy};
use tipward_tests::{Bcoin, NOBODYS_ADDRESS, Record, patiently};

use crate::{builder, reached, serve, spec};

async fn spawn(dir: &tempfile::TempDir, nodes: &[SocketAddr], record: &Record) -> Node {
    let mut builder = builder(dir.path(), nodes).sink(record.sink());
    builder.sync.strategy = Strategy::Inventory { batch: 500 };
    builder.spawn().await.unwrap()
}

/// Three lists, blocks that are announced, a reorg.
#[tokio::test(flavor = "multi_thread")]
async fn from_two_nodes() {
    let mut spec = spec(1210, 23);
    (spec.max_transactions, spec.max_data) = (2, 60);
    let chain = tipward_simnet::SimChain::generate(
        tipward_chain::sync::peer::wire::bitcoin::Network::BTC_REGTEST,
        spec,
    );
    let (Some(one), Some(two)) = (serve(2, &chain), serve(3, &chain)) else { return };
    // New blocks come to both.
    let _ = two.rpc("addnode", &json!([one.address().to_string(), "add"]));
    one.mine(1, NOBODYS_ADDRESS);
    two.wait_for("its neighbour's block", |two| two.height() == 1211).await;
    let (record, dir) = (Record::default(), tempfile::tempdir().unwrap());
    let node = spawn(&dir, &[one.address(), two.address()], &record).await;
    let progress = reached(&node, &one.hash(1211)).await;
    assert_eq!((progress.blocks, progress.reorgs), (1211, 0));
    for height in 1212..1222 {
        one.mine(1, NOBODYS_ADDRESS);
        reached(&node, &one.hash(height)).await;
    }
    one.reorganize(1211, 12);
    let progress = reached(&node, &one.hash(1223)).await;
    assert_eq!((progress.blocks, progress.reorgs), (1233, 1));
    patiently("the end", node.shutdown()).await.unwrap();
    record.assert_holds(&one.chain());
    assert_eq!((record.applied(), record.rollbacks()), (1234, vec![1211]));
}

/// The same from a node that is no relative of the other.
#[tokio::test(flavor = "multi_thread")]
async fn from_bcoin() {
    let Some(bcoin) = Bcoin::full(None) else { return };
    bcoin.mine(1210);
    let (record, dir) = (Record::default(), tempfile::tempdir().unwrap());
    let node = spawn(&dir, &[bcoin.address()], &record).await;
    let progress = reached(&node, &bcoin.hash(1210)).await;
    assert_eq!((progress.blocks, progress.reorgs), (1210, 0));
    for height in 1211..1217 {
        bcoin.mine(1);
        reached(&node, &bcoin.hash(height)).await;
    }
    bcoin.reorganize(1208, 10);
    let progress = reached(&node, &bcoin.hash(1218)).await;
    assert_eq!((progress.blocks, progress.reorgs), (1226, 1));
    patiently("the end", node.shutdown()).await.unwrap();
    record.assert_holds(&bcoin.chain());
    assert_eq!(record.rollbacks(), [1208]);
}
