//! Nodes whose filters are false in every way there is, and honest ones among them.

use tipward_chain::{
    Node, NodeBuilder, NodeError,
    sync::{BlockId, Event, RescanError, WatchSet, peer::wire::bitcoin::Network},
};
use tipward_simnet::{Behaviour, ChainSpec, FilterFault, SimChain, SimNode};
use tipward_tests::{Found, patiently, wait_for};

/// Every so many blocks pay a script of ours.
const EVERY: u64 = 7;
const BLOCKS: u64 = 400;

fn script(number: u64) -> Vec<u8> {
    [&[0, 20][..], &number.to_le_bytes(), &[7; 12]].concat()
}

/// A chain whose blocks pay our scripts, each once and in their order.
fn chain() -> SimChain {
    let mut spec = ChainSpec::new(120, 5);
    (spec.max_transactions, spec.max_data) = (2, 40);
    let mut chain = SimChain::generate(Network::BTC_REGTEST, spec);
    extend(&mut chain, BLOCKS, 0);
    chain
}

fn extend(chain: &mut SimChain, up_to: u64, seed: u64) {
    while chain.height() < up_to {
        let height = chain.height() + 1;
        let payments =
            if height.is_multiple_of(EVERY) { chain.payments([script(height / EVERY)]) } else { vec![] };
        chain.extend_with(&payments, seed + height);
    }
}

/// The blocks that pay us.
fn paying(chain: &SimChain) -> Vec<BlockId> {
    let blocks = chain.blocks().iter().zip(0..).skip(121);
    let paying = blocks.filter(|(_, height): &(_, u64)| height.is_multiple_of(EVERY));
    paying.map(|(block, height)| BlockId { height, hash: block.hash }).collect()
}

fn blocks(found: &Found) -> Vec<BlockId> {
    found.transactions().into_iter().map(|(block, _)| block).collect()
}

/// A wallet that watches the next three scripts.
fn wallet(found: &Found, watch: &WatchSet, builder: NodeBuilder) -> NodeBuilder {
    let first = 121_u64.div_ceil(EVERY);
    (first..first + 3).for_each(|number| _ = watch.insert(script(number)));
    let more = watch.clone();
    let derive = move |paid: &[u8]| {
        let number = u64::from_le_bytes(paid[2..10].try_into().unwrap());
        (number..number + 4).for_each(|number| _ = more.insert(script(number)));
    };
    builder.sink(found.sink(watch.clone(), derive)).filters(watch.clone())
}

async fn serve(chain: &SimChain, behaviour: Behaviour) -> SimNode {
    SimNode::spawn(chain.clone(), behaviour, "127.0.0.1:0").await.unwrap()
}

fn builder(dir: &tempfile::TempDir, nodes: &[SimNode]) -> NodeBuilder {
    let builder = Node::builder(Network::BTC_REGTEST, dir.path());
    nodes.iter().fold(builder, |builder, node| builder.connect(node.address().into()))
}

/// What became of a sync with these faults beside one or two honest nodes: reasons for which peers were dropped.
async fn sync_among(faults: &[FilterFault], honest: usize) -> (Vec<String>, tipward_chain::sync::Progress) {
    let chain = chain();
    let mut nodes = Vec::new();
    for fault in faults {
        nodes.push(serve(&chain, Behaviour::Filters(*fault)).await);
    }
    for _ in 0..honest {
        nodes.push(serve(&chain, Behaviour::Honest).await);
    }
    let (found, watch, dir) = (Found::default(), WatchSet::new(), tempfile::tempdir().unwrap());
    let mut node = wallet(&found, &watch, builder(&dir, &nodes)).stop_when_synced().spawn().await.unwrap();
    let mut events = node.events();
    patiently("the sync", node.wait()).await.unwrap();
    assert_eq!(blocks(&found), paying(&chain), "{faults:?}");
    let (progress, mut reasons) = (node.progress(), Vec::new());
    node.shutdown().await.unwrap();
    while let Some(event) = events.next().await {
        if let Event::PeerDisconnected { reason, .. } = event {
            reasons.push(reason);
        }
    }
    (reasons, progress)
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_without_payments_are_found_out_by_the_block() {
    let (reasons, progress) = sync_among(&[FilterFault::LackPayments; 2], 1).await;
    let lies = reasons.iter().filter(|reason| reason.contains("of the block is not in it")).count();
    assert_eq!(lies, 2, "{reasons:?}");
    assert!(progress.disputed_filters > 0 && progress.undecided_filters == 0, "{progress:?}");
}

/// The block does not tell in every case, and never at the cost of the honest.
#[tokio::test(flavor = "multi_thread")]
async fn filters_with_more_are_found_out_or_the_block_is_taken() {
    let (reasons, progress) = sync_among(&[FilterFault::HaveMore; 2], 1).await;
    let lies = reasons.iter().filter(|reason| reason.contains("the block gives")).count();
    assert_eq!(lies, 2, "{reasons:?}");
    assert!(progress.disputed_filters > 0, "{progress:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_must_have_their_hashes() {
    let (reasons, progress) = sync_among(&[FilterFault::MissTheirHashes; 2], 1).await;
    assert!(reasons.iter().any(|reason| reason.contains("does not have the hash")), "{reasons:?}");
    assert_eq!(progress.disputed_filters, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_two_things_is_found_out() {
    let (reasons, _) = sync_among(&[FilterFault::ChangeTheirHashes; 2], 1).await;
    let found_out =
        |reason: &&String| reason.contains("said two different things") || reason.contains("false filter");
    assert_eq!(reasons.iter().filter(found_out).count(), 2, "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_serve_filters_after_all_is_done_without() {
    let (reasons, _) = sync_among(&[FilterFault::Silent, FilterFault::Refused], 1).await;
    assert!(reasons.iter().any(|reason| reason == "did not answer requests for filters"), "{reasons:?}");
}

/// Blocks come from whoever has them, and headers too.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_without_the_service_bit_are_not_asked_for_filters() {
    use tipward_simnet::SimOptions;
    let chain = chain();
    let mut options = SimOptions::default();
    options.services = Some(tipward_chain::sync::peer::wire::bitcoin::Services(9));
    let plain = [SimNode::spawn(chain.clone(), options, "127.0.0.1:0").await.unwrap()];
    let dir = tempfile::tempdir().unwrap();
    let (found, watch) = (Found::default(), WatchSet::new());
    let node = wallet(&found, &watch, builder(&dir, &plain)).spawn().await.unwrap();
    wait_for(&node, "the headers", |progress| {
        progress.header_tip.is_some_and(|tip| tip.height == BLOCKS) && progress.filter_peers == 0
    })
    .await;
    assert_eq!(node.progress().filters, 0);
    let honest = serve(&chain, Behaviour::Honest).await;
    node.control().add_peer(honest.address().into()).await.unwrap();
    wait_for(&node, "the tip", |progress| progress.synced).await;
    assert_eq!(blocks(&found), paying(&chain));
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorg_a_rescan_and_new_blocks() {
    let first = chain();
    let mut branch = first.fork(BLOCKS - 20, ChainSpec::new(0, 0));
    extend(&mut branch, BLOCKS + 10, 1000);
    let nodes = [serve(&first, Behaviour::Honest).await, serve(&first, Behaviour::Honest).await];
    let dir = tempfile::tempdir().unwrap();
    let (found, watch) = (Found::default(), WatchSet::new());
    let node = wallet(&found, &watch, builder(&dir, &nodes)).spawn().await.unwrap();
    let reached = |chain: &SimChain| {
        let tip = chain.tip().hash;
        move |progress: &tipward_chain::sync::Progress| {
            progress.synced && progress.applied.is_some_and(|at| at.hash == tip)
        }
    };
    wait_for(&node, "the tip", reached(&first)).await;
    assert_eq!(blocks(&found), paying(&first));
    nodes.iter().for_each(|node| node.set_chain(branch.clone()));
    wait_for(&node, "the branch", reached(&branch)).await;
    assert_eq!((blocks(&found), found.rollbacks()), (paying(&branch), vec![BLOCKS - 20]));
    for _ in 0..14 {
        let next = branch.height() + 1;
        extend(&mut branch, next, 0);
        nodes.iter().for_each(|node| node.set_chain(branch.clone()));
        wait_for(&node, "the next block", reached(&branch)).await;
    }
    assert_eq!(blocks(&found), paying(&branch));
    node.control().rescan(200).await.unwrap();
    let tip = reached(&branch);
    wait_for(&node, "the rescan", |progress| found.rollbacks().len() == 2 && tip(progress)).await;
    assert_eq!((blocks(&found), found.rollbacks()[1]), (paying(&branch), 200));
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let spawned = Node::builder(Network::BSV_REGTEST, dir.path())
        .sink(Found::default().sink(WatchSet::new(), |_| ()))
        .filters(WatchSet::new())
        .spawn()
        .await;
    let Err(NodeError::NoFilters { network }) = spawned else { panic!("BSV has no filters") };
    assert_eq!(network, Network::BSV_REGTEST.name);
    let node = Node::builder(Network::BTC_REGTEST, dir.path()).archive().spawn().await.unwrap();
    assert_eq!(node.control().rescan(0).await, Err(RescanError::NotFiltered));
    node.shutdown().await.unwrap();
}
