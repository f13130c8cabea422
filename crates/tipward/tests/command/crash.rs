//! Killed without warning, ten times at random moments: the next run resumes, and the archive is what it should be.

use std::{collections::BTreeSet, process::Stdio, thread::sleep, time::Duration};

use tipward_chain::sync::peer::wire::{BlockHash, bitcoin::Network};
use tipward_tests::{Bitcoind, Throttle, archived_blocks};

use crate::{Running, run, stdout, summary, tipward, utf8};

const HEIGHT: u64 = 1000;

#[test]
fn killed_ten_times_during_a_sync_from_a_real_node() {
    killed_ten_times("headers-first");
}

#[test]
fn killed_ten_times_during_a_sync_by_lists() {
    killed_ten_times("inventory");
}

fn killed_ten_times(strategy: &str) {
    let Some(bitcoind) = Bitcoind::start(&[]) else { return };
    let address = bitcoind.wallet();
    bitcoind.mine_with_transactions(HEIGHT, &address);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // Slow enough for ten runs to find something to do.
    let relay = runtime.block_on(Throttle::start(bitcoind.address(), 100_000)).unwrap();
    let (dir, address) = (tempfile::tempdir().unwrap(), relay.address().to_string());
    let arguments =
        ["sync", "--network", "btc-regtest", "--connect", &address, "--data-dir", utf8(dir.path())];

    // One message of headers is most of a second here, and counts when it is whole: not what this is about.
    summary(&run(&[&arguments[..], &["--headers-only", "--until-synced", "--json"]].concat()));

    let arguments = [&arguments[..], &["--strategy", strategy]].concat();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut heights, mut last) = (BTreeSet::new(), 0);
    for _ in 0..10 {
        let mut child =
            Running(tipward(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        sleep(Duration::from_millis(random.u64(1..1200)));
        assert!(child.0.try_wait().unwrap().is_none(), "killed on the way, not after the end");
        drop(child);
        // Opening it is what the next run does: a prefix, never a gap, and never less than before.
        let height = archived_blocks(dir.path(), Network::BTC_REGTEST).len() as u64;
        assert!(height >= last, "{height} blocks after {last}");
        last = height;
        heights.insert(height);
        println!("{height} blocks");
    }
    assert!(heights.len() > 2, "the runs got somewhere: {heights:?}");

    let direct = bitcoind.address().to_string();
    let arguments = [
        "sync",
        "--network",
        "btc-regtest",
        "--connect",
        &direct,
        "--data-dir",
        utf8(dir.path()),
        "--strategy",
        strategy,
    ];
    let line = summary(&run(&[&arguments[..], &["--until-synced", "--json"]].concat()));
    assert_eq!(line["tip_height"], HEIGHT);
    assert_eq!(line["resumed_from"].as_u64().map(|from| from + 1), Some(last));
    let blocks = archived_blocks(dir.path(), Network::BTC_REGTEST);
    assert_eq!(blocks.len() as u64, HEIGHT + 1);
    for (height, (hash, bytes)) in &blocks {
        let expected = bitcoind.hash(*height);
        assert_eq!(*hash, expected.parse::<BlockHash>().unwrap());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(hex == bitcoind.block(&expected), "the bytes at height {height}");
    }
    // No block was written twice.
    let text = stdout(&run(&["inspect", utf8(&dir.path().join("blocks/blk00000.blk"))]));
    assert!(text.contains(&format!("\n{} blocks, ", HEIGHT + 1)), "{text}");
}
