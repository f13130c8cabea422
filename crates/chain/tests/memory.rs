//! What a million headers cost in memory, measured with a counting allocator.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::Read;

use allocation_counter::measure;
use bytes::Bytes;
use tipward_chain::{
    BlockTree, HeaderFacts, prove,
    sync::peer::wire::{
        BlockHash, Header, Txid,
        bitcoin::{Network, Work},
    },
};
use tipward_simnet::SimChain;

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

/// A block's bytes, of which only a few are in memory.
struct Pieces<I>(I, Bytes);

impl<I: Iterator<Item = Bytes>> Read for Pieces<I> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.1.is_empty() {
            self.1 = self.0.next().unwrap_or_default();
        }
        let count = buffer.len().min(self.1.len());
        buffer[..count].copy_from_slice(&self.1.split_to(count));
        Ok(count)
    }
}

#[test]
fn a_proof_from_a_block_of_256_mib() {
    let mut chain = SimChain::genesis(Network::BSV_REGTEST);
    chain.extend_sized(1, 256 << 20..=256 << 20, 1);
    let block = chain.tip();
    // The coinbase's id is what the simulated chain does not tell; one that is not there costs a whole pass.
    let open = || Ok(Pieces(block.pieces(), Bytes::new()));
    let mut refused = None;
    let info = measure(|| {
        refused = prove(Network::BSV_REGTEST, block.size(), open, &[Txid::from_bytes([7; 32])]).err();
    });
    assert!(refused.unwrap().to_string().contains("is not in the block"));
    let mut proof = None;
    let whole = measure(|| proof = prove(Network::BSV_REGTEST, block.size(), open, &[]).ok());
    println!("{} and {} bytes at most", info.bytes_max, whole.bytes_max);
    assert_eq!(proof.unwrap().tree.verify().unwrap().root, block.header.merkle_root);
    assert!(info.bytes_max.max(whole.bytes_max) <= 8 << 20);
}
