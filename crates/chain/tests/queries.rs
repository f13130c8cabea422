//! Questions to a node while its chain changes.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tipward_chain::{
    HeaderChain, HeaderReader, InclusionRefused, Node, Queries, StoreError, prove,
    sync::{
        BlockId, Event, Events,
        peer::wire::{
            BlockHash, Header, Txid,
            bitcoin::{Block, BlockHeader, MerkleBlock, Network},
        },
    },
};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};

const NETWORK: &Network = Network::BTC_REGTEST;

fn id(chain: &SimChain, height: u64) -> BlockId {
    BlockId { height, hash: chain.blocks()[height as usize].hash }
}

/// Until everything up to this block is applied.
async fn synced(events: &mut Events, tip: BlockHash) {
    loop {
        if matches!(events.next().await.unwrap(), Event::Synced { tip: at } if at.hash == tip) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_answers_about_both_branches() {
    let chain = SimChain::generate(NETWORK, ChainSpec::new(40, 1));
    let branch = chain.fork(30, ChainSpec::new(15, 2));
    let server = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let node = Node::builder(NETWORK, dir.path()).connect(server.address().into()).archive();
    let node = node.spawn().await.unwrap();
    let (mut events, queries) = (node.events(), node.queries());
    synced(&mut events, chain.tip().hash).await;
    queries.read(|view| {
        assert_eq!((view.tip().id, view.applied()), (id(&chain, 40), Some(id(&chain, 40))));
        assert_eq!(view.confirmations(chain.blocks()[31].hash), Some(10));
    });
    // What is archived can be proven, and verified at once.
    let archive = node.archive().unwrap().unwrap();
    let (txid, expected) = proof(&chain, 35);
    let block = loop {
        match archive.by_height(35).unwrap() {
            Some(block) => break block,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let proven = archive.prove(NETWORK, &block, &[txid]).unwrap();
    assert_eq!(proven, expected);
    assert_eq!(queries.read(|view| view.verify_inclusion(&proven)).unwrap().confirmations, 6);
    server.set_chain(branch.clone());
    synced(&mut events, branch.tip().hash).await;
    for block in chain.blocks().iter().chain(branch.blocks()) {
        assert_eq!(queries.read(|view| view.header(block.hash)).unwrap(), Some(Header::from(block.header)));
    }
    assert_eq!(queries.read(|view| view.header(BlockHash::from_bytes([7; 32]))).unwrap(), None);
    node.shutdown().await.unwrap();
    // The answers outlive the node, and do not keep others from its files.
    HeaderChain::open(&dir.path().join("headers.redb"), &NETWORK, None).unwrap();
    queries.read(|view| {
        assert_eq!((view.tip().id, view.applied()), (id(&branch, 45), Some(id(&branch, 45))));
        assert_eq!(view.tip().work, branch.blocks().iter().map(|block| block.header.work()).sum());
        assert_eq!(view.start(), id(&chain, 0));
        let left = chain.tip().hash;
        assert_eq!((view.confirmations(left), view.is_best(left)), (None, false));
        assert_eq!(view.node(left).unwrap().id, id(&chain, 40));
        assert_eq!(view.fork_point(left), Some(id(&chain, 30)));
        assert_eq!(view.common_ancestor(left, branch.blocks()[33].hash), Some(id(&chain, 30)));
        assert_eq!(view.at(46), None);
        assert!(matches!(view.header(chain.tip().hash), Err(StoreError::Closed)));
        for (height, block) in (0..).zip(branch.blocks()) {
            assert_eq!(view.at(height), Some(block.hash));
            assert_eq!(view.confirmations(block.hash), Some(46 - height));
        }
        let mut times: Vec<u32> = branch.blocks()[35..].iter().map(|block| block.header.time).collect();
        times.sort_unstable();
        assert_eq!(view.median_time(branch.tip().hash), Some(times[5]));
        let recent: Vec<BlockHash> = branch.blocks().iter().rev().take(10).map(|block| block.hash).collect();
        assert_eq!(view.locator()[..10], recent);
        let unknown = BlockHash::from_bytes([7; 32]);
        assert_eq!(view.node(unknown), None);
        assert_eq!((view.confirmations(unknown), view.fork_point(unknown)), (None, None));
    });
    server.shutdown().await;
}

/// A proof of the last transaction of a block.
fn proof(chain: &SimChain, height: u64) -> (Txid, MerkleBlock) {
    let bytes = chain.blocks()[height as usize].bytes();
    let txid = Block::new(bytes.clone()).unwrap().transactions().last().unwrap().txid();
    (txid, prove(NETWORK, bytes.len() as u64, || Ok(&bytes[..]), &[txid]).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_enough_to_verify_a_proof() {
    let chain = SimChain::generate(NETWORK, ChainSpec::new(130, 1));
    let branch = chain.fork(120, ChainSpec::new(15, 2));
    let server = SimNode::spawn(branch.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let node = Node::builder(NETWORK, dir.path()).connect(server.address().into()).headers_only();
    let node = node.spawn().await.unwrap();
    let queries = node.queries();
    synced(&mut node.events(), branch.tip().hash).await;
    let verify = |proof: &MerkleBlock| queries.read(|view| view.verify_inclusion(proof));
    for height in [0, 1, 110, 120, 121, 135] {
        let (txid, proof) = proof(&branch, height);
        let found = verify(&proof).unwrap();
        assert_eq!((found.block, found.confirmations), (id(&branch, height), 136 - height));
        assert_eq!(found.transactions, [(proof.tree.transactions - 1, txid)]);
    }
    // One from a block that has lost, and a header that nobody mined.
    let (_, lost) = proof(&chain, 121);
    assert_eq!(verify(&lost), Err(InclusionRefused::NotOnBestChain(lost.header.hash())));
    let (_, good) = proof(&branch, 121);
    let mut forged = good.clone();
    forged.header.nonce ^= 1;
    assert_eq!(verify(&forged), Err(InclusionRefused::NotOnBestChain(forged.header.hash())));
    let mut forged = good.clone();
    forged.tree.hashes[0][0] ^= 1;
    assert_eq!(verify(&forged), Err(InclusionRefused::MerkleRoot(good.header.hash())));
    let mut forged = good;
    forged.tree.flags.push(0);
    assert!(matches!(verify(&forged), Err(InclusionRefused::Tree(_))));
    node.shutdown().await.unwrap();
    server.shutdown().await;

    // The headers on disk answer the same.
    let reader = HeaderReader::open(&dir.path().join("headers.redb"), &NETWORK, None).unwrap();
    for height in [0, 110, 120, 121, 135] {
        let (_, proof) = self::proof(&branch, height);
        assert_eq!(reader.verify_inclusion(&proof), queries.read(|view| view.verify_inclusion(&proof)));
        assert_eq!(reader.verify_inclusion(&proof).unwrap().confirmations, 136 - height);
    }
    assert_eq!(reader.verify_inclusion(&lost), Err(InclusionRefused::NotOnBestChain(lost.header.hash())));
}

/// Asks for the best chain header by header until told to stop; returns the tips that were seen.
fn ask(queries: &Queries, asked: &AtomicUsize, stop: &AtomicBool) -> BTreeSet<BlockId> {
    let mut tips = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        asked.fetch_add(1, Ordering::Relaxed);
        tips.insert(queries.read(|view| {
            let tip = view.tip().id;
            let mut hash = tip.hash;
            for height in (0..=tip.height).rev() {
                assert_eq!((view.at(height), view.node(hash).unwrap().id.height), (Some(hash), height));
                assert_eq!(view.confirmations(hash), Some(tip.height - height + 1));
                let raw = view.header(hash).unwrap().unwrap().raw;
                hash = BlockHeader::from_bytes(raw.first_chunk().unwrap()).parent;
            }
            tip
        }));
    }
    tips
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorg_mixes_no_branches() {
    let mut branches = vec![SimChain::generate(NETWORK, ChainSpec::new(20, 1))];
    for seed in 2..12 {
        let last = branches.last().unwrap();
        branches.push(last.fork(last.height() - 15, ChainSpec::new(20, seed)));
    }
    let server = SimNode::spawn(branches[0].clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let node = Node::builder(NETWORK, dir.path()).connect(server.address().into()).headers_only();
    let node = node.spawn().await.unwrap();
    let (mut events, queries) = (node.events(), node.queries());
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let asking = std::thread::spawn({
        let (queries, asked, stop) = (queries.clone(), Arc::clone(&asked), Arc::clone(&stop));
        move || ask(&queries, &asked, &stop)
    });
    for branch in &branches {
        server.set_chain(branch.clone());
        synced(&mut events, branch.tip().hash).await;
        // Some questions about each branch.
        let enough = asked.load(Ordering::Relaxed) + 2;
        while asked.load(Ordering::Relaxed) < enough && !asking.is_finished() {
            tokio::task::yield_now().await;
        }
        assert_eq!(queries.read(|view| (view.tip().id.hash, view.applied())), (branch.tip().hash, None));
    }
    stop.store(true, Ordering::Relaxed);
    let tips = asking.join().unwrap();
    assert!(tips.len() >= branches.len(), "asked while the chain changed: {tips:?}");
    node.shutdown().await.unwrap();
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_ended_keeps_no_other_from_its_files() {
    let chain = SimChain::generate(NETWORK, ChainSpec::new(40, 1));
    let server = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let start = || Node::builder(NETWORK, dir.path()).connect(server.address().into()).archive();
    let mut first = start().stop_at(20).spawn().await.unwrap();
    let archive = first.archive().unwrap().unwrap();
    first.wait().await.unwrap();
    let mut second = start().stop_at(30).spawn().await.unwrap();
    second.wait().await.unwrap();
    assert_eq!(
        first.queries().read(|view| (view.applied(), view.tip().id)),
        (Some(id(&chain, 20)), id(&chain, 20))
    );
    assert_eq!(
        second.queries().read(|view| (view.applied(), view.tip().id)),
        (Some(id(&chain, 30)), id(&chain, 30))
    );
    // Who reads sees what others write.
    assert_eq!(archive.cursor().unwrap(), Some(id(&chain, 30)));
    server.shutdown().await;
}
