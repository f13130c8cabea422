//! The ways to misbehave that are about the connection, and what the node counts.

use std::io::ErrorKind;

use bytes::BytesMut;
use tipward_simnet::{Behaviour, ChainSpec, Flood, SimChain, SimNode, Stage};
use tipward_wire::bitcoin::{Inventory, InventoryKind, Message, Network};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, node, version};

fn chain() -> SimChain {
    SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(10, 7))
}

/// Waits until the node has let all its connections go.
async fn all_closed(node: &SimNode) {
    while node.stats().open > 0 {
        tokio::task::yield_now().await;
    }
}

/// What comes until the connection is reset: with FIN instead, or no end, this fails. A write could take the error away.
async fn until_reset(client: &mut Client, stage: Stage) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        match client.try_next().await {
            Ok(message) => {
                heard.push(message.command().to_string());
                if matches!(message, Message::Version(_)) && stage != Stage::AfterVersion {
                    client.send(&Message::Verack).await;
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                return heard;
            }
        }
    }
}

#[tokio::test]
async fn connections_are_reset_at_each_stage() {
    for (stage, heard) in [
        (Stage::Connect, &[][..]),
        (Stage::BeforeVersion, &[]),
        (Stage::AfterVersion, &["version"]),
        (Stage::BeforeVerack, &["version"]),
        (Stage::AfterVerack, &["version", "verack"]),
    ] {
        let node = node(&chain(), Behaviour::ResetsAt(stage)).await;
        let mut client = Client::connect(&node).await;
        if stage != Stage::Connect {
            client.send(&Message::Version(version())).await;
        }
        assert_eq!(until_reset(&mut client, stage).await, heard, "{stage:?}");
        all_closed(&node).await;
        assert_eq!(node.stats().handshakes, 0);
    }
}

#[tokio::test]
async fn a_silent_node_reads_and_says_nothing() {
    let node = node(&chain(), Behaviour::SilentAtConnect).await;
    let mut client = Client::connect(&node).await;
    client.send(&Message::Version(version())).await;
    while node.stats().bytes_received == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(client.stream.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.stream.shutdown().await.unwrap();
    client.try_next().await.unwrap_err();
    assert_eq!(node.stats().bytes_sent, 0);
    all_closed(&node).await;
}

#[tokio::test]
async fn a_half_open_node_stops_reading() {
    let chain = chain();
    let node = node(&chain, Behaviour::HalfOpen { blocks: 2 }).await;
    let (mut client, _) = Client::ready(&node, &[]).await;
    let entries =
        chain.blocks().iter().map(|block| Inventory::block(InventoryKind::WitnessBlock, block.hash));
    client.send(&Message::GetData(entries.collect())).await;
    for block in &chain.blocks()[..2] {
        assert_eq!(client.next().await, Message::Block(block.raw.clone()));
    }
    // Without a reader, the buffers of both sides fill up.
    let mut written = 0;
    while let Ok(count) = client.stream.try_write(&[0; 1 << 16]) {
        written += count;
    }
    let stats = node.stats();
    assert!(written > 0 && stats.bytes_received < 2000, "{written} {stats:?}");
    assert_eq!((stats.blocks, stats.open, stats.handshakes), (2, 1, 1));
    // FIN would wait behind what is not read.
    client.stream.set_zero_linger().unwrap();
    drop(client);
    all_closed(&node).await;
}

#[tokio::test]
async fn a_flood_does_not_end() {
    for (kind, command) in [(Flood::Pings, "ping"), (Flood::Addresses, "addr"), (Flood::Unknown, "flood")] {
        let node = node(&chain(), Behaviour::Flooding { kind }).await;
        let mut client = Client::connect(&node).await;
        client.send(&Message::Version(version())).await;
        client.send(&Message::Verack).await;
        let mut heard = BytesMut::new();
        while heard.len() < 1 << 20 {
            client.stream.read_buf(&mut heard).await.unwrap();
        }
        let name = [command.as_bytes(), b"\0"].concat();
        let count = heard.windows(name.len()).filter(|window| *window == name).count();
        assert!(count > 30, "{count} times {command} in a megabyte");
        drop(client);
        all_closed(&node).await;
    }
}

#[tokio::test]
async fn what_a_node_does_is_counted() {
    let chain = chain();
    let node = node(&chain, Behaviour::Honest).await;
    let (one, _) = Client::ready(&node, &[]).await;
    let (mut two, _) = Client::ready(&node, &[]).await;
    let before = node.stats();
    assert_eq!((before.accepted, before.open, before.handshakes), (2, 2, 2));
    drop(one);
    let entry = Inventory::block(InventoryKind::WitnessBlock, chain.tip().hash);
    two.ask(&Message::GetData(vec![entry])).await;
    while node.stats().open > 1 {
        tokio::task::yield_now().await;
    }
    let after = node.stats();
    assert_eq!((after.accepted, after.blocks), (2, 1));
    assert_eq!(after.bytes_sent - before.bytes_sent, 24 + chain.tip().raw.len() as u64);
    assert_eq!(after.bytes_received - before.bytes_received, 24 + 1 + 36);
}
