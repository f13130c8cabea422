//! What blocks of a chain with slots cost in memory, measured with a counting allocator, and that a flood of them is bounded.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use allocation_counter::measure;
use tipward_chain::{
    Candidate, Rule,
    density::{DensityOptions, DensityTree, SlotBound},
    sync::peer::wire::BlockHash,
};

/// The most bytes for a block, its place in the index included.
const MOST: u64 = 80;

fn hash(n: u64) -> BlockHash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    BlockHash::from_bytes(bytes)
}

fn tree(max_forks: usize, max_side_blocks: usize) -> DensityTree {
    let bound = SlotBound::Exclusive;
    DensityTree::new(
        hash(0),
        0,
        DensityOptions { security: 2160, window: 10_000, bound, max_forks, max_side_blocks },
    )
}

#[test]
fn a_million_blocks() {
    let mut worst = 0;
    for count in [920_000, 1_000_000, 1_100_000] {
        let mut grown = None;
        let info = measure(|| {
            let mut tree = tree(100, 100_000);
            for n in 1..count {
                tree.offer(Candidate { hash: hash(n), parent: hash(n - 1), facts: n }).unwrap();
            }
            grown = Some(tree);
        });
        let bytes = u64::try_from(info.bytes_current).unwrap() / count;
        println!("{count} blocks: {bytes} bytes each");
        worst = worst.max(bytes);
        assert_eq!(grown.take().map(|tree| tree.len() as u64), Some(count));
    }
    assert!(worst <= MOST, "{worst} bytes for a block");
}

/// Half a million valid blocks beside the chain, as branches of many lengths.
#[test]
fn a_flood_of_branches_takes_no_more_than_is_given_to_it() {
    let mut tree = tree(50, 2000);
    for n in 1..5000 {
        tree.offer(Candidate { hash: hash(n), parent: hash(n - 1), facts: n }).unwrap();
    }
    let (mut next, mut most, mut told) = (1_000_000, 0, 0);
    let info = measure(|| {
        for branch in 0..20_000_u64 {
            let mut parent = hash(branch % 4000);
            for step in 1..=branch % 50 {
                let slot = branch % 4000 + step;
                let block = Candidate { hash: hash(next), parent, facts: slot };
                told += tree.offer(block).unwrap().pruned.len();
                (parent, next) = (block.hash, next + 1);
                most = most.max(tree.len());
            }
        }
    });
    assert!(most <= 5000 + 2000, "{most} blocks");
    assert!(tree.forks().count() <= 50);
    assert_eq!(tree.len() + told, 5000 + usize::try_from(next).unwrap() - 1_000_000, "what goes is told");
    let bytes = u64::try_from(info.bytes_current).unwrap();
    assert!(bytes < 2 * 2000 * MOST, "{bytes} bytes");
    assert_eq!(tree.tip().hash, hash(4999));
}
