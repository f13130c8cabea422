//! Real blocks and headers.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{fs, path::Path, sync::Arc};

use bytes::{Bytes, BytesMut};
use tipward_chain::{
    HeaderChain, HeaderOptions, Node,
    sync::{
        Chain as _,
        peer::{
            Manager, ManagerOptions, PeerEvent, Reply, Want,
            bitcoin::Bitcoin,
            wire::{
                BlockEvent, BlockHash, Header,
                bitcoin::{BlkDecoder, BlkEvent, BlockHeader, Network, Work},
            },
        },
    },
};
use tipward_simnet::{Behaviour, SimChain, SimNode};
use tipward_tests::{assert_archive_holds, testdata, wait_for};

/// Every block of a file, with the absolute offsets of its transactions. The decoder checks parsing, the count and the
/// merkle root.
fn blocks(path: &Path, part_size: usize) -> Vec<(BlockHash, Vec<u64>, Bytes)> {
    let mut input = BytesMut::from(&fs::read(path).unwrap()[..]);
    let mut decoder = BlkDecoder::new(part_size);
    let (mut blocks, mut offsets, mut raw) = (Vec::new(), Vec::new(), BytesMut::new());
    while let Some(event) = decoder.decode(&mut input).unwrap() {
        match event {
            BlkEvent::Begin { .. } => {}
            BlkEvent::Block(BlockEvent::Part(part)) => {
                assert_eq!(part.offset as usize, raw.len());
                offsets.extend(part.transactions.iter().map(|&start| part.offset + u64::from(start)));
                raw.extend_from_slice(&part.bytes);
            }
            BlkEvent::Block(BlockEvent::End(end)) => {
                assert_eq!((end.size as usize, end.transactions as usize), (raw.len(), offsets.len()));
                blocks.push((end.block, std::mem::take(&mut offsets), std::mem::take(&mut raw).freeze()));
            }
        }
    }
    decoder.finish(&input).unwrap();
    blocks
}

#[test]
fn all_transaction_offsets_of_a_real_block() {
    let (Some(file), Some(list)) =
        (testdata("btc-mainnet-block-413567.blk"), testdata("btc-mainnet-block-413567-tx-offsets.txt"))
    else {
        return;
    };
    let expected: Vec<u64> =
        fs::read_to_string(list).unwrap().split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert_eq!(expected.len(), 1557);
    for part_size in [1000, 65_536, 1 << 25] {
        assert_eq!(blocks(&file, part_size)[0].1, expected, "part size {part_size}");
    }
}

#[test]
fn every_real_block_passes_its_checks() {
    for (name, count) in [
        ("btc-mainnet-block-300025.blk", 1),
        ("btc-mainnet-block-413567.blk", 1),
        ("btc-mainnet-blocks-831328-831335.blk", 8),
        ("btc-mainnet-blocks-928816-928828.blk", 2),
        ("bsv-regtest-chain-116.blk", 117),
        ("bsv-regtest-chain-118.blk", 119),
    ] {
        let Some(file) = testdata(name) else { return };
        let whole = blocks(&file, 1 << 25);
        assert_eq!(whole.len(), count, "{name}");
        assert!(blocks(&file, 50_000) == whole, "{name} in parts");
    }
}

fn headers(path: &Path) -> Vec<Header> {
    let bytes = fs::read(path).unwrap();
    bytes.chunks(80).map(|raw| BlockHeader::from_bytes(raw.try_into().unwrap()).into()).collect()
}

#[test]
fn real_header_chains_link_and_have_their_work() {
    let (Some(main), Some(signet), Some(works)) = (
        testdata("btc-mainnet-headers-0-10236.bin"),
        testdata("btc-signet-headers-0-2015.bin"),
        testdata("btc-mainnet-chainwork.csv"),
    ) else {
        return;
    };
    for (network, file) in [(Network::BTC, &main), (Network::BTC_SIGNET, &signet)] {
        let dir = tempfile::tempdir().unwrap();
        // These alone do not have the work that would have them let in from a peer.
        let mut options = HeaderOptions::default();
        options.looks_twice = false;
        let mut chain = HeaderChain::open_with(&dir.path().join("headers.redb"), &network, options).unwrap();
        let headers = headers(file);
        for run in headers.chunks(2000) {
            chain.accept(run).unwrap();
        }
        assert_eq!(chain.tip().height as usize, headers.len() - 1, "{}", network.name);
        if network == Network::BTC {
            let checked =
                fs::read_to_string(&works).unwrap().lines().filter(|line| is_work(&chain, line)).count();
            assert!(checked >= 10, "{checked} heights of the list are on the chain");
        }
    }
}

/// Whether the line is of a height that the chain has; its work must be the one listed then.
fn is_work(chain: &HeaderChain, line: &str) -> bool {
    let mut fields = line.split(',').map(str::trim);
    let (Some(Ok(height)), Some(work)) = (fields.next().map(str::parse::<u64>), fields.next()) else {
        return false;
    };
    let Some(hash) = chain.best_at(height) else { return false };
    let work = work.trim_start_matches("0x");
    assert_eq!(chain.tree().work(hash).unwrap().to_string(), format!("{work:0>64}"), "height {height}");
    true
}

/// The eight real blocks as a network of their own that starts with the first of them.
fn network_from(blocks: &[(BlockHash, Vec<u64>, Bytes)]) -> &'static Network {
    let first: &'static [u8] = blocks[0].2.to_vec().leak();
    Box::leak(Box::new(Network {
        name: "btc",
        genesis_header: first[..80].try_into().unwrap(),
        genesis_body: &first[80..],
        min_work: Work::ZERO,
        ..Network::BTC.clone()
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn real_segwit_blocks_arrive_byte_for_byte() {
    let Some(file) = testdata("btc-mainnet-blocks-831328-831335.blk") else { return };
    let expected = blocks(&file, 1 << 25);
    let chain = SimChain::from_blk(&file, Network::BTC).unwrap();
    let server = SimNode::spawn(chain, Behaviour::Honest, "127.0.0.1:0").await.unwrap();

    // Asked for one by one, all eight.
    let mut options = ManagerOptions::default();
    options.addresses = vec![server.address().into()];
    let (events, mut inbox) = tokio::sync::mpsc::channel(16);
    let manager = Manager::spawn(Arc::new(Bitcoin::new(Network::BTC)), options, events).await.unwrap();
    let (mut arrived, mut raw) = (Vec::new(), BytesMut::new());
    while arrived.len() < expected.len() {
        match inbox.recv().await.unwrap() {
            PeerEvent::Connected(peer) => {
                peer.ask(Want::Blocks(expected.iter().map(|(hash, ..)| *hash).collect())).unwrap();
            }
            PeerEvent::Reply { reply: Reply::Part(part), .. } => raw.extend_from_slice(&part.bytes),
            PeerEvent::Reply { reply: Reply::BlockEnd(end), .. } => {
                arrived.push((end.block, std::mem::take(&mut raw).freeze()));
            }
            PeerEvent::Settled | PeerEvent::Changed(_) | PeerEvent::Primary(_) | PeerEvent::Reply { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    for ((hash, bytes), (expected_hash, _, expected_bytes)) in arrived.iter().zip(&expected) {
        assert!(hash == expected_hash && bytes == expected_bytes, "{hash}");
    }
    manager.shutdown().await;

    // And the whole way, from headers to the archive.
    let network = network_from(&expected);
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::builder(network, dir.path())
        .archive()
        .connect(server.address().into())
        .stop_when_synced()
        .spawn()
        .await
        .unwrap();
    node.wait().await.unwrap();
    assert_archive_holds(dir.path(), network, expected.iter().map(|(hash, _, raw)| (*hash, &raw[..])));
}

/// Two real chains that fork after block 110: the shorter one first, then the longer one.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_fork_is_followed() {
    let (Some(short), Some(long)) =
        (testdata("bsv-regtest-chain-116.blk"), testdata("bsv-regtest-chain-118.blk"))
    else {
        return;
    };
    let chain = |file| SimChain::from_blk(file, Network::BSV_REGTEST).unwrap();
    let server = SimNode::spawn(chain(&short), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let node = Node::builder(Network::BSV_REGTEST, dir.path())
        .archive()
        .connect(server.address().into())
        .spawn()
        .await
        .unwrap();
    wait_for(&node, "the short chain", |progress| progress.synced).await;
    assert_eq!(node.progress().applied.unwrap().height, 116);
    server.set_chain(chain(&long));
    let progress = wait_for(&node, "the long chain", |progress| {
        progress.synced && progress.applied.is_some_and(|tip| tip.height == 118)
    })
    .await;
    assert_eq!((progress.reorgs, progress.blocks), (1, 116 + 8));
    node.shutdown().await.unwrap();
    let expected = blocks(&long, 1 << 25);
    assert_archive_holds(
        dir.path(),
        Network::BSV_REGTEST,
        expected.iter().map(|(hash, _, raw)| (*hash, &raw[..])),
    );
}
