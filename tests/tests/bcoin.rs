//! bcoin, an implementation of its own in JavaScript, as a client of the simulated network and as a server of ours.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use hex_conservative::decode_to_vec;
use serde_json::json;
use tipward_chain::{
    Node,
    sync::peer::wire::bitcoin::{Network, Transaction},
};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};
use tipward_tests::{Bcoin, assert_archive_holds};

/// A chain that signals for SegWit and has witnesses once it is active, as bcoin wants it by BIP 9; and whose blocks are of a
/// time when pay-to-script-hash was in force, without which it checks no witness.
fn spec(blocks: u32) -> ChainSpec {
    let mut spec = ChainSpec::new(blocks, 11);
    (spec.version, spec.witnesses_from, spec.not_before) = (0x2000_0002, 432, 1_500_000_000);
    spec
}

/// It asks with `getblocks` and takes more than one full inventory. What it validates, it relays: both ways.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_syncs_from_the_simulated_network() {
    let chain = SimChain::generate(Network::BTC_REGTEST, spec(600));
    let server = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let Some(bcoin) = Bcoin::full(Some(server.address())) else { return };
    bcoin.wait_for("600 blocks", |bcoin| bcoin.height() == 600).await;
    assert_eq!(bcoin.hash(600), chain.tip().hash.to_string());
    let last = &chain.blocks()[600];
    assert_eq!(decode_to_vec(&bcoin.block(&last.hash.to_string())).unwrap(), last.raw, "with its witnesses");

    // A block that is announced.
    let mut longer = chain;
    longer.extend(spec(1));
    server.set_chain(longer.clone());
    bcoin.wait_for("the next block", |bcoin| bcoin.height() == 601).await;

    // A transaction that is announced to it, and one that it announces.
    let [first, second] = &longer.payments([[0x51], [0x52]])[..] else { panic!("two payments") };
    server.add_transaction(first.clone());
    let txid = first.txid().to_string();
    bcoin.wait_for("a transaction", |bcoin| bcoin.rpc("getrawmempool", &json!([])) == json!([txid])).await;
    let raw: String = second.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(bcoin.rpc("sendrawtransaction", &json!([raw])), json!(second.txid().to_string()));
    bcoin.wait_for("its relay", |_| server.mempool().len() == 2).await;
    assert_eq!(server.mempool(), [first.clone(), second.clone()]);
    assert_eq!(server.stats().accepted, 1, "one connection did it all");
    server.shutdown().await;
}

/// The wallet of an SPV node sees payments by its bloom filter: in a block among many, in the mempool, then in a block.
#[tokio::test(flavor = "multi_thread")]
async fn an_spv_node_finds_its_payments() {
    let mut chain = SimChain::generate(Network::BTC_REGTEST, spec(300));
    let server = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let Some(bcoin) = Bcoin::spv(server.address()) else { return };
    bcoin.wait_for("300 blocks", |bcoin| bcoin.height() == 300).await;
    let script = decode_to_vec(&bcoin.wallet_script()).unwrap();
    let pay = |chain: &SimChain| -> Vec<Transaction> { chain.payments([&script[..], &[0x51]]) };
    let balance = |bcoin: &Bcoin| {
        let balance = bcoin.wallet("/balance");
        (balance["confirmed"].as_u64().unwrap(), balance["unconfirmed"].as_u64().unwrap())
    };

    chain.extend_with(&pay(&chain), 1);
    chain.extend(spec(299));
    server.set_chain(chain.clone());
    bcoin.wait_for("600 blocks", |bcoin| bcoin.height() == 600).await;
    assert_eq!(bcoin.hash(600), chain.tip().hash.to_string());
    bcoin.wait_for("the payment", |bcoin| balance(bcoin) == (10_000, 10_000)).await;

    let payments = pay(&chain);
    for payment in &payments {
        server.add_transaction(payment.clone());
    }
    bcoin.wait_for("a payment in the mempool", |bcoin| balance(bcoin) == (10_000, 20_000)).await;
    assert_eq!(server.stats().transactions, 1, "only the one that matches was asked for");
    chain.extend_with(&payments, 2);
    server.set_chain(chain);
    assert_eq!(server.mempool(), []);
    bcoin.wait_for("its confirmation", |bcoin| balance(bcoin) == (20_000, 20_000)).await;
    server.shutdown().await;
}

/// A node of ours syncs from it and holds the blocks that it holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_ours_syncs_from_it() {
    let Some(bcoin) = Bcoin::full(None) else { return };
    bcoin.mine(150);
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::builder(Network::BTC_REGTEST, dir.path())
        .archive()
        .connect(bcoin.address().into())
        .stop_when_synced()
        .spawn()
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(60), node.wait()).await.unwrap().unwrap();
    assert_eq!(node.progress().applied.map(|tip| tip.height), Some(150));
    let blocks = bcoin.chain();
    assert_archive_holds(
        dir.path(),
        Network::BTC_REGTEST,
        blocks.iter().map(|(hash, raw)| (*hash, &raw[..])),
    );
}
