//! The archive is verified, repaired and read, also beside a sync.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tipward_chain::sync::peer::wire::bitcoin::Network;
use tipward_simnet::{Behaviour, ChainSpec};
use tipward_tests::archived_blocks;

use crate::{Running, Server, run, stderr, stdout, summary, tipward, utf8};

fn segment(dir: &Path) -> PathBuf {
    dir.join("blocks/blk00000.blk")
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Where a block is in its segment.
fn offset(dir: &Path, height: u64) -> usize {
    let output = run(&["block", &height.to_string(), "--data-dir", utf8(dir), "--json"]);
    lines(&stdout(&output))[0]["offset"].as_u64().unwrap() as usize
}

#[test]
fn what_is_broken_is_named_forgotten_and_fetched_again() {
    let server = Server::start(Network::BTC_REGTEST, ChainSpec::new(150, 1), Behaviour::Honest);
    let (dir, address) = (tempfile::tempdir().unwrap(), server.address().to_string());
    let path = utf8(dir.path());
    let base = ["sync", "--network", "btc-regtest", "--connect", &address, "--data-dir", path];
    let sync =
        || summary(&run(&[&base[..], &["--until-synced", "--json", "--prune-depth", "1000"]].concat()));
    sync();
    let whole = archived_blocks(dir.path(), Network::BTC_REGTEST);
    let verify = |more: &[&str]| run(&[&["archive", "verify", "--data-dir", path], more].concat());
    let repair = |more: &[&str]| run(&[&["archive", "repair", "--data-dir", path], more].concat());
    let size = std::fs::metadata(segment(dir.path())).unwrap().len() - 151 * 8;
    let output = verify(&[]);
    assert!(output.status.success() && stderr(&output).is_empty());
    assert_eq!(stdout(&output), format!("151 blocks, {size} bytes, 0 problems\n"));
    let output = repair(&[]);
    let tip = &whole[&150].0;
    let expected = format!(
        "151 blocks, {size} bytes, 0 forgotten\nthe best chain still ends with block {tip} at height 150\n"
    );
    assert_eq!(stdout(&output), expected);

    // A bit in the middle, and the tail.
    let broken = offset(dir.path(), 100);
    let mut bytes = std::fs::read(segment(dir.path())).unwrap();
    bytes[broken + 85] ^= 0x10;
    bytes.truncate(bytes.len() - 7);
    std::fs::write(segment(dir.path()), bytes).unwrap();

    let output = run(&["block", "100", "--raw", "--data-dir", path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).ends_with("its bytes are not those that were archived\n"), "{}", stderr(&output));
    let output = run(&[&base[..], &["--until-synced"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("blk00000.blk is damaged: "), "{}", stderr(&output));
    let output = verify(&[]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    let found: Vec<&str> = text.lines().collect();
    assert_eq!(found.len(), 3, "{text}");
    let hash = &whole[&100].0;
    let start =
        format!("block {hash} at height 100, blk00000.blk from byte {broken}: its bytes have checksum ");
    assert!(found[0].starts_with(&start), "{text}");
    assert!(found[1].starts_with(&format!("block {tip} at height 150, blk00000.blk from byte ")), "{text}");
    assert_eq!(found[2], format!("151 blocks, {size} bytes, 2 problems"));
    let text = stderr(&output);
    assert!(text.starts_with("error: ") && text.contains("'tipward archive repair'"), "{text}");
    let output = verify(&["--json"]);
    let found = lines(&stdout(&output));
    assert_eq!((&found[0]["event"], &found[0]["height"]), (&"problem".into(), &100.into()));
    assert_eq!((&found[0]["segment"], &found[0]["offset"]), (&0.into(), &broken.into()));
    assert_eq!((&found[2]["event"], &found[2]["problems"]), (&"summary".into(), &2.into()));

    let output = repair(&["--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let last = lines(&stdout(&output)).pop().unwrap();
    assert_eq!((&last["forgotten"], &last["before"]["height"]), (&2.into(), &150.into()));
    assert_eq!(last["after"]["height"], 99);
    let line = sync();
    assert_eq!((&line["resumed_from"], &line["tip_height"]), (&99.into(), &150.into()));
    assert!(verify(&[]).status.success());
    assert_eq!(archived_blocks(dir.path(), Network::BTC_REGTEST), whole);
}

#[test]
fn an_archive_is_read_while_a_sync_writes_and_after_it_was_killed() {
    let server = Server::start(Network::BTC_REGTEST, ChainSpec::new(150, 1), Behaviour::Honest);
    let (dir, address) = (tempfile::tempdir().unwrap(), server.address().to_string());
    let path = utf8(dir.path());
    let arguments = ["sync", "--network", "btc-regtest", "--connect", &address, "--data-dir", path, "--json"];
    let mut sync = Running(tipward(&arguments).stdout(Stdio::piped()).spawn().unwrap());
    let output = BufReader::new(sync.0.stdout.take().unwrap());
    let synced = output.lines().find(|line| line.as_ref().unwrap().contains("\"synced\""));
    assert!(synced.is_some(), "it goes on running");

    // Being synced is told before the last blocks are written.
    let look = || run(&["block", "150", "--data-dir", path]).status.success();
    while !look() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for killed in [false, true] {
        if killed {
            sync.0.kill().unwrap();
            sync.0.wait().unwrap();
        }
        let output = run(&["block", "150", "--data-dir", path]);
        assert!(output.status.success(), "killed: {killed}: {}", stderr(&output));
        assert!(stdout(&output).contains("height         150\n"));
        let output = run(&["archive", "verify", "--data-dir", path]);
        assert!(stdout(&output).starts_with("151 blocks, "), "{}", stderr(&output));
        assert!(sync.0.try_wait().unwrap().is_none() || killed);
        let output = run(&["archive", "repair", "--data-dir", path]);
        if killed {
            assert!(output.status.success(), "{}", stderr(&output));
        } else {
            assert_eq!(
                stderr(&output),
                format!("error: {path}/blocks/index.redb is in use by another process\n")
            );
        }
    }
}
