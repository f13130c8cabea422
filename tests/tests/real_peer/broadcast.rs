//! Transactions handed to `bitcoind`s, which refuse in silence, and to a simulated node that says why.

use std::{net::Ipv4Addr, time::Duration};

use serde_json::json;
use tipward_chain::sync::peer::{
    BroadcastFailed, BroadcastOutcome, BroadcastPolicy, HostRejection, Manager, PeerEvent, Reply,
    wire::bitcoin::{Network, RejectCode, Transaction},
};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};
use tipward_tests::{Bitcoind, Peers};

use super::{HURRY, bytes, relaying, txid};

/// The other address of the loopback, so that two nodes are two hosts.
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Two nodes with the same chain that tell each other of transactions, and coins in the wallet of the first.
async fn two_nodes() -> Option<(Bitcoind, Bitcoind, String)> {
    let first = Bitcoind::start(&[HURRY])?;
    let second = Bitcoind::start_on(OTHER, &[HURRY])?;
    let address = first.wallet();
    first.mine(110, &address);
    let _ = second.rpc("addnode", &json!([first.address().to_string(), "onetry"]));
    second.wait_for("the same chain", |node| node.height() == 110).await;
    Some((first, second, address))
}

fn patient() -> BroadcastPolicy {
    let mut policy = BroadcastPolicy::default();
    policy.timeout = tipward_tests::PATIENCE;
    policy
}

/// Ends as soon as those who it was offered to have it.
fn content() -> BroadcastPolicy {
    let mut policy = patient();
    policy.accept_fetched = true;
    policy
}

async fn broadcast(manager: &Manager, hex: &str, policy: BroadcastPolicy) -> BroadcastOutcome {
    manager.broadcast(bytes(hex), policy).await.unwrap()
}

#[track_caller]
fn assert_seen_back(outcome: &BroadcastOutcome) {
    let BroadcastOutcome::SeenBack { hosts } = outcome else { panic!("{outcome:?}") };
    assert!(matches!(&hosts[..], [host] if host == "127.0.0.1" || host == "127.0.0.2"), "{hosts:?}");
}

async fn assert_taken(nodes: [&Bitcoind; 2], hex: &str) {
    let id = txid(hex).to_string();
    for node in nodes {
        node.wait_for("the transaction", |node| node.mempool().contains(&id)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_takes_comes_back_from_the_other() {
    let Some((first, second, address)) = two_nodes().await else { return };
    let nodes = [first.address(), second.address()];
    let mut peers = Peers::start(&nodes, |options| options.link = relaying()).await;
    peers.connected().await;
    peers.connected().await;

    let payment = first.payment(&address);
    assert_seen_back(&broadcast(&peers.manager, &payment, patient()).await);
    assert_taken([&first, &second], &payment).await;
    peers.rest();

    // Twice at a time is once.
    let payment = first.payment(&address);
    let (one, two) = tokio::join!(
        broadcast(&peers.manager, &payment, patient()),
        broadcast(&peers.manager, &payment, patient())
    );
    assert_seen_back(&one);
    assert_eq!(one, two);
    assert_taken([&first, &second], &payment).await;
    let sent = |event: &&PeerEvent| matches!(event, PeerEvent::Reply { reply: Reply::Fetched(id), .. } if *id == txid(&payment));
    assert_eq!(peers.rest().iter().filter(sent).count(), 1);

    invalid_ones_do_not_come_back(&first, &second, &address, &peers.manager).await;
    peers.manager.shutdown().await;
}

async fn invalid_ones_do_not_come_back(
    first: &Bitcoind,
    second: &Bitcoind,
    address: &str,
    manager: &Manager,
) {
    // One that spends what is not there: it is fetched, and waits in vain for its parent.
    let inputs = json!([{"txid": "77".repeat(32), "vout": 0}]);
    let orphan = first.rpc("createrawtransaction", &json!([inputs, {address: 0.1}]));
    let orphan = orphan.as_str().unwrap();
    let outcome = broadcast(manager, orphan, content()).await;
    assert!(
        matches!(&outcome, BroadcastOutcome::Fetched { hosts, rejections }
        if hosts.len() == 1 && rejections.is_empty()),
        "{outcome:?}"
    );

    // One with a spoiled signature, which has the same id as the good one, for the signature is a witness.
    let good = first.payment(address);
    let bad = with_spoiled_signature(&good);
    assert_eq!(txid(&bad), txid(&good));
    let outcome = broadcast(manager, &bad, content()).await;
    assert!(matches!(outcome, BroadcastOutcome::Fetched { .. }), "{outcome:?}");
    for id in [txid(orphan), txid(&bad)] {
        assert!(!first.mempool().contains(&id.to_string()) && !second.mempool().contains(&id.to_string()));
    }

    // The good one is not held for the bad one, by nobody.
    // A node that was offered the bad one believes that we know the id, and so does not tell us of the good one.
    let outcome = broadcast(manager, &good, content()).await;
    assert!(!matches!(outcome, BroadcastOutcome::Undecided { .. }), "{outcome:?}");
    assert_taken([first, second], &good).await;

    // What is no transaction is not sent.
    let refused = manager.broadcast(bytes(&good[..good.len() - 2]), patient()).await;
    assert!(matches!(refused, Err(BroadcastFailed::Malformed(_))), "{refused:?}");
}

/// Turns a bit in the middle of the first witness.
fn with_spoiled_signature(transaction: &str) -> String {
    let parsed = Transaction::new(bytes(transaction)).unwrap();
    let witness = parsed.witnesses().next().unwrap();
    let signature = witness.items().next().unwrap();
    let at = signature.as_ptr() as usize - parsed.as_bytes().as_ptr() as usize + signature.len() / 2;
    let mut spoiled = parsed.as_bytes().to_vec();
    spoiled[at] ^= 1;
    spoiled.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_single_node_it_is_known_that_it_fetched() {
    let Some(bitcoind) = Bitcoind::start(&[HURRY]) else { return };
    let address = bitcoind.wallet();
    bitcoind.mine(105, &address);
    let mut peers = Peers::start(&[bitcoind.address()], |options| options.link = relaying()).await;
    peers.connected().await;
    let payment = bitcoind.payment(&address);
    let host = vec!["127.0.0.1".to_owned()];
    let spoiled = with_spoiled_signature(&payment);
    let outcome = broadcast(&peers.manager, &spoiled, patient()).await;
    assert_eq!(outcome, BroadcastOutcome::Fetched { hosts: host.clone(), rejections: Vec::new() });
    assert!(bitcoind.mempool().is_empty());

    // The same with its right witness is another matter.
    let outcome = broadcast(&peers.manager, &payment, patient()).await;
    assert_eq!(outcome, BroadcastOutcome::Fetched { hosts: host.clone(), rejections: Vec::new() });
    bitcoind.wait_for("the transaction", |node| node.mempool() == [txid(&payment).to_string()]).await;

    // It does not ask for what it has.
    let mut policy = BroadcastPolicy::default();
    policy.timeout = Duration::from_secs(1);
    let outcome = broadcast(&peers.manager, &payment, policy).await;
    assert_eq!(outcome, BroadcastOutcome::Undecided { offered_to: host, rejections: Vec::new() });
    peers.manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_says_why() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(110, 1));
    let payment = chain.payments([[0x51]])[0].as_bytes().clone();
    let (code, reason) = (RejectCode::INSUFFICIENT_FEE, "mempool min fee not met");
    let behaviour = Behaviour::RejectsTransactions { code, reason };
    let server = SimNode::spawn(chain, behaviour, "127.0.0.1:0").await.unwrap();
    let mut peers = Peers::start(&[server.address()], |options| options.link = relaying()).await;
    peers.connected().await;
    let outcome = peers.manager.broadcast(payment, patient()).await.unwrap();
    let rejection = HostRejection { host: "127.0.0.1".to_owned(), code: code.0, reason: reason.to_owned() };
    assert_eq!(outcome, BroadcastOutcome::Rejected { rejections: vec![rejection] });
    peers.manager.shutdown().await;
    server.shutdown().await;
}
