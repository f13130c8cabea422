use tipward_simnet::SimChain;
use tipward_sync::peer::wire::bitcoin::{BlockHeader, Network};

use super::*;
use crate::CheckpointError;

mod presync;

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

#[test]
fn headers_from_the_future_are_passed_over_until_their_time_has_come() {
    const START: u64 = 1_296_688_602;
    let dir = tempfile::tempdir().unwrap();
    let mut chain = open(&dir, None);
    assert_eq!(Network::BTC_REGTEST.genesis().time, START as u32);
    chain.clock = || UnixTime::from_secs(START);
    let headers = run(Network::BTC_REGTEST.genesis_hash(), 6, 7198);
    let accepted = chain.accept(&headers).unwrap();
    assert_eq!((accepted.added, accepted.last), (3, Some(headers[2].hash)), "two hours, and no second more");
    let nothing = Accepted { added: 0, last: Some(headers[2].hash), update: None };
    assert_eq!(chain.accept(&headers[3..]).unwrap(), nothing, "nothing is wrong with it");
    chain.clock = || UnixTime::from_secs(START + 1);
    assert_eq!(chain.accept(&headers[3..]).unwrap().added, 1);
    drop(chain);
    // The clock is set back: what is there stays.
    let clock = || UnixTime::from_secs(0);
    let options = HeaderOptions { clock, ..HeaderOptions::default() };
    let path = dir.path().join("headers.redb");
    let chain = HeaderChain::open_with(&path, &Network::BTC_REGTEST, options).unwrap();
    assert_eq!(chain.tip().height, 4);
}

#[test]
fn a_bad_header_after_good_ones_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = open(&dir, None);
    let mut headers = run(Network::BTC_REGTEST.genesis_hash(), 12, 1);
    headers.push(mined(headers[11].hash, 1).into());
    let error = chain.accept(&headers).unwrap_err().to_string();
    assert!(error.contains("has time 1296688603, not later than 1296688609"), "{error}");
    assert_eq!((chain.tree().len(), chain.tip().height, chain.find(headers[0].hash)), (1, 0, None));
    assert_eq!(chain.accept(&headers[..12]).unwrap().added, 12);
}

#[test]
fn side_branches_are_bounded_and_the_weakest_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = open(&dir, None);
    chain.max_side_headers = 8;
    let genesis = Network::BTC_REGTEST.genesis_hash();
    let best = run(genesis, 10, 1);
    chain.accept(&best).unwrap();
    let (short, long) = (run(genesis, 2, 1000), run(best[1].hash, 5, 2000));
    chain.accept(&short).unwrap();
    chain.accept(&long).unwrap();
    let late = run(genesis, 1, 3000);
    assert_eq!(chain.accept(&late).unwrap().added, 1);
    assert_eq!(chain.tree().side_headers(), 8, "as many as may be");
    let other = run(genesis, 1, 4000);
    assert_eq!(chain.accept(&other).unwrap().update, None);
    let stay = |chain: &HeaderChain, headers: &[Header]| {
        headers.iter().filter(|header| chain.find(header.hash).is_some()).count()
    };
    let counts = |chain: &HeaderChain| [&best, &long, &short, &late, &other].map(|run| stay(chain, run));
    assert_eq!(counts(&chain), [10, 5, 1, 0, 0], "three quarters of that, from where they fork off");
    drop(chain);
    let mut chain = open(&dir, None);
    assert_eq!((counts(&chain), chain.tip().hash), ([10, 5, 1, 0, 0], best[9].hash), "the store agrees");
    // What was given up may come back and win.
    assert_eq!(chain.accept(&short).unwrap().added, 1);
    let more = run(short[1].hash, 9, 5000);
    assert_eq!(chain.accept(&more).unwrap().update.unwrap().keep, 1);
    drop(chain);
    let chain = open(&dir, None);
    assert_eq!(
        (chain.tip().hash, stay(&chain, &long)),
        (more[8].hash, 5),
        "what came later took no one's place"
    );
}

#[test]
fn a_branch_weaker_than_the_chain_is_known_to_be_is_passed_over() {
    let genesis = Network::BTC_REGTEST.genesis();
    let min_work = (0..6).map(|_| genesis.work()).sum();
    let network: &'static Network = Box::leak(Box::new(Network { min_work, ..Network::BTC_REGTEST.clone() }));
    let dir = tempfile::tempdir().unwrap();
    let options = HeaderOptions { looks_twice: false, ..HeaderOptions::default() };
    let mut chain = HeaderChain::open_with(&dir.path().join("headers.redb"), &network, options).unwrap();
    let (best, weak) = (run(genesis.hash(), 5, 1), run(genesis.hash(), 5, 1000));
    assert_eq!(chain.accept(&best[..4]).unwrap().added, 4);
    assert_eq!(chain.accept(&weak[..1]).unwrap().added, 1, "the chain itself has not shown it yet");
    assert_eq!(chain.accept(&best[4..]).unwrap().added, 1);
    let nothing = Accepted { added: 0, last: Some(weak[0].hash), update: None };
    assert_eq!(chain.accept(&weak[..4]).unwrap(), nothing);
    assert_eq!(chain.tree().side_headers(), 1);
    assert_eq!(chain.accept(&weak).unwrap().added, 4, "a run that shows as much");
}

/// Headers after genesis, and the checkpoint that the one at a height makes with so many before it.
fn checkpoint(headers: &[Header], height: usize, before: usize) -> Checkpoint {
    let work = (0..=height).map(|_| Network::BTC_REGTEST.genesis().work()).sum();
    Checkpoint { height: height as u64, work, headers: headers[height - 1 - before..height].to_vec() }
}

#[test]
fn a_chain_starts_at_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("headers.redb");
    let all = run(Network::BTC_REGTEST.genesis_hash(), 30, 1);
    let open_at = |height| {
        let start = Some(checkpoint(&all, height, 12));
        let options = HeaderOptions { start, ..HeaderOptions::default() };
        HeaderChain::open_with(&path, &Network::BTC_REGTEST, options)
    };
    let mut chain = open_at(20).unwrap();
    assert_eq!(chain.tip(), BlockId { height: 20, hash: all[19].hash });
    assert_eq!(chain.tree().root(), BlockId { height: 8, hash: all[7].hash });
    assert_eq!(chain.locator(all[19].hash).last(), Some(&all[7].hash));
    assert_eq!(chain.accept(&all[18..25]).unwrap().update.unwrap().keep, 21);
    let work = (0..26).map(|_| Network::BTC_REGTEST.genesis().work()).sum();
    assert_eq!(chain.tree().work(all[24].hash), Some(work), "of the whole chain");
    // Rules that look back do so over the start.
    let old = mined(all[24].hash, 19).into();
    let error = chain.accept(&[old]).unwrap_err().to_string();
    assert!(error.contains("not later than 1296688622"), "{error}");
    // Above the checkpoint there may be branches, and none below.
    let branch = run(all[19].hash, 6, 1000);
    assert_eq!(chain.accept(&branch).unwrap().update.unwrap().keep, 21);
    let branch = run(all[18].hash, 9, 1000);
    let error = chain.accept(&branch).unwrap_err().to_string();
    assert!(error.contains("at height 20 forks off below the checkpoint at height 20"), "{error}");
    assert!(matches!(chain.accept(&all[..6]), Err(RefusedHeaders::UnknownParent { .. })));
    assert_eq!(chain.accept(&all[24..]).unwrap().added, 5);
    drop(chain);
    assert_eq!(open_at(20).unwrap().tip(), BlockId { height: 30, hash: all[29].hash });
    let error = open_at(21).unwrap_err().to_string();
    assert!(error.contains("that starts with") && error.contains(&all[20].hash.to_string()), "{error}");
    let error = HeaderChain::open(&path, &Network::BTC_REGTEST, None).unwrap_err().to_string();
    assert!(error.contains(&all[19].hash.to_string()), "{error}");
}

#[test]
fn a_checkpoint_brings_what_the_rules_need() {
    let all = run(Network::BTC_REGTEST.genesis_hash(), 30, 1);
    let tree =
        |checkpoint: &Checkpoint| checkpoint.tree(&*Network::BTC_REGTEST.rules()).map(|tree| tree.len());
    let good = checkpoint(&all, 20, 10);
    assert_eq!(tree(&good), Ok(11));
    assert_eq!(tree(&checkpoint(&all, 20, 9)), Err(CheckpointError::TooShort { needed: 10 }));
    assert_eq!(
        tree(&Checkpoint { headers: Vec::new(), ..good.clone() }),
        Err(CheckpointError::TooShort { needed: 10 })
    );
    assert_eq!(
        tree(&Checkpoint { height: 5, ..good.clone() }),
        Err(CheckpointError::TooLong { count: 11, height: 5 })
    );
    let all_of_it = (0..11).map(|_| Network::BTC_REGTEST.genesis().work()).sum();
    assert_eq!(tree(&Checkpoint { work: all_of_it, ..good.clone() }), Ok(11));
    let work = (0..10).map(|_| Network::BTC_REGTEST.genesis().work()).sum();
    assert_eq!(tree(&Checkpoint { work, ..good.clone() }), Err(CheckpointError::Work { work }));
    let mut gap = good.clone();
    gap.headers.remove(4);
    gap.headers.insert(0, all[8].clone());
    assert_eq!(tree(&gap), Err(CheckpointError::NotLinked { hash: all[14].hash }));
    let mut short = good;
    short.headers[3].raw.truncate(79);
    assert_eq!(tree(&short), Err(CheckpointError::Invalid(HeaderError::Length { len: 79 })));
}
