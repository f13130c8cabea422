use proptest::prelude::*;
use tipward_sync::peer::{
    UnixTime,
    wire::{
        BlockHash,
        bitcoin::{CompactTarget, Difficulty},
    },
};

use super::*;
use crate::{BlockTree, Branch};

mod chains;
mod real;
mod rules;

/// The mined child of a header.
fn child(parent: &BlockHeader, time: u32, bits: CompactTarget) -> BlockHeader {
    mine(BlockHeader { parent: parent.hash(), time, bits, ..*parent })
}

fn mine(mut header: BlockHeader) -> BlockHeader {
    while !header.meets_target(header.bits) {
        header.nonce = header.nonce.wrapping_add(1);
    }
    header
}

/// Mined, but for the work.
fn spoil(mut header: BlockHeader) -> BlockHeader {
    while header.meets_target(header.bits) {
        header.nonce = header.nonce.wrapping_add(1);
    }
    header
}

#[test]
fn every_network_knows_its_genesis_block() {
    for network in Network::ALL {
        let block = Coin::genesis_block(&network);
        assert_eq!(block.transactions, 1, "{}", network.name);
        assert_eq!(block.bytes(), Network::genesis_block(network));
        let facts = network.rules().read(&network.genesis_header()).unwrap();
        let BlockHeader { time, bits, .. } = network.genesis();
        assert_eq!((facts.work, facts.time, facts.bits), (network.genesis().work(), time, bits.0));
    }
}

#[test]
fn a_block_tells_its_header_if_that_has_its_work() {
    for network in Network::ALL {
        let rules = network.rules();
        let genesis = Network::genesis_block(network);
        let head = rules.read_head(&genesis).unwrap();
        assert_eq!((&head.header, head.parents, head.index), (&network.genesis_header(), vec![], None));
        assert_eq!(rules.read_head(&genesis[..80]).unwrap().header, head.header, "that much is enough");
        assert_eq!(rules.read_head(&genesis[..79]), Err(HeaderError::Length { len: 79 }));
    }
    let rules = Network::BTC_REGTEST.rules();
    let parent = BlockHash::from_bytes([7; 32]);
    let header = mine(BlockHeader { parent, ..Network::BTC_REGTEST.genesis() });
    let head = rules.read_head(&header.to_bytes()).unwrap();
    assert_eq!((head.header.hash, head.parents), (header.hash(), vec![parent]));
    let refused = rules.read_head(&spoil(header).to_bytes());
    assert!(matches!(refused, Err(HeaderError::ProofOfWork { .. })), "{refused:?}");
    // Where the chain has a block of its own, that is not known without the height.
    let mut easy = BlockHeader { bits: CompactTarget(0x2100_ffff), ..header };
    easy.nonce = 0;
    assert!(matches!(rules.read_head(&easy.to_bytes()), Err(HeaderError::Target { .. })));
    assert!(matches!(
        Network::BTC.rules().read_head(&Network::genesis_block(Network::BTC_REGTEST)),
        Err(HeaderError::Target { .. })
    ));
}

#[test]
fn work_is_checked_first() {
    let rules = Network::BTC.rules();
    let genesis = Network::BTC.genesis_header();
    let tree = BlockTree::new(&genesis, rules.read(&genesis).unwrap());
    let branch = tree.branch(genesis.hash).unwrap();
    let check = |header: &Header| rules.check(header, &branch, UnixTime::MAX);
    let mut header = Network::BTC.genesis();
    header.nonce += 1;
    assert!(matches!(check(&header.into()), Err(HeaderError::ProofOfWork { .. })));
    // Enough work for a target that is too easy.
    let easy = Network::BTC_REGTEST.genesis_header();
    assert!(matches!(check(&easy), Err(HeaderError::Target { .. })));
    let short = Header { raw: easy.raw.slice(..79), ..easy };
    assert_eq!(check(&short), Err(HeaderError::Length { len: 79 }));
}
