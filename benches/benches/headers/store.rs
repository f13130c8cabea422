//! A million headers from a node in another process into the store, and back from there.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Instant,
};

use tipward_benches::{median, rounds};
use tipward_chain::{
    HeaderChain, Node,
    sync::{Chain, peer::PeerAddress},
};
use tipward_simnet::{Behaviour, ChainSpec, SimChain, SimNode};

use crate::{chains::early, count};

/// Serves the headers until it is killed.
pub(crate) fn serve() {
    let mut spec = ChainSpec::new(count() as u32, 1);
    spec.max_transactions = 0;
    let chain = SimChain::generate(early(), spec);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let node = SimNode::spawn(chain, Behaviour::Honest, "127.0.0.1:0").await.expect("a free port");
        println!("{}", node.address());
        std::future::pending::<()>().await;
    });
}

pub(crate) fn measure() {
    let network = early();
    let (_node, address) = Serving::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (mut synced, mut reopened, mut size) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let begun = Instant::now();
        runtime.block_on(async {
            let node = Node::builder(network, dir.path()).headers_only().stop_when_synced();
            let mut node = node.connect(address.clone()).spawn().await.expect("a node");
            node.wait().await.expect("a sync");
        });
        synced.push(begun.elapsed().as_secs_f64());
        let file = dir.path().join("headers.redb");
        size = std::fs::metadata(&file).expect("a file").len();
        let begun = Instant::now();
        let chain = HeaderChain::open(&file, &network, None).expect("a store");
        reopened.push(begun.elapsed().as_secs_f64());
        assert_eq!(chain.tip().height, count() as u64);
    }
    println!(
        "{} headers of {} bytes each in the store, medians of {} rounds",
        count(),
        size / count() as u64,
        rounds()
    );
    println!("  sync from a simulated node on loopback, durable   {:5.2} s", median(synced.into_iter()));
    println!("  reopen                                            {:5.2} s", median(reopened.into_iter()));
}

/// This program as the process that serves; ended when dropped.
struct Serving(Child);

impl Serving {
    fn start() -> (Self, PeerAddress) {
        let program = std::env::current_exe().expect("a program has a path");
        let mut child =
            Command::new(program).arg("serve").stdout(Stdio::piped()).spawn().expect("it starts again");
        let output = child.stdout.take().expect("it is piped");
        let serving = Self(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("it says something");
        let address: std::net::SocketAddr = line.trim().parse().expect("an address");
        (serving, address.into())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
