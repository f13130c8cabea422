//! A whole sync over loopback from four nodes in another process: many small blocks, and large ones:
//! `cargo bench -p tipward-benches --bench sync [-- small|large]`.
//!
//! `TIPWARD_BENCH_ROUNDS` sets how often each row is measured, 5 unless set; `TIPWARD_BENCH_BLOCKS` how many small blocks
//! there are, 200,000 unless set; `TIPWARD_BENCH_SYNC_MIB` how much there is of large ones, 8192 unless set.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

mod nodes;
mod receiver;

use receiver::{Checks, Measured};
use tipward_benches::{median, number, rounds};

/// How many nodes serve.
const NODES: usize = 4;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve-small"] => nodes::small(number("TIPWARD_BENCH_BLOCKS", 200_000)),
        ["serve-large"] => nodes::large(number("TIPWARD_BENCH_SYNC_MIB", 8192)),
        ["receive", how, kind, checks, ports] => receiver::measure(how, kind, checks, ports),
        ["small"] => small(),
        ["large"] => large(),
        _ => {
            small();
            large();
        }
    }
}

/// A row of a table: what is run, and from how many of the nodes.
struct Row {
    name: &'static str,
    how: &'static str,
    checks: Checks,
    nodes: usize,
}

fn small() {
    let rows = [
        Row { name: "sync", how: "sync", checks: Checks::All, nodes: NODES },
        Row { name: "connections alone", how: "wire", checks: Checks::All, nodes: NODES },
    ];
    let (nodes, ports) = Nodes::start("serve-small");
    println!("small blocks from {NODES} simulated nodes, medians of {} rounds", rounds());
    println!("  {:28} blocks/s   with headers   bytes/block   cpu us/block: receiver + nodes", "");
    for (row, rounds) in rows.iter().zip(measure(&rows, "small", &nodes, &ports)) {
        let of = |value: fn(&Measured) -> f64| median(rounds.iter().map(value));
        println!(
            "  {:28} {:8.0}   {:12.0}   {:11.0}   {:22.1} + {:.1}",
            row.name,
            of(|m| m.blocks / m.seconds),
            of(|m| m.blocks / m.all_seconds),
            of(|m| m.bytes / m.blocks),
            of(|m| 1e6 * m.processor / m.blocks),
            of(|m| 1e6 * m.nodes_processor / m.blocks),
        );
    }
}

fn large() {
    let rows = [
        Row { name: "one connection, checksum", how: "wire", checks: Checks::Checksum, nodes: 1 },
        Row { name: "one connection, all checks", how: "wire", checks: Checks::All, nodes: 1 },
        Row { name: "sync, checksum", how: "sync", checks: Checks::Checksum, nodes: NODES },
        Row { name: "sync, all checks", how: "sync", checks: Checks::All, nodes: NODES },
    ];
    let (nodes, ports) = Nodes::start("serve-large");
    println!("blocks of 32 MiB from {NODES} nodes, medians of {} rounds", rounds());
    println!(
        "  {:28} GB/s   of one connection with the same checks   with checksum   cpu s/GB: receiver + nodes   peak MiB",
        ""
    );
    let measured = measure(&rows, "large", &nodes, &ports);
    let rate = |m: &Measured| m.bytes / m.seconds / 1e9;
    for (row, rounds) in rows.iter().zip(&measured) {
        let ratio = |base: &[Measured]| {
            100.0 * median(rounds.iter().zip(base).map(|(round, base)| rate(round) / rate(base)))
        };
        let same = usize::from(row.checks == Checks::All);
        println!(
            "  {:28} {:4.2}   {:36.0} %   {:11.0} %   {:18.2} + {:.2}   {:8.0}",
            row.name,
            median(rounds.iter().map(rate)),
            ratio(&measured[same]),
            ratio(&measured[0]),
            median(rounds.iter().map(|m| 1e9 * m.processor / m.bytes)),
            median(rounds.iter().map(|m| 1e9 * m.nodes_processor / m.bytes)),
            rounds.iter().map(|m| m.peak).fold(0.0, f64::max),
        );
    }
}

/// Every row so often, in turn: hosts drift.
fn measure(rows: &[Row], kind: &str, nodes: &Nodes, ports: &[String]) -> Vec<Vec<Measured>> {
    let mut measured: Vec<Vec<Measured>> = rows.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds() {
        for (row, measured) in rows.iter().zip(&mut measured) {
            let before = nodes.processor();
            let ports = ports[..row.nodes].join(",");
            let output = Command::new(program())
                .args(["receive", row.how, kind, row.checks.name(), &ports])
                .stderr(Stdio::inherit())
                .output()
                .expect("it starts again");
            assert!(output.status.success(), "{} failed", row.name);
            let line = String::from_utf8(output.stdout).expect("text");
            measured.push(Measured::parse(&line, nodes.processor() - before));
        }
    }
    measured
}

/// This program as the process that serves; ended when dropped.
struct Nodes(Child);

impl Nodes {
    /// Starts it and waits for the ports.
    fn start(what: &str) -> (Self, Vec<String>) {
        let mut child =
            Command::new(program()).arg(what).stdout(Stdio::piped()).spawn().expect("it starts again");
        let output = child.stdout.take().expect("it is piped");
        let nodes = Self(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("it says something");
        let ports: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        assert_eq!(ports.len(), NODES, "{what} failed");
        (nodes, ports)
    }

    /// What it has used of the processors, in seconds.
    fn processor(&self) -> f64 {
        receiver::processor(&self.0.id().to_string())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn program() -> std::path::PathBuf {
    std::env::current_exe().expect("a program has a path")
}
