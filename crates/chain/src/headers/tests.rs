use tipward_simnet::SimChain;
use tipward_sync::peer::wire::bitcoin::{BlockHeader, Network};

use super::*;

fn mined(parent: BlockHash, time: u32) -> BlockHeader {
    let network = Network::BTC_REGTEST;
    let mut header = BlockHeader { parent, time: network.genesis().time + time, ..network.genesis() };
    while !header.meets_target(network.pow_limit) {
        header.nonce += 1;
    }
    header
}

fn run(mut parent: BlockHash, length: usize, time: u32) -> Vec<Header> {
    let mut headers = Vec::new();
    for n in 0..length {
        let header = mined(parent, time + n as u32);
        parent = header.hash();
        headers.push(header.into());
    }
    headers
}

fn open(dir: &tempfile::TempDir, max_height: Option<u64>) -> HeaderChain {
    HeaderChain::open(&dir.path().join("headers.redb"), &Network::BTC_REGTEST, max_height).unwrap()
}

#[test]
fn a_restart_finds_the_same_tree() {
    let dir = tempfile::tempdir().unwrap();
    let genesis = Network::BTC_REGTEST.genesis_hash();
    let (first, second) = (run(genesis, 5, 1), run(genesis, 5, 1000));
    let mut chain = open(&dir, None);
    assert_eq!(chain.accept(&first).unwrap().update.unwrap().append.len(), 5);
    assert_eq!(chain.accept(&second).unwrap().update, None);
    assert_eq!(chain.accept(&first).unwrap(), Accepted { added: 0, last: Some(first[4].hash), update: None });
    drop(chain);
    let mut chain = open(&dir, None);
    assert_eq!(chain.tip(), BlockId { height: 5, hash: first[4].hash });
    let next = run(second[4].hash, 1, 2000);
    let update = chain.accept(&next).unwrap().update.unwrap();
    assert_eq!((update.keep, update.append.len()), (1, 6));
    // Overlap of known and new.
    let more = run(next[0].hash, 2, 3000);
    let overlap = [&second[3..], &next[..], &more[..]].concat();
    assert_eq!(chain.accept(&overlap).unwrap().added, 2);
    assert_eq!(chain.tip().height, 8);
}

/// What the inventory flow needs: a block that came unannounced names its parent and can be accepted.
#[test]
fn a_block_can_be_taken_by_its_own_header() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = open(&dir, None);
    let mut blocks = SimChain::genesis(Network::BTC_REGTEST);
    blocks.extend_sized(3, 300..=5000, 1);
    for block in &blocks.blocks()[1..] {
        let head = chain.read_head(&block.raw).unwrap();
        assert_eq!((head.header.hash, &head.parents[..]), (block.hash, &[block.header.parent][..]));
        assert_eq!(chain.accept(&[head.header]).unwrap().added, 1);
    }
    assert_eq!(chain.tip().hash, blocks.tip().hash);
    let mut raw = blocks.tip().raw.to_vec();
    while BlockHeader::from_bytes(raw.first_chunk().unwrap()).meets_target(Network::BTC_REGTEST.pow_limit) {
        raw[76] = raw[76].wrapping_add(1);
    }
    assert_eq!(chain.read_head(&raw), None);
    assert_eq!(chain.read_head(b"no header"), None);
}

#[test]
fn a_bad_header_spoils_its_whole_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = open(&dir, None);
    let good = run(Network::BTC_REGTEST.genesis_hash(), 5, 1);

    let mut gap = good.clone();
    gap.remove(2);
    let error = chain.accept(&gap).unwrap_err().to_string();
    assert!(error.contains("does not follow the header before it"), "{error}");

    let mut lazy = mined(good[3].hash, 9);
    while lazy.meets_target(lazy.bits) {
        lazy.nonce += 1;
    }
    let mut bad = good[..4].to_vec();
    bad.push(lazy.into());
    let error = chain.accept(&bad).unwrap_err().to_string();
    assert!(error.contains("lacks proof of work"), "{error}");

    // A known header does not make what follows it less of a stray.
    chain.accept(&good[..1]).unwrap();
    let error = chain.accept(&[good[0].clone(), good[2].clone()]).unwrap_err().to_string();
    assert!(error.contains("does not follow the header before it"), "{error}");

    let strays = run(BlockHash::from_bytes([9; 32]), 2, 1);
    assert!(matches!(chain.accept(&strays), Err(RefusedHeaders::UnknownParent { .. })));
    assert_eq!(chain.tree().len(), 2, "nothing of them is kept");
    drop(chain);
    assert_eq!(open(&dir, None).tree().len(), 2);
}

#[test]
fn headers_above_the_height_asked_for_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = open(&dir, Some(3));
    let headers = run(Network::BTC_REGTEST.genesis_hash(), 5, 1);
    let accepted = chain.accept(&headers).unwrap();
    assert_eq!((accepted.added, accepted.last), (3, Some(headers[2].hash)));
    let passed_over = Accepted { added: 0, last: Some(headers[2].hash), update: None };
    assert_eq!(chain.accept(&headers[3..]).unwrap(), passed_over);
    // But a branch with more work wins, and it shows that by what lies above.
    let branch = run(Network::BTC_REGTEST.genesis_hash(), 4, 1000);
    assert_eq!(chain.accept(&branch).unwrap().update.unwrap().keep, 1);
    assert_eq!(chain.tip().height, 4);
    assert_eq!(
        HeaderChain::open(&dir.path().join("other"), &Network::BTC_REGTEST, Some(u64::MAX))
            .unwrap()
            .accept(&headers)
            .unwrap()
            .added,
        5
    );
}

#[test]
fn a_header_of_a_sister_chain_is_refused_where_they_part() {
    let dir = tempfile::tempdir().unwrap();
    let headers = run(Network::BTC_REGTEST.genesis_hash(), 5, 1);
    let network: &'static Network = Box::leak(Box::new(Network {
        chain_block: Some((3, BlockHash::from_bytes([3; 32]))),
        ..Network::BTC_REGTEST.clone()
    }));
    let mut chain = HeaderChain::open(&dir.path().join("headers.redb"), &network, None).unwrap();
    assert_eq!(chain.accept(&headers[..2]).unwrap().added, 2);
    let error = chain.accept(&headers[2..]).unwrap_err().to_string();
    assert!(error.contains("belongs to another chain: at height 3 this one has 0303"), "{error}");
    assert_eq!(chain.tip().height, 2);
}

#[test]
fn a_store_of_another_network_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir, None));
    let path = dir.path().join("headers.redb");
    let error = HeaderChain::open(&path, &Network::BTC, None).unwrap_err().to_string();
    assert!(error.ends_with("headers.redb belongs to network btc-regtest, not btc"), "{error}");
    let _kept = open(&dir, None);
    let error = HeaderChain::open(&path, &Network::BTC_REGTEST, None).unwrap_err().to_string();
    assert!(error.ends_with("headers.redb is in use by another process"), "{error}");
}
