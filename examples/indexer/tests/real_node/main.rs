//! The program beside a real node: whatever the node says about transactions, scripts and what is unspent, the index says too.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod compare;
#[path = "../program/mod.rs"]
mod program;

use std::{collections::BTreeSet, thread::sleep, time::Duration};

use serde_json::{Value, json};
use tipward_tests::Bitcoind;

use compare::compare;
use program::{Program, dead};

const KINDS: [&str; 4] = ["legacy", "p2sh-segwit", "bech32", "bech32m"];

/// Somebody who uses a wallet of the node.
struct Life<'a> {
    node: &'a Bitcoind,
    random: fastrand::Rng,
    /// Where was paid to: some places more than once.
    addresses: Vec<String>,
    /// Of blocks that are not on the best chain any more.
    left: Vec<String>,
}

impl<'a> Life<'a> {
    fn new(node: &'a Bitcoind) -> Self {
        let seed = tipward_tests::seed("TIPWARD_INDEXER_SEED");
        let address = node.wallet();
        node.mine(120, &address);
        Self { node, random: fastrand::Rng::with_seed(seed), addresses: vec![address], left: Vec::new() }
    }

    fn address(&mut self) -> String {
        if self.random.u8(..3) == 0 {
            return self.random.choice(&self.addresses).unwrap().clone();
        }
        let kind = self.random.choice(KINDS).unwrap();
        let address = self.node.rpc("getnewaddress", &json!(["", kind])).as_str().unwrap().to_owned();
        self.addresses.push(address.clone());
        address
    }

    /// Some payments, which spend each other's outputs too, and some data.
    fn pay(&mut self) {
        for _ in 0..self.random.u32(0..4) {
            let amount = f64::from(self.random.u32(1..1_000_000)) / 1e6;
            let address = self.address();
            // After a reorg the money may be gone for a while.
            self.node.try_rpc("sendtoaddress", &json!([address, amount])).ok();
        }
        if self.random.bool() {
            let outputs: serde_json::Map<String, Value> =
                (0..self.random.u32(2..9)).map(|n| (self.address(), json!(f64::from(n + 1) / 1e3))).collect();
            self.node.try_rpc("sendmany", &json!(["", outputs])).ok();
        }
        if self.random.u8(..4) == 0 {
            let data = format!("{:032x}", self.random.u128(..));
            let address = self.address();
            let outputs = json!([{"data": data}, {address: 0.01}]);
            self.node.try_rpc("send", &json!({"outputs": outputs})).ok();
        }
    }

    fn step(&mut self) {
        self.pay();
        if self.random.u8(..4) == 0 {
            let tip = self.node.height();
            let fork = tip - self.random.u64(0..6);
            self.left.extend((fork..=tip).map(|height| self.node.hash(height)));
            let _ = self.node.rpc("invalidateblock", &json!([self.node.hash(fork)]));
            let address = self.address();
            self.node.mine(tip - fork + 1, &address);
        }
        let (count, address) = (self.random.u64(1..3), self.address());
        self.node.mine(count, &address);
    }
}

#[test]
fn a_wallets_life_with_reorgs_and_ten_kills() {
    let Some(node) = Bitcoind::start(&["-txindex=1"]) else { return };
    let mut life = Life::new(&node);
    let dir = tempfile::tempdir().unwrap();
    let arguments = |node: &Bitcoind| {
        [
            "--network",
            "btc-regtest",
            "--connect",
            &node.address().to_string(),
            "--data-dir",
            dir.path().to_str().unwrap(),
        ]
        .map(str::to_owned)
    };
    // The first look, in peace.
    let program = Program::start(&arguments(&node));
    for _ in 0..10 {
        life.step();
    }
    compare(&node, &program, &life.left);
    drop(program);

    let mut heights = BTreeSet::new();
    let mut random = fastrand::Rng::with_seed(life.random.u64(..));
    for _ in 0..10 {
        let mut program = Program::start(&arguments(&node));
        for _ in 0..random.u32(1..4) {
            life.step();
            sleep(Duration::from_millis(random.u64(0..200)));
        }
        heights.extend(program.try_get("/tip").map(|tip| tip["height"].as_u64()));
        program.kill();
    }
    println!("killed at {heights:?}");
    assert!(heights.len() > 2, "it got somewhere between the kills");
    let program = Program::start(&arguments(&node));
    compare(&node, &program, &life.left);
    for _ in 0..5 {
        life.step();
    }
    compare(&node, &program, &life.left);
    program.end_in_good_order();

    // The archive alone may be ahead: without its index, all is built anew, and no block is stored twice.
    let size = |dir: &std::path::Path| std::fs::metadata(dir.join("blocks/blk00000.blk")).unwrap().len();
    let before = size(dir.path());
    std::fs::remove_file(dir.path().join("index.redb")).unwrap();
    let program = Program::start(&arguments(&node));
    compare(&node, &program, &life.left);
    drop(program);
    assert_eq!(size(dir.path()), before);
    assert!(
        dead(&["--network", "bsv-regtest", "--data-dir", dir.path().to_str().unwrap()])
            .contains("btc-regtest")
    );
}
