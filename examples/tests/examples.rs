//! Each example does what its first line says, against simulated nodes, real ones and real blocks.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use serde_json::json;
use tipward_chain::wire::bitcoin::{BlockHeader, Network};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};
use tipward_tests::{Bitcoind, testdata};
use tokio::runtime::Runtime;

/// An example that runs until it is dropped.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// The next line that has this in it.
    fn line_with(&mut self, what: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "it ends without {what:?}");
            if line.contains(what) {
                return line.trim_end().to_owned();
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

/// What it printed, of one that went well.
fn printed(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

fn serve(runtime: &Runtime, chain: SimChain, host: Ipv4Addr) -> SimNode {
    runtime.block_on(SimNode::spawn(chain, Behaviour::Honest, SocketAddr::from((host, 0)))).unwrap()
}

/// Something happens only to those who are connected.
fn until_connected(node: &SimNode) {
    while node.stats().handshakes == 0 {
        std::thread::yield_now();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn regtest(blocks: u32) -> SimChain {
    SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(blocks, 1))
}

#[test]
fn every_example_says_what_it_wants_to_be_told() {
    for program in [
        env!("CARGO_BIN_EXE_list-transactions"),
        env!("CARGO_BIN_EXE_list-outputs"),
        env!("CARGO_BIN_EXE_sum-payments"),
        env!("CARGO_BIN_EXE_find-payments"),
        env!("CARGO_BIN_EXE_peer-log"),
        env!("CARGO_BIN_EXE_print-transactions"),
        env!("CARGO_BIN_EXE_broadcast"),
        env!("CARGO_BIN_EXE_headers-to-file"),
        env!("CARGO_BIN_EXE_follow-tip"),
        env!("CARGO_BIN_EXE_serve-chain"),
    ] {
        let output = run(program, &[]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{program}");
        assert!(told.contains("usage: ") && told.lines().count() == 1, "{program}: {told}");
    }
}

#[test]
fn the_transactions_of_a_real_block_are_listed_with_their_offsets() {
    let Some(block) = testdata("btc-mainnet-block-413567.blk") else { return };
    let Some(offsets) = testdata("btc-mainnet-block-413567-tx-offsets.txt") else { return };
    let listed = printed(env!("CARGO_BIN_EXE_list-transactions"), &[block.to_str().unwrap()]);
    let listed: Vec<&str> = listed.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    let offsets = std::fs::read_to_string(offsets).unwrap();
    let offsets: Vec<&str> = offsets.split_ascii_whitespace().collect();
    assert_eq!(listed.len(), 1557);
    assert_eq!(listed, offsets);
}

#[test]
fn a_real_block_spends_and_pays() {
    let Some(block) = testdata("btc-mainnet-block-413567.blk") else { return };
    let listed = printed(env!("CARGO_BIN_EXE_list-outputs"), &[block.to_str().unwrap()]);
    let starting = |with: &str| listed.lines().filter(|line| line.starts_with(with)).count();
    assert_eq!(starting("  ") - starting("    "), 1557, "transactions");
    assert!(listed.starts_with("0000000000000000"), "{}", listed.lines().next().unwrap());
    assert!(starting("    spends ") >= 1557 && listed.matches(" satoshi to ").count() >= 1557);
}

#[test]
fn payments_are_summed_up_to_the_tip() {
    let runtime = runtime();
    let dir = tempfile::tempdir().unwrap();
    let chain = SimChain::generate(Network::DEMO, ChainSpec::new(20, 1));
    let tip = chain.tip().hash;
    let node = serve(&runtime, chain, Ipv4Addr::LOCALHOST);
    let program = env!("CARGO_BIN_EXE_sum-payments");
    let output = Command::new(program).arg(node.address().to_string()).current_dir(dir.path()).output();
    let told = String::from_utf8(output.unwrap().stdout).unwrap();
    // 50 coins in genesis and in each block after it: nothing is spent before a coinbase matures.
    assert_eq!(told.lines().count(), 21);
    let last = format!("{tip} at height 20: {} satoshi", 21 * 50 * 100_000_000_u64);
    assert_eq!(told.lines().last(), Some(&last[..]));
}

#[test]
fn payments_are_found_by_filters_and_other_blocks_left_alone() {
    let runtime = runtime();
    let dir = tempfile::tempdir().unwrap();
    let mut chain = SimChain::generate(Network::DEMO, ChainSpec::new(150, 1));
    let script = [&[0x00, 0x14][..], &[7; 20]].concat();
    let payments = chain.payments([&script[..], &[0x51], &script[..]]);
    chain.extend_with(&payments, 2);
    let id = chain.tip().hash;
    chain.extend(ChainSpec::new(20, 3));
    let node = serve(&runtime, chain, Ipv4Addr::LOCALHOST);
    let output = Command::new(env!("CARGO_BIN_EXE_find-payments"))
        .args(["demo", &hex(&script), &node.address().to_string()])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let pays = |index: usize| format!("{id} at height 151: {} pays 10000 satoshi\n", payments[index].txid());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), pays(0) + &pays(2));
    assert_eq!(node.stats().blocks, 1);
}

#[test]
fn the_pages_show_the_examples_that_are_tested() {
    for (page, example) in [
        (include_str!("../../docs/parsing.md"), include_str!("../src/bin/list-outputs.rs")),
        (include_str!("../../docs/indexing.md"), include_str!("../src/bin/sum-payments.rs")),
        (include_str!("../../docs/wallet.md"), include_str!("../src/bin/find-payments.rs")),
    ] {
        let (first, code) = example.split_once("\n\n").unwrap();
        assert!(page.contains(&format!("```rust,no_run\n{code}```")), "{first}");
    }
}

#[test]
fn what_a_node_says_is_printed() {
    let runtime = runtime();
    let node = serve(&runtime, regtest(10), Ipv4Addr::LOCALHOST);
    let mut log =
        Running::start(env!("CARGO_BIN_EXE_peer-log"), &[&node.address().to_string(), "btc-regtest"]);
    let greeting = log.line_with("user_agent");
    assert!(greeting.contains("tipward-simnet") && greeting.contains("claimed_height: 10"), "{greeting}");
    until_connected(&node);
    let mut longer = regtest(10);
    longer.extend(ChainSpec::new(1, 2));
    let nonce = format!("nonce: {}", longer.tip().header.nonce);
    let parent = longer.tip().header.parent.to_string();
    node.set_chain(longer);
    let announced = log.line_with("Headers(");
    assert!(announced.contains(&parent) && announced.contains(&nonce), "{announced}");
}

#[test]
fn a_transaction_that_a_node_has_is_printed() {
    let runtime = runtime();
    let chain = regtest(120);
    let payment = chain.payments([[0x51]]).remove(0);
    let node = serve(&runtime, chain, Ipv4Addr::LOCALHOST);
    let program = env!("CARGO_BIN_EXE_print-transactions");
    let mut log = Running::start(program, &[&node.address().to_string(), "btc-regtest"]);
    until_connected(&node);
    assert!(node.add_transaction(payment.clone()));
    let line = log.line_with(" bytes");
    // As it travels to who has not asked for witnesses.
    assert_eq!(line, format!("{} {} bytes", payment.txid(), payment.stripped_size()));
}

#[test]
fn a_transaction_that_is_broadcast_is_told_of_by_who_did_not_get_it_from_us() {
    let runtime = runtime();
    let chain = regtest(120);
    let payment = chain.payments([[0x51]]).remove(0);
    let hex = hex(payment.as_bytes());
    // Connections to one host count once, so each is another host.
    let nodes: Vec<SimNode> =
        (1..=3).map(|host| serve(&runtime, chain.clone(), Ipv4Addr::new(127, 0, 0, host))).collect();
    let _context = runtime.enter();
    for node in &nodes {
        nodes.iter().filter(|other| other.address() != node.address()).for_each(|other| node.relay_to(other));
    }
    let addresses: Vec<String> = nodes.iter().map(|node| node.address().to_string()).collect();
    let mut arguments = vec!["btc-regtest", hex.as_str()];
    arguments.extend(addresses.iter().map(String::as_str));
    let outcome = printed(env!("CARGO_BIN_EXE_broadcast"), &arguments);
    assert!(outcome.starts_with("SeenBack") && outcome.contains("127.0.0."), "{outcome}");
    assert!(nodes.iter().all(|node| node.mempool().iter().any(|it| it.txid() == payment.txid())));
}

#[test]
fn headers_are_written_to_a_file() {
    let runtime = runtime();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("headers.bin");
    let chain = regtest(120);
    let node = serve(&runtime, chain.clone(), Ipv4Addr::LOCALHOST);
    let arguments = ["btc-regtest", file.to_str().unwrap(), &node.address().to_string()];
    let told = printed(env!("CARGO_BIN_EXE_headers-to-file"), &arguments);
    assert_eq!(told, format!("121 headers, tip {} at height 120\n", chain.tip().hash));
    let written = std::fs::read(&file).unwrap();
    let expected: Vec<u8> = chain.blocks().iter().flat_map(|block| block.header.to_bytes()).collect();
    assert!(written == expected && written.len() == 121 * BlockHeader::SIZE);
}

#[test]
fn reorgs_of_a_real_node_are_printed() {
    let Some(node) = Bitcoind::start(&[]) else { return };
    let address = node.wallet();
    node.mine(20, &address);
    let dir = tempfile::tempdir().unwrap();
    let arguments = [&node.address().to_string(), dir.path().to_str().unwrap()];
    let mut log = Running::start(env!("CARGO_BIN_EXE_follow-tip"), &arguments);
    log.line_with("at the tip, ");
    let (old, common) = (node.hash(20), node.hash(17));
    node.reorganize(17, 5);
    let line = log.line_with("reorg: ");
    let expected = format!("reorg: {old} at height 20 is gone, 3 blocks back to {common} at height 17");
    assert_eq!(line, expected);
    log.line_with(&format!("at the tip, {} at height 22", node.hash(22)));
}

#[test]
fn a_real_node_takes_the_chain_that_is_served() {
    let Some(node) = Bitcoind::start(&[]) else { return };
    let mut served = Running::start(env!("CARGO_BIN_EXE_serve-chain"), &["127.0.0.1:0"]);
    let line = served.line_with(" at height 200 on ");
    let (tip, address) = (line.split(' ').next().unwrap(), line.rsplit(' ').next().unwrap());
    let _ = node.rpc("addnode", &json!([address, "add"]));
    runtime().block_on(node.wait_for("the chain", |node| node.height() == 200));
    assert_eq!(node.hash(200), tip);
}
