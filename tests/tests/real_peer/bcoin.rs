//! bcoin, which speaks in the clear and says what it rejects.

use serde_json::json;
use tipward_chain::sync::peer::{
    Answer, BroadcastOutcome, BroadcastPolicy, PeerEvent, Reply, RequestPolicy, Want,
    wire::{BlockHash, bitcoin::Network},
};
use tipward_tests::{Bcoin, PATIENCE, Peers};

use super::{bytes, relaying, txid};

#[tokio::test(flavor = "multi_thread")]
async fn bcoin_serves_takes_and_rejects() {
    let Some(bcoin) = Bcoin::full(None) else { return };
    let address = bcoin.wallet("/account/default")["receiveAddress"].as_str().unwrap().to_owned();
    let _ = bcoin.rpc("generatetoaddress", &json!([110, address]));
    bcoin.wait_for("money", |bcoin| bcoin.wallet("/balance")["confirmed"].as_u64() > Some(0)).await;
    let mut peers = Peers::start(&[bcoin.address()], |options| options.link = relaying()).await;
    let peer = peers.connected().await;
    assert!(!peer.is_encrypted() && peer.info().user_agent.contains("bcoin"), "{:?}", peer.info());
    assert_eq!(peer.info().claimed_height, 110);

    // Headers and blocks.
    let policy = RequestPolicy::default();
    let genesis = Network::BTC_REGTEST.genesis_hash();
    let (_, answer) = peers.manager.request(Want::HeadersAfter(vec![genesis]), policy.clone()).await.unwrap();
    let Answer::Headers { headers, more: false } = answer else { panic!("{answer:?}") };
    let hashes: Vec<BlockHash> = (1..=110).map(|height| bcoin.hash(height).parse().unwrap()).collect();
    assert_eq!(headers.iter().map(|header| header.hash).collect::<Vec<_>>(), hashes);
    for hash in [hashes[0], hashes[109]] {
        let (_, answer) = peers.manager.request(Want::Blocks(vec![hash]), policy.clone()).await.unwrap();
        let Answer::Block { bytes: raw, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(raw, bytes(&bcoin.block(&hash.to_string())));
    }

    // A transaction that it announces.
    let payment = bcoin.payment(&address);
    let id = txid(&payment);
    let _ = bcoin.rpc("sendrawtransaction", &json!([payment]));
    let announced = |event| match event {
        PeerEvent::Reply { reply: Reply::AnnouncedTransactions(ids), .. } => ids.contains(&id).then_some(()),
        _ => None,
    };
    peers.next("the announcement", announced).await;
    let (_, answer) = peers.manager.request(Want::Transactions(vec![id]), policy).await.unwrap();
    assert_eq!(answer, Answer::Transactions { found: vec![(id, bytes(&payment))], missing: Vec::new() });

    // One that it takes, and one that it does not: it spends a coinbase of just now.
    let mut patient = BroadcastPolicy::default();
    patient.timeout = PATIENCE;
    let payment = bcoin.payment(&address);
    let outcome = peers.manager.broadcast(bytes(&payment), patient.clone()).await.unwrap();
    assert!(matches!(outcome, BroadcastOutcome::Fetched { .. }), "{outcome:?}");
    let id = txid(&payment).to_string();
    let has_it =
        |bcoin: &Bcoin| bcoin.rpc("getrawmempool", &json!([])).as_array().unwrap().contains(&json!(id));
    bcoin.wait_for("the transaction", has_it).await;
    let coinbase = bcoin.rpc("getblock", &json!([bcoin.hash(110)]))["tx"][0].take();
    let early =
        bcoin.rpc("createrawtransaction", &json!([[{"txid": coinbase, "vout": 0}], {address: 49.9999}]));
    let outcome = peers.manager.broadcast(bytes(early.as_str().unwrap()), patient).await.unwrap();
    let BroadcastOutcome::Rejected { rejections } = &outcome else { panic!("{outcome:?}") };
    assert_eq!((&rejections[0].host[..], rejections[0].code), ("127.0.0.1", 0x10));
    assert_eq!(rejections[0].reason, "bad-txns-premature-spend-of-coinbase");
    peers.manager.shutdown().await;
}
