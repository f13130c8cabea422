//! Addresses of nodes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipward_wire::bitcoin::Message;

const COMMANDS: &[&str] = &["addr", "addrv2"];

fuzz_target!(|data: &[u8]| {
    match tipward_fuzz::message(COMMANDS, data) {
        Some(Message::AddrV2(addresses)) => {
            addresses.iter().for_each(|address| assert!(!address.host.to_string().is_empty()));
        }
        Some(Message::Addr(addresses)) => {
            addresses
                .iter()
                .for_each(|entry| assert_eq!(entry.address.socket_address().port(), entry.address.port));
        }
        _ => {}
    }
});
