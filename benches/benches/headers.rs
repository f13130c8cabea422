//! Headers decoded, hashed, checked by all rules and put into the tree, in memory:
//! `cargo bench -p tipward-benches --bench headers`.
#![allow(missing_docs, reason = "criterion's macros define public functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tipward_chain::{
    BlockTree, Coin,
    sync::peer::{
        UnixTime,
        wire::{
            Header,
            bitcoin::{BlockHeader, Network},
        },
    },
};

const HEADERS: u32 = 10_000;

fn headers(criterion: &mut Criterion) {
    let network = Network::BTC_REGTEST;
    let raw = tipward_benches::headers(HEADERS);
    let rules = network.rules();
    let mut group = criterion.benchmark_group("headers");
    group.throughput(Throughput::Elements(u64::from(HEADERS)));
    group.bench_function("decode, hash, check, insert", |bencher| {
        bencher.iter(|| {
            let genesis = network.genesis_header();
            let mut tree = BlockTree::new(&genesis, rules.read(&genesis).expect("genesis is a header"));
            for raw in &raw {
                let header = Header::from(BlockHeader::from_bytes(raw));
                let branch = tree.branch(header.parent).expect("each header is the child of the one before");
                if let Ok(facts) = rules.check(&header, &branch, UnixTime::MAX) {
                    tree.insert(&header, facts);
                }
            }
            assert_eq!(tree.tip().height, u64::from(HEADERS));
        });
    });
    group.finish();
}

criterion_group!(benches, headers);
criterion_main!(benches);
