//! A real node of another implementation on a private network.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tipward_chain::sync::peer::wire::BlockHash;

use crate::{free_address, on_path, rpc};

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long bcoin may take for what it is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node of bcoin on regtest and on loopback, with an empty chain that it keeps in memory. It is stopped when dropped.
#[derive(Debug)]
pub struct Bcoin {
    child: Child,
    _dir: TempDir,
    http: SocketAddr,
    wallet: SocketAddr,
    p2p: SocketAddr,
}

impl Bcoin {
    /// Starts a full node that knows no other node but `only`, if that is given; `None`, said in a line, where there is no
    /// bcoin: its directory of programs is looked for in the environment variable `BCOIN`, then where the program `bcoin` on
    /// the path is.
    #[must_use]
    pub fn full(only: Option<SocketAddr>) -> Option<Self> {
        Self::start("node", only)
    }

    /// Starts an SPV node with its wallet, of which the same is true.
    #[must_use]
    pub fn spv(only: SocketAddr) -> Option<Self> {
        Self::start("spvnode", Some(only))
    }

    fn start(program: &str, only: Option<SocketAddr>) -> Option<Self> {
        let Some(programs) = find() else {
            crate::missing("TIPWARD_REQUIRE_NODES", "no bcoin: set BCOIN or put it on the path");
            return None;
        };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (http, wallet, p2p) = (
            free_address(Ipv4Addr::LOCALHOST),
            free_address(Ipv4Addr::LOCALHOST),
            free_address(Ipv4Addr::LOCALHOST),
        );
        let mut command = Command::new("node");
        command
            .arg(programs.join(program))
            .args(["--network=regtest", "--memory=true", "--workers=false", "--log-file=false"])
            .arg(format!("--prefix={}", dir.path().display()))
            .args(["--discover=false", "--upnp=false", "--listen=true", "--host=127.0.0.1", "--bip37=true"])
            .args([format!("--port={}", p2p.port()), "--public-host=127.0.0.1".to_owned()])
            .args(["--http-host=127.0.0.1", "--no-auth=true", "--wallet-no-auth=true"])
            .args([format!("--http-port={}", http.port()), format!("--wallet-http-port={}", wallet.port())])
            .args(only.map(|only| format!("--only={only}")))
            // Its modules in C++ may not be built.
            .env("NODE_BACKEND", "js")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().expect("node.js starts");
        let node = Self { child, _dir: dir, http, wallet, p2p };
        let deadline = Instant::now() + START_TIMEOUT;
        while let Err(error) = node.try_rpc("getblockcount", &json!([])) {
            assert!(Instant::now() < deadline, "bcoin does not answer: {error}");
            sleep(Duration::from_millis(100));
        }
        Some(node)
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
        rpc::call(minreq::post(format!("http://{}/", self.http)), method, parameters)
    }

    /// What the node's wallet answers to a `GET` of `path`.
    ///
    /// # Panics
    /// It does not.
    #[must_use]
    pub fn wallet(&self, path: &str) -> Value {
        let url = format!("http://{}/wallet/primary{path}", self.wallet);
        rpc::answer(minreq::get(url)).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// A signed transaction of the node's wallet that was not sent, as hexadecimal text.
    ///
    /// # Panics
    /// The wallet has no money.
    #[must_use]
    pub fn payment(&self, address: &str) -> String {
        let body = json!({"rate": 10_000, "outputs": [{"address": address, "value": 10_000}]}).to_string();
        let request = minreq::post(format!("http://{}/wallet/primary/create", self.wallet))
            .with_header("Content-Type", "application/json")
            .with_body(body);
        let created = rpc::answer(request).unwrap_or_else(|error| panic!("create: {error}"));
        created["hex"].as_str().unwrap_or_else(|| panic!("create: {created}")).to_owned()
    }

    /// The output script of an address of the node's wallet, as hexadecimal text.
    ///
    /// # Panics
    /// The node tells none.
    #[must_use]
    pub fn wallet_script(&self) -> String {
        let address = self.wallet("/account/default")["receiveAddress"].take();
        let script = self.rpc("validateaddress", &json!([address]))["scriptPubKey"].take();
        script.as_str().expect("an address has a script").to_owned()
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
        self.rpc("getblock", &json!([hash, false])).as_str().expect("a block").to_owned()
    }

    /// The blocks of the node's best chain, by height.
    ///
    /// # Panics
    /// The chain changes meanwhile.
    #[must_use]
    pub fn chain(&self) -> Vec<(BlockHash, Vec<u8>)> {
        let blocks = (0..=self.height()).map(|height| {
            let hash = self.hash(height);
            (rpc::hash(&hash), rpc::bytes(&self.block(&hash)))
        });
        blocks.collect()
    }

    /// Mines so many blocks.
    pub fn mine(&self, blocks: u64) {
        self.mine_to(blocks, "receiveAddress");
    }

    /// Another branch becomes the best one: it parts after the block at `height` and is so many blocks long, one of them at
    /// least more than now.
    pub fn reorganize(&self, height: u64, blocks: u64) {
        let _ = self.rpc("invalidateblock", &json!([self.hash(height + 1)]));
        self.mine_to(blocks, "changeAddress");
    }

    /// Pays the wallet: on regtest the node has addresses of its own kind, which no other node knows.
    fn mine_to(&self, blocks: u64, address: &str) {
        let address = self.wallet("/account/default")[address].take();
        let _ = self.rpc("generatetoaddress", &json!([blocks, address]));
    }

    /// Waits until `is_there`.
    ///
    /// # Panics
    /// Not within two minutes.
    pub async fn wait_for(&self, what: &str, is_there: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_there(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}: bcoin is at {}", self.height());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Bcoin {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn find() -> Option<PathBuf> {
    if let Some(programs) = std::env::var_os("BCOIN") {
        return Some(programs.into());
    }
    // The program is a link into the package.
    let program = on_path("bcoin")?.canonicalize().ok()?;
    program.parent().map(PathBuf::from)
}
