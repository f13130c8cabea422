//! The example prints what a node relays.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};
use tipward_wire::bitcoin::Network;

#[test]
fn a_transaction_that_a_node_has_is_printed() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let chain = SimChain::generate(Network::BTC_REGTEST, ChainSpec::new(120, 1));
    let payment = chain.payments([[0x51]]).remove(0);
    let node = runtime.block_on(SimNode::spawn(chain, Behaviour::Honest, "127.0.0.1:0")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_print-transactions"))
        .args([&node.address().to_string(), "btc-regtest"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Announced to who is connected, so not before it is.
    while node.stats().handshakes == 0 {
        std::thread::yield_now();
    }
    assert!(node.add_transaction(payment.clone()));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let (id, size) = line.trim_end().split_once(' ').unwrap();
    assert_eq!(id, payment.txid().to_string());
    assert!(size.ends_with(" bytes"), "{line}");
}
