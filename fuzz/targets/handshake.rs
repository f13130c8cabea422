//! What is said around the handshake.
#![no_main]

use libfuzzer_sys::fuzz_target;

const COMMANDS: &[&str] = &[
    "version",
    "verack",
    "ping",
    "pong",
    "reject",
    "feefilter",
    "sendtxrcncl",
    "feature",
    "mempool",
    "protoconf",
    "sendheaders",
];

fuzz_target!(|data: &[u8]| {
    tipward_fuzz::message(COMMANDS, data);
});
