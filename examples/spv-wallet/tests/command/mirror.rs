//! The wallet against the wallet of a `bitcoind` that has the same descriptors: whatever happens, both have the same confirmed
//! transactions in the same blocks, and the same confirmed balance.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use fastrand::Rng;
use serde_json::{Value, json};
use tipward_tests::{Bitcoind, NOBODYS_ADDRESS};

use crate::{Running, Wallet, finish, lines, text};

/// The node's wallets: the one that pays, and the one that watches what ours does.
const PAYER: &str = "tests";
const MIRROR: &str = "mirror";
const OPERATIONS: usize = 200;
const SATOSHI: f64 = 100_000_000.0;

#[test]
fn the_balance_is_that_of_bitcoinds_wallet_by_whole_blocks() {
    compare("blocks");
}

#[test]
fn the_balance_is_that_of_bitcoinds_wallet_by_filters() {
    compare("filters");
}

fn compare(mode: &'static str) {
    let Some(bitcoind) = Bitcoind::start(&["-blockfilterindex=1", "-peerblockfilters=1"]) else { return };
    let seed = tipward_tests::seed("TIPWARD_WALLET_SEED");
    let mut world = World::new(bitcoind, mode, seed);
    for number in 0..OPERATIONS {
        world.something_happens(number);
    }
    world.settle();
    let counts = &world.counts;
    println!("{mode}: {counts:?}");
    for what in ["receive", "spend", "reorg", "kill", "sync"] {
        assert!(
            counts.get(what).is_some_and(|count| *count > 2),
            "seed {seed}: too few of {what}: {counts:?}"
        );
    }
}

struct World {
    bitcoind: Bitcoind,
    wallet: Wallet,
    random: Rng,
    /// How often each thing has happened.
    counts: BTreeMap<&'static str, usize>,
}

impl World {
    fn new(bitcoind: Bitcoind, mode: &'static str, seed: u64) -> Self {
        let address = bitcoind.wallet();
        bitcoind.mine(120, &address);
        let wallet = Wallet::create("btc-regtest", &[bitcoind.address()], mode);
        let _ = bitcoind.rpc("createwallet", &json!([MIRROR, false, true]));
        let secret = fs::read_to_string(wallet.secret()).unwrap();
        let descriptors = secret.lines().zip([false, true]).map(|(line, is_change)| {
            let checksum = &bitcoind.rpc("getdescriptorinfo", &json!([line]))["checksum"];
            let descriptor = format!("{line}#{}", checksum.as_str().unwrap());
            json!({"desc": descriptor, "range": [0, 999], "timestamp": "now", "active": true, "internal": is_change})
        });
        let descriptors: Vec<Value> = descriptors.collect();
        let imported = bitcoind.rpc_of(MIRROR, "importdescriptors", &json!([descriptors]));
        assert!(imported.as_array().unwrap().iter().all(|one| one["success"] == true), "{imported}");
        Self { bitcoind, wallet, random: Rng::with_seed(seed), counts: BTreeMap::new() }
    }

    fn something_happens(&mut self, number: usize) {
        let what = match self.random.u8(0..100) {
            0..40 => "receive",
            40..50 => "spend",
            50..74 => "mine",
            74..82 => "reorg",
            82..86 => "replace",
            86..92 => "kill",
            _ => "sync",
        };
        println!("{number}: {what} at {}", self.bitcoind.height());
        match what {
            "receive" => self.receive(),
            "spend" => self.spend(),
            "mine" => {
                let blocks = self.random.u64(1..=3);
                self.mine(blocks, NOBODYS_ADDRESS);
            }
            "reorg" => self.reorganize(),
            "replace" => self.replace(),
            "kill" => self.kill(),
            _ => self.check(),
        }
        *self.counts.entry(what).or_default() += 1;
    }

    fn receive(&mut self) {
        let address = if self.random.u8(0..4) == 0 {
            self.wallet.address(&["--new"])
        } else {
            self.wallet.address(&[])
        };
        let satoshi = self.random.u32(10_000..10_000_000);
        let amount = format!("{}.{:08}", satoshi / 100_000_000, satoshi % 100_000_000);
        let _ = self.bitcoind.rpc_of(PAYER, "sendtoaddress", &json!([address, amount]));
    }

    /// Pays some of what there is, if there is some.
    fn spend(&mut self) {
        let satoshi = format!("{}sat", self.random.u32(1_000..5_000_000));
        let secret = self.wallet.secret();
        let secret = secret.to_str().unwrap();
        let output = finish(self.wallet.connecting(&["send", NOBODYS_ADDRESS, &satoshi, "--secret", secret]));
        if text(&output.stderr).contains("nsufficient") {
            return;
        }
        let answer = &lines(&output)[0];
        assert!(["fetched", "relayed"].contains(&answer["outcome"].as_str().unwrap()), "{answer}");
    }

    /// With all that waits or, sometimes, with nothing.
    fn mine(&mut self, blocks: u64, address: &str) {
        for _ in 0..blocks {
            if self.random.u8(0..3) == 0 {
                let _ = self.bitcoind.rpc("generateblock", &json!([address, []]));
            } else {
                self.bitcoind.mine(1, address);
            }
        }
    }

    /// Another branch gets longer, by one block.
    fn reorganize(&mut self) {
        let depth = self.random.u64(1..=6);
        let left = self.bitcoind.hash(self.bitcoind.height() + 1 - depth);
        let _ = self.bitcoind.rpc("invalidateblock", &json!([left]));
        // A block that was made invalid before can't be mined again.
        let address = self.bitcoind.rpc_of(PAYER, "getnewaddress", &json!([]));
        self.mine(depth + 1, address.as_str().unwrap());
    }

    /// A payment that waits is replaced by another one with a higher fee.
    fn replace(&mut self) {
        let waiting = self.bitcoind.mempool();
        if !waiting.is_empty() {
            let txid = &waiting[self.random.usize(..waiting.len())];
            // It may be ours, or have been spent already.
            self.bitcoind.try_rpc_of(PAYER, "bumpfee", &json!([txid])).ok();
        }
    }

    /// The wallet dies in the middle of something.
    fn kill(&mut self) {
        let running = Running(self.wallet.connecting(&["sync"]).spawn().unwrap());
        thread::sleep(Duration::from_millis(self.random.u64(0..400)));
        drop(running);
    }

    fn check(&mut self) {
        self.wallet.sync();
        assert_eq!(ours(&self.wallet), self.theirs());
    }

    /// In the end everything that may be confirmed is, and there is nothing else.
    fn settle(&mut self) {
        for entry in self.theirs_of("listtransactions", &json!(["*", 9999, 0])) {
            let transaction = self.bitcoind.rpc_of(MIRROR, "gettransaction", &json!([entry["txid"]]));
            if transaction["confirmations"] == 0 {
                // A reorg may have made it too early for the mempool, or another one has taken its place.
                self.bitcoind.try_rpc("sendrawtransaction", &json!([transaction["hex"]])).ok();
            }
        }
        self.bitcoind.mine(1, NOBODYS_ADDRESS);
        self.check();
        let blocks = ours(&self.wallet).1;
        assert!(blocks.len() > 20);
        // One that starts anew finds the same in the chain.
        let secret = self.wallet.secret();
        let init = ["init", "--network", "btc-regtest", "--secret", secret.to_str().unwrap()];
        let restored = Wallet::without_keys(&init, &self.wallet.connect, self.wallet.mode);
        restored.sync();
        assert_eq!(ours(&restored), self.theirs());
        for (txid, block) in blocks.iter().take(5) {
            let theirs = self.bitcoind.rpc("gettxoutproof", &json!([[txid], block]));
            let theirs = theirs.as_str().unwrap();
            let ours = &self.wallet.answer(&["proof", txid])[0];
            assert_eq!((&ours["proof"], &ours["block"]), (&json!(theirs), &json!(block)));
            let proven = &self.wallet.answer(&["verify-proof", theirs])[0];
            assert_eq!((&proven["block"], &proven["transactions"][0]["txid"]), (&json!(block), &json!(txid)));
        }
    }

    fn theirs(&self) -> (u64, BTreeMap<String, String>) {
        let unspent = self.theirs_of("listunspent", &json!([1]));
        let satoshi = |coin: &Value| (coin["amount"].as_f64().unwrap() * SATOSHI).round() as u64;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let all = self.theirs_of("listtransactions", &json!(["*", 9999, 0]));
        let confirmed = all.iter().filter(|entry| entry["confirmations"].as_i64().unwrap() > 0);
        let blocks = confirmed.map(|entry| (text(&entry["txid"]), text(&entry["blockhash"]))).collect();
        (unspent.iter().map(satoshi).sum(), blocks)
    }

    fn theirs_of(&self, method: &str, parameters: &Value) -> Vec<Value> {
        self.bitcoind.rpc_of(MIRROR, method, parameters).as_array().unwrap().clone()
    }
}

/// The confirmed balance in satoshi, and the block of each confirmed transaction.
fn ours(wallet: &Wallet) -> (u64, BTreeMap<String, String>) {
    let balance = &wallet.answer(&["balance"])[0];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let history = wallet.answer(&["history"]);
    let confirmed = history.iter().filter(|entry| entry["state"] == "confirmed");
    let blocks = confirmed.map(|entry| (text(&entry["txid"]), text(&entry["block"]))).collect();
    (balance["confirmed_sat"].as_u64().unwrap(), blocks)
}
