//! A sync that is controlled while it runs, and what it tells of itself.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::BytesMut;
use tipward_chain::{
    Node, NodeBuilder,
    sync::{
        Block, BlockId, BlockSink, Progress, SinkError, SyncEnded, async_trait,
        peer::wire::{BlockPart, bitcoin::Network},
    },
};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};
use tipward_tests::wait_for;

const SLOW: Behaviour = Behaviour::Slow { bytes_per_second: 100_000 };

async fn serve(chain: &SimChain, behaviour: Behaviour) -> SimNode {
    SimNode::spawn(chain.clone(), behaviour, "127.0.0.1:0").await.unwrap()
}

fn builder(dir: &Path, nodes: &[&SimNode]) -> NodeBuilder {
    let builder = Node::builder(Network::BTC_REGTEST, dir).archive();
    nodes.iter().fold(builder, |builder, node| builder.connect(node.address().into()))
}

fn chain(blocks: u32) -> SimChain {
    SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(blocks, 5))
}

fn in_flight(progress: &Progress) -> usize {
    progress.shares.iter().map(|peer| peer.share.in_flight).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_paused_nothing_is_asked_for_and_headers_are_followed() {
    let (chain, dir) = (chain(300), tempfile::tempdir().unwrap());
    let server = serve(&chain, SLOW).await;
    let node = builder(dir.path(), &[&server]).spawn().await.unwrap();
    let control = node.control();
    wait_for(&node, "the first blocks", |progress| progress.blocks > 20).await;
    control.pause();
    let is_quiet = |progress: &Progress| {
        progress.paused && in_flight(progress) == 0 && progress.buffered_bytes == 0 && progress.eta.is_none()
    };
    let paused = wait_for(&node, "what was under way", is_quiet).await;
    let served = server.stats().blocks;
    let height = paused.applied.unwrap().height;
    assert!((20..300).contains(&height), "paused at {height}");
    let longer = chain.fork(300, ChainSpec::new(10, 6));
    server.set_chain(longer);
    wait_for(&node, "the new headers", |progress| progress.header_tip.unwrap().height == 310).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((server.stats().blocks, control.progress().applied.unwrap().height), (served, height));
    control.resume();
    let progress = wait_for(&node, "the rest", |progress| progress.synced).await;
    assert_eq!((progress.applied.unwrap().height, progress.paused, progress.peers_seen), (310, false, 1));
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_added_takes_its_share() {
    let (chain, dir) = (chain(300), tempfile::tempdir().unwrap());
    let (slow, fast) = (serve(&chain, SLOW).await, serve(&chain, Behaviour::Honest).await);
    let mut node = builder(dir.path(), &[&slow]).stop_when_synced().spawn().await.unwrap();
    let control = node.control();
    wait_for(&node, "the first blocks", |progress| progress.blocks > 20).await;
    control.add_peer(fast.address().into()).await.unwrap();
    let progress = wait_for(&node, "the other peer", |progress| progress.shares.len() == 2).await;
    let shares: BTreeMap<String, &str> =
        progress.shares.iter().map(|peer| (peer.address.to_string(), &peer.user_agent[..])).collect();
    let addresses = [&slow, &fast].map(|node| node.address().to_string());
    assert_eq!(
        shares.keys().collect::<Vec<_>>(),
        BTreeMap::from(addresses.each_ref().map(|a| (a, ()))).keys().copied().collect::<Vec<_>>()
    );
    assert!(shares.values().all(|agent| agent.starts_with("/tipward-simnet:")), "{shares:?}");
    node.wait().await.unwrap();
    let progress = control.progress();
    let brought: u64 = progress.shares.iter().map(|peer| peer.share.blocks).sum();
    assert!(brought >= progress.blocks && progress.blocks == 300, "{progress:?}");
    assert!(fast.stats().blocks > 100, "it has served {}", fast.stats().blocks);
    // The end is the end for who still holds the handle.
    assert_eq!(control.add_peer(fast.address().into()).await, Err(SyncEnded));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_peer_stays_away_and_others_bring_what_it_owed() {
    let (chain, dir) = (chain(300), tempfile::tempdir().unwrap());
    let (one, other) = (serve(&chain, SLOW).await, serve(&chain, SLOW).await);
    let mut node = builder(dir.path(), &[&one, &other]).stop_when_synced().spawn().await.unwrap();
    let control = node.control();
    wait_for(&node, "both", |progress| progress.peers == 2 && progress.blocks > 20).await;
    control.ban_peer(one.address().into(), "for the test").await.unwrap();
    let progress = wait_for(&node, "its end", |progress| progress.peers == 1).await;
    assert_eq!(progress.shares.len(), 1);
    node.wait().await.unwrap();
    assert_eq!((one.stats().handshakes, node.progress().blocks), (1, 300));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_progress_is_exact() {
    let (chain, dir) = (chain(300), tempfile::tempdir().unwrap());
    let (one, other) = (serve(&chain, Behaviour::Honest).await, serve(&chain, Behaviour::Honest).await);
    let mut node = builder(dir.path(), &[&one, &other]).stop_when_synced().spawn().await.unwrap();
    node.wait().await.unwrap();
    let progress = node.progress();
    // Genesis is known and does not travel.
    let bytes: usize = chain.blocks()[1..].iter().map(|block| block.raw.len()).sum();
    assert_eq!((progress.headers, progress.blocks, progress.bytes), (300, 300, bytes as u64));
    assert_eq!((progress.synced, progress.eta), (true, Some(Duration::ZERO)));
    assert_eq!(progress.applied, progress.header_tip);
    assert!(progress.bytes_per_second > 0 && progress.blocks_per_second > 0.0, "{progress:?}");
}

/// Puts blocks together, as they come or from their parts.
#[derive(Clone, Default)]
struct Assembler {
    takes_parts: bool,
    open: Vec<BlockPart>,
    blocks: Arc<Mutex<Vec<(BytesMut, bool)>>>,
}

#[async_trait]
impl BlockSink for Assembler {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        Ok(None)
    }

    fn takes_parts(&self) -> bool {
        self.takes_parts
    }

    async fn apply_part(&mut self, block: BlockId, part: BlockPart) -> Result<(), SinkError> {
        assert_eq!((part.block, part.index as usize), (block.hash, self.open.len()));
        self.open.push(part);
        Ok(())
    }

    async fn abort(&mut self, _: BlockId) -> Result<(), SinkError> {
        self.open.clear();
        Ok(())
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        let parts = if block.is_streamed { std::mem::take(&mut self.open) } else { block.parts };
        let mut whole = BytesMut::new();
        for part in parts {
            assert!(part.bytes.len() <= 1 << 20, "a part of {} bytes", part.bytes.len());
            whole.extend_from_slice(&part.bytes);
        }
        self.blocks.lock().unwrap().push((whole, block.is_streamed));
        Ok(())
    }

    async fn rollback(&mut self, _: BlockId) -> Result<(), SinkError> {
        Err("nothing is to be undone".into())
    }
}

/// A block that is larger than the budget comes in parts, or whole to a sink that takes none.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_larger_than_the_budget_reaches_the_sink() {
    let mut spec = ChainSpec::new(106, 9);
    (spec.max_transactions, spec.max_data) = (6, 6 << 20);
    let chain = SimChain::generate(Network::BSV_REGTEST, spec);
    let servers = [serve(&chain, Behaviour::Honest).await, serve(&chain, Behaviour::Honest).await];
    for takes_parts in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let sink = Assembler { takes_parts, ..Assembler::default() };
        let blocks = sink.blocks.clone();
        let mut builder = Node::builder(Network::BSV_REGTEST, dir.path()).sink(sink).stop_when_synced();
        builder.sync.byte_budget = 8 << 20;
        for server in &servers {
            builder = builder.connect(server.address().into());
        }
        let mut node = builder.spawn().await.unwrap();
        node.wait().await.unwrap();
        let found = blocks.lock().unwrap();
        assert_eq!(found.len(), chain.blocks().len());
        for (block, (bytes, is_streamed)) in chain.blocks().iter().zip(found.iter()) {
            assert!(bytes[..] == block.raw[..], "{} differs", block.hash);
            assert!(takes_parts || !is_streamed);
            assert!(!takes_parts || *is_streamed || block.raw.len() <= 8 << 20, "{} was kept", block.hash);
        }
        assert_eq!(found.iter().any(|(_, is_streamed)| *is_streamed), takes_parts);
    }
}
