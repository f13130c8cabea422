//! A process that appends, streams, reorgs and prunes is killed at random moments: whoever opens the archive next finds what was
//! applied up to some step, which is not before the last one that the process had told to be done.
//!
//! `TIPWARD_KILL_ROUNDS` sets how often, 20 unless set; `TIPWARD_KILL_SEED` what is drawn.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::BytesMut;
use tipward_chain::{
    Archive, ArchiveOptions, ArchiveReader, ArchivedBlock, StoreError,
    sync::{
        Block, BlockId,
        peer::wire::{
            BlockEvent, DownloadId,
            bitcoin::{BlockHeader, BlockOptions, BlockReader, Network},
        },
    },
};
use tipward_simnet::{ChainSpec, SimBlock, SimChain};

const NETWORK: &&Network = &Network::BTC_REGTEST;
/// Where the process that is to be killed finds the archive, and the number of its next step.
const DIR: &str = "TIPWARD_KILL_DIR";
const FROM: &str = "TIPWARD_KILL_FROM";

#[test]
fn killed_at_random_moments_it_holds_what_was_applied() {
    match std::env::var_os(DIR) {
        Some(dir) => work(Path::new(&dir)),
        None => watch(),
    }
}

/// A step of what is done, and the best chain after it.
struct Step {
    rollback: Option<u64>,
    append: Vec<Block>,
    is_streamed: bool,
    best: Vec<BlockId>,
}

/// All steps, endlessly: first 320 blocks, then reorg after reorg.
fn steps() -> impl Iterator<Item = Step> {
    let mut chain = SimChain::generate(NETWORK, spec(320, 0));
    let all = whole(&chain, 0, 321);
    let first = Step { rollback: None, append: all, is_streamed: false, best: best(&chain, 320) };
    let reorgs = (1..).flat_map(move |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let depth = random.u64(0..30);
        let from = chain.height() - depth;
        chain = chain.fork(from, spec(depth as u32 + random.u32(1..10), seed));
        let mut steps = vec![Step {
            rollback: Some(from),
            append: Vec::new(),
            is_streamed: false,
            best: best(&chain, from),
        }];
        let mut at = from + 1;
        while at <= chain.height() {
            let end = (at + random.u64(1..12)).min(chain.height() + 1);
            let (append, best) = (whole(&chain, at, end), best(&chain, end - 1));
            steps.push(Step { rollback: None, append, is_streamed: random.bool(), best });
            at = end;
        }
        steps
    });
    std::iter::once(first).chain(reorgs)
}

fn spec(blocks: u32, seed: u64) -> ChainSpec {
    let mut spec = ChainSpec::new(blocks, seed);
    (spec.max_transactions, spec.max_data) = (2, 300);
    spec
}

fn best(chain: &SimChain, tip: u64) -> Vec<BlockId> {
    chain.blocks()[..=tip as usize]
        .iter()
        .zip(0..)
        .map(|(block, height)| BlockId { height, hash: block.hash })
        .collect()
}

/// Blocks as they come from peers.
fn whole(chain: &SimChain, from: u64, to: u64) -> Vec<Block> {
    (from..to).map(|height| block(height, &chain.blocks()[height as usize])).collect()
}

fn block(height: u64, sim: &SimBlock) -> Block {
    let mut options = BlockOptions::new(NETWORK);
    options.part_size = 128;
    let mut reader = BlockReader::new(DownloadId(1), sim.size(), options);
    let (mut input, mut parts, mut transactions) = (BytesMut::from(&sim.raw[..]), Vec::new(), 0);
    while let Some(event) = reader.decode(&mut input).unwrap() {
        match event {
            BlockEvent::Part(part) => parts.push(part),
            BlockEvent::End(end) => transactions = end.transactions,
        }
    }
    let id = BlockId { height, hash: sim.hash };
    Block { id, parts, transactions, size: sim.size(), served_by: None, is_streamed: false }
}

fn open(dir: &Path) -> Archive {
    let mut options = ArchiveOptions::default();
    (options.max_depth, options.segment_size) = (Some(0), 4000);
    Archive::open_with(dir, NETWORK, options).unwrap()
}

/// Goes on with the steps until it is killed, and tells of each that is done.
fn work(dir: &Path) {
    let from: usize = std::env::var(FROM).unwrap().parse().unwrap();
    let mut archive = open(dir);
    for (number, mut step) in steps().enumerate().skip(from) {
        if let Some(height) = step.rollback {
            archive.rollback(height).unwrap();
        }
        if step.is_streamed {
            let first = &mut step.append[0];
            first.parts.iter().for_each(|part| archive.append_part(first.id, part).unwrap());
            first.parts.clear();
            first.is_streamed = true;
        }
        if !step.append.is_empty() {
            archive.append(&step.append).unwrap();
        }
        // Fails when nobody listens any more.
        println!("done {number}");
    }
}

/// A process that is killed when dropped.
struct Worker(Child);

impl Worker {
    /// Starts it at a step; it goes on for ever.
    fn start(dir: &Path, from: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "killed_at_random_moments_it_holds_what_was_applied", "--nocapture"]);
        command.env(DIR, dir).env(FROM, from.to_string());
        Self(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// The steps that it tells to be done.
    fn done(&mut self) -> impl Iterator<Item = usize> + use<> {
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines().map_while(Result::ok);
        lines.filter_map(|line| line.strip_prefix("done ").map(|number| number.parse().unwrap()))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn watch() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("TIPWARD_KILL_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("TIPWARD_KILL_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let (mut steps, mut from) = (steps().map(|step| step.best).peekable(), 0);
    // After the last step that is known to be done.
    let mut before = Vec::new();
    for round in 0..number("TIPWARD_KILL_ROUNDS").unwrap_or(20) {
        let mut worker = Worker::start(dir.path(), from);
        let mut lines = worker.done();
        // Now and then at the start, else on the way.
        let mut done = None;
        if random.u8(..4) > 0 {
            done = lines.next();
            assert!(done.is_some(), "it ended by itself in round {round}");
        }
        std::thread::sleep(Duration::from_micros(random.u64(..100_000)));
        assert!(worker.0.try_wait().unwrap().is_none(), "it ended by itself in round {round}");
        worker.0.kill().unwrap();
        worker.0.wait().unwrap();
        let done = lines.last().or(done).map_or(from, |last| last + 1);
        for _ in from..done {
            before = steps.next().unwrap();
        }
        from = done;
        // A reader mends the index as a writer does.
        let found = if random.bool() {
            contents(&open(dir.path()))
        } else if dir.path().join("index.redb").exists() {
            contents(&ArchiveReader::open(dir.path(), NETWORK).unwrap())
        } else {
            Vec::new()
        };
        if found != before {
            assert!(found == *steps.peek().unwrap(), "in round {round}, after {from} steps");
            before = steps.next().unwrap();
            from += 1;
        }
    }
    println!("{from} steps");
    assert!(from > 1, "it got somewhere");
    assert!(open(dir.path()).by_height(0).unwrap().unwrap().is_pruned, "it prunes");
}

#[test]
fn who_reads_beside_a_process_that_writes_gets_right_bytes_or_an_error() {
    let (dir, mut random) = (tempfile::tempdir().unwrap(), fastrand::Rng::with_seed(1));
    let mut worker = Worker::start(dir.path(), 0);
    let mut done = worker.done();
    assert_eq!(done.next(), Some(0));
    let reader = ArchiveReader::open(dir.path(), NETWORK).unwrap();
    let (mut pruned, mut seen) = (0, BTreeSet::new());
    while seen.len() < 20 {
        let tip = reader.cursor().unwrap().unwrap();
        seen.insert(tip);
        let looked_up: Vec<ArchivedBlock> =
            (0..20).filter_map(|_| reader.by_height(random.u64(..=tip.height)).unwrap()).collect();
        for checked in reader.verify(NETWORK) {
            let checked = checked.unwrap();
            assert_eq!(checked.problem, None, "{checked}");
        }
        for block in looked_up {
            let mut bytes = Vec::new();
            match reader.read(&block) {
                Ok(mut file) => drop(file.read_to_end(&mut bytes).unwrap()),
                Err(StoreError::Pruned { .. }) => {
                    pruned += 1;
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
            let header = BlockHeader::from_bytes(bytes.first_chunk().unwrap());
            assert_eq!((header.hash(), bytes.len() as u64), (block.id.hash, block.size));
        }
        assert!(worker.0.try_wait().unwrap().is_none());
    }
    println!("{} tips, {pruned} of the blocks were pruned", seen.len());
    // The process ends when nobody listens.
    drop(done);
}

/// The best chain; fails unless all is as it was archived.
fn contents(archive: &ArchiveReader) -> Vec<BlockId> {
    for checked in archive.verify(NETWORK) {
        let checked = checked.unwrap();
        assert_eq!(checked.problem, None, "{checked}");
    }
    let best: Vec<BlockId> =
        (0..).map_while(|height| archive.by_height(height).unwrap()).map(|block| block.id).collect();
    assert_eq!(archive.cursor().unwrap(), best.last().copied());
    best
}
