//! What the tests share: real nodes, real chain data, and a way to slow them down.
//!
//! A test that finds no node or no data prints a line that says so and passes, unless `TIPWARD_REQUIRE_NODES=1` or
//! `TIPWARD_REQUIRE_TESTDATA=1` demands them, as CI does.

mod bcoin;
mod bitcoind;
mod compare;
mod peers;
mod record;
mod rpc;
mod socks;
mod tap;
mod throttle;
mod watcher;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

pub use bcoin::Bcoin;
pub use bitcoind::{Bitcoind, NOBODYS_ADDRESS};
pub use compare::{archived_blocks, assert_archive_holds, wait_for};
pub use peers::{PATIENCE, Peers, patiently};
pub use record::{Record, Recorded};
pub use socks::{Socks, Through};
pub use tap::{Log, Seen, Tap, What};
pub use throttle::Throttle;
pub use watcher::{Found, Watcher};

/// The README's code, compiled and run with the other tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// The code of the page for those who index. The small examples are what the pages show, and are run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/indexing.md")]
pub struct Indexing;

/// The code of the page for those who build a wallet.
#[cfg(doctest)]
#[doc = include_str!("../../docs/wallet.md")]
pub struct Wallet;

/// The code of the page for those who parse.
#[cfg(doctest)]
#[doc = include_str!("../../docs/parsing.md")]
pub struct Parsing;

/// A file of real chain data: in the directory that `TIPWARD_TESTDATA` names, or in `../shared/data` beside the project.
#[must_use]
pub fn testdata(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let dir = std::env::var_os("TIPWARD_TESTDATA").map_or(root, PathBuf::from);
    let path = dir.join(name);
    if path.exists() {
        return Some(path);
    }
    missing("TIPWARD_REQUIRE_TESTDATA", &format!("no test data at {}", path.display()));
    None
}

/// What a test is random by: the number that the environment variable names, else the same in each run. It is printed.
///
/// # Panics
/// It is no number.
#[must_use]
pub fn seed(variable: &str) -> u64 {
    let seed = std::env::var(variable).map_or(1, |seed| seed.parse().expect("a seed is a number"));
    println!("{variable}={seed}");
    seed
}

/// Says why a test is skipped, or fails it where nothing may be.
fn missing(demand: &str, what: &str) {
    assert!(std::env::var_os(demand).is_none_or(|value| value != "1"), "{what}, and {demand} is set");
    println!("skipped: {what}");
}

/// A program on the path.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A port that was free just now.
fn free_address(host: Ipv4Addr) -> SocketAddr {
    let listener = TcpListener::bind((host, 0)).expect("a free port");
    listener.local_addr().expect("a bound listener has an address")
}
