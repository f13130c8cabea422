//! How fast blocks are indexed, and what limits it: real blocks over and over (see `repeated`), without a network.
//!
//! `cargo bench -p indexer --bench indexing`; `MIB=1024` is how many MiB of blocks, `CACHE=256` how many MiB of the index are held
//! in memory. Blocks are read from a file, which is part of what is measured.

mod repeated;

use std::{
    io::{Read, Write},
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

/// Writes blocks of so many bytes to a file, and returns all but their bytes. To make them is no part of what is measured.
fn write_blocks(path: &Path, most: u64) -> Vec<Block> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("a file"));
    let (mut size, mut blocks) = (0, Vec::new());
    for mut block in repeated::Repeated::load().expect("the benches need the test data") {
        file.write_all(&std::mem::take(&mut block.parts[0].bytes)).expect("the disk");
        size += block.size;
        blocks.push(block);
        if size >= most {
            break;
        }
    }
    file.flush().expect("the disk");
    blocks
}

/// The blocks as they come from a peer, one after the other.
struct Blocks<'a>(std::fs::File, std::slice::Iter<'a, Block>);

impl<'a> Blocks<'a> {
    fn new(path: &Path, blocks: &'a [Block]) -> Self {
        Self(std::fs::File::open(path).expect("the file"), blocks.iter())
    }
}

impl Iterator for Blocks<'_> {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        let block = self.1.next()?;
        let (mut block, mut bytes) = (block.clone(), vec![0; block.size as usize]);
        self.0.read_exact(&mut bytes).expect("the file");
        block.parts[0].bytes = bytes.into();
        Some(block)
    }
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
            "{what:42} {:7.1} MB/s, {:8.0} transactions/s ({:.0} MB in {seconds:.1} s)",
            self.bytes as f64 / 1e6 / seconds,
            self.transactions as f64 / seconds,
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
async fn all(blocks: Blocks<'_>, cache: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let archive = Archive::open(&dir.path().join("blocks"), &NETWORK).expect("an archive");
    let (mut sink, writer) = IndexSink::new(archive, index(dir.path(), cache), NETWORK.chain);
    sink.cursor().await.expect("the start");
    let (mut figures, begun, mut flushed) = (Figures::default(), Instant::now(), Instant::now());
    for block in blocks {
        figures.add(&block, Duration::ZERO);
        sink.apply(block).await.expect("a block");
        // As the sync does.
        if flushed.elapsed() > Duration::from_millis(250) {
            sink.flush().await.expect("the disk");
            flushed = Instant::now();
        }
    }
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

async fn single_steps(path: &Path, given: &[Block], cache: usize) {
    let (mut parsing, mut indexing) = (Figures::default(), Figures::default());
    let dir = tempfile::tempdir().expect("a directory");
    let (mut index, mut waiting) = (index(dir.path(), cache), 0);
    for block in Blocks::new(path, given) {
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
    for block in Blocks::new(path, given) {
        let begun = Instant::now();
        archive.apply(block.clone()).await.expect("a block");
        archiving.add(&block, begun.elapsed());
    }
    let begun = Instant::now();
    archive.flush().await.expect("the disk");
    archiving.took += begun.elapsed();
    archiving.print("the archive alone, durable");
}

/// What the system says about the memory of the process.
fn memory(name: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown").trim().to_owned()
}

#[tokio::main]
async fn main() {
    let read = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (most, cache) = (read("MIB", 1024_u64) << 20, (read("CACHE", 256) << 20) as usize);
    println!("{} MiB of blocks, {} MiB of cache", most >> 20, cache >> 20);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("blocks");
    let blocks = write_blocks(&path, most);
    // The peak is counted from now on.
    std::fs::write("/proc/self/clear_refs", "5").ok();
    let before = memory("VmRSS:");
    all(Blocks::new(&path, &blocks), cache).await;
    println!("{:42} {}, of which {before} were there at the start", "the most memory", memory("VmHWM:"));
    single_steps(&path, &blocks, cache).await;
}
