//! What a node tells of a reorg.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use tipward_chain::{
    Node,
    sync::{
        BlockId, Event,
        peer::wire::{BlockHash, bitcoin::Network},
    },
};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};

fn hashes(chain: &SimChain, above: usize) -> Vec<BlockHash> {
    chain.blocks()[above + 1..].iter().map(|block| block.hash).collect()
}

/// The event of a node that goes over from one chain to another.
async fn reorg(chain: &SimChain, branch: &SimChain, with_blocks: bool) -> Event {
    let server = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let node = Node::builder(Network::BTC_REGTEST, dir.path()).connect(server.address().into());
    let node = if with_blocks { node.archive() } else { node.headers_only() }.spawn().await.unwrap();
    let mut events = node.events();
    let event = loop {
        match events.next().await.unwrap() {
            Event::Synced { tip } if tip.hash == chain.tip().hash => server.set_chain(branch.clone()),
            event @ Event::Reorg { .. } => break event,
            _ => {}
        }
    };
    node.shutdown().await.unwrap();
    server.shutdown().await;
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn both_branches_are_told() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(40, 1));
    let branch = chain.fork(30, ChainSpec::new(15, 2));
    let id = |chain: &SimChain, height: usize| BlockId {
        height: height as u64,
        hash: chain.blocks()[height].hash,
    };
    for with_blocks in [false, true] {
        let expected = Event::Reorg {
            old_tip: id(&chain, 40),
            new_tip: id(&branch, 45),
            common: id(&chain, 30),
            depth: 10,
            old_branch: hashes(&chain, 30).into_iter().rev().collect(),
            new_branch: hashes(&branch, 30),
        };
        assert_eq!(reorg(&chain, &branch, with_blocks).await, expected, "blocks: {with_blocks}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_long_branches_a_thousand_blocks_are_told() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(1100, 1));
    let branch = chain.fork(20, ChainSpec::new(1200, 2));
    let Event::Reorg { depth, old_branch, new_branch, .. } = reorg(&chain, &branch, false).await else {
        panic!("it waits for a reorg");
    };
    assert_eq!(depth, 1080);
    assert!(hashes(&chain, 100).iter().rev().eq(&old_branch));
    assert_eq!(hashes(&branch, 20)[..1000], new_branch);
}
