//! What a million headers cost in memory, measured with a counting allocator.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use allocation_counter::measure;
use bytes::Bytes;
use tipward_chain::{
    BlockTree, HeaderFacts,
    sync::peer::wire::{BlockHash, Header, bitcoin::Work},
};

/// The most bytes for a header, its place in the index included.
const MOST: u64 = 120;

fn hash(n: u32) -> BlockHash {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    BlockHash::from_bytes(bytes)
}

#[test]
fn a_million_headers() {
    let mut tree = None;
    let mut one = [0; 32];
    one[31] = 1;
    let facts = HeaderFacts { work: Work::from_be_bytes(one), time: 0, bits: 0 };
    let header = |n: u32| Header { hash: hash(n), parent: hash(n.wrapping_sub(1)), raw: Bytes::new() };
    let mut worst = 0;
    for count in [920_000_u32, 1_000_000, 1_100_000] {
        let info = measure(|| {
            let mut grown = BlockTree::new(&header(0), facts);
            for n in 1..count {
                grown.insert(&header(n), facts).unwrap();
            }
            tree = Some(grown);
        });
        let bytes = u64::try_from(info.bytes_current).unwrap();
        println!("{count} headers: {} bytes each", bytes / u64::from(count));
        worst = worst.max(bytes / u64::from(count));
        assert_eq!(tree.take().map(|tree| tree.len()), Some(count as usize));
    }
    assert!(worst <= MOST, "{worst} bytes for a header");
}
