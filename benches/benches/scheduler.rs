//! The scheduler alone, without I/O: `cargo bench -p tipward-benches --bench scheduler [-- decisions|memory]`.
//! A decision is one block asked of a peer and taken to its end. `TIPWARD_BENCH_BLOCKS` sets how many there are, 1,000,000
//! unless set, and `TIPWARD_BENCH_ROUNDS` how often each row is measured, 5 unless set.

use std::{
    collections::VecDeque,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tipward_chain::sync::{
    Accepted, Block, BlockId, Chain, Input, Output, RefusedHeaders, Scheduler, SyncOptions, Update,
    peer::{
        PeerId, PeerInfo, Reply, Want,
        wire::{BlockEnd, BlockHash, BlockPart, DownloadId, Header, Verdict},
    },
};

const PEERS: u64 = 50;
/// Headers in one message.
const HEADERS: usize = 2000;
static BLOCK: [u8; 250] = [7; 250];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("memory-once") => memory_once(),
        Some("decisions") => decisions(),
        Some("memory") => memory(),
        _ => {
            decisions();
            memory();
        }
    }
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn blocks() -> usize {
    setting("TIPWARD_BENCH_BLOCKS", 1_000_000)
}

fn hash(height: usize) -> BlockHash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(height as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    bytes[8..16].copy_from_slice(&(height as u64).to_le_bytes());
    BlockHash::from_bytes(bytes)
}

fn height(hash: &BlockHash) -> usize {
    u64::from_le_bytes(*hash.as_bytes()[8..].first_chunk().expect("32 bytes")) as usize
}

/// A chain without branches, so that the tree costs next to nothing.
struct Line {
    length: usize,
}

impl Chain for Line {
    fn tip(&self) -> BlockId {
        BlockId { height: self.length as u64, hash: hash(self.length) }
    }

    fn best_at(&self, height: u64) -> Option<BlockHash> {
        (height as usize <= self.length).then(|| hash(height as usize))
    }

    fn find(&self, block: BlockHash) -> Option<BlockId> {
        self.fork_point(block)
    }

    fn fork_point(&self, block: BlockHash) -> Option<BlockId> {
        let height = height(&block);
        (height <= self.length).then_some(BlockId { height: height as u64, hash: block })
    }

    fn locator(&self, from: BlockHash) -> Vec<BlockHash> {
        vec![from, hash(0)]
    }

    fn accept(&mut self, headers: &[Header]) -> Result<Accepted, RefusedHeaders> {
        let last = headers.last().map(|header| height(&header.hash));
        let (before, after) = (self.length, last.map_or(self.length, |last| last.max(self.length)));
        self.length = after;
        let append = (before + 1..=after).map(hash).collect();
        let update = (after > before).then_some(Update { keep: before as u64 + 1, append });
        Ok(Accepted { added: after - before, last: last.map(hash), update })
    }

    fn local_block(&self, id: BlockId) -> Option<Block> {
        let (parts, size) = (Vec::new(), BLOCK.len() as u64);
        (id.height == 0).then_some(Block {
            id,
            parts,
            transactions: 1,
            size,
            served_by: None,
            is_streamed: false,
        })
    }
}

/// A scheduler driven as a program would: everything that it wants is done, and its deadline is asked for after each input.
struct Run {
    scheduler: Scheduler,
    chain: Line,
    target: usize,
    now: Instant,
    /// What each peer has been asked for and not brought.
    asked: Vec<VecDeque<BlockHash>>,
    in_flight: usize,
    given: usize,
    applied: usize,
    /// What the scheduler is yet to be told.
    due: VecDeque<Input>,
    inputs: u64,
    ticks: u64,
}

impl Run {
    fn new(options: SyncOptions, target: usize) -> Self {
        Self {
            scheduler: Scheduler::new(options, None, 7),
            chain: Line { length: 0 },
            target,
            now: Instant::now(),
            asked: (0..PEERS).map(|_| VecDeque::new()).collect(),
            in_flight: 0,
            given: 0,
            applied: 0,
            due: VecDeque::new(),
            inputs: 0,
            ticks: 0,
        }
    }

    fn step(&mut self, input: Input) {
        self.due.push_back(input);
        while let Some(input) = self.due.pop_front() {
            // As fast as the bar asks for: a million blocks a second.
            self.now += Duration::from_nanos(300);
            self.inputs += 1;
            self.scheduler.handle(self.now, input, &mut self.chain);
            while let Some(output) = self.scheduler.poll() {
                match output {
                    Output::Ask(peer, Want::Blocks(blocks)) => {
                        self.in_flight += blocks.len();
                        self.asked[peer.0 as usize].extend(blocks);
                    }
                    Output::Ask(peer, Want::HeadersAfter(locator)) => {
                        let from = locator.first().map_or(0, height);
                        let to = self.target.min(from + HEADERS);
                        let header = |at| Header { hash: hash(at), parent: hash(at - 1), raw: Bytes::new() };
                        let headers: Vec<Header> = (from + 1..=to).map(header).collect();
                        let more = headers.len() == HEADERS;
                        self.due.push_back(Input::Reply(peer, Reply::Headers { headers, more }));
                    }
                    Output::Apply(_) => self.given += 1,
                    Output::Drop(peer, fault) => panic!("{peer} was dropped: {fault}"),
                    Output::Failed(reason) => panic!("{reason}"),
                    _ => {}
                }
            }
            if self.scheduler.deadline().is_some_and(|at| at <= self.now) {
                self.ticks += 1;
                self.due.push_back(Input::Tick);
            }
        }
    }

    /// Headers are there, and blocks are asked for.
    fn connect(&mut self) {
        for peer in 0..PEERS {
            self.step(Input::Connected(PeerId(peer), PeerInfo::new("bench", self.target as u64)));
        }
        self.step(Input::Settled);
        assert_eq!(self.chain.length, self.target, "all headers are there");
    }

    /// Peers bring what they were asked for, each a block in its turn, until so many are applied. The sink applies at once.
    fn serve(&mut self, blocks: usize) {
        while self.applied < blocks {
            (0..PEERS).for_each(|peer| self.bring(peer));
            self.deliver();
        }
    }

    /// Likewise, but always the block that is next in the chain, so that none waits for another.
    fn serve_in_order(&mut self, blocks: usize) {
        while self.applied < blocks {
            let next = |peer: &u64| self.asked[*peer as usize].front().map_or(usize::MAX, height);
            let peer = (0..PEERS).min_by_key(next).expect("there are peers");
            self.bring(peer);
            self.deliver();
        }
    }

    fn bring(&mut self, peer: u64) {
        let Some(block) = self.asked[peer as usize].pop_front() else { return };
        self.in_flight -= 1;
        self.step(Input::Reply(PeerId(peer), Reply::Part(part(block))));
        self.step(Input::Reply(PeerId(peer), Reply::BlockEnd(end(block))));
    }

    fn deliver(&mut self) {
        let given = std::mem::take(&mut self.given);
        if given > 0 {
            self.applied += given;
            self.step(Input::Delivered(given));
        }
        assert!(given > 0 || self.in_flight > 0, "nothing more is asked for after {} blocks", self.applied);
    }
}

fn part(block: BlockHash) -> BlockPart {
    BlockPart {
        block,
        download: DownloadId(height(&block) as u64),
        block_size: BLOCK.len() as u64,
        index: 0,
        offset: 0,
        first_transaction: 0,
        transactions: vec![81],
        bytes: Bytes::from_static(&BLOCK),
        ends_inside_transaction: false,
    }
}

fn end(block: BlockHash) -> BlockEnd {
    BlockEnd {
        block,
        download: DownloadId(height(&block) as u64),
        transactions: 1,
        size: BLOCK.len() as u64,
        parts: 1,
        checksum: Verdict::Verified,
        merkle_root: Verdict::Verified,
    }
}

/// What is measured, and with which options.
type Row = (&'static str, fn() -> SyncOptions);

fn decisions() {
    let rounds = setting("TIPWARD_BENCH_ROUNDS", 5);
    println!("{} blocks from {PEERS} peers, medians of {rounds} rounds", blocks());
    let wide = || {
        let mut options = SyncOptions::default();
        (options.window, options.max_in_flight) = (16 * 1024, 256);
        options
    };
    let rows: [Row; 2] =
        [("as it comes", SyncOptions::default), ("16,384 blocks in the window, 256 of each peer", wide)];
    for (name, options) in rows {
        let (mut rates, mut inputs) = (Vec::new(), (0, 0));
        for _ in 0..rounds {
            let mut run = Run::new(options(), blocks());
            run.connect();
            let start = Instant::now();
            run.serve(blocks() + 1);
            rates.push(blocks() as f64 / start.elapsed().as_secs_f64());
            inputs = (run.inputs, run.ticks);
        }
        rates.sort_by(f64::total_cmp);
        let rate = rates[rates.len() / 2] / 1e6;
        println!(
            "  {name:46} {rate:6.3} million decisions/s ({} inputs, {} ticks of them)",
            inputs.0, inputs.1
        );
    }
    let start = Instant::now();
    for block in (1..=blocks()).map(hash) {
        std::hint::black_box((Input::Reply(PeerId(0), Reply::Part(part(block))), end(block)));
    }
    let rate = blocks() as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("  {:46} {rate:6.3} million blocks/s", "making the inputs, which is in all of these");
}

/// Measures in a process of its own, in which large allocations go back to the system when they are freed.
fn memory() {
    let program = std::env::current_exe().expect("a program has a path");
    let output = Command::new(program)
        .arg("memory-once")
        .env("MALLOC_MMAP_THRESHOLD_", "65536")
        .env("MALLOC_TRIM_THRESHOLD_", "65536")
        .output()
        .expect("it starts again");
    print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

/// Peers show what they are worth until as many blocks are in flight as the window holds.
fn memory_once() {
    let mut options = SyncOptions::default();
    options.window = blocks();
    options.max_in_flight = blocks();
    options.byte_budget = 1 << 50;
    let before = resident();
    let mut run = Run::new(options, 3 * blocks());
    run.connect();
    run.serve_in_order(3 * blocks() / 2);
    // What the bench itself keeps: the hashes that each peer was asked for.
    run.asked.iter_mut().for_each(|asked| *asked = VecDeque::new());
    let (grown, in_flight) = (resident() - before, run.in_flight);
    println!(
        "{} blocks in the window, {in_flight} in flight: {:.1} MiB, {:.0} bytes for each, {:.0} if only those in flight count",
        blocks(),
        grown as f64 / f64::from(1 << 20),
        grown as f64 / blocks() as f64,
        grown as f64 / in_flight as f64,
    );
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("this is Linux");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}
