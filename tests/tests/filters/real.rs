//! What a real node's wallet has is what comes of the filters that the node serves.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use serde_json::{Value, json};
use tipward_chain::{
    Node,
    sync::{Progress, WatchSet, peer::wire::bitcoin::Network},
};
use tipward_tests::{Bitcoind, Found, NOBODYS_ADDRESS, patiently, wait_for};

/// So many scripts ahead of the last that was paid are watched.
const AHEAD: usize = 10;

/// The scripts of a wallet, in their order, for payments to it and for its change.
struct Keys {
    chains: Vec<Vec<Vec<u8>>>,
    places: HashMap<Vec<u8>, (usize, usize)>,
}

impl Keys {
    fn of(bitcoind: &Bitcoind, count: usize) -> Self {
        let listed = bitcoind.rpc("listdescriptors", &json!([]));
        let mut keys = Self { chains: Vec::new(), places: HashMap::new() };
        for descriptor in listed["descriptors"].as_array().unwrap() {
            let text = descriptor["desc"].as_str().unwrap();
            let addresses = bitcoind.rpc("deriveaddresses", &json!([text, [0, count - 1]]));
            let script = |address: &Value| {
                let shown = bitcoind.rpc("validateaddress", &json!([address]));
                hex(shown["scriptPubKey"].as_str().unwrap())
            };
            let scripts: Vec<Vec<u8>> = addresses.as_array().unwrap().iter().map(script).collect();
            let chain = keys.chains.len();
            keys.places.extend(scripts.iter().cloned().zip((0..).map(|index| (chain, index))));
            keys.chains.push(scripts);
        }
        keys
    }

    fn watch(&self, watch: &WatchSet, chain: usize, up_to: usize) {
        self.chains[chain].iter().take(up_to).for_each(|script| _ = watch.insert(script.clone()));
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The confirmed transactions of the node's wallet, with their blocks.
fn wallet(bitcoind: &Bitcoind) -> BTreeSet<(String, String)> {
    let listed = bitcoind.rpc("listtransactions", &json!(["*", 10_000]));
    let confirmed = listed.as_array().unwrap().iter().filter(|it| it["confirmations"].as_i64() > Some(0));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    confirmed.map(|it| (text(&it["blockhash"]), text(&it["txid"]))).collect()
}

fn found(found: &Found) -> BTreeSet<(String, String)> {
    let transactions = found.transactions();
    let set: BTreeSet<_> =
        transactions.iter().map(|(block, txid)| (block.hash.to_string(), txid.to_string())).collect();
    assert_eq!(set.len(), transactions.len(), "each once");
    set
}

fn same(record: &Found, bitcoind: &Bitcoind) {
    let (ours, theirs) = (found(record), wallet(bitcoind));
    let missing: Vec<_> = theirs.difference(&ours).collect();
    let excess: Vec<_> = ours.difference(&theirs).collect();
    assert!(
        missing.is_empty() && excess.is_empty(),
        "missing {missing:?}, in excess {excess:?}, both {}",
        ours.intersection(&theirs).count()
    );
    assert!(ours.len() > 50, "{} transactions", ours.len());
}

/// Mines so many blocks, with payments of all kinds in every third.
fn live(bitcoind: &Bitcoind, blocks: u64) {
    for block in 0..blocks {
        if block % 3 == 0 {
            let own = bitcoind.rpc("getnewaddress", &json!([]));
            for address in [own.as_str().unwrap(), NOBODYS_ADDRESS] {
                let _ = bitcoind.rpc("sendtoaddress", &json!([address, 0.02]));
            }
        }
        bitcoind.mine(1, NOBODYS_ADDRESS);
    }
}

async fn reached(node: &Node, bitcoind: &Bitcoind) -> Progress {
    let tip = bitcoind.hash(bitcoind.height());
    let is_there = |progress: &Progress| {
        progress.synced && progress.applied.is_some_and(|applied| applied.hash.to_string() == tip)
    };
    wait_for(node, &tip, is_there).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_finds_what_the_nodes_wallet_has_after_a_reorg_and_a_restart_too() {
    let Some(bitcoind) = Bitcoind::start(&["-blockfilterindex=1", "-peerblockfilters=1"]) else { return };
    let address = bitcoind.wallet();
    bitcoind.mine(3, &address);
    bitcoind.mine(150, NOBODYS_ADDRESS);
    live(&bitcoind, 150);

    let keys = Arc::new(Keys::of(&bitcoind, 200));
    let (watch, record, dir) = (WatchSet::new(), Found::default(), tempfile::tempdir().unwrap());
    (0..keys.chains.len()).for_each(|chain| keys.watch(&watch, chain, AHEAD));
    let start = || {
        let (keys, more) = (keys.clone(), watch.clone());
        let derive = move |script: &[u8]| {
            let (chain, index) = keys.places[script];
            keys.watch(&more, chain, index + 1 + AHEAD);
        };
        let sink = record.sink(watch.clone(), derive);
        let builder = Node::builder(Network::BTC_REGTEST, dir.path()).connect(bitcoind.address().into());
        builder.sink(sink).filters(watch.clone()).spawn()
    };
    let node = start().await.unwrap();
    let progress = reached(&node, &bitcoind).await;
    same(&record, &bitcoind);
    assert!(progress.filters >= 303 && progress.blocks < 100, "{progress:?}");

    live(&bitcoind, 10);
    reached(&node, &bitcoind).await;
    same(&record, &bitcoind);

    bitcoind.reorganize(bitcoind.height() - 8, 12);
    let progress = reached(&node, &bitcoind).await;
    same(&record, &bitcoind);
    assert_eq!((record.rollbacks().len(), progress.reorgs), (1, 1));
    patiently("the end", node.shutdown()).await.unwrap();

    live(&bitcoind, 20);
    let node = start().await.unwrap();
    let progress = reached(&node, &bitcoind).await;
    same(&record, &bitcoind);
    assert_eq!(progress.filters, 20, "nothing comes again");
    let before = record.applied();
    node.control().rescan(100).await.unwrap();
    wait_for(&node, "the rescan", |progress| progress.synced && record.rollbacks().len() == 2).await;
    same(&record, &bitcoind);
    assert!(record.applied().len() <= before.len());
    patiently("the end", node.shutdown()).await.unwrap();
}
