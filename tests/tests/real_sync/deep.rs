//! Long and deep: a chain of 20,000 blocks, and reorgs of up to a hundred.

use std::net::Ipv4Addr;

use serde_json::json;
use tipward_chain::{
    prove,
    sync::{
        Event, Events,
        peer::wire::{
            BlockHash,
            bitcoin::{Block, Network},
        },
    },
};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};
use tipward_tests::{Bitcoind, Record, assert_archive_holds, patiently};

use crate::{builder, chain, reached, serve};

/// The next reorg that is told.
async fn reorg(events: &mut Events) -> Event {
    let reorg = async {
        loop {
            match events.next().await.unwrap() {
                event @ Event::Reorg { .. } => return event,
                Event::Missed(count) => panic!("{count} events were missed"),
                _ => {}
            }
        }
    };
    patiently("a reorg", reorg).await
}

fn hashes(bitcoind: &Bitcoind) -> Vec<BlockHash> {
    bitcoind.chain().into_iter().map(|(hash, _)| hash).collect()
}

/// One block, six and a hundred are undone, and each time the node's answers are those of `bitcoind`.
#[tokio::test(flavor = "multi_thread")]
async fn reorgs_of_1_6_and_100_blocks() {
    let Some(bitcoind) = serve(2, &chain(300)) else { return };
    let (record, dir) = (Record::default(), tempfile::tempdir().unwrap());
    let node = builder(dir.path(), &[bitcoind.address()]).sink(record.sink()).spawn().await.unwrap();
    let (mut events, queries) = (node.events(), node.queries());
    reached(&node, &bitcoind.hash(300)).await;
    let mut height = 300;
    for depth in [1, 6, 100] {
        let before = hashes(&bitcoind);
        let common = height - depth;
        bitcoind.reorganize(common, depth + 1);
        height += 1;
        let after = hashes(&bitcoind);
        let Event::Reorg { old_tip, new_tip, common: at, depth: told, old_branch, new_branch } =
            reorg(&mut events).await
        else {
            panic!("it waits for a reorg")
        };
        let above = common as usize + 1;
        assert_eq!((told, at.height, at.hash), (depth, common, before[common as usize]));
        assert_eq!(old_tip.hash, *before.last().unwrap());
        assert!(before[above..].iter().rev().eq(&old_branch), "depth {depth}");
        // The last ones may be announced later.
        assert!(!new_branch.is_empty() && after[above..].starts_with(&new_branch), "depth {depth}");
        assert_eq!(new_branch.last(), Some(&new_tip.hash));
        reached(&node, &bitcoind.hash(height)).await;
        queries.read(|view| {
            assert_eq!((view.tip().id.height, view.applied().map(|at| at.height)), (height, Some(height)));
            for (at, hash) in (0..).zip(&after) {
                assert_eq!((view.at(at), view.confirmations(*hash)), (Some(*hash), Some(height - at + 1)));
            }
            assert!(before[above..].iter().all(|left| view.node(*left).is_some() && !view.is_best(*left)));
        });
    }
    assert_eq!(record.rollbacks(), [299, 295, 202]);
    patiently("the end", node.shutdown()).await.unwrap();
    record.assert_holds(&bitcoind.chain());
}

/// Headers and proofs are what `bitcoind` says they are.
#[tokio::test(flavor = "multi_thread")]
async fn headers_and_proofs_equal_those_of_the_node() {
    let Some(bitcoind) = serve(2, &chain(130)) else { return };
    let dir = tempfile::tempdir().unwrap();
    let node = builder(dir.path(), &[bitcoind.address()]).headers_only().spawn().await.unwrap();
    let tip = bitcoind.hash(130);
    tipward_tests::wait_for(&node, "the headers", |progress| {
        progress.header_tip.is_some_and(|header| header.hash.to_string() == tip)
    })
    .await;
    for (hash, bytes) in bitcoind.chain() {
        let known = bitcoind.rpc("getblockheader", &json!([hash.to_string()]));
        let block = Block::new(bytes.clone().into()).unwrap();
        let txids: Vec<_> = block.transactions().map(|transaction| transaction.txid()).collect();
        let last = *txids.last().unwrap();
        let proof = prove(Network::BTC_REGTEST, bytes.len() as u64, || Ok(&bytes[..]), &[last]).unwrap();
        let theirs = bitcoind.rpc("gettxoutproof", &json!([[last.to_string()], hash.to_string()]));
        assert_eq!(theirs, hex(&proof.to_bytes()));
        node.queries().read(|view| {
            let header = view.header(hash).unwrap().unwrap();
            assert_eq!(header.raw[..], bytes[..80]);
            assert_eq!(known["mediantime"], view.median_time(hash).unwrap());
            assert_eq!(known["chainwork"], view.node(hash).unwrap().work.to_string());
            let found = view.verify_inclusion(&proof).unwrap();
            assert_eq!(known["confirmations"], found.confirmations);
            assert_eq!(known["height"], found.block.height);
            assert_eq!(found.transactions, [(txids.len() as u32 - 1, last)]);
        });
    }
    patiently("the end", node.shutdown()).await.unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_blocks_equal_those_of_the_node() {
    let mut spec = ChainSpec::new(20_000, 5);
    (spec.max_transactions, spec.max_data) = (2, 100);
    let chain = SimChain::generate(Network::BTC_REGTEST, spec);
    let server = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let connect = format!("-connect={}", server.address());
    let host = Ipv4Addr::new(127, 0, 0, 2);
    // On regtest a node looks at its whole index with every block, unless told not to.
    let arguments = [&connect, "-v2transport=0", "-checkblockindex=0", "-checkmempool=0"];
    let Some(bitcoind) = Bitcoind::start_on(host, &arguments) else { return };
    bitcoind.wait_for("20,000 blocks", |node| node.height() == 20_000).await;
    let dir = tempfile::tempdir().unwrap();
    let node = builder(dir.path(), &[bitcoind.address()]).archive().spawn().await.unwrap();
    let progress = reached(&node, &chain.tip().hash.to_string()).await;
    assert_eq!((progress.headers, progress.blocks, progress.reorgs), (20_000, 20_000, 0));
    patiently("the end", node.shutdown()).await.unwrap();
    let blocks = bitcoind.chain();
    assert_eq!(blocks.len(), 20_001);
    let blocks = blocks.iter().map(|(hash, bytes)| (*hash, &bytes[..]));
    assert_archive_holds(dir.path(), Network::BTC_REGTEST, blocks);
    server.shutdown().await;
}
