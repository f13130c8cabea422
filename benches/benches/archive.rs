//! Real blocks into the archive, durable, against a plain file with the same bytes and one fsync:
//! `cargo bench -p tipward-benches --bench archive`.
//!
//! `TIPWARD_BENCH_MIB` sets how much, 1024 unless set; `TIPWARD_BENCH_ROUNDS` how often each is measured, 5 unless set;
//! `TIPWARD_BENCH_DIR` where, the directory for temporary files unless set.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tipward_benches::{large, median, real_blocks, rounds};
use tipward_chain::{
    Archive, ArchiveReader, ArchiveSink,
    sync::{
        Block, BlockId, BlockSink,
        peer::wire::{BlockHash, bitcoin::Network},
    },
};

const FLUSH_AFTER: Duration = Duration::from_millis(250);
const NETWORK: &&Network = &Network::BTC;

fn main() {
    let blocks = blocks();
    let bytes: u64 = blocks.iter().map(|block| block.size).sum();
    let root = std::env::var_os("TIPWARD_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let rounds = rounds();
    println!("{} real blocks, {bytes} bytes, medians of {rounds} rounds", blocks.len());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (mut plain, mut archive, mut verify, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let dir = root.join(format!("tipward-bench-archive-{}-{round}", std::process::id()));
        std::fs::create_dir(&dir).expect("a directory");
        let rate = |seconds: f64| bytes as f64 / seconds / 1e6;
        plain.push(rate(write_plain(&dir, &blocks)));
        // Its pages go, so that the next has the same room.
        std::fs::remove_file(dir.join("plain")).expect("it was written");
        archive.push(rate(write_archive(&runtime, &dir, &blocks)));
        ratios.push(archive[round] / plain[round]);
        let started = Instant::now();
        let reader = ArchiveReader::open(&dir, NETWORK).expect("it was written");
        // All but the hashes are as they should be, which were made up to have so many blocks.
        assert_eq!(reader.verify(NETWORK).count(), blocks.len());
        verify.push(rate(started.elapsed().as_secs_f64()));
        std::fs::remove_dir_all(&dir).expect("it was created");
    }
    println!("  plain file, one fsync   {:6.0} MB/s", median(plain));
    println!("  archive                 {:6.0} MB/s, {:.0} % of it", median(archive), 100.0 * median(ratios));
    println!("  verify                  {:6.0} MB/s", median(verify));
}

fn write_plain(dir: &Path, blocks: &[Block]) -> f64 {
    let mut file = File::create(dir.join("plain")).expect("a file");
    let started = Instant::now();
    for part in blocks.iter().flat_map(|block| &block.parts) {
        file.write_all(&part.bytes).expect("it can be written");
    }
    file.sync_all().expect("it can be synced");
    started.elapsed().as_secs_f64()
}

fn write_archive(runtime: &tokio::runtime::Runtime, dir: &Path, blocks: &[Block]) -> f64 {
    let mut sink = ArchiveSink::new(Archive::open(dir, NETWORK).expect("it can be created"));
    let started = Instant::now();
    runtime.block_on(async {
        let mut flushed = started;
        for block in blocks {
            sink.apply(block.clone()).await.expect("it can be written");
            // As a sync does.
            if flushed.elapsed() >= FLUSH_AFTER {
                sink.flush().await.expect("it can be synced");
                flushed = Instant::now();
            }
        }
        sink.flush().await.expect("it can be synced");
    });
    started.elapsed().as_secs_f64()
}

/// Real blocks over and over, under other names.
fn blocks() -> Vec<Block> {
    let real = real_blocks();
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    while bytes < large() as u64 {
        let height = blocks.len() as u64;
        let mut block = real[blocks.len() % real.len()].clone();
        let mut hash = *block.id.hash.as_bytes();
        hash[..8].copy_from_slice(&height.to_le_bytes());
        block.id = BlockId { height, hash: BlockHash::from_bytes(hash) };
        bytes += block.size;
        blocks.push(block);
    }
    blocks
}
