//! What the command prints when all is well.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::Stdio,
};

use serde_json::Value;
use tipward_chain::sync::peer::wire::bitcoin::{Block, Network};
use tipward_simnet::{Behaviour, ChainSpec};
use tipward_tests::{archived_blocks, testdata};

use crate::{Running, Server, json_lines, run, stderr, stdout, summary, tipward, utf8};

#[test]
fn the_demo_ends_with_a_summary_and_the_way_to_the_real_network() {
    let output = run(&["sync"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("demo: a simulated network of 5 nodes on loopback"), "{text}");
    assert!(text.contains("reorg: 8 blocks undone, back to height 1995"), "{text}");
    assert!(text.contains("\ndemo: height 2012, "), "{text}");
    assert!(text.ends_with("sync the real network:  tipward sync --network btc\n"), "{text}");
    assert!(stderr(&output).is_empty());
    // The line before it works as it stands.
    let line = text.lines().find(|line| line.starts_with("look at a block:")).unwrap();
    let (_, command) = line.split_once("tipward ").unwrap();
    let arguments: Vec<&str> = command.split_whitespace().collect();
    assert!(stdout(&run(&arguments)).contains("height         2012\n"));
    std::fs::remove_dir_all(PathBuf::from(arguments.last().unwrap())).unwrap();
}

#[test]
fn json_is_all_there_is_on_stdout() {
    let server = Server::start(Network::BTC_REGTEST, ChainSpec::new(300, 1), Behaviour::Honest);
    let (dir, address) = (tempfile::tempdir().unwrap(), server.address().to_string());
    let sync = |more: &[&str]| {
        let base = [
            "sync",
            "--network",
            "btc-regtest",
            "--connect",
            &address,
            "--data-dir",
            utf8(dir.path()),
            "--json",
            "-v",
        ];
        run(&[&base[..], more].concat())
    };
    let first = sync(&["--stop-at", "120"]);
    let lines = json_lines(&first);
    assert!(
        lines.iter().any(|line| line["event"] == "peer_connected" && line["address"] == address.as_str())
    );
    assert!(stderr(&first).contains("connected"), "-v logs to stderr");
    let line = summary(&first);
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    let expected = [
        "event",
        "network",
        "tip_height",
        "tip_hash",
        "headers",
        "blocks",
        "txs",
        "bytes",
        "reorgs",
        "peers",
        "resumed_from",
        "elapsed_ms",
    ];
    assert_eq!(keys, expected);
    assert_eq!(
        (&line["network"], &line["tip_height"], &line["blocks"]),
        (&"btc-regtest".into(), &120.into(), &120.into())
    );
    assert!(line["resumed_from"].is_null());

    let chain = server.node.chain();
    let line = summary(&sync(&["--until-synced"]));
    assert_eq!(
        (&line["tip_height"], &line["resumed_from"], &line["blocks"]),
        (&300.into(), &120.into(), &180.into())
    );
    assert_eq!((&line["headers"], &line["peers"], &line["reorgs"]), (&180.into(), &1.into(), &0.into()));
    assert_eq!(line["tip_hash"], chain.tip().hash.to_string());

    // Nothing more to do, and a stop below the tip undoes nothing.
    for arguments in [&["--until-synced"][..], &["--stop-at", "50"]] {
        let line = summary(&sync(arguments));
        assert_eq!(
            (&line["tip_height"], &line["resumed_from"], &line["blocks"]),
            (&300.into(), &300.into(), &0.into())
        );
    }
    drop(server);

    // What was stored, by height and by hash.
    let block = &chain.blocks()[77];
    for name in ["77", &block.hash.to_string()] {
        let output = run(&["block", name, "--data-dir", utf8(dir.path()), "--json"]);
        let line: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!((&line["height"], &line["hash"]), (&77.into(), &block.hash.to_string().into()));
        assert_eq!((&line["size"], &line["on_best_chain"]), (&block.raw.len().into(), &true.into()));
        assert_eq!(run(&["block", name, "--data-dir", utf8(dir.path()), "--raw"]).stdout, block.raw);
    }
    // The headers.
    let listed = |arguments: &[&str]| {
        let output = run(&[&["headers", "--data-dir", utf8(dir.path())], arguments].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let lines = listed(&["--json", "--from", "77", "--count", "2"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["height"], &lines[1]["height"]), (2, &77.into(), &78.into()));
    assert_eq!(lines[0]["hash"], block.hash.to_string());
    assert_eq!(lines[0]["previous"], chain.blocks()[76].hash.to_string());
    assert_eq!(
        (&lines[0]["nonce"], &lines[0]["time"]),
        (&block.header.nonce.into(), &block.header.time.into())
    );
    let last = listed(&[]);
    assert_eq!(last.lines().count(), 10);
    assert!(last.lines().last().unwrap().contains(&format!("300  {}", chain.tip().hash)), "{last}");
    let line: Value = serde_json::from_str(&listed(&["--verify", "--json"])).unwrap();
    assert_eq!(
        (&line["height"], &line["headers"], &line["side_headers"]),
        (&300.into(), &301.into(), &0.into())
    );
    let text = listed(&["--verify"]);
    assert!(text.contains("headers  301, of which 0 are on 0 side branches\nall are valid"), "{text}");
    // To a file and into another directory.
    let (file, other) = (dir.path().join("headers.bin"), dir.path().join("other"));
    assert_eq!(listed(&["--export", utf8(&file)]), "301 headers\n");
    assert_eq!(std::fs::read(&file).unwrap().len(), 301 * 80);
    let again = run(&["headers", "--data-dir", utf8(dir.path()), "--export", utf8(&file)]);
    assert_eq!(again.status.code(), Some(1), "a file that is there is not written over");
    let import = |more: &[&str]| {
        run(&[&["headers", "--import", utf8(&file), "--data-dir", utf8(&other)], more].concat())
    };
    let output = import(&[]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(2), String::new()));
    assert_eq!(stderr(&output), "error: headers of which network? Give --network NAME\n");
    let output = import(&["--network", "btc-regtest", "--json"]);
    let line: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&line["headers"], &line["added"], &line["height"]), (&301.into(), &300.into(), &300.into()));
    // A proof of a transaction, by its block's height and hash.
    let transaction = Block::new(block.raw.clone()).unwrap().transaction(0).unwrap().txid();
    let text = transaction.to_string();
    for name in ["77", &block.hash.to_string()] {
        let prove = |more: &[&str]| {
            let arguments = ["proof", &text, "--block", name, "--data-dir", utf8(dir.path())];
            stdout(&run(&[&arguments[..], more].concat()))
        };
        let line: serde_json::Value = serde_json::from_str(&prove(&["--json"])).unwrap();
        assert_eq!((&line["height"], &line["confirmations"]), (&77.into(), &224.into()));
        assert_eq!(line["transactions"], serde_json::json!([{"txid": text, "position": 0}]));
        let proof = prove(&["--raw"]);
        assert_eq!(line["proof"], proof.trim());
        let header: String = block.header.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(proof.starts_with(&header), "{proof}");
        assert!(prove(&[]).contains(&format!("{text}, number 0 of ")), "{}", prove(&[]));
    }
    let output = run(&["proof", &text, "--block", "78", "--data-dir", utf8(dir.path())]);
    assert_eq!(stderr(&output), format!("error: transaction {text} is not in the block\n"));
    // A segment is a block file.
    let segment = dir.path().join("blocks/blk00000.blk");
    let text = stdout(&run(&["inspect", utf8(&segment)]));
    assert!(text.starts_with("network btc-regtest\n"), "{text}");
    assert!(text.contains(&format!("       77  {}", block.hash)), "{text}");
    assert!(text.contains("\n301 blocks, "), "{text}");
}

/// While it runs, a line a second says where it is, how fast it goes, and who brings how much.
#[test]
fn progress_tells_of_rates_and_peers() {
    let slow = || Behaviour::Slow { bytes_per_second: 120_000 };
    let servers = [7, 7].map(|seed| Server::start(Network::BTC_REGTEST, ChainSpec::new(400, seed), slow()));
    let (dir, addresses) =
        (tempfile::tempdir().unwrap(), servers.each_ref().map(|server| server.address().to_string()));
    let arguments = [
        "sync",
        "--network",
        "btc-regtest",
        "--connect",
        &addresses[0],
        "--connect",
        &addresses[1],
        "--data-dir",
        utf8(dir.path()),
        "--until-synced",
        "--window",
        "64",
        "--budget",
        "64MiB",
    ];
    let lines = json_lines(&run(&[&arguments[..], &["--json"]].concat()));
    let progress: Vec<_> = lines.iter().filter(|line| line["event"] == "progress").collect();
    assert!(progress.len() >= 2, "{lines:?}");
    let keys: Vec<&String> = progress[0].as_object().unwrap().keys().collect();
    let expected = [
        "event",
        "headers",
        "target",
        "applied",
        "blocks",
        "bytes",
        "blocks_per_second",
        "bytes_per_second",
        "eta_seconds",
        "buffered_bytes",
        "connected",
        "peers",
    ];
    assert_eq!(keys, expected);
    assert!(progress.iter().any(|line| line["bytes_per_second"].as_u64() > Some(0)), "{progress:?}");
    assert!(progress.iter().any(|line| line["eta_seconds"].is_u64()), "{progress:?}");
    let both = progress.iter().find(|line| line["connected"] == 2).unwrap();
    let mut shown: Vec<&str> =
        both["peers"].as_array().unwrap().iter().map(|peer| peer["address"].as_str().unwrap()).collect();
    let mut expected: Vec<&str> = addresses.iter().map(String::as_str).collect();
    shown.sort_unstable();
    expected.sort_unstable();
    assert_eq!(shown, expected);
    assert!(both["peers"][0]["in_flight"].as_u64() > Some(0), "{both}");
    let is_shared = |line: &&Value| {
        let peers = line["peers"].as_array().unwrap();
        let shares: f64 = peers.iter().map(|peer| peer["share"].as_f64().unwrap()).sum();
        let is_fast = |peer: &Value| peer["bytes_per_second"].as_u64() > Some(10_000);
        peers.len() == 2 && (shares - 1.0).abs() < 0.001 && peers.iter().all(is_fast)
    };
    assert!(progress.iter().any(is_shared), "{progress:?}");
    // The same for people.
    std::fs::remove_dir_all(dir.path()).unwrap();
    let text = stdout(&run(&arguments));
    let is_progress = |line: &&str| line.contains("headers 400/400, blocks ") && line.contains(" MB/s");
    assert!(text.lines().find(is_progress).is_some_and(|line| line.contains(" left, 2 peers")), "{text}");
    let row = text
        .lines()
        .find(|line| line.trim_start().starts_with(&addresses[0]))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(row.contains(" MB/s ") && row.contains(" in flight ") && row.ends_with(" blocks"), "{row}");
}

#[test]
fn headers_only_downloads_no_blocks() {
    let server = Server::start(Network::BSV_REGTEST, ChainSpec::new(2500, 1), Behaviour::Honest);
    let (dir, address) = (tempfile::tempdir().unwrap(), server.address().to_string());
    let base = [
        "sync",
        "--network",
        "bsv-regtest",
        "--connect",
        &address,
        "--data-dir",
        utf8(dir.path()),
        "--json",
        "--headers-only",
    ];
    let line = summary(&run(&[&base[..], &["--stop-at", "2100"]].concat()));
    assert_eq!(
        (&line["tip_height"], &line["headers"], &line["blocks"]),
        (&2100.into(), &2100.into(), &0.into())
    );
    let line = summary(&run(&[&base[..], &["--until-synced"]].concat()));
    assert_eq!(
        (&line["tip_height"], &line["headers"], &line["resumed_from"]),
        (&2500.into(), &400.into(), &2100.into())
    );
    assert!(!dir.path().join("blocks").exists());
}

#[cfg(unix)]
/// A node whose headers are of no use serves lists of blocks all the same.
#[test]
fn the_strategy_is_chosen() {
    let server = Server::start(Network::BTC_REGTEST, ChainSpec::new(600, 4), Behaviour::UnlinkedHeaders);
    let address = server.address().to_string();
    let by = |strategy: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let arguments =
            ["sync", "--network", "btc-regtest", "--connect", &address, "--until-synced", "--json"];
        run(&[&arguments[..], &["--data-dir", utf8(dir.path())], strategy].concat())
    };
    assert_eq!(summary(&by(&["--strategy", "inventory"]))["tip_height"], 600);
    for headers_first in [&["--strategy", "headers-first"][..], &[]] {
        let output = by(headers_first);
        assert!(
            !output.status.success() && stderr(&output).contains("does not follow"),
            "{}",
            stderr(&output)
        );
    }
    let output = by(&["--strategy", "inventory", "--headers-only"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn an_interrupt_ends_cleanly_and_the_next_run_resumes() {
    let slow = Behaviour::Slow { bytes_per_second: 100_000 };
    let server = Server::start(Network::BTC_REGTEST, ChainSpec::new(400, 1), slow);
    let (dir, address) = (tempfile::tempdir().unwrap(), server.address().to_string());
    let arguments =
        ["sync", "--network", "btc-regtest", "--connect", &address, "--data-dir", utf8(dir.path()), "--json"];
    let child = tipward(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let line = summary(&child.wait_with_output().unwrap());
    let height = line["tip_height"].as_u64().unwrap();
    assert!((1..400).contains(&height), "interrupted at {height}");
    let line = summary(&run(&[&arguments[..], &["--until-synced"]].concat()));
    assert_eq!((&line["resumed_from"], &line["tip_height"]), (&height.into(), &400.into()));
    assert_eq!(line["blocks"], 400 - height);
}

#[test]
fn the_simulated_node_serves_other_processes() {
    for (arguments, network, height) in [
        (vec!["--blocks", "50", "--seed", "7"], Network::DEMO, 50),
        (vec!["--network", "bsv-regtest", "--from", "bsv-regtest-chain-118.blk"], Network::BSV_REGTEST, 118),
    ] {
        let mut arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        if let Some(file) = arguments.iter_mut().find(|argument| argument.ends_with(".blk")) {
            let Some(path) = testdata(file) else { continue };
            *file = utf8(&path).to_owned();
        }
        let mut child = tipward(&["simnet", "--listen", "127.0.0.1:0"])
            .args(&arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let _child = Running(child);
        let address = line.strip_prefix("listening on ").unwrap().split_once(": ").unwrap().0;
        let dir = tempfile::tempdir().unwrap();
        let base = ["sync", "--network", network.name, "--connect", address, "--data-dir", utf8(dir.path())];
        let line = summary(&run(&[&base[..], &["--until-synced", "--json"]].concat()));
        assert_eq!(line["tip_height"], height);
        assert_eq!(archived_blocks(dir.path(), network).len() as u64, height + 1);
    }
}

/// A second run finds everything there and ends.
#[test]
fn the_demo_resumes_in_a_given_directory() {
    let dir = tempfile::tempdir().unwrap();
    for blocks in [2020, 0] {
        let line = summary(&run(&["sync", "--data-dir", utf8(dir.path()), "--json"]));
        assert_eq!((&line["tip_height"], &line["blocks"]), (&2012.into(), &blocks.into()));
    }
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let server = Server::start(Network::DEMO, ChainSpec::new(2000, 1), Behaviour::Honest);
    let (dir, address) = (tempfile::tempdir().unwrap(), server.address().to_string());
    summary(&run(&[
        "sync",
        "--connect",
        &address,
        "--data-dir",
        utf8(dir.path()),
        "--until-synced",
        "--json",
    ]));
    let segment = dir.path().join("blocks/blk00000.blk");
    let mut child =
        tipward(&["inspect", utf8(&segment)]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && stderr(&output).is_empty(), "{}", stderr(&output));
}
