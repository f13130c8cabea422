//! The headers' file, seen by another process than the one that writes.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use bytes::Bytes;
use tipward_chain::{
    HeaderChain, HeaderReader, HeaderStore, StoreError,
    sync::{
        Chain,
        peer::wire::{
            Header,
            bitcoin::{BlockHeader, Network},
        },
    },
};
use tipward_simnet::{ChainSpec, SimChain};

const NETWORK: &Network = Network::BTC_REGTEST;

fn headers(chain: &SimChain, above: usize) -> Vec<Header> {
    chain.blocks()[above + 1..].iter().map(|block| block.header.into()).collect()
}

#[test]
fn a_reader_sees_what_was_there_when_it_looked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("headers.redb");
    let chain = SimChain::generate(NETWORK, ChainSpec::new(50, 1));
    let branch = chain.fork(40, ChainSpec::new(5, 2));
    let mut writer = HeaderChain::open(&path, &NETWORK, None).unwrap();
    writer.accept(&headers(&chain, 0)[..40]).unwrap();
    writer.flush().unwrap();
    let early = HeaderReader::open(&path, &NETWORK, None).unwrap();
    writer.accept(&headers(&chain, 40)).unwrap();
    writer.accept(&headers(&branch, 40)).unwrap();
    writer.flush().unwrap();
    let late = HeaderReader::open(&path, &NETWORK, None).unwrap();
    writer.reject(chain.blocks()[3].hash, "no").unwrap();
    assert_eq!((early.tree().tip().height, late.tree().tip().hash), (40, chain.tip().hash));
    for block in chain.blocks().iter().chain(branch.blocks()) {
        assert_eq!(late.header(block.hash).unwrap(), Some(Header::from(block.header)));
    }
    assert_eq!(early.header(chain.tip().hash).unwrap(), None);
    assert_eq!(HeaderReader::open(&path, &NETWORK, None).unwrap().tree().tip().height, 2);
}

#[test]
fn what_is_wrong_with_a_file_is_said_in_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("headers.redb");
    assert!(matches!(HeaderReader::open(&path, &NETWORK, None), Err(StoreError::Io { .. })));
    let chain = SimChain::generate(NETWORK, ChainSpec::new(10, 1));
    let mut store = HeaderStore::open(&path, &NETWORK, NETWORK.genesis_hash()).unwrap();
    let mut raw: Vec<Bytes> = headers(&chain, 0).into_iter().map(|header| header.raw).collect();
    raw.remove(6);
    store.append(raw.iter()).unwrap();
    store.flush().unwrap();
    let error = HeaderReader::open(&path, &NETWORK, None).unwrap_err().to_string();
    let parent = chain.blocks()[7].hash;
    assert!(error.ends_with(&format!("is damaged: header 6: its parent {parent} is not there")), "{error}");
    let other = HeaderReader::open(&path, &Network::BTC, None).unwrap_err();
    assert!(matches!(other, StoreError::OtherNetwork { .. }), "{other}");
    drop(store);
    // Who goes on with it sees that as well.
    assert_eq!(HeaderChain::open(&path, &NETWORK, None).unwrap_err().to_string(), error);

    // A header of which everything is right but the work.
    let path = dir.path().join("weak.redb");
    let mut store = HeaderStore::open(&path, &NETWORK, NETWORK.genesis_hash()).unwrap();
    let mut header = chain.blocks()[1].header;
    while header.meets_target(header.bits) {
        header.nonce += 1;
    }
    store.append([Bytes::copy_from_slice(&BlockHeader::to_bytes(&header))].iter()).unwrap();
    store.flush().unwrap();
    let error = HeaderReader::open(&path, &NETWORK, None).unwrap_err().to_string();
    assert!(error.contains("header 0: ") && error.contains("lacks proof of work"), "{error}");
    drop(store);
    assert_eq!(HeaderChain::open(&path, &NETWORK, None).unwrap_err().to_string(), error);
}
