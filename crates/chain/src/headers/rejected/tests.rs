use tipward_sync::{
    Chain, RefusedHeaders,
    peer::wire::bitcoin::{BlockHeader, Network},
};

use super::*;
use crate::HeaderStore;

fn run(mut parent: BlockHash, length: u32, time: u32) -> Vec<Header> {
    let network = Network::BTC_REGTEST;
    let next = |n| {
        let time = network.genesis().time + time + n;
        let mut header = BlockHeader { parent, time, ..network.genesis() };
        while !header.meets_target(network.pow_limit) {
            header.nonce += 1;
        }
        parent = header.hash();
        Header::from(header)
    };
    (0..length).map(next).collect()
}

fn open(dir: &tempfile::TempDir) -> HeaderChain {
    HeaderChain::open(&dir.path().join("headers.redb"), &Network::BTC_REGTEST, None).unwrap()
}

fn refused(chain: &mut HeaderChain, headers: &[Header]) -> String {
    match chain.accept(headers).unwrap_err() {
        RefusedHeaders::Invalid(error) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn hashes(headers: &[Header]) -> Vec<BlockHash> {
    headers.iter().map(|header| header.hash).collect()
}

/// A trunk of ten, a branch of six on top that is best, one of four, and one of two that leaves the best one.
struct Fork {
    trunk: Vec<Header>,
    best: Vec<Header>,
    second: Vec<Header>,
    twig: Vec<Header>,
}

impl Fork {
    fn new() -> Self {
        let trunk = run(Network::BTC_REGTEST.genesis_hash(), 10, 1);
        let (best, second) = (run(trunk[9].hash, 6, 100), run(trunk[9].hash, 4, 200));
        let twig = run(best[3].hash, 1, 300);
        Self { trunk, best, second, twig }
    }

    fn open(&self, dir: &tempfile::TempDir) -> HeaderChain {
        let mut chain = open(dir);
        for headers in [&self.trunk, &self.best, &self.second, &self.twig] {
            chain.accept(headers).unwrap();
        }
        chain
    }
}

#[test]
fn the_next_best_branch_is_followed_and_the_rejected_one_never_again() {
    let fork = Fork::new();
    let dir = tempfile::tempdir().unwrap();
    let mut chain = fork.open(&dir);
    let update = chain.reject(fork.best[2].hash, "it spends too much").unwrap();
    // Two of the branch are left, which are fewer than the four of the other.
    assert_eq!(update, Some(Update { keep: 11, append: hashes(&fork.second) }));
    let later = run(fork.best[5].hash, 20, 400);
    for _ in 0..2 {
        assert_eq!(chain.tip().hash, fork.second[3].hash);
        for gone in fork.best[2..].iter().chain(&fork.twig) {
            assert_eq!(chain.find(gone.hash), None);
        }
        assert_eq!(chain.find(fork.best[1].hash).unwrap().height, 12);
        for kept in [&fork.trunk, &fork.second] {
            assert!(kept.iter().all(|header| chain.header(header.hash).unwrap().as_ref() == Some(header)));
        }
        let whole = [&fork.best[..], &later].concat();
        assert!(refused(&mut chain, &whole).contains("was rejected: it spends too much"));
        assert!(refused(&mut chain, &fork.best[2..3]).contains("was rejected: it spends too much"));
        assert!(refused(&mut chain, &fork.best[3..4]).contains("was rejected: it spends too much"));
        drop(chain);
        chain = open(&dir);
    }
    // Another child of the last good one is as good as any.
    let other = run(fork.best[1].hash, 4, 500);
    assert_eq!(chain.accept(&other).unwrap().update.unwrap().append.len(), 6);
}

#[test]
fn a_long_reason_is_cut() {
    let fork = Fork::new();
    let dir = tempfile::tempdir().unwrap();
    let mut chain = fork.open(&dir);
    chain.reject(fork.best[0].hash, &"\u{e9}".repeat(501)).unwrap();
    chain.reject(fork.second[0].hash, &format!("x{}", "\u{e9}".repeat(501))).unwrap();
    for (header, letters) in [(&fork.best[0], 500), (&fork.second[0], 499)] {
        let error = refused(&mut chain, std::slice::from_ref(header));
        assert_eq!(error.matches('\u{e9}').count(), letters);
    }
}

#[test]
fn who_goes_on_with_the_branch_is_told_why() {
    let fork = Fork::new();
    let dir = tempfile::tempdir().unwrap();
    let mut chain = fork.open(&dir);
    chain.reject(fork.best[0].hash, "no").unwrap();
    for next in [fork.best[5].hash, fork.twig[0].hash] {
        assert!(refused(&mut chain, &run(next, 1, 400)).contains("was rejected: no"));
    }
}

#[test]
fn without_another_branch_the_parent_is_best() {
    let trunk = run(Network::BTC_REGTEST.genesis_hash(), 10, 1);
    let dir = tempfile::tempdir().unwrap();
    let mut chain = open(&dir);
    chain.accept(&trunk).unwrap();
    let update = chain.reject(trunk[7].hash, "no").unwrap();
    assert_eq!(update, Some(Update { keep: 8, append: Vec::new() }));
    assert_eq!(chain.tip().hash, trunk[6].hash);
    assert_eq!(chain.reject(trunk[7].hash, "no").unwrap(), None, "it is gone already");
    drop(chain);
    assert_eq!(open(&dir).tip().hash, trunk[6].hash);
}

#[test]
fn a_side_branch_is_given_up_without_a_reorg() {
    let fork = Fork::new();
    let dir = tempfile::tempdir().unwrap();
    let mut chain = fork.open(&dir);
    assert_eq!(chain.reject(fork.second[0].hash, "no").unwrap(), None);
    assert_eq!(chain.tip().hash, fork.best[5].hash);
    let longer = run(fork.second[3].hash, 9, 400);
    assert!(refused(&mut chain, &[&fork.second[..], &longer].concat()).contains("was rejected"));
}

#[test]
fn where_the_chain_starts_can_not_be_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let error = open(&dir).reject(Network::BTC_REGTEST.genesis_hash(), "too old").unwrap_err().to_string();
    assert!(error.contains("the chain starts with") && error.contains("too old"), "{error}");
}

/// The verdict is stored first: what a crash leaves of the branch is not taken again.
#[test]
fn a_crash_in_between_changes_nothing() {
    let fork = Fork::new();
    let dir = tempfile::tempdir().unwrap();
    let chain = fork.open(&dir);
    drop(chain);
    let path = dir.path().join("headers.redb");
    let genesis = Network::BTC_REGTEST.genesis_hash();
    let mut store = HeaderStore::open(&path, &Network::BTC_REGTEST, genesis).unwrap();
    store.reject(fork.best[2].hash, "no").unwrap();
    drop(store);
    for _ in 0..2 {
        let chain = open(&dir);
        assert_eq!((chain.tip().hash, chain.tree().len()), (fork.second[3].hash, 1 + 10 + 2 + 4));
    }
}

#[test]
fn of_too_many_the_first_are_forgotten() {
    let hash = |n: usize| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_le_bytes());
        bytes[31] = 1;
        BlockHash::from_bytes(bytes)
    };
    let header = |n| Header { hash: hash(n), parent: BlockHash::ZERO, raw: bytes::Bytes::new() };
    let mut rejected = Rejected::default();
    (0..=MAX_REJECTED).for_each(|n| rejected.add(hash(n), &"no".into(), []));
    assert_eq!((rejected.check(&header(0)).is_ok(), rejected.check(&header(1)).is_ok()), (true, false));
    let many = MAX_REJECTED + 1..MAX_REJECTED + 2 + MAX_DESCENDANTS;
    rejected.add(hash(0), &"no".into(), many.map(hash));
    let first = MAX_REJECTED + 1;
    assert_eq!(
        (rejected.check(&header(first)).is_ok(), rejected.check(&header(first + 1)).is_ok()),
        (true, false)
    );
    assert_eq!(rejected.reasons.len(), MAX_REJECTED + MAX_DESCENDANTS);
}
