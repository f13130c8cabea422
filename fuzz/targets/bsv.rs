//! What only BSV's nodes speak.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipward_fuzz::walk;
use tipward_wire::bitcoin::Message;

const COMMANDS: &[&str] = &[
    "protoconf",
    "createstrm",
    "streamack",
    "authch",
    "authresp",
    "hdrsen",
    "dsdetected",
    "revokemid",
    "datareftx",
    "sendhdrsen",
];

fuzz_target!(|data: &[u8]| {
    match tipward_fuzz::message(COMMANDS, data) {
        Some(Message::HdrsEn(headers)) => {
            for proof in headers.iter().flat_map(|entry| entry.coinbase.iter().chain(&entry.miner_info)) {
                walk(&proof.transaction);
                let _ = proof.proof.root();
            }
        }
        Some(Message::DsDetected(found)) => {
            assert!(found.branches.len() >= 2);
            let roots = found.branches.iter().filter_map(|branch| branch.proof.root());
            assert!(roots.count() <= found.branches.len());
        }
        Some(Message::DataRefTx(found)) => walk(&found.0.transaction),
        _ => {}
    }
});
