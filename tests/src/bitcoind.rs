//! A real node on a private network.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tipward_chain::sync::peer::wire::BlockHash;
use tipward_simnet::SimChain;

use crate::{free_address, on_path, rpc};

/// `tipward:tipward`, for HTTP.
const AUTHORIZATION: &str = "Basic dGlwd2FyZDp0aXB3YXJk";
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node may take for what it is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many calls are made in one request.
const BATCH: usize = 200;

/// An address on regtest of which nobody has the key.
pub const NOBODYS_ADDRESS: &str = "mfha3wmTvGAYZ4iZ7nDdXdDDrNSGjLwRxV";
/// Another one, so that two branches differ.
const OTHER_ADDRESS: &str = "mfcGAzvis9JQAb6avB6WBGiGrgWzLxuGaC";

/// A `bitcoind` on regtest and on loopback, with an empty chain. It is stopped when dropped.
#[derive(Debug)]
pub struct Bitcoind {
    child: Child,
    binary: PathBuf,
    arguments: Vec<String>,
    dir: TempDir,
    rpc: SocketAddr,
    p2p: SocketAddr,
}

impl Bitcoind {
    /// Starts a node with these arguments beside the usual ones; `None`, said in a line, where there is no `bitcoind`: it
    /// is looked for in the environment variable `BITCOIND` and on the path.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Option<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST, arguments)
    }

    /// Starts a node that peers find at another address of the loopback, so that it counts as another host.
    ///
    /// # Panics
    /// The node does not start.
    #[must_use]
    pub fn start_on(host: Ipv4Addr, arguments: &[&str]) -> Option<Self> {
        let Some(binary) = find() else {
            crate::missing("TIPWARD_REQUIRE_NODES", "no bitcoind: set BITCOIND or put it on the path");
            return None;
        };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (rpc, p2p) = (free_address(Ipv4Addr::LOCALHOST), free_address(host));
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let child = spawn(&binary, &arguments, &dir, rpc, p2p);
        let node = Self { child, binary, arguments, dir, rpc, p2p };
        node.wait_until_it_answers();
        Some(node)
    }

    fn wait_until_it_answers(&self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while let Err(error) = self.try_rpc("getblockcount", &json!([])) {
            assert!(Instant::now() < deadline, "bitcoind does not answer: {error}");
            sleep(Duration::from_millis(100));
        }
    }

    /// Stops the node as its operator would, and waits for its end.
    ///
    /// # Panics
    /// It does not end.
    pub fn stop(&mut self) {
        let _ = self.rpc("stop", &json!([]));
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().expect("it is our child").is_none() {
            assert!(Instant::now() < deadline, "bitcoind does not stop");
            sleep(Duration::from_millis(50));
        }
    }

    /// Starts the node again after [`stop`](Self::stop), with the chain that it had.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.binary, &self.arguments, &self.dir, self.rpc, self.p2p);
        self.wait_until_it_answers();
    }

    /// Ends the node at once.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Freezes the node: its sockets stay open and nobody answers there.
    ///
    /// # Panics
    /// There is no `kill`.
    pub fn freeze(&self) {
        let pid = self.child.id().to_string();
        let done = Command::new("kill").args(["-STOP", &pid]).status().expect("kill runs");
        assert!(done.success(), "bitcoind was not stopped");
    }

    /// Where the node talks to peers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.p2p
    }

    /// Calls the node.
    ///
    /// # Panics
    /// The node reports an error.
    #[must_use]
    pub fn rpc(&self, method: &str, parameters: &Value) -> Value {
        self.try_rpc(method, parameters)
            .unwrap_or_else(|error| panic!("{}: {error}", rpc::brief(method, parameters)))
    }

    /// Calls the node.
    ///
    /// # Errors
    /// What the node or the connection reports.
    pub fn try_rpc(&self, method: &str, parameters: &Value) -> Result<Value, String> {
        rpc::call(self.request(), method, parameters)
    }

    /// Calls the node about one of several wallets that are open.
    ///
    /// # Errors
    /// What the node or the connection reports.
    pub fn try_rpc_of(&self, wallet: &str, method: &str, parameters: &Value) -> Result<Value, String> {
        rpc::call(self.request_at(&format!("wallet/{wallet}")), method, parameters)
    }

    /// Calls the node about one of several wallets that are open.
    ///
    /// # Panics
    /// The node reports an error.
    #[must_use]
    pub fn rpc_of(&self, wallet: &str, method: &str, parameters: &Value) -> Value {
        self.try_rpc_of(wallet, method, parameters)
            .unwrap_or_else(|error| panic!("{}: {error}", rpc::brief(method, parameters)))
    }

    fn request(&self) -> minreq::Request {
        self.request_at("")
    }

    fn request_at(&self, path: &str) -> minreq::Request {
        minreq::post(format!("http://{}/{path}", self.rpc)).with_header("Authorization", AUTHORIZATION)
    }

    /// The height of the node's best chain.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.rpc("getblockcount", &json!([])).as_u64().expect("a number")
    }

    /// The hash at a height, as text.
    #[must_use]
    pub fn hash(&self, height: u64) -> String {
        self.rpc("getblockhash", &json!([height])).as_str().expect("a hash").to_owned()
    }

    /// The block of that hash, as hexadecimal text.
    #[must_use]
    pub fn block(&self, hash: &str) -> String {
        self.rpc("getblock", &json!([hash, 0])).as_str().expect("a block").to_owned()
    }

    /// The blocks of the node's best chain, by height.
    ///
    /// # Panics
    /// The chain changes meanwhile.
    #[must_use]
    pub fn chain(&self) -> Vec<(BlockHash, Vec<u8>)> {
        let heights: Vec<u64> = (0..=self.height()).collect();
        let mut blocks = Vec::with_capacity(heights.len());
        for heights in heights.chunks(BATCH) {
            let hashes = self.batch("getblockhash", heights.iter().map(|height| json!([height])));
            let whole = self.batch("getblock", hashes.iter().map(|hash| json!([hash, 0])));
            let both = hashes.iter().zip(&whole).map(|(hash, block)| {
                let text = |value: &Value| value.as_str().expect("text").to_owned();
                (rpc::hash(&text(hash)), rpc::bytes(&text(block)))
            });
            blocks.extend(both);
        }
        blocks
    }

    /// Calls a method once for each of these parameters, in one request.
    fn batch(&self, method: &str, parameters: impl Iterator<Item = Value>) -> Vec<Value> {
        rpc::batch(self.request(), method, parameters)
            .unwrap_or_else(|error| panic!("{method} many times: {error}"))
    }

    /// Gives the node the blocks of a chain that follow one at this height, and wants it to make them its best ones.
    ///
    /// # Panics
    /// It does not.
    pub fn take(&self, chain: &SimChain, after: u64) {
        for block in chain.blocks().iter().skip(1 + after as usize) {
            let refused = self.rpc("submitblock", &json!([rpc::hex(&block.bytes())]));
            assert!(refused.is_null() || refused == "inconclusive", "{}: {refused}", block.hash);
        }
        assert_eq!(self.hash(chain.height()), chain.tip().hash.to_string());
    }

    /// Writes the chain down, so that [`kill`](Self::kill) takes nothing of it.
    pub fn flush(&self) {
        let _ = self.rpc("gettxoutsetinfo", &json!([]));
    }

    /// Another branch becomes the best one: it parts after the block at `height` and is so many blocks long, one of them at
    /// least more than now.
    pub fn reorganize(&self, height: u64, blocks: u64) {
        let _ = self.rpc("invalidateblock", &json!([self.hash(height + 1)]));
        self.mine(blocks, OTHER_ADDRESS);
    }

    /// What the node says about its peers.
    #[must_use]
    pub fn peers(&self) -> Vec<Value> {
        self.rpc("getpeerinfo", &json!([])).as_array().expect("a list").clone()
    }

    /// Ends the connection to every peer.
    pub fn disconnect_all(&self) {
        for peer in self.peers() {
            // It may have gone meanwhile.
            self.try_rpc("disconnectnode", &json!(["", peer["id"]])).ok();
        }
    }

    /// The identifiers of the transactions that wait for a block.
    #[must_use]
    pub fn mempool(&self) -> Vec<String> {
        let ids = self.rpc("getrawmempool", &json!([]));
        ids.as_array().expect("a list").iter().map(|id| id.as_str().expect("an id").to_owned()).collect()
    }

    /// Waits until `is_there`.
    ///
    /// # Panics
    /// Not within two minutes.
    pub async fn wait_for(&self, what: &str, is_there: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_there(self) {
            let (height, peers) = (self.height(), self.peers());
            assert!(Instant::now() < deadline, "waited in vain for {what}: at {height}, peers {peers:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A signed transaction of the wallet that was not sent, as hexadecimal text. Two of them have no coin in common.
    #[must_use]
    pub fn payment(&self, address: &str) -> String {
        let empty = self.rpc("createrawtransaction", &json!([[], {address: 0.01}]));
        let funded = self.rpc("fundrawtransaction", &json!([empty, {"lockUnspents": true}]));
        let signed = self.rpc("signrawtransactionwithwallet", &json!([funded["hex"]]));
        assert_eq!(signed["complete"], true);
        signed["hex"].as_str().expect("a transaction").to_owned()
    }

    /// Opens a wallet and returns an address of it.
    #[must_use]
    pub fn wallet(&self) -> String {
        let _ = self.rpc("createwallet", &json!(["tests"]));
        self.rpc("getnewaddress", &json!([])).as_str().expect("an address").to_owned()
    }

    /// Mines so many blocks.
    pub fn mine(&self, blocks: u64, address: &str) {
        let _ = self.rpc("generatetoaddress", &json!([blocks, address]));
    }

    /// Mines up to `height`, from block 150 on with transactions.
    pub fn mine_with_transactions(&self, height: u64, address: &str) {
        self.mine(height.min(150).saturating_sub(self.height()), address);
        while self.height() < height {
            for _ in 0..3 {
                let _ = self.rpc("sendtoaddress", &json!([address, 0.01]));
            }
            self.mine((height - self.height()).min(10), address);
        }
    }
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(binary: &Path, arguments: &[String], dir: &TempDir, rpc: SocketAddr, p2p: SocketAddr) -> Child {
    Command::new(binary)
        .arg("-regtest")
        .arg(format!("-datadir={}", dir.path().display()))
        .arg(format!("-rpcport={}", rpc.port()))
        .arg(format!("-bind={p2p}"))
        .args(["-rpcuser=tipward", "-rpcpassword=tipward", "-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1"])
        .args(["-listenonion=0", "-dnsseed=0", "-fixedseeds=0", "-discover=0", "-natpmp=0"])
        .args(["-fallbackfee=0.0001", "-addresstype=bech32", "-printtoconsole=0", "-server=1"])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("bitcoind starts")
}

fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("BITCOIND") {
        return Some(path.into());
    }
    on_path("bitcoind")
}
