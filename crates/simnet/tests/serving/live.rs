//! What can be changed while a node runs, and what it takes to break off in the middle of a block.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use tipward_simnet::{Behaviour, ChainSpec, Flood, Midway, SimChain, SimNode, SimOptions, Stage};
use tipward_wire::{
    BlockHash,
    bitcoin::{Inventory, InventoryKind, Locator, Message, Network},
};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use crate::client::{Client, node};

/// Long enough for what comes to have come.
const SHORT: Duration = Duration::from_millis(100);

fn chain() -> SimChain {
    let mut chain = SimChain::genesis(Network::BSV_REGTEST);
    chain.extend_sized(10, 100_000..=100_000, 1);
    chain
}

fn getdata(hashes: impl IntoIterator<Item = BlockHash>) -> Message {
    let entry = |hash| Inventory::block(InventoryKind::Block, hash);
    Message::GetData(hashes.into_iter().map(entry).collect())
}

fn all(chain: &SimChain) -> Message {
    getdata(chain.blocks().iter().map(|block| block.hash))
}

fn block(chain: &SimChain, height: usize) -> Message {
    Message::Block(chain.blocks()[height].bytes())
}

/// How many bytes come until nothing comes for a while, or the connection ends with the error.
async fn drain(client: &mut Client) -> (usize, Option<ErrorKind>) {
    let (mut bytes, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match timeout(SHORT, client.stream.read(&mut buffer)).await {
            Err(_) => return (bytes, None),
            Ok(Ok(0)) => return (bytes, Some(ErrorKind::UnexpectedEof)),
            Ok(Ok(read)) => bytes += read,
            Ok(Err(error)) => return (bytes, Some(error.kind())),
        }
    }
}

#[tokio::test]
async fn getblocks_is_answered_as_nodes_do() {
    let chain = SimChain::generate(Network::BSV_REGTEST, ChainSpec::new(1200, 7));
    let fork = chain.fork(600, ChainSpec::new(5, 9));
    let node = node(&chain, Behaviour::Honest).await;
    let (mut client, _) = Client::ready(&node, &[]).await;
    let hash = |height: usize| chain.blocks()[height].hash;
    let ask = |hashes: Vec<BlockHash>, stop| Message::GetBlocks(Locator { protocol: 70016, hashes, stop });
    let entries = |heights: std::ops::Range<usize>| {
        Message::Inv(heights.map(|height| Inventory::block(InventoryKind::Block, hash(height))).collect())
    };
    // After the first block that is on its chain, not after those that are on another.
    let locator = vec![fork.tip().hash, BlockHash::from_bytes([7; 32]), hash(600), hash(3)];
    assert_eq!(client.ask(&ask(locator.clone(), BlockHash::ZERO)).await, entries(601..1101));
    assert_eq!(client.ask(&ask(locator, hash(610))).await, entries(601..610), "the stop is not listed");
    assert_eq!(client.ask(&ask(vec![BlockHash::from_bytes([7; 32])], hash(4))).await, entries(1..4));
    assert_eq!(
        client.ask(&ask(vec![], hash(0))).await,
        entries(1..501),
        "a stop that does not follow is none"
    );
    // Five hundred exactly are a full list, too.
    assert_eq!(client.ask(&ask(vec![hash(700)], BlockHash::ZERO)).await, entries(701..1201));
    assert!(matches!(client.ask(&getdata([hash(1200)])).await, Message::Block(_)));
    assert_eq!(client.next().await, entries(1200..1201));
    // It is told once.
    assert!(matches!(client.ask(&getdata([hash(1200)])).await, Message::Block(_)));
    client.sync().await;
    // One less is not.
    assert_eq!(client.ask(&ask(vec![hash(701)], BlockHash::ZERO)).await, entries(702..1201));
    assert!(matches!(client.ask(&getdata([hash(1200)])).await, Message::Block(_)));
    client.sync().await;
}

#[tokio::test]
async fn a_node_breaks_off_in_the_middle_of_a_block() {
    let chain = chain();
    let half = (24 + 100_000 / 2) as usize;
    for (then, ends_with) in [
        (Midway::Closes, Some(ErrorKind::UnexpectedEof)),
        (Midway::Resets, Some(ErrorKind::ConnectionReset)),
        (Midway::Stalls, None),
        (Midway::Trickles { bytes_per_second: 1 }, None),
    ] {
        let node = node(&chain, Behaviour::Midway { blocks: 3, then }).await;
        let (mut client, _) = Client::ready(&node, &[]).await;
        client.send(&getdata(chain.blocks()[1..9].iter().map(|block| block.hash))).await;
        // A reset takes away what was not read yet.
        let whole = if then == Midway::Resets { 0 } else { 3 };
        for height in 1..=whole {
            assert_eq!(client.next().await, block(&chain, height), "{then:?}");
        }
        let before = client.buffered();
        let (bytes, end) = drain(&mut client).await;
        assert_eq!(end, ends_with, "{then:?}");
        // The frame's start is known already; and what trickles has begun to.
        let (found, most) = (before + bytes, half + 1 + (3 - whole) * 100_024);
        assert!(found <= most, "{then:?}: {found}");
        assert!(found >= half - 24 || then == Midway::Resets, "{then:?}: {found}");
    }
}

#[tokio::test]
async fn a_block_that_was_broken_off_goes_on_when_the_node_is_mended() {
    let chain = chain();
    for then in [Midway::Stalls, Midway::Trickles { bytes_per_second: 1 }] {
        let node = node(&chain, Behaviour::Midway { blocks: 1, then }).await;
        let (mut client, _) = Client::ready(&node, &[]).await;
        client.send(&all(&chain)).await;
        assert_eq!(client.next().await, block(&chain, 0));
        assert!(timeout(SHORT, client.next()).await.is_err(), "{then:?}");
        node.set_behaviour(Behaviour::Honest);
        for height in 1..=10 {
            assert_eq!(client.next().await, block(&chain, height), "{then:?}");
        }
        client.sync().await;
        // And a node can come to it again.
        node.set_behaviour(Behaviour::Midway { blocks: 0, then });
        client.send(&all(&chain)).await;
        assert!(timeout(SHORT, client.next()).await.is_err(), "{then:?}");
    }
}

#[tokio::test]
async fn a_rate_holds_in_the_middle_of_a_block_too() {
    let mut chain = SimChain::genesis(Network::BSV_REGTEST);
    chain.extend_sized(1, 64 << 20..=64 << 20, 1);
    let node = node(&chain, Behaviour::Honest).await;
    let (mut client, _) = Client::ready(&node, &[]).await;
    client.send(&getdata([chain.tip().hash])).await;
    assert!(timeout(SHORT, client.stream.readable()).await.is_ok());
    node.set_behaviour(Behaviour::Slow { bytes_per_second: 1 });
    let (bytes, end) = drain(&mut client).await;
    assert!(bytes < 60 << 20 && end.is_none(), "{bytes}");
    node.set_behaviour(Behaviour::Honest);
    let (rest, end) = drain(&mut client).await;
    assert_eq!((bytes + rest, end), (24 + (64 << 20), None));
}

#[tokio::test]
async fn a_node_falls_silent_and_comes_back() {
    let chain = chain();
    for behaviour in [
        Behaviour::SilentAfter { blocks: 0 },
        Behaviour::SilentAtConnect,
        Behaviour::HalfOpen { blocks: 0 },
        Behaviour::Flooding { kind: Flood::Unknown },
    ] {
        let node = node(&chain, Behaviour::Honest).await;
        let (mut client, _) = Client::ready(&node, &[]).await;
        client.sync().await;
        node.set_behaviour(behaviour);
        if behaviour == (Behaviour::Flooding { kind: Flood::Unknown }) {
            while !matches!(client.next().await, Message::Other { .. }) {}
        } else {
            // A node that is half open hears of this later.
            client.send(&all(&chain)).await;
            assert!(timeout(SHORT, client.next()).await.is_err(), "{behaviour:?}");
        }
        node.set_behaviour(Behaviour::Honest);
        tokio::time::sleep(SHORT).await;
        client.send(&getdata([chain.tip().hash])).await;
        let mut others = 0;
        loop {
            match client.next().await {
                message if message == block(&chain, 10) && others != 10 => break,
                Message::Block(_) => others += 1,
                Message::Other { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        let is_half_open = matches!(behaviour, Behaviour::HalfOpen { .. });
        assert!(others == 0 || is_half_open, "{behaviour:?}: {others}");
    }
}

#[tokio::test]
async fn a_reset_can_be_ordered() {
    let chain = chain();
    let node = node(&chain, Behaviour::Honest).await;
    let (mut client, _) = Client::ready(&node, &[]).await;
    node.set_behaviour(Behaviour::ResetsAt(Stage::AfterVerack));
    assert_eq!(client.try_next().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_node_that_is_stopped_is_gone_until_it_is_restarted() {
    let chain = chain();
    let node = node(&chain, Behaviour::Midway { blocks: 3, then: Midway::Stalls }).await;
    for _ in 0..3 {
        let (mut client, _) = Client::ready(&node, &[]).await;
        client.send(&all(&chain)).await;
        for height in 0..3 {
            assert_eq!(client.next().await, block(&chain, height));
        }
        let (mut other, _) = Client::ready(&node, &[]).await;
        node.stop().await;
        assert_eq!(node.stats().open, 0);
        assert_eq!(client.try_next().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(other.try_next().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        let refused = TcpStream::connect(node.address()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        node.restart().await.unwrap();
    }
    Client::ready(&node, &[]).await.0.sync().await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_stale_node_shows_nothing_above_its_tip() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(50, 7));
    let node = node(&chain, Behaviour::StaleTip { height: 30 }).await;
    let (mut client, version) = Client::ready(&node, &[]).await;
    assert_eq!(version.start_height, 30);
    let hash = |height: usize| chain.blocks()[height].hash;
    let locator = |from| Locator { protocol: 70016, hashes: vec![from], stop: BlockHash::ZERO };
    let Message::Headers(headers) = client.ask(&Message::GetHeaders(locator(hash(0)))).await else {
        panic!("no headers")
    };
    assert_eq!((headers.len(), headers[29].hash()), (30, hash(30)));
    let ask = Message::GetHeaders(locator(hash(40)));
    let Message::Headers(headers) = client.ask(&ask).await else { panic!("no headers") };
    assert_eq!(headers.len(), 30, "what it does not show it does not know");
    client.send(&getdata([hash(31)])).await;
    client.send(&Message::GetBlocks(locator(hash(30)))).await;
    client.sync().await;
    node.set_behaviour(Behaviour::Honest);
    assert!(matches!(client.ask(&getdata([hash(31)])).await, Message::Block(_)));
}

#[tokio::test]
async fn blocks_that_are_missing_or_were_not_asked_for() {
    let chain = chain();
    let node = node(&chain, Behaviour::LacksBlocks).await;
    let (mut client, _) = Client::ready(&node, &[]).await;
    let Message::GetData(entries) = all(&chain) else { panic!("no question") };
    assert_eq!(client.ask(&all(&chain)).await, Message::NotFound(entries));
    node.set_behaviour(Behaviour::PushesBlock);
    assert_eq!(client.next().await, block(&chain, 10));
    client.sync().await;
    let pushing = SimNode::spawn(chain.clone(), Behaviour::PushesBlock, "127.0.0.1:0").await.unwrap();
    let mut client = Client::connect(&pushing).await;
    client.send(&Message::Version(crate::client::version())).await;
    client.send(&Message::Verack).await;
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| last != "block") {
        heard.push(client.next_unready().await.command().to_string());
    }
    assert_eq!(heard, ["version", "verack", "protoconf", "block"]);
}

#[tokio::test]
async fn a_wrong_merkle_root_is_wrong_in_blocks_of_every_size() {
    let mut chain = chain();
    chain.extend_sized(1, 250..=250, 1);
    chain.extend_sized(1, 40 << 20..=40 << 20, 1);
    let honest = node(&chain, Behaviour::Honest).await;
    let (mut client, _) = Client::ready(&honest, &[]).await;
    client.send(&all(&chain)).await;
    for height in 0..=12 {
        assert_eq!(client.next().await, block(&chain, height));
    }
    for block in [&chain.blocks()[10], &chain.blocks()[11], &chain.blocks()[12]] {
        let node = node(&chain, Behaviour::WrongMerkleRoot).await;
        let (mut client, _) = Client::ready(&node, &[]).await;
        client.send(&getdata([block.hash])).await;
        let error = client.failure().await.to_string();
        assert!(error.contains("merkle root"), "{error}");
    }
}

/// At least so long: the rest is the machine's.
#[tokio::test]
async fn latency_and_bandwidth_are_kept() {
    let chain = chain();
    let mut options = SimOptions::default();
    options.latency = Duration::from_millis(150);
    let distant = node(&chain, options.clone()).await;
    let (mut client, _) = Client::ready(&distant, &[]).await;
    let start = Instant::now();
    client.sync().await;
    assert!(start.elapsed() >= options.latency);
    // A question waits as long as it would alone, however many came before it.
    let start = Instant::now();
    for _ in 0..100 {
        client.send(&Message::Ping(1)).await;
    }
    for _ in 0..100 {
        assert_eq!(client.next().await, Message::Pong(1));
    }
    let took = start.elapsed();
    assert!(took >= options.latency && took < 50 * options.latency, "{took:?}");

    let mut options = SimOptions::default();
    options.bytes_per_second = Some(1_000_000);
    let narrow = node(&chain, options).await;
    let (mut client, _) = Client::ready(&narrow, &[]).await;
    let start = Instant::now();
    client.send(&getdata(chain.blocks()[1..6].iter().map(|block| block.hash))).await;
    for height in 1..6 {
        assert_eq!(client.next().await, block(&chain, height));
    }
    assert!(start.elapsed() >= Duration::from_millis(350), "{:?}", start.elapsed());
}
