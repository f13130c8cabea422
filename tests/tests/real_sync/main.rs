//! The sync engine against real nodes on regtest: several at once that differ, are slow, die, freeze or change their minds.
//!
//! What must happen "in the middle" is held there by the sink's gate ([`Record::stop_before`]), never by the clock.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod big_blocks;
mod deep;
mod inventory;
mod loss;
mod reorg;
mod resume;
mod two_nodes;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use tipward_chain::{Node, NodeBuilder, sync::Progress, sync::peer::wire::bitcoin::Network};
use tipward_simnet::{ChainSpec, SimChain};
use tipward_tests::{Bitcoind, Record, patiently};

/// Slow enough for requests to be under way at any moment, in bytes a second.
const SLOW: u32 = 150_000;

/// A generated chain of blocks of a kilobyte on average, which real nodes accept.
fn chain(blocks: u32) -> SimChain {
    SimChain::generate(Network::BTC_REGTEST, spec(blocks, 21))
}

fn spec(blocks: u32, seed: u64) -> ChainSpec {
    let mut spec = ChainSpec::new(blocks, seed);
    (spec.max_transactions, spec.max_data) = (6, 300);
    spec
}

/// A node at 127.0.0.`host` with this chain.
fn serve(host: u8, chain: &SimChain) -> Option<Bitcoind> {
    let bitcoind = Bitcoind::start_on(Ipv4Addr::new(127, 0, 0, host), &[])?;
    bitcoind.take(chain, 0);
    Some(bitcoind)
}

/// A node of ours that connects to these. What is lost is dialled again within a second.
fn builder(data_dir: &Path, nodes: &[SocketAddr]) -> NodeBuilder {
    let builder = Node::builder(Network::BTC_REGTEST, data_dir);
    let mut builder = nodes.iter().fold(builder, |builder, node| builder.connect((*node).into()));
    let book = &mut builder.peers.pool.book;
    book.min_back_off = Duration::from_millis(200);
    (book.max_back_off, book.max_back_off_unproven) = (Duration::from_secs(1), Duration::from_secs(1));
    builder
}

/// Waits until the sink has applied so many blocks, looking often.
async fn applied(record: &Record, blocks: u64) {
    let there = async {
        while record.applied() < blocks {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    patiently("blocks", there).await;
}

/// Waits until everything is applied up to this block, as text.
async fn reached(node: &Node, tip: &str) -> Progress {
    let is_there = |progress: &Progress| {
        progress.synced && progress.applied.is_some_and(|applied| applied.hash.to_string() == tip)
    };
    tipward_tests::wait_for(node, tip, is_there).await
}
