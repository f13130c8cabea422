//! Headers, inventories, blocks, versions and addresses.

use bytes::Bytes;
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimOptions};
use tipward_wire::{
    BlockHash,
    bitcoin::{
        Block, HostAddress, Inventory, InventoryKind, Locator, Message, Network, RejectCode, Services,
    },
};

use crate::client::{Client, node};

fn chain() -> SimChain {
    SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(120, 7))
}

fn getdata(kind: InventoryKind, hash: BlockHash) -> Message {
    Message::GetData(vec![Inventory::block(kind, hash)])
}

#[tokio::test]
async fn the_version_says_what_the_options_say() {
    let chain = chain();
    let (_, version) = Client::ready(&node(&chain, Behaviour::Honest).await, &[]).await;
    let served = Services::NETWORK | Services::BLOOM | Services::WITNESS | Services::COMPACT_FILTERS;
    assert_eq!((version.start_height, version.services, version.protocol), (120, served, 70016));
    let mut options = SimOptions::default();
    (options.claimed_height, options.services) = (Some(7), Some(Services::NETWORK_LIMITED));
    (options.user_agent, options.protocol, options.seed) = (Some("/other/".into()), 70001, 5);
    let (_, other) = Client::ready(&node(&chain, options.clone()).await, &[]).await;
    assert_eq!((other.start_height, other.services), (7, Services::NETWORK_LIMITED));
    assert_eq!((&other.user_agent, other.protocol), (&"/other/".into(), 70001));
    assert_ne!(other.nonce, version.nonce);
    let (_, again) = Client::ready(&node(&chain, options).await, &[]).await;
    assert_eq!(again.nonce, other.nonce, "the same seed gives the same nonce");
    let lies = Behaviour::LiesAboutHeight { height: 9000 };
    assert_eq!(Client::ready(&node(&chain, lies).await, &[]).await.1.start_height, 9000);
}

#[tokio::test]
async fn witnesses_go_to_those_who_ask_for_them() {
    let chain = chain();
    let node = node(&chain, Behaviour::Honest).await;
    let (mut client, _) = Client::ready(&node, &[]).await;
    for block in chain.blocks() {
        let whole = client.ask(&getdata(InventoryKind::WitnessBlock, block.hash)).await;
        assert_eq!(whole, Message::Block(block.raw.clone()));
        let Message::Block(stripped) = client.ask(&getdata(InventoryKind::Block, block.hash)).await else {
            panic!("no block")
        };
        let (stripped, whole) = (Block::new(stripped).unwrap(), Block::new(block.raw.clone()).unwrap());
        stripped.check_merkle_root().unwrap();
        assert!(stripped.transactions().all(|transaction| !transaction.has_witnesses()));
        let sizes = whole.transactions().map(|transaction| transaction.stripped_size());
        assert!(stripped.transactions().map(|transaction| transaction.as_bytes().len()).eq(sizes));
    }
    // Unknown blocks are answered with silence.
    client.send(&getdata(InventoryKind::Block, BlockHash::from_bytes([3; 32]))).await;
    client.sync().await;
    assert_eq!(node.stats().blocks, 2 * 121);
}

#[tokio::test]
async fn a_full_inventory_is_followed_by_the_tip() {
    let chain = SimChain::generate(Network::BSV_REGTEST, ChainSpec::new(510, 7));
    let node = node(&chain, Behaviour::Honest).await;
    let (mut client, _) = Client::ready(&node, &[]).await;
    let hash = |height: usize| chain.blocks()[height].hash;
    let ask =
        |from| Message::GetBlocks(Locator { protocol: 70016, hashes: vec![from], stop: BlockHash::ZERO });
    let entries = |heights: std::ops::RangeInclusive<usize>| {
        Message::Inv(heights.map(|height| Inventory::block(InventoryKind::Block, hash(height))).collect())
    };
    assert_eq!(client.ask(&ask(hash(0))).await, entries(1..=500));
    assert!(matches!(client.ask(&getdata(InventoryKind::Block, hash(499))).await, Message::Block(_)));
    client.sync().await;
    let last = client.ask(&getdata(InventoryKind::Block, hash(500))).await;
    assert_eq!(last, Message::Block(chain.blocks()[500].raw.clone()), "BSV has no witnesses to strip");
    assert_eq!(client.next().await, entries(510..=510));
    assert_eq!(client.ask(&ask(hash(500))).await, entries(501..=510));
    client.send(&ask(hash(510))).await;
    client.sync().await;
}

#[tokio::test]
async fn the_wrong_chain_is_as_long_and_links_to_nothing() {
    let chain = chain();
    let node = node(&chain, Behaviour::WrongChain).await;
    let (mut client, version) = Client::ready(&node, &[]).await;
    assert_eq!(version.start_height, 120);
    let locator = Locator { protocol: 70016, hashes: vec![chain.blocks()[0].hash], stop: BlockHash::ZERO };
    let Message::Headers(headers) = client.ask(&Message::GetHeaders(locator)).await else {
        panic!("no headers")
    };
    assert_eq!(headers.len(), 120);
    assert_eq!(chain.position(headers[0].parent), None);
    assert!(headers.iter().all(|header| header.meets_target(Network::BTC_REGTEST.pow_limit)));
    assert!(headers.windows(2).all(|pair| pair[1].parent == pair[0].hash()));
}

#[tokio::test]
async fn addresses_are_sent_as_the_client_understands_them() {
    let node = node(&chain(), Behaviour::Honest).await;
    let (mut old, _) = Client::ready(&node, &[]).await;
    old.send(&Message::GetAddr).await;
    old.sync().await;
    node.set_addresses(vec!["192.0.2.1:8333".parse().unwrap(), "[2001:db8::1]:18333".parse().unwrap()]);
    let Message::Addr(entries) = old.ask(&Message::GetAddr).await else { panic!("no addresses") };
    let told: Vec<String> = entries.iter().map(|entry| entry.address.socket_address().to_string()).collect();
    assert_eq!(told, ["192.0.2.1:8333", "[2001:db8::1]:18333"]);
    assert!(entries.iter().all(|entry| entry.address.services.has(Services::WITNESS)));
    let (mut new, _) = Client::ready(&node, &[Message::SendAddrV2]).await;
    let Message::AddrV2(entries) = new.ask(&Message::GetAddr).await else { panic!("no addresses") };
    assert_eq!(entries[0].host, HostAddress::Ipv4([192, 0, 2, 1].into()));
    assert_eq!((entries[1].host.to_string(), entries[1].port), ("2001:db8::1".to_owned(), 18333));
}

#[tokio::test]
async fn what_is_no_transaction_is_refused_and_costs_nothing_else() {
    let node = node(&chain(), Behaviour::Honest).await;
    let (mut client, _) = Client::ready(&node, &[]).await;
    let command = Message::Tx(chain().payments([[0x51]])[0].clone()).command();
    let payload = Bytes::from_static(b"no transaction");
    let Message::Reject(reject) = client.ask(&Message::Other { command, payload }).await else {
        panic!("no reject")
    };
    assert_eq!((reject.code, reject.hash), (RejectCode::MALFORMED, None));
    client.sync().await;
}
