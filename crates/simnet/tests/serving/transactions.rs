//! Transactions: taken, announced, served, refused, relayed to other nodes.

use std::time::{Duration, Instant};

use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimOptions};
use tipward_wire::bitcoin::{
    Inventory, InventoryKind, MempoolRequest, Message, Network, RejectCode, Transaction,
};

use crate::client::{Client, node};

fn chain() -> SimChain {
    SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(120, 7))
}

fn payments(chain: &SimChain) -> [Transaction; 2] {
    chain.payments([[0x51], [0x52]]).try_into().unwrap()
}

fn entry(kind: InventoryKind, transaction: &Transaction) -> Inventory {
    let hash = match kind {
        InventoryKind::Wtx => *transaction.wtxid().as_bytes(),
        _ => *transaction.txid().as_bytes(),
    };
    Inventory { kind, hash }
}

fn inv(transaction: &Transaction) -> Message {
    Message::Inv(vec![entry(InventoryKind::Tx, transaction)])
}

#[tokio::test]
async fn a_transaction_is_announced_to_all_but_its_sender() {
    let chain = chain();
    let [first, second] = payments(&chain);
    let node = node(&chain, Behaviour::Honest).await;
    let (mut sender, _) = Client::ready(&node, &[]).await;
    let (mut other, _) = Client::ready(&node, &[]).await;
    let asked = sender.ask(&inv(&first)).await;
    assert_eq!(asked, Message::GetData(vec![entry(InventoryKind::WitnessTx, &first)]));
    sender.send(&Message::Tx(first.clone())).await;
    assert_eq!(other.next().await, inv(&first));
    sender.sync().await;
    sender.sync().await;
    // It is known now: not asked for, not announced again.
    other.send(&inv(&first)).await;
    other.send(&Message::Tx(first.clone())).await;
    other.sync().await;
    sender.sync().await;
    assert!(node.add_transaction(second.clone()));
    assert!(!node.add_transaction(second.clone()));
    assert_eq!(sender.next().await, inv(&second));
    assert_eq!(other.next().await, inv(&second));
    assert_eq!(node.mempool(), [first, second]);
}

#[tokio::test]
async fn a_transaction_is_served_as_it_is_asked_for() {
    let chain = chain();
    let [first, second] = payments(&chain);
    let node = node(&chain, Behaviour::Honest).await;
    node.add_transaction(first.clone());
    let (mut client, _) = Client::ready(&node, &[]).await;
    let get = |kind| Message::GetData(vec![entry(kind, &first), entry(InventoryKind::Tx, &second)]);
    let missing = Message::NotFound(vec![entry(InventoryKind::Tx, &second)]);
    for kind in [InventoryKind::WitnessTx, InventoryKind::Wtx] {
        assert_eq!(client.ask(&get(kind)).await, Message::Tx(first.clone()));
        assert_eq!(client.next().await, missing);
    }
    let Message::Tx(stripped) = client.ask(&get(InventoryKind::Tx)).await else { panic!("no transaction") };
    assert_eq!((stripped.txid(), stripped.has_witnesses()), (first.txid(), false));
    assert_eq!(client.next().await, missing);
    assert_eq!(node.stats().transactions, 3);
    let mempool = Message::Mempool(MempoolRequest::default());
    assert_eq!(client.ask(&mempool).await, inv(&first));
}

#[tokio::test]
async fn a_transaction_that_is_mined_or_contradicted_leaves_the_mempool() {
    let mut chain = chain();
    let payments = payments(&chain);
    let node = node(&chain, Behaviour::Honest).await;
    let mut other = chain.clone();
    for payment in &payments {
        node.add_transaction(payment.clone());
    }
    chain.extend_with(&payments[..1], 1);
    node.set_chain(chain);
    assert_eq!(node.mempool(), payments[1..]);
    other.extend_with(&other.payments([[0x53]]), 1);
    node.add_transaction(payments[0].clone());
    node.set_chain(other);
    assert_eq!(node.mempool(), payments[1..], "what it spends is not looked up");
}

#[tokio::test]
async fn wtxids_are_announced_where_both_sides_want_it() {
    let chain = chain();
    let [first, _] = payments(&chain);
    let mut options = SimOptions::default();
    options.wtxid_relay = true;
    let node = node(&chain, options).await;
    let (mut new, _) = Client::ready(&node, &[Message::WtxidRelay]).await;
    let (mut old, _) = Client::ready(&node, &[]).await;
    node.add_transaction(first.clone());
    assert_eq!(new.next().await, Message::Inv(vec![entry(InventoryKind::Wtx, &first)]));
    assert_eq!(old.next().await, inv(&first));
}

#[tokio::test]
async fn a_refusal_names_its_reason() {
    let chain = chain();
    let [first, _] = payments(&chain);
    let refuses =
        Behaviour::RejectsTransactions { code: RejectCode::INSUFFICIENT_FEE, reason: "66: too little" };
    let node = node(&chain, refuses).await;
    let (mut client, _) = Client::ready(&node, &[]).await;
    let Message::Reject(reject) = client.ask(&Message::Tx(first.clone())).await else { panic!("no reject") };
    assert_eq!((reject.message, reject.code), ("tx".into(), RejectCode::INSUFFICIENT_FEE));
    assert_eq!((reject.reason, reject.hash), ("66: too little".into(), Some(*first.txid().as_bytes())));
    assert_eq!(node.mempool(), []);
}

/// Along a line of nodes, after a delay at each step, and not back.
#[tokio::test]
async fn nodes_relay_to_those_they_are_linked_to() {
    let chain = chain();
    let [first, second] = payments(&chain);
    let mut options = SimOptions::default();
    options.relay_delay = Duration::from_millis(30);
    let (one, two, three) = (
        node(&chain, options.clone()).await,
        node(&chain, options.clone()).await,
        node(&chain, options).await,
    );
    one.relay_to(&two);
    two.relay_to(&three);
    two.relay_to(&one);
    let (mut far, _) = Client::ready(&three, &[]).await;
    let (mut near, _) = Client::ready(&one, &[]).await;
    let start = Instant::now();
    near.send(&Message::Tx(first.clone())).await;
    assert_eq!(far.next().await, inv(&first));
    assert!(start.elapsed() >= Duration::from_millis(60));
    near.sync().await;
    // Nothing leads back from the last.
    three.add_transaction(second.clone());
    assert_eq!(far.next().await, inv(&second));
    near.sync().await;
    assert_eq!((one.mempool(), three.mempool()), (vec![first.clone()], vec![first, second]));
}
