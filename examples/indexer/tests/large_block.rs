//! A block of 200 MiB is indexed in less memory. Alone in its process, whose peak is measured.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![cfg(target_os = "linux")]

mod world;

use tipward_chain::sync::{
    Block, BlockId, BlockSink,
    peer::wire::{BlockEvent, bitcoin::Network},
};
use tipward_simnet::SimChain;

use world::{WHOLE, World, read};

const BLOCK: u64 = 200 << 20;
/// What may be added to the process's memory: the queue, what waits to be written, the database's cache and two parts of a block.
const MOST: u64 = 150 << 20;

/// The most memory that the process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_block_goes_in_part_by_part() {
    let mut chain = SimChain::genesis(Network::BSV_REGTEST);
    chain.extend_sized(1, BLOCK..=BLOCK, 1);
    let mut world = World::new(Network::BSV_REGTEST);
    world.apply(&chain, 0, WHOLE).await;
    let (sim, id) = (chain.tip(), BlockId { height: 1, hash: chain.tip().hash });
    let (give, take) = std::sync::mpsc::sync_channel(1);
    let (network, sent) = (world.network, sim.clone());
    let reading =
        std::thread::spawn(move || read(network, &sent, 1 << 20, |event| give.send(event).unwrap()));
    let (before, mut transactions) = (peak(), 0);
    while let Ok(event) = take.recv() {
        match event {
            BlockEvent::Part(part) => world.sink().apply_part(id, part).await.unwrap(),
            BlockEvent::End(end) => transactions = end.transactions,
        }
    }
    reading.join().unwrap();
    let size = sim.size();
    let block = Block { id, parts: Vec::new(), transactions, size, served_by: None, is_streamed: true };
    world.sink().apply(block).await.unwrap();
    let grown = peak() - before;
    println!("peak memory grew by {:.1} MiB", grown as f64 / f64::from(1 << 20));
    assert!(grown <= MOST, "peak memory grew by {grown} bytes");
    let (_dir, view) = world.end().await;
    let row = view.block(1).unwrap().unwrap();
    assert_eq!((row.transactions, row.size), (transactions, size));
    assert_eq!(view.cursor().unwrap().unwrap().transactions, transactions + 1);
}
