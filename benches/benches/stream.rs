//! Blocks through the codec, frame and all, beside plain SHA-256 of the same bytes and the scanner alone:
//! `cargo bench -p tipward-benches --bench stream`.
#![allow(missing_docs, reason = "criterion's macros define public functions")]

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tipward_benches::{Input, block, mixed, tiny};
use tipward_chain::sync::peer::wire::{
    BlockEvent, Dialect, Incoming,
    bitcoin::{Codec, CodecOptions, Message, Network, TransactionScanner},
};

const READ: usize = 256 << 10;

fn stream(criterion: &mut Criterion) {
    for (input, is_real) in [(block(), true), (mixed(), false), (tiny(), false)] {
        let mut group = criterion.benchmark_group(format!("stream/{}", input.name));
        group.throughput(Throughput::BytesDecimal(input.bytes.len() as u64)).sample_size(10);
        group.warm_up_time(Duration::from_secs(1));
        group.bench_function("SHA-256 of the bytes", |bencher| {
            bencher.iter(|| bitcoin_hashes::sha256::hash(&input.bytes));
        });
        group.bench_function("scanner alone", |bencher| {
            let mut offsets = Vec::new();
            bencher.iter(|| scan(&input, &mut offsets));
        });
        let mut bench = |name, extended, merkle_root| {
            let frame = frame(&input, extended);
            group.bench_function(name, |bencher| {
                let fresh = || BytesMut::from(&frame[..]);
                bencher.iter_batched(
                    fresh,
                    |bytes| decode(bytes, &input, merkle_root),
                    BatchSize::PerIteration,
                );
            });
        };
        bench("block stream without checksum (extmsg)", true, false);
        bench("block stream with checksum", false, false);
        if is_real {
            bench("block stream with merkle root, without checksum", true, true);
            bench("block stream with checksum and merkle root", false, true);
        }
        group.finish();
    }
}

/// A frame of the block, extended or not. A BSV codec reads both, whatever the block's size.
fn frame(input: &Input, extended: bool) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(input.bytes.len() + 44);
    if extended {
        bytes.put_slice(&Network::BSV.magic);
        bytes.put_slice(b"extmsg\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0block\0\0\0\0\0\0\0");
        bytes.put_u64_le(input.bytes.len() as u64);
        bytes.put_slice(&input.bytes);
    } else {
        Codec::new(Network::BSV).encode(&Message::Block(input.bytes.clone()), &mut bytes);
    }
    bytes
}

/// Feeds the frame in reads, as a socket fills a buffer: in place, so that no copy of the bench's own is measured. Returns
/// the buffer, so that giving a GiB back to the system is not measured either.
fn decode(mut frame: BytesMut, input: &Input, merkle_root: bool) -> BytesMut {
    let mut options = CodecOptions::new(Network::BSV);
    options.block.merkle_root = merkle_root;
    let mut codec = Codec::with_options(Network::BSV, options);
    codec.handshake_done();
    let mut read = frame.split_to(0);
    loop {
        match codec.decode(&mut read).expect("a block") {
            Some(Incoming::Block(BlockEvent::Part(part))) => assert!(!part.transactions.is_empty()),
            Some(Incoming::Block(BlockEvent::End(end))) => {
                assert_eq!(end.transactions, input.transactions);
                return frame;
            }
            Some(other) => panic!("{other:?}"),
            None => read.unsplit(frame.split_to(READ.min(frame.len()))),
        }
    }
}

fn scan(input: &Input, offsets: &mut Vec<u64>) -> usize {
    offsets.clear();
    let first = input.first_transaction();
    let size = input.bytes.len() as u64;
    let mut scanner = TransactionScanner::new(true, first as u64, input.transactions, size);
    for bytes in input.bytes[first..].chunks(READ) {
        scanner.push(bytes, offsets).expect("transactions");
    }
    offsets.len()
}

criterion_group!(benches, stream);
criterion_main!(benches);
