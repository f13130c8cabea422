//! A block streamed through the reader, merkle root checked, beside plain SHA-256d of the same bytes:
//! `cargo bench -p tipward-benches --bench block_stream`.
#![allow(missing_docs, reason = "criterion's macros define public functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tipward_benches::{block, stream};
use tipward_chain::sync::peer::wire::sha256d;

fn block_stream(criterion: &mut Criterion) {
    let (name, block) = block();
    assert!(stream(&block, 65_536) > 1, "the block passes its checks");
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(block.len() as u64));
    group.bench_function("sha256d of the bytes", |bencher| bencher.iter(|| sha256d(&block)));
    for read in [65_536, 1 << 20] {
        group.bench_function(format!("stream with merkle root, reads of {read}"), |bencher| {
            bencher.iter(|| stream(&block, read));
        });
    }
    group.finish();
}

criterion_group!(benches, block_stream);
criterion_main!(benches);
