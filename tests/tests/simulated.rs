//! A node of ours against the simulated network: peers that are slow, leave, fall silent or lose.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use tipward_chain::{
    Node,
    sync::{Block, BlockId, BlockSink, Event, SinkError, async_trait, peer::wire::bitcoin::Network},
};
use tipward_simnet::{Behaviour, ChainSpec, Demo, SimChain, SimNode};
use tipward_tests::{assert_archive_holds, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_reaches_the_winning_branch() {
    let mut demo = Demo::start(1).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut builder = Node::builder(Network::DEMO, dir.path()).archive();
    for (address, _) in demo.nodes() {
        builder = builder.connect(address.into());
    }
    let node = builder.spawn().await.unwrap();
    let progress = wait_for(&node, "the first tip", |progress| progress.synced).await;
    assert_eq!(
        (progress.applied.map(|tip| tip.height), progress.reorgs, progress.peers_seen),
        (Some(2003), 0, 5)
    );
    let height = demo.overtake();
    let progress = wait_for(&node, "the winning branch", |progress| {
        progress.synced && progress.applied.is_some_and(|tip| tip.height == height)
    })
    .await;
    assert_eq!(progress.reorgs, 1);
    node.shutdown().await.unwrap();
    demo.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_go_away_are_replaced_and_dialled_again() {
    let chain = SimChain::generate(Network::BSV_REGTEST, ChainSpec::new(300, 5));
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let leaves = Behaviour::ClosesAfter { blocks: 60 };
        nodes.push(SimNode::spawn(chain.clone(), leaves, "127.0.0.1:0").await.unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut builder = Node::builder(Network::BSV_REGTEST, dir.path()).archive().stop_when_synced();
    for node in &nodes {
        builder = builder.connect(node.address().into());
    }
    let mut node = builder.spawn().await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), node.wait()).await.unwrap().unwrap();
    assert!(node.progress().peers_seen > 3, "no three connections serve 300 blocks");
    let blocks = chain.blocks().iter().map(|block| (block.hash, &block.raw[..]));
    assert_archive_holds(dir.path(), Network::BSV_REGTEST, blocks);
}

/// A peer that pauses is asked again for what it still owes, and then sends it twice: no reason to part with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_pauses_keeps_its_place() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(300, 5));
    let pauses = Behaviour::PausesAfter { blocks: 100, milliseconds: 5000 };
    let server = SimNode::spawn(chain.clone(), pauses, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::builder(Network::BTC_REGTEST, dir.path())
        .archive()
        .connect(server.address().into())
        .stop_when_synced()
        .spawn()
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(60), node.wait()).await.unwrap().unwrap();
    assert_eq!(node.progress().peers_seen, 1);
    let blocks = chain.blocks().iter().map(|block| (block.hash, &block.raw[..]));
    assert_archive_holds(dir.path(), Network::BTC_REGTEST, blocks);
    // After its end a node may still be shut down.
    node.shutdown().await.unwrap();
}

/// With a limit, a stale branch that reaches it must not win over a chain that goes beyond.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_branch_does_not_win_by_a_limit() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(150, 5));
    let stale = chain.fork(90, ChainSpec::new(10, 77));
    let dir = tempfile::tempdir().unwrap();
    let stop = || Node::builder(Network::BTC_REGTEST, dir.path()).archive().stop_at(100);
    // Only headers of the stale branch are there at first.
    let server = SimNode::spawn(stale, Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let mut node = stop().headers_only().connect(server.address().into()).spawn().await.unwrap();
    node.wait().await.unwrap();
    drop(node);
    server.set_chain(chain.clone());
    let mut node = stop().connect(server.address().into()).spawn().await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), node.wait()).await.unwrap().unwrap();
    let blocks: Vec<_> = chain.blocks()[..=100].iter().map(|block| (block.hash, &block.raw[..])).collect();
    assert_archive_holds(dir.path(), Network::BTC_REGTEST, blocks.into_iter());
}

/// Blocks of many parts, with transactions larger than a part, from two peers at once.
#[tokio::test(flavor = "multi_thread")]
async fn large_blocks_arrive_in_parts() {
    let mut spec = ChainSpec::new(106, 9);
    (spec.max_transactions, spec.max_data) = (6, 6 << 20);
    let chain = SimChain::generate(Network::BSV_REGTEST, spec);
    let largest = chain.blocks().iter().map(|block| block.raw.len()).max().unwrap();
    assert!(largest > 12 << 20, "the largest has {largest} bytes");
    let dir = tempfile::tempdir().unwrap();
    let mut builder = Node::builder(Network::BSV_REGTEST, dir.path()).archive().stop_when_synced();
    let mut servers = Vec::new();
    for _ in 0..2 {
        let server = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
        builder = builder.connect(server.address().into());
        servers.push(server);
    }
    assert!(builder.peers.link.part_size < 6 << 20, "a transaction may be larger than a part");
    let mut node = builder.spawn().await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), node.wait()).await.unwrap().unwrap();
    let blocks = chain.blocks().iter().map(|block| (block.hash, &block.raw[..]));
    assert_archive_holds(dir.path(), Network::BSV_REGTEST, blocks);
}

/// Without addresses, DNS seeds are asked, and what comes back is dialled at the network's port.
#[tokio::test(flavor = "multi_thread")]
async fn seeds_are_resolved_and_dialled() {
    let chain = SimChain::generate(Network::BSV_REGTEST, ChainSpec::new(30, 5));
    let server = SimNode::spawn(chain, Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let network: &'static Network = Box::leak(Box::new(Network {
        dns_seeds: &["no-such-host.invalid", "localhost"],
        default_port: server.address().port(),
        ..Network::BSV_REGTEST.clone()
    }));
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::builder(network, dir.path()).archive().stop_when_synced().spawn().await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), node.wait()).await.unwrap().unwrap();
    assert_eq!(node.progress().applied.map(|tip| tip.height), Some(30));
}

/// A sink of a user's, slow, with a record of what it saw.
#[derive(Default)]
struct Slow {
    seen: Vec<BlockId>,
    fails_at: Option<u64>,
}

#[async_trait]
impl BlockSink for Slow {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        Ok(None)
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        tokio::time::sleep(Duration::from_millis(2)).await;
        if self.fails_at == Some(block.id.height) {
            return Err("the disk is full".into());
        }
        assert_eq!(block.id.height, self.seen.len() as u64, "in order");
        self.seen.push(block.id);
        Ok(())
    }

    async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError> {
        self.seen.truncate(to.height as usize + 1);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_sink_costs_no_peer_its_standing() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(2500, 6));
    let server = SimNode::spawn(chain, Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::builder(Network::BTC_REGTEST, dir.path())
        .sink(Slow::default())
        .connect(server.address().into())
        .stop_when_synced()
        .spawn()
        .await
        .unwrap();
    let mut events = node.events();
    node.wait().await.unwrap();
    assert_eq!(node.progress().peers_seen, 1);
    let mut missed = 0;
    while let Some(event) = events.next().await {
        match event {
            Event::PeerDisconnected { reason, .. } => assert_eq!(reason, "shutting down"),
            Event::Missed(count) => missed += count,
            _ => {}
        }
    }
    // Nobody took events during the sync: they were missed, and held nothing up.
    assert!(missed > 1000, "missed {missed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_sink_ends_the_sync_with_its_error() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(100, 6));
    let server = SimNode::spawn(chain, Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::builder(Network::BTC_REGTEST, dir.path())
        .sink(Slow { fails_at: Some(50), ..Slow::default() })
        .connect(server.address().into())
        .spawn()
        .await
        .unwrap();
    assert_eq!(node.wait().await.unwrap_err().to_string(), "the sink failed: the disk is full");
    assert_eq!(node.progress().applied.map(|tip| tip.height), Some(49));
}

/// Nothing of a node stays behind when it is shut down: neither sockets nor the lock on its stores.
#[tokio::test(flavor = "multi_thread")]
async fn after_shutdown_everything_is_free_again() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(50, 6));
    let server = SimNode::spawn(chain, Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let node = Node::builder(Network::BTC_REGTEST, dir.path())
            .archive()
            .connect(server.address().into())
            .spawn()
            .await
            .unwrap();
        wait_for(&node, "a peer", |progress| progress.peers == 1).await;
        let progress = node.shutdown().await.unwrap();
        assert_eq!(progress.peers_seen, 1);
    }
}
