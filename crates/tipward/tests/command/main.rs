//! The command as its users meet it: output, exit codes, restarts and kills.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod archive;
mod crash;
mod errors;
mod output;
mod peers;

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;
use tipward_chain::sync::peer::wire::bitcoin::Network;
use tipward_simnet::{ChainSpec, SimChain, SimNode, SimOptions};

fn tipward(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tipward"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the command to its end, which comes within two minutes or not at all.
fn run(arguments: &[&str]) -> Output {
    let mut command = tipward(arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
    let id = child.id().to_string();
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(child.wait_with_output()));
    match end.recv_timeout(Duration::from_secs(120)) {
        Ok(output) => output.expect("the command runs"),
        Err(_) => {
            Command::new("kill").args(["-9", &id]).status().ok();
            panic!("tipward {arguments:?} does not end");
        }
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("output is text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("output is text")
}

/// Every line of the output as JSON; the last one is the summary.
fn json_lines(output: &Output) -> Vec<Value> {
    let lines: Vec<Value> = stdout(output)
        .lines()
        .map(|line| serde_json::from_str(line).expect("nothing but JSON lines"))
        .collect();
    assert_eq!(lines.last().expect("a summary")["event"], "summary");
    lines
}

fn summary(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    json_lines(output).pop().expect("a summary")
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// A process that is ended by its id when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A simulated node in this process, on a runtime of its own.
struct Server {
    _runtime: tokio::runtime::Runtime,
    node: SimNode,
}

impl Server {
    fn start(network: &'static Network, spec: ChainSpec, behaviour: impl Into<SimOptions>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let chain = SimChain::generate(network, spec);
        let node = runtime.block_on(SimNode::spawn(chain, behaviour, "127.0.0.1:0")).expect("a free port");
        Self { _runtime: runtime, node }
    }

    fn address(&self) -> SocketAddr {
        self.node.address()
    }
}
