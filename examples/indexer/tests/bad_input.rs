//! The program on its own, and what it says to bad input. It follows a node of a simulated network.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod program;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
};

use program::{Program, command, dead};
use serde_json::Value;
use tipward_chain::wire::bitcoin::{Network, Transaction};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};

/// A program that has indexed a chain, and who serves it.
async fn indexed(network: &'static Network) -> (Program, SimNode, SimChain, tempfile::TempDir) {
    let chain = SimChain::generate(network, ChainSpec::new(130, 1));
    let node = SimNode::spawn(chain.clone(), Behaviour::Honest, "127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (address, path) = (node.address().to_string(), dir.path().to_str().unwrap().to_owned());
    let tip = chain.tip().hash.to_string();
    let program = tokio::task::spawn_blocking(move || {
        let arguments = ["--network", network.name, "--connect", &address, "--data-dir", &path];
        let program = Program::start(&arguments);
        program.wait_for(&tip);
        program
    });
    (program.await.unwrap(), node, chain, dir)
}

/// A transaction of so many bytes, which does nothing.
fn large_transaction(size: u32) -> Transaction {
    let mut bytes = vec![2, 0, 0, 0, 1];
    bytes.extend_from_slice(&[7; 36]);
    bytes.extend_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe]);
    bytes.extend_from_slice(&size.to_le_bytes());
    bytes.resize(bytes.len() + size as usize, 0x6a);
    bytes.extend_from_slice(&[0; 4]);
    Transaction::new(bytes.into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_their_large_answers_keep_others_from_large_ones_only() {
    let (program, node, mut chain, _dir) = indexed(Network::BSV_REGTEST).await;
    let (large, larger) = (large_transaction(15 << 20), large_transaction(16 << 20));
    chain.extend_with(&[large.clone(), larger.clone()], 1);
    let tip = chain.tip().hash.to_string();
    node.set_chain(chain);
    let route = format!("/tx/{}?raw", large.txid());
    tokio::task::spawn_blocking(move || {
        program.wait_for(&tip);
        assert_eq!(program.status(&format!("/tx/{}?raw", larger.txid())), 413);
        let ask = |_| {
            let mut client = TcpStream::connect(program.address()).unwrap();
            write!(client, "GET {route} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let mut start = [0; 12];
            client.read_exact(&mut start).unwrap();
            (client, start)
        };
        let mut slow: Vec<_> = (0..8).map(ask).collect();
        assert!(slow.iter().all(|(_, start)| start == b"HTTP/1.1 200"));
        let answer = program.answer(&route);
        assert_eq!(answer.status_code, 503, "{:?}", answer.as_str());
        assert!(answer.as_str().unwrap().contains("too many large answers at once"));
        assert_eq!(program.status("/tip"), 200);
        slow.pop();
        while program.status(&route) == 503 {
            std::thread::yield_now();
        }
        assert!(program.bytes(&route) == large.as_bytes()[..]);
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_are_answered_with_what_is_wrong() {
    let (program, _node, chain, _dir) = indexed(Network::BTC_REGTEST).await;
    let (zeros, long) = ("0".repeat(64), "z".repeat(5000));
    for (route, status, line) in [
        ("/block/x".to_owned(), 400, "'x' is neither a height nor a hash of 64 hexadecimal digits"),
        ("/block/-1".to_owned(), 400, "'-1' is neither a height nor a hash of 64 hexadecimal digits"),
        ("/block/131".to_owned(), 404, "block 131 is not in the index"),
        ("/block/99999999999999".to_owned(), 404, "block 99999999999999 is not in the index"),
        ("/block/1?limit=0".to_owned(), 400, "limit '0' is not a number from 1 to 1000"),
        ("/tx/12".to_owned(), 400, "'12' is not a transaction id: 64 hexadecimal digits are needed"),
        (format!("/tx/{zeros}/proof"), 404, "is not in the index"),
        (format!("/tx/{long}"), 400, "zzz' is not a transaction id"),
        ("/script/ab/history".to_owned(), 400, "'ab' is not a script hash: the 64 hexadecimal digits"),
        (format!("/script/{zeros}/utxos?limit=1001"), 400, "limit '1001' is not a number from 1 to 1000"),
        (format!("/script/{zeros}/utxos?limit=many"), 400, "limit 'many' is not a number"),
        (format!("/script/{zeros}/history?from=00"), 400, "from '00' is not what 'next' of another page was"),
        ("/nothing".to_owned(), 404, "no such route"),
        ("/tip/".to_owned(), 404, "no such route"),
    ] {
        let answer = program.answer(&route);
        let said: Value = serde_json::from_str(answer.as_str().unwrap()).unwrap();
        let error = said["error"].as_str().unwrap();
        assert_eq!(answer.status_code, status, "{route}: {error}");
        assert!(error.contains(line) && error.len() < 200, "{route}: {error}");
    }
    let nothing = program.get(&format!("/script/{zeros}/history"));
    assert_eq!((&nothing["entries"], &nothing["next"]), (&serde_json::json!([]), &Value::Null));
    // The metrics are those of Tipward and of the program.
    let metrics = program.text("/metrics");
    for line in [
        "\nindexer_height 130\n",
        "tipward_sync_height{of=\"applied\"} 130\n",
        "indexer_commit_seconds_bucket",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let status = program.get("/status");
    assert_eq!((&status["state"], &status["peers"][0]["blocks"]), (&"synced".into(), &130.into()));
    assert_eq!(status["indexed"]["hash"], chain.tip().hash.to_string());
    program.end_in_good_order();
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_requests_are_refused_and_nothing_ends() {
    let (program, _node, _chain, _dir) = indexed(Network::BTC_REGTEST).await;
    for (request, status) in [
        ("POST /tip HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(), "405"),
        (format!("GET /{} HTTP/1.1\r\nconnection: close\r\n\r\n", "x".repeat(1 << 20)), "4"),
        ("\0\0\0\0\r\n\r\n".to_owned(), "400"),
        ("GET /tx/%ff%fe HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), "400"),
    ] {
        let mut stream = TcpStream::connect(program.address()).unwrap();
        // It may be refused before it is all there.
        stream.write_all(request.as_bytes()).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        let answer = String::from_utf8_lossy(&answer);
        let found = answer.strip_prefix("HTTP/1.1 ").is_some_and(|rest| rest.starts_with(status));
        let is_json = answer.ends_with("\"}");
        assert!(is_json || !request.contains('%'), "{answer}");
        assert!(found || request.len() > 1 << 20, "{answer}");
    }
    assert_eq!(program.status("/tip"), 200);
}

#[test]
fn bad_arguments_are_told_in_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().to_str().unwrap(), dir.path().join("file"));
    std::fs::write(&file, "not a directory").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, file) = (taken.local_addr().unwrap().to_string(), file.to_str().unwrap());
    for (arguments, line) in [
        (&["--network", "doge"][..], "no such network; there are btc, "),
        (&["--network", "btc"], "where to keep the data? Give --data-dir DIR"),
        (&["--connect", "no port:x"], "--connect: "),
        (&["--listen", "nowhere"], "invalid value 'nowhere' for '--listen <IP:PORT>'"),
        (&["--listen", &taken], "--listen 127.0.0.1:"),
        (&["--cache", "1"], "1 is not in 16..=1048576"),
        (&["--network", "btc-regtest", "--data-dir", file, "--listen", "127.0.0.1:0"], "file: "),
    ] {
        let said = dead(arguments);
        assert!(said.starts_with("error: ") && said.contains(line), "{arguments:?}: {said}");
    }
    // What is no index is left as it is.
    std::fs::write(dir.path().join("index.redb"), "something else").unwrap();
    let said = dead(&["--network", "btc-regtest", "--data-dir", path, "--listen", "127.0.0.1:0"]);
    assert!(said.contains("index"), "{said}");
    assert_eq!(std::fs::read(dir.path().join("index.redb")).unwrap(), b"something else");
}

#[test]
fn the_demo_indexes_a_reorg_and_ends() {
    let arguments = ["--network", "demo", "--until-synced", "--listen", "127.0.0.1:0"];
    let output = command(&arguments).stderr(Stdio::inherit()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    for line in ["reorg: 8 blocks down from ", "indexed 2020 blocks, 9769 transactions", "at height 2012\n"] {
        assert!(said.contains(line), "{line} in {said}");
    }
}
