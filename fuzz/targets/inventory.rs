//! Inventories, locators and headers.
#![no_main]

use libfuzzer_sys::fuzz_target;

const COMMANDS: &[&str] = &["inv", "getdata", "notfound", "getheaders", "getblocks", "gethdrsen", "headers"];

fuzz_target!(|data: &[u8]| {
    tipward_fuzz::message(COMMANDS, data);
});
