//! A node that starts in the middle of a chain.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;

use tipward_chain::{
    Archive, Checkpoint, Node, NodeBuilder,
    sync::{
        Block, BlockId, BlockSink, SinkError, async_trait,
        peer::wire::{
            Header,
            bitcoin::{BlockHeader, Network},
        },
    },
};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};

const START: u64 = 30;

fn checkpoint(chain: &SimChain) -> Checkpoint {
    let headers: Vec<_> = chain.blocks()[..=START as usize].iter().map(|block| block.header).collect();
    Checkpoint {
        height: START,
        work: headers.iter().map(BlockHeader::work).sum(),
        headers: headers[START as usize - 10..].iter().copied().map(Header::from).collect(),
    }
}

fn node(chain: &SimChain, server: &SimNode, dir: &Path) -> NodeBuilder {
    let builder = Node::builder(Network::BTC_REGTEST, dir).connect(server.address().into());
    builder.start_at(checkpoint(chain)).stop_when_synced()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_has_what_follows_the_checkpoint() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(60, 1));
    let branch = chain.fork(START, ChainSpec::new(40, 2));
    let server = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    // From nothing, again with what is there, and over to a branch from the checkpoint itself.
    for (round, best) in [&chain, &chain, &branch].into_iter().enumerate() {
        server.set_chain(best.clone());
        let mut node = node(&chain, &server, dir.path()).archive().spawn().await.unwrap();
        node.wait().await.unwrap();
        let applied = node.shutdown().await.unwrap().applied.unwrap();
        assert_eq!((applied.height, applied.hash), (best.height(), best.tip().hash), "round {round}");
        let archive = Archive::open(&dir.path().join("blocks"), &Network::BTC_REGTEST).unwrap();
        for (height, block) in (0..).zip(best.blocks()) {
            let archived = archive.by_height(height).unwrap().map(|block| block.id.hash);
            assert_eq!(archived, (height > START).then_some(block.hash), "round {round}, height {height}");
        }
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_alone() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(60, 1));
    let server = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut node = node(&chain, &server, dir.path()).headers_only().spawn().await.unwrap();
    node.wait().await.unwrap();
    let progress = node.shutdown().await.unwrap();
    assert_eq!(progress.header_tip.unwrap().hash, chain.tip().hash);
    server.shutdown().await;
}

/// A sink that has blocks up to a height below the start.
struct Behind(BlockId);

#[async_trait]
impl BlockSink for Behind {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        Ok(Some(self.0))
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        panic!("{}", block.id)
    }

    async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError> {
        panic!("{to}")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_ends_below_the_start_is_refused() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(60, 1));
    let server = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cursor = BlockId { height: START - 1, hash: chain.blocks()[START as usize - 1].hash };
    let spawned = node(&chain, &server, dir.path()).sink(Behind(cursor)).spawn().await;
    let error = format!("{:?}", spawned.err().unwrap());
    assert!(error.contains("the chain starts with"), "{error}");
    server.shutdown().await;
}
