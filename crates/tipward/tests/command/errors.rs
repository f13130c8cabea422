//! What the command says when it can't: one line that names what and where, and exit code 1 or 2.

use tipward_chain::sync::peer::wire::bitcoin::Network;
use tipward_simnet::{Behaviour, ChainSpec};

use crate::{Server, run, stderr, stdout, summary, utf8};

/// The only line on stderr, after `error: `.
fn fails(arguments: &[&str], code: i32) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
    assert!(stdout(&output).is_empty(), "{}", stdout(&output));
    let text = stderr(&output);
    let line = text.strip_prefix("error: ").unwrap_or_else(|| panic!("{text}"));
    let (line, rest) = line.split_once('\n').unwrap();
    // The parser of arguments adds a pointer to --help.
    assert!(rest.is_empty() || code == 2 && rest.contains("--help"), "{text}");
    line.to_owned()
}

#[test]
fn a_node_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let base = ["sync", "--network", "btc-regtest", "--data-dir", utf8(dir.path()), "--json"];
    // The events before it are JSON lines as well.
    let output = run(&[&base[..], &["--connect", "127.0.0.1:1"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "error: cannot connect to 127.0.0.1:1: connection refused\n");
    let output = run(&[&base[..], &["--connect", "127.0.0.1:1", "--connect", "127.0.0.1:2"]].concat());
    assert_eq!(
        stderr(&output),
        "error: cannot connect to 127.0.0.1:1: connection refused (and 1 others failed)\n"
    );
    let output = run(&[&base[..], &["--connect", "no-such-host.invalid"]].concat());
    let text = stderr(&output);
    assert!(text.starts_with("error: cannot connect to no-such-host.invalid:18444: "), "{text}");
}

#[test]
fn a_network_without_seeds() {
    let dir = tempfile::tempdir().unwrap();
    let line = fails(&["sync", "--network", "btc-regtest", "--data-dir", utf8(dir.path())], 1);
    assert_eq!(line, "no address to connect to, and no DNS seeds to ask for one");
}

#[test]
fn a_node_of_another_network() {
    let server = Server::start(Network::BSV_REGTEST, ChainSpec::new(5, 1), Behaviour::Honest);
    let (dir, address) = (tempfile::tempdir().unwrap(), server.address().to_string());
    let arguments =
        ["sync", "--network", "btc-regtest", "--connect", &address, "--data-dir", utf8(dir.path()), "--json"];
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(1));
    // It drops us for our magic before it shows its own.
    let text = stderr(&output);
    assert!(
        text.starts_with(&format!("error: cannot connect to {address}: during the handshake: ")),
        "{text}"
    );
}

#[test]
fn a_data_directory_of_another_network_is_left_alone() {
    let server = Server::start(Network::BTC_REGTEST, ChainSpec::new(20, 1), Behaviour::Honest);
    let (dir, address) = (tempfile::tempdir().unwrap(), server.address().to_string());
    let path = utf8(dir.path());
    let base = ["sync", "--connect", &address, "--data-dir", path, "--until-synced"];
    summary(&run(&[&base[..], &["--network", "btc-regtest", "--json"]].concat()));
    let line = fails(&[&base[..], &["--network", "bsv-regtest"]].concat(), 1);
    assert_eq!(line, format!("{path}/headers.redb belongs to network btc-regtest, not bsv-regtest"));
    let line = fails(&["block", "3", "--data-dir", path, "--network", "btc"], 1);
    assert_eq!(line, format!("{path}/blocks/index.redb belongs to network btc-regtest, not btc"));
    let line = summary(&run(&[&base[..], &["--network", "btc-regtest", "--json"]].concat()));
    assert_eq!(line["resumed_from"], 20, "nothing is lost");
}

#[test]
fn wrong_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = utf8(dir.path());
    for (arguments, expected) in [
        (
            vec!["sync", "--network", "dogecoin"],
            "invalid value 'dogecoin' for '--network <NAME>': no such network; there are btc, ",
        ),
        (vec!["sync", "--connect", "[::1"], "--connect: '[::1' is not HOST:PORT: a bracket is not closed"),
        (vec!["sync", "--stop-at", "soon"], "invalid value 'soon' for '--stop-at <HEIGHT>'"),
        (vec!["sync", "--window", "0"], "invalid value '0' for '--window <N>': 0 is not in 1..=1000000"),
        (
            vec!["sync", "--budget", "256MB"],
            "invalid value '256MB' for '--budget <BYTES>': a number of bytes from 8MiB is needed",
        ),
        (vec!["sync", "--stay-behind", "few"], "invalid value 'few' for '--stay-behind <N>'"),
        (vec!["sync", "--frobnicate"], "unexpected argument '--frobnicate' found"),
        (vec!["block", "7"], "whose data? Give --data-dir DIR or --network NAME"),
        (vec!["headers"], "whose data? Give --data-dir DIR or --network NAME"),
        (vec!["proof", "7", "--block", "7"], "invalid value '7' for '<TXID>...'"),
        (vec!["simnet", "--network", "btc"], "blocks of btc take real work to generate"),
    ] {
        let line = fails(&arguments, 2);
        assert!(line.starts_with(expected), "{line}");
    }
    let line = fails(&["block", "7", "--data-dir", path], 1);
    assert_eq!(line, format!("there is no archive in {path}"));
    let line = fails(&["headers", "--data-dir", path], 1);
    assert_eq!(line, format!("there are no headers in {path}"));
}

#[test]
fn blocks_that_are_not_there() {
    let server = Server::start(Network::DEMO, ChainSpec::new(20, 1), Behaviour::Honest);
    let (dir, address) = (tempfile::tempdir().unwrap(), server.address().to_string());
    let path = utf8(dir.path());
    summary(&run(&["sync", "--connect", &address, "--data-dir", path, "--until-synced", "--json"]));
    assert_eq!(fails(&["block", "21", "--data-dir", path], 1), "block 21 is not in the archive");
    let hash = "00".repeat(32);
    assert_eq!(
        fails(&["block", &hash, "--data-dir", path], 1),
        format!("block {hash} is not in the archive")
    );
    let line = fails(&["block", "genesis", "--data-dir", path], 2);
    assert_eq!(line, "'genesis' is neither a height nor a hash of 64 hexadecimal digits");
}

#[test]
fn files_that_are_no_block_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.blk");
    let path = utf8(&file);
    assert_eq!(fails(&["inspect", path], 1), format!("{path}: entity not found"));
    std::fs::write(&file, b"this is no block file").unwrap();
    let line = fails(&["inspect", path], 1);
    assert_eq!(
        line,
        format!(
            "{path}: byte 0: no block starts here (found [74, 68, 69, 73] where a network magic belongs)"
        )
    );
    let line = fails(&["simnet", "--from", path], 1);
    assert_eq!(
        line,
        format!(
            "{path}: byte 0: no block starts here (found [74, 68, 69, 73] where a network magic belongs)"
        )
    );
}
