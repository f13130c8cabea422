//! Blocks that a user's rules refuse.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tipward_chain::{
    BlockRules, Node, NodeBuilder, NodeError, Verdict,
    sync::{
        Block, BlockId, BlockRejected, BlockSink, Event, SinkError, SyncError, async_trait,
        peer::wire::{BlockHash, BlockPart, bitcoin::Network},
    },
};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};

/// What rules and sink were told, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Checked(BlockHash),
    Applied(BlockHash),
    Aborted(BlockHash),
    RolledBack(BlockHash),
}

/// What outlives a node.
#[derive(Default)]
struct State {
    told: Vec<Told>,
    applied: Vec<BlockId>,
    /// Bytes of the block that comes in parts, for the rules and for the sink.
    parts: (u64, u64),
}

type Shared = Arc<Mutex<State>>;

struct Rules {
    bad: HashSet<BlockHash>,
    state: Shared,
    takes_parts: bool,
}

#[async_trait]
impl BlockRules for Rules {
    async fn check(&mut self, block: &Block) -> Result<Verdict, SinkError> {
        let mut state = self.state.lock().unwrap();
        if block.is_streamed {
            assert_eq!(std::mem::take(&mut state.parts.0), block.size);
        }
        state.told.push(Told::Checked(block.id.hash));
        let is_bad = self.bad.contains(&block.id.hash);
        Ok(if is_bad { Verdict::Invalid("it is bad".to_owned()) } else { Verdict::Valid })
    }

    fn takes_parts(&self) -> bool {
        self.takes_parts
    }

    async fn check_part(&mut self, _block: BlockId, part: &BlockPart) -> Result<(), SinkError> {
        self.state.lock().unwrap().parts.0 += part.bytes.len() as u64;
        Ok(())
    }

    async fn abort(&mut self, _block: BlockId) -> Result<(), SinkError> {
        self.state.lock().unwrap().parts.0 = 0;
        Ok(())
    }
}

struct Sink {
    state: Shared,
    takes_parts: bool,
    /// Blocks that the sink refuses itself.
    bad: HashSet<BlockHash>,
    pause: Duration,
}

#[async_trait]
impl BlockSink for Sink {
    async fn cursor(&mut self) -> Result<Option<BlockId>, SinkError> {
        Ok(self.state.lock().unwrap().applied.last().copied())
    }

    async fn apply(&mut self, block: Block) -> Result<(), SinkError> {
        tokio::time::sleep(self.pause).await;
        let mut state = self.state.lock().unwrap();
        if block.is_streamed {
            assert_eq!(std::mem::take(&mut state.parts.1), block.size);
        } else {
            assert_eq!(block.bytes().len() as u64, block.size);
        }
        assert_eq!(state.applied.len() as u64, block.id.height);
        if self.bad.contains(&block.id.hash) {
            return Err(BlockRejected { reason: "the sink says no".to_owned() }.into());
        }
        state.applied.push(block.id);
        state.told.push(Told::Applied(block.id.hash));
        Ok(())
    }

    fn takes_parts(&self) -> bool {
        self.takes_parts
    }

    async fn apply_part(&mut self, _block: BlockId, part: BlockPart) -> Result<(), SinkError> {
        self.state.lock().unwrap().parts.1 += part.bytes.len() as u64;
        Ok(())
    }

    async fn abort(&mut self, block: BlockId) -> Result<(), SinkError> {
        let mut state = self.state.lock().unwrap();
        state.parts.1 = 0;
        state.told.push(Told::Aborted(block.hash));
        Ok(())
    }

    async fn rollback(&mut self, to: BlockId) -> Result<(), SinkError> {
        let mut state = self.state.lock().unwrap();
        state.applied.truncate(to.height as usize + 1);
        assert_eq!(state.applied.last(), Some(&to));
        state.told.push(Told::RolledBack(to.hash));
        Ok(())
    }
}

/// A node with rules that find these blocks bad.
fn node(network: &'static Network, dir: &Path, state: &Shared, bad: &[BlockHash]) -> NodeBuilder {
    let rules = Rules { bad: bad.iter().copied().collect(), state: Arc::clone(state), takes_parts: false };
    let sink = Sink {
        state: Arc::clone(state),
        takes_parts: false,
        bad: HashSet::new(),
        pause: Duration::from_millis(1),
    };
    Node::builder(network, dir).sink(sink).block_rules(rules)
}

async fn serve(chain: &SimChain) -> SimNode {
    SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap()
}

fn hashes(chain: &SimChain) -> Vec<BlockHash> {
    chain.blocks().iter().map(|block| block.hash).collect()
}

fn applied(state: &Shared) -> Vec<BlockHash> {
    state.lock().unwrap().applied.iter().map(|id| id.hash).collect()
}

/// Until the node is at the tip that is meant; the blocks that were rejected meanwhile, and why peers went.
async fn follow(node: &Node, tip: BlockHash) -> (Vec<(BlockId, String)>, Vec<String>) {
    let (mut events, mut rejected, mut lost) = (node.events(), Vec::new(), Vec::new());
    loop {
        match events.next().await.unwrap() {
            Event::Rejected { block, reason } => rejected.push((block, reason)),
            Event::PeerDisconnected { reason, .. } => lost.push(reason),
            Event::Synced { tip: at } if at.hash == tip => return (rejected, lost),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_branch_has_a_bad_block_and_the_second_is_followed() {
    let trunk = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(100, 1));
    let best = trunk.fork(60, ChainSpec::new(80, 2));
    let second = trunk.fork(60, ChainSpec::new(50, 3));
    // The first and one in the middle of the branch: what follows is in flight, or there.
    for height in [61, 90] {
        let bad = best.blocks()[height].hash;
        let servers = [serve(&best).await, serve(&second).await];
        let (dir, state) = (tempfile::tempdir().unwrap(), Shared::default());
        let [first, other] = servers.each_ref().map(|server| server.address().into());
        let node = node(Network::BTC_REGTEST, dir.path(), &state, &[bad]).connect(first).connect(other);
        let node = node.spawn().await.unwrap();
        let (rejected, lost) = follow(&node, second.tip().hash).await;
        let id = BlockId { height: height as u64, hash: bad };
        assert_eq!(rejected, [(id, "it is bad".to_owned())]);
        assert!(lost.iter().any(|reason| reason.contains("was rejected: it is bad")), "{lost:?}");
        node.shutdown().await.unwrap();
        assert_eq!(applied(&state), hashes(&second));
        let told = state.lock().unwrap().told.clone();
        assert_eq!(told.iter().filter(|told| **told == Told::Checked(bad)).count(), 1, "asked once");
        for above in &best.blocks()[height..] {
            assert!(!told.contains(&Told::Applied(above.hash)), "{height}");
        }
        for server in servers {
            server.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_take_the_branch_again() {
    let trunk = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(40, 1));
    let best = trunk.fork(20, ChainSpec::new(40, 2));
    let bad = best.blocks()[25].hash;
    let servers = [serve(&best).await, serve(&trunk).await];
    let (dir, state) = (tempfile::tempdir().unwrap(), Shared::default());
    let [first, other] = servers.each_ref().map(|server| server.address().into());
    let node_with = || node(Network::BTC_REGTEST, dir.path(), &state, &[bad]);
    let running = node_with().connect(first).connect(other).spawn().await.unwrap();
    follow(&running, trunk.tip().hash).await;
    running.shutdown().await.unwrap();

    state.lock().unwrap().told.clear();
    let mut again =
        node_with().connect(servers[0].address().into()).give_up_without_peers().spawn().await.unwrap();
    let error = again.wait().await.unwrap_err();
    assert!(matches!(error, NodeError::Sync(SyncError::NoPeers { .. })), "{error}");
    assert!(error.to_string().contains("was rejected: it is bad"), "{error}");
    assert!(again.queries().read(|view| view.node(bad).is_none() && view.tip().id.hash == trunk.tip().hash));
    assert_eq!(state.lock().unwrap().told, [], "nothing was checked or applied");
    assert_eq!(applied(&state), hashes(&trunk));
    for server in servers {
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_another_branch_the_node_stays_at_the_parent() {
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(40, 1));
    let bad = chain.blocks()[30].hash;
    let server = serve(&chain).await;
    let (dir, state) = (tempfile::tempdir().unwrap(), Shared::default());
    let node = node(Network::BTC_REGTEST, dir.path(), &state, &[bad]);
    let mut node = node.connect(server.address().into()).give_up_without_peers().spawn().await.unwrap();
    let error = node.wait().await.unwrap_err();
    assert!(error.to_string().contains("was rejected: it is bad"), "{error}");
    assert_eq!(node.queries().read(|view| view.tip().id.hash), chain.blocks()[29].hash);
    assert_eq!(applied(&state), hashes(&chain)[..30]);
    let told = state.lock().unwrap().told.clone();
    assert_eq!(told.iter().filter(|told| **told == Told::Checked(bad)).count(), 1, "asked once");
    server.shutdown().await;
}

/// Blocks larger than the budget, which go to the sink in parts before they are known to be good.
async fn in_parts(rules_take_parts: bool, sink_decides: bool) -> (Vec<Told>, BlockHash) {
    let mut second = SimChain::genesis(Network::BSV_REGTEST);
    second.extend_sized(3, 3 << 20..=3 << 20, 1);
    let mut best = second.clone();
    best.extend_sized(4, 3 << 20..=3 << 20, 2);
    second.extend_sized(2, 3 << 20..=3 << 20, 3);
    let bad = best.blocks()[5].hash;
    let servers = [serve(&best).await, serve(&second).await];
    let (dir, state) = (tempfile::tempdir().unwrap(), Shared::default());
    let found: HashSet<BlockHash> = [bad].into();
    let (of_rules, of_sink) = if sink_decides { (HashSet::new(), found) } else { (found, HashSet::new()) };
    let rules = Rules { bad: of_rules, state: Arc::clone(&state), takes_parts: rules_take_parts };
    let pause = Duration::ZERO;
    let sink = Sink { state: Arc::clone(&state), takes_parts: true, bad: of_sink, pause };
    let mut node = Node::builder(Network::BSV_REGTEST, dir.path()).sink(sink).block_rules(rules);
    node.sync.byte_budget = 2 << 20;
    for server in &servers {
        node = node.connect(server.address().into());
    }
    let node = node.spawn().await.unwrap();
    let (rejected, _) = follow(&node, second.tip().hash).await;
    assert_eq!((rejected.len(), rejected[0].0.hash), (1, bad));
    node.shutdown().await.unwrap();
    assert_eq!(applied(&state), hashes(&second));
    assert_eq!(state.lock().unwrap().parts, (0, 0));
    for server in servers {
        server.shutdown().await;
    }
    (std::mem::take(&mut state.lock().unwrap().told), bad)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_block_in_parts_is_aborted() {
    for sink_decides in [false, true] {
        let (told, bad) = in_parts(true, sink_decides).await;
        assert!(told.contains(&Told::Aborted(bad)), "{told:?}");
        assert!(!told.contains(&Told::Applied(bad)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_take_no_parts_get_the_whole_block() {
    let (told, bad) = in_parts(false, false).await;
    assert!(!told.contains(&Told::Aborted(bad)), "the sink was given nothing of it: {told:?}");
    assert!(told.contains(&Told::Checked(bad)) && !told.contains(&Told::Applied(bad)));
}
