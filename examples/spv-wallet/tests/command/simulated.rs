//! The program on simulated nodes in this process.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
};

use bdk_wallet::bitcoin::{Address, ScriptBuf, address::NetworkUnchecked};
use serde_json::Value;
use tipward_chain::wire::bitcoin::{Network, RejectCode, Services};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode, SimOptions};

use crate::{Wallet, finish, lines, text};

const NETWORK: &Network = Network::BTC_REGTEST;
pub(crate) const SOMEBODY: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
/// How transactions are found.
pub(crate) const MODES: [&str; 2] = ["blocks", "filters"];
/// What a simulated payment pays, in satoshi.
pub(crate) const PAYMENT: u64 = 10_000;

/// A simulated node, on a runtime of its own.
pub(crate) struct Server {
    _runtime: tokio::runtime::Runtime,
    pub(crate) node: SimNode,
}

impl Server {
    pub(crate) fn start(chain: SimChain, options: impl Into<SimOptions>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let node = runtime.block_on(SimNode::spawn(chain, options, "127.0.0.1:0")).unwrap();
        Self { _runtime: runtime, node }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.node.address()
    }
}

/// A chain whose next block may pay to somebody.
pub(crate) fn trunk() -> SimChain {
    SimChain::generate(NETWORK, ChainSpec::new(105, 3))
}

/// Mines a block that pays to these.
pub(crate) fn pay(chain: &mut SimChain, scripts: &[ScriptBuf]) {
    let payments = chain.payments(scripts.iter().map(|script| script.as_bytes()));
    assert_eq!(payments.len(), scripts.len());
    chain.extend_with(&payments, 1);
}

pub(crate) fn script(address: &str) -> ScriptBuf {
    address.parse::<Address<NetworkUnchecked>>().unwrap().assume_checked().script_pubkey()
}

pub(crate) fn confirmed(wallet: &Wallet) -> u64 {
    wallet.answer(&["balance"])[0]["confirmed_sat"].as_u64().unwrap()
}

#[test]
fn the_demo_shows_all_and_ends_well() {
    let output = finish({
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_spv-wallet"));
        command.args(["--network", "demo"]).stdout(std::process::Stdio::piped());
        command
    });
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}");
    let steps = [
        "== receive",
        " 6 confirmations",
        "== spend",
        "announced by",
        "== reorg",
        "reorged out of block",
        "+0.00010000 BTC 8 conf",
    ];
    let mut at = 0;
    for step in steps {
        at += shown[at..].find(step).unwrap_or_else(|| panic!("no {step:?} after {at}: {shown}"));
    }
}

#[test]
fn a_script_alone_is_watched_from_a_height_a_birthday_or_a_checkpoint_on() {
    MODES.into_iter().for_each(watch_a_script);
}

fn watch_a_script(mode: &'static str) {
    let mut chain = trunk();
    for _ in 0..10 {
        pay(&mut chain, &[script(SOMEBODY)]);
    }
    let server = Server::start(chain, Behaviour::Honest);
    let init = ["init", "--network", "btc-regtest"];
    let wallet = Wallet::without_keys(&init, &[server.address()], mode);
    wallet.answer(&["watch", SOMEBODY]);
    wallet.sync();
    assert_eq!((confirmed(&wallet), wallet.answer(&["history"]).len()), (10 * PAYMENT, 10));
    // What is known is not asked for again.
    assert_eq!(wallet.sync().pop().unwrap()["blocks"], 0);

    // The last four are in the blocks from 112 on.
    let born = Wallet::without_keys(&[&init[..], &["--birthday", "112"]].concat(), &[server.address()], mode);
    born.answer(&["watch", &script(SOMEBODY).to_hex_string()]);
    born.sync();
    assert_eq!(confirmed(&born), 4 * PAYMENT);
    born.answer(&["rescan", "110"]);
    born.sync();
    assert_eq!(confirmed(&born), 6 * PAYMENT);
    born.answer(&["rescan", "0"]);
    born.sync();
    assert_eq!(confirmed(&born), 10 * PAYMENT);

    let file = wallet.dir.path().join("checkpoint.json");
    wallet.answer(&["checkpoint", "113", file.to_str().unwrap()]);
    let late = [&init[..], &["--checkpoint", file.to_str().unwrap()]].concat();
    let late = Wallet::without_keys(&late, &[server.address()], mode);
    late.answer(&["watch", SOMEBODY]);
    let summary = late.sync().pop().unwrap();
    assert_eq!((confirmed(&late), summary["headers"].as_u64()), (2 * PAYMENT, Some(2)));
    // It has no way to the blocks below.
    let output = finish(late.command(&["rescan", "113"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("not above 113"), "{}", text(&output.stderr));
    for from in ["117", "116", "114"] {
        late.answer(&["rescan", from]);
        late.sync();
        assert_eq!(confirmed(&late), 2 * PAYMENT, "from {from}");
    }
    // A birthday may be too late for now.
    let early =
        Wallet::without_keys(&[&init[..], &["--birthday", "117"]].concat(), &[server.address()], mode);
    let output = finish(early.connecting(&["sync", "--until-synced"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no block at height 116"), "{}", text(&output.stderr));
    early.answer(&["watch", SOMEBODY, "--from", "114"]);
    early.sync();
    assert_eq!(confirmed(&early), 2 * PAYMENT);
}

/// What is paid moves the gap, in the same block and in those after it.
#[test]
fn scripts_are_found_as_far_as_the_gap_reaches() {
    MODES.into_iter().for_each(reach_over_the_gap);
}

fn reach_over_the_gap(mode: &'static str) {
    let mut chain = trunk();
    let server = Server::start(chain.clone(), Behaviour::Honest);
    let giver = Wallet::create("btc-regtest", &[server.address()], mode);
    let scripts: Vec<ScriptBuf> = (0..130).map(|_| script(&giver.address(&["--new"]))).collect();
    pay(&mut chain, &[scripts[20].clone(), scripts[40].clone()]);
    // Each is in reach by what the one after it pays.
    pay(&mut chain, &[scripts[100].clone(), scripts[85].clone(), scripts[65].clone()]);
    pay(&mut chain, &[scripts[126].clone()]);
    server.node.set_chain(chain);
    let secret = giver.secret();
    let init = ["init", "--network", "btc-regtest", "--secret", secret.to_str().unwrap()];
    let restored = Wallet::without_keys(&init, &[server.address()], mode);
    restored.sync();
    assert_eq!(confirmed(&restored), 5 * PAYMENT);
    // The one that gave them out knows them all.
    giver.sync();
    assert_eq!(confirmed(&giver), 6 * PAYMENT);
}

/// Nothing comes back: what is spent is all that tells.
#[test]
fn a_spend_without_change_is_found() {
    for mode in MODES {
        let mut chain = trunk();
        let server = Server::start(chain.clone(), Behaviour::Honest);
        let wallet = Wallet::create("btc-regtest", &[server.address()], mode);
        pay(&mut chain, &[script(&wallet.address(&[]))]);
        server.node.set_chain(chain.clone());
        let secret = wallet.secret();
        let secret = secret.to_str().unwrap();
        lines(&finish(wallet.connecting(&["send", SOMEBODY, "9700sat", "--secret", secret])));
        let mempool = server.node.mempool();
        assert_eq!((mempool.len(), mempool[0].outputs().count()), (1, 1));
        chain.extend_with(&mempool, 2);
        server.node.set_chain(chain);
        let init = ["init", "--network", "btc-regtest", "--secret", secret];
        let restored = Wallet::without_keys(&init, &[server.address()], mode);
        restored.sync();
        assert_eq!((confirmed(&restored), restored.answer(&["history"]).len()), (0, 2), "by {mode}");
    }
}

/// There are no filters and no witnesses; watching works, and signing is refused.
#[test]
fn on_bsv_whole_blocks_are_read() {
    let address = "mfha3wmTvGAYZ4iZ7nDdXdDDrNSGjLwRxV";
    let network = Network::BSV_REGTEST;
    let mut chain = SimChain::generate(network, ChainSpec::new(105, 3));
    pay(&mut chain, &[script(address), script(address)]);
    let server = Server::start(chain.clone(), Behaviour::Honest);
    let mut wallet = Wallet::create("bsv-regtest", &[server.address()], "filters");
    wallet.answer(&["watch", address]);
    let refused = finish(wallet.connecting(&["sync", "--until-synced"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("bsv-regtest serve no block filters"),
        "{}",
        text(&refused.stderr)
    );
    wallet.mode = "blocks";
    wallet.sync();
    assert_eq!(confirmed(&wallet), 2 * PAYMENT);
    pay(&mut chain, &[script(&wallet.address(&[]))]);
    server.node.set_chain(chain);
    let secret = wallet.secret();
    let secret = secret.to_str().unwrap();
    let output = finish(wallet.connecting(&["send", address, "5000sat", "--secret", secret]));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("only watching works"), "{}", text(&output.stderr));
    assert_eq!((confirmed(&wallet), wallet.answer(&["history"]).len()), (3 * PAYMENT, 3));
    let witness = finish(wallet.command(&["watch", SOMEBODY]));
    assert_eq!(witness.status.code(), Some(2), "{}", text(&witness.stderr));
}

#[test]
fn a_proof_is_made_and_verified_by_headers() {
    let mut chain = trunk();
    pay(&mut chain, &[script(SOMEBODY), script(SOMEBODY)]);
    let server = Server::start(chain.clone(), Behaviour::Honest);
    let wallet = Wallet::without_keys(&["init", "--network", "btc-regtest"], &[server.address()], "filters");
    wallet.answer(&["watch", SOMEBODY]);
    wallet.sync();
    for entry in wallet.answer(&["history"]) {
        let txid = entry["txid"].as_str().unwrap();
        let answer = &wallet.answer(&["proof", txid])[0];
        let proof = answer["proof"].as_str().unwrap();
        let proven = &wallet.answer(&["verify-proof", proof])[0];
        assert_eq!((&proven["block"], proven["height"].as_u64()), (&entry["block"], Some(106)));
        let one = &proven["transactions"][0];
        assert_eq!((one["txid"].as_str(), &one["position"]), (Some(txid), &entry["position"]));

        let file = wallet.dir.path().join("proof");
        fs::write(&file, proof).unwrap();
        assert_eq!(&wallet.answer(&["verify-proof", file.to_str().unwrap()])[0], proven);
        // A digit of the last hash, before the count of the flags and these.
        let forged = format!(
            "{}{}{}",
            &proof[..proof.len() - 5],
            if proof.as_bytes()[proof.len() - 5] == b'0' { 1 } else { 0 },
            &proof[proof.len() - 4..]
        );
        let output = finish(wallet.command(&["verify-proof", &forged]));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    }
    // The block is left, and with it the proof means nothing.
    let txid = wallet.answer(&["history"])[0]["txid"].as_str().unwrap().to_owned();
    let proof = wallet.answer(&["proof", &txid])[0]["proof"].as_str().unwrap().to_owned();
    server.node.set_chain(chain.fork(105, ChainSpec::new(2, 77)));
    wallet.sync();
    let output = finish(wallet.command(&["verify-proof", &proof]));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("not on the best chain"), "{}", text(&output.stderr));
    let states: Vec<Value> = wallet.answer(&["history"]).iter().map(|entry| entry["state"].clone()).collect();
    assert_eq!(states, ["reorged out", "reorged out"]);
    assert_eq!(confirmed(&wallet), 0);
}

/// A payment that everybody rejects is told as such, and its coins are free.
#[test]
fn what_all_reject_is_given_up() {
    let (code, reason) = (RejectCode::INSUFFICIENT_FEE, "too cheap");
    let mut chain = trunk();
    let server = Server::start(chain.clone(), Behaviour::RejectsTransactions { code, reason });
    let wallet = Wallet::create("btc-regtest", &[server.address()], "filters");
    pay(&mut chain, &[script(&wallet.address(&[]))]);
    server.node.set_chain(chain);
    let secret = wallet.secret();
    for _ in 0..2 {
        let output =
            finish(wallet.connecting(&["send", SOMEBODY, "9000sat", "--secret", secret.to_str().unwrap()]));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let told: Value = serde_json::from_str(text(&output.stdout).trim()).unwrap();
        assert_eq!(
            (told["outcome"].as_str(), told["rejections"][0]["reason"].as_str()),
            (Some("rejected"), Some(reason))
        );
    }
    let states: Vec<Value> = wallet.answer(&["history"]).iter().map(|entry| entry["state"].clone()).collect();
    assert_eq!(states.iter().filter(|state| *state == "gone").count(), 2, "{states:?}");
    assert_eq!(confirmed(&wallet), PAYMENT);

    // One who takes it, and a wallet that gives it up by itself.
    let server = Server::start((*server.node.chain()).clone(), Behaviour::Honest);
    let wallet = Wallet { connect: vec![server.address()], ..wallet };
    let sent = lines(&finish(wallet.connecting(&[
        "send",
        SOMEBODY,
        "9000sat",
        "--secret",
        secret.to_str().unwrap(),
    ])));
    assert_eq!(sent[0]["outcome"], "fetched");
    assert_eq!(confirmed(&wallet), 0);
    let txid = sent[0]["txid"].as_str().unwrap();
    wallet.answer(&["abandon", txid]);
    assert_eq!(confirmed(&wallet), PAYMENT);

    // It may be handed out all the same, and counts again.
    let server = Server::start((*server.node.chain()).clone(), Behaviour::Honest);
    let wallet = Wallet { connect: vec![server.address()], ..wallet };
    let sent = lines(&finish(wallet.connecting(&["broadcast", txid])));
    assert_eq!((sent[0]["outcome"].as_str(), server.node.mempool().len()), (Some("fetched"), 1));
    assert_eq!(confirmed(&wallet), 0);
}

#[test]
fn where_nobody_serves_filters_whole_blocks_do_unless_filters_were_asked_for() {
    let mut chain = trunk();
    let [wallet, strict] = ["", "filters"].map(|mode| {
        let mut options = SimOptions::default();
        options.services = Some(Services::NETWORK | Services::WITNESS);
        let server = Server::start(chain.clone(), options);
        (Wallet::create("btc-regtest", &[server.address()], mode), server)
    });
    let (wallet, server) = wallet;
    pay(&mut chain, &[script(&wallet.address(&[]))]);
    server.node.set_chain(chain);
    let output = finish(wallet.connecting(&["sync", "--until-synced"]));
    assert!(text(&output.stderr).contains("looking through whole blocks"), "{}", text(&output.stderr));
    assert_eq!(confirmed(&wallet), PAYMENT);

    let (strict, _server) = strict;
    let mut waiting = crate::Running(strict.connecting(&["sync"]).spawn().unwrap());
    let mut told = String::new();
    BufReader::new(waiting.0.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert!(told.contains("'--mode blocks' does without"), "{told}");
}
