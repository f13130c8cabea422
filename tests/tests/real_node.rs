//! A node of ours against a real `bitcoind` on regtest.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{path::Path, time::Duration};

use serde_json::json;
use tipward_chain::{Node, NodeBuilder, sync::peer::wire::bitcoin::Network};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};
use tipward_tests::{Bitcoind, assert_archive_holds, wait_for};

fn node(data_dir: &Path, bitcoind: &Bitcoind) -> NodeBuilder {
    Node::builder(Network::BTC_REGTEST, data_dir).archive().connect(bitcoind.address().into())
}

fn assert_equals_node(data_dir: &Path, bitcoind: &Bitcoind) {
    let blocks = bitcoind.chain();
    assert_archive_holds(data_dir, Network::BTC_REGTEST, blocks.iter().map(|(hash, raw)| (*hash, &raw[..])));
}

#[tokio::test(flavor = "multi_thread")]
async fn syncs_resumes_follows_and_reorganizes() {
    let Some(bitcoind) = Bitcoind::start(&[]) else { return };
    let address = bitcoind.wallet();
    bitcoind.mine_with_transactions(1000, &address);
    let dir = tempfile::tempdir().unwrap();

    // A first run that stops on the way.
    let mut first = node(dir.path(), &bitcoind).stop_at(400).spawn().await.unwrap();
    first.wait().await.unwrap();
    let progress = first.progress();
    assert_eq!(progress.applied.map(|tip| tip.height), Some(400));
    assert_eq!((progress.headers, progress.blocks, progress.resumed_from), (400, 400, None));

    // A second one that resumes there.
    let second = node(dir.path(), &bitcoind).spawn().await.unwrap();
    let progress = wait_for(&second, "the tip", |progress| progress.synced).await;
    assert_eq!(progress.resumed_from.map(|from| from.height), Some(400));
    assert_eq!(progress.blocks, 600, "nothing is downloaded twice");
    assert_eq!(progress.applied.unwrap().hash.to_string(), bitcoind.hash(1000));

    // Blocks that arrive while it runs.
    for _ in 0..50 {
        bitcoind.mine(1, &address);
    }
    let progress = wait_for(&second, "50 more blocks", |progress| {
        progress.synced && progress.applied.is_some_and(|tip| tip.height == 1050)
    })
    .await;
    assert_eq!((progress.blocks, progress.reorgs), (650, 0));

    // Another branch, ten blocks deep, becomes the longer one.
    let left = bitcoind.hash(1041);
    let _ = bitcoind.rpc("invalidateblock", &json!([left]));
    let other = bitcoind.rpc("getnewaddress", &json!([])).as_str().unwrap().to_owned();
    bitcoind.mine(15, &other);
    let progress = wait_for(&second, "the reorg", |progress| {
        progress.synced && progress.applied.is_some_and(|tip| tip.height == 1055)
    })
    .await;
    assert_eq!((progress.reorgs, progress.blocks), (1, 665));
    second.shutdown().await.unwrap();
    assert_equals_node(dir.path(), &bitcoind);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_restarts_is_found_again() {
    let Some(bitcoind) = Bitcoind::start(&[]) else { return };
    let address = bitcoind.wallet();
    bitcoind.mine(20, &address);
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), &bitcoind).spawn().await.unwrap();
    wait_for(&node, "the tip", |progress| progress.synced).await;
    // The node drops us; we come back and hear of what came in between.
    let peers = bitcoind.rpc("getpeerinfo", &json!([]));
    let id = &peers[0]["id"];
    let _ = bitcoind.rpc("disconnectnode", &json!(["", id]));
    wait_for(&node, "the loss", |progress| progress.peers == 0).await;
    bitcoind.mine(5, &address);
    let progress = wait_for(&node, "the return", |progress| {
        progress.synced && progress.applied.is_some_and(|tip| tip.height == 25)
    })
    .await;
    assert_eq!(progress.peers_seen, 2);
    node.shutdown().await.unwrap();
    assert_equals_node(dir.path(), &bitcoind);
}

/// What a real node makes of us: the handshake, our version, our height.
#[tokio::test(flavor = "multi_thread")]
async fn the_real_node_knows_us() {
    let Some(bitcoind) = Bitcoind::start(&[]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), &bitcoind).headers_only().spawn().await.unwrap();
    wait_for(&node, "the tip", |progress| progress.synced).await;
    let peers = bitcoind.rpc("getpeerinfo", &json!([]));
    assert_eq!(peers[0]["subver"], format!("/tipward:{}/", env!("CARGO_PKG_VERSION")));
    assert_eq!(peers[0]["version"], 70016);
    assert_eq!(peers[0]["relaytxes"], false);
    node.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(bitcoind.rpc("getconnectioncount", &json!([])), 0);
}

/// The simulated network passes for a real one: `bitcoind` validates and takes a generated chain with its witnesses.
#[tokio::test(flavor = "multi_thread")]
async fn the_real_node_accepts_a_simulated_chain() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(400, 3));
    let tip = chain.tip().hash.to_string();
    let server = SimNode::spawn(chain, Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let connect = format!("-connect={}", server.address());
    let Some(bitcoind) = Bitcoind::start(&[&connect, "-v2transport=0"]) else { return };
    for _ in 0..600 {
        if bitcoind.height() == 400 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(bitcoind.hash(400), tip);
    server.shutdown().await;
}
