//! Plain files of headers, with those of the main network where the test data is.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};

use tipward_chain::{
    Coin, HeaderChain, HeaderOptions, HeaderReader, Imported,
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

/// The first headers of the main network.
fn real() -> Option<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let dir = std::env::var_os("TIPWARD_TESTDATA").map_or(root, PathBuf::from);
    let file = std::fs::read(dir.join("btc-mainnet-headers-0-10236.bin"));
    if file.is_err() {
        assert!(std::env::var_os("TIPWARD_REQUIRE_TESTDATA").is_none(), "no test data in {}", dir.display());
        eprintln!("skipped: no test data in {}", dir.display());
    }
    file.ok()
}

fn open(path: &Path, network: &'static Network) -> HeaderChain {
    let mut options = HeaderOptions::default();
    options.looks_twice = false;
    HeaderChain::open_with(path, &network, options).unwrap()
}

#[test]
fn the_main_networks_first_headers_come_in_and_go_out_unchanged() {
    let Some(file) = real() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("headers.redb");
    let network = &Network::BTC;
    // Torn in the last header, as a copy that was not finished.
    let mut chain = open(&path, network);
    let imported = chain.import(network, &file[..file.len() - 37]).unwrap();
    assert_eq!((imported.headers, imported.added, imported.torn), (10_236, 10_235, 43));
    assert_eq!(chain.tip().height, 10_235);
    // The whole file, of which most is known.
    let Imported { headers, added, torn, .. } = chain.import(network, &file[..]).unwrap();
    assert_eq!((headers, added, torn), (10_237, 1, 0));
    drop(chain);
    let reader = HeaderReader::open(&path, network, None).unwrap();
    let mut written = Vec::new();
    assert_eq!(reader.export(&mut written).unwrap(), 10_237);
    assert!(written == file);
}

#[test]
fn a_flipped_bit_is_told_with_its_place() {
    let Some(mut file) = real() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut chain = open(&dir.path().join("headers.redb"), Network::BTC);
    file[5000 * BlockHeader::SIZE + 40] ^= 1;
    let error = chain.import(&Network::BTC, &file[..]).unwrap_err().to_string();
    assert!(error.starts_with("headers number 4000 to 5999 of the file: header "), "{error}");
    assert_eq!(chain.tip().height, 3999, "what came before stays");
}

#[test]
fn the_best_chain_goes_out_and_side_branches_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("headers.redb");
    let one = SimChain::generate(NETWORK, ChainSpec::new(30, 1));
    let other = one.fork(20, ChainSpec::new(15, 2));
    let headers = |chain: &SimChain| -> Vec<Header> {
        chain.blocks()[1..].iter().map(|block| block.header.into()).collect()
    };
    let mut chain = open(&path, NETWORK);
    chain.accept(&headers(&one)).unwrap();
    chain.accept(&headers(&other)).unwrap();
    drop(chain);
    let mut written = Vec::new();
    HeaderReader::open(&path, &NETWORK, None).unwrap().export(&mut written).unwrap();
    let best: Vec<u8> = other.blocks().iter().flat_map(|block| block.header.to_bytes()).collect();
    assert!(written == best);
    // A file need not begin with genesis, but must link to what is known.
    let mut chain = open(&dir.path().join("new.redb"), NETWORK);
    let refused = chain.import(&NETWORK, &best[5 * BlockHeader::SIZE..]).unwrap_err().to_string();
    let parent = other.blocks()[4].hash;
    assert_eq!(refused, format!("headers number 0 to 30 of the file: the parent {parent} is not known"));
    assert_eq!(chain.import(&NETWORK, &best[BlockHeader::SIZE..]).unwrap().added, 35);
    assert_eq!(NETWORK.genesis_header().hash, chain.best_at(0).unwrap());
}
