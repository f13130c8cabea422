//! Defects of published systems that sync by lists, by index and by slot, each a test that it is not here. Peers, sink and
//! clock are simulated; only the public interface is used. `driver` runs the whole layer over a network within the process.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use tipward_sync::{
    Order, Strategy, SyncOptions,
    peer::{
        PeerId, Want,
        wire::{BlockHash, Header},
    },
};

use block::{SimBlock, branch, chain, slots};
use peer::Model;
use tree::Tree;
use world::World;

mod block;
mod driver;
mod heights;
mod inventory;
mod orphans;
mod parallel;
mod peer;
mod ranges;
mod slot_ranges;
mod tree;
mod world;

const LISTS: Strategy = Strategy::Inventory { batch: 500 };
const RANGES: Strategy = Strategy::Range { batch: 100 };
const SLOTS: Strategy = Strategy::SlotRange { batch: 100, max_back_fill: 200 };
const ALL: [Strategy; 4] = [Strategy::HeadersFirst, LISTS, RANGES, SLOTS];

fn options(strategy: Strategy) -> SyncOptions {
    let mut options = SyncOptions::default();
    options.strategy = strategy;
    options
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn hashes(chain: &[SimBlock]) -> Vec<BlockHash> {
    chain.iter().map(|block| block.hash).collect()
}
