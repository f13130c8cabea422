//! Finding all transaction offsets, beside `bitcoin` 0.32: `cargo bench -p tipward-benches --bench scan`.
#![allow(missing_docs, reason = "criterion's macros define public functions")]

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tipward_benches::{Input, block, huge, mixed, outputs, tiny};
use tipward_chain::sync::peer::wire::bitcoin::TransactionScanner;

fn scan(criterion: &mut Criterion) {
    for input in [block, mixed, tiny, huge, outputs] {
        let input = input();
        let mut group = criterion.benchmark_group(format!("scan/{}", input.name));
        group.throughput(Throughput::BytesDecimal(input.bytes.len() as u64)).sample_size(10);
        group.warm_up_time(Duration::from_secs(1));
        // What the machine's memory gives at this moment: hosts are shared.
        group.bench_function("reading the bytes", |bencher| {
            let words = input.bytes.as_chunks::<8>().0;
            bencher.iter(|| words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word))));
        });
        let mut offsets = Vec::new();
        for read in [64 << 10, 256 << 10, 1 << 20, input.bytes.len()] {
            group.bench_function(format!("tipward, reads of {} KiB", read >> 10), |bencher| {
                bencher.iter(|| offsets_of(&input, read, &mut offsets));
            });
        }
        group.bench_function("bitcoin 0.32, deserialize::<Block>", |bencher| {
            bencher.iter(|| {
                let block: bitcoin::Block = bitcoin::consensus::deserialize(&input.bytes).expect("a block");
                assert_eq!(block.txdata.len() as u64, input.transactions);
                block
            });
        });
        group.finish();
    }
}

/// Keeps its vector from one call to the next, as a program would.
fn offsets_of(input: &Input, read: usize, offsets: &mut Vec<u64>) {
    offsets.clear();
    let first = input.first_transaction();
    let mut scanner =
        TransactionScanner::new(true, first as u64, input.transactions, input.bytes.len() as u64);
    for bytes in input.bytes[first..].chunks(read) {
        scanner.push(bytes, offsets).expect("transactions");
    }
    scanner.finish().expect("all transactions");
    assert_eq!(offsets.len() as u64, input.transactions);
}

criterion_group!(benches, scan);
criterion_main!(benches);
