//! Peers that send what they must not: each is dropped with the reason, nothing of it is kept, and the sync goes on with
//! the others.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use tipward_chain::{
    BlockRules, Node, Verdict,
    sync::{Block, Event, SinkError, WatchSet, async_trait},
    wire::bitcoin::Network,
};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};
use tipward_tests::{Found, assert_archive_holds};

/// Syncs from a liar, whose chain goes on for so many blocks that nobody must believe it, and from an honest node slow
/// enough for the liar to be asked. Returns why the liar was lost, each time.
async fn sync_beside(behaviour: Behaviour, ahead: u32) -> Vec<String> {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(200, 5));
    let mut longer = chain.clone();
    longer.extend(ChainSpec::new(ahead, 6));
    let liar = SimNode::spawn(longer, behaviour, "127.0.0.1:0").await.unwrap();
    let slow = Behaviour::Slow { bytes_per_second: 200_000 };
    let honest = SimNode::spawn(chain.clone(), slow, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::builder(Network::BTC_REGTEST, dir.path())
        .archive()
        .connect(liar.address().into())
        .connect(honest.address().into())
        .stop_when_synced()
        .spawn()
        .await
        .unwrap();
    let mut events = node.events();
    tokio::time::timeout(Duration::from_secs(60), node.wait()).await.unwrap().unwrap();

    let mut lost = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Event::PeerDisconnected { address, reason, .. } if address == liar.address().into() => {
                lost.push(reason);
            }
            Event::PeerDisconnected { reason, .. } => panic!("the honest node was lost: {reason}"),
            Event::Missed(count) => panic!("missed {count} events"),
            _ => {}
        }
    }
    let blocks = chain.blocks().iter().map(|block| (block.hash, &block.raw[..]));
    assert_archive_holds(dir.path(), Network::BTC_REGTEST, blocks);
    liar.shutdown().await;
    honest.shutdown().await;
    lost
}

async fn is_dropped(behaviour: Behaviour, ahead: u32, reason: &str) {
    let lost = sync_beside(behaviour, ahead).await;
    assert_eq!(lost.len(), 1, "{behaviour:?}: dropped once and not dialled again: {lost:?}");
    assert!(lost[0].contains(reason), "{behaviour:?}: {lost:?}");
}

macro_rules! dropped {
    ($($name:ident: $behaviour:ident, $ahead:literal ahead, $reason:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                is_dropped(Behaviour::$behaviour, $ahead, $reason).await;
            }
        )*
    };
}

dropped! {
    wrong_magic: WrongMagic, 0 ahead, "wrong network magic deadbeef, expected fabfb5da";
    bad_checksum: BadChecksum, 0 ahead, "its frame has checksum";
    oversized_length: OversizedLength, 5 ahead, "'headers' announces 4026531840 bytes, the limit is 178009";
    headers_that_do_not_link: UnlinkedHeaders, 5 ahead, "does not follow the header before it";
    headers_of_unknown_parents: UnknownParent, 5 ahead, "headers that do not link to the chain";
    headers_without_work: HeadersWithoutWork, 5 ahead, "lacks proof of work for its target 207fffff";
    unrequested_block: UnrequestedBlock, 0 ahead, "which was not asked for";
    wrong_merkle_root: WrongMerkleRoot, 0 ahead, "wrong merkle root";
    wrong_witnesses: WrongWitnesses, 0 ahead, "wrong witness commitment";
}

/// A connection that breaks in the middle of a block is no lie: the peer is dialled again, and what it sent is void.
#[tokio::test(flavor = "multi_thread")]
async fn truncated_frame() {
    let lost = sync_beside(Behaviour::TruncatedFrame, 0).await;
    // Some may show as a reset, when the other side closed with something of ours unread.
    assert!(lost.iter().any(|reason| reason.contains("in the middle of a message")), "{lost:?}");
}

/// With nobody else to turn to, a node that may give up says what was wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_liar_alone_ends_the_sync_with_its_reason() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(20, 5));
    let liar = SimNode::spawn(chain, Behaviour::WrongMerkleRoot, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::builder(Network::BTC_REGTEST, dir.path())
        .archive()
        .connect(liar.address().into())
        .give_up_without_peers()
        .spawn()
        .await
        .unwrap();
    let error = node.wait().await.unwrap_err().to_string();
    let start = format!("{} was dropped: block ", liar.address());
    assert!(error.starts_with(&start) && error.ends_with(": wrong merkle root"), "{error}");
}

#[tokio::test]
async fn what_does_not_go_together_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let (sink, watch) = (Found::default().sink(WatchSet::new(), |_| {}), WatchSet::new());
    let both = Node::builder(Network::BTC_REGTEST, &data_dir).sink(sink).archive();
    let refused = both.spawn().await.unwrap_err().to_string();
    assert!(refused.starts_with("there are a sink and an archive"), "{refused}");
    let filters = Node::builder(Network::BTC_REGTEST, &data_dir).block_rules(NoRules).filters(watch);
    let refused = filters.spawn().await.unwrap_err().to_string();
    assert!(refused.starts_with("block rules need every block"), "{refused}");
    assert!(!data_dir.exists());
}

/// Lets every block pass.
struct NoRules;

#[async_trait]
impl BlockRules for NoRules {
    async fn check(&mut self, _block: &Block) -> Result<Verdict, SinkError> {
        Ok(Verdict::Valid)
    }
}
