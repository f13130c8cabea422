//! Headers, txids and merkle roots on one thread: `cargo bench -p tipward-benches --bench hashes`.
#![allow(missing_docs, reason = "criterion's macros define public functions")]

use ::bitcoin::{consensus::deserialize, hashes::Hash as _};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tipward_benches::block;
use tipward_chain::sync::peer::wire::{
    Txid,
    bitcoin::{Block, BlockHeader, MerkleBuilder, Network, Transaction, check_headers},
};

const HEADERS: u32 = 10_000;

fn headers(criterion: &mut Criterion) {
    let network = Network::BTC_REGTEST;
    let raw = tipward_benches::headers(HEADERS);
    let mut group = criterion.benchmark_group("headers");
    group.throughput(Throughput::Elements(u64::from(HEADERS)));
    group.bench_function("tipward: decode, hash, link, target", |bencher| {
        bencher.iter(|| {
            let headers: Vec<BlockHeader> = raw.iter().map(BlockHeader::from_bytes).collect();
            check_headers(network.genesis_hash(), &headers, network.pow_limit).expect("a chain")
        });
    });
    group.bench_function("bitcoin 0.32: decode, hash, link, target", |bencher| {
        bencher.iter(|| {
            let mut parent = ::bitcoin::BlockHash::from_byte_array(*network.genesis_hash().as_bytes());
            for raw in &raw {
                let header: ::bitcoin::block::Header = deserialize(raw).expect("a header");
                assert_eq!(header.prev_blockhash, parent);
                parent = header.validate_pow(header.target()).expect("work");
            }
            parent
        });
    });
    group.finish();
}

fn txids(criterion: &mut Criterion) {
    let input = block();
    let ours: Vec<Transaction> = Block::new(input.bytes.clone()).expect("a block").transactions().collect();
    let theirs: ::bitcoin::Block = deserialize(&input.bytes).expect("a block");
    let mut group = criterion.benchmark_group(format!("txids of {}", input.name));
    group.throughput(Throughput::Elements(input.transactions));
    group.bench_function("tipward", |bencher| {
        bencher.iter(|| ours.iter().map(Transaction::txid).collect::<Vec<_>>());
    });
    group.bench_function("bitcoin 0.32", |bencher| {
        bencher.iter(|| theirs.txdata.iter().map(::bitcoin::Transaction::compute_txid).collect::<Vec<_>>());
    });
    group.finish();
}

fn merkle_root(criterion: &mut Criterion) {
    const LEAVES: u32 = 1_000_000;
    let leaves: Vec<[u8; 32]> =
        (0..LEAVES).map(|leaf| std::array::from_fn(|at| leaf.to_le_bytes()[at % 4] ^ at as u8)).collect();
    let ours: Vec<Txid> = leaves.iter().map(|leaf| Txid::from_bytes(*leaf)).collect();
    let theirs: Vec<::bitcoin::Txid> =
        leaves.iter().map(|leaf| ::bitcoin::Txid::from_byte_array(*leaf)).collect();
    let mut group = criterion.benchmark_group("merkle root of 1,000,000 leaves");
    group.sample_size(20);
    group.bench_function("tipward", |bencher| {
        bencher.iter(|| {
            let mut builder = MerkleBuilder::new();
            ours.iter().for_each(|leaf| builder.push(*leaf));
            builder.finish()
        });
    });
    group.bench_function("bitcoin 0.32", |bencher| {
        bencher.iter(|| ::bitcoin::merkle_tree::calculate_root(theirs.iter().copied()));
    });
    let mut builder = MerkleBuilder::new();
    ours.iter().for_each(|leaf| builder.push(*leaf));
    let expected = ::bitcoin::merkle_tree::calculate_root(theirs.iter().copied()).expect("there are leaves");
    assert_eq!(builder.finish(), (expected.to_byte_array(), false));
    group.finish();
}

criterion_group!(benches, headers, txids, merkle_root);
criterion_main!(benches);
