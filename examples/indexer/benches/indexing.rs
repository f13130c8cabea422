//! How fast blocks are indexed, and what limits it: real blocks over and over (see `repeated.rs`), without a network.
//!
//! `cargo bench -p indexer --bench indexing`; `MIB=1024` is how many MiB of blocks, `CACHE=256` how many MiB of the index are held
//! in memory. `ONLY=all` leaves the single steps away, so that the peak of memory is that of the program.

mod repeated;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use indexer::{
    index::Index,
    parse::{Parsed, parse},
    sink::IndexSink,
};
use tipward_chain::{
    Archive, ArchiveSink,
    sync::{Block, BlockSink, peer::wire::bitcoin::Network},
};

const NETWORK: &Network = Network::BTC;

/// The blocks up to so many bytes; they are made as they are asked for, which is not measured.
fn blocks(most: u64) -> impl Iterator<Item = Block> {
    let mut left = most as i64;
    repeated::Repeated::load().expect("the benches need the test data").take_while(move |block| {
        left -= block.size as i64;
        left + (block.size as i64) > 0
    })
}

#[derive(Default)]
struct Figures {
    bytes: u64,
    transactions: u64,
    took: Duration,
}

impl Figures {
    fn add(&mut self, block: &Block, took: Duration) {
        self.bytes += block.size;
        self.transactions += block.transactions;
        self.took += took;
    }

    fn print(&self, what: &str) {
        let seconds = self.took.as_secs_f64();
        println!(
            "{what:42} {:7.1} MB/s, {:8.0} transactions/s ({} blocks' worth: {:.0} MB in {seconds:.1} s)",
            self.bytes as f64 / 1e6 / seconds,
            self.transactions as f64 / seconds,
            self.transactions,
            self.bytes as f64 / 1e6,
        );
    }
}

fn parsed(block: &Block) -> Parsed {
    let part = &block.parts[0];
    let first = part.transactions[0];
    parse(NETWORK.chain, part.bytes.slice(first as usize..), first.into()).expect("a block")
}

fn index(dir: &Path, cache: usize) -> Index {
    Index::open(&dir.join("index.redb"), NETWORK, cache).expect("an index")
}

/// Everything, as the program does it.
async fn all(most: u64, cache: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let archive = Archive::open(&dir.path().join("blocks"), &NETWORK).expect("an archive");
    let (mut sink, writer) = IndexSink::new(archive, index(dir.path(), cache), NETWORK.chain);
    sink.cursor().await.expect("the start");
    let (mut figures, mut flushed) = (Figures::default(), Instant::now());
    for block in blocks(most) {
        let begun = Instant::now();
        sink.apply(block.clone()).await.expect("a block");
        // As the sync does.
        if flushed.elapsed() > Duration::from_millis(250) {
            sink.flush().await.expect("the disk");
            flushed = Instant::now();
        }
        figures.add(&block, begun.elapsed());
    }
    let begun = Instant::now();
    sink.flush().await.expect("the disk");
    drop(sink);
    writer.join().expect("the index");
    figures.took += begun.elapsed();
    figures.print("everything, durable");
    println!("{:42} {:7.1} MB", "the index on disk", disk(&dir.path().join("index.redb")) as f64 / 1e6);
}

fn disk(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

async fn single_steps(most: u64, cache: usize) {
    let (mut parsing, mut indexing) = (Figures::default(), Figures::default());
    let dir = tempfile::tempdir().expect("a directory");
    let (mut index, mut waiting) = (index(dir.path(), cache), 0);
    for block in blocks(most) {
        let begun = Instant::now();
        let parsed = parsed(&block);
        parsing.add(&block, begun.elapsed());
        let begun = Instant::now();
        let header = block.parts[0].bytes.first_chunk().expect("a header");
        index.begin(block.id, header);
        index.add(&parsed).expect("the index");
        index.finish(block.transactions, block.size).expect("the index");
        waiting += block.size;
        if waiting >= 128 << 20 {
            index.commit().expect("the index");
            waiting = 0;
        }
        indexing.add(&block, begun.elapsed());
    }
    let begun = Instant::now();
    index.commit().expect("the index");
    indexing.took += begun.elapsed();
    parsing.print("parsing alone, on one core");
    indexing.print("the index alone, from what was parsed");
    drop(index);

    let dir = tempfile::tempdir().expect("a directory");
    let mut archive = ArchiveSink::new(Archive::open(dir.path(), &NETWORK).expect("an archive"));
    let mut archiving = Figures::default();
    for block in blocks(most) {
        let begun = Instant::now();
        archive.apply(block.clone()).await.expect("a block");
        archiving.add(&block, begun.elapsed());
    }
    let begun = Instant::now();
    archive.flush().await.expect("the disk");
    archiving.took += begun.elapsed();
    archiving.print("the archive alone, durable");
}

/// The most memory that the process ever had.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown").trim().to_owned()
}

#[tokio::main]
async fn main() {
    let read = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (most, cache) = (read("MIB", 1024_u64) << 20, (read("CACHE", 256) << 20) as usize);
    println!("{} MiB of blocks, {} MiB of cache", most >> 20, cache >> 20);
    let before = peak();
    all(most, cache).await;
    println!("{:42} {} (with the blocks to repeat: {before} at the start)", "the most memory", peak());
    if std::env::var("ONLY").is_err() {
        single_steps(most, cache).await;
    }
}
