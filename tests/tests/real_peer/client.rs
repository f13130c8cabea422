//! One connection to a `bitcoind`, in its own messages, and through a proxy.

use std::sync::Arc;

use bytes::BytesMut;
use serde_json::json;
use tipward_chain::sync::peer::{
    Client, DisconnectReason, LinkOptions, PeerAddress, Proxy, Received, Tcp, TcpOptions, Want,
    wire::{
        BlockHash, Txid,
        bitcoin::{BlockHeader, Inventory, InventoryKind, Message, Network},
    },
};
use tipward_tests::{Bitcoind, Socks, patiently};

use super::{HURRY, after, bytes, connect, listen, regtest, relaying};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_what_it_asks_for() {
    let Some(bitcoind) = Bitcoind::start(&[HURRY]) else { return };
    let address = bitcoind.wallet();
    bitcoind.mine(105, &address);
    // What it claims comes a moment later than its blocks.
    let _ = bitcoind.rpc("syncwithvalidationinterfacequeue", &json!([]));
    let mut client = listen(connect(bitcoind.address(), relaying()).await);
    let peer = client.peer.clone();

    // What it says about itself, in its own words.
    let network = bitcoind.rpc("getnetworkinfo", &json!([]));
    let info = peer.info();
    assert_eq!(info.user_agent, network["subversion"].as_str().unwrap());
    assert_eq!(u64::from(info.protocol_version), network["protocolversion"].as_u64().unwrap());
    let services = u64::from_str_radix(network["localservices"].as_str().unwrap(), 16).unwrap();
    assert_eq!(info.services & services, services, "{:#x}", info.services);
    assert_eq!((info.claimed_height, info.recent_only, info.relays_transactions), (105, None, true));

    // Requests and their answers.
    assert_eq!(peer.request(Message::Ping(7)).await.unwrap(), Message::Pong(7));
    let genesis: BlockHash = bitcoind.hash(0).parse().unwrap();
    let Message::Headers(headers) = peer.request(after(genesis)).await.unwrap() else { panic!("no headers") };
    let hashes: Vec<String> = headers.iter().map(|header| header.hash().to_string()).collect();
    assert_eq!(hashes, (1..=105).map(|height| bitcoind.hash(height)).collect::<Vec<_>>());
    let unknown = vec![Inventory { kind: InventoryKind::WitnessTx, hash: [7; 32] }];
    let answer = peer.request(Message::GetData(unknown.clone())).await.unwrap();
    assert_eq!(answer, Message::NotFound(unknown));

    // A transaction that it announces.
    let id: Txid = bitcoind.rpc("sendtoaddress", &json!([address, 1])).as_str().unwrap().parse().unwrap();
    let announced = Inventory { kind: InventoryKind::Tx, hash: *id.as_bytes() };
    let is_it = |message| {
        matches!(message, Received::Message(Message::Inv(entries)) if entries.contains(&announced))
            .then_some(())
    };
    client.next("the announcement", is_it).await;
    let wanted = Inventory { kind: InventoryKind::WitnessTx, hash: *id.as_bytes() };
    let answer = peer.request(Message::GetData(vec![wanted])).await.unwrap();
    let Message::Tx(transaction) = answer else { panic!("{answer:?}") };
    let raw = bitcoind.rpc("getrawtransaction", &json!([id.to_string()]));
    assert_eq!(*transaction.as_bytes(), bytes(raw.as_str().unwrap()), "with its witnesses");

    // A message that nobody waits for an answer to.
    peer.send(Message::Ping(9)).await.unwrap();
    client
        .next("the pong", |message| matches!(message, Received::Message(Message::Pong(9))).then_some(()))
        .await;

    blocks_arrive(&bitcoind, &mut client).await;

    // It pings us, and we answer.
    let _ = bitcoind.rpc("ping", &json!([]));
    bitcoind.wait_for("our pong", |node| node.peers()[0]["pingtime"].is_f64()).await;

    // Both sides learn of the end.
    bitcoind.disconnect_all();
    let reason = patiently("the end", &mut client.end).await.unwrap();
    assert!(matches!(reason, DisconnectReason::Closed | DisconnectReason::Io(_)), "{reason}");
    assert!(peer.send(Message::Ping(1)).await.is_err() && peer.request(Message::Ping(1)).await.is_err());
    let client = connect(bitcoind.address(), LinkOptions::default()).await;
    assert_eq!(bitcoind.peers().len(), 1);
    client.close().await;
    bitcoind.wait_for("the end", |node| node.peers().is_empty()).await;
}

/// Blocks with transactions and witnesses, byte for byte, and one that is announced.
async fn blocks_arrive(bitcoind: &Bitcoind, client: &mut super::Listened) {
    let address = bitcoind.rpc("getnewaddress", &json!([])).as_str().unwrap().to_owned();
    bitcoind.mine(1, &address);
    let new: BlockHash = bitcoind.hash(106).parse().unwrap();
    let is_it = |message| {
        let hashes: Vec<BlockHash> = match message {
            Received::Message(Message::Headers(headers)) => headers.iter().map(BlockHeader::hash).collect(),
            Received::Message(Message::Inv(entries)) => {
                entries.iter().map(|entry| BlockHash::from_bytes(entry.hash)).collect()
            }
            _ => Vec::new(),
        };
        hashes.contains(&new).then_some(())
    };
    client.next("the announced block", is_it).await;

    let wanted: Vec<BlockHash> = (1..=106).map(|height| bitcoind.hash(height).parse().unwrap()).collect();
    client.peer.ask(Want::Blocks(wanted.clone())).unwrap();
    let (mut raw, mut transactions) = (BytesMut::new(), 0);
    for hash in wanted {
        client
            .next("a block", |message| match message {
                Received::Part(part) => {
                    assert_eq!(part.block, hash);
                    raw.extend_from_slice(&part.bytes);
                    None
                }
                Received::BlockEnd(end) => {
                    assert_eq!(end.block, hash);
                    transactions += end.transactions;
                    Some(())
                }
                Received::BlockAborted(..) => panic!("{hash} was aborted"),
                _ => None,
            })
            .await;
        assert!(raw == bytes(&bitcoind.block(&hash.to_string())), "the bytes of {hash} differ");
        raw.clear();
    }
    assert_eq!(transactions, 107, "the payment is in the last one");
}

/// The node sees the proxy, and the proxy the name: no resolver hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_leads_to_the_node() {
    let Some(bitcoind) = Bitcoind::start(&[]) else { return };
    let proxy = Socks::start(bitcoind.address()).await.unwrap();
    let mut options = TcpOptions::default();
    options.proxy = Some(Proxy::new(proxy.address().into()));
    let dialer = Arc::new(Tcp::new(options));
    let direct: PeerAddress = bitcoind.address().into();
    let name = PeerAddress::parse("node.of-a-friend.onion:18444", 1).unwrap();
    for (made, address) in [direct, name].into_iter().enumerate() {
        let client =
            Client::connect_through(regtest(), dialer.clone(), address.clone(), LinkOptions::default())
                .await
                .unwrap();
        let genesis: BlockHash = Network::BTC_REGTEST.genesis_hash();
        assert!(client.peer().is_encrypted());
        let client = listen(client);
        assert_eq!(client.peer.request(after(genesis)).await.unwrap(), Message::Headers(Vec::new()));
        let through = proxy.through();
        assert_eq!((through.len(), &through[made].asked), (made + 1, &address.to_string()));
        let from = json!(through[made].from.to_string());
        assert!(bitcoind.peers().iter().any(|peer| peer["addr"] == from), "the node sees the proxy");
    }
}
