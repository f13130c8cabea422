//! A node whose archive is pruned, read meanwhile, damaged and repaired.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::Read;

use tipward_chain::{
    Archive, ArchiveOptions, ArchiveReader, Node, NodeBuilder, sync::peer::wire::bitcoin::Network,
};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};

const NETWORK: &&Network = &Network::BTC_REGTEST;

fn node(server: &SimNode, dir: &tempfile::TempDir) -> NodeBuilder {
    let mut options = ArchiveOptions::default();
    (options.max_depth, options.segment_size) = (Some(300), 10_000);
    let builder = Node::builder(*NETWORK, dir.path()).connect(server.address().into());
    builder.archive_with(options).stop_when_synced()
}

async fn sync(server: &SimNode, dir: &tempfile::TempDir) -> u64 {
    let mut node = node(server, dir).spawn().await.unwrap();
    node.wait().await.unwrap();
    node.shutdown().await.unwrap().applied.unwrap().height
}

/// The blocks that are not pruned are those of the chain; returns how many are.
fn pruned(archive: &ArchiveReader, chain: &SimChain) -> usize {
    let mut pruned = 0;
    for (height, block) in (0..).zip(chain.blocks()) {
        let found = archive.by_height(height).unwrap().unwrap();
        assert_eq!(found.id.hash, block.hash);
        if found.is_pruned {
            pruned += 1;
            continue;
        }
        let mut bytes = Vec::new();
        archive.read(&found).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, block.raw);
    }
    assert!(archive.verify(NETWORK).all(|checked| checked.unwrap().problem.is_none()));
    pruned
}

#[tokio::test(flavor = "multi_thread")]
async fn pruned_damaged_repaired_and_synced_again() {
    let chain = SimChain::generate(NETWORK, ChainSpec::new(700, 1));
    let server = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let blocks = dir.path().join("blocks");
    assert_eq!(sync(&server, &dir).await, 700);
    let reader = ArchiveReader::open(&blocks, NETWORK).unwrap();
    let before = pruned(&reader, &chain);
    assert!((350..=401).contains(&before), "{before} blocks are pruned");

    // Every segment from that of a block on is damaged.
    let broken = reader.by_height(600).unwrap().unwrap();
    let last = reader.by_height(700).unwrap().unwrap();
    for segment in broken.segment..=last.segment {
        let path = blocks.join(format!("blk{segment:05}.blk"));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() / 2);
        std::fs::write(path, bytes).unwrap();
    }
    assert!(node(&server, &dir).spawn().await.is_err(), "nothing is repaired unasked");
    let repaired = Archive::repair(&blocks, NETWORK, |_| ()).unwrap();
    let after = repaired.after.unwrap().height;
    assert!(after > 500 && after < 620, "{after}");
    assert!(repaired.forgotten > 40, "{}", repaired.forgotten);
    assert_eq!(reader.cursor().unwrap(), repaired.after);

    // A reorg to a block below comes with it.
    let branch = chain.fork(after - 20, ChainSpec::new(150, 2));
    server.set_chain(branch.clone());
    assert_eq!(sync(&server, &dir).await, branch.height());
    assert!(pruned(&reader, &branch) >= before);
    server.shutdown().await;
}
