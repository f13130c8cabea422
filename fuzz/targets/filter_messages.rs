//! Messages of bloom filters and block filters.
#![no_main]

use libfuzzer_sys::fuzz_target;

const COMMANDS: &[&str] = &[
    "filterload",
    "filteradd",
    "filterclear",
    "getcfilters",
    "cfilter",
    "getcfheaders",
    "cfheaders",
    "getcfcheckpt",
    "cfcheckpt",
];

fuzz_target!(|data: &[u8]| {
    tipward_fuzz::message(COMMANDS, data);
});
