//! Blocks, small messages and idle connections through the peer layer, from another process over loopback, beside plain
//! SHA-256 and a plain read loop: `cargo bench -p tipward-benches --bench peer [-- blocks|messages|idle]`.
//! `TIPWARD_BENCH_ROUNDS` sets how often each row is measured, 7 unless set.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Instant,
};

use tipward_benches::mixed;
use tipward_chain::sync::peer::{Checksum, wire::BlockHash};
use tokio::runtime::Runtime;

mod idle;
mod receiver;
mod sender;

/// How often small messages are sent in one round.
const MESSAGES: u64 = 2_000_000;
/// How many connections idle.
const IDLE: usize = 1000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["send-blocks"] => sender::blocks(),
        ["send-messages"] => sender::messages(MESSAGES),
        ["keep-connections"] => idle::keep(),
        ["receive-block", port, hash, row] => receive_once(port, hash, row),
        ["idle", port, row] => idle::measure(port.parse().expect("a port"), row, IDLE),
        ["blocks"] => blocks(),
        ["messages"] => messages(),
        ["idle"] => idle(),
        _ => {
            blocks();
            messages();
            idle();
        }
    }
}

/// The rows of blocks: what is measured, and what the block's checks are.
const ROWS: [Row; 6] = [
    Row::new("handler, checksum inline", "framed", Checksum::Inline, false, false),
    Row::new("handler, checksum on a thread", "framed", Checksum::Thread, false, false),
    Row::new("handler, checksum and merkle root inline", "framed", Checksum::Inline, true, false),
    Row::new("handler, extmsg (no checksum)", "extended", Checksum::Inline, false, false),
    Row::new("client, checksum inline", "framed", Checksum::Inline, false, true),
    Row::new("client, extmsg (no checksum)", "extended", Checksum::Inline, false, true),
];

/// How a block is received.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    frame: &'static str,
    checksum: Checksum,
    merkle_root: bool,
    through_client: bool,
}

impl Row {
    const fn new(
        name: &'static str,
        frame: &'static str,
        checksum: Checksum,
        merkle_root: bool,
        through_client: bool,
    ) -> Self {
        Self { name, frame, checksum, merkle_root, through_client }
    }
}

fn blocks() {
    let (sender, line) = Helper::start(&["send-blocks"]);
    let [hash, framed, extended, plain] = line.split(' ').collect::<Vec<_>>()[..] else {
        panic!("the sender said {line}")
    };
    let block = parse_hash(hash);
    let port = |frame: &str| if frame == "framed" { framed } else { extended }.parse().expect("a port");
    let plain = plain.parse().expect("a port");
    let bytes = mixed().bytes;
    let size = bytes.len() as f64;
    println!("one block of {size} bytes over loopback, GB/s, medians of {} rounds", rounds());

    let mut hashing = Vec::new();
    let mut reading = Vec::new();
    let mut received = [const { Vec::new() }; ROWS.len()];
    for _ in 0..rounds() {
        let start = Instant::now();
        std::hint::black_box(bitcoin_hashes::sha256::hash(&bytes));
        hashing.push(size / start.elapsed().as_secs_f64());
        reading.push(size / on_one_core(receiver::plain(plain, bytes.len())));
        for (row, rates) in ROWS.iter().zip(&mut received) {
            rates.push(size / on_one_core(receiver::block(port(row.frame), block, *row)));
        }
    }
    let line = |name: &str, rates: &[f64], limit: &str, of: &[f64]| {
        let ratios: Vec<f64> = rates.iter().zip(of).map(|(rate, limit)| rate / limit).collect();
        println!("  {name:42} {:5.2}  {:4.0} % of {limit}", median(rates) / 1e9, 100.0 * median(&ratios));
    };
    line("plain SHA-256 in memory (bitcoin_hashes)", &hashing, "itself", &hashing);
    line("plain tokio read loop", &reading, "itself", &reading);
    for (row, rates) in ROWS.iter().zip(&received) {
        match row.frame {
            "framed" => line(row.name, rates, "plain SHA-256", &hashing),
            _ => line(row.name, rates, "the read loop", &reading),
        }
    }
    for row in ROWS {
        let port: u16 = port(row.frame);
        let (_, peak) = Helper::start(&["receive-block", &port.to_string(), hash, row.name]);
        println!("  {:42} {peak}", row.name);
    }
    drop(sender);
}

/// Receives the block in a process of its own, and tells its peak memory.
fn receive_once(port: &str, hash: &str, row: &str) {
    let row = ROWS.iter().find(|known| known.name == row).expect("a row");
    on_one_core(receiver::block(port.parse().expect("a port"), parse_hash(hash), *row));
    println!("peak memory {} MiB", status("VmHWM:") / 1024);
}

fn messages() {
    let (_sender, line) = Helper::start(&["send-messages"]);
    let port = line.parse().expect("a port");
    println!("{MESSAGES} `inv` of one transaction, millions a second, medians of {} rounds", rounds());
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..rounds() {
        for (rates, through_client) in rates.iter_mut().zip([false, true]) {
            let seconds = on_one_core(receiver::messages(port, MESSAGES, through_client));
            rates.push(MESSAGES as f64 / seconds);
        }
    }
    println!("  handler {:19.2}\n  client {:20.2}", median(&rates[0]) / 1e6, median(&rates[1]) / 1e6);
}

fn idle() {
    let (_keeper, port) = Helper::start(&["keep-connections"]);
    println!("{IDLE} idle connections");
    for row in ["clients", "clients, encrypted", "manager", "manager, encrypted"] {
        let (_, line) = Helper::start(&["idle", &port, row]);
        println!("  {row:42} {line}");
    }
}

/// This program as another process; ended when dropped.
struct Helper(Child);

impl Helper {
    /// Starts it and waits for its first line.
    fn start(arguments: &[&str]) -> (Self, String) {
        let program = std::env::current_exe().expect("a program has a path");
        let mut child =
            Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().expect("it starts again");
        let output = child.stdout.take().expect("it is piped");
        let helper = Self(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("it says something");
        assert!(!line.is_empty(), "{arguments:?} failed");
        (helper, line.trim().to_owned())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn on_one_core<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(work)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn rounds() -> usize {
    std::env::var("TIPWARD_BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(7)
}

fn median(samples: &[f64]) -> f64 {
    let mut samples = samples.to_vec();
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn parse_hash(hex: &str) -> BlockHash {
    hex.parse().expect("a hash")
}

/// A line of `/proc/self/status`, in KiB.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the line is there");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
