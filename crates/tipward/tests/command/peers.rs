//! `tipward peers`: what it shows of nodes that answer, are silent or are wrong, and what it says when it can't.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::Stdio,
};

use serde_json::Value;
use tipward_chain::sync::peer::wire::bitcoin::Network;
use tipward_simnet::{Behaviour, ChainSpec, SimOptions};

use crate::{Server, run, stderr, stdout, tipward, utf8};

const REGTEST: &[&str] = &["peers", "--network", "btc-regtest", "--interval", "0.5"];

fn peers(arguments: &[&str]) -> std::process::Output {
    run(&[REGTEST, arguments].concat())
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("nothing but JSON lines")).collect()
}

/// The only line on stderr.
fn fails(arguments: &[&str], code: i32) -> String {
    let output = run(&[&REGTEST[..3], arguments].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
    let text = stderr(&output);
    let (line, rest) = text.split_once('\n').unwrap();
    assert!(rest.is_empty() || code == 2 && rest.contains("--help"), "{text}");
    line.strip_prefix("error: ").unwrap().to_owned()
}

/// One that answers and calls itself names, one that is silent, one that is of another network.
fn three() -> [Server; 3] {
    let mut honest = SimOptions::default();
    honest.user_agent = Some("/\u{1b}[2J honest, and longer than any column is wide/".to_owned());
    let spec = || ChainSpec::new(20, 1);
    [
        Server::start(Network::BTC_REGTEST, spec(), honest),
        Server::start(Network::BTC_REGTEST, spec(), Behaviour::SilentAtConnect),
        Server::start(Network::BSV_REGTEST, spec(), Behaviour::Honest),
    ]
}

fn of<'a>(line: &'a Value, key: &str, address: &str) -> Option<&'a Value> {
    line[key].as_array().unwrap().iter().find(|value| value["address"] == address)
}

#[test]
fn json_has_every_peer_and_what_happened() {
    let servers = three();
    let addresses = servers.each_ref().map(|server| server.address().to_string());
    let mut arguments = vec!["--json", "--count", "3", "--no-encryption"];
    addresses.iter().for_each(|address| arguments.extend(["--connect", address]));
    let output = peers(&arguments);
    assert!(output.status.success() && stderr(&output).is_empty(), "{}", stderr(&output));
    let lines = lines(&stdout(&output));
    assert_eq!(lines.len(), 3);
    let (first, last) = (&lines[0], &lines[2]);
    assert_eq!((&last["event"], &last["network"]), (&"peers".into(), &"btc-regtest".into()));
    assert_eq!((&last["ready"], &last["target"]), (&1.into(), &8.into()));
    assert_eq!((&last["book"]["known"], &last["book"]["tried"]), (&3.into(), &3.into()));

    let honest = of(last, "peers", &addresses[0]).unwrap();
    let keys: Vec<&String> = honest.as_object().unwrap().keys().collect();
    let expected = [
        "id",
        "address",
        "direction",
        "state",
        "misbehaviour",
        "primary",
        "status",
        "transport",
        "user_agent",
        "height",
        "ping_ms",
        "score",
        "bytes_received",
        "bytes_sent",
        "up_ms",
        "errors",
        "time_outs",
    ];
    assert_eq!(keys, expected);
    for (key, value) in
        [("direction", "outbound"), ("state", "ready"), ("status", "healthy"), ("transport", "v1")]
    {
        assert_eq!(honest[key], value);
    }
    assert_eq!(
        (&honest["height"], &honest["primary"], &honest["errors"]),
        (&20.into(), &true.into(), &0.into())
    );
    assert!(honest["user_agent"].as_str().unwrap().starts_with("/\u{fffd}[2J honest, and"), "{honest}");
    assert!(honest["ping_ms"].as_f64().unwrap() < 1000.0 && honest["score"].as_f64().unwrap() > 0.0);
    assert!(honest["bytes_received"].as_u64().unwrap() > 100 && honest["bytes_sent"].as_u64().unwrap() > 100);
    assert!(
        honest["up_ms"].as_u64().unwrap()
            > of(first, "peers", &addresses[0]).unwrap()["up_ms"].as_u64().unwrap()
    );

    let silent = of(last, "peers", &addresses[1]).unwrap();
    assert_eq!((&silent["state"], &silent["status"]), (&"connecting".into(), &Value::Null));
    assert_eq!(silent.as_object().unwrap().keys().collect::<Vec<_>>(), expected, "the same fields for all");
    // The wrong one was told once, in the line after it happened.
    assert_eq!(of(first, "events", &addresses[0]).unwrap()["event"], "connected");
    let wrong = of(first, "events", &addresses[2]).unwrap();
    assert_eq!(wrong["event"], "connect_failed");
    assert!(wrong["reason"].as_str().unwrap().starts_with("during the handshake: "), "{wrong}");
    assert!(of(last, "events", &addresses[0]).is_none());
}

#[test]
fn the_table_has_a_row_for_each_and_a_sum() {
    let servers = three();
    let addresses = servers.each_ref().map(|server| server.address().to_string());
    let mut arguments = vec!["--for", "1.2", "--max-peers", "5"];
    addresses.iter().for_each(|address| arguments.extend(["--connect", address]));
    let output = peers(&arguments);
    assert!(output.status.success() && stderr(&output).is_empty(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(!text.contains('\u{1b}'), "nothing moves the cursor: {text}");
    assert!(
        text.contains(&format!("connected to {} (/?[2J honest, and long.., height 20, v1)\n", addresses[0])),
        "{text}"
    );
    assert!(text.contains(&format!("cannot connect to {}: during the handshake: ", addresses[2])), "{text}");
    let row = |address: &str| {
        let lines = text.lines().rev();
        lines.map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|words| words.contains(&address))
    };
    let honest = row(&addresses[0]).unwrap();
    assert_eq!(honest[..7], ["*", &addresses[0], "ready", "healthy", "outbound", "v1", "20"]);
    assert!(honest.join(" ").ends_with(" 0 0 0 /?[2J honest, and long.."), "{honest:?}");
    assert_eq!(row(&addresses[1]).unwrap()[1..3], ["connecting", "-"]);
    let sum = "btc-regtest: 1 of 5 peers ready; addresses: 3 known, 3 tried, 0 banned; network time offset: unknown\n";
    assert_eq!(text.matches(sum).count(), 2, "one at 0.5 s, one at 1 s: {text}");
    assert!(text.ends_with(sum), "{text}");
}

#[test]
fn without_arguments_it_shows_the_simulated_network() {
    let output = run(&["peers", "--count", "1"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.starts_with("demo: a simulated network of 5 nodes on loopback\n"), "{text}");
    assert!(text.contains("\ndemo: 5 of 8 peers ready; "), "{text}");
}

#[test]
fn one_that_listens_serves_nobody_and_says_so() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let base = ["peers", "--network", "btc-regtest", "--interval", "0.5", "--json"];
    let mut listening =
        tipward(&base).args(["--listen", &free, "--for", "100"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut heard = BufReader::new(listening.stdout.take().unwrap()).lines();
    heard.next().unwrap().unwrap();
    let _listening = crate::Running(listening);
    // Who serves no blocks is not wanted.
    let line = fails(&["--connect", &free, "--require-encryption", "--for", "100"], 1);
    assert_eq!(
        line,
        format!("cannot connect to {free}: during the handshake: does not serve blocks (services 0x0)")
    );
    // In the clear nothing else comes of it.
    let line = fails(&["--connect", &free, "--no-encryption", "--for", "100"], 1);
    assert!(line.contains("does not serve blocks"), "{line}");
}

#[test]
fn a_book_is_kept_and_is_of_one_network() {
    let server = Server::start(Network::BTC_REGTEST, ChainSpec::new(5, 1), Behaviour::Honest);
    let (dir, address) = (tempfile::tempdir().unwrap(), server.address().to_string());
    let book = dir.path().join("peers.json");
    let path = utf8(&book);
    assert!(peers(&["--book", path, "--connect", &address, "--count", "1"]).status.success());
    // It knows where to go now.
    let output = peers(&["--book", path, "--count", "1"]);
    assert!(stdout(&output).contains(&format!("connected to {address} ")), "{}", stderr(&output));
    let line = fails(&["--book", path, "--network", "bsv-regtest"], 2);
    assert!(line.contains("'--network <NAME>' cannot be used multiple times"), "{line}");
    let output = run(&["peers", "--book", path, "--network", "bsv-regtest"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), format!("error: {path} is of network 'btc-regtest', not 'bsv-regtest'\n"));
    // A file that can't be written is told at the end, at the latest.
    let nowhere = dir.path().join("no/such/place.json");
    let line = fails(&["--book", utf8(&nowhere), "--connect", &address, "--count", "1"], 1);
    assert!(line.starts_with("cannot ") && line.contains(utf8(&nowhere)), "{line}");
}

#[test]
fn what_can_not_be_done_is_said_in_a_line() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for (arguments, code, expected) in [
        (
            vec!["--connect", "[::1"],
            2,
            "--connect: '[::1' is not HOST:PORT: a bracket is not closed".to_owned(),
        ),
        (vec!["--proxy", "localhost:0"], 2, "--proxy: 'localhost:0' is not HOST:PORT: ".to_owned()),
        (vec!["--proxy-auth", "a:b"], 2, "the following required arguments were not provided:".to_owned()),
        (
            vec!["--proxy", "localhost", "--proxy-auth", "secret"],
            2,
            "--proxy-auth: not USER:PASSWORD, of 1 to 255 bytes each".to_owned(),
        ),
        (vec!["--listen", "here"], 2, "invalid value 'here' for '--listen <IP:PORT>': ".to_owned()),
        (
            vec!["--interval", "0"],
            2,
            "invalid value '0' for '--interval <SECONDS>': a number of seconds from".to_owned(),
        ),
        (vec!["--for", "NaN"], 2, "invalid value 'NaN' for '--for <SECONDS>': ".to_owned()),
        (vec!["--count", "0"], 2, "invalid value '0' for '--count <N>': ".to_owned()),
        (vec!["--listen", &taken], 1, format!("cannot listen on {taken}: address in use")),
        (vec![], 1, "no address to connect to, and no DNS seeds to ask for one".to_owned()),
        (
            vec!["--connect", "127.0.0.1:1", "--connect", "127.0.0.1:2"],
            1,
            "cannot connect to 127.0.0.1:1: connection refused (and 1 others failed)".to_owned(),
        ),
        (
            vec!["--connect", "127.0.0.1:1", "--proxy", "127.0.0.1:2"],
            1,
            "cannot connect to 127.0.0.1:1: the proxy 127.0.0.1:2 is not reached: ".to_owned(),
        ),
    ] {
        let line = fails(&arguments, code);
        assert!(line.starts_with(&expected), "{line}");
    }
    let output = run(&["peers", "--network", "bsv-regtest", "--require-encryption"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output), "error: --require-encryption: nodes of bsv-regtest do not encrypt\n");
    let silent = Server::start(Network::BTC_REGTEST, ChainSpec::new(1, 1), Behaviour::SilentAtConnect);
    let line = fails(&["--connect", &silent.address().to_string(), "--for", "0.3"], 1);
    assert_eq!(line, "no peer was ready within 0.3 s");
}

#[test]
fn sync_takes_a_proxy_too() {
    let dir = tempfile::tempdir().unwrap();
    let base = ["sync", "--network", "btc-regtest", "--data-dir", utf8(dir.path()), "--json"];
    let output = run(&[&base[..], &["--connect", "127.0.0.1:1", "--proxy", "127.0.0.1:2"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    let expected = "error: cannot connect to 127.0.0.1:1: the proxy 127.0.0.1:2 is not reached: ";
    assert!(text.starts_with(expected), "{text}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_it_cleanly() {
    let server = Server::start(Network::BTC_REGTEST, ChainSpec::new(5, 1), Behaviour::Honest);
    let address = server.address().to_string();
    let dir = tempfile::tempdir().unwrap();
    let book = dir.path().join("peers.json");
    let mut child = tipward(REGTEST)
        .args(["--connect", &address, "--book", utf8(&book), "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    assert!(lines.all(|line| serde_json::from_str::<Value>(&line.unwrap()).is_ok()), "no half a line");
    assert!(book.exists(), "the book is written at the end");
}
